"""A data set of annotated events from request to page: split=val, the paper's own lists, and densevid's rules beside COCO.

METEOR runs on the beginning of its paraphrase table here; the whole table is used in tests/real.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from meteor_jar import small_jar
from oracles import densevid as oracle
from pycocoevalcap.meteor import meteor as official_meteor

from bench import BenchError
from bench.cell.fit import run_cell
from bench.cell.inputs import gather
from bench.cell.scores import score_cell, score_events
from bench.declare.registry import dataset
from bench.evaluation import meteor
from bench.evaluation.metrics import METRICS, PREFIX
from bench.evaluation.scorer import Scorer
from bench.home import Home
from bench.plan.cells import Cell, cells
from bench.plan.request import parse
from bench.plan.states import plan
from bench.records.schema import Record
from bench.records.store import read_predictions, read_record
from bench.reports.leaderboard import write
from bench.run.prepare import prepare

SMALL = ["model.width=8", "model.embedding=6", "model.attention=4", "train.epochs=1"]
WHO, DOES = ("a man", "a woman", "the dog", "two girls"), ("runs on grass", "sings", "plays in the snow", "cooks rice")
Layout = dict[str, Any]


def annotated(videos: list[str], shift: int = 0) -> Layout:
    """Three events of every video: the first two overlap, the third reaches past the end of the video."""
    found = {}
    for number, video in enumerate(videos):
        words = [f"{WHO[(number + shift + k) % 4]} {DOES[(number + k) % 4]} ({video})" for k in range(3)]
        times = [[0.0, 10.0 + shift], [1.0, 11.5], [9.0, 31.0]]
        found[video] = {"duration": 30.0, "timestamps": times, "sentences": words}
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A data set laid out as ActivityNet Captions, of 18 training and 6 validation events, and a few more in val_2."""
    root = tmp_path_factory.mktemp("events")
    parts = {
        "train": annotated([f"v_{name}" for name in "abcdef"]),
        "val_1": annotated(["v_x", "v_y"]),
        "val_2": annotated(["v_x"], shift=1),
    }
    (root / "frames").mkdir()
    random = np.random.default_rng(0)
    for name, content in parts.items():
        (root / f"{name}.json").write_text(json.dumps(content))
        marker = "val_2." if name == "val_2" else ""
        for video in content:
            for number in range(3):
                values = random.normal(size=(28, 1536)).astype(np.float16)
                np.save(root / "frames" / f"{video}#{marker}{number}.npy", values)
    for name, lines in {"train": "official:train", "held": "v_f", "val_1": "official:val_1"}.items():
        (root / f"{name}.txt").write_text(lines + "\n")
    definition = {
        "name": "activitynet",
        "captions": [{"format": "activitynet", "files": {part: f"{part}.json" for part in parts}}],
        "splits": {"train": "train.txt", "val": "held.txt", "test": "val_1.txt"},
        "split_variants": {"paper": {"train": "train.txt", "val": "val_1.txt", "test": "val_1.txt"}},
        "densevid": ["val_1", "val_2"],
        "streams": {"frames": {"source": "frames"}},
    }
    (root / "dataset.yaml").write_text(yaml.safe_dump(definition))
    home = Home(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(root))
        for name in ("BENCH_DATA", "BENCH_CACHE"):
            patch.delenv(name, raising=False)
        prepare(dataset(str(root / "dataset.yaml")), home)
        yield home


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scorer]:
    jar = small_jar(tmp_path_factory.mktemp("meteor") / "jar")
    with pytest.MonkeyPatch.context() as patch, Scorer() as scorer:
        patch.setattr(meteor, "find_jar", lambda *_: jar)
        patch.setattr(official_meteor, "__file__", str(jar.with_name("meteor.py")))
        yield scorer


def ask(home: Home, *words: str) -> Cell:
    (cell,) = cells(parse(["methods=salstm", f"dataset={home.root / 'dataset.yaml'}", *SMALL, *words]), home)
    return cell


def run(home: Home, scorer: Scorer, *words: str) -> tuple[Cell, Record]:
    cell = ask(home, *words)
    run_cell(cell.config, str(home.root))
    score_cell(cell.config, str(home.root), scorer)
    return cell, read_record(cell.folder(home) / "record.json")


@pytest.fixture(scope="module")
def paper(home: Home, scorer: Scorer) -> tuple[Cell, Record]:
    return run(home, scorer, "protocol=paper", "split=val")


@pytest.fixture(scope="module")
def standard(home: Home, scorer: Scorer) -> tuple[Cell, Record]:
    return run(home, scorer, "split=test")


# The request ---------------------------------------------------------------------------------------------------------


def test_the_paper_protocol_takes_the_papers_lists_unless_told(home: Home) -> None:
    assert ask(home, "protocol=paper", "split=val").config["splits"] == "paper"
    assert ask(home, "protocol=paper", "split=val", "splits=default").config["splits"] == "default"
    assert ask(home).config["splits"] == "default"
    assert ask(home, "splits=paper", "split=val").config["splits"] == "paper"


def test_a_list_that_selects_and_reports_is_asked_for_as_validation(home: Home) -> None:
    for words in (["protocol=paper"], ["splits=paper"], ["splits=paper", "split=test"]):
        with pytest.raises(BenchError, match=r"under splits=paper chooses the epoch on the clips .* ask for split=val"):
            ask(home, *words)


def test_the_split_is_part_of_a_cell(home: Home, standard: tuple[Cell, Record]) -> None:
    validation = ask(home, "split=val")
    assert validation.key != standard[0].key
    (planned,) = plan(parse(["methods=salstm", f"dataset={home.root / 'dataset.yaml'}", *SMALL, "split=val"]), home)
    assert (planned.state, planned.cell.key) == ("missing", validation.key)


# Decoding and scoring ------------------------------------------------------------------------------------------------


def test_validation_clips_are_decoded_and_scored(home: Home, paper: tuple[Cell, Record]) -> None:
    cell, record = paper
    inputs = gather(cell.config, home, lambda captions: None)
    assert inputs.target.ids == inputs.val.ids == tuple(f"{video}#{k}" for video in ("v_x", "v_y") for k in range(3))
    assert list(read_predictions(cell.folder(home) / "predictions.jsonl", inputs.val.ids)) == list(inputs.val.ids)
    assert record.split == "val" and set(record.scores) == set(record.signatures) == {"val"}
    assert "|split:val|" in record.signatures["val"]["cider"]


def test_events_are_scored_by_densevid_beside_coco(home: Home, scorer: Scorer, paper: tuple[Cell, Record]) -> None:
    cell, record = paper
    scores = record.scores["val"]
    assert set(scores) == {*METRICS, *(PREFIX + name for name in METRICS)}
    ids = gather(cell.config, home, lambda captions: None).target.ids
    captions = read_predictions(cell.folder(home) / "predictions.jsonl", ids)
    files: list[dict[str, list[oracle.Timed]]] = []
    for part in ("val_1", "val_2"):
        content = json.loads((home.root / f"{part}.json").read_text())
        files.append(
            {
                video: [
                    (start, min(end, entry["duration"]), text)
                    for (start, end), text in zip(entry["timestamps"], entry["sentences"], strict=True)
                ]
                for video, entry in content.items()
            }
        )
    said = {
        video: [(start, end, captions[f"{video}#{k}"]) for k, (start, end, _) in enumerate(events)]
        for video, events in files[0].items()
    }
    expected = oracle.mean_over_thresholds(oracle.evaluate(said, files, official_meteor.Meteor()))
    for name, value in expected.items():
        assert scores[PREFIX + name] == pytest.approx(100 * value, abs=1e-8), name
    assert scores["densevid_rouge_l"] != scores["rouge_l"]
    signature = record.signatures["val"]["densevid_cider"]
    assert "|split:val|events:val_1+val_2|" in signature and "|videos:2|n:6|" in signature
    # Scoring again, as for another version of a metric, gives the same record but for the time it took.
    score_cell(cell.config, str(home.root), scorer)
    again = read_record(cell.folder(home) / "record.json")
    assert (again.scores, again.signatures) == (record.scores, record.signatures)


def test_densevid_is_for_the_paper_protocol_and_its_own_events(
    home: Home, scorer: Scorer, standard: tuple[Cell, Record]
) -> None:
    assert set(standard[1].scores["test"]) == set(METRICS)
    held_out = ask(home, "protocol=paper", "split=val", "splits=default")
    captions = {f"v_f#{number}": "a man runs" for number in range(3)}
    assert score_events(held_out.config, captions, home, scorer) == ({}, {})


def test_without_the_second_file_the_signature_says_so(
    home: Home, scorer: Scorer, paper: tuple[Cell, Record], tmp_path: Path
) -> None:
    definition = yaml.safe_load((home.root / "dataset.yaml").read_text())
    del definition["captions"][0]["files"]["val_2"]
    definition["captions"][0]["files"] = {part: str(home.root / f"{part}.json") for part in ("train", "val_1")}
    path = tmp_path / "dataset.yaml"
    captions = {f"{video}#{k}": "a man runs on grass" for video in ("v_x", "v_y") for k in range(3)}
    config = {**paper[0].config, "dataset_path": str(path)}
    path.write_text(yaml.safe_dump(definition))
    _, signatures = score_events(config, captions, home, scorer)
    assert "|events:val_1|" in signatures["densevid_cider"]
    path.write_text(yaml.safe_dump({**definition, "densevid": ["val1"]}))
    with pytest.raises(BenchError, match=r"declare no split 'val1' .they declare: train, val_1"):
        score_events(config, captions, home, scorer)


# The page ------------------------------------------------------------------------------------------------------------


def test_validation_has_tables_of_its_own_and_says_what_was_chosen_on_it(
    home: Home, paper: tuple[Cell, Record], standard: tuple[Cell, Record]
) -> None:
    write(home)
    page = (home.leaderboards / "activitynet.md").read_text(encoding="utf-8")
    first, second = page.split("## 1. ")[1].split("## 2. ")
    assert first.startswith("Standard protocol, test split, frames")
    assert "chosen on the validation clips by" in first and "densevid" not in first
    assert second.startswith("Paper protocol, val split, frames")
    assert "chosen on the split that is reported here" in second
    assert "Split lists: paper" in second
    coco, events = second.split("### Table 2 by the rules of densevid")
    assert "recnet table5" not in first + coco, "the paper scored its events by densevid's rules"
    assert "| recnet table5: " in events and "| inception_v4 " in events and " 28.5 |" in events
    scores = paper[1].scores["val"]
    assert f"{scores['densevid_cider']:.2f} (1)" in events and f"{scores['densevid_meteor']:.2f} (1)" in events
    assert f"{scores['cider']:.2f} (1)" in coco
    assert "CIDEr: `densevid CIDEr-D|impl:" in events and "CIDEr: `CIDEr-D|impl:" in second
    assert write(home, check=True) == []
