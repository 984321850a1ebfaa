"""The driver's ear in a search: every trial that ends is written into the report and told to MLflow.

Imported by `bench.tuning.search` alone, and late: it brings Ray Tune.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune import Callback

from bench.cell.job import Job, sentence
from bench.home import Home
from bench.records.curves import read_curves
from bench.tracking.background import NoTracking, Tracking
from bench.tuning.space import told
from bench.tuning.study import Report, State, Study, Trial, save
from bench.tuning.trial import ENDED, curve_of, reason_of


@dataclass
class _Kept:
    """What the driver knows of a running trial."""

    number: int
    job: Job
    point: dict[str, Any]
    began: float = field(default_factory=time.monotonic)
    ended: bool = False
    told: set[tuple[str, int, str]] = field(default_factory=set)  # rows of its curves that MLflow has


class Keeper(Callback):
    """Writes down trials as they end. Where a searcher proposes the points, trials take the numbers of `todo` as they come."""

    def __init__(
        self,
        study: Study,
        report: Report,
        home: Home,
        say: Callable[[str], None],
        todo: list[int],
        tracking: Tracking | NoTracking,
    ) -> None:
        self._study, self._report, self._home, self._say, self._tracking = study, report, home, say, tracking
        self._free = iter(todo)
        self._kept: dict[str, _Kept] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Ray keeps its callbacks to restore a search from them; ours is gone on with from the report."""
        return {}

    def _of(self, trial: Any) -> _Kept:
        if trial.trial_id not in self._kept:
            study = self._study
            number = trial.config["number"] if study.points is not None else next(self._free)
            point = study.points[number] if study.points is not None else dict(trial.config)
            cell = study.cell(point, self._home)
            job = study.job(cell, self._home)
            self._kept[trial.trial_id] = _Kept(number, job, point)
            self._tracking.start(job, cell)
        return self._kept[trial.trial_id]

    def _name(self, one: _Kept) -> str:
        return f"{self._study.row} trial {one.number}: {told(self._study.card, one.point)}"

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._say(f"{self._name(self._of(trial))}: started")

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        one = self._of(trial)
        one.ended |= bool(result.get(ENDED))
        self._tell(one)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        one = self._of(trial)
        curve = curve_of(Path(one.job.folder))
        whole = one.ended or bool(curve and curve[-1][0] >= self._report.budget)  # the scheduler ends those too
        self._note(one, "completed" if whole else "stopped", None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        one, error = self._of(trial), trial.get_error()
        cause = getattr(error, "cause", None) or error
        reason = reason_of(Path(one.job.folder)) or (sentence(cause) if cause is not None else None)
        self._note(one, "failed", reason or "its worker process was lost")

    def _note(self, one: _Kept, state: State, message: str | None) -> None:
        curve = curve_of(Path(one.job.folder))
        value = max((score for _, score in curve), default=None)
        trial = Trial(
            number=one.number,
            point=one.point,
            key=one.job.key,
            state=state,
            value=value,
            captions=curve[-1][0] if curve else 0,
            seconds=round(time.monotonic() - one.began, 1),
            curve=curve,
            message=message,
        )
        self._report.trials.append(trial)
        save(self._report, self._study.path(self._home))
        if self._study.shelf is not None:
            self._study.shelf.drop(one.job.key)
        self._tell(one)
        self._tracking.finish_trial(one.job, state, value, message)
        reached = "no score" if value is None else f"validation CIDEr {value:.1f}"
        self._say(f"{self._name(one)}: {state}, {reached}{f' ({message})' if message else ''}")

    def _tell(self, one: _Kept) -> None:
        """Pass on what is new in the curves of a trial."""
        rows = [
            row
            for row in read_curves(Path(one.job.folder))
            if (row["phase"], row["epoch"], row["name"]) not in one.told
        ]
        one.told.update((row["phase"], row["epoch"], row["name"]) for row in rows)
        if rows:
            self._tracking.curves(one.job, rows)
