"""The plain references of the speed measurements train as the engine does: same weights, same losses, step by step."""

from __future__ import annotations

import pytest
import torch

from bench.method import Search
from bench.nn.beam import beam_search
from tests.perf import decoding, training
from tests.perf.generated import batch, teachable, vocabulary

WORDS, WIDTH = 40, 12
STREAMS = {"frames": (5, 7)}
RANGES = {"words": (6,), "actions": (5,), "objects": (9,)}
MADE = {
    "salstm": lambda: training.salstm(WIDTH, WORDS, STREAMS),
    "recnet:local": lambda: training.recnet(WIDTH, WORDS, STREAMS),
    "glrg": lambda: training.glrg(WIDTH, WORDS, RANGES),
}


def test_every_pair_is_compared() -> None:
    assert MADE.keys() == training.PAIRS.keys()


@pytest.mark.parametrize("name", MADE)
def test_losses_agree_over_fifty_steps(name: str) -> None:
    torch.manual_seed(0)
    pair = MADE[name]()
    one = batch(pair.streams, captions=12, per_clip=3, words=WORDS)
    engine, plain = (
        training.step_of(module, loss, one)
        for module, loss in ((pair.engine, pair.loss), (pair.plain, pair.plain.loss))
    )
    losses = [(engine(), plain()) for _ in range(50)]
    for number, (own, reference) in enumerate(losses):
        assert own == pytest.approx(reference, rel=1e-5), f"step {number}"
    assert losses[-1][0] < 0.99 * losses[0][0], "nothing was learned: equal losses would say little"


def test_one_hypothesis_at_a_time_finds_the_same_captions() -> None:
    captioner, search = decoding.taught(WORDS, 48, 7, steps=5, lessons=150), Search(beam=3, max_words=12)
    one = teachable(STREAMS, 12, WORDS, seed=3)
    words = vocabulary(WORDS - 4)
    found = [caption.words for caption in beam_search(captioner, one, words, search)]
    assert found == [words.decode(caption) for caption in decoding.plain_beam(captioner, one, search)]
    assert 4 <= sum(map(len, found)) / len(found) <= 10, "the captions were not learned"
