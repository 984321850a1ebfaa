"""A search by Ray Tune: one Tuner for one row on one data set, so that no paper's slow start costs another its trials."""

from __future__ import annotations

import contextlib
import math
import os
import shlex
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.declare.card import Interval
from bench.home import Home
from bench.run.admission import Request
from bench.run.backend import RayLostError
from bench.run.cluster import REFRESH_SECONDS, check_nodes, connect, nodes, nodes_for, request_of
from bench.run.runner import resources_of
from bench.tracking.background import NoTracking, Tracking, open_tracking
from bench.tracking.stores import refuse_one_machine
from bench.tuning import storage
from bench.tuning.study import Report, Study, save
from bench.tuning.trial import CAPTIONS, VALUE, run_trial

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

        if study.spec.how.storage is not None:
            storage.check(study.spec.how.storage)
        tracking: Tracking | NoTracking = NoTracking()
        finished = False
        try:
            refuse_one_machine(study.spec.run.mlflow, len(nodes()))
            tracking = open_tracking(
                study.spec.run.mlflow, home, str(study.base.config["dataset"]), _command(study), say
            )
            with _ends_with_ray():
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

    from bench.tuning.callback import Keeper

    job = study.job(study.base, home)  # every trial asks for as much
    check_nodes([job], home)
    card = resources_of(study.card.name, study.spec.run)
    asked = request_of(job, card, nodes_for([card]))
    keeper = Keeper(study, report, home, say, todo, tracking)
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
            callbacks=[keeper],
            verbose=0,
        ),
    )
    tuner.fit()


@contextlib.contextmanager
def _ends_with_ray() -> Iterator[None]:
    """End this process where this machine's Ray is gone: Tune would wait for ever, deaf to exceptions and signals.

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


def _quiet() -> None:
    """Before Ray Tune is imported: no change of folder, no reports of its own."""
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ.setdefault("TUNE_RESULT_BUFFER_LENGTH", "0")


def _bundle(asked: Request) -> dict[str, float]:
    kind = {f"accelerator_type:{asked.accelerator}": 0.001} if asked.accelerator else {}
    return {"cpu": asked.cpus, **({"gpu": asked.gpus} if asked.gpus else {}), **kind}


def _trainable(config: dict[str, Any], study: Study, root: str, gpus: float) -> None:
    """What Ray calls in a worker. `config` holds the number of a point, or the point itself where a searcher proposes it."""
    from ray import tune

    home = Home(Path(root))
    point = study.points[config["number"]] if study.points is not None else dict(config)
    cell = study.cell(point, home)
    run_trial(replace(study.job(cell, home), gpus=gpus), tune.report, study.shelf)


def _searcher(study: Study, report: Report, todo: list[int]) -> tuple[Any, dict[str, Any], int]:
    """Ray's searcher (None: the points are known), its space, and how many samples are to be drawn."""
    from ray import tune

    if study.points is not None:
        return None, {"number": tune.grid_search(todo)}, 1
    import optuna
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
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(
        time_attr=CAPTIONS, max_t=budget, grace_period=grace(study, budget), reduction_factor=HALVING, brackets=1
    )


def grace(study: Study, budget: int) -> int:
    """Captions that every trial may read: all phases but the last, and a quarter of it."""
    shares = list(study.base.config["phases"].values())
    return max(1, math.ceil(budget * (1 - shares[-1] * (1 - FIRST_RUNG))))
