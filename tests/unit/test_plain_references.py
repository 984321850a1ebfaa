"""The plain references of the speed measurements train as the engine does: same weights, same losses, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import nn

from bench.method import Batch, Search
from bench.nn.beam import beam_search
from tests.perf import decoding, training
from tests.perf.generated import batch, teachable, vocabulary

WORDS, WIDTH = 40, 12
STREAMS = {"frames": (5, 7)}
RANGES = {"words": (6,), "actions": (5,), "objects": (9,)}
OBJECTS = {"regions": (5, 3, 6), "frames": (5, 7), "motion": (4, 8)}
PLACES = {"frames": (5, 7), "spatial": (6, 8)}
LENGTHS = {"frames": (5, 3, 1, 4), "regions": (5, 3, 0, 4), "motion": (4, 0, 2, 1), "spatial": (6, 2, 4, 1)}
MADE = {
    "salstm": lambda: training.salstm(WIDTH, WORDS, STREAMS),
    "recnet:local": lambda: training.recnet(WIDTH, WORDS, STREAMS),
    "glrg": lambda: training.glrg(WIDTH, WORDS, RANGES),
    "hail": lambda: training.hail(WIDTH, WORDS, OBJECTS),
    "vre": lambda: training.vre(WIDTH, WORDS, PLACES),
    "vre with sound": lambda: training.vre(WIDTH, WORDS, {**PLACES, "audio": (4,)}),
}


def ragged(shapes: Mapping[str, tuple[int, ...]]) -> Batch:
    """Four clips with three captions each; what lies behind the `LENGTHS` of a stream is not zero, and some regions are."""
    one = batch(shapes, captions=12, per_clip=3, words=WORDS)
    for name, mask_CT in one.masks.items():
        mask_CT.copy_(torch.arange(mask_CT.shape[1]) < torch.tensor(LENGTHS[name]).unsqueeze(1))
    if "regions" in one.streams:
        one.streams["regions"][0, 1, 2] = 0
        one.streams["regions"][1, 0] = 0
    return one


def doubled(one: Batch) -> Batch:
    return replace(one, streams={name: values.double() for name, values in one.streams.items()})


def test_every_pair_is_compared() -> None:
    assert {name.partition(" ")[0] for name in MADE} == training.PAIRS.keys()


@pytest.mark.parametrize("name", MADE)
def test_losses_agree_over_fifty_steps(name: str) -> None:
    torch.manual_seed(0)
    pair = MADE[name]()
    one = ragged(pair.streams)
    engine, plain = (
        training.step_of(module, loss, one)
        for module, loss in ((pair.engine, pair.loss), (pair.plain, pair.plain.loss))
    )
    losses = [(engine(), plain()) for _ in range(50)]
    for number, (own, reference) in enumerate(losses):
        assert own == pytest.approx(reference, rel=1e-5), f"step {number}"
    assert losses[-1][0] < 0.99 * losses[0][0], "nothing was learned: equal losses would say little"


@pytest.mark.parametrize("name", MADE)
def test_gradients_agree_in_double_precision(name: str) -> None:
    """By their norm over all weights: Adam, which hides a gradient's scale, has no part in it."""
    torch.manual_seed(0)
    pair = MADE[name]()
    one = doubled(ragged(pair.streams))
    norms = []
    for module, loss in ((pair.engine.double(), pair.loss), (pair.plain.double(), pair.plain.loss)):
        loss(one).backward()
        norms.append(nn.utils.clip_grad_norm_(module.parameters(), float("inf")).item())
    assert norms[0] == pytest.approx(norms[1], rel=1e-8)


def test_losses_of_key_frames_agree() -> None:
    """With rewards remembered that rose and fell: over fifty steps of one batch they hardly change."""
    torch.manual_seed(0)
    pair = training.vre(WIDTH, WORDS, PLACES)
    one, before = doubled(ragged(PLACES)), 5 * torch.randn(12, dtype=torch.float64)
    engine, plain = pair.engine.double(), pair.plain.double()
    engine.rewards.put(one.caption_ids, before)
    plain.rewards.update(zip(one.caption_ids, before.tolist(), strict=True))
    losses = pair.loss(one), plain.loss(one)
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-10)
    for loss in losses:
        loss.backward()
    for layer in ("key", "query", "score"):
        own, reference = (getattr(refocus, layer).weight.grad for refocus in (engine.encoder.refocus, plain.refocus))
        assert own.norm() > 0
        torch.testing.assert_close(own, reference, rtol=1e-8, atol=1e-12)


def test_one_hypothesis_at_a_time_finds_the_same_captions() -> None:
    captioner, search = decoding.taught(WORDS, 48, 7, steps=5, lessons=150), Search(beam=3, max_words=12)
    one = teachable(STREAMS, 12, WORDS, seed=3)
    words = vocabulary(WORDS - 4)
    found = [caption.words for caption in beam_search(captioner, one, words, search)]
    assert found == [words.decode(caption) for caption in decoding.plain_beam(captioner, one, search)]
    assert 4 <= sum(map(len, found)) / len(found) <= 10, "the captions were not learned"
