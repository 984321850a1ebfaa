"""One search of one method on one data set: its points as cells, what became of them, and the file that says so.

The file is the truth; what Ray and MLflow keep of a search is a view. It is written after every trial, so that the same command
goes on where the last one ended, and a page can be made from it without data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from bench import BenchError
from bench.declare.card import Interval, MethodCard
from bench.declare.registry import MethodEntry
from bench.declare.settings import Strict, Train, given
from bench.declare.validation import from_pydantic
from bench.disk.whole import write_atomically
from bench.errors import listing
from bench.home import Home
from bench.plan.cells import Cell, cells, variants
from bench.plan.request import RunSpec
from bench.records.schema import cell_key
from bench.tuning.request import TuneSpec
from bench.tuning.space import Point, Space, by_group, grid, scattered, size
from bench.tuning.storage import ResumeStates

SCHEMA = 1
FOLDER = "tuning"
State = Literal["completed", "stopped", "failed"]


class Trial(Strict):
    """One point that was tried. `curve` holds (captions read, validation CIDEr) of every epoch, `value` its highest.

    `completed` trials had their whole budget, `stopped` ones were ended by the scheduler, `failed` ones say why.
    """

    number: int
    point: dict[str, Any]
    key: str
    state: State
    value: float | None = None
    captions: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float]] = Field(default_factory=list)
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
        """The trial with the highest validation CIDEr, the first of equals. A stopped one counts with what it reached."""
        scored = [trial for trial in self.trials if trial.value is not None]
        return max(scored, key=lambda trial: (trial.value, -trial.number), default=None)


@dataclass(frozen=True)
class Study:
    """A search that is to be made. `points` are None where a searcher proposes them as it goes (optuna)."""

    spec: TuneSpec
    card: MethodCard
    variant: str
    streams: tuple[str, ...]
    space: Space
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
        return cell_key({"base": self.base.key, "how": self.how, "space": plain(self.space)})

    @property
    def resume_states(self) -> ResumeStates | None:
        """Copies of the resume states of its trials, if `storage=` was named."""
        return None if self.spec.how.storage is None else ResumeStates(self.spec.how.storage, self.digest)

    def path(self, home: Home) -> Path:
        """Its file, `results/tuning/<dataset>/<method>/<variant>-<digest>.json`."""
        name = f"{self.variant}-{self.digest}.json"
        return home.results / FOLDER / str(self.base.config["dataset"]) / self.card.name / name

    def cell(self, point: Mapping[str, Any], home: Home) -> Cell:
        """The trial at a point: trained and chosen like any cell, reported on validation clips, kept apart from results."""
        (cell,) = cells(self.at(point, self.spec.run, [self.spec.how.seed], "val"), home, self.entries)
        return Cell({**cell.config, "tuning": self.digest})

    def at(self, point: Mapping[str, Any], run: RunSpec, seeds: Sequence[int], split: str) -> RunSpec:
        """The request that trains the row with the values of a point."""
        own, shared = by_group(point)
        update = {
            "methods": [self.row],
            "streams": list(self.streams),
            "seeds": list(seeds),
            "split": split,
            "train": Train.model_validate({**given(run.train), **shared}),
            "overrides": {self.card.name: {**run.overrides.get(self.card.name, {}), **own}},
        }
        return run.model_copy(update=update)


def plain(space: Space) -> dict[str, Any]:
    """A space as JSON."""
    return {name: choices.model_dump() if isinstance(choices, Interval) else choices for name, choices in space.items()}


def spaces(spec: TuneSpec, entries: dict[str, MethodEntry]) -> dict[str, Space]:
    """What is searched, by method. Raises BenchError for a method with nothing to search."""
    cards = {card.name: card for word in spec.run.methods for card, _ in variants(word, entries)}
    found: dict[str, Space] = {name: spec.spaces.get(name) or card.search_space for name, card in cards.items()}
    empty = [name for name, space in found.items() if not space]
    if empty:
        raise BenchError(
            f"the card of {empty[0]} names nothing to search; name it, such as "
            f"space.{empty[0]}.train.learning_rate={{min: 1e-4, max: 1e-3, log: true}}"
        )
    return found


def studies(spec: TuneSpec, home: Home, entries: dict[str, MethodEntry]) -> list[Study]:
    """A search for each row of the request, and under the standard protocol for each set of streams that it is ranked in.

    Its streams must be in the cache. Raises BenchError as `spaces` and `trials_of` do.
    """
    by_method = spaces(spec, entries)
    trials, seed = trials_of(spec, by_method), spec.how.seed
    found = []
    for card, variant in [pair for word in spec.run.methods for pair in variants(word, entries)]:
        space = by_method[card.name]
        points: list[Point] | None = None
        if spec.how.search == "grid":
            points = grid(space, trials, seed)
        elif spec.how.search == "random":
            points = scattered(space, trials, seed)
        one = spec.run.model_copy(update={"methods": [f"{card.name}:{variant}"], "seeds": [seed], "split": "val"})
        for base in cells(one, home, entries):
            streams = tuple(base.config["streams"])
            found.append(Study(spec, card, variant, streams, space, points, trials, base, entries))
    return found


def trials_of(spec: TuneSpec, by_method: Mapping[str, Space]) -> int:
    """How many trials each search gets, the same for all. Raises BenchError for grids of different sizes without `trials=`."""
    for space in by_method.values() if spec.how.search == "grid" else ():
        grid(space, 1, spec.how.seed)  # refuses intervals
    sizes = {name: size(space) for name, space in by_method.items()}
    if spec.how.search != "grid":
        if spec.how.trials is None:
            raise BenchError(f"trials= is missing: search={spec.how.search} needs to be told how many points to try")
        return spec.how.trials
    asked = spec.how.trials
    listed = listing([f"{name} {points:g}" for name, points in sizes.items()])
    if asked is not None and asked > min(sizes.values()):
        raise BenchError(
            f"trials={asked}, but the grids have fewer points ({listed}): every method gets as many trials"
        )
    if asked is None and len(set(sizes.values())) > 1:
        raise BenchError(
            f"the grids have different numbers of points ({listed}) and every method gets as many trials: "
            f"name trials={min(sizes.values()):g} or fewer, which are drawn from each grid by tune_seed"
        )
    return asked if asked is not None else int(min(sizes.values()))


def load(study: Study, home: Home, budget: int) -> Report:
    """The report of a search as far as it has come. Raises BenchError for a damaged file."""
    path = study.path(home)
    if not path.is_file():
        return Report(row=study.row, how=study.how, space=plain(study.space), config=study.base.config, budget=budget)
    return read(path)


def read(path: Path) -> Report:
    """The report in a file. Raises BenchError for a damaged one."""
    try:
        return Report.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise from_pydantic(error, Report, f"{path} (remove it and run the same command again)") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read ({error}): remove it and run the same command again") from None


def save(report: Report, path: Path) -> None:
    """Write the report, trials in the order of their numbers."""
    report.trials.sort(key=lambda trial: trial.number)
    content = report.model_dump(mode="json", by_alias=True)
    write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
