"""`train.data_fraction`: the same random half of the training clips for every method and seed (RecNet, Table 4)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.cell.inputs import Inputs, gather
from bench.conformance.workplace import Bench
from bench.plan.cells import Cell

BASES = ["mplstm", "salstm", "s2vt", "recnet"]


def asked(bench: Bench, fraction: float, *words: str, seed: int = 0) -> Cell:
    return bench.cell(seed, f"train.data_fraction={fraction}", *words)


def inputs(bench: Bench, cell: Cell) -> Inputs:
    return gather(cell.config, bench.home, lambda captions: None)


@pytest.fixture(scope="module")
def salstm(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench("salstm", Path(tmp_path_factory.mktemp("salstm")))


@pytest.mark.parametrize("method", BASES)
def test_every_base_trains_on_the_same_half_within_half_the_budget(method: str, salstm: Bench, tmp_path: Path) -> None:
    bench = Bench(method, tmp_path)
    cell = asked(bench, 0.5, "train.epochs=2", seed=1)
    half = inputs(salstm, asked(salstm, 0.5)).train.ids
    assert inputs(bench, cell).train.ids == half
    _, record = bench.run(1, "train.data_fraction=0.5", "train.epochs=2")
    captions = 3 * len(half)  # three captions for each clip of this corpus
    assert record.ledger is not None
    assert (len(half), record.ledger.budget) == (5, 2 * captions)


def test_the_half_is_random_keeps_its_order_and_is_in_every_larger_part(salstm: Bench) -> None:
    parts = {part: inputs(salstm, asked(salstm, part)).train.ids for part in (0.2, 0.5, 0.8, 1.0)}
    whole = parts[1.0]
    assert [len(ids) for ids in parts.values()] == [2, 5, 8, 10]
    assert parts[0.5] not in (whole[:5], whole[5:])
    for small, large in ((0.2, 0.5), (0.5, 0.8), (0.8, 1.0)):
        assert parts[small] == tuple(clip for clip in parts[large] if clip in parts[small])
    assert len(inputs(salstm, asked(salstm, 0.01)).train.ids) == 1


def test_only_training_gets_smaller(salstm: Bench) -> None:
    """Validation and test clips stay; the vocabulary and the references know the words of the half alone."""
    whole, part = inputs(salstm, asked(salstm, 1.0)), inputs(salstm, asked(salstm, 0.2))
    assert (part.val.ids, part.target.ids, part.val_references) == (
        whole.val.ids,
        whole.target.ids,
        whole.val_references,
    )
    spoken = {word for clip in part.train.ids for reference in part.train.references(clip) for word in reference.tokens}
    assert spoken < set(whole.vocabulary.words)
    assert set(part.vocabulary.words[4:]) == spoken


def test_a_part_is_a_part_of_the_subset(salstm: Bench) -> None:
    first: Any = inputs(salstm, asked(salstm, 1.0, "subset=6/3/4")).train.ids
    assert len(first) == 6
    assert set(inputs(salstm, asked(salstm, 0.5, "subset=6/3/4")).train.ids) < set(first)


def test_half_the_clips_is_another_question(salstm: Bench) -> None:
    assert asked(salstm, 0.5).key != asked(salstm, 1.0).key
