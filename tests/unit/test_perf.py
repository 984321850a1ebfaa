"""The measuring itself: what a row says, what is written down, and that every method has a step to measure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from bench.declare.registry import find_methods
from tests.perf import memory, rows, throughput
from tests.perf.generated import MSVD, batch
from tests.perf.rows import Row
from tests.perf.timing import operations, seconds
from tests.perf.training import BARS, PAIRS, soft_attention

FAST = Row(
    "salstm step, fp32", "the published way", 8.5, 8, details={"plain captions/s": 20.0, "engine captions/s": 170.0}
)
SLOW = Row("harness", "the bare loop", 7.0, 5, "%", at_most=True)


def test_a_row_beside_its_bar() -> None:
    assert (FAST.met, SLOW.met, Row("a", "b", 1.0).met) == (True, False, None)
    text = rows.told([FAST, SLOW, Row("clock", "the clock", 0.51234, 1.0, "s", at_most=True)])
    assert "8.5x" in text and "at least 8x" in text and "7%" in text and "at most 5%" in text and "MISSED" in text
    assert "0.512 s" in text and "plain captions/s 20" in text


def test_json_and_picture_say_what_was_measured(tmp_path: Path) -> None:
    rates = {"salstm": {"plain": 20.0, "fp32": 170.0, "bf16": 400.12345}, "s2vt": {"fp32": 90.0}}
    shares = {"salstm": {"matrix products": 0.75}}
    paths = rows.save([FAST, SLOW], rates, shares, 2, "cpu", tmp_path)
    content = json.loads(paths[0].read_text())
    assert [row["met"] for row in content["rows"]] == [True, False]
    assert content["captions_per_second"]["salstm"]["bf16"] == 400.1
    assert {"cpu", "torch", "cores", "threads"} <= content["hardware"].keys()
    picture = paths[1].read_text()
    assert "salstm published way 20, engine, fp32 170" in rows.picture(rates, "here").alt and "$" not in picture
    assert all(text in picture for text in ("salstm", "s2vt", "published way", ">400<"))


def test_every_method_has_a_step_and_every_pair_a_bar() -> None:
    cards = {name: entry.card for name, entry in find_methods().items()}
    assert throughput.CASES.keys() == cards.keys()
    for name, case in throughput.CASES.items():
        card = cards[name]
        assert card is not None
        assert case.phase in (card.variants[case.variant].phases or card.phases)
    assert PAIRS.keys() == BARS.keys()


@pytest.mark.parametrize("name", throughput.CASES)
def test_a_step_trains(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput.generated, "WORDS", 40)
    small = {stream: tuple(min(size, 6) for size in shape) for stream, shape in throughput.CASES[name].streams.items()}
    case = throughput.CASES[name]
    monkeypatch.setitem(throughput.CASES, name, throughput.Case(case.variant, case.phase, small))
    monkeypatch.setattr(throughput, "CLIPS", 4)
    step, one = throughput.step(name, captions=8)
    assert len(one.caption_ids) == 8
    assert operations(step) > 1e6


def test_kinds_of_operations() -> None:
    kinds = {
        name: throughput._kind(name)
        for name in ("aten::addmm", "aten::copy_", "Optimizer.step#Adam.step", "aten::tanh")
    }
    assert list(kinds.values()) == ["matrix products", "copies", "optimizer", "the rest"]


def test_logits_of_all_places_give_the_same_loss() -> None:
    torch.manual_seed(0)
    engine, one = soft_attention(8, 40, 7), batch({"frames": (5, 7)}, 12, 3, words=40)
    losses = {way: memory.loss_of(engine, way)(one).item() for way in ("own", "full")}
    assert losses["own"] == pytest.approx(losses["full"], rel=1e-6)
    assert MSVD["frames"] == (28, 1536)


def test_ways_take_turns() -> None:
    order: list[str] = []
    taken = seconds({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=2)
    assert order == ["a", "b"] * 3 and taken.keys() == {"a", "b"}


def test_rows_of_features_measure_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In small: every row is there, with its bar, and extraction really extracts."""
    pytest.importorskip("av", reason='needs pip install "captionbench[extract]"')
    pytest.importorskip("hdf5plugin")
    from tests.perf import features

    for name, value in {
        "ENCODER": "shapes",
        "ROUNDS": 1,
        "VIDEOS": 4,
        "LENGTH": 12,
        "FRAMES": 2,
        "BATCH": 4,
        "STORED": 8,
        "SHAPE": (2, 8),
        "MANY": 50,
    }.items():
        monkeypatch.setattr(features, name, value)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))  # without the detector's weights
    found = features.rows(1)
    assert [(row.bar, row.at_most) for row in found] == [(1.15, True), (1.3, True), (10, False), (1.0, True)]
    assert all(row.measured > 0 for row in found)
