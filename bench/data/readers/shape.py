"""A file that is not what its format says."""

from __future__ import annotations

from pathlib import Path

from bench import BenchError
from bench.errors import first_line


class WrongShapeError(BenchError):
    """A file without the parts of its format, by the `fault` that its reader met; whoever knows all formats adds what it looks
    like instead."""

    def __init__(self, path: Path, expected: str, fault: Exception | None = None) -> None:
        why = "" if fault is None else f" ({type(fault).__name__}: {first_line(fault)})"
        super().__init__(f"{path} is not in the layout of {expected}{why}")
        self.path = path
