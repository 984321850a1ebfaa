"""Clips on which the methods of a table disagree most, with what each of them says.

References are not quoted: they are no part of a record. `bench compare A B` shows them where the captions lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.home import Home
from bench.records.schema import Record
from bench.records.store import PREDICTIONS, cell_folder, read_predictions
from bench.reports.blocks import Block
from bench.reports.intervals import Clips

SHOWN = 3  # clips of a table
ROWS = 6  # the best rows of a table


@dataclass(frozen=True)
class Example:
    """One clip: of each row (its label) the caption and its ranked score in percent."""

    clip: str
    told: tuple[tuple[str, str, float], ...]


def choose(block: Block, clips: Mapping[str, Clips], home: Home) -> list[Example]:
    """The clips whose best and worst captions are furthest apart by the ranked metric, among the best rows of the table.

    Of every row the cell of the first seed speaks. Empty where fewer than two rows are ranked or their files are not there.
    """
    cells = {
        row.label: record
        for row, rank in zip(block.rows, block.ranks, strict=True)
        if rank and (record := _speaker(block, row.records)) and _files(record, clips, home)
    }
    cells = dict(list(cells.items())[:ROWS])
    if len(cells) < 2:
        return []
    own = {label: clips[record.key] for label, record in cells.items()}
    scores = {label: dict(zip(one.ids, one.scores.tolist(), strict=True)) for label, one in own.items()}
    common = set.intersection(*(set(one) for one in scores.values()))
    apart = {clip: max(s[clip] for s in scores.values()) - min(s[clip] for s in scores.values()) for clip in common}
    chosen = sorted(common, key=lambda clip: (-round(apart[clip], 6), clip))[:SHOWN]
    said = {
        label: read_predictions(cell_folder(home.results, record) / PREDICTIONS, own[label].ids)
        for label, record in cells.items()
    }
    return [Example(clip, tuple((label, said[label][clip], scores[label][clip]) for label in cells)) for clip in chosen]


def _speaker(block: Block, records: tuple[Record, ...]) -> Record | None:
    return next((record for record in records if record.seed == block.ranked_on[0]), None)


def _files(record: Record, clips: Mapping[str, Clips], home: Home) -> bool:
    return record.key in clips and (cell_folder(home.results, record) / PREDICTIONS).is_file()
