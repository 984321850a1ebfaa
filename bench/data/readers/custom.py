"""Formats for anyone's own captions: COCO-format JSON, JSON lines, and comma-separated tables.

All take either one file (role `captions`), whose entries may name a split, or one file per split (`train`, `val`,
`test`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.data.readers.files import finite, parse_json, part_name, read_json, read_lines, read_rows
from bench.data.source import Source, clean
from bench.declare.dataset import Clip
from bench.errors import many, named


def _read_files(files: Mapping[str, Path], read_one: Callable[[Source, Path, str | None], None]) -> Source:
    source = Source(files=tuple(files.values()))
    for role, path in files.items():
        read_one(source, path, None if role == "captions" else role)
    return source.finish()


def _add(source: Source, path: Path, line: int, entry: Mapping[str, Any], role: str | None) -> str:
    """Make sure that the clip of an entry is known, in one part only; return its id."""
    clip = _clip_id(entry["clip"], f"{path} line {line}")
    named_part = entry.get("split")
    part = role if role is not None else part_name(str(named_part), path) if named_part else None
    if clip not in source.clips:
        try:
            start, end = (_seconds(entry.get(key)) for key in ("start", "end"))
        except (TypeError, ValueError, OverflowError):
            raise BenchError(f"{path} line {line}: start and end of clip {clip} must be seconds") from None
        source.add_clip(Clip(clip, str(entry.get("video") or clip), start, end), part)
    elif part is not None and source.part_of[clip] != part:
        raise BenchError(f"{path} line {line} puts clip {clip} into split {part}; an earlier line put it elsewhere")
    return clip


def _clip_id(value: object, where: str) -> str:
    """A clip id as text; a whole number may stand for it. Raises BenchError for what no file or list could name."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BenchError(f"{where} has the clip id {value!r}: a clip id must be text or a whole number")
    clip = str(value).strip()
    if not clip:
        raise BenchError(f"{where} has an empty clip id")
    if clean(clip) != clip:
        raise BenchError(f"{where} has the clip id {clip!r}: control characters are not allowed in it")
    return clip


def _seconds(value: Any) -> float | None:
    """A time in seconds; None where there is none. Raises ValueError or TypeError for what is no finite number."""
    if value in (None, ""):
        return None
    return finite(value)


def read_jsonl(files: Mapping[str, Path]) -> Source:
    """Lines `{"clip": .., "caption": ..}` or `{"clip": .., "captions": [..]}`; optional: id, split, video, start, end.

    A caption's id is `id` (with `#k` behind it for a list of captions) or its position within the clip.
    """

    def _read_one(source: Source, path: Path, role: str | None) -> None:
        for number, line in read_lines(path):
            entry = parse_json(line, path, number)
            if not isinstance(entry, dict) or "clip" not in entry or ("caption" in entry) == ("captions" in entry):
                raise BenchError(f"{path} line {number} needs `clip` and either `caption` or `captions`")
            clip = _add(source, path, number, entry, role)
            name = entry.get("id")
            if "caption" in entry:
                source.add_caption(clip, entry["caption"], None if name is None else str(name))
                continue
            if not isinstance(entry["captions"], list):
                raise BenchError(f"{path} line {number}: captions of clip {clip} must be a list; one text is `caption`")
            for position, text in enumerate(entry["captions"]):
                source.add_caption(clip, text, None if name is None else f"{name}#{position}")

    return _read_files(files, _read_one)


def read_csv(files: Mapping[str, Path]) -> Source:
    """Columns `clip` and `caption`; optional: id, split, video, start, end."""

    def _read_one(source: Source, path: Path, role: str | None) -> None:
        for number, row in read_rows(path, ("clip", "caption")):
            source.add_caption(_add(source, path, number, row, role), row["caption"], row.get("id") or None)

    return _read_files(files, _read_one)


def read_coco(files: Mapping[str, Path]) -> Source:
    """`{"images": [{id, file_name}], "annotations": [{id, image_id, caption}]}` as COCO captions are published.

    The clip id is the image id as text; the file name without its ending is an alias; an image may name a `split`.
    """

    def _read_one(source: Source, path: Path, role: str | None) -> None:
        content = read_json(path)
        try:
            for image in content["images"]:
                clip = _clip_id(image["id"], f"{path}, images:")
                stem = Path(str(image.get("file_name", clip))).stem
                said = image.get("split")
                part = role if role is not None else part_name(str(said), path) if said else None
                source.add_clip(Clip(clip, stem), part)
                if stem != clip:
                    source.aliases[stem] = clip
            strangers = []
            for sentence in content["annotations"]:
                clip, name = str(sentence["image_id"]), sentence.get("id")
                if clip in source.clips:
                    source.add_caption(clip, sentence["caption"], None if name is None else str(name))
                else:
                    strangers.append(clip)
        except (KeyError, TypeError) as error:
            raise BenchError(f"{path} is not COCO captions ({type(error).__name__}: {error})") from error
        if strangers:
            ids = dict.fromkeys(strangers)
            raise BenchError(f"{path} has captions of {many(len(ids), 'image')} that it does not list: {named(ids)}")

    return _read_files(files, _read_one)
