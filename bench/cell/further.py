"""Further metrics of cells: their captions and references read, each metric counted, the scores put beside the records."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench import BenchError
from bench.cell.scores import gather
from bench.data.corpus import corpus_of
from bench.declare.registry import dataset as find_dataset
from bench.disk.locks import cell_lock
from bench.errors import AbsentError, many, named
from bench.evaluation.further import Captioned, find, measure, places
from bench.evaluation.ptb import PtbCache
from bench.features.footage import find_footage
from bench.features.video import Span
from bench.home import Home
from bench.records.folds import trained_in
from bench.records.further import FurtherScore, add_further, read_further
from bench.records.schema import Record
from bench.records.store import cell_folder

__all__ = ["add_metrics", "find", "places"]


def add_metrics(
    records: Sequence[Record],
    names: Sequence[str],
    home: Home,
    dataset: str | None,
    tell: Callable[[str], None] = lambda sentence: None,
    leave_out: bool = False,
) -> dict[str, dict[str, FurtherScore]]:
    """Count the metrics `names` of done records and keep them beside these; returns all further scores by key.

    `tell` gets sentences on references that are not on this machine. With `leave_out` records are left out, and it is told,
    whose videos or checkpoint are not here, as long as others have theirs. Raises BenchError for an unknown metric, one that
    fails, and captions that cannot be read.
    """
    tokens = PtbCache(home.tokens)
    found: dict[str, dict[str, FurtherScore]] = {}
    absent: dict[str, AbsentError] = {}
    for group in _groups(records):
        clips = gather(group, home, dataset, counted=False)
        for note in dict.fromkeys(clips.notes):
            tell(note)
        for record in group:
            given = Captioned(
                dict(clips.cells[record.key].captions),
                clips.references,
                lambda texts: [line.split() for line in tokens.tokenize(texts)],
                partial(_videos, record, home, dataset),
                partial(_draw, record, home),
            )
            try:
                scores = {name: measure(name, given) for name in names}
            except AbsentError as error:
                if not leave_out:
                    raise
                absent[record.key] = error
                continue
            folder = cell_folder(home.results, record)
            with cell_lock(home, record.key):  # of two commands at once each adds to what the other wrote
                add_further(
                    folder, {name: {"value": one.value, "signature": one.signature} for name, one in scores.items()}
                )
            found[record.key] = read_further(folder)
    if absent and not found:
        raise next(iter(absent.values()))
    if absent:
        tell(f"{many(len(absent), 'record')} left out ({named(absent)}): {next(iter(absent.values()))}")
    return found


def _groups(records: Sequence[Record]) -> list[list[Record]]:
    """Records of the same clips and references together."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        config = record.config
        fold = config.get("seed") if config.get("folds") and "cells" not in config else None
        same = [record.dataset, config.get("splits"), config.get("subset"), record.split, fold]
        groups.setdefault(json.dumps([*same, record.signatures[record.split]]), []).append(record)
    return list(groups.values())


def _videos(record: Record, home: Home, dataset: str | None) -> dict[str, tuple[Path, Span | None]]:
    """The video of each clip that the record reports on, in the folders of videos that the data set's definition names."""
    try:
        definition = find_dataset(dataset or record.dataset)
        corpus = corpus_of({**record.config, "dataset_path": dataset}, home)
    except BenchError:
        return {}
    clips = {clip: corpus.clips[clip] for clip in corpus.splits[record.split]}
    folders = {definition.resolve(stream.videos, home) for stream in definition.streams.values() if stream.videos}
    found = [find_footage(folder, clips, corpus.aliases)[0] for folder in sorted(folders) if folder.is_dir()]
    return {clip: (one.path, one.span) for footage in found for clip, one in footage.items()}


def _draw(record: Record, home: Home, count: int) -> list[dict[str, str]]:
    """`count` sets of captions of a record's clips, drawn by its trained method, of a row of folds by that of their fold."""
    from bench.cell import replay  # imported late: the other metrics do without torch

    sets: list[dict[str, str]] = [{} for _ in range(count)]
    for folder in trained_in(home.results, record):
        for one, more in zip(sets, replay.load(folder, home).draw(count), strict=True):
            one.update(more)
    return sets
