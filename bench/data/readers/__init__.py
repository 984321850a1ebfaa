"""Readers of caption files: the one table of formats, by name, and how a file of unknown layout is told.

A format whose records have fields of their own is a row of `fields.LAYOUTS`; any other is a file here and its row in `FORMATS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.data.readers import activitynet, coco, msrvtt, msvd
from bench.data.readers.content import Content, Kind, open_content
from bench.data.readers.fields import ABSENT, LAYOUTS, OWN, Fields, dig, known_layout, suggested, usual_fields
from bench.data.readers.files import read_json, read_lines, unique_keys
from bench.data.readers.records import add_records
from bench.data.readers.shape import WrongShapeError
from bench.data.source import Source
from bench.declare.dataset import RecordField

Files = Mapping[str, Path]
ReadOne = Callable[[Source, Path, Any, str | None], None]


@dataclass(frozen=True)
class Format:
    """How a format is read. `roles` lists the allowed sets of required files; `optional` files may be absent.

    `looks` says it in words, `fits` tells a file of it from others; without `fits` it is read only where it is named.
    """

    read: Callable[[Files], Source]
    roles: tuple[frozenset[str], ...]
    optional: frozenset[str] = frozenset()
    looks: str = ""
    fits: Callable[[Content], bool] | None = None
    one: ReadOne | None = None

    @property
    def known(self) -> frozenset[str]:
        """Every role that a definition may name."""
        return self.optional.union(*self.roles)


def _one_of(*roles: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(role.split("+")) for role in roles)


DEFINED = "in the definition: captions: [{{files: {{captions: {file}}}, fields: {fields}}}] (also: id, split, video, start, end)"
_ANYONES = _one_of("captions", "train+val+test", "train+val", "train+test", "train")
_MSVD_CSV = ("VideoID", "Start", "End", "Language", "Description")
_MSVD_LINE = re.compile(r"\S{11}_\d+_\d+ \S.*")


def _json(read: ReadOne, by_clip: bool = False) -> Callable[[Files], Source]:
    """A format of JSON files that are read one by one; of those that go `by_clip` a key that comes twice is refused."""

    def read_all(files: Files) -> Source:
        source = Source(files=tuple(files.values()))
        for role, path in files.items():
            options = {"object_pairs_hook": unique_keys(path)} if by_clip else {}
            read(source, path, read_json(path, **options), _part(role))
        return source.finish()

    return read_all


def _part(role: str) -> str | None:
    """The split that a file of this role is of; None for a file of all, or of those that its entries name."""
    return None if role in ("captions", "data", "train_val") else role


def _records(kind: Kind | None, fields: Fields | None = None) -> Callable[[Files], Source]:
    """A format of records: of a declared kind of file, with known, own or usual fields."""

    def read_all(files: Files) -> Source:
        source = Source(files=tuple(files.values()))
        for role, path in files.items():
            content = open_content(path, kind)
            chosen = fields or (OWN if not content.records else _fields_of(content)[1])
            add_records(source, content, chosen, _part(role))
            if chosen is not OWN:
                source.seen.append(_seen(content, "records", chosen))
        return source.finish()

    return read_all


def _fields_of(content: Content, way: str = DEFINED) -> tuple[str, Fields]:
    """What the records are and their fields, as a known layout or by usual names. Raises BenchError for unknown ones."""
    found = known_layout(content)
    if found is not None:
        return LAYOUTS[found[0]][0], found[1]
    fields = usual_fields(content)
    if fields is None:
        raise _unknown(content, way)
    return "records", fields


def _holds(*names: str) -> Callable[[Content], bool]:
    return lambda content: (
        isinstance(content.value, dict) and all(isinstance(content.value.get(n), list) for n in names)
    )


def _activitynet(content: Content) -> bool:
    videos = content.value
    return (
        isinstance(videos, dict)
        and bool(videos)
        and all(isinstance(entry, dict) and {"timestamps", "sentences"} <= entry.keys() for entry in videos.values())
    )


def _msvd_csv(content: Content) -> bool:
    return content.kind == "table" and bool(content.sample) and set(_MSVD_CSV) <= content.sample[0].keys()


def _msvd_txt(content: Content) -> bool:
    if content.kind != "table":
        return False
    lines = [line for _, line in read_lines(content.path) if not line.startswith("#")]
    return bool(lines) and all(_MSVD_LINE.fullmatch(line) for line in lines[:50])


_ANET = _one_of("train+val_1")
FORMATS: dict[str, Format] = {
    "msvd_split": Format(msvd.read_split_files, _one_of("train+val+test"), frozenset({"mapping"})),
    "msvd_txt": Format(
        msvd.read_descriptions,
        _one_of("captions"),
        frozenset({"mapping"}),
        "MSVD's AllVideoDescriptions.txt",
        _msvd_txt,
    ),
    "msvd_csv": Format(
        msvd.read_corpus_csv, _one_of("captions"), frozenset({"mapping"}), "MSVD's corpus table", _msvd_csv
    ),
    "msrvtt": Format(
        _json(msrvtt.read),
        _one_of("train_val+test", "data", "train_val", "test"),
        looks="MSR-VTT",
        fits=_holds("videos", "sentences"),
        one=msrvtt.read,
    ),
    "activitynet": Format(
        _json(activitynet.read, by_clip=True),
        _ANET,
        frozenset({"val_2"}),
        "ActivityNet Captions",
        _activitynet,
        activitynet.read,
    ),
    "coco": Format(
        _json(coco.read), _ANYONES, looks="COCO captions", fits=_holds("images", "annotations"), one=coco.read
    ),
    "jsonl": Format(_records("lines"), _ANYONES),
    "csv": Format(_records("table"), _ANYONES),
    **{name: Format(_records(None, fields), _ANYONES, looks=looks) for name, (looks, fields) in LAYOUTS.items()},
}


def read(format: str, files: Files, fields: Mapping[RecordField, str]) -> Source:
    """The clips and captions of `files` in a format of the table, in records with declared `fields`, or (`auto`) in what the
    files look like. Raises BenchError, which for a layout that is unknown, or another than the declared one, says what it
    looks like and how it would be read."""
    if fields:
        return _records({"jsonl": "lines", "csv": "table"}.get(format), Fields(**fields))(files)  # type: ignore[arg-type]
    try:
        return FORMATS[format].read(files) if format != "auto" else _recognised(files)
    except WrongShapeError as wrong:
        try:
            name, looks, _ = recognise(open_content(wrong.path))
        except BenchError as unknown:
            raise BenchError(f"{wrong}. {unknown}") from None
        if format in ("auto", name):  # it looks like what it was read as, and is damaged
            raise
        raise BenchError(f"{wrong}. It looks like {looks}: say `format: {name}`, or leave the format out") from None


def recognise(content: Content, way: str = DEFINED) -> tuple[str, str, Fields | None]:
    """The format that a file has by its shape: its name, what it is in words, and the fields of its records.

    Raises BenchError for an unknown layout: what was seen, and the fields that would probably read it, in the `way` in which
    they are written.
    """
    for name, one in FORMATS.items():
        if one.fits is not None and one.fits(content):
            return name, f"{one.looks} ({content.looks})", None
    known = known_layout(content)
    if known is not None:
        name, fields = known
        return name, f"{LAYOUTS[name][0]} ({content.looks})", fields
    _, fields = _fields_of(content, way)
    return "auto", content.looks, fields


def _recognised(files: Files) -> Source:
    """Read files by their shape."""
    source = Source(files=tuple(files.values()))
    for role, path in files.items():
        content = open_content(path)
        name, looks, fields = recognise(content)
        if fields is not None:
            add_records(source, content, fields, _part(role))
            source.seen.append(_seen(content, looks.partition(" (")[0] if name != "auto" else "records", fields))
            continue
        source.seen.append(f"{path.name} is {looks}")
        one = FORMATS[name].one
        if one is None:  # MSVD's, which are of one file
            return FORMATS[name].read({"captions": path})
        one(source, path, content.value, _part(role))
    return source.finish()


def _seen(content: Content, what: str, fields: Fields) -> str:
    """What was seen in a file and taken for what, in a sentence."""
    there = {
        part: path for part, path in fields.named.items() if any(dig(one, path) is not ABSENT for one in content.sample)
    }
    taken = ", ".join(f"{part} from `{path}`" for part, path in there.items())
    return f"{content.path.name} holds {what}, {content.looks}: {taken}"


def _unknown(content: Content, way: str) -> BenchError:
    """The sentence on a file whose layout is not known."""
    path = content.path
    if not content.records:
        return BenchError(
            f"{path} holds no captions that are known here: it is {content.looks}. Captions are records with a clip and its "
            "captions: lines of JSON, a list of objects, an object by clips, or a table"
        )
    names = suggested(content)
    written = ", ".join(f"{part}: {name}" for part, name in names.items())
    told = way.format(file=path.name, fields=f"{{{written}}}", clip=names["clip"], caption=names["caption"])
    return BenchError(
        f"{path} has no layout that is known here: it is {content.looks}. If these are its clips and captions, say so {told}"
    )


__all__ = ["FORMATS", "Format", "read", "recognise"]
