"""Files written whole or not at all: a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import BenchError


class CannotWrite(BenchError, OSError):  # noqa: N818 - said as a sentence
    """A file could not be written: no space, no permission. Nothing half-written is left behind."""


def write_atomically(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path` so that a reader sees the old file or the new one, never a part.

    Parent folders are made. Raises CannotWrite, which names the path and what the system said.
    """
    aside = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).chmod(0o666 & ~_umask())  # mkstemp makes files for the owner's eyes only
        Path(aside).replace(path)
    except OSError as error:
        raise CannotWrite(_sentence(path, error)) from error
    finally:
        if aside is not None:
            with contextlib.suppress(OSError):
                Path(aside).unlink(missing_ok=True)
    _sync_folder(path.parent)


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename last through a power cut; not every file system can, and the file itself is already whole."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sentence(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left to write {path}: free some space and run the same command again, finished work is kept."
    reason = error.strerror or str(error)
    return (
        f"cannot write {path} ({reason}): make {path.parent} writable, or set BENCH_HOME to a folder that is, "
        "and run the same command again."
    )


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file aside, force it to disk and move it to `path`; a reader sees the old file or the new one."""
    aside = path.with_name(path.name + ".tmp")
    try:
        write(aside)
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        aside.unlink(missing_ok=True)
        raise BenchError(
            f"cannot write {path} ({error}): free some disk space or make the folder writable, then run the same command again"
        ) from error
