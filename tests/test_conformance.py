"""The conformance suite, for every method that ships with the project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.conformance import CHECKS, Bench
from bench.registry import find_methods

METHODS = sorted(name for name, entry in find_methods().items() if entry.card)


@pytest.fixture(scope="module")
def bench_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    made: dict[str, Bench] = {}

    def get(method: str) -> Bench:
        if method not in made:
            made[method] = Bench(method, Path(tmp_path_factory.mktemp(method)))
        return made[method]

    return get


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("method", METHODS)
def test_conformance(method: str, check: str, bench_of: Callable[[str], Bench]) -> None:
    CHECKS[check](bench_of(method))
