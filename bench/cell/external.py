"""Captions made anywhere, scored as the harness scores its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.cell.job import CellScorer, Job, Score, state_of
from bench.cell.provenance import provenance
from bench.data.corpus import load_corpus
from bench.data.readers.predictions import read_captions
from bench.data.readers.records import Entry, without_ending
from bench.data.source import Corpus
from bench.declare.dataset import DatasetDefinition
from bench.errors import unknown
from bench.home import Home
from bench.plan.cells import Cell
from bench.plan.streams import captions_digest
from bench.records.schema import NAME, External, Provenance, Record, canonical, public
from bench.records.store import PREDICTIONS, RECORD, Prediction, apart, read_record, write_predictions, write_record

METHOD = "external"  # the folder of such records, and the protocol under which no row of a method stands beside them
SAME_TIME = 0.011  # seconds: files of results repeat the times of events to hundredths


def evaluate(
    predictions: Path,
    definition: DatasetDefinition,
    split: str,
    name: str,
    home: Home,
    *,
    splits: str = "default",
    fields: Mapping[str, str] | None = None,
    score: Score | None = None,
) -> Record:
    """Score the captions in `predictions` against `split`; returns the record, which is on disk as well.

    One caption for each clip of the split is needed, under its id, another name the data set knows, the name of its file, or
    the video and the times of an event. `fields` names the fields of records where they are unusual. The record lies
    in `results/<dataset>/external/<key>`; its key comes from the captions, the split and the references. Raises
    BenchError: unreadable file, ids missing, unknown or given twice, no Java.
    """
    if not NAME.fullmatch(name):
        raise BenchError(
            f"the name {name!r} must be made of letters, digits and . _ + -; give one, such as as=my_model"
        )
    corpus = load_corpus(definition, home, splits=splits)
    if split not in corpus.splits:
        raise unknown("split", split, corpus.splits, f"data set {definition.name}")
    captions = _match(predictions, read_captions(predictions, fields), corpus, corpus.splits[split])
    config = _config(definition, split, splits, name, captions, home)
    cell = Cell(config)
    folder = cell.folder(home)
    if state_of(folder) in ("done", "unreadable"):  # of the latter, reading says what is wrong
        return read_record(folder / RECORD)
    write_predictions(folder / PREDICTIONS, [Prediction(clip, text) for clip, text in captions.items()])
    facts = Provenance.model_validate(provenance(1, "cpu"))
    external = External(source=predictions.name)
    write_record(
        folder,
        Record(schema=1, key=cell.key, state="unscored", config=public(config), provenance=facts, external=external),
    )
    scorer = CellScorer(score)
    try:
        outcome = scorer.score(Job(cell.key, name, str(folder), str(home.root), config))
    finally:
        scorer.close()
    if outcome.state != "done":
        raise BenchError(f"{predictions} is read and its captions fit, but not scored: {outcome.message}")
    return read_record(folder / RECORD)


def _config(
    definition: DatasetDefinition, split: str, splits: str, name: str, captions: Mapping[str, str], home: Home
) -> dict[str, Any]:
    """The declaration of captions whose making is unknown: what they are, and what they are compared with."""
    return {
        "schema": 1,
        "method": METHOD,
        "variant": name,
        "title": name,
        "dataset": definition.name,
        "dataset_path": str(definition.path),
        "splits": splits,
        "subset": None,
        "split": split,
        "protocol": METHOD,
        "streams": {},
        "absent_streams": [],
        "seed": 0,
        "captions_digest": captions_digest(definition, splits, home),
        "predictions_digest": hashlib.sha256(canonical(dict(captions)).encode()).hexdigest(),
    }


def _match(path: Path, entries: list[Entry], corpus: Corpus, ids: Iterable[str]) -> dict[str, str]:
    """Captions by clip id, in the order of the split. Raises BenchError naming the clips that do not fit."""
    wanted = list(ids)
    names = [_clip(entry, corpus, wanted) for entry in entries]
    found = {name: entry.texts[0] for name, entry in zip(names, entries, strict=True)}
    if wrong := apart(names, wanted):
        raise BenchError(
            f"{path} does not caption the {len(wanted)} clips of the split: {wrong}; give one caption for each clip, under its id"
        )
    return {clip: found[clip] for clip in wanted}


def _clip(entry: Entry, corpus: Corpus, wanted: Iterable[str]) -> str:
    """The clip that a caption is of; the name as it was given where there is none."""
    if entry.clip is None:
        return _event(entry, corpus, wanted)
    for name in (entry.clip, without_ending(entry.clip)):
        if name in corpus.clips or name in corpus.aliases:
            return corpus.find(name)
    return entry.clip


def _event(entry: Entry, corpus: Corpus, wanted: Iterable[str]) -> str:
    """The event of the split with the video and the times of a caption; videos also without the `v_` of ActivityNet's files."""
    videos = {entry.video, f"v_{entry.video}", str(entry.video).removeprefix("v_")}
    for clip in (corpus.clips[name] for name in wanted):
        if clip.video in videos and clip.start is not None and clip.end is not None:
            near = abs(clip.start - (entry.start or 0)), abs(clip.end - (entry.end or 0))
            if max(near) <= SAME_TIME:
                return clip.id
    return f"{entry.video} {entry.start} to {entry.end} s"
