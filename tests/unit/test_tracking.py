"""MLflow as a view: nesting, one run per key, states, curves and files, in a real SQLite store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pytest
from record_factory import config, record

from bench.home import Home
from bench.records.schema import Record
from bench.records.store import cell_folder, write_record
from bench.records.tracking import Tracker, absolute_uri

DEAD = str(2**22 + 1)  # no process has an id beyond 2^22


@dataclass(frozen=True)
class Cell:
    key: str
    config: dict[str, Any]
    label: str = "recnet:local seed 0"


def cell_of(item: Record) -> Cell:
    return Cell(item.key, {**item.config, "dataset_path": "/somewhere/toy.yaml"})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def tracker(home: Home) -> Tracker:
    return Tracker(home.mlflow_uri, home)


@pytest.fixture(scope="module")
def client(tracker: Tracker) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=tracker.uri)


def rows(values: list[float], phase: str = "base") -> list[dict[str, Any]]:
    return [
        {
            "phase": phase,
            "epoch": epoch,
            "captions": 100 * epoch,
            "seconds": 1.5 * epoch,
            "name": "loss",
            "value": value,
        }
        for epoch, value in enumerate(values, start=1)
    ]


def runs_of(client: Any, dataset: str) -> dict[str, Any]:
    experiment = client.get_experiment_by_name(f"bench/{dataset}")
    return {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}


def test_a_command_and_its_cell(tracker: Tracker, client: Any, home: Home) -> None:
    provenance = {"bench": "0.1.0", "git": "a" * 40, "cpu": "some processor", "device": "cpu", "threads": 1}
    done = record(method="recnet", variant="local", dataset="one", made={"provenance": provenance})
    folder = cell_folder(home.results, done)
    write_record(folder, done)
    (folder / "predictions.jsonl").write_text('{"clip": "a", "caption": "a dog"}\n')
    (folder / "config.yaml").write_text("method: recnet\n")
    (folder / "checkpoint.safetensors").write_bytes(b"weights")

    parent = tracker.start_parent("one", "bench run methods=[recnet] dataset=one")
    run_id = tracker.start_cell(cell_of(done), parent)
    assert client.get_run(run_id).info.status == "RUNNING"
    tracker.log_epoch(run_id, [*rows([3.0, 2.0, float("nan")]), *rows([1.0], "reconstruct")])
    tracker.finish(run_id, done, folder)
    tracker.end_parent(parent)

    found = runs_of(client, "one")
    assert set(found) == {parent, run_id}
    child = found[run_id]
    assert (child.info.status, found[parent].info.status) == ("FINISHED", "FINISHED")
    assert child.info.run_name == "recnet:local seed 0"
    tags = child.data.tags
    assert tags["mlflow.parentRunId"] == parent
    assert tags["bench.key"] == done.key
    assert tags["bench.protocol"] == "standard"
    assert tags["bench.fingerprint.frames"] == "f" * 64
    assert tags["bench.state"] == "done"
    assert tags["bench.git"] == tags["mlflow.source.git.commit"] == "a" * 40
    assert tags["bench.cpu"] == "some processor"
    assert tags["bench.signature.test.cider"] == done.signatures["test"]["cider"]
    assert tags["bench.checkpoint"] == str(folder / "checkpoint.safetensors")
    parameters = child.data.params
    assert (parameters["method"], parameters["train.epochs"], parameters["settings.width"]) == ("recnet", "10", "512")
    assert "dataset_path" not in parameters
    assert child.data.metrics["test/cider"] == 25.0
    assert child.data.metrics["ledger/fit_seconds"] == 12.5
    assert child.data.metrics["selection/val_cider_tokens"] == 31.2
    curve = client.get_metric_history(run_id, "base/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 3.0), (2, 2.0)]
    assert curve[1].timestamp - curve[0].timestamp == 1500
    assert [point.value for point in client.get_metric_history(run_id, "reconstruct/loss")] == [1.0]
    assert {item.path for item in client.list_artifacts(run_id)} == {"predictions.jsonl", "config.yaml"}
    assert child.info.artifact_uri.startswith((home.work / "mlartifacts" / "one").as_uri())


def test_the_same_key_is_taken_up_again(tracker: Tracker, client: Any, home: Home) -> None:
    failed = record("failed", dataset="two")
    first = tracker.start_parent("two", "first")
    run_id = tracker.start_cell(cell_of(failed), first)
    tracker.log_epoch(run_id, rows([3.0, 2.0]))
    tracker.finish(run_id, failed, home.results / "none")
    tracker.end_parent(first)
    runs = runs_of(client, "two")
    assert (runs[run_id].info.status, runs[first].info.status) == ("FAILED", "FAILED")
    assert runs[run_id].data.tags["bench.failure"] == "fit: RuntimeError: boom"
    assert runs[run_id].data.tags["bench.state"] == "failed"

    again = Tracker(tracker.uri, home)  # as another command would
    second = again.start_parent("two", "second")
    assert again.start_cell(cell_of(failed), second) == run_id
    again.log_epoch(run_id, rows([3.0, 2.0, 1.0]))  # a resumed cell tells its first epochs once more
    again.finish(run_id, record(dataset="two"), home.results / "none")
    again.end_parent(second)
    runs = runs_of(client, "two")
    assert set(runs) == {first, second, run_id}
    assert (runs[run_id].info.status, runs[second].info.status) == ("FINISHED", "FINISHED")
    assert runs[run_id].data.tags["mlflow.parentRunId"] == second
    assert "bench.failure" not in runs[run_id].data.tags
    assert [point.value for point in client.get_metric_history(run_id, "base/loss")] == [3.0, 2.0, 1.0]


def test_runs_of_a_killed_driver_are_closed(tracker: Tracker, client: Any) -> None:
    stale = tracker.start_parent("three", "killed")
    orphan = tracker.start_cell(cell_of(record(dataset="three")), stale)
    for run_id in (stale, orphan):
        client.set_tag(run_id, "bench.pid", DEAD)
    living = tracker.start_parent("three", "next")
    runs = runs_of(client, "three")
    assert {name: runs[name].info.status for name in (stale, orphan, living)} == {
        stale: "KILLED",
        orphan: "KILLED",
        living: "RUNNING",
    }


def test_an_unscored_cell_is_finished_but_says_so(tracker: Tracker, client: Any, home: Home) -> None:
    waiting = record("unscored", dataset="three", seed=5)
    parent = tracker.start_parent("three", "bench run")
    run_id = tracker.start_cell(cell_of(waiting), parent)
    tracker.finish(run_id, waiting, home.results / "none")
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["bench.state"]) == ("FINISHED", "unscored")
    assert not [name for name in run.data.metrics if name.startswith("test/")]


def test_many_settings_and_long_values_fit(tracker: Tracker, client: Any) -> None:
    settings = {f"setting_{number}": number for number in range(150)} | {
        "note": "x" * 9000,
        "grid": [1, 2],
        "none": None,
    }
    parent = tracker.start_parent("three", "bench run")
    run_id = tracker.start_cell(Cell("e" * 16, config(dataset="three", seed=9, settings=settings)), parent)
    parameters = client.get_run(run_id).data.params
    assert parameters["settings.setting_149"] == "149"
    assert (parameters["settings.grid"], parameters["settings.none"]) == ("[1, 2]", "null")
    assert parameters["settings.note"].startswith("xxx")


def test_a_deleted_experiment_comes_back(tracker: Tracker, client: Any, home: Home) -> None:
    tracker.start_parent("four", "first")
    client.delete_experiment(client.get_experiment_by_name("bench/four").experiment_id)
    Tracker(tracker.uri, home).start_parent("four", "second")
    assert client.get_experiment_by_name("bench/four").lifecycle_stage == "active"


def test_a_relative_database_lies_in_the_home(home: Home) -> None:
    assert absolute_uri("sqlite:///runs.db", home) == f"sqlite:///{home.root}/runs.db"
    assert absolute_uri(home.mlflow_uri, home) == home.mlflow_uri
    assert absolute_uri("http://127.0.0.1:5000", home) == "http://127.0.0.1:5000"


def test_nothing_is_reported_to_anybody(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    Tracker(home.mlflow_uri, home)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
