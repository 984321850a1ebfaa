"""MLflow as a view of the records: one experiment per data set, one run per command, one nested run per cell.

Nothing is read back from it, so it may be thrown away. What the database or the server raises is passed on: the caller
keeps it away from the cells. All calls come from one process, the driver; workers never open the database, since several
that make it at once break each other's migrations.
"""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.home import Home
from bench.records.process import alive
from bench.records.schema import Record
from bench.records.store import PREDICTIONS

SQLITE = "sqlite:///"
ARTIFACTS = (PREDICTIONS, "config.yaml")
CHECKPOINT = "checkpoint.safetensors"
NO_PARAMETER = (
    "dataset_path",
    "title",
    "threads",
    "device",
    "streams",
)  # may differ between runs of one key, or are tags
LONGEST_VALUE = 500  # the limit of MLflow servers before 2.x; longer values are in the artifacts
BATCH = 100  # parameters and tags that MLflow takes in one call; it takes 1000 metrics
NOISY = ("mlflow.store.db.utils", "mlflow.tracking.fluent", "alembic", "alembic.runtime.migration")


class CellLike(Protocol):
    """What is used of `bench.spec.Cell`."""

    @property
    def key(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def config(self) -> Mapping[str, Any]: ...


class Tracker:
    """Writes runs to the MLflow store at `uri`: a database, made where it is absent, or a server's address.

    A relative SQLite path is taken from the home's root: MLflow would take it from the current folder of each process.
    """

    def __init__(self, uri: str, home: Home) -> None:
        self._home = home
        self.uri = absolute_uri(uri, home)
        if self.uri.startswith(SQLITE):
            Path(self.uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        self._client = _client(self.uri)
        self._experiments: dict[str, str] = {}
        self._parents: dict[str, str] = {}  # run of a cell -> run of the command
        self._began: dict[str, int] = {}  # run of a cell -> its start in ms
        self._failed: set[str] = set()  # commands with a failed cell

    def start_parent(self, dataset: str, command: str) -> str:
        """Begin the run of one command and return its id. Runs that a killed driver left behind are closed first."""
        experiment = self._experiment(dataset)
        self._close_stale(experiment)
        tags = {"bench.kind": "command", "bench.command": command, **_owner()}
        return self._client.create_run(experiment, tags=tags, run_name=command[:100]).info.run_id

    def end_parent(self, parent: str) -> None:
        """End the run of a command: FAILED if one of its cells failed, else FINISHED."""
        self._client.set_terminated(parent, "FAILED" if parent in self._failed else "FINISHED")

    def start_cell(self, cell: CellLike, parent: str) -> str:
        """Begin the nested run of a cell and return its id; a run of the same key is taken up again."""
        experiment = self._experiment(cell.config["dataset"])
        kind = "trial" if "tuning" in cell.config else "cell"
        tags = {"mlflow.parentRunId": parent, "bench.kind": kind, "bench.state": "running", **_owner(), **_tags(cell)}
        found = self._client.search_runs([experiment], f"tags.`bench.key` = '{cell.key}'", max_results=1)
        if found:
            run = found[0]
            self._client.update_run(run.info.run_id, status="RUNNING")
            if "bench.failure" in run.data.tags:
                self._client.delete_tag(run.info.run_id, "bench.failure")
            self._log(run.info.run_id, tags=tags)
        else:
            run = self._client.create_run(experiment, tags=tags, run_name=cell.label)
            self._log(run.info.run_id, params=_parameters(cell.config))
        self._parents[run.info.run_id] = parent
        self._began[run.info.run_id] = run.info.start_time
        return run.info.run_id

    def log_epoch(self, run_id: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows of `curves.csv` (phase, epoch, seconds, name, value) as metrics `phase/name` at step `epoch`.

        The time of a point is the run's start plus the row's seconds, so that a row told twice, as after a resume,
        is the same point. Values that are not finite are left out.
        """
        from mlflow.entities import Metric

        began = self._start_of(run_id)
        points = [
            Metric(
                f"{row['phase']}/{row['name']}", value, began + round(1000 * float(row["seconds"])), int(row["epoch"])
            )
            for row in rows
            if math.isfinite(value := float(row["value"]))
        ]
        self._log(run_id, metrics=points)

    def finish(self, run_id: str, record: Record, folder: Path) -> None:
        """Write scores, costs and files of a finished cell and end its run: FAILED for a failed record."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, value, now, 0) for name, value in _numbers(record).items()]
        self._log(run_id, metrics=metrics, tags=_outcome(record, folder))
        for name in ARTIFACTS:
            if (folder / name).is_file():
                self._client.log_artifact(run_id, str(folder / name))
        failed = record.state == "failed"
        if failed and run_id in self._parents:
            self._failed.add(self._parents[run_id])
        self._client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

    def finish_trial(self, run_id: str, state: str, value: float | None, message: str | None) -> None:
        """End the run of a search's trial. Its tag `bench.state` tells `completed`, `stopped` (by the scheduler) and `failed`."""
        from mlflow.entities import Metric

        metrics = [] if value is None else [Metric("tuning/value", value, int(time.time() * 1000), 0)]
        failure = {"bench.failure": message[:LONGEST_VALUE]} if message else {}
        self._log(run_id, metrics=metrics, tags={"bench.state": state, **failure})
        failed = state == "failed"
        if failed and run_id in self._parents:
            self._failed.add(self._parents[run_id])
        self._client.set_terminated(run_id, "FAILED" if failed else "FINISHED")

    def _experiment(self, dataset: str) -> str:
        """Id of the data set's experiment, made with an absolute place for its artifacts, or brought back if deleted."""
        if dataset not in self._experiments:
            name = f"bench/{dataset}"
            found = self._client.get_experiment_by_name(name)
            if found is None:
                local = not self.uri.startswith("http")  # a server keeps artifacts where it can reach them
                place = (self._home.work / "mlartifacts" / dataset).as_uri() if local else None
                self._experiments[dataset] = self._client.create_experiment(name, artifact_location=place)
            else:
                if found.lifecycle_stage == "deleted":
                    self._client.restore_experiment(found.experiment_id)
                self._experiments[dataset] = found.experiment_id
        return self._experiments[dataset]

    def _close_stale(self, experiment: str) -> None:
        """End as KILLED the running runs whose driver was on this machine and lives no more."""
        for run in self._client.search_runs([experiment], "attributes.status = 'RUNNING'"):
            tags = run.data.tags
            if tags.get("bench.host") == platform.node() and not alive(int(tags["bench.pid"])):
                self._client.set_terminated(run.info.run_id, "KILLED")

    def _start_of(self, run_id: str) -> int:
        if run_id not in self._began:
            self._began[run_id] = self._client.get_run(run_id).info.start_time
        return self._began[run_id]

    def _log(
        self,
        run_id: str,
        metrics: Sequence[Any] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log in as few calls as MLflow allows: one call per value would cost 20 ms each."""
        from mlflow.entities import Param, RunTag

        all_params = [Param(name, value) for name, value in (params or {}).items()]
        all_tags = [RunTag(name, value) for name, value in (tags or {}).items()]
        for start in range(0, max(len(metrics), len(all_params), len(all_tags)), BATCH):
            part = slice(start, start + BATCH)
            self._client.log_batch(run_id, metrics[part], all_params[part], all_tags[part])


def absolute_uri(uri: str, home: Home) -> str:
    """`uri` with a relative SQLite path made absolute from the home's root."""
    if uri.startswith(SQLITE):
        return SQLITE + str(home.root / Path(uri.removeprefix(SQLITE)).expanduser())
    return uri


def _client(uri: str) -> Any:
    """MLflow's client, imported here: it takes more than a second, and reports usage unless told not to before."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # a server that is down should not hold up a run
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    from mlflow.tracking import MlflowClient

    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


def _owner() -> dict[str, str]:
    return {"bench.host": platform.node(), "bench.pid": str(os.getpid())}


def _tags(cell: CellLike) -> dict[str, str]:
    config = cell.config
    tags = {
        f"bench.{name}": str(config[name]) for name in ("method", "variant", "dataset", "split", "protocol", "seed")
    }
    tags |= {f"bench.fingerprint.{name}": str(value) for name, value in (config.get("streams") or {}).items()}
    return {**tags, "bench.key": cell.key, "bench.title": str(config.get("title") or cell.label)}


def _parameters(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """The config as MLflow parameters: nested keys by dots, values as JSON unless they are text."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if not prefix and name in NO_PARAMETER:
            continue
        if isinstance(value, Mapping):
            flat |= _parameters(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            flat[prefix + name] = text[:LONGEST_VALUE]
    return flat


def _numbers(record: Record) -> dict[str, float]:
    """Scores as `test/cider`, costs as `ledger/...`, the value the epoch was chosen by as `selection/...`."""
    numbers = {f"{split}/{name}": value for split, scores in record.scores.items() for name, value in scores.items()}
    if record.ledger is not None:
        costs = record.ledger.model_dump(exclude_none=True)
        numbers |= {f"ledger/{name}": float(value) for name, value in costs.items()}
    if record.selection is not None:
        numbers[f"selection/{record.selection.metric}"] = record.selection.value
        numbers["selection/epoch"] = float(record.selection.epoch)
    return numbers


def _outcome(record: Record, folder: Path) -> dict[str, str]:
    tags: dict[str, str] = {"bench.state": record.state}
    if record.failure is not None:
        failure = record.failure
        tags["bench.failure"] = f"{failure.stage}: {failure.type}: {failure.message}"[:LONGEST_VALUE]
    facts = record.provenance
    if facts is not None:
        tags |= {
            f"bench.{name}": str(getattr(facts, name))
            for name in ("git", "dirty", "python", "torch", "platform", "cpu", "device", "threads")
            if getattr(facts, name) is not None
        }
        if facts.git:
            tags["mlflow.source.git.commit"] = facts.git
    for split, signatures in record.signatures.items():
        tags |= {f"bench.signature.{split}.{name}": text for name, text in signatures.items()}
    if (folder / CHECKPOINT).is_file():
        tags["bench.checkpoint"] = str((folder / CHECKPOINT).resolve())
    return tags
