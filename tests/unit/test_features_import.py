"""Importing features in the layouts found in the wild, and sentences for everything that is wrong with them."""

from __future__ import annotations

import base64
import json
import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from bench import BenchError
from bench.cli.main import main
from bench.declare.dataset import DatasetDefinition, StreamSource
from bench.declare.registry import read_definition
from bench.features.cache import Cache
from bench.features.check import check_cache
from bench.features.importers import import_stream, source_ids
from bench.features.sidecar import read_sidecar
from bench.home import Home
from bench.run.prepare import prepare
from tests.unit.small_world import definition_at

CLIPS = ["vid1", "vid2", "vid3", "vid10"]
LENGTHS = {"vid1": 6, "vid2": 9, "vid3": 2, "vid10": 6}


def feature(clip: str, length: int | None = None) -> np.ndarray:
    rng = np.random.default_rng(int(clip.removeprefix("vid")))
    return rng.random((length or LENGTHS[clip], 8)).astype(np.float32) + 0.1


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def define(tmp_path: Path, source: str | None, stream: str = "frames", **entry: Any) -> DatasetDefinition:
    return definition_at(tmp_path, stream, source=source, **entry)


def per_clip(path: Path, clips: list[str] = CLIPS, **changed: np.ndarray) -> str:
    with h5py.File(path, "w") as file:
        for clip in clips:
            file[clip] = feature(clip)
        for clip, values in changed.items():
            file.pop(clip, None)
            file[clip] = values
    return path.name


def fails(definition: DatasetDefinition, home: Home, clips: list[str] = CLIPS) -> str:
    """The sentence with which an import ends; nothing may lie where a reader looks."""
    with pytest.raises(BenchError) as caught:
        import_stream(definition, next(iter(definition.streams)), home, clips)
    assert [file for file in home.cache.rglob("*") if file.is_file()] == []
    return str(caught.value)


def test_one_dataset_per_clip_is_padded_with_a_true_length(tmp_path: Path, home: Home) -> None:
    path = import_stream(define(tmp_path, per_clip(tmp_path / "x.h5")), "frames", home, CLIPS)
    with Cache(path) as cache:
        assert (cache.shape, cache.timed, cache.dtype) == ((9, 8), True, np.float16)
        for clip in CLIPS:
            values, length = cache.read(clip)
            assert length == LENGTHS[clip]
            np.testing.assert_array_equal(values[:length], feature(clip).astype(np.float16))
            assert not values[length:].any()
    assert read_sidecar(path)["source"]["seen"] == "x.h5: one dataset per clip, 4 clips, the first float32 [6, 8]"


def test_frames_columns_type_and_unit_length(tmp_path: Path, home: Home) -> None:
    options = {"frames": 4, "columns": [2, 5], "dtype": "float32", "l2": True, "encoder": "vgg"}
    path = import_stream(define(tmp_path, per_clip(tmp_path / "x.h5"), **options), "frames", home, CLIPS)
    assert read_sidecar(path)["encoder"] == {"name": "vgg"}
    with Cache(path) as cache:
        assert (cache.shape, cache.dtype) == ((4, 3), np.float32)
        values, length = cache.read("vid2")
        chosen = feature("vid2")[[0, 3, 5, 8], 2:5]  # round(linspace(0, 8, 4))
        np.testing.assert_allclose(values, chosen / np.linalg.norm(chosen, axis=1, keepdims=True), rtol=1e-6)
        assert (length, cache.read("vid3")[1]) == (4, 2)


def test_zero_rows_at_the_end_are_padding_but_black_pixels_are_not(tmp_path: Path, home: Home) -> None:
    padded = np.vstack([feature("vid1"), np.zeros((3, 8), np.float32)])
    path = import_stream(define(tmp_path, per_clip(tmp_path / "x.h5", vid1=padded)), "frames", home, CLIPS)
    with Cache(path) as cache:
        assert cache.read("vid1")[1] == 6
    with h5py.File(tmp_path / "p.h5", "w") as file:
        file["vid1"] = np.concatenate([np.full((2, 3, 4, 4), 9), np.zeros((2, 3, 4, 4))]).astype(np.uint8)
    pixels = define(tmp_path, "p.h5", stream="pixels")
    with Cache(import_stream(pixels, "pixels", home, ["vid1"])) as cache:
        assert (cache.read("vid1")[1], cache.dtype) == (4, np.uint8)


def test_matrix_takes_the_list_of_ids_that_the_corpus_knows(tmp_path: Path, home: Home) -> None:
    order = ["vid10", "vid3", "vid1", "vid2", "vid7"]
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["feats"] = np.stack([feature(clip, 1)[0] for clip in order])
        file["clip"] = [f"tube_{clip}".encode() for clip in order]
        file["vid"] = [clip.encode() for clip in order]
    path = import_stream(define(tmp_path, "m.h5", stream="words"), "words", home, CLIPS)
    said = read_sidecar(path)
    assert "ids in vid" in said["source"]["seen"]
    assert said["source"]["without_captions"] == 1
    with Cache(path) as cache:
        assert (cache.ids, cache.shape, cache.timed) == (tuple(CLIPS), (8,), False)
        for clip in CLIPS:
            np.testing.assert_array_equal(cache.read(clip)[0], feature(clip, 1)[0].astype(np.float16))
    named = define(tmp_path, "m.h5", stream="words", ids="clip")
    tubes = [f"tube_{clip}" for clip in order]
    assert source_ids(named, "words", home) == tuple(tubes)
    with Cache(import_stream(named, "words", home, tubes)) as cache:
        np.testing.assert_array_equal(cache.read("tube_vid3")[0], feature("vid3", 1)[0].astype(np.float16))


def test_matrix_with_lengths_and_numbers_as_ids(tmp_path: Path, home: Home) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["features"] = np.stack([np.pad(feature(clip), ((0, 9 - LENGTHS[clip]), (0, 0)), "edge") for clip in CLIPS])
        file["id"] = [0, 1, 2, 9]
        file["lens"] = [LENGTHS[clip] for clip in CLIPS]
    path = import_stream(define(tmp_path, "m.h5", ids="zero_based"), "frames", home, CLIPS)
    with Cache(path) as cache:
        for clip in CLIPS:
            values, length = cache.read(clip)
            assert length == LENGTHS[clip]
            np.testing.assert_array_equal(values[:length], feature(clip).astype(np.float16))


def test_rows_without_ids_go_by_ascending_number(tmp_path: Path, home: Home) -> None:
    with h5py.File(tmp_path / "r.h5", "w") as file:
        file["feats"] = np.stack([feature(clip, 1)[0] for clip in CLIPS])
        file["lens"] = [16] * 4
    path = import_stream(define(tmp_path, "r.h5"), "frames", home, ["vid10", "vid2", "vid1", "vid3"])
    with Cache(path) as cache:  # vid10 is the last row, not the second
        np.testing.assert_array_equal(cache.read("vid10")[0], feature("vid10", 1)[0].astype(np.float16))
        np.testing.assert_array_equal(cache.read("vid2")[0], feature("vid2", 1)[0].astype(np.float16))


def test_rows_by_a_list(tmp_path: Path, home: Home) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["feats"] = np.stack([feature(clip, 1)[0] for clip in CLIPS])
    (tmp_path / "rows.txt").write_text("\n".join(CLIPS) + "\n")
    definition = define(tmp_path, "a.h5", ids="rows.txt")
    assert source_ids(definition, "frames", home) == tuple(CLIPS)
    with Cache(import_stream(definition, "frames", home, ["vid10"])) as cache:
        np.testing.assert_array_equal(cache.read("vid10")[0], feature("vid10", 1)[0].astype(np.float16))
    few = fails(define(tmp_path, "a.h5"), Home(tmp_path / "other"), CLIPS[:3])
    assert "has 4 rows and the corpus has 3 clips" in few


@pytest.mark.parametrize("kind", ["npy", "npz", "npz of several"])
def test_folders_of_arrays(tmp_path: Path, home: Home, kind: str) -> None:
    folder = tmp_path / "features" / "part"
    folder.mkdir(parents=True)
    for clip in CLIPS:
        if kind == "npy":
            np.save(folder / f"{clip}.mp4.npy", feature(clip))
        elif kind == "npz":
            np.savez(folder / f"{clip}.npz", feature(clip))
        else:
            np.savez(folder / f"{clip}.npz", boxes=np.zeros(4), features=feature(clip))
    (folder.parent / "README.md").write_text("not a feature")
    os.mkfifo(folder / "pipe.npy")  # whoever opens it waits until somebody writes
    path = import_stream(define(tmp_path, "features"), "frames", home, CLIPS)
    assert check_cache(path, CLIPS) == []
    with Cache(path) as cache:
        np.testing.assert_array_equal(cache.read("vid2")[0], feature("vid2").astype(np.float16))


@pytest.mark.parametrize("kind", ["by clip", "matrix", "old format", "folder"])
def test_tensors_as_clip_caches_publish_them(tmp_path: Path, home: Home, kind: str) -> None:
    by_clip = {clip: torch.from_numpy(feature(clip, 6)).bfloat16() for clip in CLIPS}
    stored = {clip: value.float().numpy() for clip, value in by_clip.items()}
    name = "clip_vit_b32" if kind == "folder" else "clip_vit_b32.pt"
    if kind == "folder":
        (tmp_path / name).mkdir()
        for clip, value in by_clip.items():
            torch.save({"features": value, "fps": 3} if clip == "vid1" else value, tmp_path / name / f"{clip}.pt")
    elif kind == "matrix":
        torch.save(
            {"features": torch.stack(list(by_clip.values())), "ids": [f"{clip}.mp4" for clip in CLIPS]}, tmp_path / name
        )
    else:
        torch.save(by_clip, tmp_path / name, _use_new_zipfile_serialization=kind == "by clip")
    path = import_stream(define(tmp_path, name), "frames", home, CLIPS)
    with Cache(path) as cache:
        for clip in CLIPS:
            np.testing.assert_array_equal(cache.read(clip)[0], stored[clip].astype(np.float16))
    seen = read_sidecar(path)["source"]["seen"]
    assert "one tensor per clip, 4 clips, the first [6, 8]" in seen or kind in ("matrix", "folder")


class Code:
    """A pickle that writes a file when it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def test_code_inside_a_file_of_features_is_refused_and_never_run(tmp_path: Path, home: Home) -> None:
    marker, folder = tmp_path / "was-run", tmp_path / "folder"
    folder.mkdir()
    bad = {"vid1": torch.zeros(2, 8), "vid2": Code(marker)}
    torch.save(bad, tmp_path / "x.pt")
    torch.save(bad, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for clip in CLIPS:
        torch.save(bad["vid2"] if clip == "vid3" else torch.zeros(2, 8), folder / f"{clip}.pt")
    for name in ("x.pkl", "x.bin"):
        (tmp_path / name).write_bytes(pickle.dumps(bad))
    for source in ("x.pt", "old.pt"):
        said = fails(define(tmp_path, source), home)
        assert f"{source} holds more than tensors" in said and "it was not opened" in said
        assert "getattr among it" in said and "save the tensors alone, torch.save({clip: tensor}, FILE)" in said
    assert "1 clip of" in (said := fails(define(tmp_path, "folder"), home)) and "holds more than tensors" in said
    for source in ("x.pkl", "x.bin"):
        said = fails(define(tmp_path, source), home)
        assert "is a pickle, which can run any code when it is opened, so bench opens none" in said
        assert "torch.save({str(k): torch.as_tensor(v) for k, v in found.items()}, 'x.pt'), then import that" in said
    assert not marker.exists()
    torch.load(tmp_path / "x.pt", weights_only=False)
    assert marker.exists(), "the file would have run it"


def test_other_files_of_tensors_are_refused_with_what_they_hold(tmp_path: Path, home: Home) -> None:
    for value, said in (
        (torch.zeros(4, 2, 8), "holds a Tensor, and not a dictionary of tensors"),
        ({}, "holds an empty dict"),
        ({"vid1": torch.zeros(2, 8), "note": "by CLIP"}, "holds besides tensors note a str"),
    ):
        torch.save(value, tmp_path / "x.pt")
        assert said in fails(define(tmp_path, "x.pt"), home)
    (tmp_path / "x.pt").write_bytes((tmp_path / "x.pt").read_bytes()[:300])
    assert "is damaged or no file of torch.save" in fails(define(tmp_path, "x.pt"), home)


def test_names_through_a_table_in_either_direction(tmp_path: Path, home: Home) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for clip in CLIPS:
            file[f"tube{clip}_0_9.avi"] = feature(clip)
    for number, line in enumerate(("tube{0}_0_9 {0}\n", "{0}\ttube{0}_0_9.avi\n")):
        (tmp_path / "table.txt").write_text("".join(line.format(clip) for clip in [*CLIPS, "vid77"]))
        definition = define(tmp_path, "x.h5", ids="table.txt")
        assert sorted(source_ids(definition, "frames", home)) == sorted(CLIPS)
        with Cache(import_stream(definition, "frames", Home(tmp_path / str(number)), CLIPS)) as cache:
            np.testing.assert_array_equal(cache.read("vid3")[0][:2], feature("vid3").astype(np.float16))


def test_counting_from_zero_is_noticed_and_mended(tmp_path: Path, home: Home) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for number in range(1, 5):
            file[f"vid{number - 1}"] = feature(f"vid{number}", 3)
    clips = ["vid1", "vid2", "vid3", "vid4"]
    sentence = fails(define(tmp_path, "x.h5"), home, clips)
    assert "1 of 4 clips have no features (vid4)" in sentence
    assert "count from 0: say ids: zero_based" in sentence
    with Cache(import_stream(define(tmp_path, "x.h5", ids="zero_based"), "frames", home, clips)) as cache:
        np.testing.assert_array_equal(cache.read("vid4")[0], feature("vid4", 3).astype(np.float16))


def test_an_import_is_done_once(tmp_path: Path, home: Home) -> None:
    definition = define(tmp_path, per_clip(tmp_path / "x.h5"))
    path = import_stream(definition, "frames", home, CLIPS)
    first = path.stat().st_mtime_ns
    assert import_stream(definition, "frames", home, CLIPS[:2]).stat().st_mtime_ns == first  # a subset needs no other
    per_clip(tmp_path / "x.h5", vid1=feature("vid7", 5))
    os.utime(tmp_path / "x.h5", ns=(1, 1))
    import_stream(definition, "frames", home, CLIPS)
    with Cache(path) as cache:
        np.testing.assert_array_equal(cache.read("vid1")[0][:5], feature("vid7", 5).astype(np.float16))
    definition.streams["frames"].frames = 3
    import_stream(definition, "frames", home, CLIPS)
    assert read_sidecar(path)["shape"] == [3, 8]
    (tmp_path / "x.h5").unlink()  # on another machine, where only the cache was copied to
    assert import_stream(definition, "frames", home, CLIPS) == path
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 10)
    with pytest.raises(BenchError, match=r"features of stream frames of data set own are not there \(.*x.h5\)"):
        import_stream(definition, "frames", home, CLIPS)


def test_files_of_a_folder_that_changed_places_are_noticed(tmp_path: Path, home: Home) -> None:
    (tmp_path / "feats").mkdir()
    for time, clip in enumerate(("vid1", "vid10")):
        np.save(tmp_path / "feats" / f"{clip}.npy", feature(clip))
        os.utime(tmp_path / "feats" / f"{clip}.npy", ns=(time, time))
    definition = define(tmp_path, "feats")
    path = import_stream(definition, "frames", home, ["vid1", "vid10"])
    first, mark = path.stat().st_mtime_ns, read_sidecar(path)["fingerprint"]
    assert import_stream(definition, "frames", home, ["vid1", "vid10"]).stat().st_mtime_ns == first
    said = json.loads(path.with_suffix(".json").read_text())
    del said["source"]["request"]["files"][0]["digest"]  # as it was written before
    path.with_suffix(".json").write_text(json.dumps(said))
    import_stream(definition, "frames", home, ["vid1", "vid10"])
    assert path.stat().st_mtime_ns != first and read_sidecar(path)["fingerprint"] == mark
    for old, new in (
        ("vid1", "aside"),
        ("vid10", "vid1"),
        ("aside", "vid10"),
    ):  # as many, as large, and the newest as new
        (tmp_path / "feats" / f"{old}.npy").rename(tmp_path / "feats" / f"{new}.npy")
    import_stream(definition, "frames", home, ["vid1", "vid10"])
    with Cache(path) as cache:
        np.testing.assert_array_equal(cache.read("vid1")[0], feature("vid10").astype(np.float16))


def test_features_of_a_split_variant_are_checked_and_not_called_unused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    per_clip(tmp_path / "x.h5")
    (tmp_path / "dataset.yaml").write_text(
        "name: own\ncaptions: [{format: jsonl, files: {captions: c.jsonl}}]\nstreams: {frames: {source: x.h5}}\n"
        "splits: {first: [1, 1, 1]}\nsplit_variants: {more: {first: [2, 1, 1]}}\n"
    )
    (tmp_path / "c.jsonl").write_text("".join(f'{{"clip": "{clip}", "caption": "a dog"}}\n' for clip in CLIPS))
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    for verb in ("import", "check"):
        assert main(["features", verb, f"dataset={tmp_path / 'dataset.yaml'}"]) == 0
    assert "not used" not in (said := capsys.readouterr().out) and "nothing to complain of" in said


@pytest.mark.parametrize("name", ["../../../evil/frames", ".hidden", "a b", "/tmp/x", "f" * 101, ""])
def test_a_stream_is_not_called_by_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    per_clip(tmp_path / "x.h5")
    (tmp_path / "dataset.yaml").write_text("name: own\ncaptions: [{format: jsonl, files: {captions: c.jsonl}}]\n")
    (tmp_path / "c.jsonl").write_text("".join(f'{{"clip": "{clip}", "caption": "a dog"}}\n' for clip in CLIPS))
    (tmp_path / "bad.yaml").write_text((tmp_path / "dataset.yaml").read_text() + f'streams: {{"{name}": {{}}}}\n')
    with pytest.raises(BenchError, match=r"bad.yaml: streams .*cannot be the name of a stream"):
        read_definition(tmp_path / "bad.yaml")
    define(tmp_path, "x.h5", stream="frames_v2.b+l-14")
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    before = sorted(tmp_path.rglob("*"))
    command = ["features", "import", f"dataset={tmp_path / 'dataset.yaml'}", f"from={tmp_path / 'x.h5'}"]
    assert main([*command, f"stream={name}"]) == 2
    assert ("cannot be the name of a stream" if name else "has no value") in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_lost_sidecar_is_written_again(tmp_path: Path, home: Home) -> None:
    definition = define(tmp_path, per_clip(tmp_path / "x.h5"))
    path = import_stream(definition, "frames", home, CLIPS)
    said, written = read_sidecar(path), path.stat().st_mtime_ns
    path.with_suffix(".json").unlink()
    import_stream(definition, "frames", home, CLIPS)
    assert read_sidecar(path) == said
    assert path.stat().st_mtime_ns == written


def test_all_clips_with_nan_are_named(tmp_path: Path, home: Home) -> None:
    bad, big = feature("vid2"), feature("vid10")
    bad[1, 1], big[0, 0] = np.nan, 1e5
    sentence = fails(define(tmp_path, per_clip(tmp_path / "x.h5", vid2=bad, vid10=big)), home)
    assert "2 clips of" in sentence
    assert "vid2: 1 of 72 values are NaN or infinite" in sentence
    assert "vid10: a value of 1e+05 is too large for float16, say dtype: float32" in sentence
    # A data set of one's own is called by its file.
    assert sentence.endswith(f"then `bench features import dataset={tmp_path}/dataset.yaml stream=frames`")


def test_clips_without_features_are_named(tmp_path: Path, home: Home) -> None:
    sentence = fails(define(tmp_path, per_clip(tmp_path / "x.h5", CLIPS[:2])), home)
    assert "2 of 4 clips have no features (vid3, vid10)" in sentence
    assert "subset: {from_stream" in sentence


def test_a_link_that_leads_nowhere_is_one_clip_that_cannot_be_read(tmp_path: Path, home: Home) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for clip in CLIPS[1:]:
        np.save(folder / f"{clip}.npy", np.ones((2, 8), np.float32))
    (folder / f"{CLIPS[0]}.npy").symlink_to(tmp_path / "gone.npy")
    assert f"{CLIPS[0]}: cannot be read: No such file or directory)" in fails(define(tmp_path, "folder"), home)
    (folder / "beside").symlink_to(folder / "beside")  # to itself
    (folder / f"{CLIPS[0]}.npy").unlink()
    np.save(folder / f"{CLIPS[0]}.npy", np.ones((2, 8), np.float32))
    import_stream(define(tmp_path, "folder"), "frames", home, CLIPS)


def test_other_mistakes_are_sentences(tmp_path: Path, home: Home) -> None:
    good = per_clip(tmp_path / "x.h5")
    odd = per_clip(tmp_path / "odd.h5", vid3=np.ones((2, 9), np.float32))
    assert "1 clip of another shape than [T, 8] (vid3 [2, 9])" in fails(define(tmp_path, odd), home)
    assert "columns [4, 9] must lie within [0, 8]" in fails(define(tmp_path, good, columns=(4, 9)), home)
    assert "layout is 'hdf', but must be one of auto" in fails(define(tmp_path, good, layout="hdf"), home)
    assert "has not the layout matrix; it holds vid1 float32" in fails(define(tmp_path, good, layout="matrix"), home)
    assert "no list of ids named 'clip'" in fails(define(tmp_path, good, ids="clip"), home)
    assert "are not there" in fails(define(tmp_path, "gone.h5"), home)
    assert "names no source" in fails(define(tmp_path, None), home)
    with pytest.raises(BenchError, match="has no stream 'sound'; its streams: frames"):
        import_stream(define(tmp_path, good), "sound", home, CLIPS)
    (tmp_path / "cut.h5").write_bytes((tmp_path / "x.h5").read_bytes()[:1500])
    assert "cut.h5 is a truncated or damaged HDF5 file" in fails(define(tmp_path, "cut.h5"), home)
    np.savez(tmp_path / "all.npz", vid1=np.ones((2, 8)))
    (tmp_path / "notes.md").write_text("features")
    assert "all.npz is an archive (.npz or .zip): features of many" in fails(define(tmp_path, "all.npz"), home)
    assert "notes.md is no HDF5 file: features of many" in fails(define(tmp_path, "notes.md"), home)
    folder = tmp_path / "folder"
    folder.mkdir()
    assert "holds no file .npy or .npz or .h5 or .hdf5 or .pt or .pth" in fails(define(tmp_path, "folder"), home)
    for clip in CLIPS:
        np.save(folder / f"{clip}.npy", feature(clip))
    (folder / "deeper").mkdir()
    np.save(folder / "deeper" / "vid2.npy", feature("vid2"))
    assert "1 clips occur more than once (vid2 as vid2, vid2)" in fails(define(tmp_path, "folder"), home)
    (folder / "deeper" / "vid2.npy").unlink()
    (folder / "vid3.npy").write_bytes(b"")
    assert "1 clip of" in fails(define(tmp_path, "folder"), home)
    assert "(vid3: cannot be read: the file is empty)" in fails(define(tmp_path, "folder"), home)
    np.save(folder / "vid3.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    said = fails(define(tmp_path, "folder"), home)
    assert "no array of numbers, but Python objects" in said and "pickle" not in said


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (
            "videos: v, l2: true, columns: [0, 2]",
            "has columns, l2, of no use beside videos: leave it out, it belongs to source",
        ),
        ("videos: v, layout: matrix", "has layout, of no use beside videos"),
        ("videos: v, ids: zero_based", "has ids, of no use beside videos"),
        ("source: x.h5, fps: 2", "has fps, of no use beside source: leave it out, it belongs to videos"),
        ("source: x.h5, weights: w.safetensors, boxes: 3", "has weights, boxes, of no use beside source"),
        ("source: x.h5, videos: v", "names both source and videos"),
    ],
)
def test_keys_of_a_stream_that_would_do_nothing_are_named(tmp_path: Path, entry: str, said: str) -> None:
    text = "name: own\ncaptions: [{format: jsonl, files: {captions: c.jsonl}}]\n"
    (tmp_path / "dataset.yaml").write_text(text + f"streams: {{frames: {{{entry}}}}}\n")
    with pytest.raises(BenchError, match=rf"dataset.yaml: streams.frames {said}"):
        read_definition(tmp_path / "dataset.yaml")


def test_odd_arrays_and_lengths_are_sentences(tmp_path: Path, home: Home) -> None:
    for lengths in ([3, -1, 99, 0], [3.0, float("nan"), float("inf"), 0.0]):
        with h5py.File(tmp_path / "m.h5", "w") as file:
            file["features"], file["ids"], file["lens"] = np.ones((4, 5, 8), "f4"), CLIPS, lengths
        said = fails(define(tmp_path, "m.h5"), home)
        assert "3 clips of" in said and "its source gives it 0 frames of 5" in said and "vid1:" not in said
        assert "then `bench features import" in said
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file["features"], file["ids"] = np.ones((4, 5, 8), "f4"), CLIPS
        file.create_group("len")
    assert import_stream(define(tmp_path, "m.h5"), "frames", home, CLIPS).is_file()
    (home.cache / "own" / "frames.h5").unlink()
    (home.cache / "own" / "frames.json").unlink()
    per_clip(tmp_path / "x.h5", vid1=h5py.Empty("f4"))
    assert "vid1: cannot be read: it is empty" in fails(define(tmp_path, "x.h5"), home)
    per_clip(tmp_path / "x.h5", clips=[], vid1=h5py.Empty("f4"), words=np.array([b"a"]))
    assert "vid1 float32 empty" in fails(define(tmp_path, "x.h5"), home)
    odd = {"vid1": torch.ones(2, 8).to_sparse(), "vid2": torch.ones(2, 8, device="meta")}
    torch.save(odd | {clip: torch.ones(2, 8) for clip in ("vid3", "vid10")}, tmp_path / "t.pt")
    said = fails(define(tmp_path, "t.pt"), home)
    assert "vid1: cannot be read: a tensor of torch.sparse_coo on cpu: save it dense" in said and "on meta" in said
    (tmp_path / "one").mkdir()
    torch.save(odd["vid1"], tmp_path / "one" / "vid1.pt")
    assert "a tensor of torch.sparse_coo" in fails(define(tmp_path, "one"), home, ["vid1"])
    torch.save({"features": torch.tensor(1.0), "ids": CLIPS}, tmp_path / "t.pt")
    assert "holds besides tensors ids a list" in fails(define(tmp_path, "t.pt"), home)


def test_the_definition_takes_the_storage_that_a_sentence_asks_for() -> None:
    assert StreamSource(source="x.h5", dtype="float32").dtype == "float32"
    with pytest.raises(ValueError, match="float16"):
        StreamSource.model_validate({"source": "x.h5", "dtype": "int8"})


# -- text and folders -----------------------------------------------------------------------------------------------------


def test_lines_of_vectors_as_s2vt_published_them(tmp_path: Path, home: Home) -> None:
    lines = []
    for clip in CLIPS:
        frames = feature(clip)
        for number in np.random.default_rng(1).permutation(len(frames)):  # in any order
            lines.append(",".join([f"{clip}_frame_{number}", *(repr(float(value)) for value in frames[number])]))
    (tmp_path / "fc7.txt").write_text("\n".join(lines) + "\n")
    path = import_stream(define(tmp_path, "fc7.txt"), "frames", home, CLIPS)
    assert read_sidecar(path)["source"]["seen"] == "fc7.txt: 23 lines of vectors, 4 clips of width 8"
    with Cache(path) as cache:
        assert (cache.shape, cache.timed) == ((9, 8), True)
        for clip in CLIPS:
            values, length = cache.read(clip)
            np.testing.assert_array_equal(values[:length], feature(clip).astype(np.float16))
    cut = [*lines[:-1], lines[-1].rsplit(",", 1)[0]]
    (tmp_path / "cut.txt").write_text("\n".join(cut))
    assert "cannot be read: its lines are of different lengths" in fails(
        define(tmp_path, "cut.txt"), Home(tmp_path / "o")
    )


def bottom_up(path: Path, rows: dict[str, np.ndarray]) -> str:
    """Lines as bottom-up attention writes them: boxes and features in base64."""
    lines = []
    for name, values in rows.items():
        boxes = np.zeros((len(values), 4), np.float32)
        fields = [
            name,
            "320",
            "240",
            str(len(values)),
            *(base64.b64encode(a.tobytes()).decode() for a in (boxes, values)),
        ]
        lines.append("\t".join(fields))
    path.write_text("\n".join(lines) + "\n")
    return path.name


def test_boxes_as_bottom_up_attention_publishes_them(tmp_path: Path, home: Home) -> None:
    rng = np.random.default_rng(0)
    rows = {
        f"{clip}_{frame}": rng.random((3 - frame % 2, 6)).astype(np.float32)
        for clip in CLIPS
        for frame in (0, 8, 16, 25)
    }
    definition = define(tmp_path, bottom_up(tmp_path / "b.tsv", rows), stream="regions")
    path = import_stream(definition, "regions", home, CLIPS)
    assert read_sidecar(path)["source"]["seen"] == "b.tsv: 16 lines of boxes, at most 3 of a frame, of width 6, 4 clips"
    with Cache(path) as cache:
        assert (cache.shape, cache.timed) == ((4, 3, 6), True)
        values, length = cache.read("vid3")
        assert length == 4
        np.testing.assert_array_equal(values[2], rows["vid3_16"].astype(np.float16))
        np.testing.assert_array_equal(values[3, :2], rows["vid3_25"].astype(np.float16))
        assert not values[3, 2].any(), "a frame with fewer boxes has zeros after them"
    (tmp_path / "bad.tsv").write_text((tmp_path / "b.tsv").read_text().replace("\n", "!\n"))
    assert "no base64" in fails(define(tmp_path, "bad.tsv", stream="regions"), Home(tmp_path / "o"))


def test_numbers_at_the_end_of_a_name_are_frames_or_part_of_it_as_the_corpus_knows(tmp_path: Path, home: Home) -> None:
    """MSVD's clips are named by start and end: one line each is a clip of its own."""
    rows = {f"abc_{start}_{start + 5}": np.full((2, 3), start, np.float32) for start in (10, 20, 30)}
    definition = define(tmp_path, bottom_up(tmp_path / "b.tsv", rows), stream="regions")
    with Cache(import_stream(definition, "regions", home, list(rows))) as cache:
        assert cache.shape == (1, 2, 3)
        assert cache.read("abc_20_25")[0].max() == 20


def test_a_folder_of_hdf5_files_one_for_each_clip(tmp_path: Path, home: Home) -> None:
    (tmp_path / "features").mkdir()
    for clip in CLIPS:
        with h5py.File(tmp_path / "features" / f"{clip}.hdf5", "w") as file:
            file["anything"] = feature(clip)
    path = import_stream(define(tmp_path, "features"), "frames", home, CLIPS)
    assert read_sidecar(path)["source"]["seen"] == "features: folder of 4 .hdf5 files"
    with Cache(path) as cache:
        np.testing.assert_array_equal(cache.read("vid3")[0][:2], feature("vid3").astype(np.float16))


def test_a_command_names_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """`bench features import from=..`: what was recognised is said; runs take it; other features need replace=true."""
    monkeypatch.setenv("BENCH_HOME", str(tmp_path / "home"))
    (tmp_path / "captions.jsonl").write_text(
        "\n".join(json.dumps({"clip": clip, "caption": text}) for clip in CLIPS for text in ("a dog", "a cat"))
    )
    for split, ids in (("train", CLIPS[:2]), ("val", CLIPS[2:3]), ("test", CLIPS[3:])):
        (tmp_path / f"{split}.txt").write_text("\n".join(ids))
    (tmp_path / "dataset.yaml").write_text(
        "name: own\ncaptions: [{format: jsonl, files: {captions: captions.jsonl}}]\n"
        "splits: {train: train.txt, val: val.txt, test: test.txt}\nstreams: {frames: {source: mine.h5}}\n"
    )
    per_clip(tmp_path / "x.h5")
    start = ["features", "import", f"dataset={tmp_path / 'dataset.yaml'}"]
    assert main([*start, "stream=frames", f"from={tmp_path / 'x.h5'}", "frames=4", "encoder=vgg"]) == 0
    said = capsys.readouterr().out
    assert "own: x.h5: one dataset per clip, 4 clips, the first float32 [6, 8]" in said
    definition = read_definition(tmp_path / "dataset.yaml")
    prepare(definition, Home(tmp_path / "home"), None, ["frames"])
    path = tmp_path / "home" / ".bench" / "cache" / "own" / "frames.h5"
    with Cache(path) as cache:
        assert (cache.shape, cache.encoder) == ((4, 8), "vgg")
    per_clip(tmp_path / "y.h5")
    assert main([*start, "stream=frames", f"from={tmp_path / 'y.h5'}"]) == 2
    assert "holds features from" in capsys.readouterr().err
    per_clip(tmp_path / "mine.h5")
    assert main(start) == 2
    assert "that a command has made" in capsys.readouterr().err
    assert main([*start, "replace=true"]) == 0
    with Cache(path) as cache:
        assert cache.shape == (9, 8)
    assert main([*start, "layout=csv"]) == 2
    assert "layout= goes with from=PATH" in capsys.readouterr().err
    assert main([*start, "stream=motion", f"from={tmp_path / 'y.h5'}"]) == 0
    assert "declare it under streams:" in capsys.readouterr().out
