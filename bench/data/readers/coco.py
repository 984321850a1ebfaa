"""COCO captions: `{"images": [{id, file_name}], "annotations": [{id, image_id, caption}]}`.

The clip id is the image id as text; the file name without its ending is an alias; an image may name a `split`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import BenchError
from bench.data.readers.files import part_name
from bench.data.readers.records import clip_id
from bench.data.readers.shape import WrongShapeError
from bench.data.source import Source
from bench.declare.dataset import Clip
from bench.errors import many, named


def read(source: Source, path: Path, content: Any, role: str | None) -> None:
    """Add the images of one file as clips, with their captions."""
    try:
        for image in content["images"]:
            clip = clip_id(image["id"], f"{path}, images:", as_it_is=True)
            stem = Path(str(image.get("file_name", clip))).stem
            said = image.get("split")
            source.add_clip(Clip(clip, stem), role or (part_name(str(said), path) if said else None))
            if source.aliases.setdefault(stem, clip) != clip:
                raise BenchError(
                    f"{path} names a file {stem} for the images {source.aliases[stem]} and {clip}, and one video cannot show "
                    "both: give each file a name of its own"
                )
        strangers = []
        for sentence in content["annotations"]:
            clip, name = str(sentence["image_id"]), sentence.get("id")
            if clip in source.clips:
                source.add_caption(clip, sentence["caption"], None if name is None else str(name))
            else:
                strangers.append(clip)
    except (AttributeError, KeyError, TypeError) as error:
        raise WrongShapeError(
            path, "COCO captions, `images` with id and `annotations` with image_id and caption", error
        ) from error
    if strangers:
        ids = dict.fromkeys(strangers)
        raise BenchError(f"{path} has captions of {many(len(ids), 'image')} that it does not list: {named(ids)}")
