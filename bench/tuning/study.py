"""One search of one method on one data set: its points as cells, what became of them, and the file that says so.

The file is the truth; what Ray and MLflow keep of a search is a view. It is written after every trial, so that the same command
goes on where the last one ended, and a page can be made from it without data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from bench import BenchError
from bench.cell.job import Job
from bench.cell.schedule import SCHEDULE
from bench.declare.card import TRAIN, Interval, MethodCard
from bench.declare.registry import MethodEntry, variants
from bench.declare.settings import Model, Strict, Train, given
from bench.declare.validation import from_pydantic
from bench.disk.limits import own_text
from bench.disk.whole import write_atomically
from bench.errors import listing
from bench.home import Home
from bench.plan.cells import Cell, cells, requested
from bench.plan.request import RunSpec
from bench.records.schema import cell_key
from bench.tuning.request import TuneSpec
from bench.tuning.space import (
    Conditions,
    Point,
    Space,
    by_group,
    describe,
    grid,
    resolve,
    scattered,
    that_matter,
)
from bench.tuning.storage import ResumeStates

FOLDER = "tuning"
State = Literal["completed", "stopped", "failed", "interrupted"]


class Trial(Strict):
    """One point that was tried. `curve` holds (captions read, validation score) of every epoch, the mean over `seeds` trainings.

    `value` is the score of the epoch that the cell keeps, the best by CIDEr of the last phase that it came to. `completed` trials
    had their whole budget, `stopped` ones were ended by the scheduler, `interrupted` ones by the time limit (the next command
    goes on with them), `failed` ones say why. `schedule` holds the points of a population's member and the captions from which
    each held; `point` is the first of these.
    """

    number: int
    point: dict[str, Any]
    key: str
    state: State
    value: float | None = None
    captions: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float]] = Field(default_factory=list)
    schedule: list[tuple[int, dict[str, Any]]] | None = None
    reused_captions: int = 0
    message: str | None = None


class Report(Strict):
    """The file of a search: what was asked for, `config` being that of a trial without its point, and the trials so far."""

    version: Literal[1] = Field(default=1, alias="schema")
    row: str
    how: dict[str, Any]
    space: dict[str, Any]
    config: dict[str, Any]
    budget: int
    trials: list[Trial] = Field(default_factory=list)
    chosen: int | None = None

    def best(self) -> Trial | None:
        """The trial with the highest validation score, the first of equals. A stopped one counts with what it reached."""
        scored = [trial for trial in self.trials if trial.value is not None]
        return max(scored, key=lambda trial: (trial.value, -trial.number), default=None)


@dataclass(frozen=True)
class Study:
    """A search that is to be made. `first` is the row's own point, which is tried first; `points` are None where a searcher
    proposes those that follow as it goes (optuna)."""

    spec: TuneSpec
    card: MethodCard
    variant: str
    streams: tuple[str, ...]
    space: Space
    conditions: Conditions
    first: Point
    points: list[Point] | None
    trials: int
    base: Cell
    entries: dict[str, MethodEntry]

    @property
    def row(self) -> str:
        return f"{self.card.name}:{self.variant}"

    @property
    def how(self) -> dict[str, Any]:
        return self.spec.how.model_dump() | {"trials": self.trials}

    @property
    def digest(self) -> str:
        """What differs between searches of the same row."""
        asked = {"base": self.base.key, "how": self.how, "space": plain(self.space), "first": self.first}
        return cell_key(asked | ({"conditions": self.conditions} if self.conditions else {}))

    @property
    def resume_states(self) -> ResumeStates | None:
        """Copies of the resume states of its trials, if `storage=` was named."""
        return None if self.spec.how.storage is None else ResumeStates(self.spec.how.storage, self.digest)

    @property
    def changes_letters(self) -> bool:
        """Whether settings change while a trial trains."""
        return self.spec.how.scheduler == "pbt"

    @property
    def before(self) -> tuple[str, ...]:
        """The phases before the first in which a searched setting acts: in them all trials are the same."""
        phases = tuple(self.base.config["phases"])
        acting = {None if name.startswith(TRAIN) else self.card.settings[name].acts for name in self.space}
        first = next((number for number, phase in enumerate(phases) if None in acting or phase in acting), 0)
        return phases[:first]

    @property
    def untouched(self) -> float:
        """The share of the budget that those phases may take."""
        return sum(float(self.base.config["phases"][phase]) for phase in self.before)

    def path(self, home: Home) -> Path:
        """Its file, `results/tuning/<dataset>/<method>/<variant>-<digest>.json`."""
        name = f"{self.variant}-{self.digest}.json"
        return home.results / FOLDER / str(self.base.config["dataset"]) / self.card.name / name

    def cells(self, schedule: Schedule, home: Home) -> list[Cell]:
        """A trial, one cell for each of its seeds: trained and chosen like any cell, reported on validation clips, kept apart
        from results."""
        seeds = range(self.spec.how.seed, self.spec.how.seed + self.spec.how.seeds_per_trial)
        found = cells(self.at(schedule[0][1], self.spec.run, seeds, "val"), home, self.entries)
        return [Cell({**scheduled(cell, schedule, self.card).config, "tuning": self.digest}) for cell in found]

    def cell(self, point: Point, home: Home) -> Cell:
        """The first cell of the trial at a point."""
        return self.cells([(0, point)], home)[0]

    def jobs(self, schedule: Schedule, home: Home, number: int) -> list[Job]:
        """The jobs of trial `number`; a population's members keep their folders, whatever becomes of their settings."""
        jobs = [Job.of(cell, home) for cell in self.cells(schedule, home)]
        if not self.changes_letters:
            return jobs
        member = self.states(home).with_name(f"member{number}")
        return [replace(job, folder=str(member / f"seed{job.config['seed']}")) for job in jobs]

    def states(self, home: Home) -> Path:
        """Where a population keeps the states of its members at marks."""
        return home.work / "tune" / self.digest / "states"

    def that_matter(self, point: Mapping[str, Any]) -> Point:
        """A point without what changes nothing there."""
        return that_matter({name: point[name] for name in self.space}, self.conditions)

    def at(self, point: Mapping[str, Any], run: RunSpec, seeds: Iterable[int], split: str) -> RunSpec:
        """The request that trains the row with the values of a point."""
        own, shared = by_group(point)
        update = {
            "methods": [self.row],
            "streams": list(self.streams),
            "seeds": list(seeds),
            "split": split,
            "model": _sizes(run, self.card),
            "train": Train.model_validate({**given(run.train), **shared}),
            "overrides": {**run.overrides, self.card.name: {**run.overrides.get(self.card.name, {}), **own}},
        }
        return run.model_copy(update=update)


Schedule = Sequence[tuple[int, Point]]
"""Points and the captions from which each holds, the first from 0."""


def scheduled(cell: Cell, schedule: Schedule, card: MethodCard) -> Cell:
    """The cell with the changes of a schedule; the same where there are none."""
    changes = []
    for captions, point in schedule[1:]:
        own, shared = by_group(point)
        changes.append({"captions": captions, "settings": own, "train": shared})
    if not changes:
        return cell
    words = [f"from {captions:,} captions {describe(card, point)}" for captions, point in schedule[1:]]
    changed = [*cell.config["changed"], *words]
    title = f"{cell.config['title']} ({', '.join(words)})"
    return Cell({**cell.config, SCHEDULE: changes, "changed": changed, "title": title})


def in_words(trial: Trial, card: MethodCard | None) -> str:
    """The settings of a trial, with what became of them while it trained."""
    (_, first), *later = trial.schedule or [(0, trial.point)]
    words = [f"from {captions:,} captions {describe(card, point)}" for captions, point in later]
    return ", ".join([describe(card, first), *words])


def plain(space: Space) -> dict[str, Any]:
    """A space as JSON."""
    return {name: choices.model_dump() if isinstance(choices, Interval) else choices for name, choices in space.items()}


def studies(spec: TuneSpec, home: Home, entries: dict[str, MethodEntry], ready: bool = True) -> list[Study]:
    """A search for each row of the request, and under the standard protocol for each set of streams that it is ranked in.

    Streams must be in the cache, unless not `ready`: then the searches cannot be made yet, but all that is wrong with them is
    found. Raises BenchError for a row with nothing to search, and as `_trials` does.
    """
    found = []
    for card, variant in [pair for word in spec.run.methods for pair in variants(word, entries)]:
        update = {"methods": [f"{card.name}:{variant}"], "seeds": [spec.how.seed], "split": "val"}
        update["model"] = _sizes(spec.run, card)
        for base in (cells if ready else requested)(spec.run.model_copy(update=update), home, entries):
            found.append(_study(spec, card, variant, base, entries))
    trials = _trials(spec, found)
    return [replace(study, trials=trials, points=_points(study, trials)) for study in found]


def _sizes(run: RunSpec, card: MethodCard) -> Model:
    """The sizes of a request that a method has: the others are those of other rows."""
    return Model(**{name: value for name, value in given(run.model).items() if name in card.settings})


def _study(spec: TuneSpec, card: MethodCard, variant: str, base: Cell, entries: dict[str, MethodEntry]) -> Study:
    settings = card.whole(base.config["settings"])
    space, conditions = resolve(spec.spaces.get(card.name) or card.search_space, settings)
    if not space:
        of = f" of {card.name}:{variant}" if card.search_space or card.name in spec.spaces else ""
        raise BenchError(
            f"the card of {card.name} names nothing to search{of}; name it, such as "
            f"space.{card.name}.train.learning_rate={{min: 1e-4, max: 1e-3, log: true}}"
        )
    _refuse_population(spec, card, space)
    train = Train().model_dump() | base.config["train"]
    first = {name: train[name.removeprefix(TRAIN)] if name.startswith(TRAIN) else settings[name] for name in space}
    own = that_matter(first, conditions)
    return Study(spec, card, variant, tuple(base.config["streams"]), space, conditions, own, None, 0, base, entries)


FIXED = ("data_fraction",)  # of `train`: what the budget is counted from


def _refuse_population(spec: TuneSpec, card: MethodCard, space: Space) -> None:
    """Raise BenchError for what cannot change while a model trains."""
    if spec.how.scheduler != "pbt":
        return
    if spec.how.search == "optuna":
        raise BenchError(
            "search=optuna, scheduler=pbt: a population proposes its own points; use search=random or grid"
        )
    if spec.how.trials == 1:
        raise BenchError(
            "trials=1, scheduler=pbt: a population of one has nobody to learn from; ask for trials=4 or more"
        )
    for name in space:
        key = name.removeprefix(TRAIN)
        kind = Train.model_fields[key].annotation if key != name else card.settings[name].type
        if kind not in (float, float | None, "float") or key in FIXED:
            raise BenchError(
                f"scheduler=pbt changes settings while a model trains, and {name} is no weight or rate that can change: name "
                f"others with space.{card.name}.SETTING=[..]"
            )


def _points(study: Study, trials: int) -> list[Point] | None:
    """The points of a search; None where they are not known beforehand."""
    how = study.spec.how
    if how.search == "optuna":
        return None
    draw = grid if how.search == "grid" else scattered
    return draw(study.space, trials, how.seed, study.first, study.conditions)


def _trials(spec: TuneSpec, found: Sequence[Study]) -> int:
    """How many trials each search gets, the same for all. Raises BenchError for grids of different sizes without `trials=`."""
    asked, seed = spec.how.trials, spec.how.seed
    if spec.how.search != "grid":
        if asked is None:
            raise BenchError(f"trials= is missing: search={spec.how.search} needs to be told how many points to try")
        for study in found:
            if not any(isinstance(choices, Interval) for choices in study.space.values()):
                points = len(grid(study.space, None, seed, study.first, study.conditions))
                if asked > points:
                    raise BenchError(
                        f"trials={asked}, but the space of {study.row} has {points} points, its own among them: ask for "
                        f"trials={points} or fewer"
                    )
        return asked
    sizes = {study.row: len(grid(study.space, None, seed, study.first, study.conditions)) for study in found}
    least, listed = min(sizes.values()), listing([f"{row} {points}" for row, points in sizes.items()])
    if asked is not None and asked > least:
        raise BenchError(
            f"trials={asked}, but the grids have fewer points ({listed}): every method gets as many trials"
        )
    if asked is None and len(set(sizes.values())) > 1:
        raise BenchError(
            f"the grids have different numbers of points ({listed}) and every method gets as many trials: "
            f"name trials={least} or fewer, which are drawn from each grid by tune_seed"
        )
    if spec.how.scheduler == "pbt" and (asked or least) < 2:
        raise BenchError(
            f"scheduler=pbt, and the grid has one point ({listed}): a population of one has nobody to learn from"
        )
    return asked if asked is not None else least


def load(study: Study, home: Home, budget: int) -> Report:
    """The report of a search as far as it has come. Raises BenchError for a damaged file."""
    path = study.path(home)
    if not path.is_file():
        return Report(row=study.row, how=study.how, space=plain(study.space), config=study.base.config, budget=budget)
    return read(path)


def read(path: Path) -> Report:
    """The report in a file. Raises BenchError for a damaged one."""
    try:
        return Report.model_validate_json(own_text(path))
    except ValidationError as error:
        raise from_pydantic(error, Report, f"{path} (remove it and run the same command again)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read ({error}): remove it and run the same command again") from None


def save(report: Report, path: Path) -> None:
    """Write the report, trials in the order of their numbers."""
    report.trials.sort(key=lambda trial: trial.number)
    content = report.model_dump(mode="json", by_alias=True)
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
