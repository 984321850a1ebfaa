"""`bench tune` as a user meets it: real searches by Ray Tune on rendered clips, killed and taken up again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import front
import pytest
from mlflow.tracking import MlflowClient
from pyarrow.fs import FileSelector

from bench.cell.job import Job
from bench.declare.registry import find_methods, read_definition
from bench.home import Home, data_folder
from bench.records.store import all_records
from bench.run.prepare import prepare
from bench.tuning.request import parse
from bench.tuning.storage import place
from bench.tuning.study import Report, read, studies
from bench.tuning.trial import curve_of, run_trial

pytestmark = pytest.mark.slow

Bench = Callable[..., tuple[int, str]]
SMALL = (
    "train.epochs=3",
    "train.captions=32",
    "model.width=12",
    "model.embedding=12",
    "model.attention=12",
    "subset=8/3/4",
    "streams=frames",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a data set of fifteen rendered clips."""
    folder = tmp_path_factory.mktemp("tune")
    shapes = (data_folder("datasets") / "shapes" / "dataset.yaml").read_text(encoding="utf-8")
    (folder / "few.yaml").write_text(
        re.sub(r"size: \[.*?\]", "size: [8, 3, 4]", shapes).replace("name: shapes", "name: few"), encoding="utf-8"
    )
    return folder


@pytest.fixture
def bench(home: Path, ray_session: None) -> Bench:
    """Give a command, with small models on few clips unless its words say otherwise; status, and what it prints."""

    def command(*words: str) -> tuple[int, str]:
        named = {word.partition("=")[0] for word in words}
        done = front.bench(home, *words, *(word for word in SMALL if word.partition("=")[0] not in named))
        return done.returncode, done.stdout + done.stderr

    return command


def reports(home: Path) -> list[Report]:
    return [read(path) for path in sorted(home.glob("results/tuning/*/*/*.json"))]


def test_a_grid_is_searched_and_the_best_trained_over_the_seeds(bench: Bench, home: Path) -> None:
    words = (
        "tune",
        "methods=recnet:local",
        f"dataset={home / 'few.yaml'}",
        "space.recnet.lambda=[0.0,0.3]",
        "seeds=[1,2]",
    )
    status, out = bench(*words)
    assert status == 0, out
    (report,) = reports(home)
    assert [trial.state for trial in report.trials] == ["completed", "completed"]
    assert all(len(trial.curve) == 4 for trial in report.trials), "epochs of both phases"  # 3 epochs of budget, halved
    best = report.best()
    assert best is not None and report.chosen == best.number
    assert all(trial.captions >= report.budget for trial in report.trials)
    records = all_records(Home(home).results)
    assert sorted(record.seed for record in records) == [1, 2]
    assert {record.config["settings"]["reconstruction_weight"] for record in records} == {
        best.point["reconstruction_weight"]
    }
    assert {record.split for record in records} == {"test"} and {record.state for record in records} == {"done"}
    page = (home / "leaderboards" / "tuning" / "few.md").read_text()
    assert f"validation CIDEr {best.value:.1f}" in page and ".svg)" in page
    runs = MlflowClient(Home(home).mlflow_uri).search_runs(["1"], "tags.`bench.kind` = 'trial'")
    assert [run.data.tags["bench.state"] for run in runs] == ["completed"] * 2
    scores = sorted(run.data.metrics["best/val_cider"] for run in runs)
    assert scores == sorted(round(trial.value or 0.0, 3) for trial in report.trials)
    (chosen,) = [run for run in runs if run.data.tags["chosen"] == "yes"]
    assert chosen.data.params["λ"] == str(best.point["reconstruction_weight"])
    before = {path: path.stat().st_mtime_ns for path in home.glob("results/**/*.json")}
    status, out = bench(*words)
    assert status == 0 and "started" not in out, out
    assert {path: path.stat().st_mtime_ns for path in home.glob("results/**/*.json")} == before


def test_killed_in_the_middle_it_goes_on_to_the_same_report(home: Path, bench: Bench) -> None:
    words = (
        "tune",
        "methods=salstm",
        f"dataset={home / 'few.yaml'}",
        "search=random",
        "trials=3",
        "space.salstm.train.learning_rate={min: 1e-4, max: 1e-2, log: true}",
    )
    command = [sys.executable, "-m", "bench", *words, *SMALL]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "BENCH_HOME": str(home)})
    folder, until = home / "results" / "tuning" / "few" / "salstm", time.monotonic() + 120
    while not any(read(path).trials for path in folder.glob("*.json")):
        assert time.monotonic() < until and driver.poll() is None
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    (path,) = folder.glob("*.json")
    interrupted = read(path)
    assert 1 <= len(interrupted.trials) < 3, "killed too late to see anything"
    status, out = bench(*words)
    assert status == 0, out
    report = read(path)
    assert [trial.number for trial in report.trials] == [0, 1, 2]
    assert report.trials[interrupted.trials[0].number] == interrupted.trials[0], "not tried again"
    path.unlink()
    for folder in home.glob(".bench/tune/*"):
        for cell in folder.glob("*/work"):
            for file in cell.iterdir():
                file.unlink()
    status, out = bench(*words)
    assert status == 0, out
    again = read(path)
    assert [(trial.point, trial.curve, trial.state) for trial in again.trials] == [
        (trial.point, trial.curve, trial.state) for trial in report.trials
    ]
    runs = MlflowClient(Home(home).mlflow_uri).search_runs(["1"], "params.method = 'salstm'")
    keys = [run.data.tags["bench.key"] for run in runs if run.data.tags["bench.kind"] == "trial"]
    assert sorted(keys) == sorted(trial.key for trial in again.trials), "one run for each trial, over three commands"
    assert not [run for run in runs if run.info.status == "RUNNING"]


def test_asha_stops_the_worse_half_and_optuna_proposes(home: Path, bench: Bench) -> None:
    status, out = bench(
        "tune",
        "methods=salstm",
        f"dataset={home / 'few.yaml'}",
        "search=optuna",
        "scheduler=asha",
        "trials=5",
        "train.epochs=8",
        "space.salstm.train.learning_rate={min: 1e-6, max: 1e-2, log: true}",
    )
    assert status == 0, out
    report = next(one for one in reports(home) if one.how["scheduler"] == "asha")
    assert len(report.trials) == 5 and len({str(trial.point) for trial in report.trials}) == 5
    states = [trial.state for trial in report.trials]
    assert "completed" in states and "stopped" in states, states
    stopped = next(trial for trial in report.trials if trial.state == "stopped")
    assert report.budget / 4 <= stopped.captions < report.budget


def test_a_trial_that_fails_is_told_and_the_others_stand_with_storage_in_a_bucket(
    home: Path, bench: Bench, bucket: str
) -> None:
    words = ("tune", "methods=salstm", f"dataset={home / 'few.yaml'}", f"storage={bucket}")
    status, out = bench(*words, "space.salstm.train.learning_rate=[1e-3,1e30]")
    assert status == 0, out
    report = next(one for one in reports(home) if one.space == {"train.learning_rate": [1e-3, 1e30]})
    assert [trial.state for trial in report.trials] == ["completed", "failed"]
    assert "lower train.learning_rate" in str(report.trials[1].message)
    assert report.chosen == 0
    files, path = place(bucket)
    kept = [Path(one.path) for one in files.get_file_info(FileSelector(path, recursive=True)) if one.is_file]
    assert [one for one in kept if one.name == "tuner.pkl"], "what Ray knows of the search"
    assert not [one for one in kept if one.suffix == ".pt"], "resume states of trials that ended"
    assert json.loads(next(home.glob("results/tuning/few/salstm/*.json")).read_text())["schema"] == 1


def test_a_trial_goes_on_from_its_storage_where_the_home_lost_its_state(home: Path, tmp_path: Path) -> None:
    class DiedError(Exception):
        """The machine, in the middle of a trial."""

    definition, told = read_definition(home / "few.yaml"), []

    def tell(values: dict[str, Any]) -> None:
        told.append(values["captions"])
        if len(told) == 2:
            raise DiedError

    prepare(definition, Home(home), (8, 3, 4), {"frames"})
    words = ["methods=salstm", f"dataset={home / 'few.yaml'}", "space.salstm.train.learning_rate=[1e-3]"]
    spec = parse([*words, *SMALL, f"storage={tmp_path / 'shared'}"])
    (study,) = studies(spec, Home(home), find_methods())
    assert study.points is not None
    job = Job.of(study.cell(study.points[0], Home(home)), Home(home))
    with pytest.raises(DiedError):
        run_trial(job, tell, study.resume_states)
    shutil.rmtree(job.folder)
    run_trial(job, tell, study.resume_states)
    gone_on = curve_of(Path(job.folder))
    assert told[2] > told[0], "the first epoch was not trained again"
    shutil.rmtree(job.folder)
    run_trial(job, lambda values: None)
    assert gone_on == curve_of(Path(job.folder)) and len(gone_on) == 3
