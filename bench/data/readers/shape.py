"""A file that is not what its format says."""

from __future__ import annotations

from pathlib import Path

from bench import BenchError


class WrongShapeError(BenchError):
    """A file without the parts of its declared format; whoever knows all formats adds what it looks like instead."""

    def __init__(self, path: Path, expected: str) -> None:
        super().__init__(f"{path} is not in the layout of {expected}")
        self.path = path
