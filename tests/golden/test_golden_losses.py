"""Losses of every method on the tiny corpus, frozen: shared code that changes them must raise `bench.plan.cells.ENGINE`.

Regenerate after raising it: BENCH_UPDATE_GOLDEN=1 python -m pytest tests/golden/test_golden_losses.py
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import pytest

from bench.conformance.workplace import Bench
from bench.declare.registry import find_methods
from bench.plan.cells import ENGINE

GOLDEN = Path(__file__).with_name("losses.json")
METHODS = sorted(name for name, entry in find_methods().items() if entry.card and entry.source == "bench")


def losses(bench: Bench) -> dict[str, float]:
    """Loss of each phase and epoch, `phase/epoch` -> value."""
    cell, _ = bench.run()
    with (cell.folder(bench.home) / "curves.csv").open(encoding="utf-8", newline="") as file:
        return {
            f"{row['phase']}/{row['epoch']}": float(row["value"])
            for row in csv.DictReader(file)
            if row["name"] == "loss"
        }


@pytest.mark.parametrize("method", METHODS)
def test_losses_are_those_of_this_engine(method: str, tmp_path: Path) -> None:
    found = losses(Bench(method, tmp_path))
    golden = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.is_file() else {"engine": ENGINE, "losses": {}}
    if os.environ.get("BENCH_UPDATE_GOLDEN"):
        golden["engine"] = ENGINE
        golden["losses"][method] = found
        GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    assert golden["engine"] == ENGINE, "ENGINE was raised: regenerate the golden losses (see the top of this file)"
    # Another processor may round differently; a change of the engine moves far more than this.
    assert found == pytest.approx(golden["losses"][method], rel=2e-4), (
        "shared code changed the numbers: raise bench.plan.cells.ENGINE, then regenerate (see the top of this file)"
    )
