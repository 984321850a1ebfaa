"""A copy of a feature cache on a node's own disk, for clusters whose shared storage is slow."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from bench import BenchError
from bench.disk.locks import lock_file
from bench.disk.whole import replacing
from bench.features.cache import Cache

MARK = 16  # digits of the content's digest: a copy of another version, or of fewer clips, has another name


def local_copy(path: Path, mark: str, folder: Path) -> Path:
    """The cache at `path`, whose content is `mark`, as `<folder>/<mark>/<dataset>/<stream>.h5`, copied there if need be.

    One process of a node copies, the others wait for it; the copy is written aside, looked at and renamed, so that no reader
    ever sees a part of it. Raises BenchError where the copy cannot be made or is not of that content.
    """
    copy = folder / mark[:MARK] / path.parent.name / path.name
    if copy.is_file():
        return copy
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with copy.with_suffix(".lock").open("w") as lock:
            lock_file(lock.fileno(), wait=math.inf)
            if not copy.is_file():
                _copy(path, mark, copy)
    except OSError as error:
        raise BenchError(
            f"{copy} cannot be written ({error.strerror or error}): make room there, set BENCH_NODE_CACHE to another folder, or "
            f"leave it out, and {path} is read where it is"
        ) from error
    return copy


def _copy(path: Path, mark: str, copy: Path) -> None:
    with replacing(copy) as aside:
        shutil.copyfile(path, aside)
        with Cache(aside) as made:
            found = made.content
        if found != mark:
            raise BenchError(
                f"{path} changed while it was copied ({found[:12]} instead of {mark[:12]}): run the command again"
            )
