"""MLflow as a view of the records: one experiment per data set, one run per command and method, one nested run per cell.

Nothing is read back from it but which runs are there, so it may be thrown away. What the database or the server raises is
passed on: the caller keeps it away from the cells. All calls come from one process, the driver; workers never open the
database, since several that make it at once break each other's migrations.

MLflow takes more than a second to import: this module is imported only where runs are written, and by a thread of its own.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Before MLflow is imported: it reports usage, and holds a command up for minutes where a server is down, unless told otherwise.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")  # seconds; its own default is 120
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.tracking import MlflowClient

from bench.disk.locks import start_time, still_runs
from bench.home import Home
from bench.records.curves import Row
from bench.records.schema import Record
from bench.records.store import PREDICTIONS, RECORD
from bench.tracking import content
from bench.tracking.content import LONGEST_VALUE, CellLike
from bench.tracking.stores import SQLITE, absolute_uri

ARTIFACTS = (RECORD, PREDICTIONS)
LOG = "log.txt"
TABLE = "examples.json"
IMAGES = "images"  # MLflow's own folder of the images that its charts show
BATCH = 100  # parameters and tags that MLflow takes in one call; it takes 1000 metrics
PAGE = 1000  # runs in one answer
EXPERIMENT = "bench/"  # before the name of a data set
RUNNING, FINISHED, FAILED, KILLED = "RUNNING", "FINISHED", "FAILED", "KILLED"
PROCESS = "bench.process"  # machine, id and start of the process that writes the run
KIND = {"mlflow.experimentKind": "custom_model_development"}  # which of its two faces MLflow shows
RECORDED = "bench.record"  # digest of the record that a run shows; absent until all of it is there
NOISY = ("mlflow.store.db.utils", "mlflow.tracking.fluent", "alembic", "alembic.runtime.migration")

Table = Mapping[str, Sequence[Any]]
Pictures = Mapping[str, Sequence[Any]]
"""By name, one picture per step: what PIL or numpy hold."""


class MlflowTracker:
    """Writes runs to the MLflow store at `uri`: a database, made where it is absent, or a server's address."""

    def __init__(self, uri: str, home: Home) -> None:
        self._home = home
        self.uri = absolute_uri(uri, home)
        if self.uri.startswith(SQLITE):
            Path(self.uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = MlflowClient(tracking_uri=self.uri)
        self._experiments: dict[str, str] = {}
        self._parents: dict[str, str] = {}  # run of a cell -> run of the command
        self._began: dict[str, int] = {}  # run of a cell -> its start in ms
        self._failed: set[str] = set()  # commands with a failed cell

    def start_parent(self, dataset: str, method: str, command: str) -> str:
        """Begin the run of one method in one command and return its id."""
        verb = next(iter(command.split()[1:2]), "run")
        tags = {"bench.kind": "command", "bench.method": method, "bench.command": command, "bench.state": "running"}
        tags |= {"mlflow.note.content": f"`{command}`", **_source(command), **_owner()}
        experiment = self._experiment(dataset)
        return self._client.create_run(experiment, tags=tags, run_name=f"{verb} {method}").info.run_id

    def end_parent(self, parent: str) -> None:
        """End the run of a command: FAILED if one of its cells failed, else FINISHED."""
        failed = parent in self._failed
        self._log(parent, tags={"bench.state": "failed" if failed else "done"})
        self._client.set_terminated(parent, FAILED if failed else FINISHED)

    def collection(self, dataset: str, method: str, command: str) -> str:
        """The run above those that were written from records, made if there is none yet."""
        chosen = f"tags.`bench.kind` = 'records' and tags.`bench.method` = '{method}'"
        found = self._client.search_runs([self._experiment(dataset)], chosen, max_results=1)
        if found:
            return found[0].info.run_id
        tags = {"bench.kind": "records", "bench.method": method, "bench.state": "done", **_source(command)}
        tags["mlflow.note.content"] = f"Cells of {method} that were written here from their records by `{command}`."
        run = self._client.create_run(self._experiment(dataset), tags=tags, run_name=f"records {method}").info.run_id
        self._client.set_terminated(run, FINISHED)
        return run

    def kill(self, run_id: str) -> None:
        """End a run that was stopped before its end, as KILLED."""
        self._log(run_id, tags={"bench.state": "killed"})
        self._client.set_terminated(run_id, KILLED)

    def close_stale(self, dataset: str) -> int:
        """End as killed the running runs of a data set whose driver was on this machine and lives no more; how many."""
        running = self._runs(dataset, f"attributes.status = '{RUNNING}'")
        stale = [run for run in running if _lives(run.data.tags) is False]
        for run in stale:
            self.kill(run.info.run_id)
        return len(stale)

    def datasets(self) -> list[str]:
        """The data sets that have runs."""
        found = self._client.search_experiments(filter_string=f"name LIKE '{EXPERIMENT}%'")
        return [one.name.removeprefix(EXPERIMENT) for one in found]

    def recorded(self, dataset: str) -> dict[str, str]:
        """What the runs of a data set show: the digest of the record by key, empty where the run is not whole."""
        runs = self._runs(dataset, "tags.`bench.key` LIKE '%'")
        return {run.data.tags["bench.key"]: run.data.tags.get(RECORDED, "") for run in runs}

    def start_cell(self, cell: CellLike, parent: str | None, began: int | None = None) -> str | None:
        """Begin the nested run of a cell and return its id; a run of the same key is taken up again, under `parent`
        unless that is None.

        None for a cell that another living command of this machine has: the run is that one's. `began` is in ms.
        """
        experiment = self._experiment(cell.config["dataset"])
        tags = {"bench.state": "running", **_owner(), **content.tags(cell)}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        run = self._first(experiment, cell.key)
        if run is None:
            run = self._create(experiment, cell, tags, began)
        elif run.info.status == RUNNING and _is_others(run.data.tags):
            return None
        else:
            self._take_up(run, tags)
        if run is None:
            return None
        if parent is not None:
            self._parents[run.info.run_id] = parent
        self._began[run.info.run_id] = run.info.start_time
        return str(run.info.run_id)

    def log_epoch(self, run_id: str, rows: Iterable[Row]) -> None:
        """Add rows of `curves.csv` (phase, epoch, seconds, name, value) as metrics `phase/name` at step `epoch`.

        The time of a point is the run's start plus the row's seconds, so that a row that comes twice, as after a resume,
        is the same point. Values that are not finite are left out.
        """
        began = self._start_of(run_id)
        points = [
            Metric(
                f"{row['phase']}/{row['name']}", value, began + round(1000 * float(row["seconds"])), int(row["epoch"])
            )
            for row in rows
            if math.isfinite(value := float(row["value"]))
        ]
        self._log(run_id, metrics=points)

    def finish(
        self, run_id: str, record: Record, folder: Path, table: Table | None = None, pictures: Pictures | None = None
    ) -> None:
        """Write scores, costs, files, a table of examples and pictures of a finished cell and end its run: FAILED for a
        failed record. What an earlier record of the cell left there is replaced."""
        _, ended = content.span(record)
        now = ended or round(time.time() * 1000)
        metrics = [Metric(name, value, now, 0) for name, value in content.metrics(record).items()]
        self._log(run_id, metrics=metrics, tags=content.outcome(record, folder))
        self._files(run_id, record, folder, table, pictures or {})
        failed = record.state == "failed"
        self._log(run_id, tags={RECORDED: digest(record)})
        self._end(run_id, failed, ended)

    def finish_trial(
        self, run_id: str, state: str, value: float | None, message: str | None, ended: int | None = None
    ) -> None:
        """End the run of a search's trial. Its tag `bench.state` is `completed`, `stopped` (by the scheduler) or `failed`."""
        metrics = [] if value is None else [Metric("tuning/value", value, self._start_of(run_id), 0)]
        failure = {"bench.failure": message[:LONGEST_VALUE]} if message else {}
        self._log(run_id, metrics=metrics, tags={"bench.state": state, RECORDED: state, **failure})
        self._end(run_id, state == "failed", ended)

    def _end(self, run_id: str, failed: bool, ended: int | None) -> None:
        if failed and run_id in self._parents:
            self._failed.add(self._parents[run_id])
        # A run that took seconds to write from its record did not end before it began.
        end_time = None if ended is None else max(ended, self._start_of(run_id))
        self._client.set_terminated(run_id, FAILED if failed else FINISHED, end_time=end_time)

    def _files(self, run_id: str, record: Record, folder: Path, table: Table | None, pictures: Pictures) -> None:
        there = {item.path for item in self._client.list_artifacts(run_id)}
        self._remove(run_id, there & {TABLE, IMAGES, LOG})  # MLflow adds to tables and images of the same name
        for name in ARTIFACTS:
            if (folder / name).is_file():
                self._client.log_artifact(run_id, str(folder / name))
        if record.failure is not None and record.failure.log and (folder / record.failure.log).is_file():
            self._client.log_artifact(run_id, str(folder / record.failure.log))
        if table is not None:
            import pandas as pd  # only where there is a table

            # dtype: of columns of pandas' own text type MLflow warns on the user's terminal
            self._client.log_table(run_id, pd.DataFrame(dict(table), dtype=object), TABLE)
        for name, steps in pictures.items():
            for step, picture in enumerate(steps):
                self._client.log_image(run_id, picture, key=name, step=step)

    def _remove(self, run_id: str, paths: Iterable[str]) -> None:
        place = self._client.get_run(run_id).info.artifact_uri
        for path in paths:
            get_artifact_repository(place, tracking_uri=self.uri).delete_artifacts(path)

    def _create(self, experiment: str, cell: CellLike, tags: Mapping[str, str], began: int | None) -> Run | None:
        """A new run of a cell; None where another command made one at the same moment, whose run stays."""
        run = self._client.create_run(experiment, start_time=began, tags=tags, run_name=cell.label)
        first = self._first(experiment, cell.key)
        if first is not None and first.info.run_id != run.info.run_id:
            self._client.set_terminated(run.info.run_id, KILLED)
            self._client.delete_run(run.info.run_id)
            return None
        self._log(run.info.run_id, params=content.parameters(cell.config))
        self._client.log_inputs(run.info.run_id, _inputs(cell.config))
        return run

    def _take_up(self, run: Run, tags: Mapping[str, str]) -> None:
        run_id = run.info.run_id
        self._client.update_run(run_id, status=RUNNING)
        for stale in ("bench.failure", RECORDED):
            if stale in run.data.tags:
                self._client.delete_tag(run_id, stale)
        self._log(run_id, tags=tags)

    def _first(self, experiment: str, key: str) -> Run | None:
        """The run of a key; of several that were made at the same moment the oldest, whoever asks."""
        found = self._client.search_runs([experiment], f"tags.`bench.key` = '{key}'")
        return min(found, key=lambda run: (run.info.start_time, run.info.run_id), default=None)

    def _runs(self, dataset: str, chosen: str) -> Iterator[Run]:
        token = None
        while True:
            found = self._client.search_runs([self._experiment(dataset)], chosen, max_results=PAGE, page_token=token)
            yield from found
            token = found.token
            if not token:
                return

    def _experiment(self, dataset: str) -> str:
        """Id of the data set's experiment, made with an absolute place for its artifacts, or brought back if deleted."""
        if dataset not in self._experiments:
            name = f"{EXPERIMENT}{dataset}"
            found = self._client.get_experiment_by_name(name)
            if found is None:
                self._experiments[dataset] = self._new_experiment(name, dataset)
            else:
                if found.lifecycle_stage == "deleted":
                    self._client.restore_experiment(found.experiment_id)
                self._experiments[dataset] = found.experiment_id
        return self._experiments[dataset]

    def _new_experiment(self, name: str, dataset: str) -> str:
        local = not self.uri.startswith("http")  # a server keeps artifacts where it can reach them
        place = (self._home.work / "mlartifacts" / dataset).as_uri() if local else None
        try:
            return str(self._client.create_experiment(name, artifact_location=place, tags=KIND))
        except MlflowException:
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise
            return str(found.experiment_id)  # another command made it at the same moment

    def _start_of(self, run_id: str) -> int:
        if run_id not in self._began:
            self._began[run_id] = self._client.get_run(run_id).info.start_time
        return self._began[run_id]

    def _log(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log in as few calls as MLflow allows: one call per value would cost 20 ms each."""
        all_params = [Param(name, value) for name, value in (params or {}).items()]
        all_tags = [RunTag(name, value) for name, value in (tags or {}).items()]
        for start in range(0, max(len(metrics), len(all_params), len(all_tags)), BATCH):
            part = slice(start, start + BATCH)
            self._client.log_batch(run_id, metrics[part], all_params[part], all_tags[part])


def digest(record: Record) -> str:
    """What differs between two records of the same key, as after it was scored anew."""
    return hashlib.sha256(record.model_dump_json(by_alias=True).encode()).hexdigest()[:16]


def _owner() -> dict[str, str]:
    """The tag that names this process. The id alone does not: another may have it tomorrow."""
    return {PROCESS: f"{platform.node()} {os.getpid()} {start_time(os.getpid())}".strip()}


def _lives(tags: Mapping[str, str]) -> bool | None:
    """Whether the process that a run belongs to lives; None where that cannot be known: on another machine, or without the
    tag."""
    host, pid, born = [*tags.get(PROCESS, "").split(" "), "", ""][:3]
    return still_runs(int(pid), born) if host == platform.node() and pid.isdecimal() else None


def _is_others(tags: Mapping[str, str]) -> bool:
    """Whether a running run is that of another living process of this machine."""
    return tags.get(PROCESS) != _owner()[PROCESS] and _lives(tags) is True


def _source(command: str) -> dict[str, str]:
    return {"mlflow.source.name": " ".join(command.split()[:2]), "mlflow.source.type": "LOCAL"}


def _inputs(config: Mapping[str, Any]) -> list[DatasetInput]:
    return [
        DatasetInput(
            Dataset(one["name"], one["digest"], "bench", one["source"]), [InputTag(content.CONTEXT, one["context"])]
        )
        for one in content.data_sets(config)
    ]
