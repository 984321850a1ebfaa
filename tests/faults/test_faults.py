"""A handful of the cases of `make faults`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.suite import Case, Suite


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Iterator[Suite]:
    if shutil.which("cc") is None:
        pytest.skip("a layer between commands and their files wants a C compiler")
    made = Suite(tmp_path_factory.mktemp("faults"), mlflow_database)
    yield made
    made.commands.close()


@pytest.mark.parametrize(
    ("kind", "number", "happens"),
    [("kill", 0, 4), ("ENOSPC", 1, 1), ("EIO", 3, 1), ("two", 1, 1)],
)
def test_nothing_is_lost_twice_or_left(suite: Suite, kind: str, number: int, happens: int) -> None:
    found = suite.run(Case(kind, "imported", number))
    assert found.wrong == []
    assert len(found.happened) >= happens, "the fault must happen for this test to mean something"
