"""The curves of a cell: losses and validation scores by epoch, in `curves.csv`, while it trains and afterwards."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from bench import BenchError
from bench.disk.limits import own_text

CURVES = "curves.csv"
SELECTION = "val_cider_tokens"  # the value by which the harness chooses an epoch


class Row(TypedDict):
    """One value at the end of an epoch. `captions` were read and `seconds` spent since the cell began."""

    phase: str
    epoch: int
    captions: int
    seconds: float
    name: str
    value: float


def read_curves(folder: Path) -> list[Row]:
    """Rows of a cell's curves, those of the finished cell or of its work folder. Lines that are none, or are still being
    written, are left out."""
    for path in (folder / CURVES, folder / "work" / CURVES):
        try:
            text = own_text(path)
        except (OSError, UnicodeDecodeError):
            continue
        found = []
        for line in csv.DictReader(text[: text.rfind("\n") + 1].splitlines()):
            try:
                found.append(_row(line))
            except (KeyError, OverflowError, TypeError, ValueError):
                continue
        return found
    return []


def finished_curves(folder: Path) -> list[Row]:
    """Rows of the curves of a finished cell. Raises BenchError for a file that is not one of curves."""
    path = folder / CURVES
    try:
        return [_row(line) for line in csv.DictReader(io.StringIO(own_text(path)))]
    except (KeyError, OSError, OverflowError, TypeError, ValueError) as error:
        raise BenchError(f"{path} cannot be read as training curves: {error}.") from error


def _row(line: Mapping[str, Any]) -> Row:
    return {
        "phase": line["phase"],
        "epoch": int(line["epoch"]),
        "captions": int(float(line["captions"])),
        "seconds": float(line["seconds"]),
        "name": line["name"],
        "value": float(line["value"]),
    }
