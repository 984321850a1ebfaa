"""From records of named fields to clips and captions: what the captions of a data set and predictions have in common."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from bench import BenchError
from bench.data.readers.content import Content
from bench.data.readers.fields import ABSENT, OWN, Fields, dig
from bench.data.readers.files import finite, part_name
from bench.data.source import Source, clean
from bench.declare.dataset import Clip

ENDINGS = (
    ".mp4",
    ".avi",
    ".mkv",
    ".webm",
    ".mov",
    ".m4v",
    ".flv",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".jpg",
    ".jpeg",
    ".png",
    ".npy",
)


@dataclass(frozen=True)
class Entry:
    """What one record says of one clip: its name, or the times in seconds of an event of `video`, and captions with their ids."""

    where: str
    clip: str | None
    texts: list[Any]
    ids: list[str | None]
    video: str | None = None
    start: float | None = None
    end: float | None = None
    part: str | None = None
    file: str | None = None
    """The name of the clip as the record has it, where that is the file of the clip."""


def entries(content: Content, fields: Fields) -> Iterator[Entry]:
    """The clips and captions of a file by `fields`, in file order. Raises BenchError naming the line or item that lacks them."""
    for place, record in content.records:
        where = f"{content.path} {place}"
        texts = dig(record, fields.caption) if isinstance(record, Mapping) else ABSENT
        named = fields.clip or fields.video
        name = dig(record, named) if named and texts is not ABSENT else ABSENT
        if name is ABSENT:
            raise BenchError(f"{where} needs {_needed(fields)}")
        said = dig(record, fields.split) if fields.split else ABSENT
        part = part_name(str(said), content.path) if said is not ABSENT and said else None
        several = isinstance(texts, list)
        captions = [_joined(text) for text in texts] if several else [texts]
        ids = _ids(dig(record, fields.id) if fields.id else ABSENT, len(captions), several)
        starts, ends = (dig(record, path) if path else ABSENT for path in (fields.start, fields.end))
        if isinstance(starts, list):  # a list of events in one record, each with a caption
            if not isinstance(ends, list) or not len(starts) == len(ends) == len(captions):
                raise BenchError(f"{where} has {len(starts)} events and {len(captions)} captions")
            video = clip_id(name, where)
            for text, one, start, end in zip(captions, ids, starts, ends, strict=True):
                yield Entry(where, None, [text], [one], video, *_times(start, end, where, video), part)
            continue
        if fields.clip is None:
            video = clip_id(name, where)
            yield Entry(where, None, captions, ids, video, *_times(starts, ends, where, video), part)
            continue
        clip = clip_id(name, where, as_it_is=fields.clip == OWN.clip)
        video = dig(record, fields.video) if fields.video else ABSENT
        own = str(video) if video is not ABSENT and video else None
        file = None if str(name).strip() == clip else str(name).strip()
        yield Entry(where, clip, captions, ids, own, *_times(starts, ends, where, clip), part, file)


def add_records(source: Source, content: Content, fields: Fields, role: str | None) -> None:
    """Add the clips and captions of a file. `role` is the split that the file is of; None where its records may name one.

    An event without a name of its own is the clip `video#k`, k being its place among the events of the video. Names of files are
    other names of their clips. Raises BenchError for two files that would be one clip.
    """
    events: dict[tuple[str | None, float | None, float | None], str] = {}
    count: dict[str, int] = {}
    files: dict[str, str] = {}
    cut = re.compile(fields.cut) if fields.cut else None
    for entry in entries(content, fields):
        part = role or entry.part
        clip = entry.clip
        if clip is None:
            video = str(entry.video)
            event = (video, entry.start, entry.end)
            if event not in events:
                count[video] = count.get(video, -1) + 1
                events[event] = f"{video}#{count[video]}"
            clip = events[event]
        if entry.file is not None and files.setdefault(clip, entry.file) != entry.file:
            raise BenchError(
                f"{entry.where} is of {entry.file}, and an earlier one of {files[clip]}: both would be the clip {clip}; give "
                "each clip an id of its own in a field `clip`"
            )
        if clip not in source.clips:
            film = cut.sub("", clip) if cut else None
            source.add_clip(Clip(clip, entry.video or clip, entry.start, entry.end, film), part)
        elif part is not None and source.part_of[clip] != part:
            raise BenchError(f"{entry.where} puts clip {clip} into split {part}; an earlier line put it elsewhere")
        for text, name in zip(entry.texts, entry.ids, strict=True):
            source.add_caption(clip, text, name)
    source.aliases |= {file: clip for clip, file in files.items()}


def clip_id(value: object, where: str, as_it_is: bool = False) -> str:
    """A clip id as text; a whole number may stand for it, and a file for the clip in it.

    With `as_it_is` an ending such as .mp4 stays. Raises BenchError for what no file or list could name.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BenchError(f"{where} has the clip id {value!r}: a clip id must be text or a whole number")
    clip = str(value).strip()
    if not clip:
        raise BenchError(f"{where} has an empty clip id")
    if clean(clip) != clip:
        raise BenchError(f"{where} has the clip id {clip!r}: control characters are not allowed in it")
    return clip if as_it_is else without_ending(clip)


def without_ending(name: str) -> str:
    """The name of a clip for the name of its file: `video0` for `all/video0.mp4`."""
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in ENDINGS and path.stem else name


def _needed(fields: Fields) -> str:
    clip = fields.clip or fields.video
    if fields is OWN:
        return "`clip` and either `caption` or `captions`"
    return f"`{clip}` and `{fields.caption}`, as the records before it have"


def _joined(text: Any) -> Any:
    """A caption that is a list of words as text."""
    return " ".join(text) if isinstance(text, list) and all(isinstance(word, str) for word in text) else text


def _ids(value: Any, captions: int, several: bool) -> list[str | None]:
    """The id of each caption: its own, or that of the record with `#k`; None where there is none."""
    if isinstance(value, list) and len(value) == captions:
        return [str(one) for one in value]
    if value is ABSENT or value is None or value == "":
        return [None] * captions
    return [f"{value}#{place}" for place in range(captions)] if several else [str(value)]


def _times(start: Any, end: Any, where: str, clip: str) -> tuple[float | None, float | None]:
    try:
        times = _seconds(start), _seconds(end)
    except (OverflowError, TypeError, ValueError):
        raise BenchError(f"{where}: start and end of clip {clip} must be seconds") from None
    if (times[0] is None) != (times[1] is None):
        lacks, has = ("a start", "an end") if times[0] is None else ("an end", "a start")
        raise BenchError(
            f"{where}: clip {clip} has {has} and not {lacks}, so that it would be the whole video: give both or none"
        )
    return times


def _seconds(value: Any) -> float | None:
    """A time in seconds; None where there is none. Raises ValueError or TypeError for what is no finite number."""
    if value in (None, "", ABSENT):
        return None
    return finite(value)
