"""`bench mlflow sync`: an empty database made again from the results folder, once and for all, in a real SQLite store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from record_factory import config, put, record
from servers import free_port

from bench.cli.main import main
from bench.home import Home
from bench.records.clip_scores import SCORES, write_scores
from bench.records.schema import Record
from bench.records.store import PREDICTIONS, Prediction, cell_folder, write_predictions, write_record
from bench.tracking.content import run_of
from bench.tracking.mlflow_runs import MlflowTracker
from bench.tuning.study import Report, Trial, save

FACTS = {"bench": "0.1.0", "started": "2026-11-21T13:00:00+00:00", "finished": "2026-11-21T13:10:00+00:00"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Home:
    """Two methods on two data sets, one cell failed and one captioned elsewhere, and a search of three trials."""
    home = Home(tmp_path_factory.mktemp("home"))
    home.work.mkdir()
    shutil.copy(mlflow_database, home.work)
    done = record(method="recnet", variant="local", made={"provenance": FACTS})
    outside = record(
        method="external", variant="mine", protocol="external", streams={}, made={"external": {"source": "mine.jsonl"}}
    )
    put(home.results, done, outside, record(dataset="other"), record("failed", seed=1))
    folder = cell_folder(home.results, done)
    write_predictions(folder / PREDICTIONS, [Prediction("a", "a dog"), Prediction("b", "a cat")])
    write_scores(folder / SCORES, ["a", "b"], {"cider": {"a": 0.5, "b": 0.25}})
    (folder / "curves.csv").write_text(
        "phase,epoch,captions,seconds,name,value\nbase,0,100,60.0,loss,3.5\nbase,1,200,120.0,loss,2.5\n"
    )
    trials = [
        Trial(number=number, point={"reconstruction_weight": 0.1 * number, "train.learning_rate": 1e-3}, key=f"{number:016x}",
              state=state, value=30.0 + number, seconds=10.0, curve=[(100, 20.0), (200, 30.0 + number)])
        for number, state in enumerate(("completed", "stopped", "failed"))
    ]  # fmt: skip
    report = Report(row="recnet:local", how={}, space={}, config=config("recnet", "local"), budget=200, trials=trials)
    save(report, home.results / "tuning" / "toy" / "recnet" / f"local-{'d' * 16}.json")
    return home


@pytest.fixture(autouse=True)
def here(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_HOME", str(home.root))
    monkeypatch.delenv("BENCH_DATA", raising=False)


@pytest.fixture(scope="module")
def client(home: Home) -> Any:
    return MlflowTracker(home.mlflow_uri, home)._client


def runs_of(client: Any, dataset: str) -> dict[str, Any]:
    """Runs of cells and trials by key; two of one key are a failure."""
    experiment = client.get_experiment_by_name(f"bench/{dataset}").experiment_id
    found = [run for run in client.search_runs([experiment]) if "bench.key" in run.data.tags]
    assert len({run.data.tags["bench.key"] for run in found}) == len(found)
    return {run.data.tags["bench.key"]: run for run in found}


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["mlflow", "sync", *words]) == 0
    return capsys.readouterr().out.splitlines()[-1]


def test_an_empty_database_is_filled_and_then_left_alone(
    home: Home, client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(capsys).startswith("MLflow runs: 7 written, 0 up to date;")
    toy, other = runs_of(client, "toy"), runs_of(client, "other")
    assert (len(toy), len(other)) == (6, 1)
    done = next(
        run for run in toy.values() if run.data.tags["bench.title"] == "recnet local" and "search" not in run.data.tags
    )
    assert done.data.metrics["test/cider"] == 25.0
    assert (done.info.end_time - done.info.start_time) / 60e3 == 10.0, "as long as the cell took"
    curve = client.get_metric_history(done.info.run_id, "train/loss")
    assert [(point.step, point.value, point.timestamp - done.info.start_time) for point in curve] == [
        (100, 3.5, 60_000),
        (200, 2.5, 120_000),
    ]
    table = json.loads(Path(client.download_artifacts(done.info.run_id, "captions.json")).read_text())
    assert table == {"columns": ["clip", "caption"], "data": [["a", "a dog"], ["b", "a cat"]]}
    assert not [run for run in toy.values() if "mlflow.parentRunId" in run.data.tags]
    kinds = sorted((run.data.tags["bench.kind"], run.data.tags["bench.state"], run.info.status) for run in toy.values())
    assert kinds == [
        ("cell", "done", "FINISHED"),
        ("cell", "done", "FINISHED"),
        ("cell", "failed", "FAILED"),
        ("trial", "completed", "FINISHED"),
        ("trial", "failed", "FAILED"),
        ("trial", "stopped", "FINISHED"),
    ]
    trial = toy[f"{1:016x}"]
    assert (trial.data.params["λ"], trial.data.params["train.learning_rate"]) == ("0.1", "0.001")
    assert trial.data.metrics["best/val_cider"] == 31.0
    values = [point.value for point in client.get_metric_history(trial.info.run_id, "val/cider")]
    assert values == [20.0, 31.0]

    before = {key: run.to_dictionary() for key, run in toy.items()}
    assert said(capsys).startswith("MLflow runs: 0 written, 7 up to date;")
    assert {key: run.to_dictionary() for key, run in runs_of(client, "toy").items()} == before


def test_what_changed_is_written_into_the_same_run(home: Home, client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A cell that was scored anew, and one whose run was left half-written."""
    said(capsys)
    runs = runs_of(client, "toy")
    changed = record(method="recnet", variant="local", made={"provenance": FACTS, "cider": 26.5})
    write_record(cell_folder(home.results, changed), changed)
    (failed,) = [run for run in runs.values() if run.data.tags["bench.kind"] == "cell" and run.info.status == "FAILED"]
    client.delete_tag(failed.info.run_id, "bench.record")
    assert said(capsys, "dataset=toy").startswith("MLflow runs: 2 written, 4 up to date;")
    after = runs_of(client, "toy")
    assert {key: run.info.run_id for key, run in after.items()} == {key: run.info.run_id for key, run in runs.items()}
    assert after[changed.key].data.metrics["test/cider"] == 26.5


def test_runs_that_a_killed_command_left_are_closed(
    home: Home, client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    said(capsys)
    begun = record("failed", dataset="without")  # it has no record
    MlflowTracker(home.mlflow_uri, home).start(run_of(begun.key, begun.config))
    (run,) = runs_of(client, "without").values()
    host = run.data.tags["bench.process"].split()[0]
    client.set_tag(run.info.run_id, "bench.process", f"{host} {2**22 + 1} 5")
    said(capsys)
    assert client.get_run(run.info.run_id).info.status == "KILLED"


def test_a_damaged_record_is_named_and_the_others_are_written(
    home: Home, client: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged: Record = record(seed=8)
    (path,) = put(home.results, damaged, record(seed=9))[:1]
    text = path.read_text()
    path.write_text(text.replace('"done"', '"dome"'))
    try:
        assert main(["mlflow", "sync"]) == 1
        told = capsys.readouterr()
        assert str(path) in told.err and "1 written" in told.out
        assert damaged.key not in runs_of(client, "toy")
    finally:
        path.write_text(text)


@pytest.mark.parametrize(
    "words, said",
    [
        (["mlflow=off"], "keeps no runs"),
        (["mlflow=folder/runs"], "keeps no runs in folders"),
        (["dataste=toy"], 'did you mean "dataset"'),
        (["dataset=tpy"], 'unknown data set "tpy"'),
        (["dataset=no/such.yaml"], "no/such.yaml"),
    ],
)
def test_mistakes_are_sentences(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["mlflow", "sync", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_broken_database_is_a_sentence(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs.db").write_text("no database, but long enough to be looked at " * 50)
    assert main(["mlflow", "sync", f"mlflow=sqlite:///{tmp_path}/runs.db"]) == 2
    assert "file is not a database" in capsys.readouterr().err


def test_the_interface_refuses_what_it_cannot_show(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ui", "mlflow=sqlite:///nope.db"]) == 2
    assert "there is no database" in capsys.readouterr().err and not (home.root / "nope.db").exists()
    assert main(["ui", "dataset=toi", f"port={free_port()}"]) == 2
    assert 'unknown data set with runs "toi"; allowed: other, toy' in capsys.readouterr().err
