"""Records and predictions: whole or absent, and refused by name when a field is out of place."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from record_factory import SCORES, config, content, put, record

from bench import BenchError
from bench.cell.provenance import git_state
from bench.disk.digests import file_digest
from bench.disk.locks import cell_lock
from bench.disk.whole import CannotWrite
from bench.home import Home
from bench.pages.files import read_page
from bench.records.clip_scores import SCORES as CLIP_SCORES
from bench.records.clip_scores import read_scores, read_statistics, write_scores
from bench.records.curves import CURVES, SELECTION, finished_curves
from bench.records.folds import FOLDS, read_folds
from bench.records.schema import Record, impersonal
from bench.records.store import (
    PREDICTIONS,
    BadRecord,
    Prediction,
    all_records,
    cell_folder,
    prediction_ids,
    read_predictions,
    read_record,
    record_paths,
    write_predictions,
    write_record,
)
from bench.reports.listings import runs


@pytest.mark.parametrize("state", ["done", "unscored", "failed"])
def test_a_record_comes_back_as_it_was_written(tmp_path: Path, state: str) -> None:
    written = record(state, seed=3)
    [path] = put(tmp_path, written)
    assert read_record(path) == written
    assert path == tmp_path / "toy" / "salstm" / written.key / "record.json"
    assert json.loads(path.read_text())["schema"] == 1
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"schema": 2}, "schema 2, this version reads schema 1"),
    ({"schema": None}, "schema None"),
    ({"state": "finished"}, "state"),
    ({"surprise": 1}, "surprise"),
    ({"key": "../../../etc/pass"}, "key"),
    ({"scores": {"test": {**SCORES, "cider": 1000.5}}}, "scores.test.cider is 1000.5, outside 0..1000"),
    ({"scores": {"test": {**SCORES, "bleu4": 101}}}, "scores.test.bleu4 is 101, outside 0..100"),
    ({"scores": {"test": {**SCORES, "meteor": -1}}}, "scores.test.meteor"),
    ({"scores": {"test": {**SCORES, "rouge_l": "50"}}}, "rouge_l"),
    ({"scores": {"test": {**SCORES, "spice": 10.0}}}, "unknown metric"),
    ({"scores": {"val": dict(SCORES)}}, "needs scores of its split 'test'"),
    ({"scores": {}}, "needs scores of its split 'test'"),
    ({"signatures": {"test": {"cider": "x"}}}, "without a signature: bleu4, meteor, rouge_l"),
    ({"state": "unscored"}, "cannot have scores"),
    ({"state": "failed", "scores": {}}, "contradict"),
    ({"failure": {"stage": "fit", "type": "E", "message": ""}}, "contradict"),
    ({"ledger": {"captions": -1}}, "ledger.captions"),
    ({"ledger": {"captions": 1, "fit_seconds": "long"}}, "ledger.fit_seconds"),
    ({"selection": {"metric": "m", "value": 1.0, "epoch": 1.5}}, "selection.epoch"),
    ({"provenance": {"bench": "0.1.0", "started": "yesterday"}}, "provenance.started"),
    ({"config": config(dataset="../toy")}, "config.dataset"),
    ({"config": config(seed=True)}, "config.seed"),  # type: ignore[arg-type]
    ({"config": {"method": "salstm"}}, "config.dataset"),
    ({"config": config(train={"epochs": 3, "captions": 64, "data_fraction": 1.0})}, "its config has the key"),
]


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=[str(index) for index in range(len(CHANGES))])
def test_a_record_with_a_flipped_field_is_refused_by_name(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    fields = content(config())
    path = tmp_path / "toy" / "salstm" / fields["key"] / "record.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(fields | change))
    with pytest.raises(BadRecord) as caught:
        read_record(path)
    assert words in caught.value.reason
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1, "key": NaN}', "\xff"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadRecord):
        read_record(path)


def test_numbers_that_are_not_finite_cannot_be_recorded() -> None:
    with pytest.raises(ValidationError):
        record(made={"cider": float("nan")})
    with pytest.raises(ValidationError):
        Record.model_validate(content(config()) | {"config": config(settings={"weight": float("inf")})})


def test_a_record_is_checked_when_written(tmp_path: Path) -> None:
    invalid = record().model_copy(update={"state": "failed"})
    with pytest.raises(BadRecord, match="contradict"):
        write_record(cell_folder(tmp_path, invalid), invalid)
    assert not list(tmp_path.rglob("*"))


def test_all_records_collects_or_raises_invalid_ones(tmp_path: Path) -> None:
    sound, other = record(seed=0), record(seed=1)
    _, broken = put(tmp_path, sound, other)
    broken.write_text(broken.read_text()[:100])
    moved = tmp_path / "toy" / "recnet" / sound.key
    moved.mkdir(parents=True)
    (moved / "record.json").write_text(
        (cell_folder(tmp_path, sound) / "record.json").read_text()
    )  # a folder copied to the wrong place
    bad: list[BadRecord] = []
    assert all_records(tmp_path, bad=bad) == [sound]
    assert {item.path for item in bad} == {broken, moved / "record.json"}
    with pytest.raises(BadRecord):
        all_records(tmp_path)
    assert all_records(tmp_path, "msvd") == []


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    """An archive from elsewhere can hold one; whoever reads it waits until somebody writes."""
    sound, other = record(seed=0), record(seed=1)
    _, odd = put(tmp_path, sound, other)
    odd.unlink()
    bad: list[BadRecord] = []
    os.mkfifo(odd)
    assert all_records(tmp_path, bad=bad) == [sound]
    assert [(item.path, item.reason) for item in bad] == [(odd, "is no regular file")]
    readers: dict[str, Callable[[Path], object]] = {
        PREDICTIONS: lambda path: read_predictions(path, []),
        "ids.jsonl": prediction_ids,
        CLIP_SCORES: read_scores,
        CURVES: lambda path: finished_curves(path.parent),
        FOLDS: lambda path: read_folds(path.parent),
        "page.md": read_page,
        "weights.safetensors": file_digest,
    }
    for name, read in readers.items():
        os.mkfifo(tmp_path / name)
        with pytest.raises(BenchError, match="is no regular file"):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("target", "reason"), [("record.json", os.strerror(errno.ELOOP)), ("gone", os.strerror(errno.ENOENT))]
)
def test_a_link_that_leads_nowhere_is_told(tmp_path: Path, target: str, reason: str) -> None:
    """A list that left it out would show a table with a row less, and nobody would know."""
    sound, other = record(seed=0), record(seed=1)
    _, odd = put(tmp_path, sound, other)
    odd.unlink()
    odd.symlink_to(target)
    bad: list[BadRecord] = []
    assert all_records(tmp_path, bad=bad) == [sound]
    assert [(item.path, item.reason) for item in bad] == [(odd, reason)]


def test_a_full_disk_leaves_the_old_record_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = record("unscored")
    [path] = put(tmp_path, before)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("bench.disk.whole.os.fsync", full)
    with pytest.raises(CannotWrite, match="no space left to write") as caught:
        put(tmp_path, Record.model_validate(content(before.config)))
    assert str(path) in str(caught.value)
    assert isinstance(caught.value, OSError)
    assert read_record(path) == before
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file where the folder should be")
    with pytest.raises(BenchError, match=r"cannot write .*results.*run the same command again"):
        put(tmp_path / "results", record())


def test_records_load_without_heavy_packages() -> None:
    program = (
        "import sys, bench.records.store, bench.plan.stores, bench.cli.main, bench.reports.listings;"
        "print(sorted({'torch', 'ray', 'mlflow', 'h5py', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_record_names_the_commit_and_whether_the_code_differs_from_it(tmp_path: Path) -> None:
    """Code that git does not know differs too, pages do not count; without a commit or outside a checkout nothing is said."""

    def git(*words: str) -> str:
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(["git", "-C", tmp_path, *author, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert git_state(tmp_path) == (None, False)
    for name in ("pyproject.toml", "bench/home.py", "docs/page.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    git("init", "-q")
    assert git_state(tmp_path) == (None, True)
    git("add", ".")
    git("commit", "-q", "-m", "first")
    (tmp_path / "docs" / "page.md").write_text("other\n")
    assert git_state(tmp_path) == (git("rev-parse", "HEAD"), False)
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "new.py").write_text("x = 2\n")
    assert git_state(tmp_path) == (git("rev-parse", "HEAD"), True)


def test_predictions_come_back_in_the_order_asked(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    odd = 'a "quoted"\u2028caption | with 🎈 and\tمرحبا'
    write_predictions(path, [Prediction("b", odd, -1.5), Prediction("a", "")])
    assert read_predictions(path, ["a", "b"]) == {"a": "", "b": odd}
    first = json.loads(path.read_text().splitlines()[0])
    assert first == {"clip": "b", "caption": odd, "log_probability": -1.5}


def test_captions_made_elsewhere_need_no_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "theirs.jsonl"
    path.write_text('{"clip": "a", "caption": "a dog"}\r\n\n{"caption": "a cat", "clip": "b"}')
    assert read_predictions(path, ["a", "b"]) == {"a": "a dog", "b": "a cat"}


def test_missing_extra_and_double_clips_are_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, [Prediction("a", "x"), Prediction("a", "y"), Prediction("z", "x")])
    ids = ["a", *(f"vid{number}" for number in range(7))]
    with pytest.raises(BenchError) as caught:
        read_predictions(path, ids)
    text = str(caught.value)
    assert "7 missing (vid0, vid1, vid2, vid3, vid4 and 2 more)" in text
    assert "1 not in the split (z)" in text
    assert "1 given twice (a)" in text
    assert str(path) in text


@pytest.mark.parametrize(
    "line",
    [
        "a man is talking",
        '["a", "b"]',
        '{"clip": 1, "caption": "x"}',
        '{"clip": "a"}',
        '{"clip": "a", "caption": "x", "logprob": 1}',
        '{"clip": "a", "caption": "x", "log_probability": "high"}',
        '{"clip": "a", "caption": "x", "log_probability": NaN}',
        '{"clip": "a", "caption": "x", "alternatives": ["y"]}',
        '{"clip": "a", "caption": "\x01"}',
    ],
)
def test_a_line_that_is_no_prediction_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(f'{{"clip": "b", "caption": "fine"}}\n{line}\n')
    with pytest.raises(BenchError, match="line 2 is no prediction"):
        read_predictions(path, ["a", "b"])


def test_predictions_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cannot read the predictions"):
        read_predictions(tmp_path / "absent.jsonl", [])
    with pytest.raises(BenchError, match="clip a has a log-probability that is not finite"):
        write_predictions(tmp_path / "p.jsonl", [Prediction("a", "x", float("-inf"))])
    (tmp_path / "latin.jsonl").write_bytes(b'{"clip": "a", "caption": "\xe9"}')
    with pytest.raises(BenchError, match="not UTF-8"):
        read_predictions(tmp_path / "latin.jsonl", ["a"])


def test_the_list_of_runs_shows_every_state(tmp_path: Path) -> None:
    home = Home(tmp_path)
    done, failed, broken = record(seed=0), record("failed", seed=1), record(seed=2)
    put(home.results, done, failed)
    put(home.results, broken)[0].write_text("{")
    for key, pid in (("1" * 16, os.getpid()), ("2" * 16, os.getpid())):
        work = home.results / "toy" / "recnet" / key / "work"
        work.mkdir(parents=True)
        told = {"phase": "base", "epoch": 2, "captions": 500, "budget": 1000, "values": {}, "pid": pid}
        (work / "progress.json").write_text(json.dumps(told))
    with cell_lock(home, "1" * 16):  # as whoever trains it holds it
        rows = {row["key"]: row for row in runs(home).facts}
    assert {key: row["state"] for key, row in rows.items()} == {
        done.key: "done",
        failed.key: "failed",
        broken.key: "refused",
        "1" * 16: "running",
        "2" * 16: "interrupted",
    }
    assert rows[done.key]["scores"]["cider"] == 25.0
    assert rows[failed.key]["note"] == "fit: RuntimeError: boom"
    assert rows["1" * 16]["note"] == "base, epoch 2, 500 of 1000 captions"
    assert runs(home, "msvd").facts == []


def test_the_committed_cells_come_back_as_they_were_written(tmp_path: Path) -> None:
    """One cell of every method and data set: written again, its files hold the same bytes; its record the same values, as
    fields that came later stand in new records only."""
    cells = {path.parent.parent: path.parent for path in record_paths(Path(__file__).parents[2] / "results")}
    assert len(cells) > 20
    for folder in cells.values():
        found = read_record(folder / "record.json")
        again = tmp_path / found.key
        assert read_record(write_record(again, found)) == found
        ids, scores = read_scores(folder / CLIP_SCORES)
        clips = {name: dict(zip(ids, (values / 100).tolist(), strict=True)) for name, values in scores.items()}
        write_scores(again / CLIP_SCORES, ids, clips, read_statistics(folder / CLIP_SCORES))
        lines = [json.loads(line) for line in (folder / PREDICTIONS).read_text().splitlines()]
        write_predictions(again / PREDICTIONS, [Prediction(**line) for line in lines])
        assert prediction_ids(folder / PREDICTIONS) == list(ids) == list(read_predictions(folder / PREDICTIONS, ids))
        for name in (CLIP_SCORES, PREDICTIONS):
            assert (again / name).read_bytes() == (folder / name).read_bytes(), folder / name
        if "cells" in found.config:  # a row of folds is not trained: its cells are
            assert len(read_folds(folder)) == len(ids)
        else:
            assert {row["name"] for row in finished_curves(folder)} >= {"loss", SELECTION}
        assert {path.name for path in folder.iterdir()} <= {
            "record.json",
            PREDICTIONS,
            CLIP_SCORES,
            FOLDS if "cells" in found.config else CURVES,
            "checkpoint.safetensors",
            "work",
        }


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("/home/jane/x/c.jsonl: No such file", "../c.jsonl: No such file"),
        (
            "cannot read '/data/a/b.h5' (12/13), see http://x.org/a/b",
            "cannot read '../b.h5' (12/13), see http://x.org/a/b",
        ),
        ("~jane/secret/file.yaml is gone; FILE=/a/b", "../file.yaml is gone; FILE=../b"),
        ("results/x/y.json and/or 3/4/5", "results/x/y.json and/or 3/4/5"),
    ],
)
def test_a_sentence_is_published_without_places_of_a_machine(text: str, published: str) -> None:
    assert impersonal(text) == published
