"""The conformance suite, for every method that ships with the project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.conformance.checks import CHECKS
from bench.conformance.workplace import Bench
from bench.declare.registry import find_methods

CARDS = {name: entry.card for name, entry in find_methods().items() if entry.card}
ROWS = {f"{name}:{row}": variant for name, card in CARDS.items() for row, variant in card.variants.items()}
STREAMS = [row for row, variant in ROWS.items() if variant.needs]
PHASES = [row for row, variant in ROWS.items() if variant.phases and not variant.needs]
# Every method by its default variant, and the variants that need streams or train in phases which that one does not. With
# more phases the tiny corpus leaves an epoch of some of them a single batch, whose loss may lie above that of the first.
CASES = [
    *((method, check) for method in sorted([*CARDS, *STREAMS]) for check in CHECKS),
    *((row, check) for row in sorted(PHASES) for check in CHECKS if check not in ("imports_alone", "learns")),
]


@pytest.fixture(scope="module")
def bench_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    made: dict[str, Bench] = {}

    def get(method: str) -> Bench:
        if method not in made:
            made[method] = Bench(method, Path(tmp_path_factory.mktemp(method)))
        return made[method]

    return get


@pytest.mark.parametrize(("method", "check"), CASES)
def test_conformance(method: str, check: str, bench_of: Callable[[str], Bench]) -> None:
    CHECKS[check](bench_of(method))
