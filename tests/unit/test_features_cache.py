"""The feature cache: what is written is read, in any process; its fingerprint speaks of content; check finds nothing."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from bench import BenchError
from bench.features.cache import Cache, CacheWriter
from bench.features.check import check_cache
from bench.features.sidecar import list_caches, read_sidecar, sidecar_path
from bench.features.video import choose_frames
from bench.home import Home

SHAPE = (7, 12)


def clip_values(number: int, length: int = 7) -> np.ndarray:
    """Values that tell clip and place: no two clips are alike, none is zero."""
    return (np.arange(length * 12, dtype=np.float32).reshape(length, 12) + 1 + number) / 512


def write(path: Path, n: int = 5, **changes: object) -> Path:
    settings = {"stream": "frames", "shape": SHAPE, "timed": True, "dtype": "float16", "attributes": {}} | changes
    ids = changes.pop("ids", [f"vid{number}" for number in range(n)])
    settings["ids"] = ids
    with CacheWriter(path, **settings) as writer:  # type: ignore[arg-type]
        for number, clip in enumerate(ids):  # type: ignore[arg-type, var-annotated]
            writer.write(clip, clip_values(number, 3 if number == 1 else 7))
    return path


@pytest.fixture
def cache_file(tmp_path: Path) -> Path:
    return write(tmp_path / "cache" / "tiny" / "frames.h5")


def test_what_is_written_is_read(cache_file: Path) -> None:
    with Cache(cache_file) as cache:
        assert (cache.ids, cache.shape, cache.timed, cache.dtype) == (
            tuple(f"vid{number}" for number in range(5)),
            SHAPE,
            True,
            np.float16,
        )
        values, length = cache.read("vid1")
        assert length == 3
        np.testing.assert_array_equal(values[:3], clip_values(1, 3).astype(np.float16))
        assert not values[3:].any()
        many, lengths = cache.load(["vid4", "vid1", "vid4"])
        assert many.shape == (3, *SHAPE)
        assert lengths.tolist() == [7, 3, 7]
        np.testing.assert_array_equal(many[0], many[2])
        np.testing.assert_array_equal(many[1], values)
    assert check_cache(cache_file, [f"vid{number}" for number in range(5)]) == []
    assert [file.name for file in cache_file.parent.iterdir() if file.suffix == ".tmp"] == []


@pytest.mark.parametrize(
    ("dtype", "shape"), [("float16", (300,)), ("float32", (5, 3, 4)), ("uint8", (4, 3, 8, 8)), ("float16", (1, 1))]
)
def test_every_kind_of_stream(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    values = (np.random.default_rng(0).random((3, *shape)) * 255).astype(dtype)
    with CacheWriter(tmp_path / "d" / "s.h5", "s", shape, len(shape) > 1, dtype, ["a", "ä b", "c/d"]) as writer:
        for clip, one in zip(writer.ids, values, strict=True):
            writer.write(clip, one)
    with Cache(tmp_path / "d" / "s.h5") as cache:
        read, lengths = cache.load(["a", "ä b", "c/d"])
    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, values)
    assert lengths.tolist() == [shape[0]] * 3


def test_sidecar_tells_all_that_planning_needs(cache_file: Path) -> None:
    said = read_sidecar(cache_file)
    assert said == read_sidecar(sidecar_path(cache_file))
    assert {name: said[name] for name in ("schema", "stream", "shape", "timed", "dtype", "clips")} == {
        "schema": 1,
        "stream": "frames",
        "shape": [7, 12],
        "timed": True,
        "dtype": "float16",
        "clips": 5,
    }
    assert said["bytes"] == cache_file.stat().st_size
    with Cache(cache_file) as cache:
        assert said["fingerprint"] == cache.fingerprint


def test_sidecars_are_read_without_h5py(cache_file: Path) -> None:
    code = (
        "import sys; from bench.features.sidecar import read_sidecar, list_caches\n"
        f"read_sidecar({str(cache_file)!r})\n"
        "heavy = {'h5py', 'hdf5plugin', 'numpy', 'torch'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_fingerprint_speaks_of_content_alone(tmp_path: Path) -> None:
    def mark(name: str, **changes: object) -> str:
        return str(read_sidecar(write(tmp_path / name / "frames.h5", **changes))["fingerprint"])  # type: ignore[arg-type]

    first = mark("a", attributes={"encoder": {"name": "x"}, "source": {"path": "/here"}})
    assert first == mark("b", attributes={"encoder": {"name": "x"}, "source": {"path": "/there"}})
    others = [
        mark("c", attributes={"encoder": {"name": "y"}}),
        mark("d", attributes={"encoder": {"name": "x"}}, dtype="float32"),
        mark("e", attributes={"encoder": {"name": "x"}}, stream="motion"),
        mark("f", attributes={"encoder": {"name": "x"}}, ids=["vid1", "vid0", "vid2", "vid3", "vid4"]),
    ]
    assert len({first, *others}) == 5


def test_a_part_of_a_stream_has_the_fingerprint_of_the_stream(tmp_path: Path) -> None:
    """A generator names a stream before its clips are made: any part has that name, and says of itself what it holds."""
    whole = write(tmp_path / "whole" / "frames.h5")
    name = read_sidecar(whole)["fingerprint"]
    part = write(tmp_path / "part" / "frames.h5", n=3, named=name)
    with Cache(whole) as all_clips, Cache(part) as some:
        assert (some.fingerprint, len(some)) == (name, 3)
        assert all_clips.content == name != some.content
    assert read_sidecar(part)["content"] == read_sidecar(write(tmp_path / "three" / "frames.h5", n=3))["fingerprint"]
    assert check_cache(part) == []
    named = write(tmp_path / "named" / "frames.h5", named=name)
    assert named.read_bytes() == whole.read_bytes()
    with h5py.File(part, "r+") as file:
        file.attrs["content"] = np.bytes_(name.encode())
    assert "the fingerprint" in check_cache(part)[0].message


def test_fingerprint_does_not_depend_on_the_order_of_clips_but_on_true_lengths(tmp_path: Path) -> None:
    def mark(name: str, order: list[int], zero_frames: bool = False) -> str:
        path = tmp_path / name / "frames.h5"
        with CacheWriter(path, "frames", SHAPE, True, "float16", [f"vid{number}" for number in order]) as writer:
            for number in order:
                short = clip_values(number, 4)
                writer.write(f"vid{number}", np.vstack([short, np.zeros((3, 12))]) if zero_frames else short)
        return str(read_sidecar(path)["fingerprint"])

    assert mark("a", [0, 1, 2]) == mark("b", [2, 0, 1])
    # The same values, but here the zero frames are said to be real: a method would see another mask.
    assert mark("a", [0, 1, 2]) != mark("c", [0, 1, 2], zero_frames=True)


def test_a_cache_survives_forks_and_pickling(cache_file: Path) -> None:
    with Cache(cache_file) as cache:
        expected = {clip: cache.read(clip)[0].tobytes() for clip in cache.ids}
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                wrong = 99
                try:
                    wrong = sum(cache.read(clip)[0].tobytes() != expected[clip] for clip in list(expected) * 20)
                finally:
                    os._exit(min(wrong, 100))
            children.append(child)
        for clip in list(expected) * 40:
            assert cache.read(clip)[0].tobytes() == expected[clip]
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
        copy = pickle.loads(pickle.dumps(cache))
        assert copy.read("vid3")[0].tobytes() == expected["vid3"]
        copy.close()


def test_the_writer_refuses_what_does_not_fit(tmp_path: Path) -> None:
    bad = {
        "NaN or infinite": np.full(SHAPE, np.nan),
        "too large for float16": np.full(SHAPE, 1e6),
        "not \\(7, 12\\)": np.zeros((8, 12)),
        "shape": np.zeros((7, 11)),
    }
    for reason, values in bad.items():
        with (
            pytest.raises(BenchError, match=f"clip vid0 .*{reason}"),
            CacheWriter(tmp_path / "tiny" / "frames.h5", "frames", SHAPE, True, "float16", ["vid0"]) as writer,
        ):
            writer.write("vid0", values)
    with pytest.raises(BenchError, match=r"1 clip ids occur twice \(vid0\)"):
        CacheWriter(tmp_path / "tiny" / "frames.h5", "frames", SHAPE, True, "float16", ["vid0", "vid0"])
    with pytest.raises(BenchError, match="float64"):
        CacheWriter(tmp_path / "tiny" / "frames.h5", "frames", SHAPE, True, "float64", ["vid0"])
    assert not (tmp_path / "tiny" / "frames.h5").exists()


def test_a_cache_with_clips_missing_is_not_published(tmp_path: Path) -> None:
    path = tmp_path / "tiny" / "frames.h5"
    with (
        pytest.raises(BenchError, match=r"1 of 2 clips were not written \(vid1\)"),
        CacheWriter(path, "frames", SHAPE, True, "float16", ["vid0", "vid1"]) as writer,
    ):
        writer.write("vid0", clip_values(0))
    assert not path.exists()
    with CacheWriter(path, "frames", SHAPE, True, "float16", ["vid0", "vid1"]) as writer:
        assert writer.missing == ("vid1",)
        writer.write("vid1", clip_values(1))
    assert check_cache(path) == []


def test_other_settings_start_afresh(tmp_path: Path) -> None:
    path = tmp_path / "tiny" / "frames.h5"
    for attributes in ({"encoder": {"weights": "old"}}, {"encoder": {"weights": "new"}}):
        with (
            pytest.raises(KeyboardInterrupt),
            CacheWriter(path, "frames", SHAPE, True, "float16", ["vid0", "vid1"], attributes) as writer,
        ):
            assert writer.missing == ("vid0", "vid1")
            writer.write("vid0", clip_values(0))
            raise KeyboardInterrupt


def test_a_cache_replaced_while_in_use_is_noticed(cache_file: Path) -> None:
    cache = Cache(cache_file)
    assert cache.fingerprint
    cache.close()
    write(cache_file, dtype="float32")
    with pytest.raises(BenchError, match="replaced while it was in use"):
        cache.read("vid0")


def test_absent_things_are_said_with_the_next_command(tmp_path: Path, cache_file: Path) -> None:
    with pytest.raises(BenchError, match="`bench features import dataset=msvd stream=frames` makes it"):
        read_sidecar(tmp_path / "msvd" / "frames.h5")
    with pytest.raises(BenchError, match="`bench features import dataset=msvd stream=frames` makes it"):
        Cache(tmp_path / "msvd" / "frames.h5").read("vid0")
    with pytest.raises(
        BenchError, match=r"clip vid9 is not among the 5 clips .*`bench features check dataset=FILE.yaml"
    ):
        Cache(cache_file).load(["vid0", "vid9"])


def test_caches_are_listed_with_what_is_wrong_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "cache" / "tiny" / "frames.h5")
    sidecar_path(write(tmp_path / "cache" / "tiny" / "motion.h5")).write_text(json.dumps({"schema": 1}))
    sidecar_path(write(tmp_path / "cache" / "tiny" / "audio.h5")).unlink()
    (tmp_path / "cache" / "tiny" / "words.h5.tmp").touch()
    rows = {row["stream"]: row for row in list_caches(Home(tmp_path))}
    assert list(rows) == ["audio", "frames", "motion", "words"]
    assert (rows["frames"]["dataset"], rows["frames"]["clips"]) == ("tiny", 5)
    assert "error" not in rows["frames"]
    assert "has no sidecar" in rows["audio"]["error"]
    assert "is no sidecar of a feature cache" in rows["motion"]["error"]
    assert "interrupted" in rows["words"]["unfinished"]


def test_check_compares_with_the_corpus(cache_file: Path) -> None:
    findings = check_cache(cache_file, ["vid0", "vid1", "vid2", "vid3", "vid7"])
    assert [(finding.severity, finding.clips) for finding in findings] == [("error", ("vid7",)), ("warning", ("vid4",))]


def test_other_programs_read_the_file(cache_file: Path) -> None:
    with h5py.File(cache_file) as file:
        assert file["features"].chunks == (1, *SHAPE)
        assert file["features"].fletcher32
        assert file["ids"][1] == b"vid1"
        assert file["lengths"][1] == 3


def test_frames_are_equally_spaced_with_both_ends() -> None:
    assert choose_frames(300, 28).tolist() == [round(i * 299 / 27) for i in range(28)]
    assert choose_frames(28, 28).tolist() == list(range(28))
    assert choose_frames(2, 4).tolist() == [0, 0, 1, 1]
    assert choose_frames(9, 1).tolist() == [0]
