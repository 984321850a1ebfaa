"""Records and predictions on disk: written whole or not at all, and validated when they are read."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench import BenchError
from bench.disk.limits import own_bytes, own_json, own_text
from bench.disk.whole import write_atomically
from bench.errors import named
from bench.records.schema import SCHEMA, Record, cell_key, reasons

RECORD = "record.json"
PREDICTIONS = "predictions.jsonl"
REMEDY = (
    "Make it readable again, open it with the version of bench that wrote it, or move its folder away; the same command then "
    "makes it anew"
)


class BadRecord(BenchError):  # noqa: N818 - a finding as much as an error
    """A record that cannot be trusted, or cannot be read now: `path` and the `reason`, one line. `absent`: there is none.

    Nothing of bench removes such a file: it may hold days of training, and only a person knows whether it can go.
    """

    def __init__(self, path: Path, reason: str, absent: bool = False) -> None:
        super().__init__(f"{path} is not a valid record: {reason}. {REMEDY}.")
        self.path = path
        self.reason = reason
        self.absent = absent


@dataclass(frozen=True)
class Prediction:
    """One line of `predictions.jsonl`. `log_probability` is None for captions made elsewhere."""

    clip: str
    caption: str
    log_probability: float | None = None


def cell_folder(results: Path, record: Record) -> Path:
    """`results/<dataset>/<method>/<key>`, the folder that a record belongs in."""
    return results / record.dataset / record.method / record.key


def write_record(folder: Path, record: Record) -> Path:
    """Write `record` as `folder/record.json`, atomically; returns the path.

    The record is validated as it will be read. Raises BadRecord for an invalid one, CannotWrite for a full disk or a
    folder that cannot be written.
    """
    path = folder / RECORD
    _check(path, record.model_dump(by_alias=True))
    write_atomically(path, record.model_dump_json(by_alias=True, indent=2) + "\n")
    return path


def read_record(path: Path) -> Record:
    """Read one `record.json`. Raises BadRecord: unreadable, no JSON, foreign schema, a field out of place or range."""
    try:
        raw = own_json(own_text(path), parse_constant=_no_constant)
    except OSError as error:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        raise BadRecord(path, error.strerror or str(error), absent) from error
    except ValueError as error:  # JSON and UTF-8 errors are ValueErrors
        raise BadRecord(path, f"no valid JSON, {error}") from error
    try:
        return _check(path, raw)
    except UnicodeEncodeError as error:
        raise BadRecord(path, "it has half of a surrogate pair, which no text can hold") from error


def _check(path: Path, raw: Any) -> Record:
    if not isinstance(raw, dict):
        raise BadRecord(path, "not a JSON object")
    if raw.get("schema") != SCHEMA:
        raise BadRecord(path, f"schema {raw.get('schema')!r}, this version reads schema {SCHEMA}")
    try:
        record = Record.model_validate(raw)
    except ValidationError as error:
        raise BadRecord(path, reasons(error)) from error
    if path.parent.name != record.key:
        raise BadRecord(path, f"its key {record.key} is not the name of its folder {path.parent.name}")
    if record.key != cell_key(record.config):
        raise BadRecord(path, f"its config has the key {cell_key(record.config)}, so it is not the one that was run")
    return record


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def all_records(results: Path, dataset: str | None = None, bad: list[BadRecord] | None = None) -> list[Record]:
    """Every record under `results` (of one data set), in the order of their paths.

    Invalid ones, and those that lie in another cell's folder, are appended to `bad`; without `bad` the first raises.
    """
    records = []
    for path in record_paths(results, dataset):
        try:
            record = read_record(path)
            if cell_folder(results, record) / RECORD != path:
                raise BadRecord(path, f"belongs to {record.dataset}/{record.method}, which is not where it lies")
        except BadRecord as error:
            if bad is None:
                raise
            bad.append(error)
        else:
            records.append(record)
    return records


def record_paths(results: Path, dataset: str | None = None) -> list[Path]:
    """Paths of all `record.json` files, sorted; also of links that lead nowhere, of which a reader says so."""
    paths = (folder / RECORD for folder in results.glob(f"{dataset or '*'}/*/*"))
    return sorted(path for path in paths if os.path.lexists(path))


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write one JSON line per clip, atomically. Plain ASCII, so that no tool splits a caption at odd line ends."""
    lines = []
    for item in predictions:
        try:
            lines.append(json.dumps(asdict(item), allow_nan=False) + "\n")
        except ValueError as error:
            raise BenchError(f"the caption of clip {item.clip} has a log-probability that is not finite.") from error
    write_atomically(path, "".join(lines))


def read_predictions(path: Path, ids: Sequence[str]) -> dict[str, str]:
    """Captions of exactly the clips `ids`, in that order.

    Raises BenchError with the path and line for a line that is no prediction, and with the ids for clips that are
    missing, not asked for, or there twice.
    """
    found: dict[str, str] = {}
    twice = []
    for item in _lines(path):
        if item.clip in found:
            twice.append(item.clip)
        found[item.clip] = item.caption
    if wrong := apart([*found, *twice], ids):
        raise BenchError(
            f"{path} does not caption the {len(ids)} clips asked for: {wrong}. Give one line for each clip of the split."
        )
    return {clip: found[clip] for clip in ids}


def apart(found: Sequence[str], ids: Sequence[str]) -> str:
    """How the clips `found` are not the clips `ids`, each of them once; empty where they are."""
    if list(found) == list(ids):
        return ""
    counts = Counter(found)
    kinds = (
        ("missing", [clip for clip in ids if clip not in counts]),
        ("not in the split", sorted(set(counts) - set(ids))),
        ("given twice", sorted(clip for clip, count in counts.items() if count > 1)),
    )
    return ", ".join(f"{len(clips)} {what} ({named(clips)})" for what, clips in kinds if clips)


def prediction_ids(path: Path) -> list[str]:
    """The clips of a predictions file, line by line, without reading the captions: pages look at thousands of files.

    Lines that are not as `write_predictions` writes them are parsed whole. Raises BenchError as `read_predictions`.
    """
    try:
        text = own_bytes(path)
        parts = text.split(_BEFORE)[1:]
        ids = b"\n".join([part[: part.find(b'"')] for part in parts]).decode()
    except (OSError, UnicodeDecodeError):
        return [item.clip for item in _lines(path)]
    starts = text.startswith(_BEFORE) + text.count(b"\n" + _BEFORE)
    plain = (
        starts == len(parts) == text.count(_BETWEEN) == text.count(b"\n") and text.endswith(b"\n") and "\\" not in ids
    )
    return ids.split("\n") if plain else [item.clip for item in _lines(path)]


_BEFORE, _BETWEEN = b'{"clip": "', b'", "caption": "'


def _lines(path: Path) -> Iterator[Prediction]:
    try:
        text = own_text(path)
    except OSError as error:
        raise BenchError(f"cannot read the predictions {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise BenchError(f"the predictions {path} are not UTF-8: {error}.") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield _prediction(own_json(line, parse_constant=_no_constant))
            except (ValueError, TypeError) as error:
                raise BenchError(
                    f"{path} line {number} is no prediction ({error}): each line is a JSON object with "
                    '"clip" and "caption", and may have "log_probability" and "alternatives".'
                ) from error


def _prediction(raw: Any) -> Prediction:
    if not isinstance(raw, dict):
        raise TypeError("not a JSON object")
    unknown = sorted(set(raw) - {"clip", "caption", "log_probability", "alternatives"})
    if unknown:
        raise ValueError(f"unknown {', '.join(unknown)}")
    for name in ("clip", "caption"):
        if not isinstance(raw.get(name), str):
            raise TypeError(f'"{name}" must be text')
    log_probability = raw.get("log_probability")
    if log_probability is not None and not _is_number(log_probability):
        raise TypeError('"log_probability" must be a number or null')
    pairs = raw.get("alternatives") or []  # earlier versions kept the other beams' captions here
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and _is_number(pair[1]) for pair in pairs
    ):
        raise TypeError('"alternatives" must be a list of [text, log-probability]')
    return Prediction(raw["clip"], raw["caption"], log_probability)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
