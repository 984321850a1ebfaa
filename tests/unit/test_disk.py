"""Files that are whole or not there at all, and locks that end with their holder."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bench import BenchError
from bench.disk.locks import CellBusyError, Note, cell_lock, lock_file, lock_holder
from bench.disk.whole import replacing, write_atomically, write_whole
from bench.home import CHECKOUT, Home


def test_what_fails_on_the_way_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    for several in (False, True):
        with pytest.raises(ZeroDivisionError), replacing(path, several=several) as aside:
            aside.write_text("half of the n")
            raise ZeroDivisionError
    with pytest.raises(BenchError, match=r"cannot write .*file \(the disk is full\): free some disk space"):
        write_whole(path, _fill)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _fill(aside: Path) -> None:
    aside.write_text("half of the n")
    raise RuntimeError("the disk is full")  # as torch says it


def _write(aside: Path) -> None:
    aside.write_text("new")


def test_content_is_on_disk_before_its_name_and_the_name_before_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the rename must not leave a name over content that never came."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        steps.append("folder" if os.path.samestat(os.fstat(descriptor), tmp_path.stat()) else "content")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        steps.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    write_atomically(tmp_path / "text", "new")
    write_whole(tmp_path / "whole", _write)
    assert steps == ["content", "name", "folder"] * 2
    assert (tmp_path / "text").read_text() == (tmp_path / "whole").read_text() == "new"


def test_several_may_write_one_file_at_once(tmp_path: Path) -> None:
    path, seen = tmp_path / "file", set[str]()
    contents = [letter * 200_000 for letter in "abcd"]
    write_atomically(path, contents[0])
    writers = [
        threading.Thread(target=lambda text=text: [write_atomically(path, text) for _ in range(20)])  # type: ignore[misc]
        for text in contents
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        seen.add(path.read_text())
    assert seen <= set(contents), "a reader saw a part"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_aside_goes_with_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path, several=True) as mine:
        mine.write_text("mine")
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, path], env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, check=False
        )
        assert killed.returncode == -signal.SIGKILL and len(list(tmp_path.iterdir())) == 2
        (tmp_path / ".file.another.tmp").touch()  # nobody knows whose
        write_atomically(path, "another")
        assert sorted(tmp_path.iterdir()) == sorted([path, mine, tmp_path / ".file.another.tmp"])
    assert path.read_text() == "mine"


KILLED = """
import os, sys
from pathlib import Path
from bench.disk.whole import replacing
with replacing(Path(sys.argv[1]), several=True) as aside:
    os.kill(os.getpid(), 9)
"""


def test_others_may_read_what_was_written(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_notes_of_any_bytes_are_nobodys(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "1").write_bytes(b"\xff\xfe")
    assert Note(tmp_path / "notes", "x").left() == []
    with cell_lock(Home(tmp_path), "key"):
        (tmp_path / ".bench" / "locks" / "key.lock").write_bytes(b"\xff")
        assert lock_holder(Home(tmp_path), "key") is not None
        os.mkfifo(tmp_path / ".bench" / "locks" / "pipe.lock")
        assert lock_holder(Home(tmp_path), "pipe") is None
        with pytest.raises(CellBusyError), cell_lock(Home(tmp_path), "key", wait=0):
            pass


HOLD = """
import sys, time
from bench.disk.locks import lock_file
file = open(sys.argv[1], "a")
print(lock_file(file.fileno(), shared=sys.argv[2] == "shared"), flush=True)
time.sleep(60)
"""


def test_a_lock_ends_with_its_holder_however_that_ends(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path), "alone"], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "True\n"
        with path.open("a") as file:
            began = time.monotonic()
            assert not lock_file(file.fileno())
            assert not lock_file(file.fileno(), wait=0.5) and time.monotonic() - began >= 0.5
            threading.Timer(0.5, holder.kill).start()
            assert lock_file(file.fileno(), wait=math.inf)
    finally:
        holder.kill()
        holder.wait()


def test_shared_locks_keep_out_exclusive_ones_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with path.open("a") as one, path.open("a") as two, path.open("a") as three:
        assert lock_file(one.fileno(), shared=True) and lock_file(two.fileno(), shared=True)
        assert not lock_file(three.fileno())
