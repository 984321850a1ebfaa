"""What a file from elsewhere may hold. Its readers ask here before they take memory for what it declares.

A few bytes can declare or unpack to gigabytes: an array in the header of a file, a member of an archive, a list of lists. What
is made of a file must therefore stand in a relation to the bytes that are there. Everything here raises ValueError with the
reason, of which each reader makes its sentence.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from bench.home import LONGEST_NAME

# What any file may become in memory; and a larger one, how often its bytes on disk. Captions and features shrink to a tenth,
# padded ones to a fiftieth.
FREE = 64 * 2**20
EXPANSION = 100
# JSON takes a few times the bytes of its text: those of a list or object, and of a number or text in it.
JSON_EXPANSION = 12
LIST_BYTES, VALUE_BYTES = 80, 32
LONGEST_LINE = 64 * 2**20  # bytes: a frame of a hundred boxes takes one in text
LONGEST_CAPTION = 2**16  # characters
MOST_COLUMNS = 1000  # of a table of captions
# YAML, where 400 bytes can name a list of billions of entries: many times what our own definitions and plans do.
YAML_LARGEST = 16 * 2**20  # characters of a file
YAML_DEEPEST = 40  # lists and mappings inside each other
YAML_MOST = 100_000  # values, those that aliases repeat counted as often as they stand there
STREAM = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,99}")  # its cache is a file called so
DIGITS = 18  # of a number: longer ones are text, and no option takes them


def check_size(declared: float, there: int, what: str) -> None:
    """Refuse what would take `declared` bytes of memory and is `there` bytes of a file. `what` begins the reason."""
    if declared > max(FREE, EXPANSION * there):
        raise ValueError(f"{what} declares {amount(declared)} in {amount(there)} of file")


def amount(size: float) -> str:
    """Bytes in a sentence: `5.1 kB`, `16.0 GB`."""
    power = min(int(math.log(max(size, 1), 1000)), 6)
    return f"{size / 1000**power:.{min(power, 1)}f} {('bytes', 'kB', 'MB', 'GB', 'TB', 'PB', 'EB')[power]}"


def check_member(info: zipfile.ZipInfo) -> None:
    """Refuse a member of a zip archive that unpacks to more than its packed bytes can be meant for."""
    check_size(info.file_size, info.compress_size, f"{info.filename[:LONGEST_NAME]} in the archive")


def check_dataset(item: Any, rows: int = 0) -> None:
    """Refuse an array of an HDF5 file that lies in other files, or of which one reading takes more than the file can mean.

    A reading takes the whole array, or with `rows` so many of its first axis, and at least a chunk.
    """
    name = str(item.name).lstrip("/")[:LONGEST_NAME]
    if item.external or item.is_virtual:
        raise ValueError(f"{name} lies in other files than this one")
    there, shape = item.id.get_storage_size(), item.shape or ()
    if item.shape is None:
        raise ValueError(f"{name} is empty")
    read = (min(rows, shape[0]), *shape[1:]) if rows and shape else shape
    for taken in (read, item.chunks or ()):
        check_size(math.prod(taken) * item.dtype.itemsize, there, f"{name} {list(shape)}")
    if rows and shape:  # each row becomes a name at least
        check_size(shape[0] * LIST_BYTES, there, f"{name} {list(shape)}")


def check_heaps(item: Any) -> None:
    """Refuse texts of any length in an HDF5 file whose heaps are damaged: its library looks for the end of some for ever, and no
    signal stops it. Of packed lists the places of the heaps are not known here."""
    if item.dtype.kind != "O" or item.compression or item.shuffle or item.fletcher32:
        return
    chunks = [item.id.get_chunk_info(number) for number in range(item.id.get_num_chunks())] if item.chunks else []
    places = [(chunk.byte_offset, chunk.size) for chunk in chunks] or [
        (item.id.get_offset(), item.id.get_storage_size())
    ]
    with Path(item.file.filename).open("rb") as file:
        heaps = set()
        for place, size in places:
            if place is not None:  # nothing was written
                file.seek(place)
                found = file.read(size)
                heaps |= {at for _, at, _ in HEAP_ID.iter_unpack(found[: len(found) // HEAP_ID.size * HEAP_ID.size])}
        for at in heaps - {0, UNDEFINED}:
            file.seek(min(at, 2**62))
            head = file.read(HEAP_HEAD.size)
            mark, size = HEAP_HEAD.unpack(head) if len(head) == HEAP_HEAD.size else (b"", 0)
            check_size(size, item.file.id.get_filesize(), "a heap of texts")
            if mark != b"GCOL" or not _ends(file.read(size - HEAP_HEAD.size) if size > HEAP_HEAD.size else b""):
                raise ValueError(f"{str(item.name)[:LONGEST_NAME]} lists texts of which the file has lost the places")


# Of HDF5's global heaps: where a text lies (its length, its heap's address, its number there); a heap's mark and size; the number
# and size of an object in it.
HEAP_ID, HEAP_HEAD, HEAP_OBJECT = struct.Struct("<IQI"), struct.Struct("<4s4xQ"), struct.Struct("<H6xQ")
UNDEFINED = 2**64 - 1


def _ends(heap: bytes) -> bool:
    """Whether the objects of a heap end where it ends."""
    place = 0
    while place + HEAP_OBJECT.size <= len(heap):
        number, size = HEAP_OBJECT.unpack_from(heap, place)
        needed = HEAP_OBJECT.size + -(-size // 8) * 8 if number else size  # the last is what is free
        if needed < HEAP_OBJECT.size:
            return False
        place += needed
    return place <= len(heap)


def check_json(text: str | bytes) -> None:
    """Refuse JSON whose lists and values would take many times the memory of captions as long."""
    if len(text) * LIST_BYTES <= FREE:
        return
    opened, comma = (("[", "{"), ",") if isinstance(text, str) else ((b"[", b"{"), b",")
    needed = LIST_BYTES * sum(map(text.count, opened)) + VALUE_BYTES * text.count(comma)  # type: ignore[arg-type]
    if needed > max(FREE, JSON_EXPANSION * len(text)):
        raise ValueError(f"it is made of brackets and commas, which would take {amount(needed)} of memory")


@contextmanager
def regular(path: Path) -> Iterator[BufferedReader]:
    """A file to be read. Raises OSError, also for a pipe or device in its place, which would be waited for."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "is no regular file")
        yield file


def own_bytes(path: Path) -> bytes:
    """What this project wrote into a file. Raises OSError as `regular`."""
    with regular(path) as file:
        return file.read()


def own_text(path: Path) -> str:
    """The same as text, its lines ended by `\\n`. Raises OSError as `own_bytes`, and UnicodeDecodeError."""
    return own_bytes(path).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")


def own_json(text: str, **options: Any) -> Any:
    """What this project wrote as JSON, as `json.loads` reads it. Raises ValueError alone, also for what nests too deeply."""
    check_json(text)
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def check_name(name: str) -> str:
    """The name, unless it is longer than that of a file can be."""
    if len(name) > LONGEST_NAME or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise ValueError(f"the name {name[:40]}.. is longer than {LONGEST_NAME} bytes")
    return name


def check_stream_name(name: str) -> None:
    """Refuse the name of a stream that could be no file's."""
    if not STREAM.fullmatch(name):
        raise ValueError(
            f"{name[:40]!r} cannot be the name of a stream: it is of letters, digits and . _ + -, begins with no dot, and has at "
            "most 100 of them"
        )
