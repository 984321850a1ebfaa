"""Studies from their declaration to the page of effects: real cells of a small corpus, real scores, the rule by hand."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats
from test_folds import world

from bench import BenchError
from bench.cli.main import main
from bench.declare.registry import find_methods
from bench.evaluation.sequential import Decision, levels
from bench.home import Home
from bench.plan.cells import cells
from bench.plan.request import Running
from bench.records.curves import read_curves
from bench.records.further import add_further, read_further
from bench.records.schema import Record
from bench.records.store import all_records, cell_folder, read_record
from bench.study import answers, declaration, effects, findings, in_full
from bench.study.declaration import studies

SHAPES = """
name: calm
captions: [{format: shapes}]
splits: official
streams: {frames: {}}
options: {seed: 3, size: [12, 4, 8], captions: 2}
"""
PAIR: dict[str, Any] = {
    "paper": "recnet",
    "question": "does learning help?",
    "idea": {"run": "salstm:xe"},
    "control": {"run": "salstm:xe", "train": {"learning_rate": 1e-6}},
    "streams": ["frames"],
    "differs": ["train.learning_rate"],
    "claimed": {"table": "table1", "idea": 9, "control": 7},
}
STUDY: dict[str, Any] = {
    "name": "tiny1",
    "looks": [2, 3],
    "margin": 2,
    "half_width": 0.001,
    "model": {"width": 24, "embedding": 24, "attention": 24},
    "train": {"epochs": 8, "captions": 4, "captions_per_clip": 2, "learning_rate": 0.02},
    "pairs": {"reconstructor": PAIR},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a corpus and a study of one pair; `declare` writes the study."""
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    monkeypatch.setattr(declaration, "data_folder", lambda kind: tmp_path / "datasets")
    (tmp_path / "datasets" / "calm").mkdir(parents=True)
    (tmp_path / "datasets" / "calm" / "dataset.yaml").write_text(SHAPES, encoding="utf-8")
    declare(tmp_path)
    return tmp_path


def declare(place: Path, pair: dict[str, Any] | None = None, **changes: Any) -> None:
    folder = place / "datasets" / "calm"
    content = {"dataset": str(folder / "dataset.yaml"), **STUDY, **changes}
    if pair:
        content["pairs"] = {"reconstructor": {**PAIR, **pair}}
    (folder / "study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def run(*words: str) -> int:
    return main(["study", "tiny1", "executor=inline", "mlflow=off", *words])


def test_a_study_of_seeds_from_its_first_cell_to_its_page(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--dry") == 0
    assert "not run yet" in capsys.readouterr().out
    assert run("cells=1") == 0  # one cell at a time: what is done is skipped
    assert len(list((place / "results").glob("*/*/*/record.json"))) == 1
    assert run() == 0
    home, (study, _) = Home(place), studies()["tiny1"]
    asked = answers.read(home, "tiny1")
    assert asked is not None
    seeds = len(asked.pairs["reconstructor"].idea)  # two are decided only if they are alike by chance
    assert seeds in (2, 3)
    scores = {
        side: [read_record(place / "results" / key / "record.json").scores["test"]["cider"] for key in keys]
        for side, keys in asked.pairs["reconstructor"].model_dump().items()
    }
    gains = np.subtract(scores["idea"], scores["control"])
    assert gains.std() > 0
    reach = stats.t.isf(levels((2, 3))[seeds - 2] / 2, seeds - 1) * gains.std(ddof=1) / seeds**0.5
    (row,) = [
        row for row in json.loads((place / "results/effects.json").read_text("utf-8")) if row["metric"] == "cider"
    ]
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(
        (gains.mean(), gains.mean() - reach, gains.mean() + reach), abs=1e-3
    )
    assert (row["claimed"], row["claimed_in"]) == (2.8, "recnet table1") and row["seeds"] == seeds and row["clips"] == 8
    assert row["ended"] and row["p_holm"] == pytest.approx(row["p"])
    assert [key.rpartition("/")[2] for key in asked.pairs["reconstructor"].idea] == row["keys"]["idea"]
    page = (place / "leaderboards" / "effects.md").read_text(encoding="utf-8")
    assert (
        f"{row['difference']:+.2f} ({row['low']:+.2f} .. {row['high']:+.2f})" in page
        and "+2.8 (recnet table1 on msrvtt)" in page
    )
    assert "](#study-tiny1), " in page and f", {seeds} seeds of 8 clips |" in page
    assert "Corpus calm (rendered clips; each cell trains on 12), looks after 2, 3 seeds" in page
    assert f"0 of {2 * seeds}" in page  # none was to converge, and so none ended at a cap
    assert f"Its {2 * seeds} cells were trained on" in page, "outside a checkout no declaration has a date"
    assert "Of the 1 decided" not in page
    assert "The declarations set 1 printed gain beside them: 1 lies above every interval here." in page
    assert "effects" in (place / "leaderboards" / "README.md").read_text(encoding="utf-8")
    assert main(["leaderboard", "--check"]) == 0
    more = study.model_copy(update={"pairs": {**study.pairs, "waits": study.pairs["reconstructor"]}})
    given_up = more.model_copy(update={"given_up": "too dear."})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(findings, "studies", lambda: {"tiny1": (more, place)})
        patch.setattr(answers, "of_study", lambda home, study: asked)  # which would refuse the changed declaration
        ran, waits = findings.found(home)
    assert waits.p_holm is None and ran.p_holm == pytest.approx(min(2 * row["p"], 1.0)), "declared pairs count"
    ideas = [[row[0] for row in effects._matrix([ran, waits], home).rows]]
    ideas.append([row[0] for row in effects._matrix([replace(one, study=given_up) for one in (ran, waits)], home).rows])
    assert ideas == [["recnet: reconstructor", "recnet: waits"], ["recnet: reconstructor"]]
    _captions_drawn_by_both_sides_are_told(ran, asked.pairs["reconstructor"], home)
    _older_cells_and_those_that_began_apart_are_told(ran, asked, home)
    _sides_with_the_same_weights_are_told(ran)
    definition = place / "datasets" / "calm" / "dataset.yaml"
    definition.write_text(SHAPES + "train: {captions_per_clip: 1, clip: 1.5}\n", encoding="utf-8")
    assert run() == 0, "a pair that has ended needs no more cells, whatever has changed since"
    assert answers.read(home, "tiny1") == asked and len(all_records(place / "results")) == 2 * seeds
    definition.write_text(SHAPES, encoding="utf-8")
    declare(place, remarks="What was tried before.")
    assert run("--dry") == 0 and main(["leaderboard"]) == 0  # remarks may come later
    assert "What was tried before." in (place / "leaderboards" / "effects.md").read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["study"]) == 0
    ended = ["tiny1", "calm", "1", "of", "1", f"{2 * seeds}", "ended"]
    assert capsys.readouterr().out.splitlines()[1].split() == ended
    declare(place, given_up="its phases ended too early.")  # what has run stays, and nothing more is
    assert run("--dry") == 0 and main(["leaderboard"]) == 0
    page = (place / "leaderboards" / "effects.md").read_text(encoding="utf-8")
    assert "It was given up: its phases ended too early." in page and f"0 of {2 * seeds}" in page
    assert f" (study given up), {seeds} seeds" in page
    asked_for = {key for side in asked.pairs["reconstructor"].model_dump().values() for key in side}
    assert answers.given_up(home) == dict.fromkeys(asked_for, "tiny1")
    assert "Of study tiny1, which was given up" in (place / "leaderboards" / "calm.md").read_text(encoding="utf-8")
    answers.write(home, "tiny2", asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "studies", lambda: {**studies(), "tiny2": (study, place)})
        assert not answers.given_up(home), "another study rests on the same records"
    answers.path_of(home, "tiny2").unlink()
    told = json.loads((place / "results/effects.json").read_text("utf-8"))
    assert {row["given_up"] for row in told} == {"its phases ended too early."}
    capsys.readouterr()
    assert run() == 2
    assert "study tiny1 was given up: its phases ended too early. What it found: bench study tiny1 --dry" in (
        capsys.readouterr().err
    )
    declare(place, margin=3)
    for words in (
        ["study", "tiny1"],
        ["study", "tiny1", "--dry"],
        ["study"],
        ["leaderboard"],
        ["leaderboard", "--check"],
    ):
        assert main(words) == 2
        assert "study tiny1 was changed after its first cell" in capsys.readouterr().err
    assert study.seeds() == (2, 3)


def _captions_drawn_by_both_sides_are_told(ran: findings.Found, keys: answers.Keys, home: Home) -> None:
    assert in_full._drawn(ran, home) == ()
    assert main(["metrics", f"dataset={home.root / 'datasets/calm/dataset.yaml'}", "metrics=drawn"]) == 0
    folders = {side: [home.results / key for key in own] for side, own in keys}
    drawn = {side: [read_further(one)["drawn"]["value"] for one in found] for side, found in folders.items()}
    interval = stats.ttest_rel(drawn["idea"], drawn["control"]).confidence_interval()
    words = "".join(map(str, in_full._drawn(ran, home)))
    assert f"has {np.mean(drawn['idea']):.2f} with rewards and {np.mean(drawn['control']):.2f} without" in words
    assert f"({interval.low:+.2f} .. {interval.high:+.2f})" in words
    add_further(folders["idea"][0], {"drawn": {"value": 1.0, "signature": "of other references"}})
    assert "seeds 0" not in "".join(map(str, in_full._drawn(ran, home)))


def _older_cells_and_those_that_began_apart_are_told(ran: findings.Found, asked: answers.Asked, home: Home) -> None:
    began = [datetime.fromisoformat(one.provenance.started) for one in ran.answer.cells if one.provenance]  # type: ignore[arg-type]
    seeds, told = len(ran.answer.idea), {}
    for where, moment in {"before": min(began), "after": max(began) + timedelta(seconds=1)}.items():
        answers.write(home, "tiny1", asked.model_copy(update={"committed": moment.isoformat()}))
        told[where] = "".join(map(str, in_full._cost(ran.study, [ran], home)))
    answers.write(home, "tiny1", asked)
    assert f"Its {2 * seeds} cells (none older than the declaration) were trained" in told["before"]
    assert f"Its {2 * seeds} cells ({seeds} ideas, {seeds} controls older than the declaration)" in told["after"]
    assert in_full._begun_apart([ran], home) == [], "the rate of learning acts from the first phase on"
    later = replace(ran, pair=ran.pair.model_copy(update={"differs": ["train.rewards"]}))
    (said,) = in_full._begun_apart([later], home)
    sides = [{one.seed: one for one in side} for side in (ran.answer.idea, ran.answer.control)]
    losses = np.array([[_first_loss(home, side[seed]) for seed in range(seeds)] for side in sides])
    most = np.abs(losses[0] - losses[1]).max()
    assert (
        most > 0
        and f"alike, as its first loss shows: reconstructor in {seeds} of {seeds} seeds (by up to {most:.2g})."
        in str(said)
    )
    first, *rest = ran.answer.idea
    assert first.provenance is not None
    moved = first.model_copy(update={"provenance": first.provenance.model_copy(update={"cpu": "Another"})})
    (said,) = in_full._begun_apart([replace(later, answer=replace(ran.answer, idea=(moved, *rest)))], home)
    assert f"(by up to {most:.2g}, on Another and {first.provenance.cpu})" in str(said)
    alike = replace(ran.answer, control=ran.answer.idea)
    assert in_full._begun_apart([replace(later, answer=alike)], home) == []


def _first_loss(home: Home, record: Record) -> float:
    return next(row["value"] for row in read_curves(cell_folder(home.results, record)) if row["name"] == "loss")


def _sides_with_the_same_weights_are_told(ran: findings.Found) -> None:
    assert in_full._same_weights([ran]) == []
    (first, *rest), seeds = ran.answer.idea, len(ran.answer.idea)
    (other,) = [record for record in ran.answer.control if record.seed == first.seed]
    alike = first.model_copy(update={"weights_sha256": other.weights_sha256})
    (said,) = in_full._same_weights([replace(ran, answer=replace(ran.answer, idea=(alike, *rest)))])
    assert f"with the same weights: reconstructor in 1 of {seeds} seeds." in str(said)


@pytest.mark.parametrize(
    ("pair", "changes", "words"),
    [
        ({"differs": ["settings.attention"]}, {}, "also differ in train.learning_rate"),
        ({"differs": ["train.learning_rate", "phases"]}, {}, "do not differ in phases"),
        (
            {"control": {"run": "salstm:xe", "train": {"learning_rate": 1e-6, "captions": 7}}},
            {},
            "also differ in train.captions",
        ),
        ({"claimed": None}, {}, "either claimed, or unclaimed"),
        ({"claimed": {"table": "table1", "idea": 99, "control": 7}}, {}, "has rows 1 to 12, and none 99"),
        ({"claimed": {"table": "tabel1", "idea": 9, "control": 7}}, {}, 'unknown table "tabel1"; allowed: '),
        ({"paper": "recnett"}, {}, 'unknown paper "recnett"; allowed: '),
        ({"paper": "recnett", "claimed": None, "unclaimed": "not printed"}, {}, 'unknown paper "recnett"; allowed: '),
        ({"claimed": {"table": "table1", "idea": 9, "control": 9}}, {}, "names row 9 as idea and as control"),
        ({"streams": ["frames", "frames"]}, {}, "but names a stream once"),
        ({}, {"pairs": {"../x": PAIR}}, "calls a pair '../x': a name has small letters"),
        ({}, {"looks": [2, 5_000_000_000]}, "looks are rising numbers of seeds from 2 to 1,000"),
        ({"idea": {"run": "salstmm:xe"}}, {}, 'unknown method "salstmm"'),
        ({"idea": {"run": "salstm:xe", "settings": {"initail": "zeros"}}}, {}, "initail"),
        ({"control": {"run": "mplstm:xe", "train": {"learning_rate": 1e-6}}}, {}, "also differ in method"),
        ({}, {"margin": None}, "margin is None, but must be a number"),
        ({}, {"precision": "float16"}, "precision is 'float16', but must be one of float32, tf32, bfloat16"),
        (
            {},
            {"train": {"precision": "bfloat16"}},
            "has train.precision, but precision is one for all cells of a study",
        ),
        ({"train": {"precision": "bfloat16"}}, {}, "has pairs.reconstructor.train.precision, but precision is one"),
        (
            {"control": {"run": "salstm:xe", "train": {"learning_rate": 1e-6, "precision": "tf32"}}},
            {},
            "has pairs.reconstructor.control.train.precision, but",
        ),
        ({}, {"half_width": None}, "needs half_width with its looks"),
        ({}, {"looks": [3, 2]}, "rising numbers of seeds"),
        ({}, {"looks": []}, "needs looks, or splits"),
        ({}, {"train": {"budget": "converged", "patience": 2, "epochs": 2}}, "train.patience is 2"),
    ],
)
def test_declarations_that_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str], pair: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    declare(place, pair, **changes)
    for told in (["--dry"], []):  # before it is committed, and before its first cell
        assert run(*told) == 2
        assert words in capsys.readouterr().err
    assert not list((place / "results").rglob("*.json")) if (place / "results").is_dir() else True


def test_a_study_goes_on_with_the_cells_that_it_began_with(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a declaration leaves to the data set, the cards and the code belongs to what was declared."""
    assert run("cells=2") == 0
    definition = place / "datasets" / "calm" / "dataset.yaml"
    definition.write_text(SHAPES + "train: {captions_per_clip: 1, clip: 1.5}\n", encoding="utf-8")
    capsys.readouterr()
    assert run() == 2
    assert (
        "study tiny1: the cells of reconstructor are others now than those that it has run; changed since: train.clip. Give"
        in capsys.readouterr().err
    )
    definition.write_text(SHAPES, encoding="utf-8")
    assert run("cells=1") == 0


def test_a_setting_that_is_invented_later_changes_no_study(place: Path) -> None:
    class Younger(declaration.Study):
        invented: int = 7

    (study, path) = studies()["tiny1"]
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert Younger.model_validate(content).digest == study.digest
    assert Younger.model_validate(content | {"invented": 7}).digest != study.digest


def test_a_seed_that_failed_ends_the_looks_that_wait_for_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declare(place, looks=[2, 3, 4], margin=0.01)
    assert run("cells=4") == 0
    home, (study, _), entries = Home(place), studies()["tiny1"], find_methods()
    asked = answers.read(home, "tiny1")
    assert asked is not None
    decision = answers.answer(study, asked.pairs["reconstructor"], home).decision
    assert decision is not None and not decision.ended
    ideas, _ = declaration.requests(study, "reconstructor", Running(), entries, 3)
    *_, third = cells(ideas, home, entries)
    record = json.loads((place / "results" / asked.pairs["reconstructor"].idea[0] / "record.json").read_text("utf-8"))
    failure = {"stage": "fit", "type": "OSError", "message": "the disk was full", "log": None}
    record |= {"key": third.key, "config": third.config, "state": "failed", "failure": failure, "scores": {}}
    third.folder(home).mkdir(parents=True)
    (third.folder(home) / "record.json").write_text(json.dumps(record), encoding="utf-8")
    capsys.readouterr()
    assert run() == 1
    told = capsys.readouterr().out
    begun = re.findall(r"seed (\d): started", told)
    assert begun == ["2"], "the control of the third look, and no seed of the fourth"
    assert told.count("1 cell of reconstructor failed before, for which the pair waits; add --retry-failed") == 1
    assert run() == 1, "it still waits"


def test_a_declaration_is_not_held_to_a_command_that_ran_no_cell(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["study", "tiny1", "executor=inline", "mlflow=http://127.0.0.1:9"]) == 2
    assert "mlflow=http://127.0.0.1:9 does not answer" in capsys.readouterr().err
    home, (study, _) = Home(place), studies()["tiny1"]
    assert answers.read(home, "tiny1") is None
    answers.note(home, "tiny1", answers.begin(home, study, None), "reconstructor", answers.Keys(idea=["calm/salstm/0"]))
    declare(place, margin=3)  # as by a command that was stopped before its first cell
    changed, _ = studies()["tiny1"]
    assert answers.of_study(home, changed) is None
    again = answers.note(home, "tiny1", answers.begin(home, changed, None), "reconstructor", answers.Keys())
    assert again.declaration == changed.digest and not again.pairs["reconstructor"].idea
    (place / "results" / "calm" / "salstm" / "0").mkdir(parents=True)
    answers.note(home, "tiny1", again, "reconstructor", answers.Keys(idea=["calm/salstm/0"]))
    with pytest.raises(BenchError, match="was changed after its first cell"):
        answers.of_study(home, study)


def test_two_commands_at_one_study_lose_nothing_of_each_other(place: Path) -> None:
    home, (study, _) = Home(place), studies()["tiny1"]
    mine, others = (answers.begin(home, study, None) for _ in range(2))
    two, three = (
        answers.Keys(idea=["a", "b"], control=["c", "d"]),
        answers.Keys(idea=["a", "b", "e"], control=["c", "d", "f"]),
    )
    answers.note(home, "tiny1", others, "second", three)
    answers.note(home, "tiny1", mine, "first", two)
    found = answers.note(home, "tiny1", mine, "second", two)
    assert found == answers.read(home, "tiny1") and found.pairs == {"first": two, "second": three}
    assert answers.note(home, "tiny1", mine, "first", three).pairs["first"] == three


def test_a_withdrawn_pair_is_not_run_any_more(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    declare(place, {"withdrawn": "its sides are one method."})
    assert run() == 0
    assert re.search(r"^reconstructor +withdrawn +— +—$", capsys.readouterr().out, re.M)
    assert not (place / "results").exists() or not all_records(place / "results")
    assert run("pairs=[reconstructor]") == 2
    assert "reconstructor was withdrawn: its sides are one method." in capsys.readouterr().err
    assert main(["study"]) == 0
    assert "0 of 0" in capsys.readouterr().out


def test_a_record_that_tables_refuse_decides_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("cells=4") == 0
    home, (study, _) = Home(place), studies()["tiny1"]
    asked = answers.read(home, "tiny1")
    assert asked is not None
    path = place / "results" / asked.pairs["reconstructor"].idea[0] / "record.json"
    record = json.loads(path.read_text("utf-8"))
    record["scores"]["test"]["cider"] += 10
    path.write_text(json.dumps(record), encoding="utf-8")
    assert answers.answer(study, asked.pairs["reconstructor"], home).decision is None
    capsys.readouterr()
    assert main(["study", "tiny1", "--dry"]) == 1
    told = capsys.readouterr()
    assert re.search(r"^reconstructor +begun +— +3$", told.out, re.M)
    assert "clip_scores.csv beside it is" in told.err


def test_cells_of_another_processor_are_told_before_more_are_trained(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cells=1") == 0
    assert "note: cells" not in capsys.readouterr().out
    (path,) = (place / "results").glob("*/*/*/record.json")
    record = json.loads(path.read_text("utf-8"))
    record["provenance"]["cpu"] = "Another"
    path.write_text(json.dumps(record), encoding="utf-8")
    assert run("cells=1") == 0
    assert "note: cells of reconstructor were trained on Another, and this is " in capsys.readouterr().out


def test_a_question_may_be_put_better_later_and_both_wordings_are_shown(place: Path) -> None:
    (study, _) = studies()["tiny1"]
    declare(place, {"reworded": "does a higher rate help?"}, remarks="None.")
    again, _ = studies()["tiny1"]
    assert again.digest == study.digest and again.pairs["reconstructor"] != study.pairs["reconstructor"]
    one = findings.Found(
        again, "reconstructor", again.pairs["reconstructor"], answers.answer(again, answers.Keys(), Home(place)), None
    )
    assert in_full._question(one) == "does a higher rate help? (declared as: does learning help?)"
    declare(place, {"question": "does learning hurt?"})
    assert studies()["tiny1"][0].digest != study.digest


def test_of_a_study_of_seeds_on_a_users_corpus_the_page_tells_the_splits(place: Path) -> None:
    folder = place / "datasets" / "calm"
    world(folder, 12)
    content = yaml.safe_load((folder / "dataset.yaml").read_text(encoding="utf-8")) | {"splits": {"first": [16, 4, 4]}}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    (study, _) = studies()["tiny1"]
    assert in_full._clips(study, []) == "splits default"


def test_where_a_claim_lies_beside_the_interval(place: Path) -> None:
    (study, _) = studies()["tiny1"]  # whose claim is +2.8
    one = answers.answer(study, answers.Keys(), Home(place))
    said = []
    for low, high in ((-1, 2.7), (2.7, 2.9), (2.9, 3)):
        decision = Decision(3, (low + high) / 2, low, high, 0.5, "undecided", True)
        answer = replace(one, decision=decision)
        said.append(findings.Found(study, "reconstructor", study.pairs["reconstructor"], answer, 1.0).holds)
    assert said == ["above", "inside", "below"]
    nothing = findings.Found(study, "reconstructor", study.pairs["reconstructor"], one, None)
    assert nothing.holds == "" and nothing.claimed_over == "RecNetlocal over SA-LSTM (Inception-V4) on msrvtt"


def test_the_first_sentences_count_what_outlasts_a_correction(place: Path) -> None:
    (study, _) = studies()["tiny1"]  # whose claim is +2.8
    pair, bare = study.pairs["reconstructor"], answers.answer(study, answers.Keys(), Home(place))

    def found(outcome: Any, low: float, high: float, p: float, overlap: Any = None, **pair_of: Any) -> findings.Found:
        answer = replace(bare, decision=Decision(3, (low + high) / 2, low, high, p, outcome, True), overlap=overlap)
        return findings.Found(study, "reconstructor", pair.model_copy(update=pair_of), answer, p)

    pairs = [
        found("helps", 0.5, 2, 0.2, (-0.5, 3)),  # by its own interval alone
        found("helps", 1, 2, 0.01, (0.5, 3)),
        found("gains less", -1, 1.5, 0.9, (-2, 2.5)),  # 2 and more is in the wider interval
        found("gains less", -1, 1, 0.9, (-2, 1.9)),
        found("undecided", -5, 9, 0.9, (-9, 12)),
        found("hurts", -2, -1, 0.01, withdrawn="its sides are one method"),
    ]
    (said,) = effects._summary(pairs)
    assert said == effects.Paragraph(
        "5 comparisons have ended: 2 help, 2 gain less than the margin, 1 is undecided. Of the 2 that help or hurt by their own "
        "interval, 1 has p up to 0.05 once it is corrected for all pairs of the study. Of the 4 decided on folds 2 would "
        "not be decided so by the wider interval for training sets that overlap. The declarations set 1 printed gain beside "
        "them: 1 lies inside one."
    )
    assert [one.lost_with_overlap for one in pairs] == [True, False, True, False, False, False]
    assert in_full._question(pairs[-1]) == "does learning help? Withdrawn: its sides are one method"
    assert in_full._decisions(study, pairs[-1:]).rows[0][1] == "withdrawn"
    assert effects._matrix(pairs[-1:], Home(place)).rows == ()


def test_how_many_seeds_would_decide_what_is_undecided(place: Path) -> None:
    (study, _) = studies()["tiny1"]
    values = (3.0, -4.0, 5.0, -1.0)
    decision = Decision(4, 0.75, -9, 9, 0.9, "undecided", True)
    answer = replace(
        answers.answer(study, answers.Keys(), Home(place)), decision=decision, differences={"cider": values}
    )
    one = findings.Found(study, "reconstructor", study.pairs["reconstructor"], answer, 1.0)
    (said,) = in_full._undecided(study, [one])
    enough = next(n for n in range(2, 999) if stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5 <= 1)
    assert "interval of ± 1, which leaves out zero or the margin" in str(said)
    assert f"reconstructor some {enough} seeds." in str(said) and enough < 100
    decided = replace(answer, decision=replace(decision, outcome="helps"))
    assert in_full._undecided(study, [replace(one, answer=decided)]) == []


def test_seeds_of_a_study_and_unknown_studies(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("seeds=[0,1]") == 2
    assert "leave seeds= out" in capsys.readouterr().err
    assert main(["study", "tiny2"]) == 2
    assert "tiny1" in capsys.readouterr().err
    assert run("pairs=[reconstruktor]") == 2
    assert 'study tiny1: unknown pair "reconstruktor"; allowed: reconstructor; did you mean' in capsys.readouterr().err
    assert main(["study", "cells=2"]) == 2
    assert "name the study that is meant, one of tiny1" in capsys.readouterr().err
    assert main(["study"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["tiny1", "calm", "0", "of", "1", findings.NOTHING]
    assert run("--dry", "pairs=[reconstruktor]") == 2
    assert 'unknown pair "reconstruktor"' in capsys.readouterr().err
    assert run("--dry", "pairs=[reconstructor]") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["pair", "reconstructor"]
    assert main(["study", "tiny1", "tiny1"]) == 2
    assert "2 words where this command takes 1: 'tiny1', 'tiny1'" in capsys.readouterr().err
    assert not (place / "results").exists()


def test_the_study_of_the_documentation_can_be_declared() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "studies.md").read_text(encoding="utf-8")
    found = re.search(r"```yaml\n(.*?)```", page, re.S)
    assert found is not None
    study = declaration.Study.model_validate(yaml.safe_load(found[1]))
    assert study.seeds() == (10,)
    asked = [spec.methods for spec in declaration.requests(study, "reconstructor", Running(), find_methods(), 1)]
    assert asked == [["recnet:local"], ["recnet:no_reconstruction"]]


def test_of_the_pairs_of_a_study_only_those_asked_for_are_run(place: Path) -> None:
    declare(
        place,
        pairs={"first": PAIR, "second": {**PAIR, "control": {"run": "salstm:xe", "train": {"learning_rate": 1e-5}}}},
    )
    assert run("pairs=[second]", "cells=2") == 0
    asked = answers.read(Home(place), "tiny1")
    assert asked is not None and list(asked.pairs) == ["second"]
    done = {record.key for record in all_records(place / "results")}
    assert done and done <= {
        key.rpartition("/")[2] for side in ("idea", "control") for key in getattr(asked.pairs["second"], side)
    }


def test_a_declaration_in_the_checkout_is_committed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    study, path = next(iter(studies().values()))
    monkeypatch.setattr(declaration, "committed", lambda path: ("0" * 40, False))
    with pytest.raises(BenchError, match="is not committed as it stands"):
        declaration.commit_of(study, path)


def test_both_sides_of_a_pair_are_told_with_what_tells_them_apart() -> None:
    pairs = studies()["msrvtt1000_t1"][0].pairs
    told = {name: (pair.idea.label, pair.control.label) for name, pair in pairs.items()}
    assert told["information_loss_transformer"] == ("transformer:xe loss=information", "transformer:xe")
    rewarded = "transformer:rl reinforce_rate=0.0001"
    assert told["self_critical_transformer"] == (rewarded, f"{rewarded} train.rewards=False")


def test_an_idea_on_another_base_stands_beside_the_first_with_its_name(tmp_path: Path) -> None:
    """Two studies of one corpus, of which nothing has run: one row for an idea, one column for a corpus."""
    found = [studies()[name][0].model_copy(update={"given_up": ""}) for name in ("msrvtt1000_1", "msrvtt1000_t1")]
    asked = [(study, pair) for study in found for pair in study.pairs]
    pairs = [
        findings.Found(study, name, study.pairs[name], answers.answer(study, answers.Keys(), Home(tmp_path)), None)
        for study, name in asked
    ]
    table = effects._matrix(pairs, Home(tmp_path))
    assert [column.name for column in table.columns] == ["idea", "claimed gain", "msrvtt1000"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert len(rows) == len(table.rows)
    rows = {idea: (claims, *("".join(map(str, line)) for line in told)) for idea, (claims, *told) in rows.items()}
    none = "not run yet"
    assert rows["recnet: reconstructor"][1:] == (f"recnet: {none}; transformer: {none}",)
    assert rows["hail: information loss"][1:] == (f"salstm: {none}; s2vt: {none}; transformer: {none}",)
    assert (
        rows["hail: information loss"][0].count("transformer: ") == 1
        and "msrvtt1000" not in rows["hail: information loss"][0]
    )
    assert rows["recnet: reconstructor global"][1:] == (none,)
    assert rows["glrg: discrepant cross entropy"][1:] == (f"transformer: {none}",)


def test_a_claim_names_its_column_where_columns_differ(tmp_path: Path) -> None:
    found = studies()
    pairs = [
        findings.Found(study, name, study.pairs[name], answers.answer(study, answers.Keys(), Home(tmp_path)), None)
        for study in (found["msrvtt_glrg2"][0], found["msvd_glrg1"][0])
        for name in study.pairs
    ]
    claims = {row[0]: row[1] for row in effects._matrix(pairs, Home(tmp_path)).rows}
    assert (
        claims["glrg: boosting"] == "msrvtt_glrg: +5.6 (glrg table1 on msrvtt); msvd_glrg: +5.1 (glrg table1 on msvd)"
    )
    assert claims["glrg: discrepant reward"] == "+4.2 (glrg table5 on msrvtt)"


@pytest.fixture
def folded(place: Path) -> Iterator[Path]:
    folder = place / "datasets" / "calm"
    world(folder, 12, validation=4)
    changes = {"looks": [], "dataset": str(folder / "dataset.yaml")}
    declare(place, **changes)
    yield place


def test_a_study_of_folds_is_looked_at_once_with_the_fold_as_unit(
    folded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("cells=5") == 0
    begun = re.findall(r"seed (\d): started", capsys.readouterr().out)
    assert begun == [*"01201"], "whole pairs, and cells that share phases are not begun at once"
    waiting = json.loads((folded / "results" / "effects.json").read_text("utf-8"))  # one fold is lacking
    assert {(row["outcome"], row["difference"], row["folds"]) for row in waiting if row["metric"] == "cider"} == {
        ("begun", None, 3)
    }
    assert main(["study", "tiny1", "--dry"]) == 0
    assert re.search(r"^reconstructor +begun +— +5$", capsys.readouterr().out, re.M)
    begun_page = (folded / "leaderboards" / "effects.md").read_text(encoding="utf-8")
    assert "Corpus films (splits default), 3 folds, looked at once" in begun_page, "no number of clips is known yet"
    begun_with = answers.read(Home(folded), "tiny1")
    assert begun_with is not None
    row_of_idea = folded / "results" / begun_with.pairs["reconstructor"].idea[0]
    shutil.rmtree(row_of_idea)  # as a stop leaves it that comes after the idea's last cell
    assert run() == 0
    assert row_of_idea.exists()
    rows = {row["metric"]: row for row in json.loads((folded / "results" / "effects.json").read_text("utf-8"))}
    home, (study, _) = Home(folded), studies()["tiny1"]
    asked = answers.read(home, "tiny1")
    assert asked is not None
    sides = []
    for keys in (asked.pairs["reconstructor"].idea, asked.pairs["reconstructor"].control):
        folder = folded / "results" / keys[0]
        scores = {line.split(",")[0]: line.split(",")[-1] for line in _lines(folder / "clip_scores.csv")}
        fold_of = {line.split(",")[0]: int(line.split(",")[1]) for line in _lines(folder / "folds.csv")}
        sides.append([np.mean([float(v) for c, v in scores.items() if fold_of[c] == fold]) for fold in range(3)])
    head = (folder / "clip_scores.csv").read_text("utf-8").splitlines()[0]
    assert head.endswith(",cider")
    gains = np.subtract(*sides)
    assert gains.std() > 0
    low, high = stats.ttest_1samp(gains, 0).confidence_interval()
    row = rows["cider"]
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((gains.mean(), low, high), abs=1e-3)
    wide = 3**0.5 * (high - low) / 2  # 8 of 24 clips are tested, 12 trained on: 1/3 + 8/12 in place of 1/3
    assert row["overlap"] == pytest.approx([gains.mean() - wide, gains.mean() + wide], abs=1e-3)
    shown = (folded / "leaderboards" / "effects.md").read_text(encoding="utf-8")
    assert f" {row['overlap'][0]:+.2f} .. {row['overlap'][1]:+.2f} " in shown
    assert "(splits default; each cell trains on 12 clips)" in shown
    assert row["folds"] == 3 and row["seeds"] is None and row["clips"] == 24 and len(row["films"]) == 2
    assert set(rows) == {"cider", "bleu4", "meteor", "rouge_l"} and rows["meteor"]["outcome"] is None
    found = answers.answer(study, asked.pairs["reconstructor"], home)
    assert found.decision is not None and found.decision.ended and found.films is not None
    assert main(["metrics", f"dataset={folded / 'datasets/calm/dataset.yaml'}", "metrics=drawn"]) == 0
    drawn = [read_further(path.parent)["drawn"]["signature"] for path in (folded / "results").rglob("record.json")]
    assert sum("|n:24|" in one for one in drawn) == 2, "a row has its clips drawn by the method of their fold"
    assert len(drawn) == 8
    _damaged_folds_decide_nothing(folder, study, capsys)


def _damaged_folds_decide_nothing(folder: Path, study: declaration.Study, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "folds.csv"
    text = path.read_text(encoding="utf-8")
    head, first, *rest = text.splitlines()
    clip, fold, film = first.split(",")
    damaged = {
        "lists other clips than clip_scores.csv beside it: 1 missing": "\n".join([head, *rest]),
        "its folds are not numbered from 0 on": text.replace(f",{fold},", ",7,"),
        "has 2 folds, and its study 3": text.replace(",2,", ",1,"),
        "its films are not numbered from 0 on": "\n".join([head, f"{clip},{fold},-1", *rest]),
        "a clip stands there twice": "\n".join([head, first, first, *rest]),
        "invalid literal": "\n".join([head, f"{clip},{fold},{film}x", *rest]),
        "it lists no clip": head,
    }
    capsys.readouterr()
    for words, content in damaged.items():
        path.write_text(content + "\n", encoding="utf-8")
        assert main(["study", study.name, "--dry"]) == 2
        told = capsys.readouterr().err
        assert words in told and "remove its folder" in told
    path.write_text(text, encoding="utf-8")
    assert main(["study", study.name, "--dry"]) == 0


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()[1:]
