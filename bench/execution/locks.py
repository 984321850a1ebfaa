"""One command at a time may train or score a cell."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from bench import BenchError
from bench.home import Home

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
