"""Scores of further metrics, beside the record of the cell whose captions they are of: `further.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from bench import BenchError
from bench.disk.digests import file_digest
from bench.disk.limits import own_json, own_text
from bench.disk.whole import write_atomically
from bench.records.store import PREDICTIONS

FURTHER = "further.json"


class FurtherScore(TypedDict):
    """A score on its metric's own scale, and what the number is."""

    value: float
    signature: str


def read_further(folder: Path) -> dict[str, FurtherScore]:
    """Further scores of a cell by metric; none where there are none, or where they are of other captions than it has now."""
    try:
        content = own_json(own_text(folder / FURTHER))
        if content["predictions"] != file_digest(folder / PREDICTIONS):
            return {}
        return {
            str(name): {"value": float(one["value"]), "signature": str(one["signature"])}
            for name, one in content["scores"].items()
        }
    except (AttributeError, BenchError, KeyError, OSError, TypeError, ValueError):
        return {}


def add_further(folder: Path, scores: Mapping[str, FurtherScore]) -> None:
    """Put scores beside those that a cell has. Raises CannotWrite."""
    content = {"predictions": file_digest(folder / PREDICTIONS), "scores": {**read_further(folder), **scores}}
    write_atomically(folder / FURTHER, json.dumps(content, indent=2, sort_keys=True) + "\n")
