"""Files written whole or not at all: a reader sees the old file or the new one, never a part of either."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import BenchError
from bench.disk.locks import machine, start_time, still_runs


class CannotWrite(BenchError, OSError):  # noqa: N818 - said as a sentence
    """A file could not be written: no space, no permission. Nothing half-written is left behind."""


@contextlib.contextmanager
def replacing(path: Path, *, several: bool = False, durable: bool = True) -> Iterator[Path]:
    """A file beside `path` to write into: it takes the place of `path` when the block ends well, and is removed otherwise.

    `several` allows for other processes that write the same file at once. `durable` makes content and name last through a power
    cut, content first. Raises OSError.
    """
    aside = _unique(path) if several else path.with_name(path.name + ".tmp")
    try:
        yield aside
        if durable:
            with aside.open("rb") as file:
                os.fsync(file.fileno())
        aside.replace(path)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def begin_aside(path: Path) -> str:
    """How names begin of what this process alone writes beside `path`, to be completed by `tempfile`."""
    clear_aside(path.parent)
    return f".{path.name}.{_machine()}-{os.getpid()}-{start_time(os.getpid())}."


def clear_aside(folder: Path) -> None:
    """Remove what processes of this machine that were killed have left of such names in `folder`."""
    owner = re.compile(rf"\..+\.{_machine()}-(\d+)-(\d*)\.[^.]+(\.tmp)?")
    with contextlib.suppress(OSError):
        for left in os.scandir(folder):
            if (found := owner.fullmatch(left.name)) and not still_runs(int(found[1]), found[2]):
                shutil.rmtree(left) if left.is_dir(follow_symlinks=False) else Path(left).unlink(missing_ok=True)


def _machine() -> str:
    """The machine's part of such names."""
    return f"{zlib.crc32(machine().encode()):08x}"


def _unique(path: Path) -> Path:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=begin_aside(path), suffix=".tmp")
    os.close(descriptor)
    Path(name).chmod(0o666 & ~_umask())  # mkstemp makes files for the owner's eyes only
    return Path(name)


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power cut; not every file system can, and the file itself is already whole."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_atomically(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all, whoever else writes it at the same time.

    Parent folders are made. Raises CannotWrite, which names the path and what the system said.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, several=True) as aside:
            aside.write_bytes(text.encode())
    except OSError as error:
        raise CannotWrite(_sentence(path, error)) from error


def _sentence(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left to write {path}: free some space and run the same command again, finished work is kept."
    reason = error.strerror or str(error)
    return (
        f"cannot write {path} ({reason}): make {path.parent} writable, or set BENCH_HOME to a folder that is, "
        "and run the same command again."
    )


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make the file, whole or not at all. Raises BenchError, which names the path and what went wrong."""
    try:
        with replacing(path) as aside:
            write(aside)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        raise BenchError(
            f"cannot write {path} ({error}): free some disk space or make the folder writable, then run the same command again"
        ) from error
