"""What has come of a study so far: `results/studies/<name>.json`, which cells answer each pair, and what they say.

Everything but the keys is read from the records, so that pages can be made again from results alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError, field_validator

from bench import BenchError
from bench.cell.provenance import moment
from bench.declare.registry import dataset
from bench.declare.settings import Strict
from bench.declare.validation import from_pydantic
from bench.disk.limits import own_json, own_text
from bench.disk.locks import cell_lock
from bench.disk.whole import write_atomically
from bench.evaluation.metrics import MEANS, RANKED_BY, SHOWN
from bench.evaluation.ngrams import Floats
from bench.evaluation.resampling import interval, resamples, scores
from bench.evaluation.sequential import Decision, decide, decide_once
from bench.home import Home
from bench.records.clip_scores import SCORES, read_scores, read_statistics
from bench.records.folds import FOLDS, read_folds
from bench.records.schema import Record
from bench.records.store import RECORD, BadRecord, apart, cell_folder, read_record
from bench.reports.clips import check
from bench.study.declaration import SIDES, Study, studies

FOLDER = "studies"


class Keys(Strict):
    """`dataset/method/key` of the records of one pair by seed; of folds the row on each side, and their cells."""

    idea: list[str] = Field(default_factory=list)
    control: list[str] = Field(default_factory=list)


class Asked(Strict):
    """A study with the digest and commit of its declaration at its first cell, when that commit was made (ISO 8601), and the
    cells of its pairs."""

    version: Literal[1] = Field(default=1, alias="schema")
    declaration: str
    commit: str | None = None
    committed: str | None = None
    pairs: dict[str, Keys] = Field(default_factory=dict)

    @field_validator("committed")
    @classmethod
    def _is_a_moment(cls, value: str | None) -> str | None:
        if value is not None and datetime.fromisoformat(value).tzinfo is None:
            raise ValueError(f"is {value}, which names no zone of time")
        return value


def path_of(home: Home, name: str) -> Path:
    return home.results / FOLDER / f"{name}.json"


def read(home: Home, name: str) -> Asked | None:
    """What was asked for of a study; None before its first cell. Raises BenchError for a damaged file."""
    path = path_of(home, name)
    try:
        return Asked.model_validate(own_json(own_text(path)))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise from_pydantic(error, Asked, f"{path} (take it from the repository again)") from None
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be read ({error}): take it from the repository again") from None


def begin(home: Home, study: Study, commit: str | None) -> Asked:
    """What was asked for so far, or a fresh start. Raises BenchError for a study that was changed after its first cell."""
    return of_study(home, study) or Asked(schema=1, declaration=study.digest, commit=commit, committed=moment(commit))


def of_study(home: Home, study: Study) -> Asked | None:
    """What was asked for of a study as it is declared; None before its first cell. Raises BenchError for a study that was changed
    after it: its records would be judged by a rule that was not declared before them."""
    asked = read(home, study.name)
    if asked is not None and asked.declaration != study.digest:
        places = [key for pair in asked.pairs.values() for side in SIDES for key in getattr(pair, side)]
        if not any((home.results / place).exists() for place in places):
            return None  # of a command that was stopped before its first cell
        raise BenchError(
            f"study {study.name} was changed after its first cell (declared {asked.declaration[:12]}, now {study.digest[:12]}): "
            "give the changed study a new name, and leave the declaration of this one as it was"
        )
    return asked


def given_up(home: Home) -> dict[str, str]:
    """`dataset/method/key` of the records that only studies asked for that were given up, each with the name of one."""
    places: dict[str, str] = {}
    wanted: set[str] = set()
    for name, (study, _) in studies().items():
        asked = read(home, name)
        its = {key for pair in asked.pairs.values() for key in (*pair.idea, *pair.control)} if asked else set()
        if study.given_up:
            places |= dict.fromkeys(its, name)
        else:
            wanted |= its
    return {place: name for place, name in places.items() if place not in wanted}


def note(home: Home, name: str, asked: Asked, pair: str, keys: Keys) -> Asked:
    """Write that a pair asks for `keys`, beside what another command has written meanwhile of other pairs, or of later looks at
    this one; returns all of it."""
    with cell_lock(home, f"study-{name}", math.inf):
        written = read(home, name)
        if written is not None and written.declaration == asked.declaration:
            asked = written
        before = asked.pairs.get(pair)
        sides = [] if before is None else [(getattr(before, side), getattr(keys, side)) for side in SIDES]
        if before is None or any(there[: len(asks)] != asks for there, asks in sides):
            asked.pairs[pair] = keys
        write(home, name, asked)
    return asked


def write(home: Home, name: str, asked: Asked) -> None:
    text = json.dumps(asked.model_dump(by_alias=True), indent=1, sort_keys=True)
    write_atomically(path_of(home, name), text + "\n")


def records(home: Home, keys: Sequence[str], bad: list[BadRecord] | None = None) -> list[Record]:
    """The records that are there and hold, as tables take them, in the order of `keys`; others are appended to `bad`."""
    found, refused = [], [] if bad is None else bad
    for key in keys:
        try:
            found.append(read_record(home.results / key / RECORD))
        except BadRecord as error:
            refused += [] if error.absent else [error]
    return check(found, home, refused)[0]


@dataclass(frozen=True)
class Answer:
    """One pair: its records by side, of folds also the rows that they make; paired differences by metric, of seeds or folds in
    order; and what CIDEr decides.

    Of folds alone: `overlap` is the interval with the variance that Nadeau and Bengio (2003) propose where training sets overlap,
    `films` the 95 % interval over the choice of films.
    """

    idea: tuple[Record, ...]
    control: tuple[Record, ...]
    differences: Mapping[str, tuple[float, ...]]
    decision: Decision | None
    films: tuple[float, float] | None = None
    overlap: tuple[float, float] | None = None

    @property
    def cells(self) -> list[Record]:
        """What was trained and scored."""
        return [one for one in (*self.idea, *self.control) if one.state == "done" and "cells" not in one.config]

    @property
    def counted(self) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
        """The records that the decision comes from: the seeds up to its look, or the rows of folds."""
        seeds = self.decision.seeds if self.decision else 0
        idea, control = (
            tuple(one for one in side if "cells" in one.config) or tuple(one for one in side if one.seed < seeds)
            for side in (self.idea, self.control)
        )
        return idea, control

    def of(self, metric: str) -> Decision | None:
        """The differences in another metric at the place where CIDEr was looked at: they decide nothing."""
        if metric == RANKED_BY or self.decision is None:
            return self.decision
        values = self.differences.get(metric, ())
        return decide_once(values[: self.decision.seeds], 0.0) if len(values) >= self.decision.seeds else None


def answer(study: Study, keys: Keys, home: Home, bad: list[BadRecord] | None = None) -> Answer:
    """What the records of a pair say, as far as they are there; those that do not hold are appended to `bad`."""
    looks = study.seeds()
    idea, control = (tuple(records(home, getattr(keys, side), bad)) for side in SIDES)
    if study.folds:
        return _of_folds(study, idea, control, home)
    found = {metric: tuple(_paired(idea, control, metric)) for metric in SHOWN}
    assert study.half_width is not None  # a study with looks declares it
    decision = decide(found[RANKED_BY], looks, study.margin, study.half_width)
    return Answer(idea, control, found, decision)


def _paired(idea: Sequence[Record], control: Sequence[Record], metric: str) -> list[float]:
    """Differences of the seeds from 0 on, up to the first that one side lacks: later ones were not to be looked at yet."""
    sides = [
        {one.seed: one.scores[one.split][metric] for one in side if metric in one.scores.get(one.split, {})}
        for side in (idea, control)
    ]
    values: list[float] = []
    while all(len(values) in side for side in sides):
        values.append(sides[0][len(values)] - sides[1][len(values)])
    return values


def _of_folds(study: Study, idea: tuple[Record, ...], control: tuple[Record, ...], home: Home) -> Answer:
    rows = [
        next((one for one in side if "cells" in one.config and one.state == "done"), None) for side in (idea, control)
    ]
    if rows[0] is None or rows[1] is None:
        return Answer(idea, control, {}, None)
    one, other = (_by_fold(study, row, home) for row in rows if row)
    found = {
        metric: tuple(100 * (one[fold][metric] - other[fold][metric]) for fold in sorted(one))
        for metric in SHOWN
        if metric in one[0]
    }
    films = _over_films(study, [row for row in rows if row], home)
    decision = decide_once(found[RANKED_BY], study.margin)
    return Answer(
        idea,
        control,
        found,
        decision,
        films,
        _of_overlap(study, decision, len(read_folds(cell_folder(home.results, rows[0])))),
    )


def trained_on(study: Study, clips: int) -> int:
    """On how many of the `clips` that a study of folds reports on each of its cells trains, at least 1; films that stay whole
    move it a little."""
    rule = dataset(study.dataset).split_rule(study.splits)
    assert rule.folds is not None
    return max(clips - clips // rule.folds - rule.validation, 1)


def _of_overlap(study: Study, decision: Decision, clips: int) -> tuple[float, float]:
    """Nadeau and Bengio (2003), Inference for the generalization error, section 3: variance times 1/k + tested/trained instead of
    1/k, for k folds."""
    folds = decision.seeds
    wider = (1 + folds * (clips / folds) / trained_on(study, clips)) ** 0.5
    return decision.mean - wider * (decision.mean - decision.low), decision.mean + wider * (
        decision.high - decision.mean
    )


def _by_fold(study: Study, row: Record, home: Home) -> dict[int, dict[str, float]]:
    """Corpus scores (0 to 1, CIDEr 0 to 10) of the clips of every fold, CIDEr with the document frequencies of all clips.

    Raises BenchError for files that do not fit one another, or the study."""
    folder = cell_folder(home.results, row)
    folds = read_folds(folder)
    ids, means = read_scores(folder / SCORES)
    count = len({fold for fold, _ in folds.values()})
    wrong = apart(list(folds), ids)
    said = (
        f"lists other clips than {SCORES} beside it: {wrong}"
        if wrong
        else f"has {count} folds, and its study {study.folds}"
    )
    if wrong or count != study.folds:
        raise BenchError(f"{folder / FOLDS} {said}: remove its folder, and bench study {study.name} makes it again")
    parts = {**read_statistics(folder / SCORES), **{name: means[name] / 100 for name in MEANS if name in means}}
    fold_n = np.array([folds[clip][0] for clip in ids])
    return {
        int(fold): scores([{part: values[fold_n == fold] for part, values in parts.items()}])
        for fold in np.unique(fold_n)
    }


def _over_films(study: Study, rows: Sequence[Record], home: Home) -> tuple[float, float]:
    """The difference in CIDEr in 95 of 100 choices of films."""
    folder = cell_folder(home.results, rows[0])
    folds = read_folds(folder)
    ids, first = read_scores(folder / SCORES)
    other, second = read_scores(cell_folder(home.results, rows[1]) / SCORES)
    place = {clip: number for number, clip in enumerate(other)}
    gains: Floats = first[RANKED_BY] - second[RANKED_BY][[place[clip] for clip in ids]]
    film_n = np.array([folds[clip][1] for clip in ids])
    sums, counts = np.bincount(film_n, gains), np.bincount(film_n)
    name = f"{study.name} films {len(sums)}"
    drawn = np.concatenate([(weights @ sums) / (weights @ counts) for weights in resamples(len(sums), name)])
    low, high = interval(drawn[:, None], len(sums))
    return float(low[0]), float(high[0])
