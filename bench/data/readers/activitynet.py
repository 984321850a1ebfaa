"""ActivityNet Captions (Krishna et al., ICCV 2017): `{video: {duration, timestamps, sentences}}` per split.

Every annotated event is one clip `video#k` (k = position in the file, from 0) with its times in seconds. The two
validation files annotate the same videos with different events: `val_1` is the reported one, events of `val_2`
become further clips `video#val_2.k`, in a part of their own.

Odd events, in this order, each counted:

- `swap`: start after end, the two change places;
- `clip`: an event that reaches past the video ends with it;
- `drop`: an event without any length goes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import BenchError
from bench.data.readers.files import finite
from bench.data.readers.records import clip_id
from bench.data.readers.shape import WrongShapeError
from bench.data.source import Source
from bench.declare.dataset import Clip
from bench.errors import many

ROUNDING = 0.005  # times are printed to hundredths of a second: ends that pass the video by less are not odd


def read(source: Source, path: Path, videos: Any, part: str | None) -> None:
    """Add the events of one file as clips of the part that is named after the file's role."""
    if not isinstance(videos, dict):
        raise WrongShapeError(path, "ActivityNet Captions, an object with videos as keys")
    odd: dict[str, list[str]] = {"swap": [], "clip": [], "drop": []}
    marker = "val_2." if part == "val_2" else ""
    for key, entry in videos.items():
        video = clip_id(key, f"{path}, videos:", as_it_is=True)
        for number, (start, end, text) in enumerate(_events(entry, video, path)):
            clip = f"{video}#{marker}{number}"
            start, end = _repair(start, end, float(entry["duration"]), clip, odd)
            source.add_clip(Clip(clip, video, start, end), part)
            source.add_caption(clip, text)
    for clip in odd["drop"]:
        source.drop_clip(clip)
    words = {"swap": "start after end, swapped", "clip": "past the video, cut at its end", "drop": "no length, dropped"}
    for rule, clips in odd.items():
        if clips:
            source.warn(f"events ({rule}): {many(len(clips), 'event')} of {part or path.name}: {words[rule]}", clips)


def _events(entry: Any, video: str, path: Path) -> list[tuple[float, float, Any]]:
    try:
        times = [(finite(start), finite(end)) for start, end in entry["timestamps"]]
        sentences = list(entry["sentences"])
        finite(entry["duration"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        wanted = f"ActivityNet Captions: video {video} lacks duration, timestamps [[start, end], ..] or sentences"
        odd = "a number is too large" if isinstance(error, OverflowError) else str(error)
        told = "" if isinstance(error, KeyError | TypeError) else f" ({odd})"
        raise WrongShapeError(path, wanted + told, error) from error
    if len(times) != len(sentences):
        raise BenchError(f"{path}: video {video} has {len(times)} timestamps and {len(sentences)} sentences")
    return [(start, end, text) for (start, end), text in zip(times, sentences, strict=True)]


def _repair(start: float, end: float, duration: float, clip: str, odd: dict[str, list[str]]) -> tuple[float, float]:
    """Times of an event inside [0, duration], start < end; what was done is added to `odd`."""
    if start > end:
        odd["swap"].append(clip)
        start, end = end, start
    if end > duration + ROUNDING or start < -ROUNDING:
        odd["clip"].append(clip)
    start, end = max(start, 0.0), min(end, duration)
    if end <= start:
        odd["drop"].append(clip)
    return start, end
