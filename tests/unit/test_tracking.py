"""MLflow as a view: one flat run per key, states, curves and files, in a real SQLite store; the same hooks by another tracker."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from record_factory import config, record

from bench.declare.settings import Search, Text, Train
from bench.disk.locks import start_time, still_runs
from bench.home import Home
from bench.plan.cells import requested
from bench.plan.labels import label
from bench.plan.request import parse
from bench.plan.stores import absolute_uri
from bench.records.curves import Row
from bench.records.schema import Record
from bench.records.store import all_records, cell_folder, write_record
from bench.reports.blocks import UNKEYED
from bench.tracking.background import Tracking
from bench.tracking.base import Ending, Entry, bring_up_to_date, write
from bench.tracking.content import of_record, parameters, points, run_of
from bench.tracking.mlflow_runs import MlflowTracker
from bench.tuning.study import Report, Trial
from bench.tuning.tracked_trials import of_report, trial_run

ROOT = Path(__file__).resolve().parents[2]

DEAD = 2**22 + 1  # no process has an id beyond 2^22


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


def rows(values: list[float], phase: str = "base", read: int = 0) -> list[Row]:
    return [
        {"phase": phase, "epoch": epoch, "captions": read + 100 * epoch, "seconds": 1.5 * epoch, "name": name, "value": value}
        for epoch, value in enumerate(values, start=1)
        for name in ("loss", "val_cider_tokens")
    ]  # fmt: skip


def runs_of(client: Any, dataset: str) -> dict[str, Any]:
    experiment = client.get_experiment_by_name(f"bench/{dataset}")
    return {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}


def run_with(client: Any, dataset: str, key: str) -> Any:
    (run,) = [run for run in runs_of(client, dataset).values() if run.data.tags.get("bench.key") == key]
    return run


def steps(client: Any, run: Any, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))


def begin(tracker: MlflowTracker, item: Record) -> bool:
    run = run_of(item.key, item.config)
    if not tracker.start(run):
        return False
    tracker.parameters(run)
    return True


def finished(home: Home, dataset: str, **made: Any) -> tuple[Record, Path]:
    """A done record in its folder, with the files that a cell leaves."""
    done = record(method="recnet", variant="local", dataset=dataset, made=made)
    folder = cell_folder(home.results, done)
    write_record(folder, done)
    (folder / "predictions.jsonl").write_text('{"clip": "a", "caption": "a \\"dog\\" | $x$"}\n')
    (folder / "checkpoint.safetensors").write_bytes(b"weights")
    return done, folder


def own(tag: str, pid: int, born: str) -> str:
    host, _, _ = tag.split()
    return f"{host} {pid} {born}".strip()


def test_a_cell_from_its_start_to_its_end(tracker: MlflowTracker, client: Any, home: Home) -> None:
    provenance = {"bench": "0.1.0", "git": "a" * 40, "cpu": "some processor", "device": "cpu", "threads": 1}
    done, folder = finished(home, "one", provenance=provenance)
    assert begin(tracker, done)
    assert run_with(client, "one", done.key).info.status == "RUNNING"
    tracker.metrics(done.key, points([*rows([3.0, 2.0, float("nan")]), *rows([1.0], "reconstruct", read=300)]))
    assert write(tracker, of_record(done, home))
    tracker.close("one")

    run = run_with(client, "one", done.key)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "recnet s0")
    tags, parameters = run.data.tags, run.data.params
    assert "mlflow.parentRunId" not in tags and tags["mlflow.runColor"].startswith("#")
    assert (tags["bench.kind"], tags["bench.state"], tags["bench.cpu"]) == ("cell", "done", "some processor")
    assert tags["mlflow.source.git.commit"] == "a" * 40
    assert tags["bench.signature"] == done.signatures["test"]["cider"]
    assert tags["bench.checkpoint"] == str(folder / "checkpoint.safetensors")
    assert f'bench.load("{folder / "checkpoint.safetensors"}")' in tags["mlflow.note.content"]
    assert (parameters["label"], parameters["method"], parameters["model.width"]) == ("recnet", "recnet", "512")
    assert (parameters["protocol"], parameters["streams"], parameters["seed"]) == ("standard", "frames", "0")
    assert not [name for name in parameters if "digest" in name or name in ("dataset_path", "title", "threads")]
    assert run.data.metrics["test/cider"] == 25.0
    assert run.data.metrics["cost/minutes"] == 0.208
    assert run.data.metrics["best/val_cider"] == 31.2
    # The phases by their epochs, and under one name for all methods what was reached after so many captions of all phases.
    assert steps(client, run, "base/loss") == [(1, 3.0), (2, 2.0)]
    assert steps(client, run, "reconstruct/loss") == [(1, 1.0)]
    assert steps(client, run, "train/loss") == steps(client, run, "val/cider") == [(100, 3.0), (200, 2.0), (400, 1.0)]
    seconds = [point.timestamp for point in client.get_metric_history(run.info.run_id, "base/loss")]
    assert seconds[1] - seconds[0] == 1500
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {
        "predictions.jsonl",
        "record.json",
        "captions.json",
    }
    assert run.info.artifact_uri.startswith((home.work / "mlartifacts" / "one").as_uri())
    shown = json.loads(Path(client.download_artifacts(run.info.run_id, "captions.json")).read_text())
    assert shown == {"columns": ["clip", "caption"], "data": [["a", 'a "dog" | $x$']]}
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": "captions.json", "type": "table"}]
    read = [(one.dataset.name, one.dataset.digest, one.tags[0].value) for one in run.inputs.dataset_inputs]
    assert sorted(read) == [("one", "c" * 8, "test"), ("one frames", "f" * 8, "features")]


def test_pictures_are_replaced_not_added_to(tracker: MlflowTracker, client: Any, home: Home, tmp_path: Path) -> None:
    done, _ = finished(home, "gallery")
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(tmp_path / "clip.png")
    whole = of_record(done, home)

    def ending(count: int) -> Ending:
        return Ending("finished", [], {}, {}, pictures={"clips": [tmp_path / "clip.png"] * count})

    for count in (2, 1):
        assert write(tracker, Entry(whole.run, f"mark {count}", lambda count=count: ending(count)))  # type: ignore[misc]
    run = run_with(client, "gallery", done.key)
    images = [item.path for item in client.list_artifacts(run.info.run_id, "images") if item.path.endswith(".png")]
    assert len(images) == 1 and images[0].startswith("images/clips+step+0")


def test_the_same_key_is_taken_up_again(tracker: MlflowTracker, client: Any, home: Home) -> None:
    failed = record("failed", dataset="two")
    folder = cell_folder(home.results, failed)
    (folder / "work").mkdir(parents=True)
    (folder / "work" / "log.txt").write_text("Traceback\n")
    begin(tracker, failed)
    tracker.metrics(failed.key, points(rows([3.0, 2.0])))
    write(tracker, of_record(failed, home))
    run = run_with(client, "two", failed.key)
    assert (run.info.status, run.data.tags["bench.state"]) == ("FAILED", "failed")
    assert run.data.tags["bench.failure"] == "fit: RuntimeError: boom"
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["log.txt"]

    again = MlflowTracker(tracker.uri, home)  # as another command would
    assert begin(again, failed)
    assert "bench.record" not in run_with(client, "two", failed.key).data.tags, "not whole while it runs"
    again.metrics(failed.key, points(rows([3.0, 2.0, 1.0])))  # a resumed cell tells its first epochs once more
    write(again, of_record(record(dataset="two"), home))
    found = run_with(client, "two", failed.key)
    assert (found.info.run_id, found.info.status) == (run.info.run_id, "FINISHED")
    assert "bench.failure" not in found.data.tags
    assert steps(client, found, "base/loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert not client.list_artifacts(found.info.run_id), "the log was that of the failure"


def test_what_a_killed_driver_left_is_mended(tracker: MlflowTracker, client: Any, home: Home) -> None:
    """Closed as killed; and written to its end where the cell had its record."""
    done, _ = finished(home, "three")
    others = [record("failed", dataset="three", seed=seed) for seed in (1, 2, 3)]
    for one in (done, *others):
        begin(MlflowTracker(tracker.uri, home), one)
    tag = run_with(client, "three", done.key).data.tags["bench.process"]
    owners = (own(tag, DEAD, "12"), own(tag, DEAD, "12"), own(tag, os.getpid(), "1"), "elsewhere 1 1")
    for one, owner in zip((done, *others), owners, strict=True):
        client.set_tag(run_with(client, "three", one.key).info.run_id, "bench.process", owner)
    brought = bring_up_to_date(MlflowTracker(tracker.uri, home), "three", [of_record(done, home)])
    assert brought == {"written": 1}
    runs = [run_with(client, "three", one.key) for one in (done, *others)]
    assert [run.info.status for run in runs] == ["FINISHED", "KILLED", "KILLED", "RUNNING"], (
        "the last is on another machine"
    )
    assert runs[1].data.tags["bench.state"] == "killed"
    brought = bring_up_to_date(MlflowTracker(tracker.uri, home), "three", [of_record(done, home)])
    assert brought == {"kept": 1}


def test_a_process_that_ended_is_not_alive_though_its_parent_has_not_asked() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    born = start_time(child.pid)
    assert still_runs(child.pid, born)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays in the table
    assert not still_runs(child.pid, born)
    child.wait()
    assert not still_runs(child.pid, born)


@pytest.fixture
def living() -> Iterator[subprocess.Popen[bytes]]:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield other
    other.kill()
    other.wait()


def test_a_cell_of_another_living_command(
    tracker: MlflowTracker, client: Any, home: Home, living: subprocess.Popen[bytes]
) -> None:
    """Its run stays that command's as long as it lives."""
    done, _ = finished(home, "four")
    begin(MlflowTracker(tracker.uri, home), done)
    run, entry = run_with(client, "four", done.key), of_record(done, home)
    theirs = own(run.data.tags["bench.process"], living.pid, start_time(living.pid))
    client.set_tag(run.info.run_id, "bench.process", theirs)
    assert not begin(MlflowTracker(tracker.uri, home), done)
    assert bring_up_to_date(MlflowTracker(tracker.uri, home), "four", [entry]) == {"busy": 1}
    living.kill()
    living.wait()
    assert bring_up_to_date(MlflowTracker(tracker.uri, home), "four", [entry]) == {"written": 1}
    assert run_with(client, "four", done.key).info.status == "FINISHED"


def test_a_cell_that_another_command_ended_is_written_by_the_one_that_has_its_run(
    tracker: MlflowTracker, client: Any, home: Home
) -> None:
    """It began the run first, and waited in vain for the cell."""
    done = record(dataset="eight")
    told = Tracking({"MLflow": lambda: MlflowTracker(tracker.uri, home)}, "eight", home, pytest.fail)
    told.start(lambda: run_of(done.key, done.config))
    write_record(cell_folder(home.results, done), done)  # by the other
    told.close()
    assert run_with(client, "eight", done.key).info.status == "FINISHED"


def test_of_two_commands_that_begin_a_cell_at_once_one_run_stays(
    tracker: MlflowTracker, client: Any, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one looked before the run was there, as on a server that two folders write to."""
    twin, _ = finished(home, "five")
    entry = of_record(twin, home)
    for _ in range(2):
        one = MlflowTracker(tracker.uri, home)
        monkeypatch.setattr(one._client, "search_runs", lambda *asked: [])
        assert write(one, entry)
    assert len(runs_of(client, "five")) == 2
    brought = bring_up_to_date(MlflowTracker(tracker.uri, home), "five", [entry])
    assert [run.info.status for run in runs_of(client, "five").values()] == ["FINISHED"]
    assert brought == {"kept": 1}


def test_seeds_share_a_label_and_a_colour(tracker: MlflowTracker, client: Any) -> None:
    """Other settings, and other methods, have others."""
    asked = [
        config("recnet", "local", seed, dataset="six", settings={"width": 512, "reconstruction_weight": weight})
        for seed, weight in ((0, 0.1), (1, 0.1), (0, 0.2))
    ]
    cells = [Record.model_validate({"schema": 1, "key": "0" * 16, "state": "unscored", "config": one}) for one in asked]
    for number, cell in enumerate(cells):
        run = run_of(f"{number:016x}", cell.config)
        tracker.start(run)
        tracker.parameters(run)
    tracker.close("six")
    runs = [run_with(client, "six", f"{number:016x}") for number in range(3)]
    assert runs[0].data.params["λ"] == "0.1", "at its default too"
    labels = [run.data.params["label"] for run in runs]
    assert labels[0] == labels[1] != labels[2] and "λ=0.2" in labels[2]
    assert [run.info.run_name for run in runs][:2] == [f"{labels[0]} s0", f"{labels[0]} s1"]
    colours = [run.data.tags["mlflow.runColor"] for run in runs]
    assert colours[0] == colours[1] != colours[2]


def test_no_two_rows_that_were_ever_run_have_one_label() -> None:
    """An idea and its control, another order of weights, other numbers: curves of one label are drawn as one mean."""
    untold = {*UNKEYED, "method_digest", "engine", "captions_digest", "folds"}  # of the code, the files, the split rule
    rows: dict[tuple[str, str], set[str]] = {}
    for one in all_records(ROOT / "results"):
        if one.external is None:
            rest = {name: value for name, value in one.config.items() if name not in untold}
            rows.setdefault((one.dataset, label(one.config)), set()).add(json.dumps(rest, sort_keys=True))
    assert len(rows) > 100
    assert [name for name, found in rows.items() if len(found) > 1] == []
    usual = config("salstm", "rl")
    for name, value in (("rewards", False), ("precision", "bfloat16"), ("decay", 0.5)):
        changed = {**usual, "train": {**usual["train"], name: value}}
        assert label(changed) != label(usual) and f"{name}={value}" in label(changed)
    again = {**usual, "schedule": [{"captions": 64, "settings": {}, "train": {"learning_rate": 0.001}}]}
    paper = {**usual, "splits": "paper"}
    assert len({label(one) for one in (usual, again, paper, {**paper, "protocol": "paper"})}) == 4


def test_what_was_asked_for_stands_in_the_label_and_what_is_usual_does_not(tmp_path: Path) -> None:
    def asked(*words: str) -> dict[str, Any]:
        return requested(parse([*words, "dataset=shapes", "streams=frames"]), Home(tmp_path))[0].config

    assert label(asked("methods=glrg:dxe_b2")) == "glrg:dxe_b2", (
        "epochs that the paper prints are usual under its protocol"
    )
    assert label(asked("methods=glrg:dxe_b2", "train.epochs=100")) == "glrg:dxe_b2 epochs=100"
    lent = [
        asked("methods=salstm", "loss=information", *more) for more in ((), ["hail.lambda=0.1"], ["hail.lambda=0.9"])
    ]
    assert [label(one) for one in lent] == [
        "salstm loss=information",
        "salstm loss=information hail.λ=0.1",
        "salstm loss=information hail.λ=0.9",
    ]
    assert [parameters(one).get("hail.λ") for one in lent] == [None, "0.1", "0.9"]


def test_trials_are_flat_and_marked(tracker: MlflowTracker, client: Any, home: Home) -> None:
    base = config("recnet", "local", dataset="search", settings={"width": 512, "reconstruction_weight": 0.1})
    trials = [
        Trial(number=number, point={"reconstruction_weight": weight, "train.learning_rate": 1e-3}, key=f"{number:016x}",
              state=state, value=value, seconds=10.0, curve=[(100, 20.0), (200, value)], message="boom" * (state == "failed"))
        for number, (weight, state, value) in enumerate([(0.1, "completed", 30.0), (0.2, "stopped", 31.0), (0.3, "failed", 9.0)])
    ]  # fmt: skip
    space = {"reconstruction_weight": [0.1, 0.2, 0.3], "train.learning_rate": [1e-3]}
    report = Report(row="recnet:local", how={}, space=space, config=base, budget=200, trials=trials, chosen=0)
    path = home.results / "tuning" / "search" / "recnet" / f"local-{'d' * 16}.json"
    killed = trial_run("f" * 16, {**base, "tuning": "d" * 16}, {"reconstruction_weight": 0.4}, space)
    tracker.start(killed)
    bring_up_to_date(tracker, "search", of_report(report, path, home))
    report.chosen = 1
    brought = bring_up_to_date(tracker, "search", of_report(report, path, home))
    tracker.close("search")
    assert brought == {"written": 2, "kept": 1}, "the one that is chosen now, and the one that was before"
    runs = [run_with(client, "search", f"{number:016x}") for number in range(3)]
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED", "FAILED"]
    assert [run.data.tags["bench.state"] for run in runs] == ["completed", "stopped", "failed"]
    assert [run.data.tags["chosen"] for run in runs] == ["no", "yes", "no"]
    assert [run.info.run_name for run in runs][1] == "λ=0.2 learning_rate=0.001"
    assert {run.data.tags["search"] for run in runs} == {"recnet λ learning_rate dddddd"}
    assert {run.data.tags["bench.kind"] for run in runs} == {"trial"}
    assert (runs[1].data.params["λ"], runs[1].data.params["train.learning_rate"]) == ("0.2", "0.001")
    assert runs[1].data.metrics["best/val_cider"] == 31.0
    assert steps(client, runs[1], "val/cider") == [(100, 20.0), (200, 31.0)]
    assert run_with(client, "search", "f" * 16).info.status == "KILLED"
    tags = client.get_experiment_by_name("bench/search").tags
    (view,) = [json.loads(value) for name, value in tags.items() if name.startswith("mlflow.sharedViewState.search-")]
    state = json.loads(view["state"])
    assert state["searchFilter"] == "tags.`search` = 'recnet λ learning_rate dddddd'"
    found = client.search_runs([client.get_experiment_by_name("bench/search").experiment_id], state["searchFilter"])
    assert len(found) == 4


def test_trials_of_other_searches_and_metrics_are_told_apart(home: Home) -> None:
    """Two searches of one row, of which one chooses by another metric; printed is what the paper prints for the variant."""
    base = config("recnet", "global", dataset="search", settings={"width": 512, "reconstruction_weight": 0.1})
    trial = Trial(
        number=0, point={"reconstruction_weight": 0.2}, key="a" * 16, state="completed", value=21.5, curve=[(9, 21.5)]
    )
    made = []
    for digest, how in (("d" * 16, {}), ("e" * 16, {"metric": "bleu4"})):
        report = Report(row="recnet:global", how=how, space={"reconstruction_weight": [0.1, 0.2]}, config=base, budget=200,
                        trials=[trial], chosen=0)  # fmt: skip
        (entry,) = of_report(report, home.results / "tuning" / "search" / "recnet" / f"global-{digest}.json", home)
        made.append((entry.run, entry.ending()))
    (run, ending), (other, by_bleu) = made
    assert run.tags["search"] != other.tags["search"] and run.tags["printed"] == "yes", (
        "λ=0.2 of table 6, not the default"
    )
    assert (list(ending.values), list(by_bleu.values)) == (["best/val_cider"], ["best/val_bleu4"])
    assert ({point.name for point in ending.points}, {point.name for point in by_bleu.points}) == (
        {"val/cider"},
        {"val/bleu4"},
    )
    row: Row = {"phase": "base", "epoch": 1, "captions": 9, "seconds": 1.0, "name": "val_bleu4_tokens", "value": 3.0}
    assert [point.name for point in points([row])] == ["base/val_bleu4_tokens", "val/bleu4"]


def test_an_unscored_cell_is_finished_but_says_so(tracker: MlflowTracker, client: Any, home: Home) -> None:
    waiting = record("unscored", dataset="three", seed=5)
    write(tracker, of_record(waiting, home))
    run = run_with(client, "three", waiting.key)
    assert (run.info.status, run.data.tags["bench.state"]) == ("FINISHED", "unscored")
    assert not [name for name in run.data.metrics if name.startswith("test/")]


def test_scores_of_validation_clips_are_no_part_of_the_curve(tracker: MlflowTracker, client: Any, home: Home) -> None:
    done = record(dataset="three", seed=6, split="val")
    write(tracker, of_record(done, home))
    run = run_with(client, "three", done.key)
    assert "val/cider" not in run.data.metrics and run.data.metrics["scored_val/cider"] == 25.0


def test_many_settings_and_long_values_fit(tracker: MlflowTracker, client: Any) -> None:
    settings = {f"setting_{number}": number for number in range(150)} | {
        "note": "x" * 9000,
        "grid": [1, 2],
        "none": None,
    }
    run = run_of("e" * 16, config(dataset="three", seed=9, settings=settings))
    tracker.start(run)
    tracker.parameters(run)
    tracker.metrics(run.key, points(rows([float(number) for number in range(600)])))
    parameters = run_with(client, "three", "e" * 16).data.params
    assert parameters["salstm.setting_149"] == "149"
    assert parameters["salstm.grid"] == "[1, 2]" and "salstm.none" not in parameters
    assert parameters["salstm.note"].startswith("xxx")
    assert len(steps(client, run_with(client, "three", "e" * 16), "val/cider")) == 600


def test_a_deleted_experiment_comes_back(tracker: MlflowTracker, client: Any, home: Home) -> None:
    begin(tracker, record(dataset="seven"))
    client.delete_experiment(client.get_experiment_by_name("bench/seven").experiment_id)
    begin(MlflowTracker(tracker.uri, home), record(dataset="seven", seed=1))
    assert client.get_experiment_by_name("bench/seven").lifecycle_stage == "active"


def test_runs_of_the_nested_layout_make_room(tracker: MlflowTracker, client: Any, home: Home) -> None:
    """Parents go, cells with a record are written anew, others stay out of sight of the views."""
    done, _ = finished(home, "nested")
    experiment = client.create_experiment(
        "bench/nested", artifact_location=(home.work / "mlartifacts" / "nested").as_uri()
    )
    parent = client.create_run(experiment, tags={"bench.kind": "records"}, run_name="records recnet").info.run_id
    for key in (done.key, "9" * 16):
        tags = {"bench.kind": "cell", "bench.key": key, "mlflow.parentRunId": parent, "bench.record": "f" * 16}
        run = client.create_run(experiment, tags=tags, run_name="recnet:local seed 0").info.run_id
        client.log_param(run, "method", "recnet")
        client.log_metric(run, "ledger/captions", 1.0)
        client.set_terminated(run)
    again = MlflowTracker(tracker.uri, home)
    brought = bring_up_to_date(again, "nested", [of_record(done, home)])
    again.close("nested")
    assert brought["written"] == 1
    runs = {run.data.tags["bench.key"]: run for run in runs_of(client, "nested").values()}
    assert set(runs) == {done.key, "9" * 16}
    assert runs[done.key].data.metrics["test/cider"] == 25.0 and "ledger/captions" not in runs[done.key].data.metrics
    view = json.loads(client.get_experiment(experiment).tags["mlflow.sharedViewState.papers"])
    seen = client.search_runs([experiment], json.loads(view["state"])["searchFilter"])
    assert [run.data.tags["bench.key"] for run in seen] == [done.key]
    assert "mlflow.parentRunId" not in runs["9" * 16].data.tags


def test_a_relative_database_lies_in_the_home(home: Home) -> None:
    assert absolute_uri("sqlite:///runs.db", home) == f"sqlite:///{home.root}/runs.db"
    assert absolute_uri(home.mlflow_uri, home) == home.mlflow_uri
    assert absolute_uri("http://127.0.0.1:5000", home) == "http://127.0.0.1:5000"


def test_nothing_is_reported_to_anybody() -> None:
    """MLflow's own reporter does not even start where bench imports it."""
    code = "import bench.tracking.mlflow_runs; from mlflow.telemetry import get_telemetry_client; print(get_telemetry_client())"
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
    settings = {
        "width": 512,
        "reconstruction_weight": 0.1,
        "embedding": 468,
        "attention": 256,
        "dropout": 0.5,
        "normalise": None,
    }
    found = parameters(config("recnet", "local", split="val", settings=settings, **groups))
    assert set(found) == {
        *("method", "variant", "protocol", "dataset", "seed", "split", "streams", "λ"),
        *("train.epochs", "train.captions", "train.learning_rate", "train.optimizer", "search.beam", "model.width"),
    }


def test_letters_stand_at_their_defaults_too() -> None:
    """Also a setting that came after the first records, which configurations leave out there."""
    assert parameters(config("vre", "full", settings={"refocus_weight": 0.03}))["β"] == "0.03"
    found = parameters(config("hail", "ha_il", settings={"information_weight": 0.5, "relevance_exponent": 2.0}))
    assert (found["λ"], found["γ"]) == ("0.5", "2.0") and "hail.information_weight" not in found


def wandb_lines(path: Path) -> Iterator[Any]:
    """The records of a file of Weights & Biases, which lie in blocks of 32 KiB as in LevelDB's logs."""
    from wandb.proto.wandb_internal_pb2 import Record as Line

    data, at, part = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 2**15 - at % 2**15) < 7:
            at += left
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        part, at = part + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield Line.FromString(part)
            part = b""


def test_weights_and_biases_is_told_by_the_same_hooks(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, with the real package: what it wrote is read back from its own file."""
    if importlib.util.find_spec("wandb") is None:
        pytest.skip('no wandb: pip install "captionbench[wandb]"')
    monkeypatch.setenv("WANDB_MODE", "offline")
    from bench.tracking.wandb_runs import WandbTracker

    done, _ = finished(home, "offline")
    tracker, entry = WandbTracker("captions", home), of_record(done, home)
    assert tracker.start(entry.run)
    tracker.parameters(entry.run)
    tracker.metrics(done.key, points(rows([3.0, 2.0])))
    tracker.metrics(done.key, points(rows([3.0, 2.0])))  # as after a resume
    assert write(tracker, entry)
    assert tracker.shown("offline", {}) is None
    tracker.close("offline")
    (path,) = (home.work / "wandb").glob("wandb/offline-run-*/*.wandb")
    lines = list(wandb_lines(path))
    history = [
        {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in line.history.item}
        for line in lines
        if line.WhichOneof("record_type") == "history"
    ]
    curve = [(row["captions read"], row["val/cider"]) for row in history if "val/cider" in row]
    assert sorted(curve) == [(100, 3.0), (200, 2.0)]
    phases = [(row["epoch"], row["base/loss"]) for row in history if "base/loss" in row]
    assert sorted(phases) == [(1, 3.0), (2, 2.0)]
    summary = {item.key or ".".join(item.nested_key): item.value_json for line in lines for item in line.summary.update}
    assert json.loads(summary["test/cider"]) == 25.0
    (run,) = [line.run for line in lines if line.WhichOneof("record_type") == "run"]
    assert (run.run_id, run.run_group, run.display_name) == (done.key, "recnet", "recnet s0")
    assert [line.exit.exit_code for line in lines if line.WhichOneof("record_type") == "exit"] == [0]


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "runs.db").touch()
    tracker = MlflowTracker("sqlite:///runs.db", Home(tmp_path))
    assert tracker.datasets() == {}
    assert [path.name for path in tmp_path.glob("runs.db*")] == ["runs.db"]


def test_a_database_that_was_left_half_made_is_made_anew(tmp_path: Path) -> None:
    """As a command leaves it that is killed while MLflow makes its tables: MLflow itself can never open it again."""
    home = Home(tmp_path)
    path = home.work / "mlflow.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE experiments (experiment_id INTEGER)")
        database.commit()
    done, _ = finished(home, "half")
    tracker, entry = MlflowTracker(home.mlflow_uri, home), of_record(done, home)
    assert write(tracker, entry)
    tracker.close("half")
    assert {path.name for path in home.work.glob("mlflow.db*")} == {"mlflow.db", "mlflow.db.half"}
    (run,) = MlflowTracker(home.mlflow_uri, home)._client.search_runs([tracker._experiment("half")])
    assert run.info.status == "FINISHED"
