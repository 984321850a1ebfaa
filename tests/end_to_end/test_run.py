"""From captions to page in one command, in Ray workers, with MLflow; then again, and nothing is left to do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from front import Answer, bench

from bench.conformance.workplace import write_corpus
from bench.home import Home
from bench.records.store import all_records
from bench.tracking.mlflow_runs import MlflowTracker

SMALL = ["model.width=16", "model.embedding=12", "model.attention=8"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("home")
    write_corpus(place, ["frames", "actions", "objects"])
    return place


@pytest.fixture(scope="module")
def first(home: Path, ray_session: None) -> Answer:
    return bench(home, "run", "methods=salstm,recnet:global,glrg", "dataset=dataset.yaml", *SMALL)


def test_three_methods_end_in_scored_records(home: Path, first: Answer) -> None:
    assert first.returncode == 0, first.stdout[-1500:] + first.stderr[-1500:]
    records = all_records(Home(home).results)
    assert sorted(record.method for record in records) == ["glrg", "glrg", "recnet", "salstm"], (
        "glrg has a frames-only twin"
    )
    for record in records:
        assert record.state == "done"
        assert set(record.scores["test"]) == {"bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l", "cider"}
        assert record.ledger is not None and record.ledger.captions >= 0.9 * (record.ledger.budget or 0)
        assert record.selection is not None and record.selection.metric == "val_cider_tokens"


def test_cells_ran_in_worker_processes(home: Path, first: Answer) -> None:
    """The PID that each cell noted is neither this process nor the driver, and two cells ran side by side."""
    told = [json.loads(path.read_text()) for path in home.glob("results/*/*/*/work/progress.json")]
    assert len(told) == 4
    assert os.getpid() not in {one["pid"] for one in told}
    assert "\x1b[" not in first.stdout, "no escape codes off a terminal"


def test_page_and_tracking_know_the_cells(home: Path, first: Answer) -> None:
    page = (home / "leaderboards" / "tiny.md").read_text(encoding="utf-8")
    for record in all_records(Home(home).results):
        assert record.key in page
    client = MlflowTracker(Home(home).mlflow_uri, Home(home))._client
    found = [client.get_experiment_by_name(name) for name in ("bench/tiny", "tiny")]
    runs = client.search_runs([one.experiment_id for one in found if one])
    assert [run.info.status for run in runs] == ["FINISHED"] * 4, "one for each cell, and none above them"
    assert all({"val/cider", "train/loss", "train/xent"} <= run.data.metrics.keys() for run in runs)


def test_second_time_nothing_is_done(home: Path, first: Answer) -> None:
    before = {path: path.stat().st_mtime_ns for path in home.glob("results/**/record.json")}
    again = bench(home, "run", "methods=salstm,recnet:global,glrg", "dataset=dataset.yaml", *SMALL)
    assert again.returncode == 0
    assert "done before" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in home.glob("results/**/record.json")} == before
    check = bench(home, "leaderboard", "--check")
    assert check.returncode == 0, check.stdout + check.stderr


def test_own_predictions_score_the_same_from_outside(home: Path, first: Answer) -> None:
    (record,) = [record for record in all_records(Home(home).results) if record.method == "salstm"]
    predictions = home / "results" / "tiny" / "salstm" / record.key / "predictions.jsonl"
    done = bench(home, "evaluate", str(predictions), "dataset=dataset.yaml", "split=test", "as=again")
    assert done.returncode == 0, done.stderr
    (outside,) = [record for record in all_records(Home(home).results) if record.external]
    assert outside.scores == record.scores


def test_failed_cell_is_a_record_and_exit_status_1(home: Path, first: Answer) -> None:
    """A learning rate that blows the loss up fails one cell; the other one finishes."""
    done = bench(
        home,
        "run",
        "methods=mplstm",
        "dataset=dataset.yaml",
        "executor=inline",
        "mlflow=off",
        "train.learning_rate=1e30",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (record,) = [record for record in all_records(Home(home).results) if record.method == "mplstm"]
    assert record.state == "failed" and record.failure is not None
    assert "learning_rate" in record.failure.message
    page = (home / "leaderboards" / "tiny.md").read_text(encoding="utf-8")
    assert "FAILED" in page or "failed" in page


def test_another_metric_version_scores_again_and_trains_nothing(home: Path, first: Answer) -> None:
    path = next(home.glob("results/tiny/salstm/*/record.json"))
    scored = path.read_text(encoding="utf-8")
    path.write_text(scored.replace("impl:bench-1", "impl:bench-0"), encoding="utf-8")
    words = ["methods=salstm", "dataset=dataset.yaml", *SMALL]
    assert "scored by another version of bleu1" in bench(home, "plan", *words).stdout
    weights = (path.parent / "checkpoint.safetensors").stat().st_mtime_ns
    done = bench(home, "run", *words, "executor=inline", "mlflow=off")
    assert done.returncode == 0, done.stderr
    assert (path.parent / "checkpoint.safetensors").stat().st_mtime_ns == weights
    assert json.loads(path.read_text())["scores"] == json.loads(scored)["scores"]
