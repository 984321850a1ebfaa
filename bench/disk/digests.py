"""SHA-256 of files, remembered so that planning does not read them again."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.disk.limits import own_json, own_text, regular
from bench.disk.whole import CannotWrite, write_atomically
from bench.home import Home


def file_digest(path: Path) -> str:
    """`sha256:DIGEST` of a file. Raises BenchError where it cannot be read."""
    try:
        with regular(path) as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error}") from error


class FileDigests:
    """SHA-256 of files, remembered in `<work>/digests.json` by path, size and modification time."""

    def __init__(self, home: Home) -> None:
        self._path = home.work / "digests.json"
        self._known = self._read()
        self._changed = False

    def _read(self) -> dict[str, list[Any]]:
        try:
            known = own_json(own_text(self._path))
        except (OSError, ValueError):
            return {}  # absent or damaged: the digests are taken anew
        return known if isinstance(known, dict) else {}

    def of(self, path: Path) -> str:
        """SHA-256 of the file's content. Raises BenchError naming a file that cannot be read."""
        try:
            status = path.stat()
            stamp = [status.st_size, status.st_mtime_ns]
            remembered = self._known.get(str(path))
            if isinstance(remembered, list) and len(remembered) == 3 and remembered[:2] == stamp:
                return str(remembered[2])
            with regular(path) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BenchError(f"{path} cannot be read: {error.strerror or error}") from None
        self._known[str(path)] = [*stamp, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        """Remember the digests. A folder that cannot be written costs time at the next plan and nothing else."""
        if self._changed:
            with contextlib.suppress(CannotWrite):
                write_atomically(self._path, json.dumps(self._known, indent=0, sort_keys=True) + "\n")
            self._changed = False
