"""RecNet against its equations 2-13 and 22."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from oracles import recnet, transformer
from oracles.arithmetic import Vector, caption_loss
from support import (
    FakeRun,
    assert_gradient_of,
    captions_of,
    digest,
    gradcheck_module,
    make_clips,
    one_batch,
    real_steps,
    shake,
)
from symbols import Numbers, numbers, of_attention, of_cell, of_soft_attention, of_transformer
from torch import Tensor, nn

from bench.data.batches import CorpusClips
from bench.method import PAD, Batch
from bench.nn.captioners import S2VT, FrameCaptioner, SoftAttention
from bench.nn.decoding import Forced, Memory, cross_entropy, teacher_forcing, word_losses
from bench.nn.sampling import sample
from bench.nn.transformer import Transformer
from bench.training import CaptionModel, self_critical_phase
from methods.recnet import RecNet, build
from methods.recnet.model import GlobalReconstructor, LocalReconstructor, Reconstructor, distance

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
WORDS, FRAME, WIDTH, EMBEDDING, ATTENTION = 11, 5, 4, 3, 6
HEADS = 2
KINDS = ["global", "local", "joint"]
NORMS = ["l2", "sqsum", "mse"]
WEIGHT = 0.3


def made(
    kind: str,
    norm: str = "l2",
    dtype: torch.dtype = torch.float64,
    normalise: bool = False,
    word_weights: str = "attention",
    base: type[FrameCaptioner] = SoftAttention,
) -> RecNet:
    sizes = (WORDS, FRAME, WIDTH, EMBEDDING, 0.0, normalise)
    if base is Transformer:
        decoder: FrameCaptioner = Transformer(WORDS, FRAME, WIDTH, 0.0, normalise, heads=HEADS, expansion=2)
    else:
        decoder = base(*sizes) if base is S2VT else base(*sizes, ATTENTION)
    model = RecNet(decoder, Reconstructor(kind, WIDTH, FRAME, ATTENTION, norm, word_weights), WEIGHT).to(dtype)
    shake(model)
    return model


def of_reconstructor(reconstructor: Reconstructor) -> Numbers:
    rebuild = reconstructor.rebuild
    if isinstance(rebuild, GlobalReconstructor):
        return of_cell(rebuild.cell, "word", "mean")
    assert isinstance(rebuild, LocalReconstructor)
    names = ("w_b", "W_hr", "W_zr", "b_r")
    if rebuild.attention is None:
        return of_cell(rebuild.cell, "attended")
    return {**of_cell(rebuild.cell, "attended"), **of_attention(rebuild.attention, names)}


def frames_of(model: RecNet, batch: Batch, clip: int) -> list[Vector]:
    frames = real_steps(batch, "frames", clip)
    if model.decoder.norm is None:
        return frames
    return [(v - numbers(model.decoder.norm.mean)) * numbers(model.decoder.norm.scale) for v in frames]


def oracle(model: RecNet, batch: Batch) -> tuple[float, float]:
    """(L_ED, L_rec), each a mean over captions."""
    caption, rebuilt = [], []
    kind, norm = model.reconstructor.kind, model.reconstructor.norm
    for _, clip, words in captions_of(batch):
        frames = frames_of(model, batch, clip)
        hidden, logits, alphas = recnet.decode(of_soft_attention(model.decoder), frames, words)
        caption.append(caption_loss(logits, words))
        symbols, weights = of_reconstructor(model.reconstructor), model.reconstructor.word_weights
        rebuilt.append(recnet.reconstruction(symbols, hidden, frames, kind, norm, alphas, weights))
    return float(np.mean(caption)), float(np.mean(rebuilt))


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "normalised"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_the_papers(kind: str, norm: str, normalise: bool, dtype: torch.dtype) -> None:
    batch = one_batch(make_clips(garbage=1e3), dtype)
    model = made(kind, norm, dtype, normalise)
    if model.decoder.norm is not None:
        model.decoder.norm.fit([(batch.streams["frames"], batch.masks["frames"])])
    losses = model.losses(batch, 0.0)
    caption, rebuilt = oracle(model, batch)
    own = [losses["cross_entropy"].item(), losses["reconstruction"].item(), losses["loss"].item()]
    assert own == pytest.approx([caption, rebuilt, caption + WEIGHT * rebuilt], rel=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("word_weights", ["transposed", "transposed_plain"])
@pytest.mark.parametrize("kind", ["local", "joint"])
def test_transposed_attention_is_table_6s(kind: str, word_weights: str, dtype: torch.dtype) -> None:
    batch = one_batch(make_clips(garbage=1e3), dtype)
    model = made(kind, dtype=dtype, word_weights=word_weights)
    _, rebuilt = oracle(model, batch)
    losses = model.losses(batch, 0.0)
    assert losses["reconstruction"].item() == pytest.approx(rebuilt, rel=TOLERANCE[dtype])
    if dtype == torch.float64:
        assert_gradient_of(
            model, lambda: model.losses(batch, 0.0)["loss"], lambda: float(np.dot([1.0, WEIGHT], oracle(model, batch)))
        )
    other = made(kind, dtype=dtype, word_weights="transposed_plain" if word_weights == "transposed" else "transposed")
    assert other.losses(batch, 0.0)["reconstruction"].item() != pytest.approx(rebuilt, rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_reconstructor_reads_the_upper_states_of_s2vt(kind: str) -> None:
    """The states under the output layer are rebuilt from; the frames are those that the lower LSTM reads."""
    batch = one_batch(make_clips(garbage=1e3), torch.float64)
    model = made(kind, base=S2VT)
    forced = teacher_forcing(model.decoder, batch)
    expected = []
    for row, clip, words in captions_of(batch):
        hidden = list(numbers(forced.hidden_BWH[row, : len(words) + 1]))
        symbols = of_reconstructor(model.reconstructor)
        expected.append(recnet.reconstruction(symbols, hidden, frames_of(model, batch, clip), kind, "l2"))
    assert model.losses(batch, 0.0)["reconstruction"].item() == pytest.approx(np.mean(expected), rel=1e-10)
    assert torch.equal(forced.hidden_BWH, forced.features_BWR), "S2VT's output layer reads its upper hidden state"


class AllAtOnce(SoftAttention):
    """A decoder that reads the words of a caption together, its padding too, and says how often it did."""

    times = 0

    def read(self, words_BW: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        self.times += 1
        state, steps = self.start(memory), []
        for words_B in words_BW.unbind(1):
            hidden, state, weights = self.step(words_B, state, memory)
            steps.append((hidden, weights))
        hidden, weights = (torch.stack(parts, 1) for parts in zip(*steps, strict=True))
        loud = (words_BW == PAD).unsqueeze(-1)
        return hidden.masked_fill(loud, 1e3), hidden.masked_fill(loud, -1e3), weights.masked_fill(loud, 1e3)


@pytest.mark.parametrize(("kind", "word_weights"), [*((kind, "attention") for kind in KINDS), ("local", "transposed")])
def test_states_of_a_decoder_that_reads_all_words_at_once_are_rebuilt_from_too(kind: str, word_weights: str) -> None:
    batch = one_batch(make_clips(garbage=1e3), torch.float64)
    model, plain = (made(kind, base=base, word_weights=word_weights) for base in (AllAtOnce, SoftAttention))
    losses = []
    for one in (model, plain):
        losses.append(one.losses(batch, 0.0))
        losses[-1]["loss"].backward()
    assert model.decoder.times == 1
    assert {name: value.item() for name, value in losses[0].items()} == pytest.approx(
        {name: value.item() for name, value in losses[1].items()}, rel=1e-12
    )
    for own, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert own.grad is not None
        np.testing.assert_allclose(numbers(own.grad), numbers(other.grad), rtol=1e-10, atol=1e-14)
    model.losses(batch, 0.5)
    assert model.decoder.times == 1, "own words are known one after the other"


def rebuilt_from(model: RecNet, drawn: Batch, forced: Forced) -> float:
    """L_rec of drawn captions, a mean over them, from the hidden states of the decoder."""
    found = []
    symbols, kind = of_reconstructor(model.reconstructor), model.reconstructor.kind
    for row, clip in enumerate(drawn.clip_of_B.tolist()):
        hidden = list(numbers(forced.hidden_BWH[row, : int(drawn.lengths_B[row])]))
        found.append(recnet.reconstruction(symbols, hidden, frames_of(model, drawn, clip), kind, "l2"))
    return float(np.mean(found))


@pytest.mark.parametrize("kind", KINDS)
def test_states_of_a_transformer_are_rebuilt_from_too(kind: str) -> None:
    """Those that its output layer reads, by its oracle; and its weights of frames, turned round."""
    batch = one_batch(make_clips(garbage=1e3), torch.float64)
    for word_weights in ("attention",) if kind == "global" else ("attention", "transposed"):
        model = made(kind, word_weights=word_weights, base=Transformer)
        assert isinstance(model.decoder, Transformer)
        expected = []
        for _, clip, words in captions_of(batch):
            frames = frames_of(model, batch, clip)
            states, _, alphas = transformer.decode(of_transformer(model.decoder), HEADS, frames, words)
            symbols = of_reconstructor(model.reconstructor)
            expected.append(recnet.reconstruction(symbols, states, frames, kind, "l2", alphas, word_weights))
        losses = model.losses(batch, 0.0)
        assert losses["reconstruction"].item() == pytest.approx(np.mean(expected), rel=1e-10)
        losses["loss"].backward()
        for part in (model.decoder.encoder, model.decoder.decoder, model.decoder.embedding):
            assert all(value.grad is not None for value in part.parameters())


@pytest.mark.parametrize("base", [SoftAttention, S2VT, Transformer])
def test_drawn_captions_are_reconstructed_from_too(base: type[FrameCaptioner]) -> None:
    """Under RL, L_rec of eq. 22 is that of the caption that was drawn."""
    clips = make_clips(garbage=1e3)
    batch = one_batch(clips, torch.float64)
    model = made("local", base=base)
    torch.manual_seed(0)
    drawn = sample(model.decoder, batch, 5).batch
    forced = teacher_forcing(model.decoder, drawn)
    found = model.beside(drawn, forced)
    expected = rebuilt_from(model, drawn, forced)
    assert found["reconstruction"].item() == pytest.approx(expected, rel=1e-10)
    assert found["loss"].item() == pytest.approx(WEIGHT * expected, rel=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_the_slope_of_equation_22(kind: str) -> None:
    """Of all parameters: the decoder feels the reconstruction through its hidden states."""
    batch = one_batch(make_clips((3, 2), ((2, 1), (3,)), {"frames": (3, FRAME)}, garbage=1e3), torch.float64)
    model = made(kind)

    def total() -> float:
        caption, rebuilt = oracle(model, batch)
        return caption + WEIGHT * rebuilt

    assert_gradient_of(model, lambda: model.losses(batch, 0.0)["loss"], total)


@pytest.mark.parametrize("kind", KINDS)
def test_reconstruction_alone_moves_the_decoder_but_not_the_output_layer(kind: str) -> None:
    batch = one_batch(make_clips(), torch.float64)
    model = made(kind)
    forced = teacher_forcing(model.decoder, batch)
    frames, mask = model.decoder.frames(batch)
    model.reconstructor(forced, frames[batch.clip_of_B], mask[batch.clip_of_B]).backward()
    assert model.decoder.output.weight.grad is None
    for value in (model.decoder.cell.recurrent, model.decoder.embedding.weight, model.decoder.attention.key.weight):
        assert value.grad is not None
        assert value.grad.abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["global", "local"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_rebuilt_states_are_z(kind: str, dtype: torch.dtype) -> None:
    model = made(kind, dtype=dtype)
    rebuild = model.reconstructor.rebuild
    hidden, lengths = torch.randn(3, 4, WIDTH, dtype=dtype), [4, 1, 3]
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    hidden = torch.where(mask.unsqueeze(-1), hidden, torch.tensor(1e3, dtype=dtype))
    own = rebuild(hidden, mask) if kind == "global" else rebuild(hidden, mask, 6)
    for row, length in enumerate(lengths):
        real = list(numbers(hidden[row, :length]))
        symbols = of_reconstructor(model.reconstructor)
        z = recnet.rebuild_global(symbols, real) if kind == "global" else recnet.rebuild_local(symbols, real, 6)
        np.testing.assert_allclose(
            numbers(own[row, : len(z)]), np.array(z), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
        )


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind: str) -> None:
    reconstructor = Reconstructor(kind, 2, 3, 2, "l2").double()
    shake(reconstructor)
    batch = one_batch(make_clips((3, 2), ((2,), (1,)), {"frames": (3, 3)}), torch.float64)
    base = teacher_forcing(SoftAttention(WORDS, 3, 2, 2, 0.0, False, 2).double(), batch)

    def compute(hidden: Tensor) -> Tensor:
        return reconstructor(replace(base, hidden_BWH=hidden), batch.streams["frames"], batch.masks["frames"])

    assert gradcheck_module(reconstructor, compute, torch.randn(2, 3, 2, dtype=torch.float64), fast=False)


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_in_padded_words_and_frames_is_never_seen(kind: str) -> None:
    batch = one_batch(make_clips())
    model = made(kind, dtype=torch.float32)
    forced = teacher_forcing(model.decoder, batch)
    frames, mask = model.decoder.frames(batch)
    frames, mask = frames[batch.clip_of_B], mask[batch.clip_of_B]
    before = model.reconstructor(forced, frames, mask)
    loud = replace(forced, hidden_BWH=forced.hidden_BWH.masked_fill(~forced.mask_BW.unsqueeze(-1), 1e3))
    assert torch.equal(model.reconstructor(loud, frames.masked_fill(~mask.unsqueeze(-1), 1e3), mask), before)


@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "normalised"])
@pytest.mark.parametrize("kind", KINDS)
def test_padded_frames_in_the_stream_change_nothing(kind: str, normalise: bool) -> None:
    def losses(garbage: float) -> dict[str, Tensor]:
        batch = one_batch(make_clips(garbage=garbage))
        model = made(kind, dtype=torch.float32, normalise=normalise)
        if model.decoder.norm is not None:
            model.decoder.norm.fit([(batch.streams["frames"], batch.masks["frames"])])
        return model.losses(batch, 0.0)

    quiet, loud = losses(0.0), losses(1e3)
    assert all(torch.equal(quiet[name], loud[name]) for name in quiet)


def test_targets_are_constants() -> None:
    """No gradient reaches the features through L_rec: the frames may come from an encoder that learns."""
    model = made("joint")
    batch = one_batch(make_clips(), torch.float64)
    forced = teacher_forcing(model.decoder, batch)
    frames = batch.streams["frames"][batch.clip_of_B].requires_grad_()
    model.reconstructor(forced, frames, batch.masks["frames"][batch.clip_of_B]).backward()
    assert frames.grad is None


def test_joint_loss_is_the_sum_of_its_halves_over_one_recurrence() -> None:
    """Eq. 13: one LSTM, not two; the local half equals RecNet-local with the same weights."""
    joint, local = made("joint"), made("local")
    local.load_state_dict(joint.state_dict())
    batch = one_batch(make_clips(), torch.float64)
    gap = joint.losses(batch, 0.0)["reconstruction"] - local.losses(batch, 0.0)["reconstruction"]
    mean_half = []
    for _, clip, words in captions_of(batch):
        frames = real_steps(batch, "frames", clip)
        hidden, _, _ = recnet.decode(of_soft_attention(joint.decoder), frames, words)
        rebuilt = recnet.rebuild_local(of_reconstructor(joint.reconstructor), hidden, len(frames))
        mean_half.append(recnet.psi(np.mean(rebuilt, 0), np.mean(frames, 0)))
    assert gap.item() == pytest.approx(np.mean(mean_half), rel=1e-10)


@pytest.mark.parametrize("norm", NORMS)
def test_distance_of_equal_vectors_has_a_finite_gradient(norm: str) -> None:
    a = torch.ones(1, 3, requires_grad=True)
    distance(a, torch.ones(1, 3), norm).sum().backward()
    assert a.grad is not None
    assert (a.grad == 0).all()


def test_weight_zero_is_the_captioner_alone() -> None:
    model = made("local")
    model.weight = 0.0
    batch = one_batch(make_clips(), torch.float64)
    plain = cross_entropy(word_losses(model.decoder, teacher_forcing(model.decoder, batch)))
    assert model.losses(batch, 0.0)["loss"].item() == plain.item()


def test_reconstructor_sizes_are_those_of_the_paper() -> None:
    """Hidden 1536, so that z compares with v; its inputs are 1024 (eq. 7) and 512 (eq. 11) wide."""

    def widths(cell: nn.Module) -> dict[str, tuple[int, ...]]:
        return {name: tuple(value.shape) for name, value in cell.named_parameters()}

    wide = widths(GlobalReconstructor(512, 1536).cell)
    assert wide["weights.word"] == wide["weights.mean"] == (4 * 1536, 512)
    assert wide["recurrent"] == (4 * 1536, 1536)
    assert widths(LocalReconstructor(512, 1536, 512).cell)["weights.attended"] == (4 * 1536, 512)


# -- the three stages ---------------------------------------------------------------------------------------------------

SETTINGS = {
    "base": "salstm",
    "reconstructor": "local",
    "rec_norm": "l2",
    "word_weights": "attention",
    "reinforce_rate": 0.01,
    "reward_end": True,
    "width": WIDTH,
    "embedding": EMBEDDING,
    "attention": ATTENTION,
    "dropout": 0.0,
    "normalise": False,
    "initial": "zeros",
}
STAGES = {"base": 0.5, "reconstruct": 0.25, "reinforce": 0.25}


def staged(clips: CorpusClips, weight: float = WEIGHT) -> tuple[CaptionModel, RecNet]:
    model = build({**SETTINGS, "reconstruction_weight": weight}, clips.streams, clips.vocabulary)
    shake(model.module)
    assert isinstance(model.module, RecNet)
    return model, model.module


def test_losses_of_the_stages_are_equation_14_then_equation_22_with_both_forms_of_l_ed() -> None:
    """`base` knows nothing of L_rec; `reconstruct` adds it to cross-entropy, `reinforce` to the reward of drawn captions."""
    clips, run = make_clips(), FakeRun(1, STAGES)
    batch, (adapter, model) = one_batch(clips, torch.float64), staged(clips)
    model.double()
    base, reconstruct, reinforce = adapter.phases(clips, run)
    assert {phase.name: phase.share for phase in (base, reconstruct, reinforce)} == STAGES
    caption, rebuilt = oracle(model, batch)
    assert base.loss(batch)["loss"].item() == pytest.approx(caption, rel=1e-10)
    assert reconstruct.loss(batch)["loss"].item() == pytest.approx(caption + WEIGHT * rebuilt, rel=1e-10)

    alone = self_critical_phase(model.decoder, SETTINGS, clips, run)
    values = []
    for phase in (reinforce, alone):
        torch.manual_seed(3)
        values.append(phase.loss(batch)["loss"].item())
    torch.manual_seed(3)
    drawn = sample(model.decoder, batch, run.search.max_words).batch
    again = rebuilt_from(model, drawn, teacher_forcing(model.decoder, drawn))
    assert values[0] - values[1] == pytest.approx(WEIGHT * again, rel=1e-8)
    assert reinforce.train == alone.train


@pytest.mark.parametrize("weight", [WEIGHT, 0.0], ids=["RecNet", "lambda=0"])
def test_decoder_and_reconstructor_learn_together_once_there_is_something_to_rebuild(weight: float) -> None:
    """Stage A trains the decoder, B and C both parts; with lambda = 0 the decoder goes through the same three alone."""
    clips, rising = make_clips(), itertools.count()
    adapter, model = staged(clips, weight)

    def parts() -> tuple[str, str]:
        return digest(model.decoder.state_dict()), digest(model.reconstructor.state_dict())

    ends = {"start": parts()}
    run = FakeRun(4 * 6, STAGES, score=lambda method: float(next(rising)))  # the last weights of a stage stay
    original = run.report

    def report(phase: str, epoch: int, values: Mapping[str, Any]) -> None:
        original(phase, epoch, values)
        ends[phase] = parts()

    run.report = report  # type: ignore[method-assign]
    adapter.fit(clips, run)
    assert list(ends) == ["start", *STAGES]
    moved = {
        name: tuple(one != other for one, other in zip(ends[before], ends[name], strict=True))
        for before, name in itertools.pairwise(ends)
    }
    both = (True, weight > 0)
    assert moved == {"base": (True, False), "reconstruct": both, "reinforce": both}


def test_scheduled_sampling_goes_on_while_reconstructing() -> None:
    clips = make_clips()
    batch, (adapter, model) = one_batch(clips, torch.float64), staged(clips)
    model.double()
    _, reconstruct, _ = adapter.phases(clips, FakeRun(1, STAGES, {"scheduled_sampling": 1.0}))
    torch.manual_seed(3)
    found = reconstruct.loss(batch)["loss"].item()
    torch.manual_seed(3)
    forced = teacher_forcing(model.decoder, batch, 1.0)
    own = cross_entropy(word_losses(model.decoder, forced)) + WEIGHT * model.reconstruction(batch, forced)
    assert found == pytest.approx(own.item(), rel=1e-10)
    assert found != pytest.approx(model.losses(batch, 0.0)["loss"].item(), rel=1e-3)
