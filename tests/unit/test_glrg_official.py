"""GL-RG as the authors' code has it (mode=official), each difference against plain loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from oracles import glrg
from oracles.arithmetic import EOS, Vector, caption_loss, log_softmax
from support import FakeRun, assert_gradient_of, captions_of, gradcheck_module, make_clips, one_batch, shake
from symbols import Numbers, numbers, of_cell
from test_methods import SMALL, build, clips_for, phases_of
from torch import Tensor, nn

from bench.data.batches import CorpusClips
from bench.method import BOS, PAD, Batch, Caption, Search, Vocabulary
from bench.nn.beam import NEVER, beam_search
from bench.nn.decoding import teacher_forcing, word_losses
from bench.training import BASELINES, CaptionReward, caption_weights
from methods.glrg.model import GLRG
from methods.glrg.official import (
    OfficialDecoder,
    draw,
    perplexity_beam,
    policy_phase,
    slot_weights,
    token_loss,
    token_policy_loss,
    until_end,
)

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
WORDS, WIDTH, EMBEDDING = 11, 4, 3
SIZES = {"words": 6, "actions": 4, "objects": 7}
SHAPES = {name: (size,) for name, size in SIZES.items()}
RANGES = [("words",), ("actions", "objects"), ("words", "actions", "objects")]
ALL = RANGES[-1]


def made(ranges: Sequence[str] = ALL, dtype: torch.dtype = torch.float64, normalise: bool = False) -> GLRG:
    sizes = {name: SIZES[name] for name in ranges}
    model = GLRG(OfficialDecoder(WORDS, sizes, WIDTH, EMBEDDING, 0.0, normalise), None).to(dtype)
    shake(model)
    return model


def parameters_of(decoder: OfficialDecoder) -> Numbers:
    return {
        "W_pool": numbers(decoder.pool.weight),
        "b_pool": numbers(decoder.pool.bias),
        "E": numbers(decoder.embedding.weight),
        "W_o": numbers(decoder.output.weight),
        "b_out": numbers(decoder.output.bias),
        **of_cell(decoder.cell, "word", "clip"),
    }


def fused(model: GLRG, batch: Batch, clip: int) -> Vector:
    scores = {name: numbers(batch.streams[name][clip]) for name in model.decoder.reads}
    if model.decoder.normalise:
        scores = {name: glrg.level(value) for name, value in scores.items()}
    return glrg.official_fuse(parameters_of(model.decoder), scores, model.decoder.reads)


def oracle_logits(model: GLRG, batch: Batch, clip: int, words: Sequence[int]) -> list[Vector]:
    return glrg.decode(parameters_of(model.decoder), fused(model, batch, clip), words, feed="every")


def oracle_losses(model: GLRG, batch: Batch) -> list[float]:
    return [caption_loss(oracle_logits(model, batch, clip, words), words) for _, clip, words in captions_of(batch)]


# -- the network -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "levelled"])
@pytest.mark.parametrize("ranges", RANGES, ids="+".join)
def test_network_against_loops(ranges: tuple[str, ...], normalise: bool, dtype: torch.dtype) -> None:
    batch = one_batch(make_clips(shapes=SHAPES), dtype)
    model = made(ranges, dtype, normalise)
    forced = teacher_forcing(model, batch)
    for row, clip, words in captions_of(batch):
        np.testing.assert_allclose(
            numbers(model.logits(forced.features_BWR[row, : len(words) + 1])),
            np.array(oracle_logits(model, batch, clip, words)),
            rtol=TOLERANCE[dtype],
            atol=TOLERANCE[dtype],
        )


def test_gradcheck_of_the_network() -> None:
    batch = one_batch(make_clips((2, 1), ((2,), (1, 0)), SHAPES), torch.float64)
    model = made(("words", "actions"))

    def compute(words: Tensor, actions: Tensor) -> Tensor:
        batch.streams |= {"words": words, "actions": actions}
        return word_losses(model, teacher_forcing(model, batch)).sum(1)

    assert gradcheck_module(model, compute, *(batch.streams[name].clone() for name in ("words", "actions")))


def test_one_layer_over_1700_probabilities_and_biases_only_in_the_output() -> None:
    clips = make_clips((1,), ((1,),), {"words": (300,), "actions": (400,), "objects": (1000,)})
    decoder = build("glrg", "dxe", clips, mode="official").captioner.decoder
    assert decoder.pool.weight.shape == (512, 1700)
    assert decoder.cell.bias is None
    assert [name for name, value in decoder.named_parameters() if value.dim() == 1] == ["pool.bias", "output.bias"]
    assert (decoder.output.bias == 0).all()
    for weight in (decoder.output.weight, decoder.embedding.weight):
        assert 0.09 < weight.abs().max() <= 0.1
    assert (decoder.cell.weights["clip"].shape, decoder.cell.weights["word"].shape) == ((2048, 512), (2048, 512))


def test_dropout_stands_behind_the_pooled_vector_and_before_the_output_layer() -> None:
    decoder = OfficialDecoder(WORDS, {"words": 6}, 200, EMBEDDING, 0.5, False)
    decoder.train()
    values = decoder.fuse({"words": torch.rand(1, 6)})
    kept = torch.relu(decoder.pool(torch.rand(1, 6)))
    assert (values == 0).sum() > 1.2 * (kept == 0).sum()
    torch.manual_seed(0)
    one, other = (decoder.logits(torch.ones(1, 200)) for _ in range(2))
    assert not torch.equal(one, other)


# -- seeding -----------------------------------------------------------------------------------------------------------


def settings(weight: str) -> dict[str, Any]:
    return {"seed_weight": weight, "weight_scale": "none"}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("weight", ["none", "cider"])
def test_losses_are_means_over_the_words_of_the_batch(weight: str, dtype: torch.dtype) -> None:
    clips = make_clips((1, 1), ((3, 1, 5), (2, 2)), SHAPES, seed=6)
    batch = one_batch(clips, dtype)
    model = made(dtype=dtype)
    forced = teacher_forcing(model, batch)
    own = token_loss(settings(weight), clips, 3)(word_losses(model, forced), batch, forced.targets_BW)
    weights = caption_weights(clips, "cider")
    given = [1.0 if weight == "none" else weights[caption] for caption in batch.caption_ids]
    lengths = batch.lengths_B.tolist()
    expected = glrg.official_mean(oracle_losses(model, batch), given, lengths)
    assert own["loss"].item() == pytest.approx(expected, rel=TOLERANCE[dtype])
    assert own["cross_entropy"].item() == pytest.approx(np.mean(oracle_losses(model, batch)), rel=TOLERANCE[dtype])
    assert len(set(lengths)) > 2
    if weight != "none":
        assert np.ptp(given) > 0.1


def test_gradient_is_the_slope_of_the_mean_over_words() -> None:
    clips = make_clips((1, 1), ((3, 1, 5), (2, 2)), SHAPES, seed=6)
    batch = one_batch(clips, torch.float64)
    model, loss, weights = made(), token_loss(settings("cider"), clips, 3), caption_weights(clips, "cider")

    def value() -> Tensor:
        forced = teacher_forcing(model, batch)
        return loss(word_losses(model, forced), batch, forced.targets_BW)["loss"]

    given = [weights[caption] for caption in batch.caption_ids]
    assert_gradient_of(
        model, value, lambda: glrg.official_mean(oracle_losses(model, batch), given, batch.lengths_B.tolist())
    )


def test_weights_are_misaligned_where_a_clip_has_more_captions_than_slots() -> None:
    """The captions of such a clip get the weights of its first captions in file order, each once, in a random order."""
    clips = make_clips((1, 1), ([2] * 30, [3, 1, 2]), SHAPES)
    weights = {caption: float(place) for place, caption in enumerate(one_batch(clips).caption_ids)}
    by_id = [weights[one.id] for one in clips.references("c0")]
    weigh = slot_weights(clips, weights, 5)
    torch.manual_seed(0)
    dealt = []
    for batch in clips.epoch(0, 5, 5):
        found = dict(zip(batch.caption_ids, weigh(batch), strict=True))
        large = [caption for caption in found if caption.startswith("c0")]
        assert sorted(found[caption] for caption in large) == sorted(by_id[: len(large)])
        assert all(found[caption] == weights[caption] for caption in found if caption.startswith("c1"))
        dealt += [found[caption] == weights[caption] for caption in large]
    assert len(dealt) == 30
    assert sum(dealt) < 5, "an aligned weight is an accident"


def test_misaligned_weights_alone_are_those_of_the_authors_loader() -> None:
    """weight_order=misaligned is the paper's loss with the weights that the authors' loader deals out, and nothing else of it."""
    clips = make_clips((1, 1), ([2] * 9, [3, 1, 2]), SHAPES)
    model = build("glrg", "dxe", clips, weight_order="misaligned")
    run = FakeRun(4, {"words": 0.2, "seed": 0.8}, {"captions_per_clip": 4})
    (phase,) = [phase for phase in phases_of(model, "glrg", "dxe", clips, run) if phase.name == "seed"]
    model.module.eval()
    batch = next(clips.epoch(0, 8, 4))
    torch.manual_seed(5)
    loss = phase.loss(batch)["loss"]
    torch.manual_seed(5)
    weights = slot_weights(clips, caption_weights(clips, "cider"), 4)(batch)
    forced = teacher_forcing(model.captioner, batch)
    expected = (word_losses(model.captioner, forced).sum(1) * torch.tensor(weights)).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    aligned = [caption_weights(clips, "cider")[caption] for caption in batch.caption_ids]
    assert weights != aligned


def test_two_groups_of_a_clip_in_a_batch_use_the_stored_weights_again() -> None:
    clips = make_clips((1,), ([2] * 6,), SHAPES)
    weights = {f"c0#{place}": float(place) for place in range(6)}
    found = slot_weights(clips, weights, 4)(one_batch(clips))
    assert sorted(found) == [0.0, 0.0, 1.0, 1.0, 2.0, 3.0]


def test_the_misalignment_is_a_function_of_the_seed() -> None:
    clips = make_clips((1,), ([2] * 9,), SHAPES)
    weigh = slot_weights(clips, {f"c0#{place}": float(place) for place in range(9)}, 8)

    def dealt(seed: int) -> list[float]:
        torch.manual_seed(seed)
        return weigh(one_batch(clips))

    assert dealt(3) == dealt(3) != dealt(4)


def test_the_papers_text_keeps_its_weights_aligned() -> None:
    """Only mode=official deals weights: with as many captions, DXE of the paper's text is a function of the batch."""
    clips = make_clips((1, 1), ([2, 3, 1, 4, 2, 3, 1], [2, 3]), {"words": (300,)})
    losses = {}
    for mode in ("paper", "official"):
        model = build("glrg", "long", clips, mode=mode, dropout=0.0, **SMALL)
        (phase,) = phases_of(model, "glrg", "long", clips)  # two captions of a clip in a batch: seven are more
        losses[mode] = {phase.loss(one_batch(clips))["loss"].item() for _ in range(8)}
    assert len(losses["paper"]) == 1
    assert len(losses["official"]) > 1


# -- boosting ----------------------------------------------------------------------------------------------------------


def oracle_log_p(model: GLRG, batch: Batch, drawn_BW: Tensor) -> list[list[float]]:
    """log p of every drawn word among those that may be written, also behind end marks."""
    found = []
    for clip, words in zip(batch.clip_of_B.tolist(), drawn_BW.tolist(), strict=True):
        logits = oracle_logits(model, batch, clip, words)[: len(words)]
        allowed = [number for number in range(WORDS) if number not in NEVER]
        values = []
        for x, word in zip(logits, words, strict=True):
            values.append(log_softmax([float(x[number]) for number in allowed])[allowed.index(word)])
        found.append(values)
    return found


def drawing() -> tuple[CorpusClips, Batch, GLRG]:
    clips = make_clips((1, 1, 1), ([2, 3, 4, 2], [3, 1, 2], [4, 4]), SHAPES, words=WORDS - 4, seed=3)
    return clips, one_batch(clips, torch.float64), made()


def test_captions_are_drawn_beyond_their_end_marks() -> None:
    _, batch, model = drawing()
    torch.manual_seed(0)
    drawn_BW, log_p_BW = draw(model, batch, 12)
    np.testing.assert_allclose(numbers(log_p_BW), np.array(oracle_log_p(model, batch, drawn_BW)), rtol=1e-10)
    assert drawn_BW.shape == (9, 12)
    assert not torch.isin(drawn_BW, torch.tensor(NEVER)).any()
    ends = (drawn_BW == EOS).long()
    assert ((ends.cumsum(1) - ends > 0) & (drawn_BW != EOS)).any(), "no word follows an end mark: nothing is shown"


def test_drawing_stops_where_all_captions_end_at_once() -> None:
    _, batch, model = drawing()
    with torch.no_grad():
        model.decoder.output.bias[EOS] = 100.0
    assert draw(model, batch, 12)[0].tolist() == [[EOS]] * 9


def test_captions_are_scored_to_their_first_end_mark() -> None:
    clips, batch, model = drawing()
    torch.manual_seed(0)
    drawn_BW, _ = draw(model, batch, 12)
    sampled = until_end(batch, drawn_BW)
    for row, words in enumerate(drawn_BW.tolist()):
        length = words.index(EOS) + 1 if EOS in words else len(words)
        assert sampled.batch.words_BW[row].tolist() == [BOS, *words[:length], *[PAD] * (len(words) - length)]
        assert sampled.captions(ended=True)[row] == tuple(words[:length])
        assert sampled.batch.lengths_B[row] == length
    assert sampled.clips() == [batch.clip_ids[row] for row in batch.clip_of_B.tolist()]
    assert CaptionReward.of_clips(clips)(sampled).max() > 0


@pytest.mark.parametrize("name", ["none", "greedy", "others"])
def test_policy_loss_and_its_gradient_against_loops(name: str) -> None:
    clips, batch, model = drawing()
    run = FakeRun(1, {"boost": 1.0})
    run.search = Search(max_words=12)
    reward = CaptionReward.of_clips(clips)
    phase = policy_phase(model, run, reward, BASELINES[name], "boost", {})  # type: ignore[arg-type]

    def told() -> dict[str, Tensor]:
        torch.manual_seed(0)
        return phase.loss(batch)

    model.train()
    torch.manual_seed(0)
    drawn_BW, _ = draw(model, batch, 12)
    rewards = reward(until_end(batch, drawn_BW))
    losses = told()
    assert losses["reward"].item() == pytest.approx(rewards.mean())
    # The baselines are those of the shared core: what they take off is their mean here, of none exactly 0.
    bases = {"none": np.zeros(9), "others": others(rewards, batch), "greedy": greedy_rewards(model, batch, reward)}[
        name
    ]
    assert losses["baseline"].item() == pytest.approx(bases.mean(), abs=1e-6)
    gain = (rewards - bases).tolist()

    def oracle() -> float:
        return glrg.official_policy_loss(drawn_BW.tolist(), oracle_log_p(model, batch, drawn_BW), gain)

    assert losses["loss"].item() == pytest.approx(oracle(), rel=1e-10)
    assert_gradient_of(model, lambda: told()["loss"], oracle)


def others(rewards: np.ndarray, batch: Batch) -> np.ndarray:
    clips = batch.clip_of_B.numpy()
    return np.array(
        [
            np.mean([r for place, r in enumerate(rewards) if clips[place] == clips[row] and place != row])
            for row in range(len(rewards))
        ]
    )


def greedy_rewards(model: GLRG, batch: Batch, reward: CaptionReward) -> np.ndarray:
    found = []
    for clip in batch.clip_of_B.tolist():
        words: list[int] = []
        while len(words) < 12 and EOS not in words:
            x = oracle_logits(model, batch, clip, words)[-1]
            words.append(max((n for n in range(WORDS) if n not in NEVER), key=lambda n: x[n]))
        one = Batch(
            batch.clip_ids,
            batch.streams,
            batch.masks,
            ("one",),
            torch.tensor([clip]),
            torch.tensor([[BOS, *words]]),
            torch.tensor([len(words)]),
        )
        found.append(float(reward(until_end(one, one.words_BW[:, 1:]))[0]))
    return np.array(found)


def test_a_word_behind_an_end_mark_has_no_gradient_and_the_next_has_again() -> None:
    drawn = torch.tensor([[5, EOS, 6, 7, EOS, EOS, 8]])
    log_p = torch.zeros(1, 7, requires_grad=True)
    token_policy_loss(drawn, log_p, torch.tensor([2.0])).backward()
    assert log_p.grad is not None
    assert (log_p.grad * -4 / 2).tolist() == [[1, 1, 0, 1, 1, 0, 0]]


def test_captions_are_drawn_with_dropout_and_compared_without() -> None:
    clips = clips_for("glrg", ("words", "actions", "objects"))
    model = build("glrg", "dxe_scst", clips, mode="official", **SMALL)
    _, boost = phases_of(model, "glrg", "dxe_scst", clips)
    modes: list[bool] = []
    encode = model.captioner.encode
    model.captioner.encode = lambda batch: (modes.append(model.captioner.training), encode(batch))[1]
    model.captioner.eval()
    boost.loss(one_batch(clips))
    assert modes == [True, False]


# -- decoding ----------------------------------------------------------------------------------------------------------


class Table(nn.Module):
    """A captioner over sentences: log p of the next word is a function of the whole prefix, drawn from the seed."""

    def __init__(self, words: int, ending: float, seed: int) -> None:
        super().__init__()
        self.words, self.ending, self.seed = words, ending, seed
        self.mark = nn.Parameter(torch.zeros(()))

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        return {"clip": torch.arange(len(batch.clip_ids)).double()}

    def start(self, memory: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return (memory["clip"] + self.seed,)

    def step(
        self, words_B: Tensor, state: tuple[Tensor, ...], memory: dict[str, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, ...], None]:
        pairs = zip(state[0].tolist(), words_B.tolist(), strict=True)
        code = torch.tensor([self.next(*pair) for pair in pairs], dtype=torch.float64)
        return code.unsqueeze(-1), (code,), None

    @staticmethod
    def next(code: float, word: int) -> float:
        return math.fmod(code * 31.7 + word * 7.3 + 1.1, 97.0)

    def logits(self, features_NR: Tensor) -> Tensor:
        scores = torch.sin(features_NR * (torch.arange(self.words) * 1.7 + 0.3)) * 3
        return scores + self.ending * torch.eye(self.words)[EOS]

    def next_log_p(self, clip: int) -> Any:
        def log_p(prefix: tuple[int, ...]) -> list[float]:
            code = float(clip + self.seed)
            for word in (BOS, *prefix):
                code = self.next(code, word)
            x = self.logits(torch.tensor([[code]], dtype=torch.float64))[0]
            return torch.log_softmax(x.float(), -1).tolist()

        return log_p


def found(captioner: Any, search: Search) -> list[Caption]:
    batch = one_batch(make_clips((1, 1, 1), ((1,), (1,), (1,)), SHAPES))
    return perplexity_beam(captioner, batch, vocabulary(), search)


def vocabulary() -> Vocabulary:
    return Vocabulary(("<pad>", "<bos>", "<eos>", "<unk>", *(f"w{number}" for number in range(4, WORDS))))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ending", [0.0, 2.0, 5.0])
@pytest.mark.parametrize(("wide", "steps"), [(1, 5), (2, 6), (5, 8), (5, 1)])
def test_beam_is_that_of_the_authors(wide: int, steps: int, ending: float, seed: int) -> None:
    captioner = Table(WORDS, ending, seed)
    for clip, caption in enumerate(found(captioner, Search(beam=wide, max_words=steps))):
        next_log_p = captioner.next_log_p(clip)
        (words, _), *_ = glrg.official_beam(next_log_p, range(4, WORDS), steps, wide)
        told = words[: words.index(EOS) + 1] if EOS in words else words
        assert caption.words == vocabulary().decode(told)
        expected = sum(next_log_p(told[:place])[word] for place, word in enumerate(told))
        assert caption.log_probability == pytest.approx(expected, rel=1e-5)
        assert caption.text not in [text for text, _ in caption.alternatives]


def test_the_beam_of_the_authors_is_another_one() -> None:
    """It does not write what the shared beam writes, and hypotheses that went on behind their end marks win in it."""
    batch = one_batch(make_clips((1, 1, 1), ((1,), (1,), (1,)), SHAPES))
    search = Search(beam=5, max_words=6)
    beyond = other = 0
    for seed in range(10):
        captioner = Table(WORDS, 3.0, seed)
        (words, _), *_ = glrg.official_beam(captioner.next_log_p(0), range(4, WORDS), 6, 5)
        beyond += EOS in words[:-1]
        shared = beam_search(captioner, batch, vocabulary(), search)
        other += [one.words for one in shared] != [one.words for one in found(captioner, search)]
    assert beyond > 0
    assert other > 0


def test_official_models_decode_with_it() -> None:
    clips = clips_for("glrg")
    model = build("glrg", "dxe", clips, mode="official", **SMALL)
    search = Search(beam=3, max_words=5, clips=2)
    captions = model.decode(clips, search)
    assert [caption.clip for caption in captions] == list(clips.ids)
    (batch,) = clips.in_order(100)
    expected = perplexity_beam(model.captioner, batch, clips.vocabulary, search)
    assert [caption.words for caption in captions] == [caption.words for caption in expected]
    plain = build("glrg", "dxe", clips, **SMALL)
    assert type(plain) is not type(model)
