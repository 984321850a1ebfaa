"""What the captions of a cell are worth, clip by clip: two CSV files beside its record.

`clip_scores.csv` holds scores on the papers' scale. `clip_statistics.csv` holds the numbers that add up over clips, of which
corpus BLEU and METEOR are made; cells scored before it came have none.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench import BenchError
from bench.disk.whole import write_atomically
from bench.evaluation.metrics import METRICS, PARTS

SCORES = "clip_scores.csv"
STATISTICS = "clip_statistics.csv"
COLUMNS = {part.name: part.columns for part in PARTS.values() if part.columns}
"""Columns of `clip_statistics.csv` by part: see `bench.evaluation.statistics`."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CellClips:
    """One cell: `captions` by clip, and beside each, in their order, its `scores` [n] by metric, on the papers' scale, and
    its `statistics` [n, F] by part; these are empty where they are not known."""

    captions: Mapping[str, str]
    scores: Mapping[str, Floats]
    statistics: Mapping[str, Floats] = field(default_factory=dict)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self.captions)


def write_scores(path: Path, ids: Sequence[str], clips: Mapping[str, Mapping[str, float]]) -> None:
    """Write scores by metric and clip (0 to 1, CIDEr to 10) as percent."""
    names = [name for name in METRICS if name in clips]
    _write(path, names, [[clip, *(f"{100.0 * clips[name][clip]:.6f}" for name in names)] for clip in ids])


def write_statistics(path: Path, ids: Sequence[str], statistics: Mapping[str, ArrayLike]) -> None:
    """Write the statistics [n, F] of the clips `ids` by part, such as `bleu` [n, 10] and `meteor` [n, 23], exactly."""
    table = np.column_stack([np.asarray(statistics[part], np.float64) for part in COLUMNS])
    names = [name for part in COLUMNS.values() for name in part]
    rows = zip(ids, table.tolist(), strict=True)
    _write(path, names, [[clip, *(f"{number:.17g}" for number in numbers)] for clip, numbers in rows])


def _write(path: Path, names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", *names])
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def read_scores(path: Path) -> tuple[tuple[str, ...], dict[str, Floats]]:
    """(clip ids, scores [n] by metric) of a `clip_scores.csv`. Raises BenchError naming the file and what is wrong with it."""
    names, ids, table = _read(path)
    return ids, {name: table[:, column] for column, name in enumerate(names)}


def read_columns(path: Path, names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Floats]]:
    """(clip ids, scores [n] of the metrics `names` that the file has), as `read_scores`, but without reading the others.

    Pages read thousands of these files. What looks unlike the lines that `write_scores` writes is left to `read_scores`, which
    knows quotes and says what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
        head, *lines = text.removesuffix("\n").split("\n")
        columns = head.split(",")
        wanted = [columns.index(name) for name in names if name in columns]
        last = len(columns) - min(wanted, default=1)  # the ranked metrics stand last: the others need not be cut apart
        cut = [line.rsplit(",", last) for line in lines]
        ids = tuple(line[: line.find(",")] for line in lines)
        found = {columns[at]: np.array([float(one[at - len(columns)]) for one in cut]) for at in wanted}
        even = text.count(",") == len(columns) * (len(lines) + 1) - len(lines) - 1 and {*map(len, cut)} == {last + 1}
        if (
            columns[0] != "clip"
            or '"' in text
            or not even
            or len(set(columns)) != len(columns)
            or len(set(ids)) != len(ids)
        ):
            raise ValueError(path)
        if not all(np.isfinite(one).all() for one in found.values()):
            raise ValueError(path)
    except (OSError, ValueError):
        ids, whole = read_scores(path)
        return ids, {name: whole[name] for name in names if name in whole}
    return ids, found


def read_statistics(path: Path) -> tuple[tuple[str, ...], dict[str, Floats]]:
    """(clip ids, statistics [n, F] by part) of a `clip_statistics.csv`. Raises BenchError as `read_scores`."""
    names, ids, table = _read(path)
    wanted = [name for part in COLUMNS.values() for name in part]
    if names != wanted:
        raise BenchError(f"{path} cannot be read: its columns are not clip, {wanted[0]}, .. {wanted[-1]}")
    ends = np.cumsum([len(columns) for columns in COLUMNS.values()])[:-1]
    return ids, dict(zip(COLUMNS, np.split(table, ends, axis=1), strict=True))


def _read(path: Path) -> tuple[list[str], tuple[str, ...], Floats]:
    """(names of the columns after `clip`, clip ids, numbers [n, columns])."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            head, *rows = csv.reader(file, strict=True)
        if not rows or head[:1] != ["clip"] or len(set(head)) != len(head):
            raise ValueError("its first line is not clip and names of columns, with a line for each clip below")
        if uneven := [number for number, row in enumerate(rows, start=2) if len(row) != len(head)]:
            raise ValueError(f"line {uneven[0]} has not {len(head)} columns")
        table = np.array([row[1:] for row in rows], np.float64)
        ids = tuple(row[0] for row in rows)
        if not np.isfinite(table).all() or len(set(ids)) != len(ids):
            raise ValueError("a number is not finite, or a clip is there twice")
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, csv.Error) as error:
        raise BenchError(f"{path} cannot be read: {error}") from error
    return head[1:], ids, table
