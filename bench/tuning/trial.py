"""One trial inside the worker that Ray Tune gave it: cells that are trained and watched, and not decoded.

A trial is trained from mark to mark, all of its seeds to each. Marks stand at quarters of the captions since the searched
settings act, where schedulers compare; under fifo there is only the end. At a mark of a population Tune may hold a member, and
start it again with the state of another and with other settings.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from bench.cell.job import Job, sentence, settle
from bench.cell.repeatable import same_every_time
from bench.disk.limits import own_json, own_text
from bench.home import Home
from bench.plan.states import RESUME
from bench.records.curves import SELECTION, Row, read_curves
from bench.records.schema import canonical
from bench.tuning.storage import ResumeStates

Send = Callable[[dict[str, Any], Path | None], None]
"""Tells Tune the numbers of a mark, and of a population the folder with a member's states."""
Curve = list[tuple[int, float]]
"""Captions read and the validation score of every epoch."""
REASON, ENDED, SEGMENT = "reason.txt", "ended", "segment.txt"  # in a cell's work folder
LINEAGE = "lineage.json"  # beside the states of a member at a mark

VALUE, QUARTERS = "value", "quarters"
"""What a trial reports: its score, and how many quarters of the captions since the searched settings act it has read."""
PARTS = 4


@dataclass(frozen=True)
class Lineage:
    """Where the states of a population's member come from: the points so far with the captions from which each held, the last
    mark, the captions read until then and the score there."""

    schedule: list[tuple[int, dict[str, Any]]]
    part: int = 0
    captions: int = 0
    value: float = 0.0

    @classmethod
    def read(cls, folder: Path) -> Lineage:
        """The lineage beside the states in a folder."""
        found = own_json(own_text(folder / LINEAGE))
        return cls(**{**found, "schedule": [(captions, point) for captions, point in found["schedule"]]})

    def to(self, part: int) -> str:
        """A name for the way from the mark before to `part` under these points."""
        return f"{hashlib.sha256(canonical(self.schedule).encode()).hexdigest()[:16]}-{part}"


@dataclass(frozen=True)
class Task:
    """What a worker is to do: train `jobs`, one for each seed. `untouched` is the share of the budget in which the searched
    settings do not act yet, `marked` says that schedulers compare before the end.

    Of a population's member `lineage` tells the points so far, and `states` is the folder that keeps its states at marks.
    """

    jobs: Sequence[Job]
    metric: str = "cider"
    untouched: float = 0.0
    marked: bool = False
    lineage: Lineage | None = None
    states: Path | None = None
    copies: ResumeStates | None = None

    def mark(self, budget: int, part: int) -> int:
        """Captions read at the end of a part."""
        before = budget * self.untouched
        return round(before + (budget - before) * part / PARTS)


def run_trial(task: Task, send: Send, given: Path | None = None) -> None:
    """Train the cells of a trial and report every mark; goes on from where an earlier try of the same trial stopped.

    `given` is the folder with states of a population's member to go on from. With `copies` resume states are copied there, and
    taken from there where the home has none.
    """
    first = task.jobs[0]
    settle(first)
    same_every_time(first.config["train"].get("precision", "float32"))
    for job in task.jobs:
        work = _work(job)
        work.mkdir(parents=True, exist_ok=True)
        if task.copies is not None and not (work / RESUME).is_file():
            task.copies.fetch(job.key, work / RESUME)
        for name in (REASON, ENDED):
            (work / name).unlink(missing_ok=True)
    try:
        if task.lineage is None:
            _alone(task, send)
        else:
            _member(task, task.lineage, send, given)
    except Exception as error:
        # Ray hands an error on as a file of its own, which is not always there yet when Tune says that the trial has failed.
        (_work(first) / REASON).write_text(sentence(error, first), encoding="utf-8")
        raise
    for job in task.jobs:
        (_work(job) / ENDED).touch()


def _alone(task: Task, send: Send) -> None:
    """A trial that no other changes."""
    trainers = _Trainers(task)
    for part in range(1, PARTS + 1) if task.marked else (PARTS,):
        trainers.train(part)
        if part == PARTS:
            for job in task.jobs:  # before Tune hears of it, and perhaps ends this process
                (_work(job) / ENDED).touch()
        until = None if part == PARTS else task.mark(trainers.budget, part)
        send({VALUE: value_of(task.jobs, task.metric, until=until), QUARTERS: part}, None)


def _member(task: Task, lineage: Lineage, send: Send, given: Path | None) -> None:
    """A member of a population. States of marks that it reached before the command was killed are reported as they are."""
    trainers = _Trainers(task)
    assert task.states is not None
    for part in range(lineage.part + 1, PARTS):
        folder = task.states / lineage.to(part)
        if not folder.is_dir():
            _take_up(task, lineage.to(part), given)
            trainers.train(part)
            score = fmean(curve[-1][1] for curve in (curve_of(Path(job.folder), task.metric) for job in task.jobs))
            _keep(task, Lineage(lineage.schedule, part, trainers.captions, score), folder)
        given = folder
        send({VALUE: Lineage.read(folder).value, QUARTERS: part}, folder)
    _take_up(task, lineage.to(PARTS), given)
    trainers.train(PARTS)


class _Trainers:
    """Trains the cells of a trial in turn; where there is one, its inputs are read once."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._only: Any = None
        self.budget = self.captions = 0

    def train(self, part: int) -> None:
        for job in self._task.jobs:
            trainer = self._only or self._trainer(job)
            self.budget = trainer.run.budget
            trainer.train(None if part == PARTS else self._task.mark(self.budget, part))
            self.captions = trainer.run.captions
            self._only = trainer if len(self._task.jobs) == 1 else None

    def _trainer(self, job: Job) -> Any:
        from bench.cell.fit import Trainer
        from bench.cell.workbench import Workbench
        from bench.evaluation.token_scores import TOKEN_SCORES

        copies, metric = self._task.copies, self._task.metric

        class Copied(Workbench):
            """A workbench that copies its resume states."""

            def written(self) -> None:
                if copies is not None:
                    try:
                        copies.save(job.key, self.state)
                    except OSError as error:  # the home's own state stands: no reason to lose the trial
                        print(f"no copy of the resume state in {copies.storage}: {error}", flush=True)

        trainer = Trainer(job.config, _work(job), Home(Path(job.root)), Copied)
        if curve_name(metric) != SELECTION:
            trainer.run.beside = {curve_name(metric): TOKEN_SCORES[metric](trainer.inputs.val_references)}
        return trainer


def _take_up(task: Task, segment: str, given: Path | None) -> None:
    """Bring the states in `given` into the cells, unless they are on their way through the segment already."""
    for number, job in enumerate(task.jobs):
        work = _work(job)
        note = work / SEGMENT
        (work / LINEAGE).write_text(json.dumps(vars(task.lineage)), encoding="utf-8")
        if note.is_file() and note.read_text(encoding="utf-8") == segment:
            continue
        note.unlink(missing_ok=True)
        (work / RESUME).unlink(missing_ok=True)
        if given is not None:
            shutil.copyfile(given / f"{number}.pt", work / RESUME)
        note.write_text(segment, encoding="utf-8")


def _keep(task: Task, lineage: Lineage, folder: Path) -> None:
    """Keep the states of a member at a mark, whole or not at all."""
    aside = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for number, job in enumerate(task.jobs):
        shutil.copyfile(_work(job) / RESUME, aside / f"{number}.pt")
    (aside / LINEAGE).write_text(json.dumps(vars(lineage)), encoding="utf-8")
    aside.rename(folder)


def _work(job: Job) -> Path:
    return Path(job.folder) / "work"


def reason_of(folder: Path) -> str | None:
    """Why the last try of a trial failed, in a sentence; None where it could not say so."""
    path = folder / "work" / REASON
    return path.read_text(encoding="utf-8") if path.is_file() else None


def has_ended(folder: Path) -> bool:
    """Whether a cell of a trial came to the end of its training."""
    return (folder / "work" / ENDED).is_file()


def curve_name(metric: str) -> str:
    """What the curve of a validation metric is called."""
    return f"val_{metric}_tokens"


def curve_of(folder: Path, metric: str = "cider") -> Curve:
    """The validation curve of a cell of a trial."""
    return [
        (int(row["captions"]), float(row["value"])) for row in read_curves(folder) if row["name"] == curve_name(metric)
    ]


def value_of(
    jobs: Sequence[Job], metric: str, before: Collection[str] = (), until: float | None = None
) -> float | None:
    """The score of a trial, the mean over its seeds: that of the epoch that each would keep; None without one in another phase
    than those `before` the searched settings act. `until` leaves out epochs behind the first that had read as many captions."""
    found = [_kept(read_curves(Path(job.folder)), metric, before, until) for job in jobs]
    return None if None in found else fmean(value for value in found if value is not None)


def _kept(rows: Sequence[Row], metric: str, before: Collection[str], until: float | None) -> float | None:
    """The score of the best epoch by CIDEr of the last phase."""
    epochs: dict[tuple[str, int], dict[str, float]] = {}
    for row in rows:
        if row["phase"] not in before:
            epochs.setdefault((row["phase"], row["epoch"]), {"captions": row["captions"]})[row["name"]] = row["value"]
    last: dict[str, dict[str, float]] = {}
    for (phase, _), values in epochs.items():
        if SELECTION in values and values.get(curve_name(metric)) is not None:
            best = last.get(phase)
            last = {phase: values if best is None or values[SELECTION] > best[SELECTION] else best}
        if until is not None and values["captions"] >= until:
            break
    return next((values[curve_name(metric)] for values in last.values()), None)
