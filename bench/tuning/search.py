"""A search by Ray Tune: one Tuner for one row on one data set, so that no paper's slow start costs another its trials."""

from __future__ import annotations

import math
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.card import Interval
from bench.execution.cluster import Request, connect, nodes, request_of
from bench.execution.job import Job, sentence
from bench.execution.progress import read_curves
from bench.execution.runner import resources_of
from bench.execution.tracking import NoTracking, Tracking, open_tracking
from bench.home import Home
from bench.tuning.space import told
from bench.tuning.study import Report, Study, Trial, save
from bench.tuning.trial import CAPTIONS, ENDED, VALUE, curve_of, run_trial

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
        import ray

        tracking = open_tracking(study.spec.run.mlflow, home, str(study.base.config["dataset"]), _command(study), say)
        finished = False
        try:
            _fit(study, report, home, say, todo, tracking)
            finished = True
        finally:
            tracking.close(stopped=not finished)
            if owner:
                ray.shutdown()
    best = report.best()
    report.chosen = None if best is None else best.number
    save(report, study.path(home))
    return report


def _command(study: Study) -> str:
    """The name of the search's run, above those of its trials."""
    return f"{shlex.join(['bench', *sys.argv[1:]])} ({study.row} with {'+'.join(study.streams)})"


def _fit(study: Study, report: Report, home: Home, say: Say, todo: list[int], tracking: Tracking | NoTracking) -> None:
    _quiet()
    from ray import tune

    job = job_of(study, study.base.config, home)  # every trial asks for as much
    asked = request_of(job, resources_of(study.card.name, study.spec.run), nodes())
    keeper = keeper_of(study, report, home, say, todo, tracking)
    searcher, space, samples = _searcher(study, report, todo)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_trainable, study=study, root=str(home.root)), _bundle(asked)),
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
            storage_path=str(home.work / "tune" / "ray"),
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            callbacks=[keeper],
            verbose=0,
        ),
    )
    tuner.fit()


def _quiet() -> None:
    """Before Ray Tune is imported: no change of folder, no reports of its own."""
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ.setdefault("TUNE_RESULT_BUFFER_LENGTH", "0")


def _bundle(asked: Request) -> dict[str, float]:
    kind = {f"accelerator_type:{asked.accelerator}": 0.001} if asked.accelerator else {}
    return {"cpu": asked.cpus, **({"gpu": asked.gpus} if asked.gpus else {}), **kind}


def job_of(study: Study, config: dict[str, Any], home: Home) -> Job:
    """A trial as a job, named after its row."""
    from bench.spec import Cell

    cell = Cell(config)
    return Job(cell.key, cell.label, str(cell.folder(home)), str(home.root), config)


def _trainable(config: dict[str, Any], study: Study, root: str) -> None:
    """What Ray calls in a worker. `config` holds the number of a point, or the point itself where a searcher proposes it."""
    from ray import tune

    home = Home(Path(root))
    point = study.points[config["number"]] if study.points is not None else dict(config)
    cell = study.cell(point, home)
    run_trial(job_of(study, cell.config, home), tune.report)


def _searcher(study: Study, report: Report, todo: list[int]) -> tuple[Any, dict[str, Any], int]:
    """Ray's searcher (None: the points are known), its space, and how many samples are to be drawn."""
    from ray import tune

    if study.points is not None:
        return None, {"number": tune.grid_search(todo)}, 1
    try:
        import optuna
        from ray.tune.search.optuna import OptunaSearch
    except ImportError as error:
        raise BenchError(
            f'search=optuna needs the package optuna ({error}): pip install "captionbench[optuna]"'
        ) from None
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
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(
        time_attr=CAPTIONS, max_t=budget, grace_period=grace(study, budget), reduction_factor=HALVING, brackets=1
    )


def grace(study: Study, budget: int) -> int:
    """Captions that every trial may read: all phases but the last, and a quarter of it."""
    shares = list(study.base.config["phases"].values())
    return max(1, math.ceil(budget * (1 - shares[-1] * (1 - FIRST_RUNG))))


@dataclass
class _Kept:
    """What the driver knows of a running trial."""

    number: int
    job: Job
    point: dict[str, Any]
    began: float = field(default_factory=time.monotonic)
    ended: bool = False


def keeper_of(
    study: Study, report: Report, home: Home, say: Say, todo: list[int], tracking: Tracking | NoTracking
) -> Any:
    """A callback of Ray Tune that writes each trial into the report when it ends."""
    from ray.tune import Callback

    free = iter(todo)

    class Keeper(Callback):
        """Lives in the driver."""

        def __init__(self) -> None:
            self.kept: dict[str, _Kept] = {}

        def _of(self, trial: Any) -> _Kept:
            if trial.trial_id not in self.kept:
                number = trial.config["number"] if study.points is not None else next(free)
                point = study.points[number] if study.points is not None else dict(trial.config)
                cell = study.cell(point, home)
                job = job_of(study, cell.config, home)
                self.kept[trial.trial_id] = _Kept(number, job, point)
                tracking.start(job, cell)
            return self.kept[trial.trial_id]

        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            one = self._of(trial)
            say(f"{study.row} trial {one.number}: {told(study.card, one.point)}: started")

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
            self._of(trial).ended |= bool(result.get(ENDED))

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            one = self._of(trial)
            self._note(one, "completed" if one.ended else "stopped", None)

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            error = trial.get_error() or trial.get_pickled_error() if hasattr(trial, "get_error") else None
            self._note(self._of(trial), "failed", sentence(error) if error is not None else "the trial's worker ended")

        def _note(self, one: _Kept, state: Any, message: str | None) -> None:
            curve = curve_of(Path(one.job.folder))
            value = max((score for _, score in curve), default=None)
            report.trials.append(
                Trial(
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
            )
            save(report, study.path(home))
            tracking.curves(one.job, read_curves(Path(one.job.folder)))
            tracking.finish_trial(one.job, state, value, message)
            reached = "no score" if value is None else f"validation CIDEr {value:.1f}"
            reason = f" ({message})" if message else ""
            say(f"{study.row} trial {one.number}: {told(study.card, one.point)}: {state}, {reached}{reason}")

    return Keeper()
