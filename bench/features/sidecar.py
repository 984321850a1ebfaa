"""The small JSON beside each feature cache: shape, clips and fingerprint, readable without h5py.

`<cache>/<dataset>/<stream>.h5` holds the values, `<stream>.json` says what they are; where these are a part of a generated
stream, `fingerprint` is that of the stream and `content` that of the part. Planning reads only the JSON.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.disk.limits import check_stream_name, own_json, own_text
from bench.disk.whole import replacing
from bench.home import Home, data_folder

SCHEMA = 1
REQUIRED = ("schema", "stream", "shape", "timed", "dtype", "clips", "fingerprint", "bytes", "source", "encoder")


def cache_path(home: Home, dataset: str, stream: str) -> Path:
    """Where the cache of one stream of one data set lies. Raises BenchError for a name that would lead elsewhere."""
    try:
        check_stream_name(stream)
    except ValueError as error:
        raise BenchError(str(error)) from None
    return home.cache / dataset / f"{stream}.h5"


def sidecar_path(path: Path | str) -> Path:
    """The sidecar of a cache; a sidecar's own path stays as it is."""
    return Path(path).with_suffix(".json")


def command(verb: str, path: Path | str) -> str:
    """The command that comes next for the cache at `path`, `verb` being import or check.

    A cache knows its data set's name but not its YAML file, by which all but the shipped ones are called.
    """
    path = Path(path)
    name = path.parent.name
    shipped = (data_folder("datasets") / name / "dataset.yaml").is_file()
    dataset = name if shipped else "FILE.yaml"
    whose = "" if shipped else f" (FILE.yaml: the definition of {name})"
    return f"`bench features {verb} dataset={dataset} stream={path.stem}`{whose}"


def remake(path: Path | str) -> str:
    """How a damaged cache is mended: the end of many sentences."""
    return f"delete it and make it again with {command('import', path)}"


def canonical(value: object) -> str:
    """JSON with sorted keys: equal values give equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint(
    stream: str,
    shape: Sequence[int],
    timed: bool,
    dtype: str,
    attributes: Mapping[str, Any],
    clips: Iterable[tuple[str, str]],
) -> str:
    """SHA-256 of what a method can see of a stream: declaration, attributes, and each clip's id and content.

    `clips` are (id, SHA-256 of the clip) pairs in any order. The attribute `source` says on which machine's files the
    cache was made from; it is left out, so that the same features have the same fingerprint everywhere.
    """
    seen = {name: value for name, value in attributes.items() if name != "source"}
    declaration = {"stream": stream, "shape": list(shape), "timed": timed, "dtype": dtype, "attributes": seen}
    digest = hashlib.sha256(canonical(declaration).encode())
    for clip, content in sorted(clips):
        digest.update(f"\n{clip}\0{content}".encode())
    return digest.hexdigest()


def read_sidecar(path: Path | str) -> dict[str, Any]:
    """The sidecar of a cache, given the path of either. Raises BenchError when it is absent or not a sidecar."""
    file = sidecar_path(path)
    if not file.is_file():
        raise BenchError(f"there is no feature cache at {file.with_suffix('.h5')}: {command('import', file)} makes it")
    try:
        found = own_json(own_text(file))
    except (OSError, ValueError) as error:
        raise BenchError(
            f"{file} cannot be read as the sidecar of a feature cache ({error}): {remake(file)}"
        ) from error
    absent = [name for name in REQUIRED if name not in found] if isinstance(found, dict) else list(REQUIRED)
    if absent:
        raise BenchError(f"{file} is no sidecar of a feature cache, {', '.join(absent)} absent: {remake(file)}")
    if found["schema"] != SCHEMA:
        raise BenchError(f"{file} has schema {found['schema']}, this version reads {SCHEMA}: {remake(file)}")
    return found


def making(facts: Mapping[str, Any]) -> dict[str, Any]:
    """How the values of a cache were made, from its sidecar or the header of its file: what made them, and, since another
    video is to be treated alike, what an import did to them (`l2`) and in which `dtype` they are kept where that is float32."""
    options = (facts.get("source", {}).get("request") or {}).get("options") or {}
    unit = {"l2": True} if options.get("l2") else {}
    wide = {"dtype": facts["dtype"]} if facts["dtype"] == "float32" else {}
    return {**facts.get("encoder", {}), **unit, **wide}


def named_by_command(path: Path | str) -> bool:
    """Whether a command named what the cache at `path` was made from, and not the data set's definition."""
    try:
        return bool(read_sidecar(path)["source"].get("told"))
    except BenchError:
        return False  # none there, or damaged: whoever reads it says so


def write_sidecar(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write the sidecar of the cache at `path` whole or not at all. Raises OSError."""
    with replacing(sidecar_path(path)) as aside:
        aside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def list_caches(home: Home) -> list[dict[str, Any]]:
    """All caches of a home by data set and stream: their sidecars with `dataset` and `path` added.

    A cache that cannot be described has `dataset`, `stream`, `path` and `error`; one whose writing was interrupted has
    `unfinished` in place of `error`.
    """
    rows: list[dict[str, Any]] = []
    for file in sorted(home.cache.glob("*/*.json")):
        row: dict[str, Any] = {"dataset": file.parent.name, "stream": file.stem, "path": str(file.with_suffix(".h5"))}
        try:
            row = {**read_sidecar(file), **row}
            if not file.with_suffix(".h5").is_file():
                row["error"] = f"{file} describes a cache that is gone: {command('import', file)} makes it again"
        except BenchError as error:
            row["error"] = str(error)
        rows.append(row)
    for file in sorted(home.cache.glob("*/*.h5.tmp")):
        path = file.with_suffix("")
        message = f"writing was interrupted: {command('import', path)} goes on where it stopped"
        rows.append({"dataset": file.parent.name, "stream": path.stem, "path": str(path), "unfinished": message})
    described = {row["path"] for row in rows}
    for file in sorted(home.cache.glob("*/*.h5")):
        if str(file) not in described:
            message = f"{file} has no sidecar: {command('import', file)} writes it"
            rows.append({"dataset": file.parent.name, "stream": file.stem, "path": str(file), "error": message})
    return sorted(rows, key=lambda row: (row["dataset"], row["stream"], "unfinished" in row))
