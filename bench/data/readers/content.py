"""What a caption file holds, whatever its ending: JSON, JSON lines or a table, as records of named fields.

An object whose keys are clips becomes records too: its keys under `key`, what is no object itself under `value`. A table
without a header has the columns `first` and `second`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench import BenchError
from bench.data.readers.files import decode, parse_json, read_bytes, read_json, read_lines, read_rows, unique_keys
from bench.errors import listing, many

Kind = Literal["json", "lines", "table"]
Record = tuple[str, Mapping[str, Any]]
"""Where in the file it stands (`line 3`, `item 4`, `clip v0`), and its fields."""

KINDS: dict[str, Kind] = {".jsonl": "lines", ".ndjson": "lines", ".csv": "table", ".tsv": "table", ".zip": "json"}
MARKS = {"\t": "tabs", ";": "semicolons", ",": "commas"}
CLIPS = (
    *(
        "clip",
        "clip_id",
        "clip_name",
        "video_id",
        "videoID",
        "videoId",
        "VideoID",
        "vid_id",
        "vid",
        "image_id",
        "vid_name",
    ),
    *("key", "video", "video_name", "videoname", "filename", "file_name", "file", "name", "id", "first"),
)
"""Columns and fields by which people call a clip; the last one is that of a table without a header."""
WRAPPERS = ("database", "results", "predictions", "annotations", "images", "videos", "data", "captions", "sentences")
SAMPLE = 50  # records by which a layout is told; later ones that differ are named when they are read
HEAD = 1 << 20  # bytes in which the first line of JSON lines ends
SHOWN = 6  # fields named in a sentence


@dataclass(frozen=True)
class Content:
    """A file that was read: `value` is what JSON holds, `records` its captions one by one where it has records, and `looks`
    says it in words."""

    path: Path
    kind: Kind
    value: Any
    records: list[Record]
    looks: str

    @property
    def sample(self) -> list[Mapping[str, Any]]:
        """The fields of the first records."""
        return [fields for _, fields in self.records[:SAMPLE]]


def open_content(path: Path, kind: Kind | None = None) -> Content:
    """Read a file as what it is, or as the `kind` that was declared. Raises BenchError for what cannot be read."""
    kind = kind or _kind_of(path)
    if kind == "json":
        value = read_json(path, object_pairs_hook=unique_keys(path))
        found, inside = _unwrapped(value)
        records = _records(found)
        what = _what(found, records)
        return Content(path, kind, value, records, f"an object with `{inside}`: {what}" if inside else what)
    if kind == "lines":
        records = list(_lines(path))
        return Content(path, kind, None, records, f"{many(len(records), 'line')} of JSON with {_fields(records)}")
    mark = _mark_of(path)
    records = list(_rows(path, mark))
    header = listing(f"`{name}`" for name in (records[0][1] if records else ()))
    looks = f"a table of {many(len(records), 'row')}, parted by {MARKS[mark]}, with {header}"
    return Content(path, kind, None, records, looks)


def _kind_of(path: Path) -> Kind:
    """By its ending where that tells it, else by how the file begins."""
    known = KINDS.get(path.suffix.lower())
    if known is not None:
        return known
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror}") from error
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start.startswith((b"{", b"[", b"PK")) and path.suffix.lower() != ".json":
        return "table"
    first, _, rest = start.partition(b"\n")
    try:
        return "lines" if rest.strip() and isinstance(json.loads(first), dict) else "json"
    except (ValueError, RecursionError):
        return "json"


def _unwrapped(value: Any) -> tuple[Any, str | None]:
    """The part of a JSON file that holds its records, and the name under which it stands there."""
    if isinstance(value, dict):
        inner = next((name for name in WRAPPERS if _holds_records(value.get(name))), None)
        if inner is None:
            containers = [name for name, item in value.items() if isinstance(item, dict | list)]
            inner = (
                containers[0] if len(containers) == 1 < len(value) and _holds_records(value[containers[0]]) else None
            )
        if inner is not None:
            return value[inner], inner
    return value, None


def _holds_records(value: Any) -> bool:
    items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return bool(items) and all(
        isinstance(item, dict) or (isinstance(item, list) and item and isinstance(item[0], dict))
        for item in items[:SAMPLE]
    )


def _records(value: Any) -> list[Record]:
    """Records of a JSON value; none where it is neither a list of objects nor an object by clips."""
    if isinstance(value, list):
        good = bool(value) and all(isinstance(item, dict) for item in value[:SAMPLE])
        return [(f"item {number}", item) for number, item in enumerate(value, 1)] if good else []
    if not isinstance(value, dict) or not value:
        return []
    if all(isinstance(item, dict) for item in value.values()):
        return [(f"clip {key}", {"key": key, **item}) for key, item in value.items()]
    return [(f"clip {key}", {"key": key, "value": item}) for key, item in value.items()]


def _lines(path: Path) -> Iterator[Record]:
    for number, line in read_lines(path):
        entry = parse_json(line, path, number)
        if not isinstance(entry, dict):
            raise BenchError(
                f"{path} line {number} holds {_kind(entry)}: each line is to be an object with named fields"
            )
        yield f"line {number}", entry


def _mark_of(path: Path) -> str:
    """What parts the columns of a table: the first of the marks that its first line holds."""
    first = next((line for _, line in read_lines(path)), "")
    return next((mark for mark in MARKS if mark in first), ",")


def _rows(path: Path, mark: str) -> Iterator[Record]:
    """Rows of a table; one without a header, two columns of clip and caption, is read as it stands, quotes and all."""
    first = next((line for _, line in read_lines(path)), "")
    cells = first.split(mark)
    header = cells[0].strip().strip('"').lower() in {name.lower() for name in CLIPS}
    if not header and mark == "\t" and " " in cells[-1].strip():  # no column is called by a sentence
        for number, line in read_lines(path):
            clip, tab, text = line.partition(mark)
            if not tab:
                raise BenchError(f"{path} line {number} has no tab: expected a clip, a tab and a caption")
            yield f"line {number}", {"first": clip.strip(), "second": text}
        return
    headless = not header and len(cells) == 2 and " " in cells[1].strip()
    rows = _headless(path, mark) if headless else read_rows(path, (), mark)
    for number, row in rows:
        yield f"line {number}", {name: value for name, value in row.items() if value is not None}


def _headless(path: Path, mark: str) -> Iterator[tuple[int, dict[str, str]]]:
    rows = csv.reader(io.StringIO(decode(read_bytes(path), path), newline=""), delimiter=mark, strict=True)
    try:
        for row in rows:
            if row and len(row) != 2:
                raise BenchError(
                    f"{path} line {rows.line_num} has {len(row)} fields, the first line 2: text with {MARKS[mark]} needs quotes"
                )
            if row:
                yield rows.line_num, {"first": row[0].strip(), "second": row[1]}
    except csv.Error as error:
        raise BenchError(f"{path} line {rows.line_num} is not a row of a table ({error}): cut off?") from error


def _what(value: Any, records: list[Record]) -> str:
    """A JSON value in words."""
    if isinstance(value, list):
        return f"a list of {many(len(value), 'object')} with {_fields(records)}" if records else _kind(value)
    if not isinstance(value, dict):
        return _kind(value)
    keys = listing([*list(value)[:2], *([".."] if len(value) > 2 else [])])
    if not records:
        return "an empty object"
    first = records[0][1]
    whose = f"each with {_fields(records)}" if "value" not in first else f"each with {_kind(first['value'])}"
    return f"an object of {many(len(value), 'key')} ({keys}), {whose}"


def _fields(records: list[Record]) -> str:
    first = {name: value for name, value in (records[0][1] if records else {}).items() if name != "key"}
    more = [f"{len(first) - SHOWN} more"] if len(first) > SHOWN else []
    return listing([*(f"`{name}` ({_kind(value)})" for name, value in list(first.items())[:SHOWN]), *more])


def _kind(value: Any) -> str:
    """The kind of a JSON value in words: `text`, `2 texts`, `an object with sentence, timestamp`."""
    if isinstance(value, list):
        return f"{len(value)} x {_kind(value[0])}" if value else "an empty list"
    if isinstance(value, dict):
        return f"an object with {listing(list(value)[:SHOWN])}" if value else "an empty object"
    words = {str: "text", bool: "true or false", int: "a number", float: "a number"}
    return words.get(type(value), "nothing")
