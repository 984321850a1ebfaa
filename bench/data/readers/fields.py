"""Which field of a record is what: the layouts that are known, those that are told by usual names, and those a user declares.

A path such as `descs.desc` goes into objects and through lists; a number takes an entry of a list of values (`segment.0`);
`caption|captions` is whichever of the two a record has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from bench.data.readers.content import CLIPS, Content
from bench.data.readers.files import PART_NAMES

ABSENT: Any = object()


@dataclass(frozen=True)
class Fields:
    """Paths of the parts of a record. Without `clip` every event (`start` and `end` of a `video`) is a clip of its own.

    `cut` is a pattern of what the name of a clip adds to that of the film it was cut from.
    """

    clip: str | None = None
    caption: str = ""
    id: str | None = None
    split: str | None = None
    video: str | None = None
    start: str | None = None
    end: str | None = None
    cut: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """What is read from where, as a user would declare it."""
        return {one.name: path for one in fields(self) if one.name != "cut" and (path := getattr(self, one.name))}


OWN = Fields("clip", "caption|captions", "id", "split", "video", "start", "end")
LAYOUTS: dict[str, tuple[str, Fields]] = {
    "own": ("clips and captions as this project writes them", OWN),
    "vatex": ("VATEX", Fields("videoID", "enCap", cut=r"_\d{6}_\d{6}$")),
    "karpathy": ("a file as Karpathy's splits of COCO", Fields("filename", "sentences.raw", split="split")),
    "tvc": ("TVC", Fields("clip_id", "descs.desc", "descs.desc_id", None, "vid_name", "ts.0", "ts.1")),
    "youcook": (
        "YouCook2",
        Fields(None, "annotations.sentence", None, "subset", "key", "annotations.segment.0", "annotations.segment.1"),
    ),
    "events": (
        "ActivityNet's results",
        Fields(None, "value.sentence", None, None, "key", "value.timestamp.0", "value.timestamp.1"),
    ),
    "retrieval": ("MSR-VTT's retrieval split", Fields("video_id", "sentence")),
}
"""Layouts that are known by name: what they are, and the fields of their records. The first that fits is taken."""

OPTIONAL = {
    "own": ("id", "split", "video", "start", "end"),
    "karpathy": ("split",),
    "youcook": ("split",),
    "tvc": ("id",),
}
BESIDE = {"retrieval": ("key", "vid_key")}  # fields without which a layout that would fit much else is not meant

CAPTIONS = (
    *("caption", "captions", "sentence", "sentences", "enCap", "text", "texts", "description", "descriptions", "desc"),
    *(
        "descs",
        "cap",
        "caps",
        "raw",
        "prediction",
        "pred",
        "hypothesis",
        "generated",
        "answer",
        "references",
        "value",
        "second",
    ),
)
TIMES = (
    ("start", "end"),
    ("start_time", "end_time"),
    ("timestamp.0", "timestamp.1"),
    ("segment.0", "segment.1"),
    ("ts.0", "ts.1"),
)
PARTS = ("split", "subset", "set")


def dig(value: Any, path: str) -> Any:
    """What stands at a path, `ABSENT` for nothing; of a list of objects, what stands at it in each."""
    if "|" in path:
        found = [one for part in path.split("|") if (one := dig(value, part)) is not ABSENT]
        return found[0] if len(found) == 1 else ABSENT
    if isinstance(value, Mapping):
        if path in value:
            return value[path]
        head, _, rest = path.partition(".")
        return dig(value[head], rest) if rest and head in value else ABSENT
    if isinstance(value, list):
        head = path.partition(".")[0]
        if head.isdecimal() and not any(isinstance(item, list | dict) for item in value):
            return value[int(head)] if int(head) < len(value) else ABSENT
        inside = [dig(item, path) for item in value]
        return ABSENT if ABSENT in inside or not inside else inside
    return ABSENT


def known_layout(content: Content) -> tuple[str, Fields] | None:
    """The name of a layout whose fields a record of the sample has, and these fields."""
    for name, (_, layout) in LAYOUTS.items():
        needed = [path for part, path in layout.named.items() if part not in OPTIONAL.get(name, ())]
        needed += BESIDE.get(name, ())
        if any(all(dig(one, path) is not ABSENT for path in needed) for one in content.sample):
            return name, layout
    return None


def usual_fields(content: Content) -> Fields | None:
    """The fields of records by the names that people give them; None where no clip or no caption is found so."""
    caption = next((path for name in CAPTIONS if (path := _caption_path(content, name))), None)
    if caption is None:
        return None
    head = caption.partition(".")[0]
    clip = next((name for name in CLIPS if name != head and _any(content, name, _is_name)), None)
    if clip is None:
        return None
    split = next((name for name in PARTS if _all(content, name, _is_part)), None)
    times = next((pair for pair in TIMES if all(_all(content, path, _is_time) for path in pair)), None)
    if times is None:
        return Fields(clip, caption, split=split)
    several = len({(str(dig(one, clip)), *(str(dig(one, path)) for path in times)) for one in content.sample})
    if several > len({str(dig(one, clip)) for one in content.sample}):  # events of one video: each is a clip
        return Fields(None, caption, None, split, clip, *times)
    return Fields(clip, caption, None, split, None, *times)


def _any(content: Content, path: str, good: Any) -> bool:
    return any(good(dig(one, path)) for one in content.sample)


def _all(content: Content, path: str, good: Any) -> bool:
    return bool(content.sample) and all(good(dig(one, path)) for one in content.sample)


def _is_name(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool) and value != ""


def _is_part(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower() in PART_NAMES


def _is_time(value: Any) -> bool:
    try:
        float(value)
    except (OverflowError, TypeError, ValueError):
        return False
    return True


def _is_caption(value: Any) -> bool:
    """Text, or a list of texts."""
    return isinstance(value, str) or (
        isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)
    )


def _caption_path(content: Content, name: str) -> str | None:
    """The path of captions that stand under `name`: texts themselves, or objects that hold them."""
    if _any(content, name, _is_caption):
        return name
    inner = (f"{name}.{below}" for below in CAPTIONS)
    return next((path for path in inner if _any(content, path, _is_caption)), None)


def suggested(content: Content) -> dict[str, str]:
    """The map of fields that would probably read records of unusual names: a name in each, and text of several words."""
    paths = list(dict.fromkeys(path for one in content.sample for path in _paths(one)))
    texts = [path for path in paths if _any(content, path, _is_caption) and _words(content, path) > 1.5]
    caption = max(texts, key=lambda path: _words(content, path), default=None)
    names = [path for path in paths if path not in texts and _any(content, path, _is_name)]
    clip = max(names, key=lambda path: len({str(dig(one, path)) for one in content.sample}), default=None)
    return {"clip": clip or "NAME", "caption": caption or "NAME"}


def _paths(record: Mapping[str, Any]) -> list[str]:
    found = []
    for name, value in record.items():
        first = value[0] if isinstance(value, list) and value else value
        found += [f"{name}.{below}" for below in first] if isinstance(first, dict) else [name]
    return found


def _words(content: Content, path: str) -> float:
    """Words of a text there, on average."""
    found = [dig(one, path) for one in content.sample]
    texts = [text for one in found for text in (one if isinstance(one, list) else [one])]
    return sum(len(str(text).split()) for text in texts) / max(len(texts), 1)
