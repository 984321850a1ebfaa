"""Scores of cells: filled into a record, and read back clip by clip for those who look at single captions.

Statistics, of which corpus BLEU and METEOR are made, are read from beside the record. For cells that were scored before they
were kept there, or before the metric came, they are counted again from captions and references, where these and Java are here.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.data.corpus import corpus_of, read_source
from bench.data.source import Source
from bench.data.splits import source_part
from bench.data.text import NO_BLANKS, unwritable_warning, without_blanks
from bench.declare.dataset import Clip
from bench.declare.registry import dataset as find_dataset
from bench.evaluation.densevid import Event
from bench.evaluation.java import ScoringUnavailable
from bench.evaluation.metrics import MEANS, METRICS, PREFIX, made_of, outdated
from bench.evaluation.ngrams import Floats, VocabularyTooLargeError
from bench.evaluation.scorer import Scorer, digest
from bench.evaluation.statistics import corpus_mean, corpus_scores
from bench.home import Home
from bench.plan.cells import Cell
from bench.records.clip_scores import (
    EARLIER_STATISTICS,
    SCORES,
    STATISTICS,
    CellClips,
    read_scores,
    read_statistics,
    write_scores,
)
from bench.records.schema import Record
from bench.records.store import PREDICTIONS, RECORD, cell_folder, read_predictions, read_record, write_record

NEAR = 1e-5  # percent: clip scores are written to six digits


def score_cell(config: dict[str, Any], root: str, scorer: Scorer) -> None:
    """Score the predictions of an unscored cell against the references of its split; fills its record.

    Events of a data set that declares densevid's rules are scored by them as well, under protocol=paper.
    """
    home = Home(Path(root))
    folder = Cell(config).folder(home)
    record = read_record(folder / RECORD)
    split = config["split"]
    corpus = corpus_of(config, home)
    ids = corpus.splits[split]
    references = {clip: [caption.text for caption in corpus.captions[clip]] for clip in ids}
    predictions = read_predictions(folder / PREDICTIONS, ids)
    started = time.monotonic()
    try:
        scores = scorer.score(references, predictions)
        by_event, event_signatures = score_events(config, predictions, home, scorer)
    except VocabularyTooLargeError as error:
        raise BenchError(f"data set {config['dataset']}, split {split}: {error}") from error
    write_scores(folder / SCORES, ids, scores.clips, scores.statistics)
    (folder / EARLIER_STATISTICS).unlink(missing_ok=True)
    content = record.model_dump(by_alias=True)
    content["state"] = "done"
    content["warnings"] = [*scores.warnings, *_on_references(config, references, scorer)]
    content["scores"] = {split: {name: percent(value) for name, value in (scores.corpus | by_event).items()}}
    content["signatures"] = {split: _signed(scores.signatures(split) | event_signatures, config)}
    if content["ledger"] is not None:
        content["ledger"]["score_seconds"] = round(time.monotonic() - started, 3)
    write_record(folder, Record.model_validate(content))


def _on_references(config: Mapping[str, Any], references: Mapping[str, Sequence[str]], scorer: Scorer) -> Iterator[str]:
    """What is wrong between the references and the tokens that the cell was trained on, in sentences."""
    texts = [text for captions in references.values() for text in captions]
    if without_blanks(texts):
        yield NO_BLANKS
    tokenizer = config.get("text", {}).get("tokenizer")
    if tokenizer and (sentence := unwritable_warning(texts, tokenizer, scorer.tokens)):
        yield sentence


def _signed(signatures: Mapping[str, str], config: Mapping[str, Any]) -> dict[str, str]:
    """Signatures that also say which fold the clips are, or that they are those of all folds."""
    folds = config.get("folds")
    fold = "" if folds is None else f"|folds:{folds}" if "cells" in config else f"|fold:{config['seed']}/{folds}"
    return {metric: signature + fold for metric, signature in signatures.items()}


def percent(value: float) -> float:
    """A score on the papers' scale of 100, to nine digits behind the point: enough to compare, free of rounding noise."""
    return round(100.0 * float(value), 9)


def score_events(
    config: Mapping[str, Any], captions: Mapping[str, str], home: Home, scorer: Scorer
) -> tuple[dict[str, float], dict[str, str]]:
    """(scores, signatures) by `densevid_` and the metric, in pycocoevalcap's units; both empty where the rules do not apply.

    They apply under protocol=paper to a data set whose definition names `densevid` parts, where all clips of `captions`
    are events of the first part. References are all events that the parts annotate in the videos of these clips.
    Raises BenchError for a first part that the caption files do not declare, and for clips without times.
    """
    definition = find_dataset(config["dataset_path"] or config["dataset"])
    if config["protocol"] != "paper" or not definition.densevid:
        return {}, {}
    choice, files = definition.caption_source(home)
    source = read_source(choice, files, definition.name)
    if not captions.keys() <= set(source_part(definition, source, definition.densevid[0])):
        return {}, {}
    parts = [part for part in definition.densevid if part in source.parts]  # val_2 is a file that may be absent
    made = [_event(source.clips[clip], text) for clip, text in captions.items()]
    videos = {event.video for event in made}
    found = scorer.score_events(made, list(_annotated(source, parts, videos)))
    scores = {PREFIX + metric: value for metric, value in found.corpus.items()}
    return scores, found.signatures(config["split"], parts)


def _annotated(source: Source, parts: Sequence[str], videos: set[str]) -> Iterator[Event]:
    """The events of `parts` that lie in `videos`, in file order. Dropped ones have no length and overlap with nothing."""
    for part in parts:
        for clip in source.parts[part]:
            if clip in source.clips and source.clips[clip].video in videos:
                yield from (_event(source.clips[clip], caption.text) for caption in source.captions[clip])


def _event(clip: Clip, text: str) -> Event:
    if clip.start is None or clip.end is None:
        raise BenchError(f"densevid's rules compare times, and clip {clip.id} has none: leave `densevid` out")
    return Event(clip.video, clip.start, clip.end, text)


@dataclass(frozen=True)
class ScoredClips:
    """The clips of some cells of one split: `cells` by key; `references` by clip, empty where they are not on this machine.

    `notes` are sentences on what is lacking and which file or command brings it.
    """

    cells: Mapping[str, CellClips]
    references: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]


def gather(records: Sequence[Record], home: Home, dataset: str | None = None, counted: bool = True) -> ScoredClips:
    """The clips of done `records`, which share data set, split and references; with their statistics if `counted`.

    `dataset` is the definition's file where its name alone does not lead to it. Raises BenchError for files beside a record
    that are absent, damaged or do not give its scores; `notes` say what else is lacking.
    """
    cells = {record.key: _read(record, home) for record in records}
    texts, notes = references(records[0], home, dataset)
    if counted:
        for record in records:
            cells[record.key] = _with_statistics(record, cells[record.key], home)
        notes += _count(records, cells, texts, home)
    return ScoredClips(cells, texts, tuple(notes))


def _read(record: Record, home: Home) -> CellClips:
    folder = cell_folder(home.results, record)
    ids, scores = read_scores(folder / SCORES)
    for metric in MEANS:
        if metric in scores:
            _check(record, folder / SCORES, metric, float(corpus_mean(scores[metric])))
    return CellClips(read_predictions(folder / PREDICTIONS, ids), scores)


def _with_statistics(record: Record, cell: CellClips, home: Home) -> CellClips:
    path = cell_folder(home.results, record) / SCORES
    statistics = read_statistics(path)
    _check_statistics(record, path, statistics)
    return replace(cell, statistics=statistics)


def _check_statistics(record: Record, path: Path, statistics: Mapping[str, Floats]) -> None:
    for part, rows in statistics.items():
        for metric, score in zip(made_of(part), corpus_scores(part, rows), strict=True):
            _check(record, path, metric, 100.0 * float(score))


def _check(record: Record, path: Path, metric: str, found: float) -> None:
    recorded = record.scores[record.split].get(metric)
    if recorded is not None and abs(found - recorded) > NEAR:
        raise BenchError(
            f"{path} gives {METRICS[metric].long} {found:.4f}, and the record beside it says {recorded:.4f}: one of the "
            "two is not of this cell; copy its folder again, or remove it and give the command that made it again"
        )


def references(record: Record, home: Home, dataset: str | None) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """References of the record's split by clip, or no reference and why there is none."""
    try:
        corpus = corpus_of({**record.config, "dataset_path": dataset}, home)
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


def _count(
    records: Sequence[Record], cells: dict[str, CellClips], references: Mapping[str, tuple[str, ...]], home: Home
) -> list[str]:
    """Fill in statistics that are not beside the record, from the captions of `cells`; returns why some are still lacking."""
    lacking = [record for record in records if cells[record.key].statistics.keys() < STATISTICS.keys()]
    if not lacking:
        return []
    without = "BLEU and METEOR have neither interval nor p: "
    if not references:
        path = cell_folder(home.results, lacking[0]) / SCORES
        return [
            f"{without}{path} does not hold what they are made of, and without the references it cannot be made here."
        ]
    if old := [record.key for record in lacking if outdated(record.signatures[record.split])]:
        return [f"{without}cell {old[0]} was scored by another version; bench run scores it again."]
    if sys.stderr.isatty():
        print(f"counting n-grams and METEOR matches of {len(lacking)} cells", file=sys.stderr)
    try:
        with contextlib.closing(Scorer(cache=home.tokens)) as scorer:
            for record in lacking:
                cell = cells[record.key]
                scores = scorer.score({clip: references[clip] for clip in cell.ids}, cell.captions)
                _check_statistics(record, cell_folder(home.results, record) / PREDICTIONS, scores.statistics)
                cells[record.key] = replace(cell, statistics=scores.statistics)
    except ScoringUnavailable as error:
        return [f"{without}{error}."]
    return []
