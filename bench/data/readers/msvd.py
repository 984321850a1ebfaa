"""MSVD, the Microsoft Research Video Description corpus (Chen and Dolan, ACL 2011), in its three published forms.

A clip has two names: `<YouTube id>_<start>_<end>` and `vid1` .. `vid1970`. `youtube_mapping.txt` joins them; the
numbers are the rank of the first name in byte order, so a complete set of 1,970 names needs no mapping file.
Ids here are always `vidN`, counted from 1; files that count from `vid0` are shifted by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from bench import BenchError
from bench.data.readers.files import read_lines, read_rows
from bench.data.source import Source
from bench.declare.dataset import Clip
from bench.disk.limits import DIGITS
from bench.errors import many

CLIPS = 1970  # clips for which videos and English captions were released together
_NUMBERED = re.compile(rf"vid(\d{{1,{DIGITS}}})")
_TIMES = re.compile(r"_\d+_\d+$")


def read_mapping(path: Path) -> dict[str, str]:
    """Lines `<YouTube id>_<start>_<end> vidN` -> {name: vidN}, counted from 1."""
    names: dict[str, str] = {}
    for number, line in read_lines(path):
        fields = line.split()
        if len(fields) != 2 or not _NUMBERED.fullmatch(fields[1]):
            raise BenchError(f"{path} line {number} reads {line[:60]!r}: expected `<YouTube id>_<start>_<end> vidN`")
        if fields[0] in names:
            raise BenchError(f"{path} line {number} names {fields[0]} a second time")
        names[fields[0]] = fields[1]
    ids = _from_one(names.values())
    if len(set(ids)) != len(names):
        raise BenchError(f"{path} gives one vidN to several clips: {len(names)} lines, {len(set(ids))} ids")
    return {name: ids[old] for name, old in names.items()}


def film(name: str) -> str:
    """The YouTube id of `<YouTube id>_<start>_<end>`; any other name stands for itself."""
    return _TIMES.sub("", name)


def _from_one(ids: Iterable[str]) -> dict[str, str]:
    """{vidN as written: vidN counted from 1}; a `vid0` says that the file counts from 0."""
    numbers = {name: int(name.removeprefix("vid")) for name in ids}
    shift = 1 if 0 in numbers.values() else 0
    return {name: f"vid{number + shift}" for name, number in numbers.items()}


def _ids(names: Iterable[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """{name in a caption file: clip id}. Names that an existing mapping does not know are absent from the result."""
    names = list(names)
    if names and all(_NUMBERED.fullmatch(name) for name in names):
        return _from_one(names)
    if mapping:
        return {name: mapping[name] for name in names if name in mapping}
    if len(names) == CLIPS:
        return {name: f"vid{rank}" for rank, name in enumerate(sorted(names), 1)}
    return {name: name for name in names}


def _source(files: Mapping[str, Path], rows: Iterable[tuple[str | None, str, str]]) -> Source:
    """Rows (part, name of the clip, caption) -> Source with `vidN` ids, in order of their first row."""
    rows = list(rows)
    source = Source(files=tuple(files.values()), from_one=True)
    mapping = read_mapping(files["mapping"]) if "mapping" in files else {}
    names = dict.fromkeys(name for _, name, _ in rows)
    ids = _ids(names, mapping)
    other_name = {clip: name for name, clip in (mapping or ids).items()}
    for part, name, text in rows:
        clip = ids.get(name)
        if clip is None:
            continue
        if clip not in source.clips:
            name_of_file = other_name.get(clip, clip)
            source.add_clip(Clip(clip, name_of_file, film=film(name_of_file)), part)
        elif source.part_of[clip] != part:
            raise BenchError(f"MSVD: clip {clip} is in the {source.part_of[clip]} and in the {part} captions")
        source.add_caption(clip, text)
    source.aliases = {
        name: clip
        for name, clip in (*mapping.items(), *ids.items())
        if clip in source.clips and name not in source.clips  # of files that count from vid0 vid0 alone is another name
    }
    unknown = [name for name in names if name not in ids]
    if unknown:
        source.warn(f"clips outside the mapping: {many(len(unknown), 'clip')} of {files['captions']} left out", unknown)
    return source.finish()


def read_split_files(files: Mapping[str, Path]) -> Source:
    """Files of lines `vidN<TAB>caption`, one per split: lower case, without punctuation (Venugopalan et al. 2015)."""

    def rows() -> Iterable[tuple[str, str, str]]:
        for part in ("train", "val", "test"):
            for number, line in read_lines(files[part]):
                name, tab, text = line.partition("\t")
                if not tab:
                    raise BenchError(f"{files[part]} line {number} has no tab: expected `vidN<TAB>caption`")
                yield part, name.strip(), text

    return _source(files, rows())


def read_descriptions(files: Mapping[str, Path]) -> Source:
    """`AllVideoDescriptions.txt`: lines `<YouTube id>_<start>_<end> caption`; lines that start with # are comments."""

    def rows() -> Iterable[tuple[None, str, str]]:
        for _, line in read_lines(files["captions"]):
            if not line.startswith("#"):
                name, _, text = line.partition(" ")
                yield None, name, text

    return _source(files, rows())


def read_corpus_csv(files: Mapping[str, Path]) -> Source:
    """The corpus table: VideoID, Start, End, .., Language, Description; the English rows are taken.

    A first column of row numbers may be there, named or not; a description may hold line breaks.
    """
    path = files["captions"]
    others = 0
    rows: list[tuple[None, str, str]] = []
    for number, row in read_rows(path, ("VideoID", "Start", "End", "Language", "Description")):
        if row["Language"] != "English":
            others += 1
            continue
        try:
            start, end = int(float(row["Start"])), int(float(row["End"]))
        except (OverflowError, ValueError):
            raise BenchError(f"{path} line {number}: Start and End are {row['Start']!r} and {row['End']!r}") from None
        rows.append((None, f"{row['VideoID']}_{start}_{end}", row["Description"]))
    source = _source(files, rows)
    if others:
        source.warn(f"other languages: {many(others, 'row')} of {path} left out", [])
    return source
