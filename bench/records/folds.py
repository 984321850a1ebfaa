"""Rows of folds among the records: which they are, and which fold and film each of their clips belongs to."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.disk.limits import own_text
from bench.records.schema import Record
from bench.records.store import cell_folder

FOLDS = "folds.csv"


def row_config(config: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The configuration of the row to which a fold's cell belongs; `keys` are those of its cells, from fold 0 on."""
    return {**config, "seed": 0, "cells": keys}


def is_fold(record: Record) -> bool:
    """Whether a record is one fold of a row: its clips are those of no other cell, so it stands in no table."""
    return "folds" in record.config and "cells" not in record.config


def trained_in(results: Path, record: Record) -> list[Path]:
    """The folders of the cells that were trained for a record: its own, or those of a row of folds."""
    own = cell_folder(results, record)
    return [own.parent / key for key in record.config["cells"]] if "cells" in record.config else [own]


def read_folds(folder: Path) -> dict[str, tuple[int, int]]:
    """(fold, film) of every clip of the row in `folder`, both counted from 0. Raises BenchError for a file that is absent or
    damaged."""
    path = folder / FOLDS
    try:
        rows = list(csv.DictReader(io.StringIO(own_text(path))))
        found = {row["clip"]: (int(row["fold"]), int(row["film"])) for row in rows}
        if not rows or len(found) < len(rows):
            raise ValueError("a clip stands there twice" if rows else "it lists no clip")
        for what, numbers in zip(("fold", "film"), map(set, zip(*found.values(), strict=True)), strict=True):
            if numbers != set(range(len(numbers))):
                raise ValueError(f"its {what}s are not numbered from 0 on without a gap")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"{path} cannot be read ({error}): remove its folder, and bench run makes it again") from error
    return found
