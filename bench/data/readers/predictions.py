"""Captions that a model wrote, one for each clip, in the layouts in which the captions of data sets are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from bench import BenchError
from bench.data.readers import recognise
from bench.data.readers.content import open_content
from bench.data.readers.fields import Fields
from bench.data.readers.records import Entry, entries
from bench.errors import many, unknown

PARTS = ("clip", "caption", "video", "start", "end")
GIVEN = "with fields.clip={clip} fields.caption={caption}"
_HALF = re.compile("[\ud800-\udfff]")


def read_captions(path: Path, fields: Mapping[str, str] | None = None) -> list[Entry]:
    """The captions of a file in its order, one of each entry; `fields` names the fields of records where they are unusual.

    Raises BenchError naming the place, for an unknown layout with the fields that would probably read it.
    """
    for part in fields or ():
        if part not in PARTS:
            raise unknown("field", part, PARTS)
    content = open_content(path)
    if not content.records and content.kind != "json":
        raise BenchError(f"{path} holds no captions")
    chosen = Fields(**fields) if fields else recognise(content, GIVEN)[2]
    if chosen is None or not chosen.caption or not (chosen.clip or chosen.video):
        what = f"it is {content.looks}" if chosen is None else "its fields are to name a clip and a caption"
        raise BenchError(f"{path} holds no captions of a model: {what}")
    return [_one(entry) for entry in entries(content, chosen)]


def _one(entry: Entry) -> Entry:
    if len(entry.texts) != 1:
        raise BenchError(f"{entry.where} has {many(len(entry.texts), 'caption')}: give one, which is scored")
    text = entry.texts[0]
    if not isinstance(text, str):
        raise BenchError(f"{entry.where} has the caption {text!r}: a caption is text")
    if _HALF.search(f"{entry.clip}{text}"):
        raise BenchError(f"{entry.where} has half of a surrogate pair, which no text file can hold")
    return replace(entry, texts=[text])
