"""VRE against Algorithms 1 and 2 and eq. 4-22."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from oracles import vre
from oracles.arithmetic import caption_loss
from support import (
    assert_gradient_of,
    captions_of,
    gradcheck_module,
    make_clips,
    one_batch,
    real_steps,
    shake,
)
from symbols import Numbers, numbers, of_cell
from torch import Tensor, nn

from bench.data.batches import CorpusClips
from bench.method import Batch
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.nn.layers import FeatureNorm
from methods.vre.encoder import Encoder, KBiGRU, ProductAttention, Video, refocus_loss
from methods.vre.model import VRE, Decoder, OnePass

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
WORDS, FRAME, PLACE, SOUND, WIDTH, ATTENTION = 11, 5, 3, 2, 4, 6
SHAPES = {"frames": (4, FRAME), "spatial": (4, PLACE), "audio": (SOUND,)}
READS = [("frames",), ("frames", "spatial"), ("frames", "spatial", "audio")]
FORMS = ["printed", "corrected"]
BETA = 0.3


def clips_with(*reads: str, **more: Any) -> CorpusClips:
    return make_clips(shapes={name: SHAPES[name] for name in reads}, **more)


def made(
    kind: str = "vre",
    reads: tuple[str, ...] = READS[-1],
    dtype: torch.dtype = torch.float64,
    normalise: bool = False,
    embedding: int = WIDTH,
) -> Any:
    sizes = {name: SHAPES[name][-1] for name in reads}
    spatial, audio = sizes.get("spatial", 0), sizes.get("audio", 0)
    encoder = None if kind == "none" else Encoder(FRAME, audio, WIDTH, ATTENTION, passes=2 if kind == "vre" else 1)
    decoder = Decoder(WORDS, FRAME, spatial, audio, WIDTH, embedding, ATTENTION, 0.0, encoder is not None)
    norms = {name: FeatureNorm(size, name) for name, size in sizes.items()} if normalise else {}
    model = VRE(norms, encoder, decoder) if kind == "vre" and encoder else OnePass(norms, encoder, decoder)
    shake(model.to(dtype))
    return model


def opened(model: VRE, clips: CorpusClips) -> VRE:
    model.open(clips)
    return model


# -- symbols ------------------------------------------------------------------------------------------------------------


def of_gru(gru: nn.GRU) -> Numbers:
    found = {}
    for name, of in (("W", gru.weight_ih_l0), ("U", gru.weight_hh_l0), ("b", gru.bias_ih_l0), ("d", gru.bias_hh_l0)):
        found |= {f"{name}_{gate}": rows for gate, rows in zip("rzn", np.split(numbers(of), 3), strict=True)}
    return found


def of_product(attention: ProductAttention) -> Numbers:
    parts = {"w": attention.score.weight[0], "W_q": attention.query.weight, "W_v": attention.key.weight}
    return {name: numbers(value) for name, value in parts.items()}


def of_model(model: OnePass) -> dict[str, Numbers]:
    decoder = model.decoder
    parts = [name for name in ("temporal", "spatial", "audio", "word") if name in decoder.cell.weights]
    own = {"E": decoder.embedding.weight, "W_x": decoder.output.weight, "b_x": decoder.output.bias}
    if isinstance(decoder.enter, nn.Linear):
        own["W_e"] = decoder.enter.weight
    found = {
        "decoder": {**{name: numbers(value) for name, value in own.items()}, **of_cell(decoder.cell, *parts)},
        "temporal": of_product(decoder.temporal),
    }
    if decoder.spatial is not None:
        found["spatial"] = of_product(decoder.spatial)
    if model.encoder is not None:
        found |= of_encoder(model.encoder)
    return found


def of_encoder(encoder: Encoder) -> dict[str, Numbers]:
    layers = {"c": encoder.scan.join, "a": encoder.combine}
    found = {"left": of_gru(encoder.scan.leftward), "right": of_gru(encoder.scan.rightward)}
    if hasattr(encoder, "merge"):
        layers["m"] = encoder.merge
        found["refocus"] = of_product(encoder.refocus)
    weights = {f"W_{name}": numbers(layer.weight) for name, layer in layers.items()}
    return {**found, "encoder": {**weights, **{f"b_{name}": numbers(layer.bias) for name, layer in layers.items()}}}


def seen_of(model: OnePass, batch: Batch, clip: int) -> vre.Seen:
    def standard(name: str, value: Any) -> Any:
        if name not in model.norms:
            return value
        norm = model.norms[name]
        assert isinstance(norm, FeatureNorm)
        return (value - numbers(norm.mean)) * numbers(norm.scale)

    places = sound = None
    if model.decoder.spatial is not None:
        places = [standard("spatial", value) for value in real_steps(batch, "spatial", clip)]
    if "audio" in model.decoder.cell.weights:
        sound = standard("audio", numbers(batch.streams["audio"][clip]))
    return vre.Seen([standard("frames", value) for value in real_steps(batch, "frames", clip)], places, sound)


def fit_norms(model: OnePass, batch: Batch) -> None:
    for name, norm in model.norms.items():
        assert isinstance(norm, FeatureNorm)
        values = batch.streams[name]
        norm.fit([(values, batch.masks.get(name, torch.ones(values.shape[:-1], dtype=torch.bool)))])


def oracle_both(model: VRE, batch: Batch, keys: Mapping[str, int] | None = None) -> list[tuple[float, float, float]]:
    """For each caption (L1, L2, alpha of the key frame), in batch order."""
    parts, found = of_model(model), []
    for _, clip, words in captions_of(batch):
        seen = seen_of(model, batch, clip)
        watched = vre.watch(parts, seen, None if keys is None else keys[batch.clip_ids[clip]])
        one, two = (caption_loss(vre.decode(parts, seen, o, words), words) for o in (watched.first, watched.second))
        found.append((one, two, watched.alpha[watched.key]))
    return found


# -- the equations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("key", [0, 2, 4])
def test_kbigru_starts_at_the_key_frame_in_both_directions(key: int, dtype: torch.dtype) -> None:
    scan = KBiGRU(FRAME, WIDTH).to(dtype)
    shake(scan)
    frames = torch.randn(2, 6, FRAME, dtype=dtype)
    own = scan(frames, torch.tensor([key, 1]), torch.tensor([5, 2]))
    p = {"W_c": numbers(scan.join.weight), "b_c": numbers(scan.join.bias)}
    for row, (start, count) in enumerate(((key, 5), (1, 2))):
        real = list(numbers(frames[row, :count]))
        expected = vre.kbigru(of_gru(scan.leftward), of_gru(scan.rightward), p, real, start)
        np.testing.assert_allclose(numbers(own[row]), expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_refocusing_weights_are_those_of_equations_8_and_9(dtype: torch.dtype) -> None:
    model, batch = made(dtype=dtype), one_batch(clips_with(*READS[-1], garbage=1e3), dtype)
    video = model.video(batch)
    _, first = model.encoder.first(video)
    own = model.encoder.look(video, first).exp()
    second = model.encoder.second(video, model.encoder.first(video)[0], own.argmax(1))
    for clip in range(len(batch.clip_ids)):
        seen = seen_of(model, batch, clip)
        watched = vre.watch(of_model(model), seen)
        np.testing.assert_allclose(numbers(first[clip]), watched.first, atol=TOLERANCE[dtype], rtol=0)
        np.testing.assert_allclose(numbers(own[clip, : len(seen.frames)]), watched.alpha, atol=TOLERANCE[dtype], rtol=0)
        np.testing.assert_allclose(numbers(second[clip]), watched.second, atol=TOLERANCE[dtype], rtol=0)
        assert own[clip].argmax() == watched.key
        assert not own[clip, len(seen.frames) :].any()


def test_the_bias_of_equation_8_changes_nothing() -> None:
    p = of_product(made().encoder.refocus)
    values, query = list(np.random.default_rng(0).normal(size=(4, FRAME))), np.ones(WIDTH)
    assert vre.attend(p, values, query, 3.7) == pytest.approx(vre.attend(p, values, query), rel=1e-12)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("embedding", [WIDTH, 3], ids=["o is a word", "o through a map"])
@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "normalised"])
@pytest.mark.parametrize("reads", READS, ids="+".join)
@pytest.mark.parametrize("kind", ["none", "kbigru"])
def test_rows_of_one_pass(
    kind: str, reads: tuple[str, ...], normalise: bool, embedding: int, dtype: torch.dtype
) -> None:
    batch = one_batch(clips_with(*reads, garbage=1e3), dtype)
    model = made(kind, reads, dtype, normalise, embedding)
    fit_norms(model, batch)
    own = word_losses(model, teacher_forcing(model, batch)).sum(1).tolist()
    parts = of_model(model)
    for row, clip, words in captions_of(batch):
        seen = seen_of(model, batch, clip)
        o = None if kind == "none" else vre.first_vector(parts, seen)
        assert own[row] == pytest.approx(caption_loss(vre.decode(parts, seen, o, words), words), rel=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "normalised"])
@pytest.mark.parametrize("reads", READS, ids="+".join)
def test_the_joint_loss_is_equation_22(reads: tuple[str, ...], normalise: bool, form: str, dtype: torch.dtype) -> None:
    """With rewards of the epoch before that some captions surpass and others do not reach."""
    clips = clips_with(*reads, garbage=1e3)
    batch = one_batch(clips, dtype)
    model = opened(made("vre", reads, dtype, normalise), clips)
    fit_norms(model, batch)
    before = np.linspace(-1.0, 1.0, len(batch.caption_ids))
    model.rewards.put(batch.caption_ids, torch.tensor(before))
    told = oracle_both(model, batch)
    losses = model.joint_losses(batch, 0.0, BETA, form, "same")
    terms = [
        vre.refocus_loss(alpha, one - two - earlier, form)
        for (one, two, alpha), earlier in zip(told, before, strict=True)
    ]
    one, two, refocus = (float(np.mean(values)) for values in ([t[0] for t in told], [t[1] for t in told], terms))
    tolerance = TOLERANCE[dtype]
    assert losses["first_cross_entropy"].item() == pytest.approx(one, rel=tolerance)
    assert losses["cross_entropy"].item() == pytest.approx(two, rel=tolerance)
    assert losses["refocus"].item() == pytest.approx(refocus, rel=10 * tolerance, abs=tolerance)
    assert losses["loss"].item() == pytest.approx(two + one + BETA * refocus, rel=tolerance)
    rewards = numbers(model.rewards.find(batch.caption_ids))
    np.testing.assert_allclose(rewards, [t[0] - t[1] for t in told], atol=10 * tolerance, rtol=0)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_retraining_loss_reads_the_stored_key_frames(dtype: torch.dtype) -> None:
    clips = clips_with(*READS[-1], garbage=1e3)
    batch = one_batch(clips, dtype)
    model = opened(made(dtype=dtype), clips)
    keys = {"c0": 3, "c1": 0, "c2": 1}
    model.key_frames.put(list(keys), torch.tensor(list(keys.values())))
    told = oracle_both(model, batch, keys)
    losses = model.fixed_losses(batch, 0.0)
    assert losses["loss"].item() == pytest.approx(np.mean([one + two for one, two, _ in told]), rel=TOLERANCE[dtype])


@pytest.mark.parametrize("form", FORMS)
def test_gradient_is_the_slope_of_equation_22(form: str) -> None:
    """Of all parameters, R_e and R_{e-1} held fixed: the refocusing module learns from LR+ alone."""
    clips = make_clips((3, 2), ((2, 1), (3,)), {"frames": (3, FRAME), "spatial": (3, PLACE), "audio": (SOUND,)})
    batch = one_batch(clips, torch.float64)
    model = opened(made(), clips)
    before = [-0.5, 0.2, -0.4]
    changes = [one - two - earlier for (one, two, _), earlier in zip(oracle_both(model, batch), before, strict=True)]
    assert min(changes) < 0 < max(changes)

    def loss() -> Tensor:
        model.rewards.put(batch.caption_ids, torch.tensor(before))
        return model.joint_losses(batch, 0.0, BETA, form, "same")["loss"]

    def total() -> float:
        told = zip(oracle_both(model, batch), changes, strict=True)
        return float(np.mean([one + two + BETA * vre.refocus_loss(a, change, form) for (one, two, a), change in told]))

    assert_gradient_of(model, loss, total)
    for value in model.encoder.refocus.parameters():
        assert value.grad is not None and value.grad.abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["none", "kbigru"])
def test_gradient_of_the_rows_of_one_pass(kind: str) -> None:
    clips = make_clips((3, 2), ((2, 1), (3,)), {"frames": (3, FRAME), "spatial": (3, PLACE), "audio": (SOUND,)})
    batch, model = one_batch(clips, torch.float64), made(kind)

    def total() -> float:
        parts, losses = of_model(model), []
        for _, clip, words in captions_of(batch):
            seen = seen_of(model, batch, clip)
            o = None if kind == "none" else vre.first_vector(parts, seen)
            losses.append(caption_loss(vre.decode(parts, seen, o, words), words))
        return float(np.mean(losses))

    assert_gradient_of(model, lambda: cross_entropy(word_losses(model, teacher_forcing(model, batch))), total)


def test_gradcheck_of_the_encoder() -> None:
    encoder = Encoder(2, 1, 2, 2, passes=2).double()
    shake(encoder)
    mask = torch.tensor([[True, True, True], [True, True, False]])

    def compute(frames: Tensor, audio: Tensor) -> Tensor:
        video = Video(frames, mask, audio=audio)
        hidden, first = encoder.first(video)
        chosen = encoder.look(video, first).gather(1, torch.tensor([[2], [0]]))
        return torch.cat([encoder.second(video, hidden, torch.tensor([2, 0])), chosen], dim=-1)

    frames, audio = torch.randn(2, 3, 2, dtype=torch.float64), torch.randn(2, 1, dtype=torch.float64)
    assert gradcheck_module(encoder, compute, frames, audio, fast=False)


# -- LR+ ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [0.7, -0.7, 0.0])
@pytest.mark.parametrize("form", FORMS)
def test_refocus_loss_and_the_way_it_pulls(form: str, change: float) -> None:
    """A better reward raises alpha of the key frame. A worse one lowers it; eq. 21 as printed raises it all the same."""
    scores = torch.tensor([[0.3, 1.2, -0.4, float("-inf")]], dtype=torch.float64, requires_grad=True)
    log_weights = torch.log_softmax(scores, -1)
    loss = refocus_loss(log_weights, torch.tensor([1]), torch.tensor([change], dtype=torch.float64), form)
    alpha = log_weights.detach().exp()[0, 1].item()
    assert loss.item() == pytest.approx(vre.refocus_loss(alpha, change, form), rel=1e-12, abs=1e-15)
    loss.sum().backward()
    assert scores.grad is not None
    raises = -float(scores.grad[0, 1])  # what a step of gradient descent does to the score of the key frame
    if change == 0:
        assert not scores.grad.any()
    elif change > 0 or form == "printed":
        assert raises > 0.01
    else:
        assert raises == pytest.approx(-abs(change) * alpha)  # of the order of alpha: it does not vanish near 1


def test_a_certain_key_frame_can_still_be_left() -> None:
    """1 - alpha is zero in float32; the loss and its gradient are neither infinite nor zero."""
    scores = torch.tensor([[60.0, 0.0, 0.0]], requires_grad=True)
    loss = refocus_loss(torch.log_softmax(scores, -1), torch.tensor([0]), torch.tensor([-0.5]), "corrected")
    assert loss.item() == pytest.approx(0.5 * (60 - math.log(2)), rel=1e-5)
    loss.sum().backward()
    assert scores.grad is not None
    assert scores.grad[0].tolist() == pytest.approx([0.5, -0.25, -0.25], rel=1e-5)


def test_a_clip_of_one_frame_has_no_loss() -> None:
    scores = torch.tensor([[2.0, float("-inf")], [0.0, 1.0]], requires_grad=True)
    loss = refocus_loss(torch.log_softmax(scores, -1), torch.tensor([0, 1]), torch.tensor([-1.0, -1.0]), "corrected")
    assert loss[0] == 0
    loss.sum().backward()
    assert scores.grad is not None and torch.isfinite(scores.grad).all()


# -- masks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "normalised"])
def test_padded_frames_and_places_change_nothing(normalise: bool) -> None:
    def losses(garbage: float) -> dict[str, Tensor]:
        clips = clips_with(*READS[-1], garbage=garbage)
        batch = one_batch(clips)
        model = opened(made(dtype=torch.float32, normalise=normalise), clips)
        fit_norms(model, batch)
        model.joint_losses(batch, 0.0, BETA, "corrected", "same")
        model.rewards.put(batch.caption_ids, torch.zeros(len(batch.caption_ids)))
        return model.joint_losses(batch, 0.0, BETA, "corrected", "same")

    quiet, loud = losses(0.0), losses(1e3)
    assert all(torch.equal(quiet[name], loud[name]) for name in quiet)


def test_longer_padding_changes_nothing() -> None:
    """Three more padded frames and words: the same losses, to the last digits of float64."""
    clips = clips_with(*READS[-1])
    batch = one_batch(clips, torch.float64)
    pad = torch.full((3, 3, FRAME), 7.0, dtype=torch.float64)
    wide = replace(
        batch,
        streams={**batch.streams, "frames": torch.cat([batch.streams["frames"], pad], 1)},
        masks={**batch.masks, "frames": torch.cat([batch.masks["frames"], torch.zeros(3, 3, dtype=torch.bool)], 1)},
        words_BW=torch.cat([batch.words_BW, torch.zeros(len(batch.words_BW), 3, dtype=torch.long)], 1),
    )

    def losses(of: Batch) -> list[float]:
        model = opened(made(), clips)
        model.rewards.put(of.caption_ids, torch.zeros(len(of.caption_ids)))
        return [value.item() for value in model.joint_losses(of, 0.0, BETA, "corrected", "same").values()]

    assert losses(wide) == pytest.approx(losses(batch), rel=1e-12)


def test_places_without_a_mask_are_all_real() -> None:
    batch = one_batch(clips_with(*READS[-1]), torch.float64)
    model = made("kbigru")
    batch.masks["spatial"][:] = True
    masked = word_losses(model, teacher_forcing(model, batch))
    del batch.masks["spatial"]
    assert torch.equal(word_losses(model, teacher_forcing(model, batch)), masked)


@pytest.mark.parametrize("kind", ["vre", "kbigru"])
def test_values_multiplied_beforehand_teach_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one form is held against the oracle above: the other gives the same losses and gradients."""
    clips = clips_with(*READS[-1])
    batch = one_batch(clips, torch.float64)

    def learned(beforehand: bool) -> list[Tensor]:
        asked: list[int] = []
        monkeypatch.setattr("methods.vre.model.pays_beforehand", lambda *given: (asked.append(1), beforehand)[1])
        torch.manual_seed(0)
        model = opened(made(kind), clips) if kind == "vre" else made(kind)
        if kind == "vre":
            model.rewards.put(batch.caption_ids, torch.full((len(batch.caption_ids),), 0.5))
            loss = model.joint_losses(batch, 0.0, BETA, "corrected", "same")["loss"]
        else:
            loss = word_losses(model, teacher_forcing(model, batch)).sum()
        loss.backward()
        assert len(asked) == 2, "frames and places"
        return [loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]

    for before, after in zip(learned(True), learned(False), strict=True):
        torch.testing.assert_close(before, after, rtol=1e-11, atol=1e-12)
