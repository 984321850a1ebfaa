"""A search by Ray Tune: one Tuner for one row on one data set, so that no paper's slow start costs another its trials.

It imports Ray Tune, so it is itself imported only where something is left to try.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.cell.job import Job
from bench.declare.card import Choices, Interval
from bench.disk.whole import write_atomically
from bench.home import Home
from bench.plan.stores import OFF, refuse_one_machine
from bench.run.admission import Request
from bench.run.backend import RayLostError
from bench.run.cluster import REFRESH_SECONDS, check_nodes, nodes, requests_for
from bench.run.connection import connect
from bench.run.runner import Signals, ignored_signals, resources_of
from bench.tracking.background import Tracking, mend, open_tracking
from bench.tracking.base import Entry
from bench.tuning import storage
from bench.tuning.failures import Failures, held_gpus, told_first
from bench.tuning.recorder import Recorder
from bench.tuning.space import value_at
from bench.tuning.study import Report, Study, save
from bench.tuning.table import as_csv
from bench.tuning.tracked_trials import of_report
from bench.tuning.trial import PARTS, QUARTERS, VALUE, Lineage, Task, run_trial

# Before Ray Tune is imported: no change of folder, no reports of its own, and Ctrl-C ends the command, not the trials alone.
os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
os.environ.setdefault("TUNE_RESULT_BUFFER_LENGTH", "0")

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler, HyperBandScheduler, PopulationBasedTraining

RETRIES = 2  # of a trial whose worker or node was lost
HALVING = 2  # of the trials that reach a mark, one in so many goes on

Say = Callable[[str], None]


def search(study: Study, report: Report, home: Home, say: Say, signals: Signals) -> Report:
    """Try what is missing of a study and choose; the report is written after every trial.

    Raises BenchError for a request that no node can meet, KeyboardInterrupt for one of the `signals`: then nothing is chosen.
    """
    report.trials = [trial for trial in report.trials if trial.state != "interrupted"]
    if study.changes_letters and len(report.trials) < study.trials:
        report.trials = []  # a population goes on as a whole: its members' states are there
    known = {trial.number for trial in report.trials}
    todo = [number for number in range(study.trials) if number not in known]
    run, dataset = study.spec.run, str(study.base.config["dataset"])

    def over() -> list[Entry]:
        return of_report(report, study.path(home), home)

    if not todo:
        _choose(report)
        mend(run.mlflow, home, dataset, say, over)
    else:
        owner = connect(run.address)
        if study.spec.how.storage is not None:
            storage.check(study.spec.how.storage)
        tracking = open_tracking(OFF, home, "", say)
        try:
            refuse_one_machine(run.mlflow, len(nodes()))
            tracking = open_tracking(run.mlflow, home, dataset, say, over, run.wandb)
            signals.listen()  # Ray puts handlers of its own in place when it starts
            with _ends_with_ray():
                _fit(study, report, home, say, todo, tracking)
            _choose(report)
        finally:
            with ignored_signals():
                tracking.close()
                if owner:
                    ray.shutdown()
    save(report, study.path(home))
    write_atomically(study.path(home).with_suffix(".csv"), as_csv(report))
    return report


def _choose(report: Report) -> None:
    best = report.best()
    report.chosen = None if best is None else best.number


def _fit(study: Study, report: Report, home: Home, say: Say, todo: list[int], tracking: Tracking) -> None:
    job = Job.of(study.base, home)  # every trial asks for as much
    check_nodes([job], home)
    how = study.spec.how
    _, requests = requests_for([job], {job.key: resources_of(study.card.name, study.spec.run)}, home)
    asked = requests[job.key]
    files, path = storage.place(how.storage or str(home.work / "tune" / "ray"))
    searcher, space, samples = _searcher(study, report, todo)
    with Recorder(study, report, home, say, todo, tracking) as recorder:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_trainable, study=study, root=str(home.root), gpus=asked.gpus), _bundle(asked)
            ),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric=VALUE,
                mode="max",
                scheduler=_scheduler(study),
                search_alg=searcher,
                num_samples=samples,
                max_concurrent_trials=study.spec.run.max_concurrent,
                time_budget_s=None if how.time_limit is None else 60 * how.time_limit,
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
    if study.changes_letters:  # the states of all members at all marks
        with contextlib.suppress(OSError):
            files.delete_dir(f"{path}/{study.digest}")
        if len(report.trials) == study.trials:
            shutil.rmtree(study.states(home), ignore_errors=True)


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
    """What Ray calls in a worker. `config` holds the number of a point, with the letters of a population's member as they are
    now; or the point itself where a searcher proposes it."""
    home, how, copies = Home(Path(root)), study.spec.how, study.resume_states
    point = study.points[config["number"]] if study.points is not None else study.that_matter(config)
    checkpoint = tune.get_checkpoint() if study.changes_letters else None
    with checkpoint.as_directory() if checkpoint is not None else contextlib.nullcontext() as place:
        given = None if place is None else Path(place)
        lineage = None
        if study.changes_letters:
            lineage = Lineage([(0, point)]) if given is None else Lineage.read(given)
            letters = {name: config[name] for name in study.space}
            if letters != lineage.schedule[-1][1]:
                lineage = replace(lineage, schedule=[*lineage.schedule, (lineage.captions, letters)])
        held = held_gpus()
        jobs = [
            replace(job, gpus=held, again=held > gpus)
            for job in study.jobs(lineage.schedule if lineage else [(0, point)], home, config.get("number", 0))
        ]
        marked = how.scheduler != "fifo"
        task = Task(jobs, how.metric, study.untouched, marked, lineage, study.states(home), copies)
        with told_first(_tell, {VALUE: 0.0, QUARTERS: 0}) as send:
            run_trial(task, send, given)


def _tell(values: dict[str, Any], folder: Path | None) -> None:
    tune.report(values, checkpoint=None if folder is None else tune.Checkpoint.from_directory(folder))


def _searcher(study: Study, report: Report, todo: list[int]) -> tuple[Any, dict[str, Any], int]:
    """What proposes points to Ray (None: they are known), Ray's own space, and how many samples are to be drawn."""
    if study.points is not None:
        points = study.points
        letters = {
            name: tune.sample_from(lambda config, name=name: points[config["number"]][name])
            for name in (study.space if study.changes_letters else ())
        }
        return None, {"number": tune.grid_search(todo), **letters}, 1
    from bench.tuning.proposals import Proposals  # of an extra, which only search=optuna needs

    return Proposals(study, report), {}, len(todo)


def _scheduler(study: Study) -> Any:
    """None for fifo: every trial has its whole budget. Time is counted in quarters of the captions since the searched settings
    act; before, all trials are the same."""
    how = study.spec.how
    if how.scheduler == "asha":
        return ASHAScheduler(time_attr=QUARTERS, max_t=PARTS, grace_period=1, reduction_factor=HALVING, brackets=1)
    if how.scheduler == "hyperband":
        return HyperBandScheduler(time_attr=QUARTERS, max_t=PARTS, reduction_factor=HALVING)
    return Population(study.space, how.seed) if study.changes_letters else None


class Population(PopulationBasedTraining):
    """Ray's population based training with draws of its own: what it decides is a function of the seed and the scores, so that
    a search that was killed goes on as it would have gone on."""

    def __init__(self, space: Mapping[str, Choices], seed: int) -> None:
        self._draws = random.Random(seed).getstate()  # nosec B311  # points of a search
        self._limits = {name: one for name, one in space.items() if isinstance(one, Interval)}
        super().__init__(
            time_attr=QUARTERS,
            perturbation_interval=1,
            hyperparam_mutations={
                name: one if isinstance(one, list) else (lambda one=one: value_at(one, random.random()))  # nosec B311
                for name, one in space.items()
            },
            custom_explore_fn=self._within,
            log_config=False,
            synch=True,
        )

    def _within(self, letters: dict[str, Any]) -> dict[str, Any]:
        """Letters of few digits that keep to their intervals."""
        for name, one in self._limits.items():
            letters[name] = float(f"{min(max(letters[name], one.min), one.max):.4g}")
        return letters

    def _get_new_config(self, trial: Any, trial_to_clone: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        config, operations = super()._get_new_config(trial, trial_to_clone)
        return {**config, "number": trial.config["number"]}, operations  # it takes over letters, and stays who it is

    def _checkpoint_or_exploit(self, *arguments: Any) -> None:
        others = random.getstate()
        random.setstate(self._draws)
        try:
            super()._checkpoint_or_exploit(*arguments)
        finally:
            self._draws = random.getstate()
            random.setstate(others)
