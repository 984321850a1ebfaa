"""The clips behind the records of a page: whether their files hold, and on which clips rows disagree.

A record is checked against its schema and its key when it is read. What that cannot find, a score that was changed or a folder
that was mixed up, is found here: the mean of the clip scores must be the record's score, and there must be one caption of each
clip. BLEU and METEOR are no means of clip scores; `bench compare` checks them, where the statistics of the clips are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench import BenchError
from bench.evaluation.metrics import MEANS, RANKED_BY
from bench.evaluation.ngrams import Floats
from bench.home import Home
from bench.records.clip_scores import SCORES, read_columns
from bench.records.schema import Record
from bench.records.store import (
    PREDICTIONS,
    RECORD,
    BadRecord,
    apart,
    cell_folder,
    prediction_ids,
    read_predictions,
)
from bench.reports.blocks import Block

EXAMPLES = 3  # clips of a table
ROWS = 6  # the best rows of a table
NEAR = 1e-5  # percent: clip scores are written to six digits


@dataclass(frozen=True)
class Clips:
    """Scores of the ranked metric of one cell, [n], in percent, by clip."""

    ids: tuple[str, ...]
    scores: Floats


def check(records: Sequence[Record], home: Home, bad: list[BadRecord]) -> tuple[list[Record], dict[str, Clips]]:
    """The records that hold, and the ranked scores of their clips by key, where they lie beside the record.

    Records that do not hold are appended to `bad`, with the reason. Files that are not there are not asked for.
    """
    sound = []
    clips: dict[str, Clips] = {}
    for record in records:
        try:
            found = _clips(record, home) if record.state == "done" else None
        except BenchError as error:
            bad.append(BadRecord(cell_folder(home.results, record) / RECORD, str(error)))
            continue
        sound.append(record)
        if found is not None:
            clips[record.key] = found
    return sound, clips


def _clips(record: Record, home: Home) -> Clips | None:
    folder = cell_folder(home.results, record)
    if not (folder / SCORES).is_file():
        return None
    ids, columns = read_columns(folder / SCORES, MEANS)
    recorded = record.scores[record.split]
    for metric, scores in columns.items():
        mean = float(scores.mean())
        if metric in recorded and abs(mean - recorded[metric]) > NEAR:
            raise BenchError(f"its {metric} is {recorded[metric]:.4f}, and that of {SCORES} beside it is {mean:.4f}")
    if (folder / PREDICTIONS).is_file() and (wrong := apart(prediction_ids(folder / PREDICTIONS), ids)):
        raise BenchError(f"{PREDICTIONS} beside it does not caption the {len(ids)} clips that were scored: {wrong}")
    return Clips(ids, columns[RANKED_BY]) if RANKED_BY in columns else None


@dataclass(frozen=True)
class Example:
    """One clip: of each row (its label) the caption and its ranked score in percent."""

    clip: str
    rows: tuple[tuple[str, str, float], ...]


def choose_examples(block: Block, clips: Mapping[str, Clips], home: Home) -> list[Example]:
    """The clips whose best and worst captions are furthest apart by the ranked metric, among the best rows of the table.

    Of every row the cell of the first seed is taken. References are not quoted, for they are no part of a record: `bench compare
    A B` shows them where the captions lie. Empty where fewer than two rows are ranked or their files are not there.
    """
    cells = {
        row.label: record
        for row, rank in zip(block.rows, block.ranks, strict=True)
        if rank and (record := _first_cell(block, row.records)) and _files(record, clips, home)
    }
    cells = dict(list(cells.items())[:ROWS])
    if len(cells) < 2:
        return []
    own = {label: clips[record.key] for label, record in cells.items()}
    scores = {label: dict(zip(one.ids, one.scores.tolist(), strict=True)) for label, one in own.items()}
    common = set.intersection(*(set(one) for one in scores.values()))
    apart = {clip: max(s[clip] for s in scores.values()) - min(s[clip] for s in scores.values()) for clip in common}
    chosen = sorted(common, key=lambda clip: (-round(apart[clip], 6), clip))[:EXAMPLES]
    captions = {
        label: read_predictions(cell_folder(home.results, record) / PREDICTIONS, own[label].ids)
        for label, record in cells.items()
    }
    return [
        Example(clip, tuple((label, captions[label][clip], scores[label][clip]) for label in cells)) for clip in chosen
    ]


def _first_cell(block: Block, records: tuple[Record, ...]) -> Record | None:
    return next((record for record in records if record.seed == block.ranked_on[0]), None)


def _files(record: Record, clips: Mapping[str, Clips], home: Home) -> bool:
    return record.key in clips and (cell_folder(home.results, record) / PREDICTIONS).is_file()
