"""The file that a cache is written into before it gets its name: its lock, its disk space, its sentences of error."""

from __future__ import annotations

import errno
import math
import os
import re
from contextlib import suppress
from pathlib import Path

from bench import BenchError
from bench.disk.locks import lock_file
from bench.features.sidecar import command

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_HDF5_NUMBER = re.compile(r"errno = (\d+)")


class BeingWrittenError(BenchError):
    """Another process writes the cache; `wait` returns when it has ended, with the cache or without."""

    def __init__(self, aside: Path, verb: str) -> None:
        super().__init__(
            f"{aside} is being written by another process: wait for it to end, or end it, then "
            f"{command(verb, aside.with_suffix(''))} again"
        )
        self.aside = aside

    def wait(self) -> None:
        with suppress(FileNotFoundError), self.aside.open("rb") as file:
            lock_file(file.fileno(), wait=math.inf, shared=True)


def lock(aside: Path, verb: str = "import") -> int:
    """Open the file aside and lock it against other writers; a killed writer's lock is gone with it."""
    while True:
        descriptor = os.open(aside, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            locked = lock_file(descriptor)
        except OSError as error:  # some network file systems know no locks: better unguarded than not at all
            locked = error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
            if not locked:
                os.close(descriptor)
                raise
        if not locked:
            os.close(descriptor)
            raise BeingWrittenError(aside, verb)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), aside.stat()):
                return descriptor
        os.close(descriptor)  # renamed or removed by the writer that held the lock before


def reserve(descriptor: int, start: int, size: int) -> None:
    """Claim `size` bytes of disk from `start` on. Raises OSError when there are not so many."""
    if hasattr(os, "posix_fallocate"):  # absent on macOS, where a full disk is met later and less gently
        os.posix_fallocate(descriptor, start, size)


def unwritable(aside: Path, error: Exception, verb: str = "import") -> BenchError:
    """The sentence for a failed write: a full disk, or a place that cannot be written."""
    again = f"then {command(verb, aside.with_suffix(''))} again"
    said = _HDF5_NUMBER.search(str(error))  # HDF5 tells a failed write in words, the system's number among them
    number = getattr(error, "errno", None) or (int(said[1]) if said else None)
    if number in _FULL or any(os.strerror(code) in str(error) for code in _FULL):
        return BenchError(
            f"the disk or quota is full while writing {aside} ({os.strerror(number or errno.ENOSPC)}): free some space "
            f"or set BENCH_CACHE to a folder on a larger disk, {again}; what was written is kept"
        )
    place = f"make {aside.parent} writable or set BENCH_CACHE to a folder that is"
    return BenchError(f"{aside} cannot be written ({os.strerror(number) if number else error}): {place}, {again}")
