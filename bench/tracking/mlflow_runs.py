"""The tracker of MLflow: one experiment per data set, one flat run per cell and trial, views that lay papers side by side.

Nothing is read back from it but which runs are there, so it may be thrown away. All calls come from one process, the driver;
workers never open the database, since several that make it at once break each other's migrations.

MLflow takes more than a second to import: this module is imported only where runs are written, and by a thread of its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

# Before MLflow is imported: it reports usage, and holds a command up for minutes where a server is down, unless told otherwise.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")  # seconds; its own default is 120
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

from mlflow.entities import Dataset, DatasetInput, InputTag, LifecycleStage, Metric, Param, RunTag
from mlflow.entities import Run as Stored
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient
from PIL.Image import open as open_image

from bench.disk.locks import lives, this_process
from bench.disk.whole import begin_aside
from bench.home import Home
from bench.plan.stores import SQLITE, absolute_uri
from bench.tracking.base import Ending, Point, Run
from bench.tracking.mlflow_views import looks, views

CAPTIONS = "captions.json"
IMAGES = "images"  # MLflow's own folder of the images that its charts show
TABLES = {"mlflow.loggedArtifacts": json.dumps([{"path": CAPTIONS, "type": "table"}])}  # by it MLflow knows tables
BATCH = 100  # parameters and tags that MLflow takes in one call
METRICS = 800  # of them in one call: all together it takes 1000 entries
MOST_RUNS = 50_000  # that it gives in one answer
EXPERIMENT = "bench/"  # before the name of a data set
RUNNING, FINISHED, KILLED = "RUNNING", "FINISHED", "KILLED"
STATUS = {"finished": FINISHED, "failed": "FAILED", "killed": KILLED}
PROCESS = "bench.process"  # machine, id and start of the process that writes the run
KIND = {"mlflow.experimentKind": "custom_model_development"}  # which of its two faces MLflow shows
KEY, LABEL, RECORDED = "bench.key", "bench.label", "bench.record"
PARENTS = ("command", "records")  # kinds of runs of the layout before this one, which nested cells below them
NOISY = ("mlflow.store.db.utils", "mlflow.tracking.fluent", "alembic", "alembic.runtime.migration")
TRIES = 4  # of a write that other commands may make at the same moment
WHOLE, HALF, ABSENT = "whole", "half", "absent"
SAME_MOMENT = re.compile("UniqueViolation|UNIQUE constraint|Duplicate entry|IntegrityError")


class MlflowTracker:
    """Writes runs to the MLflow store at `uri`: a database, made where it is absent, or a server's address."""

    def __init__(self, uri: str, home: Home) -> None:
        self._home = home
        self.uri = absolute_uri(uri, home)
        if self.uri.startswith(SQLITE):
            Path(self.uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        for name in NOISY:
            logging.getLogger(name).setLevel(
                logging.CRITICAL
            )  # what it raises is told by who asked for it, in a sentence
        if self.uri.startswith(SQLITE):
            _make_whole(Path(self.uri.removeprefix(SQLITE)))
        self._client = MlflowClient(tracking_uri=self.uri)
        self._experiments: dict[str, str] = {}  # id by data set
        self._runs: dict[str, Stored] = {}  # that were started here and not ended, by key
        self._absent: set[str] = set()  # keys that were looked for just now
        self._labels: set[str] = set()  # of all runs of a data set

    # The hooks of a run ---------------------------------------------------------------------------------------------

    def start(self, run: Run) -> bool:
        """Begin a run, or take up that of the same key; False for one that a living command of this machine has."""
        if run.key in self._runs:
            return True
        experiment = self._experiment(run.dataset)
        known = run.key in self._absent
        same = [] if known else self._client.search_runs([experiment], f"tags.`{KEY}` = '{run.key}'")
        found = min((one for one in same if LABEL in one.data.tags), key=_rank, default=None)
        if found is None:
            self._labels.add(run.label)
            tags = {**run.tags, PROCESS: this_process(), LABEL: run.label, **looks(self._labels, run.label)}
            found = self._client.create_run(experiment, run.began, tags, run.name)
        elif _is_others(found):
            return False
        else:
            self._client.update_run(found.info.run_id, status=RUNNING, name=run.name)
            for stale in {"bench.failure", RECORDED} & found.data.tags.keys():
                self._client.delete_tag(found.info.run_id, stale)
            self._log(found, tags={**run.tags, PROCESS: this_process()})
        self._absent.discard(run.key)
        self._runs[run.key] = found
        return True

    def parameters(self, run: Run) -> None:
        """What the run does not have yet: MLflow lets no parameter change."""
        self._log(self._runs[run.key], params=run.parameters)
        self._inputs(run, self._runs[run.key])

    def metrics(self, key: str, points: Sequence[Point]) -> None:
        """The time of a point is the run's start plus its seconds: one that comes twice, as after a resume, is the same."""
        self._log(self._runs[key], _metrics(self._runs[key], points))

    def artifacts(self, key: str, ending: Ending) -> None:
        """All in one folder and one call."""
        found = self._runs[key]
        place = get_artifact_repository(found.info.artifact_uri, tracking_uri=self.uri)
        for old in {item.path for item in place.list_artifacts()} & {IMAGES, "log.txt"}:
            place.delete_artifacts(old)  # MLflow adds to images of the same name
        with tempfile.TemporaryDirectory() as folder:
            for path in ending.files:
                shutil.copyfile(path, Path(folder) / path.name)
            if ending.captions is not None:
                rows = list(zip(*ending.captions.values(), strict=True))
                table = json.dumps({"columns": list(ending.captions), "data": rows})
                (Path(folder) / CAPTIONS).write_text(table, encoding="utf-8")
            place.log_artifacts(folder)
        for name, steps in ending.pictures.items():
            for step, path in enumerate(steps):
                self._client.log_image(found.info.run_id, open_image(path).convert("RGB"), key=name, step=step)

    def end(self, run: Run, mark: str, ending: Ending) -> None:
        """All in one call where it fits, the end last: a run without a mark is not whole."""
        found = self._runs.pop(run.key)
        now = ending.ended or round(time.time() * 1000)
        values = [Metric(name, value, now, 0) for name, value in ending.values.items()]
        tags = {**ending.tags, RECORDED: mark} | ({} if ending.captions is None else TABLES)
        self._inputs(run, found)
        self._log(found, [*_metrics(found, ending.points), *values], run.parameters, tags)
        # A run that took seconds to write from its record did not end before it began.
        self._client.set_terminated(found.info.run_id, STATUS[ending.state], max(now, found.info.start_time))

    # All runs of a data set -----------------------------------------------------------------------------------------

    def shown(self, dataset: str, labels: Mapping[str, str]) -> dict[str, str]:
        """What the runs of a data set show, by key; empty for a run that is not whole.

        Before that, runs of killed commands of this machine are closed as killed, all but one run of a key are deleted, and
        runs of the earlier, nested layout are deleted, or hidden where nothing of `labels` will replace them. MLflow can
        restore what is deleted.
        """
        found = {run.data.tags[KEY]: run.data.tags for run in self._cleared(dataset, labels)}
        self._absent = labels.keys() - found.keys()
        self._labels = {tags[LABEL] for tags in found.values()} | {*labels.values()}
        return {key: tags.get(RECORDED, "") for key, tags in found.items()}

    def close(self, dataset: str) -> None:
        """End as killed what was started and not ended; write the views."""
        while self._runs:
            self._kill(self._runs.popitem()[1])
        experiment, runs = self._experiment(dataset), self._cleared(dataset, ())
        labels = {run.data.tags[LABEL] for run in runs}
        for run in runs:
            self._log(run, tags=dict(looks(labels, run.data.tags[LABEL]).items() - run.data.tags.items()))
        before = self._client.get_experiment(experiment).tags
        for name, value in views(experiment, runs).items():
            if before.get(name) != value:
                with contextlib.suppress(MlflowException):  # another command writes it at the same moment
                    self._client.set_experiment_tag(experiment, name, value)

    def _cleared(self, dataset: str, keys: Collection[str]) -> list[Stored]:
        found: dict[str, Stored] = {}
        every = self._client.search_runs([self._experiment(dataset)], max_results=MOST_RUNS)
        for run in sorted(every, key=_rank):
            tags = run.data.tags
            if run.info.status == RUNNING and lives(tags.get(PROCESS, "")) is False:
                self._kill(run)
            if LABEL not in tags:
                self._put_away(run, tags.get(KEY) not in keys)
            elif tags[KEY] in found and not _is_others(run):
                self._client.delete_run(run.info.run_id)
            else:
                found.setdefault(tags[KEY], run)
        return list(found.values())

    def datasets(self) -> dict[str, str]:
        """The data sets that have runs, and the ids of their experiments."""
        found = self._client.search_experiments(filter_string=f"name LIKE '{EXPERIMENT}%'", order_by=["name"])
        return {one.name.removeprefix(EXPERIMENT): one.experiment_id for one in found}

    def _inputs(self, run: Run, found: Stored) -> None:
        """The data sets of a run, unless it was found with them."""
        if run.inputs and not (found.inputs and found.inputs.dataset_inputs):
            tag = "mlflow.data.context"
            read = [DatasetInput(Dataset(*one, "bench", run.dataset), [InputTag(tag, how)]) for *one, how in run.inputs]
            _among_others(self._client.log_inputs, found.info.run_id, read)

    def _put_away(self, run: Stored, kept: bool) -> None:
        """A run of the earlier layout: its parents go, a cell without a record here stays, out of sight of the views."""
        if _is_others(run):
            return  # of a command that was begun before this version was installed
        if run.data.tags.get("bench.kind") in PARENTS or not kept:
            self._client.delete_run(run.info.run_id)
        elif "mlflow.parentRunId" in run.data.tags:
            self._client.delete_tag(run.info.run_id, "mlflow.parentRunId")
            self._log(run, tags={"bench.kind": f"earlier {run.data.tags.get('bench.kind', '')}"})

    def _kill(self, run: Stored) -> None:
        self._log(run, tags={"bench.state": "killed"})
        self._client.set_terminated(run.info.run_id, KILLED)

    def _experiment(self, dataset: str) -> str:
        """Id of the data set's experiment, made with an absolute place for its artifacts, or brought back if deleted."""
        if dataset not in self._experiments:
            name, local = f"{EXPERIMENT}{dataset}", not self.uri.startswith("http")  # a server has a place of its own
            place = (self._home.work / "mlartifacts" / dataset).as_uri() if local else None
            if (found := self._client.get_experiment_by_name(name)) is None:
                with contextlib.suppress(MlflowException):  # another command made it at the same moment
                    self._client.create_experiment(name, artifact_location=place, tags=KIND)
                found = self._client.get_experiment_by_name(name)
            elif found.lifecycle_stage == LifecycleStage.DELETED:
                self._client.restore_experiment(found.experiment_id)
            self._experiments[dataset] = found.experiment_id
        return self._experiments[dataset]

    def _log(
        self,
        run: Stored,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log in as few calls as MLflow allows: one call per value would cost 20 ms each."""
        all_params = [Param(*one) for one in sorted((params or {}).items()) if one[0] not in run.data.params]
        all_tags = [RunTag(name, value) for name, value in (tags or {}).items()]
        steps = max(-(-len(metrics) // METRICS), -(-len(all_params) // BATCH), -(-len(all_tags) // BATCH))
        for step in range(steps):
            part = slice(step * BATCH, (step + 1) * BATCH)
            some = metrics[step * METRICS : (step + 1) * METRICS]
            _among_others(self._client.log_batch, run.info.run_id, some, all_params[part], all_tags[part])
        run.data.params.update(params or {})


def _make_whole(path: Path) -> None:
    """Make an SQLite database that is not there beside its place, and put it there whole: MLflow takes seconds to make its
    tables, and cannot open what a command left that was killed meanwhile. Such a half is set aside."""
    if _tables(path) == WHOLE:
        return
    with tempfile.TemporaryDirectory(prefix=begin_aside(path), dir=path.parent) as folder:
        aside = Path(folder) / path.name
        MlflowClient(tracking_uri=f"{SQLITE}{aside}").search_experiments(max_results=1)
        if _tables(path) == HALF:
            path.replace(path.with_name(f"{path.name}.half"))
        try:
            os.link(aside, path)
        except FileExistsError:
            if _tables(path) == ABSENT:  # a file without a byte; else another command was quicker
                aside.replace(path)
        except OSError:  # a file system without links
            aside.replace(path)


def _tables(path: Path) -> str:
    """Whether a database is there: whole with its version, half made, or not at all (also a file that is empty)."""
    if not path.is_file() or not path.stat().st_size:
        return ABSENT
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
            names = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            asked = "SELECT count(*) FROM alembic_version"
            stamped = "alembic_version" in names and database.execute(asked).fetchone()[0]
    except sqlite3.Error:
        return WHOLE  # no database, or one that is locked: MLflow says so in words of its own
    return WHOLE if stamped else HALF


def _among_others(write: Callable[..., object], *what: object) -> None:
    """Write, once more where another command wrote the same at the same moment: a server makes of that an error of its
    database, and finds the values there the next time."""
    for _ in range(TRIES):
        try:
            write(*what)
            return
        except MlflowException as error:
            if not SAME_MOMENT.search(str(error)):
                raise
    write(*what)


def _metrics(run: Stored, points: Sequence[Point]) -> list[Metric]:
    began = run.info.start_time
    return [Metric(one.name, one.value, began + round(1000 * one.seconds), one.step) for one in points]


def _rank(run: Stored) -> tuple[bool, int, str]:
    """Of several runs of a key that is kept which comes first: a whole one, then the oldest, whoever asks."""
    return RECORDED not in run.data.tags, run.info.start_time, run.info.run_id


def _is_others(run: Stored) -> bool:
    """Whether a running run is that of another living process of this machine."""
    owner = run.data.tags.get(PROCESS, "")
    return run.info.status == RUNNING and owner != this_process() and lives(owner) is True
