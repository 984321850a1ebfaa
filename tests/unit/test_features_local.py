"""Copies of caches on a node's own disk: made once, whole or not at all, and never of another version."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import BenchError
from bench.cell import inputs
from bench.features import node_copy as local
from bench.features.cache import Cache, CacheWriter
from bench.features.node_copy import local_copy
from bench.features.shapes import write_streams
from bench.home import Home


def write(path: Path, value: float = 1.0) -> str:
    with CacheWriter(path, "frames", (4, 3), True, "float16", ["a", "b"]) as writer:
        for clip in ("a", "b"):
            writer.write(clip, np.full((4, 3), value, np.float32))
    with Cache(path) as cache:
        return cache.fingerprint


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    return tmp_path / "shared" / "little" / "frames.h5"


def test_many_readers_make_one_copy(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark, copied = write(shared), []
    copy = shutil.copyfile

    def counted(source: Any, target: Any) -> None:
        copied.append(target)
        copy(source, target)

    monkeypatch.setattr(local.shutil, "copyfile", counted)
    with ThreadPoolExecutor(6) as pool:
        paths = set(pool.map(lambda _: local_copy(shared, mark, tmp_path / "node"), range(6)))
    assert len(copied) == 1 and len(paths) == 1
    (path,) = paths
    assert path.read_bytes() == shared.read_bytes() and path.is_relative_to(tmp_path / "node")
    assert (path.parent.name, path.name) == ("little", "frames.h5"), "sentences name data set and stream by it"
    assert local_copy(shared, mark, tmp_path / "node") == path and len(copied) == 1


def test_another_version_is_another_copy(shared: Path, tmp_path: Path) -> None:
    first = local_copy(shared, write(shared), tmp_path / "node")
    second = local_copy(shared, write(shared, 2.0), tmp_path / "node")
    assert first != second
    with Cache(first) as old, Cache(second) as new:
        assert (old.read("a")[0][0, 0], new.read("a")[0][0, 0]) == (1.0, 2.0)


def test_a_cache_that_grew_is_another_copy(shared: Path, tmp_path: Path) -> None:
    """A part of a generated stream has the stream's fingerprint: a cell of more clips must not be given the old copy."""
    home, node = Home(tmp_path), tmp_path / "node"
    size = {"size": [5, 2, 2]}
    copies = []
    for subset in ((1, 1, 1), (2, 1, 1)):
        write_streams(home, size, subset, streams=["audio"])
        with Cache(home.cache / "shapes" / "audio.h5") as cache:
            mark = cache.fingerprint
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("BENCH_NODE_CACHE", str(node))
            copies.append(inputs._cache({"dataset": "shapes"}, "audio", mark, home))
    few, more = copies
    assert (len(few), len(more)) == (3, 4)
    assert few.fingerprint == more.fingerprint


def test_a_copy_that_fails_leaves_nothing_that_looks_whole(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = write(shared)
    with pytest.raises(BenchError, match="changed while it was copied"):
        local_copy(shared, "0" * 64, tmp_path / "node")

    def torn(source: Any, target: Path) -> None:
        target.write_bytes(shared.read_bytes()[:2000])

    monkeypatch.setattr(local.shutil, "copyfile", torn)
    with pytest.raises(BenchError, match="truncated"):
        local_copy(shared, mark, tmp_path / "node")
    assert not list((tmp_path / "node").rglob("frames.h5*"))


def test_a_place_that_cannot_be_written_is_a_sentence(shared: Path, tmp_path: Path) -> None:
    mark = write(shared)
    (tmp_path / "node").write_text("a file")
    with pytest.raises(BenchError, match=r"cannot be written .* set BENCH_NODE_CACHE to another folder"):
        local_copy(shared, mark, tmp_path / "node")


def test_cells_read_the_copy_where_the_node_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, config = Home(tmp_path), {"dataset": "little"}
    monkeypatch.delenv("BENCH_CACHE", raising=False)
    mark = write(home.cache / "little" / "frames.h5")
    monkeypatch.delenv("BENCH_NODE_CACHE", raising=False)
    assert inputs._cache(config, "frames", mark, home).path == home.cache / "little" / "frames.h5"
    monkeypatch.setenv("BENCH_NODE_CACHE", str(tmp_path / "node"))
    cache = inputs._cache(config, "frames", mark, home)
    assert cache.path.is_relative_to(tmp_path / "node") and cache.fingerprint == mark
    with pytest.raises(BenchError, match="changed since this cell was planned"):
        inputs._cache(config, "frames", "0" * 64, home)
