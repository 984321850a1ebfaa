"""What MLflow shows of a cell beside numbers: tables, curves, clips with what was attended to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from record_factory import record

from bench.cell.traces import SHOWN, TRACES, keep_traces, spread
from bench.home import Home
from bench.method import Caption
from bench.records.clip_scores import SCORES, write_scores
from bench.records.schema import Record
from bench.records.store import PREDICTIONS, Prediction, write_predictions
from bench.tracking.gallery import LISTED, Gallery, attention


@pytest.fixture
def cell(tmp_path: Path) -> tuple[Home, Path, Record]:
    """A scored cell of 200 clips of the corpus `shapes`, with curves of two phases."""
    folder = tmp_path / "cell"
    ids = [f"shape{number:04d}" for number in range(200)]
    write_predictions(
        folder / PREDICTIONS, [Prediction(clip, f"a $x$ <b> | {number}") for number, clip in enumerate(ids)]
    )
    write_scores(folder / SCORES, ids, {"cider": {clip: number / 100 for number, clip in enumerate(ids)}})
    lines = [
        f"{phase},{epoch},{at},1.0,{name},{value}"
        for phase, epoch, at, name, value in (
            ("base", 0, 100, "loss", 3.5),
            ("base", 0, 100, "val_cider_tokens", 10.0),
            ("base", 1, 200, "loss", 2.5),
            ("base", 7, 200, "val_cider_tokens", 31.2),
            ("more", 0, 300, "loss", 2.0),
        )
    ]
    (folder / "curves.csv").write_text("\n".join(["phase,epoch,captions,seconds,name,value", *lines]) + "\n")
    return Home(tmp_path), folder, record(dataset="shapes")


def test_places_are_spread_over_all() -> None:
    assert spread(10, 4) == [0, 3, 6, 9]
    assert spread(2, 4) == [0, 1]
    assert spread(1, 4) == [0]
    assert spread(0, 4) == []
    assert spread(5, 1) == [0]


def test_the_table_has_the_same_clips_for_every_cell(cell: tuple[Home, Path, Record]) -> None:
    home, folder, done = cell
    table = Gallery(home).table(done, folder)
    assert table is not None
    assert len(table["clip"]) == LISTED and table["clip"][0] == "shape0000" and table["clip"][-1] == "shape0199"
    assert table["caption"][-1] == "a $x$ <b> | 199"
    assert table["cider"][-1] == 199.0
    assert set(table["references"]) == {None}, "their digest is not that of the corpus"
    assert Gallery(home).table(record("failed", dataset="shapes"), folder) is None
    (folder / SCORES).unlink()
    assert Gallery(home).table(done, folder) is None


def test_pictures_of_a_cell_without_traces(cell: tuple[Home, Path, Record]) -> None:
    home, folder, done = cell
    pictures = Gallery(home).pictures(done, folder)
    assert {name: len(images) for name, images in pictures.items()} == {"curves": 1, "clips": SHOWN}
    for images in pictures.values():
        for image in images:
            assert image.size[0] == 850 and len(np.unique(np.asarray(image.resize((60, 30))))) > 20, (
                "not an empty sheet"
            )


def test_traces_are_drawn_where_there_are_some(cell: tuple[Home, Path, Record]) -> None:
    """The darkest place of the heat map is where the attention was."""
    home, folder, done = cell
    plain = Gallery(home).pictures(done, folder)["clips"][0]
    traces = {"attention": [[0.0] * 19 + [1.0] + [0.0] * 8] * 2, "key_frame": 3, "refocusing": [0.1] * 28}
    keep_traces(folder / "work", [Caption("shape0000", ("a", "dog"), -1.0, (), traces)])
    kept = done.model_copy(update={"weights_sha256": "a" * 64})
    (shown,) = Gallery(home).pictures(kept, folder)["clips"]
    assert shown.size[1] > plain.size[1] + 60
    row = np.asarray(shown)[-62:-52, 140:820].astype(int).sum(axis=(0, 2))  # of the last word, over all 28 frames
    assert abs((int(np.argmin(row)) + 5) / 690 * 28 - 19.5) < 0.6, "the darkest place is frame 19"


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
