"""The clips of scored cells: captions, scores, references, and the statistics of which corpus BLEU and METEOR are made.

Statistics are read from beside the record. For cells scored before they were kept there they are counted again from captions
and references, where these and Java are on this machine, and kept below the home's `work`.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import BenchError
from bench.data.corpus import load_corpus
from bench.declare.registry import dataset as find_dataset
from bench.disk.whole import CannotWrite
from bench.evaluation.java import ScoringUnavailable
from bench.evaluation.metrics import MEANS, METRICS, made_of, outdated
from bench.evaluation.scorer import Scorer, digest
from bench.evaluation.statistics import corpus_mean, corpus_scores
from bench.home import Home
from bench.records.clip_scores import SCORES, STATISTICS, CellClips, read_scores, read_statistics, write_statistics
from bench.records.schema import Record
from bench.records.store import PREDICTIONS, cell_folder, read_predictions

NEAR = 1e-5  # percent: clip scores are written to six digits


@dataclass(frozen=True)
class Clipwise:
    """The clips of some cells of one split: `cells` by key; `references` by clip, empty where they are not on this machine.

    `notes` are sentences on what is lacking and which file or command brings it.
    """

    cells: Mapping[str, CellClips]
    references: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]


def gather(
    records: Sequence[Record], home: Home, dataset: str | None = None, counted: bool = True, scorer: Any = None
) -> Clipwise:
    """The clips of done `records`, which share data set, split and references; with their statistics if `counted`.

    `dataset` is the definition's file where its name alone does not lead to it. Raises BenchError for files beside a record
    that are absent, damaged or do not give its scores; what can be done without is told in `notes`.
    """
    cells = {record.key: _read(record, home) for record in records}
    told, notes = references(records[0], home, dataset)
    if counted:
        cells, why = _with_statistics(records, cells, told, home, scorer)
        notes += why
    return Clipwise(cells, told, tuple(notes))


def _read(record: Record, home: Home) -> CellClips:
    folder = cell_folder(home.results, record)
    ids, scores = read_scores(folder / SCORES)
    recorded = record.scores[record.split]
    for metric in MEANS:
        if metric in scores and metric in recorded:
            _check(folder / SCORES, metric, float(corpus_mean(scores[metric])), recorded)
    return CellClips(read_predictions(folder / PREDICTIONS, ids), scores)


def _check(path: Path, metric: str, found: float, recorded: Mapping[str, float]) -> None:
    if metric in recorded and abs(found - recorded[metric]) > NEAR:
        raise BenchError(
            f"{path} gives {METRICS[metric].long} {found:.4f}, and the record beside it says {recorded[metric]:.4f}: one of the "
            "two is not of this cell; copy its folder again, or remove it and give the command that made it again"
        )


def references(record: Record, home: Home, dataset: str | None) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """References of the record's split by clip, or no reference and why there is none."""
    try:
        config = record.config
        corpus = load_corpus(
            find_dataset(dataset or record.dataset),
            home,
            splits=config.get("splits") or "default",
            subset=config.get("subset"),
        )
    except BenchError as error:
        return {}, [f"References are not shown: {error}"]
    found = {clip: tuple(caption.text for caption in corpus.captions[clip]) for clip in corpus.splits[record.split]}
    here, then = digest(found), _field(record, "refs")
    if not then or not here.startswith(then):
        return {}, [
            f"References are not shown: the captions of data set {record.dataset} on this machine (refs:{here[:12]}) are not "
            f"those of the records (refs:{then}); bench data check dataset={dataset or record.dataset} tells what they are"
        ]
    return found, []


def _field(record: Record, name: str) -> str:
    """A field of the record's metric signatures, such as `refs`; empty where they have none."""
    parts = (part for signature in record.signatures[record.split].values() for part in signature.split("|"))
    return next((part.removeprefix(f"{name}:") for part in parts if part.startswith(f"{name}:")), "")


def _with_statistics(
    records: Sequence[Record],
    cells: Mapping[str, CellClips],
    references: Mapping[str, tuple[str, ...]],
    home: Home,
    scorer: Any,
) -> tuple[dict[str, CellClips], list[str]]:
    """The cells with their statistics: from beside the record, from `work`, or counted now."""
    found, lacking = dict(cells), []
    for record in records:
        beside = cell_folder(home.results, record) / STATISTICS
        kept = _kept(record, home)
        if beside.is_file():
            found[record.key] = _take(record, cells[record.key], beside)
            continue
        try:
            found[record.key] = _take(record, cells[record.key], kept)
        except BenchError:  # not counted yet, or damaged: it can be thrown away
            lacking.append(record)
    if not lacking:
        return found, []
    without = "BLEU and METEOR have neither interval nor p: "
    if not references:
        absent = cell_folder(home.results, lacking[0]) / STATISTICS
        return found, [f"{without}there is no {absent}, and without the references it cannot be made here."]
    if old := [record.key for record in lacking if outdated(record.signatures[record.split])]:
        return found, [f"{without}cell {old[0]} was scored by another version; bench run scores it again."]
    if sys.stderr.isatty():
        print(f"counting n-grams and METEOR matches of {len(lacking)} cells, once", file=sys.stderr)
    try:
        with contextlib.nullcontext(scorer) if scorer else Scorer(cache=home.work / "tokens") as counting:
            for record in lacking:
                found[record.key] = _count(record, cells[record.key], references, home, counting)
    except ScoringUnavailable as error:
        return found, [f"{without}{error}."]
    return found, []


def _take(record: Record, cell: CellClips, path: Path) -> CellClips:
    ids, statistics = read_statistics(path)
    if ids != cell.ids:
        raise BenchError(f"{path} is of other clips than {SCORES} beside the record: copy the cell's folder again")
    _check_statistics(record, path, statistics)
    return replace(cell, statistics=statistics)


def _check_statistics(record: Record, path: Path, statistics: Mapping[str, Any]) -> None:
    recorded = record.scores[record.split]
    for part, rows in statistics.items():
        for metric, score in zip(made_of(part), corpus_scores(part, rows), strict=True):
            _check(path, metric, 100.0 * float(score), recorded)


def _count(
    record: Record, cell: CellClips, references: Mapping[str, tuple[str, ...]], home: Home, scorer: Any
) -> CellClips:
    """The statistics of a cell from its captions, as scoring counts them; kept for the next time."""
    scores = scorer.score({clip: list(references[clip]) for clip in cell.ids}, cell.captions)
    _check_statistics(record, cell_folder(home.results, record) / PREDICTIONS, scores.statistics)
    with contextlib.suppress(CannotWrite):
        write_statistics(_kept(record, home), cell.ids, scores.statistics)
    return replace(cell, statistics={part: np.asarray(rows) for part, rows in scores.statistics.items()})


def _kept(record: Record, home: Home) -> Path:
    """Where the statistics of a cell are kept that has none beside it, by what they are made of."""
    captions = (cell_folder(home.results, record) / PREDICTIONS).read_bytes()
    made_of = "\n".join(sorted(record.signatures[record.split].values())).encode() + captions
    return home.work / "statistics" / f"{record.key}-{hashlib.sha256(made_of).hexdigest()[:12]}.csv"
