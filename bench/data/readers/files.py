"""Opening caption files: text in UTF-8, JSON plain or in a zip archive, tables; damage becomes a sentence."""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.disk.limits import MOST_COLUMNS, check_json, check_member

PART_NAMES = {
    "train": "train",
    "restval": "train",  # of COCO in Karpathy's splits: validation images that all train on
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def part_name(word: str, path: Path) -> str:
    """`train`, `val` or `test` for the words that published files use for them."""
    try:
        return PART_NAMES[word.strip().lower()]
    except KeyError:
        raise BenchError(f"{path} names a split {word!r}: known are {', '.join(PART_NAMES)}") from None


def read_bytes(path: Path) -> bytes:
    """The content of a file; a file that cannot be read is named with the reason."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror}") from error


def decode(content: bytes, path: Path) -> str:
    """UTF-8 text without byte order mark."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BenchError(
            f"{path} is not UTF-8 text (byte {error.start:,}): convert it, for instance with `iconv -t utf-8`"
        ) from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text file, split at line feeds alone: captions may hold other separators."""
    for number, line in enumerate(decode(read_bytes(path), path).split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def read_rows(path: Path, columns: tuple[str, ...], mark: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a table, its fields parted by `mark`, that has at least `columns`, each with the number of its last line."""
    # newline="" leaves line breaks inside quotes to the csv module.
    rows = csv.DictReader(io.StringIO(decode(read_bytes(path), path), newline=""), delimiter=mark, strict=True)
    try:
        found = rows.fieldnames or []
    except csv.Error as error:
        raise BenchError(f"{path} line 1 is not the header of a table ({error}): it names the columns") from error
    absent = [column for column in columns if column not in found]
    if len(found) > MOST_COLUMNS:
        raise BenchError(f"{path} has {len(found):,} columns: a table of captions has a few")
    if twice := [name for name in dict.fromkeys(found) if name and found.count(name) > 1]:
        raise BenchError(f"{path} has several columns {', '.join(twice)}: give each column a name of its own")
    if absent:
        raise BenchError(f"{path} has no column {', '.join(absent)}: its header is {', '.join(found) or 'empty'}")
    try:
        for row in rows:
            if any(row[column] is None for column in columns):
                raise BenchError(f"{path} line {rows.line_num} has too few columns: the file may be cut off")
            if None in row:  # where DictReader puts what no column of the header takes
                raise BenchError(f"{path} line {rows.line_num} has too many columns: text with commas needs quotes")
            yield rows.line_num, row
    except csv.Error as error:
        raise BenchError(f"{path} line {rows.line_num} is not a row of a table ({error}): cut off?") from error


def _json_in_zip(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.lower().endswith(".json")]
            # Archives made on a Mac carry a shadow file beside every file.
            names = [name for name in names if not name.startswith("__MACOSX/") and not Path(name).name.startswith(".")]
            if len(names) != 1:
                raise BenchError(f"{path} holds {len(names)} JSON files ({', '.join(names) or 'none'}): one is needed")
            check_member(archive.getinfo(names[0]))
            return archive.read(names[0])
    except BenchError:
        raise
    except Exception as error:  # zipfile, zlib, lzma and struct have errors of their own
        raise BenchError(
            f"{path} is a damaged zip archive ({error or type(error).__name__}): fetch it again"
        ) from error


def read_json(path: Path, **options: Any) -> Any:
    """The content of a JSON file, also when it lies alone in a zip archive."""
    content = _json_in_zip(path) if zipfile.is_zipfile(path) else read_bytes(path)
    if content[:2] == b"PK":
        raise BenchError(f"{path} is a zip archive that is cut off: fetch it again")
    return parse_json(decode(content, path), path, **options)


def parse_json(text: str, path: Path, line: int | None = None, **options: Any) -> Any:
    """The content of a JSON file, or of one of its lines. Raises BenchError with the place."""
    where = str(path) if line is None else f"{path} line {line}"
    try:
        check_json(text)
        return json.loads(text, **options)
    except json.JSONDecodeError as error:
        where = f"{path} line {line or error.lineno}"
        raise BenchError(
            f"{where} is not JSON ({error.msg.removesuffix(' starting at')}): the file may be cut off"
        ) from error
    except RecursionError as error:
        raise BenchError(f"{where} nests too deeply for captions: it is damaged, or another file") from error
    except ValueError as error:  # what limits refuse, and numbers of thousands of digits
        reason = "a number in it has thousands of digits" if "int_max_str_digits" in str(error) else error
        raise BenchError(f"{where} is no JSON of captions: {reason}") from error


def finite(value: Any) -> float:
    """A time as a number. Raises ValueError, TypeError or OverflowError for what is none, NaN and infinity among them."""
    if not math.isfinite(number := float(value)):
        raise ValueError(f"{value} is no time")
    return number


def unique_keys(path: Path) -> Any:
    """A hook for `read_json` that refuses an object in which a key comes twice: the first would be lost silently."""

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            seen: set[str] = set()
            twice = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
            raise BenchError(f"{path} holds {len(twice)} keys more than once: {', '.join(twice[:5])}")
        return table

    return build
