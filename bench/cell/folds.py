"""A row of folds: the captions of its cells, one for each clip of the data set, scored together and kept as a record of its own.

Its configuration is that of its cells with their keys as `cells`, from fold 0 on; `folds.csv` beside the record tells the fold
and the film of every clip (films by number), so that whoever reads results alone can tell which clips belong together.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import BenchError, __version__
from bench.cell.job import CellScorer, Job, Score, state_of
from bench.data.corpus import corpus_of, films_in
from bench.disk.locks import cell_lock
from bench.disk.whole import write_atomically
from bench.home import Home
from bench.plan.cells import Cell
from bench.records.folds import FOLDS, row_config
from bench.records.schema import Record, public
from bench.records.store import (
    PREDICTIONS,
    RECORD,
    Prediction,
    apart,
    prediction_ids,
    read_predictions,
    read_record,
    write_predictions,
    write_record,
)


def score_rows(cells: Iterable[Cell], home: Home, score: Score | None = None) -> tuple[bool, list[str]]:
    """Bring every row of folds to which one of `cells` belongs to a scored record, once all its cells are done.

    A row whose cells have other captions by now is made anew. Returns whether a record was written, and sentences on rows that
    could not be scored. `score` replaces `score_cell`.
    """
    rows = {Cell(row_config(cell.config, [])).key: cell for cell in cells if "folds" in cell.config}
    scorer, told, written = CellScorer(score), [], False
    try:
        for cell in rows.values():
            folds = [Cell({**cell.config, "seed": fold}) for fold in range(cell.config["folds"])]
            row = Cell(row_config(cell.config, [one.key for one in folds]))
            if all(state_of(one.folder(home)) == "done" for one in folds) and not _is_whole(row, folds, home):
                told += _score(row, folds, home, scorer)
                written = True
    finally:
        scorer.close()
    return written, told


def _is_whole(row: Cell, folds: Sequence[Cell], home: Home) -> bool:
    """Whether a row is scored, and its captions are those of its cells, as far as they are here."""
    folder, parts = row.folder(home), [fold.folder(home) for fold in folds]
    if state_of(folder) != "done" or not (folder / PREDICTIONS).is_file():
        return False
    if not all((part / PREDICTIONS).is_file() for part in parts):
        return True
    return _captions(folder) == {clip: text for part in parts for clip, text in _captions(part).items()}


def _captions(folder: Path) -> dict[str, str]:
    path = folder / PREDICTIONS
    return read_predictions(path, prediction_ids(path))


def _score(row: Cell, folds: list[Cell], home: Home, scorer: CellScorer) -> list[str]:
    folder = row.folder(home)
    label = f"{row.method}:{row.config['variant']}, all folds"
    try:
        with cell_lock(home, row.key):  # the last two jobs of an array end at once
            if _is_whole(row, folds, home):
                return []
            if state_of(folder) != "unreadable":
                _gather(row, folds, folder, home)
    except BenchError as error:  # another command is at it, or the captions of a cell are damaged
        return [f"{label}: not scored: {error}"]
    outcome = scorer.score(Job(row.key, label, str(folder), str(home.root), row.config))
    return [] if outcome.state == "done" else [f"{label}: not scored: {outcome.message}"]


def _gather(row: Cell, folds: list[Cell], folder: Path, home: Home) -> None:
    """Write captions, folds and the unscored record of a row."""
    records = [read_record(cell.folder(home) / RECORD) for cell in folds]
    fold_of: dict[str, int] = {}
    captions: dict[str, str] = {}
    for number, cell in enumerate(folds):
        found = _captions(cell.folder(home))
        own = corpus_of(cell.config, home).splits[cell.config["split"]]
        if wrong := apart(list(found), own):
            raise BenchError(
                f"{cell.folder(home) / PREDICTIONS}: {wrong}: remove that folder, and bench run trains it again"
            )
        fold_of |= dict.fromkeys(found, number)
        captions |= found
    films = films_in(row.config, home)
    ids = corpus_of(row.config, home).splits[row.config["split"]]
    write_predictions(folder / PREDICTIONS, [Prediction(clip, captions[clip]) for clip in ids])
    numbers = {film: number for number, film in enumerate(dict.fromkeys(films[clip] for clip in ids))}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip", "fold", "film"])
    writer.writerows([clip, fold_of[clip], numbers[films[clip]]] for clip in ids)
    write_atomically(folder / FOLDS, text.getvalue())
    content = {
        "schema": 1,
        "key": row.key,
        "state": "unscored",
        "config": public(row.config),
        "endings": _endings(records),
        "ledger": _ledger(records),
        "provenance": _provenance(records),
    }
    write_record(folder, Record.model_validate(content))


def _endings(records: Iterable[Record]) -> dict[str, str] | None:
    """`converged` for the phases that did in all folds."""
    found: dict[str, str] = {}
    for record in records:
        for phase, how in (record.endings or {}).items():
            found[phase] = "capped" if "capped" in (how, found.get(phase)) else how
    return found or None


def _ledger(records: Iterable[Record]) -> Mapping[str, Any]:
    """What the cells of a row cost together, as far as that is known of each."""
    sums = {name: [record.spent(name) for record in records] for name in ("captions", "fit_seconds", "decode_seconds")}
    return {name: sum(values) for name, values in sums.items() if None not in values}


def _provenance(records: Sequence[Record]) -> Mapping[str, Any]:
    """What made the cells of a row, where they have it in common, and from when to when."""
    made = [record.provenance.model_dump() for record in records if record.provenance is not None]
    if len(made) < len(records):
        return {"bench": __version__}
    alike = {name: value for name, value in made[0].items() if all(one[name] == value for one in made)}
    times = {
        "started": min(one["started"] or "" for one in made),
        "finished": max(one["finished"] or "" for one in made),
    }
    return {"bench": __version__, **alike, "dirty": any(one["dirty"] for one in made), **times}
