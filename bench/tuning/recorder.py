"""What the driver of a search does while Tune runs: it writes trials into the report as they end, passes their curves to the
tracker, and shows them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ray.tune import Callback

from bench.cell.job import Job, sentence
from bench.disk.limits import own_json, own_text
from bench.home import Home
from bench.records.curves import read_curves
from bench.tracking.background import Tracking
from bench.tuning.live import Line, Live
from bench.tuning.space import Point, describe
from bench.tuning.study import Report, State, Study, Trial, save
from bench.tuning.tracked_trials import of_trial, trial_run
from bench.tuning.trial import LINEAGE, Curve, Lineage, curve_of, has_ended, reason_of, value_of


@dataclass
class _Running:
    """What the driver knows of a trial that has begun."""

    number: int
    jobs: list[Job]
    point: Point
    line: Line
    began: float
    passed_on: set[tuple[str, int, str]] = field(default_factory=set)  # rows of its curves that the tracker has

    @property
    def folders(self) -> list[Path]:
        return [Path(job.folder) for job in self.jobs]


class Recorder(Callback):
    """The callback of a search. Where a searcher proposes the points, trials take the numbers of `todo` as they come."""

    def __init__(
        self,
        study: Study,
        report: Report,
        home: Home,
        say: Callable[[str], None],
        todo: list[int],
        tracking: Tracking,
    ) -> None:
        self._study, self._report, self._home, self._tracking = study, report, home, tracking
        self._free = iter(todo)
        self._trials: dict[str, _Running] = {}  # by Tune's id
        self._over: set[str] = set()  # ids of those that are in the report
        limit = study.spec.how.time_limit
        self._deadline = float("inf") if limit is None else time.monotonic() + 60 * limit
        self._live = Live(study.row, report, study.spec.how.metric, study.trials, say)

    def __enter__(self) -> Recorder:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._trials.keys() - self._over:
            self._record(name, "interrupted", None)
        self._live.stop()

    def __getstate__(self) -> dict[str, Any]:
        """Ray keeps its callbacks to restore a search from them; this one goes on from the report."""
        return {}

    def _of(self, trial: Any) -> _Running:
        if trial.trial_id not in self._trials:
            study = self._study
            number = trial.config["number"] if study.points is not None else next(self._free)
            point = study.points[number] if study.points is not None else study.that_matter(trial.config)
            jobs = study.jobs([(0, point)], self._home, number)
            line = self._live.add(number, describe(study.card, point))
            self._trials[trial.trial_id] = _Running(number, jobs, point, line, time.monotonic())
            self._tracking.start(
                partial(trial_run, jobs[0].key, jobs[0].config, point, study.space, study.spec.how.metric)
            )
        return self._trials[trial.trial_id]

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        one = self._of(trial)
        letters = describe(self._study.card, self._letters(trial, one))
        self._live.begin(one.line, letters)

    def _letters(self, trial: Any, one: _Running) -> Point:
        """The settings of a trial as they are now."""
        return {name: trial.config[name] for name in one.point} if self._study.changes_letters else one.point

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for name, one in self._trials.items():
            if name not in self._over and self._live.due(one.line):
                self._move(one)
                self._pass_on_curves(one)

    def _move(self, one: _Running) -> None:
        curve = self._curve(one)
        self._live.move(one.line, curve[-1] if curve else None)

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        one = self._of(trial)
        self._move(one)
        self._pass_on_curves(one)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        one = self._of(trial)
        if all(map(has_ended, one.folders)):
            state: State = "completed"
        else:
            state = "interrupted" if time.monotonic() >= self._deadline else "stopped"
        self._record(trial.trial_id, state, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        one, error = self._of(trial), trial.get_error()
        cause = getattr(error, "cause", None) or error
        reason = reason_of(one.folders[0]) or (sentence(cause) if cause is not None else None)
        self._record(trial.trial_id, "failed", reason or "its worker process was lost")

    def _record(self, name: str, state: State, message: str | None) -> None:
        if name in self._over:
            return
        one, study = self._trials[name], self._study
        self._over.add(name)
        curve = self._curve(one)
        value = value_of(one.jobs, study.spec.how.metric, study.before)
        entry = Trial(
            number=one.number,
            point=one.point,
            key=one.jobs[0].key,
            state=state,
            value=value,
            captions=len(one.jobs) * curve[-1][0] if curve else 0,
            seconds=round(time.monotonic() - one.began, 1),
            curve=curve,
            reused_captions=sum(map(_reused, one.folders)),
            message=message,
        )
        if study.changes_letters and (lineage := _lineage(one.folders[0])) is not None:
            schedule = list(lineage.schedule)
            entry = entry.model_copy(update={"schedule": schedule, "point": schedule[0][1]})
        self._report.trials.append(entry)
        save(self._report, study.path(self._home))
        if study.resume_states is not None and state != "interrupted":
            for job in one.jobs:
                study.resume_states.remove(job.key)
        self._pass_on_curves(one)
        self._tracking.finish(partial(of_trial, self._report, entry, study.digest, self._home))
        one.line.at = curve[-1] if curve else None
        self._live.end(one.line, state, value, message)

    def _curve(self, one: _Running) -> Curve:
        """The mean of the curves of its seeds, as far as all have come."""
        curves = [curve_of(folder, self._study.spec.how.metric) for folder in one.folders]
        return [
            (epochs[0][0], sum(score for _, score in epochs) / len(epochs)) for epochs in zip(*curves, strict=False)
        ]

    def _pass_on_curves(self, one: _Running) -> None:
        """Pass on what is new in the curves of a trial."""
        rows = {(row["phase"], row["epoch"], row["name"]): row for row in read_curves(one.folders[0])}
        new = [row for name, row in rows.items() if name not in one.passed_on]
        one.passed_on.update(rows)
        if new:
            self._tracking.curves(one.jobs[0], new)


def _reused(folder: Path) -> int:
    """Captions of a cell that others had read for it."""
    with contextlib.suppress(AttributeError, OSError, TypeError, ValueError):
        return int(own_json(own_text(folder / "work" / "progress.json")).get("reused", 0))
    return 0


def _lineage(folder: Path) -> Lineage | None:
    return Lineage.read(folder / "work") if (folder / "work" / LINEAGE).is_file() else None
