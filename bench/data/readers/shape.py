"""A file that is not what its format says."""

from __future__ import annotations

from pathlib import Path

from bench import BenchError


class WrongShapeError(BenchError):
    """A file without the parts of its format, of which the `fault` of its reader may name one. Whoever knows all formats adds
    what it looks like instead."""

    def __init__(self, path: Path, expected: str, fault: Exception | None = None) -> None:
        why = f": `{fault.args[0]}` is missing" if isinstance(fault, KeyError) else ""
        super().__init__(f"{path} is not in the layout of {expected}{why}")
        self.path = path
