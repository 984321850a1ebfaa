"""Folds: every clip is reported on once, by a cell that never saw its film.

Whole films are dealt, so clips that look alike are never on both sides. Fold k is that of seed k.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench import BenchError
from bench.data.readers.files import read_lines
from bench.data.readers.msvd import film, read_mapping
from bench.data.source import Source
from bench.data.splits import Splits, in_order
from bench.declare.dataset import DatasetDefinition, SplitRule
from bench.errors import many
from bench.errors import named as some
from bench.home import Home


def films_of(
    definition: DatasetDefinition, rule: SplitRule, source: Source, home: Home, needed: Iterable[str] = ()
) -> dict[str, str]:
    """The film of every clip: as the rule's file names it, as the caption files do, else the file that the clip lies in.

    Raises BenchError where the rule's file does not name all `needed` clips.
    """
    named: dict[str, str] = {}
    if rule.films:
        path = definition.resolve(rule.films, home)
        if not path.is_file():
            raise BenchError(
                f"data set {definition.name}: the films of its folds are not at {path}; put the file there"
            )
        named = _named_films(path, source)
        absent = [clip for clip in needed if clip not in named]
        if absent:
            raise BenchError(
                f"data set {definition.name}: {path} names no film of {many(len(absent), 'clip')} ({some(absent)}): add a line "
                f"`<film>_<start>_<end> <clip>` for each, then: bench data check dataset={definition.called}"
            )
    return {clip.id: named.get(clip.id) or clip.film or clip.video for clip in source.clips.values()}


def _named_films(path: Path, source: Source) -> dict[str, str]:
    """Film by clip, from lines `<film>_<start>_<end> <clip>`; of MSVD's own clips the file may count from vid0."""
    if source.from_one:
        return {own: film(name) for name, clip in read_mapping(path).items() for own in (name, clip)}
    films: dict[str, str] = {}
    for number, line in read_lines(path):
        name, clip = [*line.split(maxsplit=1), ""][:2]
        clip, cut = clip.strip(), name.rsplit("_", 2)
        if len(cut) != 3 or not all(cut) or not clip:
            raise BenchError(f"{path} line {number} reads {line[:60]!r}: expected `<film>_<start>_<end> <clip>`")
        own = clip if clip in source.clips else source.aliases.get(clip, clip)
        if films.setdefault(own, cut[0]) != cut[0]:
            raise BenchError(
                f"{path} line {number} says that clip {own} is of {cut[0]}, an earlier line of {films[own]}"
            )
    return films


def deal(definition: DatasetDefinition, rule: SplitRule, films: Mapping[str, str], kept: Sequence[str]) -> list[Splits]:
    """Train, val and test of every fold, clips in the order of `kept`; `films` is the film of each.

    In an order drawn from the rule's seed each film goes to the fold with the fewest clips; for each fold, in an order of its
    own, films of the others go to validation until it has as many clips as the rule asks for. Raises BenchError for more folds
    than films, and where a fold would keep nothing to validate or to train on.
    """
    assert rule.folds is not None
    clips_of: dict[str, list[str]] = {}
    for clip in kept:
        clips_of.setdefault(films[clip], []).append(clip)
    if rule.folds > len(clips_of):
        raise BenchError(
            f"data set {definition.name}: splits.folds is {rule.folds}, but its {many(len(kept), 'clip')} come from "
            f"{many(len(clips_of), 'film')}, and no film is parted: ask for at most {len(clips_of)} folds"
        )
    folds: list[list[str]] = [[] for _ in range(rule.folds)]
    for name in _shuffled(clips_of, f"{rule.seed}"):
        min(folds, key=len).extend(clips_of[name])
    return [in_order(_parts(definition, rule, number, own, films, clips_of), kept) for number, own in enumerate(folds)]


def _parts(
    definition: DatasetDefinition,
    rule: SplitRule,
    number: int,
    own: Sequence[str],
    films: Mapping[str, str],
    clips_of: Mapping[str, Sequence[str]],
) -> dict[str, Sequence[str]]:
    tested = {films[clip] for clip in own}
    others = [name for name in _shuffled(clips_of, f"{rule.seed}/{number}") if name not in tested]
    validation: list[str] = []
    while others and len(validation) < rule.validation:
        validation += clips_of[others.pop()]
    training = [clip for name in others for clip in clips_of[name]]
    if len(validation) < rule.validation or not training:
        lacks = "clips to train on" if len(validation) >= rule.validation else "its validation clips"
        raise BenchError(
            f"data set {definition.name}: fold {number} would be without {lacks}: the other folds have "
            f"{many(len(validation) + len(training), 'clip')}, and splits.validation takes {rule.validation} of them; "
            "ask for fewer"
        )
    return {"train": training, "val": validation, "test": own}


def _shuffled(names: Iterable[str], seed: str) -> list[str]:
    """By the hash of seed and name: the order of the file is no matter."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())


def check_fold(definition: DatasetDefinition, folds: int, seed: int) -> None:
    """Raise BenchError for a seed to which no fold belongs."""
    if seed >= folds:
        raise BenchError(
            f"data set {definition.name}: seed {seed} has no fold: fold k is that of seed k, and its rule deals {folds} folds; "
            f"name seeds of 0 to {folds - 1}"
        )
