"""`bench test`: the checks of methods, as lines on a terminal."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.conformance.checks import CHECKS, examine
from bench.declare.registry import find_methods
from bench.plan.cells import variants

WIDTH = max(map(len, CHECKS))
MOVED = ("BENCH_HOME", "BENCH_CACHE", "BENCH_DATA")  # a corpus made for a check has no business in a user's folders


def test(names: Sequence[str]) -> int:
    """Print a line for each check of each method or variant in `names`; returns how many failed.

    Raises BenchError for names that do not exist and for methods whose card is refused.
    """
    entries = find_methods()
    rows = [f"{card.name}:{variant}" for name in names for card, variant in variants(name, entries)]
    failed = 0
    for row in rows:
        if len(rows) > 1:
            print(f"{row}", flush=True)
        failed += _test(row)
    return failed


def _test(row: str) -> int:
    counts: dict[str, int] = {}
    with _apart() as place:
        for finding in examine(row, place):
            counts[finding.state] = counts.get(finding.state, 0) + 1
            state = "FAILED" if finding.state == "failed" else finding.state
            print(f"{finding.check:{WIDTH}}  {state:11}  {finding.reason}".rstrip(), flush=True)
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    print(f"{row}: {sum(counts.values())} checks, {states}", flush=True)
    return counts.get("failed", 0)


@contextmanager
def _apart() -> Iterator[Path]:
    """An empty folder that is removed afterwards, and no variable that leads elsewhere."""
    before = {name: os.environ.pop(name) for name in MOVED if name in os.environ}
    try:
        with tempfile.TemporaryDirectory(prefix="bench-test-") as place:
            yield Path(place)
    finally:
        os.environ.update(before)
