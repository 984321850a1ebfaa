"""MLflow as a view: nesting, one run per key, states, curves and files, in a real SQLite store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from record_factory import config, record

from bench.declare.settings import Search, Text, Train
from bench.disk.locks import start_time, still_runs
from bench.home import Home
from bench.records.schema import Record
from bench.records.store import cell_folder, write_record
from bench.tracking.client import MlflowTracker
from bench.tracking.content import parameters
from bench.tracking.stores import absolute_uri

DEAD = 2**22 + 1  # no process has an id beyond 2^22


@dataclass(frozen=True)
class Cell:
    key: str
    config: dict[str, Any]
    label: str = "recnet:local seed 0"


def cell_of(item: Record) -> Cell:
    return Cell(item.key, {**item.config, "dataset_path": "/somewhere/toy.yaml"})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Home:
    home = Home(tmp_path_factory.mktemp("home"))
    home.work.mkdir()
    shutil.copy(mlflow_database, home.work)
    return home


@pytest.fixture(scope="module")
def tracker(home: Home) -> MlflowTracker:
    return MlflowTracker(home.mlflow_uri, home)


@pytest.fixture(scope="module")
def client(tracker: MlflowTracker) -> Any:
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


def finished(home: Home, dataset: str, **made: Any) -> tuple[Record, Path]:
    """A done record in its folder, with the files that a cell leaves."""
    done = record(method="recnet", variant="local", dataset=dataset, made=made)
    folder = cell_folder(home.results, done)
    write_record(folder, done)
    (folder / "predictions.jsonl").write_text('{"clip": "a", "caption": "a dog"}\n')
    (folder / "checkpoint.safetensors").write_bytes(b"weights")
    return done, folder


def started(tracker: MlflowTracker, item: Record, parent: str | None) -> str:
    run_id = tracker.start_cell(cell_of(item), parent)
    assert run_id is not None
    return run_id


def test_a_command_and_its_cell(tracker: MlflowTracker, client: Any, home: Home) -> None:
    provenance = {"bench": "0.1.0", "git": "a" * 40, "cpu": "some processor", "device": "cpu", "threads": 1}
    done, folder = finished(home, "one", provenance=provenance)

    parent = tracker.start_parent("one", "recnet", "bench run methods=[recnet] dataset=one")
    run_id = started(tracker, done, parent)
    assert client.get_run(run_id).info.status == "RUNNING"
    tracker.log_epoch(run_id, [*rows([3.0, 2.0, float("nan")]), *rows([1.0], "reconstruct")])
    tracker.finish(run_id, done, folder)
    tracker.end_parent(parent)

    found = runs_of(client, "one")
    assert set(found) == {parent, run_id}
    child = found[run_id]
    assert (child.info.status, found[parent].info.status) == ("FINISHED", "FINISHED")
    assert (child.info.run_name, found[parent].info.run_name) == ("recnet:local seed 0", "run recnet")
    tags = child.data.tags
    assert tags["mlflow.parentRunId"] == parent
    assert tags["bench.key"] == done.key
    assert tags["bench.state"] == "done"
    assert tags["mlflow.source.git.commit"] == "a" * 40
    assert tags["bench.cpu"] == "some processor"
    assert tags["bench.signature"] == done.signatures["test"]["cider"]
    assert tags["bench.checkpoint"] == str(folder / "checkpoint.safetensors")
    assert f'bench.load("{folder / "checkpoint.safetensors"}")' in tags["mlflow.note.content"]
    parameters = child.data.params
    assert (parameters["method"], parameters["train.epochs"], parameters["model.width"]) == ("recnet", "10", "512")
    assert (parameters["protocol"], parameters["streams"], parameters["seed"]) == ("standard", "frames", "0")
    assert not [name for name in parameters if "digest" in name or name in ("dataset_path", "title", "threads")]
    assert child.data.metrics["test/cider"] == 25.0
    assert child.data.metrics["ledger/fit_seconds"] == 12.5
    assert child.data.metrics["selection/val_cider_tokens"] == 31.2
    curve = client.get_metric_history(run_id, "base/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 3.0), (2, 2.0)]
    assert curve[1].timestamp - curve[0].timestamp == 1500
    assert [point.value for point in client.get_metric_history(run_id, "reconstruct/loss")] == [1.0]
    assert {item.path for item in client.list_artifacts(run_id)} == {"predictions.jsonl", "record.json"}
    assert child.info.artifact_uri.startswith((home.work / "mlartifacts" / "one").as_uri())
    read = [(one.dataset.name, one.dataset.digest, one.tags[0].value) for one in child.inputs.dataset_inputs]
    assert sorted(read) == [("one", "c" * 36, "test"), ("one frames", "f" * 36, "features")]


def test_tables_and_pictures_are_replaced_not_added_to(tracker: MlflowTracker, client: Any, home: Home) -> None:
    done, folder = finished(home, "gallery")
    run_id = started(tracker, done, None)
    table = {"clip": ["a", "b"], "caption": ["a dog", 'a "cat" | $x$'], "references": [5, None], "cider": [1.5, 0.0]}
    picture = np.zeros((8, 12, 3), np.uint8)
    tracker.finish(run_id, done, folder, table, {"curves": [picture], "clips": [picture, picture]})
    assert started(tracker, done, None) == run_id
    tracker.finish(run_id, done, folder, table, {"clips": [picture]})
    shown = json.loads(Path(client.download_artifacts(run_id, "examples.json")).read_text())
    assert shown["columns"] == list(table)
    assert shown["data"] == [list(row) for row in zip(*table.values(), strict=True)]
    (told,) = json.loads(client.get_run(run_id).data.tags["mlflow.loggedArtifacts"])
    assert told == {"path": "examples.json", "type": "table"}
    images = [item.path for item in client.list_artifacts(run_id, "images") if item.path.endswith(".png")]
    assert len(images) == 1 and images[0].startswith("images/clips+step+0")


def test_the_same_key_is_taken_up_again(tracker: MlflowTracker, client: Any, home: Home) -> None:
    failed = record("failed", dataset="two")
    folder = cell_folder(home.results, failed)
    (folder / "work").mkdir(parents=True)
    (folder / "work" / "log.txt").write_text("Traceback\n")
    first = tracker.start_parent("two", "salstm", "bench run first")
    run_id = started(tracker, failed, first)
    tracker.log_epoch(run_id, rows([3.0, 2.0]))
    tracker.finish(run_id, failed, folder)
    tracker.end_parent(first)
    runs = runs_of(client, "two")
    assert (runs[run_id].info.status, runs[first].info.status) == ("FAILED", "FAILED")
    assert runs[run_id].data.tags["bench.failure"] == "fit: RuntimeError: boom"
    assert runs[run_id].data.tags["bench.state"] == "failed"
    assert [item.path for item in client.list_artifacts(run_id)] == ["log.txt"]

    again = MlflowTracker(tracker.uri, home)  # as another command would
    second = again.start_parent("two", "salstm", "bench run second")
    assert started(again, failed, second) == run_id
    assert "bench.record" not in client.get_run(run_id).data.tags, "not whole while it runs"
    again.log_epoch(run_id, rows([3.0, 2.0, 1.0]))  # a resumed cell tells its first epochs once more
    again.finish(run_id, record(dataset="two"), home.results / "none")
    again.end_parent(second)
    runs = runs_of(client, "two")
    assert set(runs) == {first, second, run_id}
    assert (runs[run_id].info.status, runs[second].info.status) == ("FINISHED", "FINISHED")
    assert runs[run_id].data.tags["mlflow.parentRunId"] == second
    assert "bench.failure" not in runs[run_id].data.tags
    assert [point.value for point in client.get_metric_history(run_id, "base/loss")] == [3.0, 2.0, 1.0]
    assert not client.list_artifacts(run_id), "the log was that of the failure"


def own(tag: str, pid: int, born: str) -> str:
    host, _, _ = tag.split()
    return f"{host} {pid} {born}".strip()


def test_runs_of_a_killed_driver_are_closed(tracker: MlflowTracker, client: Any) -> None:
    stale = tracker.start_parent("three", "salstm", "bench run killed")
    orphan = started(tracker, record(dataset="three"), stale)
    reborn = tracker.start_parent("three", "salstm", "bench run before the machine started anew")
    other = tracker.start_parent("three", "salstm", "bench run on another machine")
    tag = client.get_run(stale).data.tags["bench.process"]
    for run_id in (stale, orphan):
        client.set_tag(run_id, "bench.process", own(tag, DEAD, "12"))
    client.set_tag(reborn, "bench.process", own(tag, os.getpid(), "1"))  # this id was another process's
    client.set_tag(other, "bench.process", "elsewhere 1 1")
    living = tracker.start_parent("three", "salstm", "bench run next")
    assert tracker.close_stale("three") == 3
    runs = runs_of(client, "three")
    killed = {name for name, run in runs.items() if run.info.status == "KILLED"}
    assert killed == {stale, orphan, reborn}
    assert {runs[name].data.tags["bench.state"] for name in killed} == {"killed"}
    assert {runs[name].info.status for name in (other, living)} == {"RUNNING"}


def test_a_process_that_ended_is_not_alive_though_its_parent_has_not_asked() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    born = start_time(child.pid)
    assert still_runs(child.pid, born)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays in the table
    assert not still_runs(child.pid, born)
    child.wait()
    assert not still_runs(child.pid, born)


def test_a_cell_of_another_living_command_keeps_its_run(tracker: MlflowTracker, client: Any) -> None:
    busy = record(dataset="three", seed=4)
    run_id = started(tracker, busy, None)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        mine = client.get_run(run_id).data.tags["bench.process"]
        client.set_tag(run_id, "bench.process", own(mine, other.pid, start_time(other.pid)))
        assert tracker.start_cell(cell_of(busy), None) is None
    finally:
        other.kill()
        other.wait()
    assert started(tracker, busy, None) == run_id, "its command is gone"


def test_of_two_commands_that_begin_a_cell_at_once_one_has_the_run(
    tracker: MlflowTracker, client: Any, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one looked before the run was there, and made one of its own."""
    twin = record(dataset="three", seed=6)
    looks = tracker._first
    answers = iter([None])
    monkeypatch.setattr(tracker, "_first", lambda *asked: next(answers, looks(*asked)))
    first = started(MlflowTracker(tracker.uri, home), twin, None)
    assert tracker.start_cell(cell_of(twin), None) is None
    runs = [run for run in runs_of(client, "three").values() if run.data.tags.get("bench.key") == twin.key]
    assert [run.info.run_id for run in runs] == [first]


def test_states_of_trials_are_told_apart(tracker: MlflowTracker, client: Any) -> None:
    parent = tracker.start_parent("search", "salstm", "bench tune methods=salstm")
    found = {}
    for seed, state in enumerate(("completed", "stopped", "failed")):
        trial = Cell(f"{seed:016x}", config(dataset="search", seed=seed, tuning="d" * 16))
        run_id = tracker.start_cell(trial, parent)
        assert run_id is not None
        tracker.finish_trial(run_id, state, 12.5, "boom" if state == "failed" else None)
        found[state] = client.get_run(run_id)
    killed = tracker.start_cell(Cell("f" * 16, config(dataset="search", seed=9, tuning="d" * 16)), parent)
    assert killed is not None
    tracker.kill(killed)
    found["killed"] = client.get_run(killed)
    assert {state: run.data.tags["bench.state"] for state, run in found.items()} == {state: state for state in found}
    assert {state: run.info.status for state, run in found.items()} == {
        "completed": "FINISHED",
        "stopped": "FINISHED",
        "failed": "FAILED",
        "killed": "KILLED",
    }
    assert {run.data.tags["bench.kind"] for run in found.values()} == {"trial"}


def test_an_unscored_cell_is_finished_but_says_so(tracker: MlflowTracker, client: Any, home: Home) -> None:
    waiting = record("unscored", dataset="three", seed=5)
    run_id = started(tracker, waiting, None)
    tracker.finish(run_id, waiting, home.results / "none")
    run = client.get_run(run_id)
    assert (run.info.status, run.data.tags["bench.state"]) == ("FINISHED", "unscored")
    assert not [name for name in run.data.metrics if name.startswith("test/")]


def test_many_settings_and_long_values_fit(tracker: MlflowTracker, client: Any) -> None:
    settings = {f"setting_{number}": number for number in range(150)} | {
        "note": "x" * 9000,
        "grid": [1, 2],
        "none": None,
    }
    run_id = tracker.start_cell(Cell("e" * 16, config(dataset="three", seed=9, settings=settings)), None)
    parameters = client.get_run(run_id).data.params
    assert parameters["salstm.setting_149"] == "149"
    assert parameters["salstm.grid"] == "[1, 2]" and "salstm.none" not in parameters
    assert parameters["salstm.note"].startswith("xxx")


def test_a_deleted_experiment_comes_back(tracker: MlflowTracker, client: Any, home: Home) -> None:
    tracker.start_parent("four", "salstm", "bench run first")
    client.delete_experiment(client.get_experiment_by_name("bench/four").experiment_id)
    MlflowTracker(tracker.uri, home).start_parent("four", "salstm", "bench run second")
    assert client.get_experiment_by_name("bench/four").lifecycle_stage == "active"


def test_a_relative_database_lies_in_the_home(home: Home) -> None:
    assert absolute_uri("sqlite:///runs.db", home) == f"sqlite:///{home.root}/runs.db"
    assert absolute_uri(home.mlflow_uri, home) == home.mlflow_uri
    assert absolute_uri("http://127.0.0.1:5000", home) == "http://127.0.0.1:5000"


def test_nothing_is_reported_to_anybody() -> None:
    """MLflow's own reporter does not even start where bench imports it."""
    code = (
        "import bench.tracking.client; from mlflow.telemetry import get_telemetry_client; print(get_telemetry_client())"
    )
    reporting = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI", "PYTEST_CURRENT_TEST", "GITHUB_ACTIONS")
    free = {name: value for name, value in os.environ.items() if name not in reporting}
    done = subprocess.run(
        [sys.executable, "-c", code], env=free, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "None"


def test_a_comparison_has_few_columns() -> None:
    """Settings at their defaults are no columns, whatever their group; nor are sizes but the width."""
    train = {**Train().model_dump(), "optimizer": "sgd"}
    groups = {"train": train, "search": Search().model_dump(), "text": Text().model_dump()}
    settings = {"width": 512, "embedding": 468, "attention": 256, "dropout": 0.5, "normalise": None}
    found = parameters(config("recnet", "local", split="val", settings=settings, **groups))
    assert set(found) == {
        *("method", "variant", "protocol", "seed", "split", "streams"),
        *("train.epochs", "train.captions", "train.learning_rate", "train.optimizer", "search.beam", "model.width"),
    }
