"""What decoding leaves in a cell's work folder, which is never published: traces of a few clips, captions of other beams."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.disk.whole import write_atomically
from bench.method import Caption
from bench.records.figure_data import spread

TRACES = "looks.json"
ALTERNATIVES = "alternatives.jsonl"
KEPT = ("attention", "key_frame", "refocusing", "first_caption")
SHOWN = 4  # clips with pictures
DIGITS = 4


def keep_traces(work: Path, captions: Sequence[Caption]) -> None:
    """Write what a cell attended to in the clips that have pictures, from all captions of its split in their order."""
    found = [
        {
            "clip": one.clip,
            "words": list(one.words),
            **{name: _short(one.traces[name]) for name in KEPT if name in one.traces},
        }
        for one in (captions[place] for place in spread(len(captions), SHOWN))
    ]
    write_atomically(work / TRACES, json.dumps(found) + "\n")


def keep_alternatives(work: Path, captions: Sequence[Caption]) -> None:
    """Write the other captions of every clip with their log-probabilities, best first, a JSON line for each clip."""
    lines = (json.dumps({"clip": one.clip, "alternatives": one.alternatives}) + "\n" for one in captions)
    write_atomically(work / ALTERNATIVES, "".join(lines))


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS)
    return [_short(part) for part in value] if isinstance(value, list | tuple) else value
