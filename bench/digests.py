"""Digests of the files that decide captions and splits, remembered so that planning does not read them again."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.definition import DatasetDefinition
from bench.home import Home
from bench.records.keys import canonical
from bench.records.store import CannotWrite, write_atomically


class FileDigests:
    """SHA-256 of files, remembered in `<work>/digests.json` by path, size and modification time."""

    def __init__(self, home: Home) -> None:
        self._path = home.work / "digests.json"
        self._known = self._read()
        self._changed = False

    def _read(self) -> dict[str, list[Any]]:
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
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
            with path.open("rb") as file:
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


def captions_digest(definition: DatasetDefinition, splits: str, home: Home, files: FileDigests | None = None) -> str:
    """Digest of everything that decides which clips and captions a run sees, but for `subset=` of the command.

    That is the format and the files of the captions, the rule of `splits` with its lists, the definition's own subset,
    and for generated corpora the generator's version and options. Paths do not count.
    """
    files = files or FileDigests(home)
    source, paths = definition.caption_source(home)
    rule = definition.split_rule(splits)
    subset = definition.subset.model_dump() if definition.subset else None
    if subset and isinstance(subset["ids"], str):
        subset["ids"] = files.of(definition.resolve(subset["ids"], home))
    seen: dict[str, Any] = {
        "format": source.format,
        "files": {role: files.of(path) for role, path in paths.items()},
        "splits": {
            **rule.model_dump(exclude={"lists"}),
            # `official:val_1` is no file: it names a part of the caption files.
            "lists": {
                part: entry if entry.startswith("official:") else files.of(definition.resolve(entry, home))
                for part, entry in rule.lists.items()
            },
        },
        "subset": subset,
        "options": definition.options,
    }
    if source.format == "shapes":
        from bench.data.shapes.options import corpus_digest

        seen["generator"] = corpus_digest(definition.options)
    files.save()
    return hashlib.sha256(canonical(seen).encode()).hexdigest()
