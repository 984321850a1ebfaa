"""What a cell attended to while it decoded, kept for a few clips in its work folder, which is never published."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.disk.whole import write_atomically

if TYPE_CHECKING:
    from bench.method import Caption


LOOKS = "looks.json"


TRACES = ("attention", "key_frame", "refocusing", "first_caption")


SHOWN = 4  # clips with pictures


DIGITS = 4


def keep_looks(work: Path, captions: Sequence[Caption]) -> None:
    """Write what a cell attended to in the clips that have pictures, from all captions of its split in their order."""
    told = [
        {
            "clip": one.clip,
            "words": list(one.words),
            **{name: _short(one.traces[name]) for name in TRACES if name in one.traces},
        }
        for one in (captions[place] for place in spread(len(captions), SHOWN))
    ]
    write_atomically(work / LOOKS, json.dumps(told) + "\n")


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    return [_short(part) for part in value] if isinstance(value, list | tuple) else value


def spread(length: int, count: int) -> list[int]:
    """At most `count` of `length` places, equally spaced, the first and the last among them."""
    count = min(count, length)
    return sorted({round(place * (length - 1) / max(count - 1, 1)) for place in range(count)})
