"""budget=converged as it is asked for and told: refusals, what a configuration names, which rows share a table, flags."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from test_shared_phases import numbers

from bench import BenchError
from bench.cli.main import main
from bench.declare.settings import Train
from bench.home import Home
from bench.plan.request import parse
from bench.records.curves import read_curves
from bench.records.schema import Record
from bench.records.store import all_records, cell_folder
from bench.reports.blocks import blocks

SMALL = ("model.width=8", "model.embedding=8", "model.attention=8", "train.epochs=1", "search.beam=1", "streams=frames")
DATASET = """
name: calm
captions: [{format: shapes}]
splits: official
streams: {frames: {}}
options: {seed: 3, size: [20, 100, 4], captions: 2}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    (tmp_path / "dataset.yaml").write_text(DATASET, encoding="utf-8")
    return tmp_path


def config(place: Path, *words: str) -> dict[str, Any]:
    """The configuration of one cell; the streams are not read."""
    from bench.plan.cells import requested

    (cell,) = requested(parse(["methods=salstm", f"dataset={place / 'dataset.yaml'}", *words]), Home(place))
    return cell.config


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train.patience=4"], "waits for 5 validations.*train.patience is 4"),
        (["train.patience=null"], "train.patience is None"),
        (["subset=20/99/4"], "data set calm has 99 of them.*subset=20/99/4.*100 or more"),
        (["protocol=paper"], "no paper's schedule"),
    ],
)
def test_what_cannot_tell_the_end_of_training_is_refused(place: Path, words: list[str], sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        config(place, "budget=converged", *words)


def test_a_configuration_names_the_rule_and_no_other_configuration_does(place: Path) -> None:
    young = {name for name, field in Train.model_fields.items() if "added" in field.metadata}
    assert not young & config(place)["train"].keys()
    named = config(place, "budget=converged")["train"]
    assert {name: named[name] for name in ("budget", "patience", "average")} == {
        "budget": "converged",
        "patience": 5,
        "average": 0.995,
    }
    assert config(place, "train.budget=converged", "train.patience=7")["train"]["patience"] == 7
    asked = DATASET + "train: {budget: converged, average: 0.9}\n"
    (place / "dataset.yaml").write_text(asked, encoding="utf-8")
    assert config(place)["train"]["average"] == 0.9 and config(place)["train"]["patience"] == 5


def test_a_record_tells_how_each_phase_ended_and_tables_do_not_mix_the_rules(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["methods=salstm", f"dataset={place / 'dataset.yaml'}", "executor=inline", "mlflow=off", *SMALL]
    assert main(["run", *words]) == 0
    assert main(["run", *words, "budget=converged"]) == 0
    records = all_records(place / "results")
    (capped,) = [record for record in records if record.config["train"].get("budget")]
    assert capped.endings == {"base": "capped"} and capped.capped
    assert len(blocks(records)) == 2
    page = (place / "leaderboards" / "calm.md").read_text(encoding="utf-8")
    assert page.count("capped seed 0") == 1
    (plain,) = [record for record in records if record is not capped]
    assert plain.endings is None and not plain.capped


@pytest.mark.parametrize(("first", "second"), [("salstm:rl", "salstm:xe"), ("salstm:xe", "salstm:rl")])
def test_a_recipe_that_is_the_start_of_another_is_trained_once(place: Path, first: str, second: str) -> None:
    words = [f"dataset={place / 'dataset.yaml'}", "executor=inline", "mlflow=off", "budget=converged", *SMALL]

    def run(row: str, *more: str) -> Record:
        assert main(["run", f"methods={row}", *words, *more]) == 0
        (made,) = [one for one in all_records(place / "results") if f"{one.method}:{one.variant}" == row]
        return made

    run(first)
    made = run(second)
    folder = cell_folder(place / "results", made)
    curves = numbers(read_curves(folder))
    assert made.provenance is not None and made.provenance.reused == ["base"]
    assert made.ledger is not None and made.ledger.reused_captions == (
        20 * 2 if second == "salstm:rl" else made.ledger.captions
    )
    shutil.rmtree(folder)
    alone = run(second, "reuse=false")
    assert alone.provenance is not None and alone.provenance.reused is None
    assert (alone.weights_sha256, alone.endings, alone.selection) == (made.weights_sha256, made.endings, made.selection)
    assert alone.scores == made.scores and numbers(read_curves(folder)) == curves


@pytest.mark.parametrize("row", ["salstm:rl", "recnet:local_rl", "glrg:dxe_b2", "glrg:dxe_b2 glrg.mode=official"])
def test_a_control_without_rewards_is_trained_without_them(place: Path, row: str) -> None:
    """Every method's policy gradient is marked as such: it has a declared length, and its control has no rewards in it."""
    name, *more = row.split()
    own = [one for one in SMALL if not (name.startswith("glrg") and one == "model.attention=8")]
    words = [f"methods={name}", *more, f"dataset={place / 'dataset.yaml'}", "executor=inline", "mlflow=off", *own]
    for rewards in ("true", "false"):
        asked = ["budget=converged", "train.reward_epochs=2", f"train.rewards={rewards}"]
        assert main(["run", *words, *asked]) == 0
    trained = {record.config["train"].get("rewards", True): record for record in all_records(place / "results")}
    assert len(trained) == 2
    for rewards, record in trained.items():
        curves = read_curves(cell_folder(place / "results", record))
        last = [one for one in curves if one["phase"] == curves[-1]["phase"]]
        assert ("reward" in {one["name"] for one in last}) is rewards
        assert len({one["epoch"] for one in last}) == 2
