"""What happens to a feature cache when writers die, disks fill up and bits flip: found, named, and mended."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import bench.features.cache as cache_module
from bench import BenchError
from bench.features.cache import Cache, CacheWriter
from bench.features.check import check_cache
from bench.features.sidecar import read_sidecar, sidecar_path
from bench.home import CHECKOUT
from tests.faults.commands import build_layer

SHAPE = (14, 256)
CLIPS = [f"vid{number}" for number in range(48)]


def clip_values(clip: str) -> np.ndarray:
    rng = np.random.default_rng(int(clip.removeprefix("vid")))
    return rng.random((int(rng.integers(1, 15)), 256)).astype(np.float16)


def write(path: Path, pause: float = 0.0, clips: list[str] | None = None) -> None:
    with CacheWriter(
        path, "frames", SHAPE, True, "float16", CLIPS, {"encoder": {"name": "x"}}, flush_every=4
    ) as writer:
        for clip in clips or writer.missing:
            writer.write(clip, clip_values(clip))
            time.sleep(pause)


def in_child(work: Callable[[], object]) -> int:
    """Start `work` in a forked process; its exit code is 0, 7 after a BenchError, 9 after any other error."""
    child = os.fork()
    if child == 0:
        code = 9
        try:
            work()
            code = 0
        except BenchError:
            code = 7
        finally:
            os._exit(code)
    return child


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture(scope="session")
def fingerprint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the cache written without any interruption."""
    path = tmp_path_factory.mktemp("whole") / "tiny" / "frames.h5"
    write(path)
    return str(read_sidecar(path)["fingerprint"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tiny" / "frames.h5"


def assert_whole(path: Path, fingerprint: str) -> None:
    assert check_cache(path, CLIPS) == []
    assert read_sidecar(path)["fingerprint"] == fingerprint
    assert sorted(file.name for file in path.parent.iterdir()) == ["frames.h5", "frames.json"]


def test_killed_at_any_moment_and_gone_on_with(tmp_path: Path, fingerprint: str) -> None:
    rng = random.Random(0)
    kept = []
    for attempt in range(8):
        path = tmp_path / str(attempt) / "frames.h5"
        child = in_child(lambda path=path: write(path, pause=0.002))  # type: ignore[misc]
        time.sleep(rng.uniform(0.01, 0.12))
        os.kill(child, signal.SIGKILL)
        ended(child)
        if not sidecar_path(path).exists():
            with pytest.raises(BenchError, match="no feature cache"):
                Cache(path).read("vid0")
            with CacheWriter(path, "frames", SHAPE, True, "float16", CLIPS, {"encoder": {"name": "x"}}) as writer:
                kept.append(len(CLIPS) - len(writer.missing))
                for clip in writer.missing:
                    writer.write(clip, clip_values(clip))
        assert_whole(path, fingerprint)
    assert max(kept) > 4, "no killed writer left anything to go on with"


@pytest.mark.parametrize(
    ("moment", "published"), [("_finish", False), ("sync_folder", True), ("write_sidecar", True), ("describe", True)]
)
def test_killed_at_the_end(
    path: Path, fingerprint: str, monkeypatch: pytest.MonkeyPatch, moment: str, published: bool
) -> None:
    owner = CacheWriter if moment == "_finish" else cache_module
    with monkeypatch.context() as patch:
        patch.setattr(owner, moment, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        assert ended(in_child(lambda: write(path))) == -signal.SIGKILL
    assert path.exists() == published
    if published:  # with or without its sidecar, what has the cache's name is whole
        with Cache(path) as cache:
            assert cache.fingerprint == fingerprint
    write(path)
    assert_whole(path, fingerprint)


def test_an_old_sidecar_never_describes_a_new_cache(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with CacheWriter(path, "frames", (1,), False, "float32", ["vid0"]) as writer:
        writer.write("vid0", np.ones(1))
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "describe", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        assert ended(in_child(lambda: write(path))) == -signal.SIGKILL
    with pytest.raises(BenchError, match="no feature cache"):
        read_sidecar(path)


def test_clips_damaged_in_the_file_aside_are_written_again(path: Path, fingerprint: str) -> None:
    def interrupted() -> None:
        with CacheWriter(path, "frames", SHAPE, True, "float16", CLIPS, {"encoder": {"name": "x"}}) as writer:
            for clip in CLIPS[:20]:
                writer.write(clip, clip_values(clip))
            raise BenchError("enough")

    assert ended(in_child(interrupted)) == 7
    with h5py.File(path.with_name("frames.h5.tmp"), "r+") as file:
        file["features"][3] = 0
    with CacheWriter(path, "frames", SHAPE, True, "float16", CLIPS, {"encoder": {"name": "x"}}) as writer:
        assert writer.missing == ("vid3", *CLIPS[20:])
        for clip in writer.missing:
            writer.write(clip, clip_values(clip))
    assert_whole(path, fingerprint)


def test_two_writers(path: Path, fingerprint: str) -> None:
    child = in_child(lambda: write(path, pause=0.05))
    while not path.with_name("frames.h5.tmp").exists() or path.with_name("frames.h5.tmp").stat().st_size == 0:
        time.sleep(0.005)
    try:
        with pytest.raises(BenchError, match=r"frames.h5.tmp is being written by another process: wait for it"):
            write(path)
    finally:
        os.kill(child, signal.SIGKILL)
        ended(child)
    write(path)  # the lock died with its owner
    assert_whole(path, fingerprint)


@pytest.mark.parametrize("limit", [1 << 10, 1_100_000, 1_200_000])
def test_a_full_disk_is_a_sentence_and_the_work_is_kept(
    path: Path, fingerprint: str, tmp_path: Path, limit: int
) -> None:
    said = tmp_path / "said.txt"

    def small_disk() -> None:
        pipe = said.open("w")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            write(path)
        except BenchError as error:
            pipe.write(str(error))
            pipe.close()
            raise

    assert ended(in_child(small_disk)) == 7
    assert "the disk or quota is full while writing" in said.read_text()
    assert (
        "`bench features import dataset=FILE.yaml stream=frames` (FILE.yaml: the definition of tiny)"
        in said.read_text()
    )
    assert not path.exists()
    assert not sidecar_path(path).exists()
    write(path)
    assert_whole(path, fingerprint)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BenchError, match=r"cannot be written .* or set BENCH_CACHE"):
        write(tmp_path / "file" / "tiny" / "frames.h5")


def test_truncation_is_found_at_any_length(path: Path) -> None:
    write(path)
    whole = path.read_bytes()
    for size in (0, 10, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        findings = check_cache(path)
        assert [finding.severity for finding in findings] == ["error"]
        assert f"{path} is truncated, damaged or no cache" in findings[0].message
        assert (
            "`bench features import dataset=FILE.yaml stream=frames` (FILE.yaml: the definition of tiny)"
            in findings[0].message
        )
        with pytest.raises(BenchError, match="truncated"):
            Cache(path).load(["vid0"])


def test_flipped_bits_in_values_are_found_and_the_clips_named(path: Path) -> None:
    write(path)
    whole = path.read_bytes()
    with h5py.File(path) as file:
        places = {clip: file["features"].id.get_chunk_info(row) for row, clip in enumerate(CLIPS)}
    rng = random.Random(0)
    for clip in rng.sample(CLIPS, 20):
        damaged = bytearray(whole)
        place = places[clip]
        damaged[place.byte_offset + rng.randrange(place.size)] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        (finding,) = check_cache(path)
        assert (finding.severity, finding.clips) == ("error", (clip,))
        with Cache(path) as cache, pytest.raises(BenchError, match=f"damaged at clip {clip} .*bench features check"):
            cache.load(CLIPS)


def test_flipped_bits_anywhere_never_change_what_is_read(path: Path) -> None:
    write(path, clips=None)
    whole = bytearray(path.read_bytes())
    with Cache(path) as cache:
        expected = cache.load(CLIPS)[0].tobytes()
    rng = random.Random(0)
    found = 0
    for _ in range(40):
        position, bit = rng.randrange(len(whole)), 1 << rng.randrange(8)
        with path.open("r+b") as file:
            file.seek(position)
            file.write(bytes([whole[position] ^ bit]))
        if any(finding.severity == "error" for finding in check_cache(path)):
            found += 1
        else:  # a place that nothing lies in
            with Cache(path) as cache:
                assert cache.load(CLIPS)[0].tobytes() == expected
        path.write_bytes(whole)
    assert found > 15


def test_values_replaced_under_a_right_checksum_are_found(path: Path) -> None:
    write(path)
    with h5py.File(path, "r+") as file:
        file["features"][7] = file["features"][8]
        file["features"][9, 0, 0] = np.nan
        file["lengths"][11] = 99
        file["features"][12] = 0
    found = {finding.message.split(str(path))[1].split("(")[0].strip(): finding.clips for finding in check_cache(path)}
    assert found["are not what was written"] == ("vid7", "vid9", "vid11", "vid12")
    assert found["hold NaN or infinite values"] == ("vid9",)
    assert found["have a length outside 1..14"] == ("vid11",)
    assert found["are zero throughout"] == ("vid12",)


def test_wrong_shapes_flags_and_ids_are_found(path: Path) -> None:
    write(path)
    with h5py.File(path, "r+") as file:
        file["done"][5] = 0
        file["ids"][6] = b"vid5"
    messages = "\n".join(finding.message for finding in check_cache(path, CLIPS))
    assert "were never written (vid5)" in messages
    assert "occur more than once (vid5)" in messages
    assert "1 clips of the corpus have no features" in messages
    assert "the fingerprint" in messages
    with h5py.File(path, "r+") as file:
        del file["features"]
        file["features"] = np.zeros((3, 14, 256), np.float16)
    messages = "\n".join(finding.message for finding in check_cache(path))
    assert "holds float16 (3, 14, 256) where float16 (48, 14, 256) is declared" in messages


def test_a_sidecar_that_disagrees_is_found_and_not_believed(path: Path) -> None:
    write(path)
    said = read_sidecar(path)
    sidecar_path(path).write_text(json.dumps(said | {"fingerprint": "0" * 64, "clips": 47}))
    (finding,) = check_cache(path)
    assert "frames.json disagrees with frames.h5 in clips, fingerprint" in finding.message
    with pytest.raises(BenchError, match="different fingerprints"):
        Cache(path).read("vid0")
    sidecar_path(path).write_text("{")
    assert "cannot be read as the sidecar" in check_cache(path)[0].message
    sidecar_path(path).unlink()
    assert "has no sidecar" in check_cache(path)[0].message


ERRORS = ((errno.EIO, 0), (errno.EROFS, 1), (errno.ENOSPC, 1))


def disturbed(folder: Path) -> None:
    """In a process with the layer: a write of a cache fails in each home, once or with all after it."""
    layer, count = ctypes.CDLL(None), folder / "count"

    def attempt(home: Path, moment: int, number: int, lasting: int) -> tuple[int, int]:
        """Exit status, 7 where the failure was a sentence, and how many writes there were."""
        home.mkdir()
        count.unlink(missing_ok=True)
        if child := os.fork():
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), int.from_bytes(
                count.read_bytes()[:8], sys.byteorder
            )
        fields = (home, "frames.h5.tmp", moment, "error", number, lasting, count, "")
        layer.bench_fault("\x1f".join(map(str, fields)).encode())
        try:
            write(home / "frames.h5")
        except BenchError as error:
            (home / "said").write_text(str(error))
            sys.exit(7)  # on the way out everything is closed that is still open
        sys.exit(0)

    _, writes = attempt(folder / "whole", 0, 0, 0)
    # Its beginning, its end, and of the flushes between them, which are all alike, some.
    moments = [*range(1, 25), *range(25, writes - 16, 5), *range(writes - 16, writes + 1)]
    for place, moment in enumerate(moments):
        number, lasting = ERRORS[place % 3]
        home = folder / f"{moment}.{number}"
        status, done = attempt(home, moment, number, lasting)
        assert done >= moment
        print(home.name, status, flush=True)


def test_no_write_that_fails_harms_more_than_the_command(tmp_path: Path, fingerprint: str) -> None:
    if shutil.which("cc") is None:
        pytest.skip("a layer between a process and its files wants a C compiler")
    words = "import pathlib, sys; from tests.faults.test_cache_faults import disturbed; disturbed(pathlib.Path(sys.argv[1]))"
    place = {"LD_PRELOAD": str(build_layer(tmp_path)), "PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'tests'}"}
    ran = subprocess.run(
        [sys.executable, "-c", words, tmp_path],
        env={**os.environ, **place},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    failed = [line.split() for line in ran.stdout.splitlines()]
    assert len(failed) > 50
    for home, status in failed:
        assert status in "07", f"a write that failed at {home} ended the process with {status}"
        said = tmp_path / home / "said"
        assert said.exists() == (status == "7")
        if status == "7":
            assert re.search(r"(quota is full while writing|cannot be written \([A-Z][a-z /-]+\))", said.read_text())
            said.unlink()
            write(tmp_path / home / "frames.h5")
        assert_whole(tmp_path / home / "frames.h5", fingerprint)
