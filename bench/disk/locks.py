"""Who is at work on what: locks of the kernel, and whether the process that left a note behind still lives."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from bench import BenchError
from bench.home import Home


def lock_holder(home: Home, key: str) -> str | None:
    """The process that works on a cell, as text, empty where it left no number; None when nobody does.

    The lock of `bench.disk.locks` is the kernel's, so it is free as soon as its holder ends, however it ended.
    """
    path = home.work / "locks" / f"{key}.lock"
    try:
        with path.open("r", encoding="ascii") as file:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip()
    except OSError:
        return None
    return None


# After a driver is killed with -9 its workers live for three to four more seconds, on a busy machine for half a minute, and
# a file server keeps the locks of a node that is gone for a minute and a half: the same command, started again at once, or
# the cell on another node waits for them instead of calling its own work another's.
WAIT_SECONDS = 100.0


class CellBusyError(BenchError):
    """Another process holds the cell; `holder` is its process id, where known."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"another command is working on this cell (process {holder or 'unknown'})")
        self.holder = holder


@contextlib.contextmanager
def cell_lock(home: Home, key: str, wait: float = WAIT_SECONDS) -> Iterator[None]:
    """Hold the cell `key` for this process; raise CellBusyError if another still holds it after `wait` seconds.

    The lock is the kernel's (flock): it ends with the process that holds it, however that process ends. Its file stays
    behind on purpose, since removing it would let two holders lock two different files; it lies outside the cell's
    folder, which may be cleared and written again while the lock is held.
    """
    path = home.work / "locks" / f"{key}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="ascii") as file:
        _acquire(file.fileno(), path, time.monotonic() + wait)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _acquire(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise CellBusyError(path.read_text(encoding="ascii").strip()) from None
            time.sleep(0.1)


GONE = ("Z", "X")  # ended, and kept in the table until its parent asks how


def alive(pid: int) -> bool:
    """Whether a process of this machine has the id `pid`."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process: it lives, and may not be signalled
        return True
    return True


def birth(pid: int) -> str:
    """When the process `pid` of this machine began, in ticks since the machine did: ids are given out again, and fast in
    containers. Empty for one that has ended, and where the system has no `/proc`."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *rest = told.rpartition(")")[2].split()  # the name before it may hold anything
    return "" if state in GONE else rest[18]


def same(pid: int, born: str) -> bool:
    """Whether the process `pid` lives and is the one whose `birth` was noted as `born`."""
    return birth(pid) == born if born else alive(pid)
