"""EtENet's second step: features from pixels, what learns and what does not, accumulation, memory, resume, sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support import DiedError, FakeRun, TinyEncoder, digest, make_clips, shake
from torch import Tensor, nn

from bench.data.batches import CorpusClips, StreamSource
from bench.method import Batch, Search
from bench.training import phases as loop
from methods.etenet import FromPixels, build
from methods.etenet.model import EndToEnd, EtENetDecoder

SHAPES = {"frames": (4, 5), "pixels": (4, 3, 9, 9)}
SIZES = ((3, 1), (2, 4), (2, 3), (1, 3))
CAPTIONS = 8
SETTINGS: dict[str, Any] = {
    "attention_weight": 0.70602,
    "width": 6,
    "embedding": 4,
    "attention": 5,
    "dropout": 0.0,
    "normalise": True,
    "step2": "end_to_end",
    "encoder": None,
    "encoder_weights": "pretrained",
    "encoder_rate": 0.01,
    "encoder_weight_decay": 0.0,
}
SHARES = {"end_to_end": {"frozen": 0.5, "end_to_end": 0.5}, "frozen": {"frozen": 0.5, "decoder_only": 0.5}}


def clips_of(seed: int = 0, **more: Any) -> CorpusClips:
    return make_clips((4, 2, 3, 4), SIZES, SHAPES, seed=seed, **more)


def made(clips: CorpusClips, **settings: Any) -> FromPixels:
    torch.manual_seed(3)
    model = build(SETTINGS | settings, clips.streams, clips.vocabulary)
    assert isinstance(model, FromPixels)
    return model


def run_of(epochs: int, step2: str = "end_to_end", train: Mapping[str, Any] | None = None, **more: Any) -> FakeRun:
    return FakeRun(epochs * CAPTIONS, SHARES[step2], train, **more)


def attached(dtype: torch.dtype = torch.float64) -> EndToEnd:
    model = EndToEnd(EtENetDecoder(11, 5, 6, 4, 5, 0.0, False), learns=True)
    shake(model)
    model.attach(TinyEncoder())
    model.from_pixels.fill_(True)
    for parameter in model.trainable():
        parameter.requires_grad_(True)
    return model.to(dtype).train()


# -- features -----------------------------------------------------------------------------------------------------------


def test_features_are_the_encoders_of_real_frames_and_zero_on_padding() -> None:
    batch = next(clips_of(garbage=1e3).in_order(4))
    model = attached(torch.float32)
    pixels, mask_CT = batch.streams["pixels"], batch.masks["pixels"]
    assert model.phi is not None
    seen = model.look(pixels, mask_CT)
    for clip in range(len(pixels)):
        for time in range(4):
            expected = model.phi(pixels[clip, time : time + 1])[0] if mask_CT[clip, time] else torch.zeros(5)
            torch.testing.assert_close(seen[clip, time], expected, rtol=1e-5, atol=1e-6)


def test_pixels_stay_bytes_on_their_way_to_the_encoder() -> None:
    (batch,) = clips_of().epoch(0, 100, 100)
    assert batch.streams["pixels"].dtype == torch.uint8
    assert batch.streams["frames"].dtype == torch.float32
    assert next(clips_of().reading(["pixels"]).in_order(2)).streams.keys() == {"pixels"}


def gradients(model: EndToEnd, loss: Callable[[EndToEnd], Tensor]) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    loss(model).backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def test_thrown_away_activations_change_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = next(clips_of().in_order(4))

    def loss(model: EndToEnd) -> Tensor:
        return model.look(batch.streams["pixels"], batch.masks["pixels"]).square().sum()

    model = attached()
    checkpointed = gradients(model, loss)
    monkeypatch.setattr("methods.etenet.model.checkpoint", lambda phi, clip, **_: phi(clip))
    kept = gradients(model, loss)
    assert checkpointed.keys() == kept.keys() == {f"encoder.{name}" for name in ("first.weight", *WEIGHTS)}
    for name in kept:
        torch.testing.assert_close(checkpointed[name], kept[name], rtol=1e-12, atol=0)


WEIGHTS = ("second.weight", "second.bias", "out.weight", "out.bias")


def held(clips: int, frames: int) -> int:
    """Bytes of real numbers that autograd holds for the backward pass through the encoder, for so many clips and frames."""
    model = attached(torch.float32)
    pixels = torch.randint(0, 256, (clips, frames, 3, 24, 24), dtype=torch.uint8)
    found: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        if (
            value.is_floating_point() and value.shape[-1] > 5
        ):  # not the vectors themselves, nor the weights of the scatter
            found[value.data_ptr()] = value.numel() * value.element_size()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        model.look(pixels, torch.ones(clips, frames, dtype=torch.bool))
    return sum(found.values())


def test_memory_does_not_grow_with_clips_and_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    assert held(1, 2) == held(8, 2) == held(2, 16)
    monkeypatch.setattr("methods.etenet.model.checkpoint", lambda phi, clip, **_: phi(clip))
    assert held(8, 2) > 4 * held(1, 2) > 0, "the count would see activations that are kept"


# -- what learns --------------------------------------------------------------------------------------------------------


class Watched(FakeRun):
    """Remembers the state of the method's module at the end of every epoch, and the optimizer's groups."""

    def watch(self, model: FromPixels) -> Watched:
        self.model, self.states = model, {}
        return self

    def report(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        self.states[phase, epoch] = {name: value.clone() for name, value in self.model.module.state_dict().items()}
        super().report(phase, epoch, values)


def watched(epochs: int, step2: str, **settings: Any) -> tuple[FromPixels, Watched]:
    clips = clips_of()
    model = made(clips, step2=step2, **settings)
    run = Watched(epochs * CAPTIONS, SHARES[step2]).watch(model)
    model.fit(clips, run)
    return model, run


def changed(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_step_2_moves_every_convolution_and_no_batch_normalisation() -> None:
    model, run = watched(4, "end_to_end")
    start, first, last = ({f"encoder.{k}": v for k, v in TinyEncoder().state_dict().items()}, *ends(run, "end_to_end"))
    frozen = {name: value for name, value in first.items() if name.startswith("encoder.")}
    assert changed(start, frozen) == set(), "step 1 leaves the encoder alone"
    moved = changed({**first, "from_pixels": last["from_pixels"]}, last)
    norm = {name for name in last if name.startswith("encoder.norm.")}
    assert {"encoder.norm.weight", "encoder.norm.bias", "encoder.norm.running_mean", "encoder.norm.running_var"} < norm
    assert not moved & norm
    assert {name for name in last if name.startswith("encoder.")} - norm <= moved
    assert any(name.startswith("decoder.") for name in moved)
    assert not model.captioner.phi.training  # type: ignore[union-attr]


def ends(run: Watched, second: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """States at the end of step 1 and of step 2."""
    last = {phase: max(epoch for name, epoch in run.states if name == phase) for phase, _ in run.states}
    return run.states["frozen", last["frozen"]], run.states[second, last[second]]


def test_the_encoder_stays_in_eval_mode_while_it_learns() -> None:
    clips, modes = clips_of(), []

    class Spy(TinyEncoder):
        def forward(self, frames_NCYX: Tensor) -> Tensor:
            modes.append((torch.is_grad_enabled(), self.training, self.norm.training))
            return super().forward(frames_NCYX)

    made(clips).fit(clips, run_of(2, encoder=lambda name, weights: Spy()))
    assert {(training, norm) for _, training, norm in modes} == {(False, False)}
    assert any(learning for learning, _, _ in modes)


def test_the_control_trains_the_decoder_from_the_same_pixels_and_leaves_the_encoder() -> None:
    lent: list[nn.Module] = []

    def lend(name: str, weights: str) -> nn.Module:
        lent.append(TinyEncoder())
        return lent[-1]

    clips = clips_of()
    model = made(clips, step2="frozen")
    model.fit(clips, run_of(4, "frozen", encoder=lend))
    assert digest(lent[0].state_dict()) == digest(TinyEncoder().state_dict())
    assert model.captioner.from_pixels
    assert not [name for name in model.state_dict() if name.startswith("encoder")], "an encoder as it came is not saved"


def test_at_a_rate_of_nothing_step_2_is_the_control() -> None:
    """Both read the same features in the same order, so that nothing but the learning of the encoder tells them apart."""
    trained, _ = watched(4, "end_to_end", encoder_rate=0.0)
    control, _ = watched(4, "frozen")
    own = {name: value for name, value in trained.state_dict().items() if not name.startswith("encoder")}
    assert digest(own) == digest(control.state_dict())
    other, _ = watched(4, "end_to_end")
    assert digest({name: value for name, value in other.state_dict().items() if name in own}) != digest(own)


def test_the_first_phase_of_step_2_is_step_1() -> None:
    """Half of a budget twice as large: the decoder after it is that of step 1, to the last bit."""
    _, run = watched(4, "end_to_end")
    torch.manual_seed(3)
    clips = clips_of()
    alone = build(SETTINGS | {"step2": "none"}, clips.reading(["frames"]).streams, clips.vocabulary)
    alone.fit(clips.reading(["frames"]), FakeRun(2 * CAPTIONS, {"frozen": 1.0}, score=lambda method: 0.0))
    first = run.states["frozen", 0]  # the score is always 0: the first epoch is the best
    assert digest(alone.state_dict()) == digest(
        {n.removeprefix("decoder."): v for n, v in first.items() if "decoder" in n}
    )


def test_two_groups_with_rates_and_decays_of_their_own() -> None:
    clips = clips_of()
    model = made(clips, encoder_rate=1e-9, encoder_weight_decay=4e-5)
    model.prepare(run_of(1).encoder)
    model.borrow("pretrained")
    frozen, second = model.phases(clips, run_of(1, train={"learning_rate": 1e-4, "weight_decay": 1e-4}))
    decoder, encoder = second.groups
    assert (decoder.learning_rate, decoder.weight_decay) == (None, None)  # those of the run
    assert (encoder.learning_rate, encoder.weight_decay) == (1e-9, 4e-5)
    names = {id(value): name for name, value in model.module.named_parameters()}
    assert {names[id(value)] for value in encoder.parameters()} == {
        f"encoder.{name}" for name in ("first.weight", *WEIGHTS)
    }
    assert {names[id(value)].partition(".")[0] for value in decoder.parameters()} == {"decoder"}
    assert (frozen.reads, second.reads) == (["frames"], ["pixels"])


# -- accumulation -------------------------------------------------------------------------------------------------------


def doubled(clips: CorpusClips) -> CorpusClips:
    """The same clips with float64 features."""

    class Doubled(CorpusClips):
        def _batch(self, groups: Any) -> Batch:
            batch = super()._batch(groups)
            own = {name: v if v.dtype == torch.uint8 else v.double() for name, v in batch.streams.items()}
            return replace(batch, streams=own)

        def reading(self, streams: Any) -> CorpusClips:
            return doubled(super().reading(streams))

    return Doubled(clips.ids, clips._references, clips._sources, clips.vocabulary, clips._seed, clips._spend)


def after_one_step(train: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights after one step of plain descent at rate 1 over all captions, clipped to -10..10 as printed."""
    clips = doubled(make_clips((4,) * 12, ((2,),) * 12, SHAPES, dtype=np.float64))
    model = made(clips, encoder_rate=1.0)
    model.module.double()
    common = {"optimizer": "sgd", "learning_rate": 1.0, "clip": 10.0, "clip_by": "value", "captions_per_clip": 1}
    run = FakeRun(
        12, {"frozen": 0.0, "end_to_end": 1.0}, {**common, **train}, encoder=lambda *_: TinyEncoder().double()
    )
    model.fit(clips, run)
    return dict(model.state_dict())


@pytest.mark.parametrize("small", [1, 4, 5])
def test_accumulated_steps_are_those_of_the_large_batch(small: int) -> None:
    """Algorithm 1: batches of 1, 4, or 5, 5 and 2 make the step of one batch of 12, through the encoder as well."""
    large, summed = after_one_step({"captions": 12}), after_one_step({"captions": small, "accumulate": 12})
    assert len(changed({f"encoder.{k}": v.double() for k, v in TinyEncoder().state_dict().items()}, large)) > 4
    for name, value in large.items():
        torch.testing.assert_close(summed[name], value, rtol=1e-10, atol=1e-12)


# -- resume, checkpoints, decoding --------------------------------------------------------------------------------------


def score(method: FromPixels) -> float:
    captions = method.decode(make_clips((4, 2), ((), ()), SHAPES, seed=9), Search(beam=2, max_words=4))
    return sum(caption.log_probability for caption in captions)


@pytest.mark.parametrize("step2", SHARES)
def test_a_run_that_died_anywhere_ends_with_the_same_weights(step2: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_SECONDS", -1.0)
    train = {"accumulate": 5, "captions": 3}

    def attempt(run: FakeRun) -> str:
        clips = clips_of()
        model = made(clips, step2=step2, dropout=0.3)
        torch.manual_seed(run.calls + 99 if run.saved is not None else 5)
        model.fit(clips, run)
        assert model.captioner.from_pixels
        return digest(model.state_dict())

    whole = run_of(4, step2, train, score=score)
    expected = attempt(whole)
    for death in range(1, whole.calls, 5):
        first = run_of(4, step2, train, score=score, die_at=death)
        with pytest.raises(DiedError):
            attempt(first)
        assert attempt(run_of(4, step2, train, score=score, saved=first.saved)) == expected, f"died at call {death}"


def with_stream(clips: CorpusClips, name: str, change: Callable[[np.ndarray], np.ndarray]) -> CorpusClips:
    """The same clips with one stream changed."""
    source = clips._sources[name]

    def read(ids: Any) -> tuple[np.ndarray, np.ndarray]:
        values, lengths = source.read(ids)
        return change(values), lengths

    sources = {**clips._sources, name: StreamSource(source.info, read)}
    return CorpusClips(clips.ids, clips._references, sources, clips.vocabulary)


@pytest.mark.parametrize("step2", SHARES)
def test_captions_come_from_pixels_once_step_2_has_begun(step2: str) -> None:
    clips, search = clips_of(), Search(beam=2, max_words=5)
    model = made(clips, step2=step2)

    def scores(other: CorpusClips) -> list[float]:
        return [caption.log_probability for caption in model.decode(other, search)]

    other_frames = with_stream(clips, "frames", lambda values: values + 1)
    other_pixels = with_stream(clips, "pixels", lambda values: 255 - values)
    assert scores(other_pixels) == scores(clips) != scores(other_frames)
    model.fit(clips, run_of(4, step2))
    assert scores(other_frames) == scores(clips) != scores(other_pixels)


def test_a_checkpoint_of_a_trained_encoder_needs_no_file_of_weights() -> None:
    clips, asked = clips_of(), []

    def lend(name: str, weights: str) -> nn.Module:
        asked.append((name, weights))
        return TinyEncoder()

    for step2, expected in (("end_to_end", "empty"), ("frozen", "sha256:abc")):
        model = made(clips, step2=step2, encoder_weights="sha256:abc")
        model.fit(clips, run_of(2, step2, encoder=lend))
        fresh = made(clips, step2=step2, encoder_weights="sha256:abc")
        with pytest.raises(ValueError, match="encoder tiny has to be lent: call prepare first"):
            fresh.load_state_dict(model.state_dict())
        fresh.prepare(lend)
        fresh.load_state_dict(model.state_dict())
        assert asked[-2:] == [("tiny", "sha256:abc"), ("tiny", expected)]
        assert digest(fresh.state_dict()) == digest(model.state_dict())


# -- sentences ----------------------------------------------------------------------------------------------------------


def fit(clips: CorpusClips, **settings: Any) -> None:
    made(clips, **settings).fit(clips, run_of(1))


def test_features_of_another_encoder_are_refused() -> None:
    clips = clips_of()
    fit(with_stream(clips, "frames", lambda values: values * 1.05))
    fit(make_clips((2, 4, 3, 4), SIZES, SHAPES, garbage=1e3))  # what padding holds is not compared
    with pytest.raises(ValueError, match=r"encoder tiny makes of the pixels are off by 50% from the stream frames"):
        fit(with_stream(clips, "frames", lambda values: values * 2))
    wide = make_clips((4, 2, 3, 4), SIZES, {"frames": (4, 7), "pixels": (4, 3, 9, 9)})
    with pytest.raises(ValueError, match=r"encoder tiny makes of the pixels are 5 wide, not 7 from the stream frames"):
        fit(wide)


def test_other_frames_of_the_clip_are_refused() -> None:
    fewer = with_stream(clips_of(), "pixels", lambda values: values)
    source = fewer._sources["pixels"]
    original = source.read
    source.read = lambda ids: (original(ids)[0], original(ids)[1] - 1)
    with pytest.raises(ValueError, match=r"clip c0 has 4 frames in the stream frames and 3 in pixels: make both"):
        fit(fewer)


def test_an_encoder_that_nobody_names_is_asked_for() -> None:
    clips = clips_of()
    clips.streams = {name: replace(info, encoder="") for name, info in clips.streams.items()}
    with pytest.raises(
        ValueError, match=r"nothing says for which encoder the pixels were prepared: set etenet\.encoder="
    ):
        fit(clips)
    fit(clips, encoder="tiny")


def test_step_2_without_pixels_or_without_its_phase_is_refused() -> None:
    clips = clips_of()
    with pytest.raises(
        ValueError, match=r"step2=end_to_end reads the stream pixels: use a variant that does, step2 or"
    ):
        build(SETTINGS, clips.reading(["frames"]).streams, clips.vocabulary)
    with pytest.raises(
        ValueError, match=r"step2=frozen trains in the phases frozen and decoder_only; this variant lacks"
    ):
        made(clips, step2="frozen").fit(clips, run_of(1))
