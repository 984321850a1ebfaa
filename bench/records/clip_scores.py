"""What the captions of a cell are worth, clip by clip: one CSV file beside its record, a line for each clip.

First come the numbers that add up over clips, of which corpus BLEU and METEOR are made (`PARTS`), then the scores on the
papers' scale. Earlier versions kept the numbers in a file of their own, and the first of them not at all; both are read.
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
from bench.disk.limits import own_text
from bench.disk.whole import write_atomically
from bench.evaluation.metrics import METRICS, PARTS

SCORES = "clip_scores.csv"
EARLIER_STATISTICS = "clip_statistics.csv"  # beside the scores, where an earlier version scored the cell
STATISTICS = {part.name: part.columns for part in PARTS.values() if part.columns}
"""Part -> its columns."""

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


def write_scores(
    path: Path,
    ids: Sequence[str],
    clips: Mapping[str, Mapping[str, float]],
    statistics: Mapping[str, ArrayLike] | None = None,
) -> None:
    """Write scores by metric and clip (0 to 1, CIDEr to 10) as percent, and before them the exact `statistics` [n, F] of the
    clips `ids` by part, such as `bleu` [n, 10] and `meteor` [n, 23]."""
    metrics = [name for name in METRICS if name in clips]
    parts = [part for part in STATISTICS if part in (statistics or {})]
    tables = [np.asarray((statistics or {})[part], np.float64) for part in parts]
    counted = np.column_stack(tables).tolist() if tables else [[]] * len(ids)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", *(name for part in parts for name in STATISTICS[part]), *metrics])
    for clip, numbers in zip(ids, counted, strict=True):
        scores = (f"{100.0 * clips[name][clip]:.6f}" for name in metrics)
        writer.writerow([clip, *(f"{number:.17g}" for number in numbers), *scores])
    write_atomically(path, text.getvalue())


def read_scores(path: Path) -> tuple[tuple[str, ...], dict[str, Floats]]:
    """(clip ids, scores [n] by metric) of a `clip_scores.csv`. Raises BenchError naming the file and what is wrong with it."""
    names, ids, table = _read(path)
    counted = {name for columns in STATISTICS.values() for name in columns}
    return ids, {name: table[:, column] for column, name in enumerate(names) if name not in counted}


def read_statistics(path: Path) -> dict[str, Floats]:
    """Statistics [n, F] by part of the clips of a `clip_scores.csv`, those that the cell was scored with.

    Raises BenchError as `read_scores`, and where the file of an earlier version beside it is of other clips.
    """
    names, ids, table = _read(path)
    beside = path.with_name(EARLIER_STATISTICS)
    if not _parts(path, names) and beside.is_file():
        path, (names, others, table) = beside, _read(beside)
        if others != ids:
            raise BenchError(f"{beside} is of other clips than {SCORES} beside it: copy the cell's folder again")
    place = {name: column for column, name in enumerate(names)}
    return {part: table[:, [place[name] for name in STATISTICS[part]]] for part in _parts(path, names)}


def _parts(path: Path, names: Sequence[str]) -> list[str]:
    """The parts whose columns are there. Raises BenchError where a part has lost some of them."""
    for part, columns in STATISTICS.items():
        if 0 < len(set(columns) & set(names)) < len(columns):
            raise BenchError(f"{path} cannot be read: the columns of {part} are not {columns[0]}, .. {columns[-1]}")
    return [part for part, columns in STATISTICS.items() if columns[0] in names]


def read_columns(path: Path, names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Floats]]:
    """(clip ids, scores [n] of the metrics `names` that the file has), as `read_scores`, but without reading the others.

    Pages read thousands of these files. Files with other lines than `write_scores` writes are left to `read_scores`, which reads
    quotes and says what is wrong.
    """
    try:
        text = own_text(path)
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


def _read(path: Path) -> tuple[list[str], tuple[str, ...], Floats]:
    """(names of the columns after `clip`, clip ids, numbers [n, columns])."""
    try:
        head, *rows = csv.reader(io.StringIO(own_text(path)), strict=True)
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
