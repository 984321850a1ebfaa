"""Files from elsewhere: what they declare is held against what is there, before memory is taken for it."""

from __future__ import annotations

import io
import json
import random
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from bench import BenchError
from bench.data.readers import FORMATS
from bench.disk.arrays import array_shape, read_array, read_arrays
from bench.disk.limits import FREE, amount, check_json, check_member, check_name, check_size
from bench.features.formats import open_source
from bench.features.importers import check_source
from bench.home import Home
from bench.records.figure_data import read_trace
from tests.unit.small_world import definition_at

CLIPS = ["vid1", "vid2"]


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def npz(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("feats.npy", content)


def hdf5(path: Path, **arrays: tuple[tuple[int, ...], str]) -> None:
    """A file of a few kilobytes: arrays without any values."""
    with h5py.File(path, "w") as file:
        for name, (shape, dtype) in arrays.items():
            file.create_dataset(name, shape, dtype, chunks=(min(shape[0], 1000), *shape[1:]))


def linked(path: Path) -> None:
    """An array whose values are those of another file."""
    secret = path.with_name("secret")
    secret.write_bytes(b"0123456789abcdef" * 4)
    with h5py.File(path, "w") as file:
        for clip in CLIPS:
            file.create_dataset(clip, (4, 4), "<f4", external=[(str(secret), 0, 64)])


def folder_of(name: str, write: Callable[[Path], object]) -> Callable[[Path], str]:
    def make(place: Path) -> str:
        (place / "feats").mkdir()
        for clip in CLIPS:
            write(place / "feats" / f"{clip}{name}")
        return "feats"

    return make


def file_of(name: str, write: Callable[[Path], object]) -> Callable[[Path], str]:
    def make(place: Path) -> str:
        write(place / name)
        return name

    return make


BOMBS: dict[str, tuple[Callable[[Path], str], str]] = {
    "npy header": (folder_of(".npy", lambda p: p.write_bytes(header((10**9, 4)))), "declares 16.0 GB in 0 bytes"),
    "npy of negative size": (folder_of(".npy", lambda p: p.write_bytes(header((-1, 4)) + b"\0" * 16)), "declares"),
    "npz header": (folder_of(".npz", lambda p: npz(p, header((10**12, 4)))), "declares 16.0 TB"),
    "npz expansion": (
        folder_of(".npz", lambda p: npz(p, header((10, 2**21)) + bytes(80 * 2**20))),
        r"feats.npy in the archive declares 83\.9 MB in 81\.6 kB",
    ),
    "hdf5 per clip": (
        file_of("x.h5", lambda p: hdf5(p, **dict.fromkeys(CLIPS, ((10**9, 4), "<f4")))),
        "declares 16.0 GB in 0 bytes",
    ),
    "hdf5 per folder": (
        folder_of(".h5", lambda p: hdf5(p, feats=((10**9, 4), "<f4"))),
        "declares 16.0 GB in 0 bytes",
    ),
    "hdf5 rows": (file_of("x.h5", lambda p: hdf5(p, feats=((10**9, 4), "<f4"))), "declares 80.0 GB in 0 bytes"),
    "hdf5 wide row": (file_of("x.h5", lambda p: hdf5(p, feats=((2, 5 * 10**8), "<f4"), ids=((2,), "S8"))), "declares"),
    "hdf5 ids": (
        file_of("x.h5", lambda p: hdf5(p, feats=((2, 4), "<f4"), ids=((2,), "S90000000"))),
        "declares 180.0 MB in 0 bytes",
    ),
    "hdf5 of another file": (file_of("x.h5", linked), "vid1 lies in other files"),
    "boxes": (
        file_of("x.tsv", lambda p: p.write_text("".join(f"{clip}_0\t1\t1\t{10**9}\tAAAA\tAAAA\n" for clip in CLIPS))),
        "declares 1000000000 boxes",
    ),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_features_that_declare_more_than_they_hold_are_refused(kind: str, tmp_path: Path) -> None:
    write, said = BOMBS[kind]
    source = write(tmp_path)
    definition = definition_at(tmp_path, "regions" if kind == "boxes" else "frames", source=source)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BenchError, match=said):
        check_source(definition, next(iter(definition.streams)), Home(tmp_path / "home"), CLIPS)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 2 * FREE


def test_what_is_as_large_as_it_says_is_read(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.save(tmp_path / "a.npy", np.asfortranarray(values))
    np.savez_compressed(tmp_path / "a.npz", feats=values, more=values[0])
    for name in ("a.npy", "a.npz"):
        np.testing.assert_array_equal(read_array(tmp_path / name, lambda names: names[0]), values)
        assert array_shape(tmp_path / name, lambda names: names[0]) == (2, 3, 4)
    assert {name: array.shape for name, array in read_arrays(tmp_path / "a.npz").items()} == {
        "feats": (2, 3, 4),
        "more": (3, 4),
    }
    # Zeros shrink a thousandfold: what is small may.
    np.savez_compressed(tmp_path / "zeros.npz", feats=np.zeros((1000, 1000), np.float32))
    assert not read_array(tmp_path / "zeros.npz", lambda names: names[0]).any()


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "packed.npz"])
def test_one_changed_byte_is_a_sentence_or_the_array(name: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((3, 5)).astype(np.float32)
    path = tmp_path / name
    {"a.npy": np.save, "a.npz": np.savez, "packed.npz": np.savez_compressed}[name](path, values)
    whole, dice = path.read_bytes(), random.Random(name)
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ dice.randrange(1, 256)]) + whole[place + 1 :])
        try:
            found = read_array(path, lambda names: names[0])
            shape = array_shape(path, lambda names: names[0])
        except (ValueError, OSError):
            refused += 1
        else:
            assert found.shape == shape
            # A .npz has a checksum for its values, a .npy has none.
            assert name == "a.npy" or np.array_equal(found, values) or found.dtype != values.dtype
        path.write_bytes(whole[:place])
        with pytest.raises((ValueError, OSError)):
            read_array(path, lambda names: names[0])
    assert refused > 60


def test_a_damaged_trace_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text('{"clips": []}')
    (tmp_path / "f.npz").write_bytes(b"PK\5\6")
    with pytest.raises(BenchError, match=r"f\.json and its frames cannot be read"):
        read_trace(tmp_path, "f")


# -- captions -------------------------------------------------------------------------------------------------------------

CAPTIONS = {
    "a zip of zeros": ("msrvtt", "x.zip", "in the archive declares 83.9 MB"),
    "a list of lists": ("coco", "x.json", "made of brackets and commas"),
    "deep lists": ("coco", "x.json", "nests too deeply"),
    "digits": ("jsonl", "x.jsonl", "line 1 is no JSON of captions: a number in it has thousands of digits"),
    "digits in JSON": ("coco", "x.json", "is no JSON of captions: a number in it has thousands of digits"),
    "a long name": ("jsonl", "x.jsonl", "is longer than 255 bytes"),
    "a long caption": ("jsonl", "x.jsonl", "has 70,000 characters: at most 65,536"),
    "columns": ("csv", "x.csv", "has 100,002 columns"),
    "a time of NaN": ("activitynet", "x.json", "nan is no time"),
    "a huge time": ("activitynet", "x.json", "a number is too large"),
    "an infinite time": ("jsonl", "x.jsonl", "must be seconds"),
}


def content(kind: str) -> str:
    event = {"duration": 9, "timestamps": [[0, 1]], "sentences": ["a man"]}
    return {
        "a list of lists": "[" + "[]," * 2**20 + "[]]",
        "deep lists": "[" * 10**5 + "]" * 10**5,
        "digits": '{"clip": ' + "1" * 5000 + ', "caption": "a"}',
        "digits in JSON": "1" * 5000,
        "a long name": json.dumps({"clip": "é" * 128, "caption": "a"}),
        "a long caption": json.dumps({"clip": "a", "caption": "a " * 35000}),
        "columns": "clip,caption," + ",".join(f"c{number}" for number in range(10**5)) + "\n" + "a,b\n" * 50,
        "a time of NaN": json.dumps({"v": event | {"timestamps": [[float("nan"), 1]]}}),
        "a huge time": json.dumps({"v": event | {"duration": 10**400}}),
        "an infinite time": '{"clip": "a", "caption": "b", "start": 0, "end": 1e999}',
    }[kind]


@pytest.mark.parametrize("kind", CAPTIONS)
def test_captions_that_cannot_be_meant_are_sentences(kind: str, tmp_path: Path) -> None:
    form, name, said = CAPTIONS[kind]
    path = tmp_path / name
    if form == "msrvtt":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.json", bytes(80 * 2**20))
        files = {"data": path}
    else:
        path.write_text(content(kind))
        files = {"train": path, "val_1": path} if form == "activitynet" else {"captions": path}
    with pytest.raises(BenchError, match=said):
        FORMATS[form].read(files)


def test_every_changed_byte_of_a_zip_of_captions_is_a_sentence_or_the_captions(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    videos = {"videos": [{"video_id": "v", "split": "train"}], "sentences": [{"video_id": "v", "caption": "a man"}]}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.json", json.dumps(videos))
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            source = FORMATS["msrvtt"].read({"data": path})
        except BenchError:
            continue
        assert source.captions["v"][0].text == "a man"


def test_limits_leave_room_for_what_is_meant() -> None:
    check_size(FREE, 0, "x")
    check_size(200 * FREE, 2 * FREE, "x")
    with pytest.raises(ValueError, match=r"x declares 67\.1 MB in 1 bytes of file"):
        check_size(FREE + 1, 1, "x")
    check_json(json.dumps([{"image_id": number, "caption": "a man is singing"} for number in range(10**5)]))
    check_json(json.dumps({"v": {"timestamps": [[0.5, 9.25]] * 9, "sentences": ["a man plays"] * 9}}) * 10**4)
    assert check_name("a" * 255) == "a" * 255
    info = zipfile.ZipInfo("x")
    info.file_size, info.compress_size = 10 * FREE, FREE
    check_member(info)
    assert [amount(size) for size in (1, 999, 5100, 2.5e9)] == ["1 bytes", "999 bytes", "5.1 kB", "2.5 GB"]


@pytest.mark.parametrize("chunks", [None, (2,)])
def test_a_damaged_heap_of_texts_is_refused_where_the_library_would_never_end(
    tmp_path: Path, chunks: tuple[int] | None
) -> None:
    path = tmp_path / "features.h5"
    with h5py.File(path, "w") as file:
        file["features"] = np.ones((2, 3), np.float32)
        file.create_dataset("ids", data=CLIPS, dtype=h5py.string_dtype(), chunks=chunks)
    source = open_source(path, "auto", None, len)
    assert list(source.names) == CLIPS
    source.close()
    content = bytearray(path.read_bytes())
    heap = content.index(b"GCOL")
    free = heap + 16 + 2 * (16 + 8)  # behind its two texts
    assert content[free : free + 2] == b"\0\0" and int.from_bytes(content[free + 8 : free + 16], "little") > 16
    content[free + 8 : free + 16] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(BenchError, match="lists texts of which the file has lost the places"):
        open_source(path, "auto", None, len)
