"""What trackers show of a cell beside numbers: a table of captions, clips with what was attended to."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from record_factory import record

from bench.cell.traces import TRACES, keep_traces, spread
from bench.figures.attended import attention, pictures_of
from bench.home import Home
from bench.method import Caption
from bench.records.schema import Record
from bench.records.store import PREDICTIONS, Prediction, write_predictions
from bench.tracking.content import LISTED, captions, pictures


@pytest.fixture
def cell(tmp_path: Path) -> tuple[Home, Path, Record]:
    """A scored cell of 200 clips of the corpus `shapes`."""
    folder = tmp_path / "cell"
    clips = [f"shape{number:04d}" for number in range(200)]
    said = [Prediction(clip, f"a $x$ <b> | {number}") for number, clip in enumerate(clips)]
    write_predictions(folder / PREDICTIONS, said)
    return Home(tmp_path), folder, record(dataset="shapes", made={"weights_sha256": "a" * 64})


def test_places_are_spread_over_all() -> None:
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(2, 4) == [0, 1]
    assert spread(1, 4) == [0]
    assert spread(0, 4) == []
    assert spread(5, 1) == [0]


def test_the_table_has_the_same_clips_for_every_cell(cell: tuple[Home, Path, Record]) -> None:
    _, folder, done = cell
    table = captions(done, folder)
    assert table is not None and list(table) == ["clip", "caption"], (
        "MLflow groups by the first and compares the second"
    )
    assert len(table["clip"]) == LISTED and table["clip"][0] == "shape0000" and table["clip"][-1] == "shape0199"
    assert table["caption"][-1] == "a $x$ <b> | 199"
    assert captions(record("failed", dataset="shapes"), folder) is None
    (folder / PREDICTIONS).unlink()
    assert captions(done, folder) is None


def test_traces_are_drawn_once(cell: tuple[Home, Path, Record]) -> None:
    """The darkest place of the heat map is where the attention was; without traces there is nothing to draw."""
    home, folder, done = cell
    assert pictures(done, folder, home) == {}
    traces = {"attention": [[0.0] * 19 + [1.0] + [0.0] * 8] * 2, "key_frame": 3, "refocusing": [0.1] * 28}
    keep_traces(folder / "work", [Caption("shape0000", ("a", "dog"), -1.0, (), traces)])
    (path,) = pictures(done, folder, home)["clips"]
    shown = Image.open(path).convert("RGB")
    row = np.asarray(shown)[-62:-52, 140:820].astype(int).sum(axis=(0, 2))  # of the last word, over all 28 frames
    assert abs((int(np.argmin(row)) + 5) / 690 * 28 - 19.5) < 0.6, "the darkest place is frame 19"
    before = path.stat().st_mtime_ns
    assert pictures(done, folder, home)["clips"] == [path] and path.stat().st_mtime_ns == before
    keep_traces(folder / "work", [Caption("shape0001", ("a", "dog"), -1.0, (), traces)])
    pictures(done, folder, home)
    assert path.stat().st_mtime_ns > before, "of another decoding"


def test_padded_frames_are_cut_off() -> None:
    found = attention({"words": ["a", "dog"], "attention": [[0.5, 0.5, 0.0, 0.0], [0.0, 0.9, 0.1, 0.0]]})
    assert found is not None
    names, weights = found
    assert names == ["a", "dog"] and weights.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.9, 0.1]]
    found = attention({"words": ["a"], "attention": [[0.0, 1.0]], "refocusing": [0.2, 0.8]})
    assert found is not None and found[0] == ["(key frame)", "a"]
    assert attention({"words": ["a"]}) is None
    assert attention({"words": [], "attention": []}) is None


def test_looks_are_of_few_clips_and_short(tmp_path: Path) -> None:
    captions = [
        Caption(f"c{number}", ("a",), -1.0, (), {"attention": [[1 / 3, 2 / 3]], "region_attention": [[1.0]]})
        for number in range(100)
    ]
    tmp_path.joinpath("work").mkdir()
    keep_traces(tmp_path / "work", captions)
    kept = json.loads((tmp_path / "work" / TRACES).read_text())
    assert [one["clip"] for one in kept] == ["c0", "c33", "c66", "c99"]
    assert kept[0] == {"clip": "c0", "words": ["a"], "attention": [[0.3333, 0.6667]]}


def test_a_picture_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    traces = tmp_path / "looks.json"
    traces.write_text(json.dumps([{"clip": "clip1", "words": ["a", "dog"], "attention": [[0.1, 0.9], [0.8, 0.2]]}]))

    def cut_short(figure: Figure, place: Path, **_: object) -> None:
        Path(place).write_bytes(b"\x89PNG")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Figure, "savefig", cut_short)
        pictures_of(traces, None)
    assert [path.name for path in tmp_path.iterdir()] == ["looks.json"]
    (path,) = pictures_of(traces, None)
    assert path.read_bytes().endswith(b"IEND\xaeB`\x82")
