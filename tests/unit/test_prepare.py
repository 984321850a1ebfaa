"""Preparing a data set: the streams that are needed, for the clips of every split rule."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import BenchError
from bench.cli.main import main
from bench.declare.dataset import DatasetDefinition
from bench.declare.registry import dataset, read_definition
from bench.features.cache import Cache
from bench.features.sidecar import cache_path
from bench.home import Home
from bench.plan.cells import cells
from bench.plan.request import parse
from bench.run.prepare import prepare, refuse_empty_splits

np = pytest.importorskip("numpy")

YAML = """
name: toy
captions: [{format: jsonl, files: {captions: captions.jsonl}}]
splits: {train: train.txt, val: val.txt, test: test.txt}
split_variants: {wide: {first: [2, 1, 1]}}
streams:
  frames: {source: frames}
  motion: {source: absent}
"""


@pytest.fixture
def definition(tmp_path: Path) -> DatasetDefinition:
    lines = [json.dumps({"clip": f"c{number}", "caption": "a dog runs"}) for number in range(1, 5)]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    for number, split in enumerate(("train", "val", "test"), start=1):
        (tmp_path / f"{split}.txt").write_text(f"c{number}\n")
    (tmp_path / "frames").mkdir()
    for number in range(1, 5):
        np.save(tmp_path / "frames" / f"c{number}.npy", np.ones((3, 2), np.float32))
    (tmp_path / "dataset.yaml").write_text(YAML)
    return read_definition(tmp_path / "dataset.yaml")


def test_needed_streams_are_imported_once(
    tmp_path: Path, definition: DatasetDefinition, capsys: pytest.CaptureFixture[str]
) -> None:
    home = Home(tmp_path / "home")
    prepare(definition, home, needed={"frames", "a stream that the data set lacks"})
    path = home.cache / "toy" / "frames.h5"
    assert f"toy: stream frames is in {path}" in capsys.readouterr().out
    cache = Cache(path)
    assert sorted(cache.ids) == ["c1", "c2", "c3", "c4"], "c4 is in the wide split only"
    cache.close()
    before = path.stat().st_mtime_ns
    prepare(definition, home, needed={"frames"})
    assert path.stat().st_mtime_ns == before
    assert not (home.cache / "toy" / "motion.h5").exists()


def test_a_run_renders_the_clips_of_its_subset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The keys of cells stay when a later subset fills the cache up, and `features check` misses no clip."""
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    home, shapes = Home(tmp_path), dataset("shapes")
    words = ["methods=mplstm", "dataset=shapes", "subset=3/1/2"]
    prepare(shapes, home, (3, 1, 2), {"frames"})
    assert "shapes: 6 clips done" in capsys.readouterr().out
    before = cells(parse(words), home)
    prepare(shapes, home, (4, 1, 2), {"frames"})
    assert "shapes: 1 clips done" in capsys.readouterr().out
    assert [cell.key for cell in cells(parse(words), home)] == [cell.key for cell in before]
    assert before[0].config["streams"]["frames"].startswith("74fd5e595eeb"), "as in all records of shapes"
    assert main(["features", "check", "dataset=shapes", "stream=frames"]) == 0
    assert capsys.readouterr().out == "stream frames of shapes: nothing to complain of\n"
    assert main(["features", "list"]) == 0
    assert re.search(r"^shapes +frames +20x256 +7 ", capsys.readouterr().out, re.M)


def test_an_absent_source_is_a_sentence(tmp_path: Path, definition: DatasetDefinition) -> None:
    with pytest.raises(BenchError, match="absent"):
        prepare(definition, Home(tmp_path / "home"), needed={"motion"})


def test_a_split_without_clips_is_told_before_training(tmp_path: Path, definition: DatasetDefinition) -> None:
    home = Home(tmp_path / "home")
    refuse_empty_splits(definition, home)
    (tmp_path / "test.txt").write_text("")
    refuse_empty_splits(definition, home, target="val")
    with pytest.raises(BenchError, match=r"split test has no clips, .* to score; .* bench data check dataset=.*yaml$"):
        refuse_empty_splits(definition, home)
    (tmp_path / "val.txt").write_text("")
    with pytest.raises(BenchError, match=r"split val has no clips, .* to choose the best epoch by"):
        refuse_empty_splits(definition, home)
    with pytest.raises(BenchError, match="subset asks for 9 clips of train, it has 1"):
        refuse_empty_splits(definition, home, subset=(9, 1, 1))
    assert not home.root.exists()


def test_what_another_command_is_making_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As two jobs of an array do that are the first of a home: the second makes nothing anew."""
    home = Home(tmp_path)
    program = (
        "import sys; from pathlib import Path; from bench.home import Home; from bench.run.prepare import prepare; "
        "from bench.declare.registry import dataset; prepare(dataset('shapes'), Home(Path(sys.argv[1])), (60, 8, 8), ['frames'])"
    )
    first = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.DEVNULL)
    made = cache_path(home, "shapes", "frames")
    aside = made.with_name("frames.h5.tmp")
    while not aside.exists() or aside.stat().st_size == 0:
        assert first.poll() is None
        time.sleep(0.01)
    prepare(dataset("shapes"), home, (60, 8, 8), ["frames"])
    assert first.wait(60) == 0
    said = capsys.readouterr().out
    assert said.count("waiting for another process, which writes") == 1 and "clips done" not in said
    with Cache(made) as cache:
        assert len(cache) == 76
