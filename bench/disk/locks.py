"""Who works on what: locks of the kernel, and whether the process that left a note behind still runs."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import platform
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench import BenchError
from bench.disk.limits import regular
from bench.home import Home


def lock_file(descriptor: int, wait: float = 0.0, *, shared: bool = False) -> bool:
    """Lock an open file for this process, or for all that lock it `shared`; False where another still holds it after `wait`
    seconds (infinite: never).

    The lock is the kernel's (flock): it ends with the file's descriptor or with the process, however that ends. Raises OSError
    on file systems without locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    if wait == math.inf:
        fcntl.flock(descriptor, kind)
        return True
    deadline = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.1)


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

    The lock's file stays behind on purpose, since removing it would let two holders lock two different files; it lies outside
    the cell's folder, which may be cleared and written again while the lock is held.
    """
    path = _lock_path(home, key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="ascii") as file:
        if not lock_file(file.fileno(), wait):
            raise CellBusyError(path.read_text(encoding="ascii", errors="replace").strip())
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def lock_holder(home: Home, key: str) -> str | None:
    """The process that works on a cell, as text, empty where it left no number; None when nobody does."""
    try:
        with regular(_lock_path(home, key)) as file:
            return None if lock_file(file.fileno(), shared=True) else file.read().decode("ascii", "replace").strip()
    except OSError:
        return None


def _lock_path(home: Home, key: str) -> Path:
    return home.work / "locks" / f"{key}.lock"


ENDED = ("Z", "X")  # states of processes that have ended and stay in the table until their parents ask how


def alive(pid: int) -> bool:
    """Whether a process of this machine has the id `pid`."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process: it lives, and may not be signalled
        return True
    return True


def start_time(pid: int) -> str:
    """When the process `pid` of this machine began, in ticks since the machine did: ids are given out again, and fast in
    containers. Empty for one that has ended, and where the system has no `/proc`."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *rest = status.rpartition(")")[2].split()  # the name before it may hold anything
    return "" if state in ENDED else rest[18]


def still_runs(pid: int, started: str) -> bool:
    """Whether the process `pid` runs and is the one whose `start_time` was noted as `started`."""
    return start_time(pid) == started if started else alive(pid)


def machine() -> str:
    """This machine by name and, in a container, its own count of processes: those of two containers may be called alike."""
    with contextlib.suppress(OSError):
        return platform.node() + str(Path("/proc/self/ns/pid").readlink()).removeprefix("pid:")
    return platform.node()


def this_process() -> str:
    """Machine, id and start of this process: the id alone does not name it, another may have it tomorrow."""
    return f"{machine()} {os.getpid()} {start_time(os.getpid())}".strip()


def lives(process: str) -> bool | None:
    """Whether what called itself `this_process` still runs; None where that cannot be known, as on another machine."""
    host, pid, born = [*process.split(" "), "", ""][:3]
    return still_runs(int(pid), born) if host == machine() and pid.isdecimal() else None


class Note:
    """A file that says what a command is at, for as long as it is: one that was killed leaves it behind."""

    def __init__(self, folder: Path, content: str) -> None:
        self._folder, self._content = folder, content

    def leave(self) -> None:
        """Write that this process is at it."""
        with contextlib.suppress(OSError):  # without room for it nothing else will be written either
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / str(os.getpid())).write_text(f"{this_process()}\n{self._content}", encoding="utf-8")

    def left(self) -> list[Path]:
        """The files of commands of this machine that were killed while they were at the same."""
        found = []
        for path in self._folder.glob("*"):
            with contextlib.suppress(OSError):
                process, _, content = path.read_text(encoding="utf-8", errors="replace").partition("\n")
                if content == self._content and lives(process) is False:
                    found.append(path)
        return found

    def remove(self, left: Iterable[Path] = ()) -> None:
        """All is done, also what killed commands had `left` before this one did it: one that was killed since keeps its note."""
        for path in [self._folder / str(os.getpid()), *left]:
            path.unlink(missing_ok=True)
