"""GL-RG against its equations 4-8, and the word network that stands in for its long-range encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import glrg
from oracles.arithmetic import Vector, caption_loss
from support import assert_gradient_of, captions_of, gradcheck_module, make_clips, one_batch, real_steps, shake
from symbols import Numbers, numbers, of_cell
from torch import Tensor
from torch.nn import functional

from bench.method import PAD, Batch
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.training import caption_weights
from methods.glrg.model import GLRG, Decoder, WordNetwork, discrepant_cross_entropy

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
WORDS, FRAME, WIDTH, EMBEDDING, LONG = 11, 5, 4, 3, 6
SIZES = {"words": LONG, "actions": 4, "objects": 7}
SHAPES = {"frames": (4, FRAME), "words": (LONG,), "actions": (4,), "objects": (7,)}
RANGES = [("words",), ("actions",), ("objects", "words"), ("words", "actions", "objects")]


FEEDS = ["first", "every"]


def made(
    ranges: Sequence[str],
    dtype: torch.dtype = torch.float64,
    learn_words: bool = False,
    normalise: bool = False,
    feed: str = "first",
) -> GLRG:
    network = WordNetwork(FRAME, WIDTH, LONG, 0.0, False) if learn_words else None
    decoder = Decoder(WORDS, {name: SIZES[name] for name in ranges}, WIDTH, EMBEDDING, 0.0, normalise, feed)
    model = GLRG(decoder, network).to(dtype)
    shake(model)
    return model


def of_decoder(decoder: Decoder) -> Numbers:
    found = {
        "W_join": numbers(decoder.join.weight),
        "b_join": numbers(decoder.join.bias),
        "E": numbers(decoder.embedding.weight),
        "W_o": numbers(decoder.output.weight),
        **of_cell(decoder.cell, *(["word"] if decoder.feed == "first" else ["word", "clip"])),
    }
    for name, phi in decoder.project.items():
        found |= {f"phi_{name}": numbers(phi.weight), f"b_{name}": numbers(phi.bias)}
    return found


def of_network(network: WordNetwork) -> Numbers:
    layers = {"first": network.first, "second": network.second, "dense": network.output}
    weights = {name: numbers(layer.weight) for name, layer in layers.items()}
    return {**weights, **{f"b_{name}": numbers(layer.bias) for name, layer in layers.items()}}


def scores_of(model: GLRG, batch: Batch, clip: int) -> dict[str, Vector]:
    scores = {name: numbers(batch.streams[name][clip]) for name in model.decoder.project if name in batch.streams}
    if model.word_network is not None:
        logits = glrg.word_network(of_network(model.word_network), real_steps(batch, "frames", clip))
        scores["words"] = 1 / (1 + np.exp(-logits))
    return scores


def oracle_logits(model: GLRG, batch: Batch, clip: int, words: list[int]) -> list[Vector]:
    p = of_decoder(model.decoder)
    scores = scores_of(model, batch, clip)
    if model.decoder.normalise:
        scores = {name: glrg.level(value) for name, value in scores.items()}
    return glrg.decode(p, glrg.fuse(p, scores, list(model.decoder.project)), words, model.decoder.feed)


def oracle_losses(model: GLRG, batch: Batch) -> list[float]:
    return [caption_loss(oracle_logits(model, batch, clip, words), words) for _, clip, words in captions_of(batch)]


def weights_of(batch: Batch) -> Tensor:
    return torch.linspace(0.1, 2.0, len(batch.caption_ids), dtype=torch.float64)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "levelled"])
@pytest.mark.parametrize("ranges", RANGES, ids="+".join)
def test_decoder_is_equations_4_to_7(ranges: tuple[str, ...], normalise: bool, feed: str, dtype: torch.dtype) -> None:
    batch = one_batch(make_clips(shapes=SHAPES), dtype)
    model = made(ranges, dtype, normalise=normalise, feed=feed)
    forced = teacher_forcing(model, batch)
    for row, clip, words in captions_of(batch):
        np.testing.assert_allclose(
            numbers(model.logits(forced.features_BWR[row, : len(words) + 1])),
            np.array(oracle_logits(model, batch, clip, words)),
            rtol=TOLERANCE[dtype],
            atol=TOLERANCE[dtype],
        )
    own = word_losses(model, forced).sum(1)
    np.testing.assert_allclose(numbers(own), oracle_losses(model, batch), rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_discrepant_loss_is_equation_8(dtype: torch.dtype) -> None:
    """The G captions of one video: word losses summed, weighed by m, mean over G."""
    batch = one_batch(make_clips((4,), ((3, 0, 2, 1),), SHAPES), dtype)
    model = made(("words", "actions", "objects"), dtype)
    weights = weights_of(batch)
    own = discrepant_cross_entropy(word_losses(model, teacher_forcing(model, batch)), weights.to(dtype))
    expected = glrg.discrepant(oracle_losses(model, batch), weights.tolist())
    assert own.item() == pytest.approx(expected, rel=TOLERANCE[dtype])


def test_discrepant_loss_with_weights_of_one_is_cross_entropy() -> None:
    losses = torch.rand(3, 4)
    assert torch.equal(discrepant_cross_entropy(losses, torch.ones(3)), cross_entropy(losses))


def test_weights_are_the_leave_one_out_scores_of_all_captions_of_all_clips() -> None:
    """By caption id, for clips with unequal numbers of captions, on the text as published: case and points count."""
    clips = make_clips((1,) * 4, ((3, 4, 3, 5, 4, 2), (2, 3), (4, 4, 3), (6, 5, 6, 7)), SHAPES, words=5, seed=8)
    published = {
        clip: [
            (one.id, f"{one.text.capitalize()} ." if place % 3 == 1 else one.text)
            for place, one in enumerate(clips.references(clip))
        ]
        for clip in clips.ids
    }
    texts = {name: text for own in published.values() for name, text in own}
    shown = {clip: tuple(replace(one, text=texts[one.id]) for one in clips.references(clip)) for clip in clips.ids}
    clips.references = shown.__getitem__  # type: ignore[method-assign]
    found, expected = caption_weights(clips, "cider"), glrg.consensus(published)
    assert found == pytest.approx(expected, abs=1e-12)
    assert len(found) == 15
    assert sum(value > 0.05 for value in found.values()) > 10
    assert max(found.values()) > 1


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "levelled"])
def test_gradient_is_the_slope_of_equation_8(normalise: bool, feed: str) -> None:
    batch = one_batch(make_clips((3, 2), ((2, 1), (3,)), SHAPES), torch.float64)
    model = made(("words", "actions", "objects"), normalise=normalise, feed=feed)
    weights = weights_of(batch)
    assert_gradient_of(
        model,
        lambda: discrepant_cross_entropy(word_losses(model, teacher_forcing(model, batch)), weights),
        lambda: glrg.discrepant(oracle_losses(model, batch), weights.tolist()),
    )


@pytest.mark.parametrize("feed", FEEDS)
def test_gradcheck_of_the_decoder(feed: str) -> None:
    batch = one_batch(make_clips((2, 1), ((2,), (1, 0)), SHAPES), torch.float64)
    model = made(("words", "actions"), feed=feed)

    def compute(words: Tensor, actions: Tensor) -> Tensor:
        batch.streams |= {"words": words, "actions": actions}
        return word_losses(model, teacher_forcing(model, batch)).sum(1)

    inputs = [batch.streams[name].clone() for name in ("words", "actions")]
    assert gradcheck_module(model, compute, *inputs)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_word_network_over_real_frames_only(dtype: torch.dtype) -> None:
    batch = one_batch(make_clips((4, 1, 3), garbage=1e3), dtype)
    network = WordNetwork(FRAME, WIDTH, LONG, 0.0, False).to(dtype)
    shake(network)
    own = network(batch.streams["frames"], batch.masks["frames"])
    for clip in range(3):
        np.testing.assert_allclose(
            numbers(own[clip]),
            glrg.word_network(of_network(network), real_steps(batch, "frames", clip)),
            rtol=TOLERANCE[dtype],
            atol=TOLERANCE[dtype] * 10,
        )


def test_gradcheck_of_the_word_network() -> None:
    network = WordNetwork(3, 2, 4, 0.0, False).double()
    shake(network)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert gradcheck_module(network, lambda x: network(x, mask), torch.randn(2, 3, 3, dtype=torch.float64))


@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "normalised"])
def test_padded_frames_change_no_word_score(normalise: bool) -> None:
    def logits(garbage: float) -> Tensor:
        batch = one_batch(make_clips((4, 1, 3), garbage=garbage))
        network = WordNetwork(FRAME, WIDTH, LONG, 0.0, normalise)
        shake(network)
        if network.norm is not None:
            network.norm.fit([(batch.streams["frames"], batch.masks["frames"])])
        return network(batch.streams["frames"], batch.masks["frames"])

    assert torch.equal(logits(0.0), logits(1e3))


def test_learned_words_enter_as_probabilities_and_stay_fixed() -> None:
    """The long-range encoder is frozen while captions are learned, and its dropout is off, also in training."""
    batch = one_batch(make_clips(shapes={name: SHAPES[name] for name in ("frames", "actions")}), torch.float64)
    model = made(("words", "actions"), learn_words=True)
    assert model.word_network is not None
    model.word_network.dropout.p = 0.9
    model.train()
    losses = word_losses(model, teacher_forcing(model, batch))
    np.testing.assert_allclose(numbers(losses.sum(1)), oracle_losses(model, batch), rtol=1e-10)
    losses.sum().backward()
    assert all(value.grad is None for value in model.word_network.parameters())
    assert all(value.grad is not None for value in model.decoder.parameters())


@pytest.mark.parametrize("feed", FEEDS)
def test_padded_words_change_nothing(feed: str) -> None:
    batch = one_batch(make_clips(shapes=SHAPES))
    model = made(("words", "actions", "objects"), torch.float32, feed=feed)
    before = word_losses(model, teacher_forcing(model, batch))
    batch.words_BW = functional.pad(batch.words_BW, (0, 2), value=PAD)
    after = word_losses(model, teacher_forcing(model, batch))
    assert torch.equal(after[:, :-2], before)
    assert (after[:, -2:] == 0).all()
