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
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import front
import pytest
from mlflow.tracking import MlflowClient
from pyarrow.fs import FileSelector

from bench.cell.fit import Trainer
from bench.cell.inputs import budget_of
from bench.declare.registry import find_methods, read_definition
from bench.home import Home, data_folder
from bench.records.curves import SELECTION, read_curves
from bench.records.store import all_records
from bench.run.prepare import prepare
from bench.run.runner import Signals
from bench.tuning.request import parse
from bench.tuning.search import search
from bench.tuning.storage import place
from bench.tuning.study import Report, Study, Trial, load, read, studies
from bench.tuning.table import frame
from bench.tuning.trial import Task, curve_of, run_trial

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
        "space.recnet.lambda=[0.1,0.3]",
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


def asked(home: Path, *words: str) -> Study:
    """The one search of a command, whose streams are in the cache."""
    prepare(read_definition(home / "few.yaml"), Home(home), (8, 3, 4), {"frames"})
    spec = parse(
        [
            f"dataset={home / 'few.yaml'}",
            "mlflow=off",
            *words,
            *(word for word in SMALL if word.split("=")[0] not in str(words)),
        ]
    )
    (study,) = studies(spec, Home(home), find_methods())
    return study


def searched(study: Study, home: Path) -> Report:
    """The search alone, without the last stage and its scores."""
    report = load(study, Home(home), budget_of(study.base.config, Home(home)))
    with Signals() as signals:
        return search(study, report, Home(home), print, signals)


def trained(study: Study, trial: Trial, folder: Path, home: Path) -> list[tuple[int, float]]:
    """The validation curve of a trial that is trained anew in this process, its letters changed at the same captions."""
    (cell,) = study.cells(trial.schedule or [(0, trial.point)], Home(home))
    folder.mkdir()
    assert Trainer({**cell.config, "reuse": False}, folder, Home(home)).train() is not None
    return [(int(row["captions"]), row["value"]) for row in read_curves(folder) if row["name"] == SELECTION]


def killed_when(words: Sequence[str], home: Path, come: Callable[[], bool]) -> None:
    """Give a command in a process of its own, and kill it once something has come about."""
    command = [sys.executable, "-m", "bench", *words]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "BENCH_HOME": str(home)})
    until = time.monotonic() + 300
    while not come():
        assert time.monotonic() < until and driver.poll() is None
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()


def test_killed_in_the_middle_it_goes_on_to_the_same_report(home: Path, bench: Bench, tmp_path: Path) -> None:
    rates = "space.salstm.train.learning_rate={min: 1e-4, max: 1e-2, log: true}"
    words = ("tune", "methods=salstm", f"dataset={home / 'few.yaml'}", "search=random", "trials=3", rates)
    folder = home / "results" / "tuning" / "few" / "salstm"
    killed_when([*words, *SMALL], home, lambda: any(read(path).trials for path in folder.glob("*.json")))
    (path,) = folder.glob("*.json")
    interrupted = read(path)
    assert 1 <= len(interrupted.trials) < 3, "killed too late to see anything"
    status, out = bench(*words)
    assert status == 0, out
    report = read(path)
    assert [trial.number for trial in report.trials] == [0, 1, 2]
    assert report.trials[0].point == {"train.learning_rate": 5e-4}, "the first is the row's own"
    assert report.trials[interrupted.trials[0].number] == interrupted.trials[0], "not tried again"
    study = asked(home, *words[1:2], *words[3:])
    for trial in report.trials:
        assert trained(study, trial, tmp_path / str(trial.number), home) == trial.curve
    assert frame(folder)["cider"].tolist() == [trial.value for trial in report.trials]
    runs = MlflowClient(Home(home).mlflow_uri).search_runs(["1"], "params.method = 'salstm'")
    keys = [run.data.tags["bench.key"] for run in runs if run.data.tags["bench.kind"] == "trial"]
    assert sorted(keys) == sorted(trial.key for trial in report.trials), "one run for each trial, over two commands"
    assert not [run for run in runs if run.info.status == "RUNNING"]


def test_a_command_that_is_stopped_chooses_nothing_and_begins_no_other_search(home: Path) -> None:
    """Ray Tune would take Ctrl-C for the end of its trials alone."""
    words = ["tune", "methods=mplstm,salstm", f"dataset={home / 'few.yaml'}", "space.mplstm.train.learning_rate=[1e-3,1e-2]",
             "space.salstm.train.learning_rate=[1e-3,1e-2]", "train.epochs=400", "mlflow=off"]  # fmt: skip
    words += [word for word in SMALL if word.split("=")[0] not in str(words)]
    begun = set((home / ".bench" / "tune").glob("*/*/work/curves.csv"))
    driver = subprocess.Popen([sys.executable, "-m", "bench", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, env={**os.environ, "BENCH_HOME": str(home)})  # fmt: skip
    until = time.monotonic() + 300
    while not set((home / ".bench" / "tune").glob("*/*/work/curves.csv")) - begun:
        assert time.monotonic() < until and driver.poll() is None, driver.communicate()[0]
        time.sleep(0.05)
    driver.send_signal(signal.SIGINT)
    out, _ = driver.communicate(timeout=120)
    assert driver.returncode == 130 and "Stopped. The same command goes on" in out, out
    made = [read(path) for path in home.glob("results/tuning/few/mplstm/*.json")]
    assert made and all(report.chosen is None for report in made)
    assert {trial.state for report in made for trial in report.trials} == {"interrupted"}
    assert not list(home.glob("results/few/mplstm/*")), "no cell of a point that was not chosen"
    assert "salstm" not in out.partition("mplstm")[2], out


def test_a_population_that_is_killed_goes_on_as_a_whole_and_its_schedule_is_replayed(
    home: Path, bench: Bench, tmp_path: Path
) -> None:
    rates = "space.salstm.train.learning_rate={min: 1e-4, max: 1e-1, log: true}"
    more = ("scheduler=pbt", "search=random", "trials=3", "train.epochs=8", "tune_seed=3", rates)
    words = ("tune", "methods=salstm", f"dataset={home / 'few.yaml'}", "seeds=[3]", "mlflow=off", *more)
    small = [word for word in SMALL if not word.startswith("train.epochs")]
    study = asked(home, "methods=salstm", *more)
    states, path = study.states(Home(home)), study.path(Home(home))
    killed_when([*words, *small], home, lambda: len(list(states.glob("*/lineage.json"))) > 3)
    assert not path.exists(), "killed too late to see anything"
    kept = {folder.name for folder in states.iterdir()}
    status, out = bench(*words)
    assert status == 0, out
    report = read(path)
    assert [trial.state for trial in report.trials] == ["completed"] * 3 and not states.exists()
    changed = [trial for trial in report.trials if len(trial.schedule or []) > 1]
    assert changed and all(captions % 160 == 0 for trial in changed for captions, _ in trial.schedule or [])
    for trial in report.trials:
        assert trained(study, trial, tmp_path / str(trial.number), home) == trial.curve, "the schedule is all that acts"
    best = report.best()
    assert best is not None and best.number == report.chosen
    (record,) = [one for one in all_records(Home(home).results) if one.seed == 3]
    assert len(record.config.get("schedule", [])) == len(best.schedule or []) - 1
    rows = read_curves(home / "results" / "few" / "salstm" / record.key)
    assert [row["value"] for row in rows if row["name"] == SELECTION] == [score for _, score in best.curve]
    assert (
        'id="schedule-0-'
        in (home / "leaderboards" / "tuning" / "figures" / "few" / f"salstm-{path.stem}.svg").read_text()
    )
    assert kept, "what the killed command had left was taken up"


def test_asha_stops_the_worse_half_and_optuna_proposes(home: Path, ray_session: None) -> None:
    rates = "space.salstm.train.learning_rate={min: 1e-6, max: 1e-2, log: true}"
    study = asked(home, "methods=salstm", "search=optuna", "scheduler=asha", "trials=5", "train.epochs=8", rates)
    report = searched(study, home)
    assert len(report.trials) == 5 and len({str(trial.point) for trial in report.trials}) == 5
    assert report.trials[0].point == study.first
    states = [trial.state for trial in report.trials]
    assert "completed" in states and "stopped" in states, states
    stopped = next(trial for trial in report.trials if trial.state == "stopped")
    assert report.budget / 4 <= stopped.captions < report.budget


def test_hyperband_by_the_mean_of_two_seeds_and_another_metric(home: Path, ray_session: None) -> None:
    more = ("scheduler=hyperband", "seeds_per_trial=2", "metric=bleu4", "train.epochs=4")
    study = asked(home, "methods=recnet", *more, "space.recnet.lambda=[0.05,0.1,0.2,0.3,0.4,0.5]")
    report = searched(study, home)
    states = [trial.state for trial in report.trials]
    assert len(states) == 6 and "completed" in states and "stopped" in states, states
    for trial in report.trials:
        jobs = study.jobs([(0, trial.point)], Home(home), trial.number)
        assert [job.config["seed"] for job in jobs] == [0, 1]
        curves = [curve_of(Path(job.folder), "bleu4") for job in jobs]
        means = [(epochs[0][0], sum(score for _, score in epochs) / 2) for epochs in zip(*curves, strict=False)]
        assert trial.curve == means and trial.captions == 2 * means[-1][0]
    assert sum(trial.reused_captions for trial in report.trials) == 5 * report.budget, (
        "the first phase, once for each seed"
    )


def test_a_search_stops_at_its_limit_and_goes_on(home: Path, ray_session: None) -> None:
    words = ("methods=salstm", "train.epochs=60", "space.salstm.train.learning_rate=[5e-4,2e-3,4e-3]")
    report = searched(asked(home, *words, "time_limit=0.1"), home)
    assert {trial.state for trial in report.trials} <= {"completed", "interrupted"} and len(report.trials) < 3
    study = asked(home, *words)
    assert load(study, Home(home), 1).trials == report.trials, "the limit is no part of the search"
    report = searched(study, home)
    assert [trial.state for trial in report.trials] == ["completed"] * 3


def test_a_trial_that_fails_is_told_and_the_others_stand_with_storage_in_a_bucket(
    home: Path, ray_session: None, bucket: str
) -> None:
    study = asked(home, "methods=salstm", f"storage={bucket}", "space.salstm.train.learning_rate=[5e-4,1e30]")
    report = searched(study, home)
    assert [trial.state for trial in report.trials] == ["completed", "failed"]
    assert "lower train.learning_rate" in str(report.trials[1].message)
    assert report.chosen == 0
    files, path = place(bucket)
    kept = [Path(one.path) for one in files.get_file_info(FileSelector(path, recursive=True)) if one.is_file]
    assert [one for one in kept if one.name == "tuner.pkl"], "what Ray knows of the search"
    assert not [one for one in kept if one.suffix == ".pt"], "resume states of trials that ended"
    assert json.loads(study.path(Home(home)).read_text())["schema"] == 1


def test_a_trial_goes_on_from_its_storage_where_the_home_lost_its_state(home: Path, tmp_path: Path) -> None:
    class DiedError(Exception):
        """The machine, in the middle of a trial."""

    told: list[int] = []

    def tell(values: dict[str, Any], folder: Path | None) -> None:
        told.append(values["quarters"])
        if len(told) == 2:
            raise DiedError

    study = asked(home, "methods=salstm", "space.salstm.train.learning_rate=[1e-3]", f"storage={tmp_path / 'shared'}")
    task = Task(
        study.jobs([(0, {"train.learning_rate": 1e-3})], Home(home), 0), marked=True, copies=study.resume_states
    )
    folder = Path(task.jobs[0].folder)
    with pytest.raises(DiedError):
        run_trial(task, tell)
    shutil.rmtree(folder)
    began = time.time()
    run_trial(task, tell)
    gone_on = curve_of(folder)
    assert told == [1, 2, 1, 2, 3, 4]
    assert float(read_curves(folder)[0]["seconds"]) < time.time() - began + 60
    shutil.rmtree(folder)
    run_trial(replace(task, copies=None), lambda values, folder: None)
    assert gone_on == curve_of(folder) and len(gone_on) == 3
