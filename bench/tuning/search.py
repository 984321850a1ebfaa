"""A search by Ray Tune: one Tuner for one row on one data set, so that no paper's slow start costs another its trials.

It imports Ray Tune, so it is itself imported only where something is left to try.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.cell.job import Job, sentence
from bench.declare.card import Interval
from bench.home import Home
from bench.plan.stores import OFF, refuse_one_machine
from bench.records.curves import read_curves
from bench.run.admission import Request
from bench.run.backend import RayLostError
from bench.run.cluster import REFRESH_SECONDS, check_nodes, nodes, requests_for
from bench.run.connection import connect
from bench.run.display import SILENT_SECONDS, duration
from bench.run.runner import resources_of
from bench.tracking.background import Tracking, open_tracking
from bench.tuning import storage
from bench.tuning.failures import Failures, held_gpus, told_first
from bench.tuning.space import describe
from bench.tuning.study import Report, State, Study, Trial, save
from bench.tuning.tracked_trials import of_report, of_trial, trial_run
from bench.tuning.trial import CAPTIONS, ENDED, VALUE, curve_of, reason_of, run_trial

# Before Ray Tune is imported: no change of folder, no reports of its own.
os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
os.environ.setdefault("TUNE_RESULT_BUFFER_LENGTH", "0")

import ray
from ray import tune
from ray.tune import Callback
from ray.tune.schedulers import ASHAScheduler

RETRIES = 2  # of a trial whose worker or node was lost
HALVING = 2  # of the trials that reach a rung, one in so many goes on
FIRST_RUNG = 0.25  # of the last phase: before it, many settings change nothing yet

Say = Callable[[str], None]


def search(study: Study, report: Report, home: Home, say: Say) -> Report:
    """Try what is missing of a study and choose; the report is written after every trial.

    Raises BenchError for a request that no node can meet.
    """
    known = {trial.number for trial in report.trials}
    todo = [number for number in range(study.trials) if number not in known]
    if todo:
        owner = connect(study.spec.run.address)
        if study.spec.how.storage is not None:
            storage.check(study.spec.how.storage)
        tracking = open_tracking(OFF, home, "", say)
        try:
            run = study.spec.run
            refuse_one_machine(run.mlflow, len(nodes()))
            known_ones = tuple(of_report(report, study.path(home), home))
            name = str(study.base.config["dataset"])
            tracking = open_tracking(run.mlflow, home, name, say, lambda: known_ones, run.wandb)
            with _ends_with_ray():
                _fit(study, report, home, say, todo, tracking)
            best = report.best()
            report.chosen = None if best is None else best.number
            over = tuple(of_report(report, study.path(home), home))
            tracking.update(lambda: over)
        finally:
            tracking.close()
            if owner:
                ray.shutdown()
    best = report.best()
    report.chosen = None if best is None else best.number
    save(report, study.path(home))
    return report


def _fit(study: Study, report: Report, home: Home, say: Say, todo: list[int], tracking: Tracking) -> None:
    job = Job.of(study.base, home)  # every trial asks for as much
    check_nodes([job], home)
    _, requests = requests_for([job], {job.key: resources_of(study.card.name, study.spec.run)}, home)
    asked = requests[job.key]
    recorder = Recorder(study, report, home, say, todo, tracking)
    where = study.spec.how.storage or str(home.work / "tune" / "ray")
    files, path = storage.place(where)
    searcher, space, samples = _searcher(study, report, todo)
    tuner = tune.Tuner(
        tune.with_resources(
            tune.with_parameters(_trainable, study=study, root=str(home.root), gpus=asked.gpus), _bundle(asked)
        ),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=VALUE,
            mode="max",
            scheduler=_scheduler(study, report.budget),
            search_alg=searcher,
            num_samples=samples,
            max_concurrent_trials=study.spec.run.max_concurrent,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=study.digest,
            storage_path=path,
            storage_filesystem=files,
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            callbacks=[recorder, Failures(say)],
            verbose=0,
        ),
    )
    tuner.fit()


@contextlib.contextmanager
def _ends_with_ray() -> Iterator[None]:
    """End this process where this machine's Ray is gone: Tune would wait for ever, and heed neither exceptions nor signals.

    The report was written after every trial, and the resume states of the others are whole.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(REFRESH_SECONDS):
            try:
                nodes()
            except RayLostError as error:
                print(f"bench: {error}", file=sys.stderr, flush=True)
                os._exit(1)

    threading.Thread(target=watch, name="watch Ray", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _bundle(asked: Request) -> dict[str, float]:
    kind = {f"accelerator_type:{asked.accelerator}": 0.001} if asked.accelerator else {}
    return {"cpu": asked.cpus, **({"gpu": asked.gpus} if asked.gpus else {}), **kind}


def _trainable(config: dict[str, Any], study: Study, root: str, gpus: float) -> None:
    """What Ray calls in a worker. `config` holds the number of a point, or the point itself where a searcher proposes it."""
    home = Home(Path(root))
    point = study.points[config["number"]] if study.points is not None else dict(config)
    cell = study.cell(point, home)
    held = held_gpus()
    with told_first(tune.report, {VALUE: 0.0, CAPTIONS: 0, ENDED: False}) as send:
        run_trial(replace(Job.of(cell, home), gpus=held, again=held > gpus), send, study.resume_states)


def _searcher(study: Study, report: Report, todo: list[int]) -> tuple[Any, dict[str, Any], int]:
    """Ray's searcher (None: the points are known), its space, and how many samples are to be drawn."""
    if study.points is not None:
        return None, {"number": tune.grid_search(todo)}, 1
    import optuna  # an extra, which only search=optuna needs
    from ray.tune.search.optuna import OptunaSearch

    space = {
        name: tune.choice(choices)
        if not isinstance(choices, Interval)
        else (tune.loguniform if choices.log else tune.uniform)(choices.min, choices.max)
        for name, choices in study.space.items()
    }
    known = [trial for trial in report.trials if trial.value is not None]
    searcher = OptunaSearch(
        metric=VALUE,
        mode="max",
        sampler=optuna.samplers.TPESampler(seed=study.spec.how.seed + len(report.trials)),
        points_to_evaluate=[trial.point for trial in known] or None,
        evaluated_rewards=[trial.value for trial in known] or None,
    )
    return searcher, space, len(todo)


def _scheduler(study: Study, budget: int) -> Any:
    """None for fifo: every trial has its whole budget."""
    if study.spec.how.scheduler == "fifo":
        return None
    return ASHAScheduler(
        time_attr=CAPTIONS, max_t=budget, grace_period=grace(study, budget), reduction_factor=HALVING, brackets=1
    )


def grace(study: Study, budget: int) -> int:
    """Captions that every trial may read: all phases but the last, and a quarter of it."""
    shares = list(study.base.config["phases"].values())
    return max(1, math.ceil(budget * (1 - shares[-1] * (1 - FIRST_RUNG))))


@dataclass
class _Running:
    """What the driver knows of a running trial."""

    number: int
    job: Job
    point: dict[str, Any]
    began: float
    last_line: float  # when a line was printed about it
    ended: bool = False
    passed_on: set[tuple[str, int, str]] = field(default_factory=set)  # rows of its curves that the tracker has


class Recorder(Callback):
    """Writes trials into the report as they end, and passes on their curves to the tracker.

    Where a searcher proposes the points, trials take the numbers of `todo` as they come.
    """

    def __init__(self, study: Study, report: Report, home: Home, say: Say, todo: list[int], tracking: Tracking) -> None:
        self._study, self._report, self._home, self._say, self._tracking = study, report, home, say, tracking
        self._free = iter(todo)
        self._trials: dict[str, _Running] = {}  # by Tune's id
        self._over: set[str] = set()  # ids of those that are in the report

    def __getstate__(self) -> dict[str, Any]:
        """Ray keeps its callbacks to restore a search from them; this one goes on from the report."""
        return {}

    def _of(self, trial: Any) -> _Running:
        if trial.trial_id not in self._trials:
            study = self._study
            number = trial.config["number"] if study.points is not None else next(self._free)
            point = study.points[number] if study.points is not None else dict(trial.config)
            cell = study.cell(point, self._home)
            job, now = Job.of(cell, self._home), time.monotonic()
            self._trials[trial.trial_id] = _Running(number, job, point, now, now)
            self._tracking.start(partial(trial_run, job.key, job.config, point, study.space))
        return self._trials[trial.trial_id]

    def _print(self, one: _Running, what: str) -> None:
        one.last_line = time.monotonic()
        self._say(f"{self._study.row} trial {one.number}: {describe(self._study.card, one.point)}: {what}")

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._print(self._of(trial), "started")

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """A line for each running trial that has had none for a minute."""
        now = time.monotonic()
        for name, one in self._trials.items():
            if name not in self._over and now - one.last_line >= SILENT_SECONDS:
                curve = curve_of(Path(one.job.folder))
                at = f", {curve[-1][0]:,} of {self._report.budget:,} captions" if curve else ""
                self._print(one, f"running for {duration(now - one.began)}{at}")

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        one = self._of(trial)
        one.ended |= bool(result.get(ENDED))
        self._pass_on_curves(one)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        one = self._of(trial)
        curve = curve_of(Path(one.job.folder))
        whole = one.ended or bool(curve and curve[-1][0] >= self._report.budget)  # the scheduler ends those too
        self._record(trial, "completed" if whole else "stopped", None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        one, error = self._of(trial), trial.get_error()
        cause = getattr(error, "cause", None) or error
        reason = reason_of(Path(one.job.folder)) or (sentence(cause) if cause is not None else None)
        self._record(trial, "failed", reason or "its worker process was lost")

    def _record(self, trial: Any, state: State, message: str | None) -> None:
        one = self._of(trial)
        self._over.add(trial.trial_id)
        curve = curve_of(Path(one.job.folder))
        value = max((score for _, score in curve), default=None)
        entry = Trial(
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
        self._report.trials.append(entry)
        save(self._report, self._study.path(self._home))
        if self._study.resume_states is not None:
            self._study.resume_states.remove(one.job.key)
        self._pass_on_curves(one)
        self._tracking.finish(partial(of_trial, self._report, entry, self._study.digest, self._home))
        reached = "no score" if value is None else f"validation CIDEr {value:.1f}"
        self._print(one, f"{state}, {reached}{f' ({message})' if message else ''}")

    def _pass_on_curves(self, one: _Running) -> None:
        """Pass on what is new in the curves of a trial."""
        rows = {(row["phase"], row["epoch"], row["name"]): row for row in read_curves(Path(one.job.folder))}
        new = [row for name, row in rows.items() if name not in one.passed_on]
        one.passed_on.update(rows)
        if new:
            self._tracking.curves(one.job, new)
