"""MSR-VTT (Xu et al., CVPR 2016): JSON objects with `videos` and `sentences`, plain or zipped.

Published as a pair (`train_val_videodatainfo.json`, `test_videodatainfo.json`) and as one file (`MSRVTT_data.json`).
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
    """Add clips `video0` .. with the split that the file declares; caption ids are the sentence ids of the file."""
    strangers: dict[str, None] = {}
    try:
        for video in content["videos"]:
            name = clip_id(video["video_id"], f"{path}, videos:", as_it_is=True)
            part = part_name(str(video["split"]), path) if "split" in video else role
            # The files of MSR-VTT are cut already: start and end of the JSON are times in the YouTube video.
            source.add_clip(Clip(name, name, film=video.get("url")), part)
        for sentence in content["sentences"]:
            name = sentence["video_id"]
            if name not in source.clips:
                name = clip_id(name, f"{path}, sentences:", as_it_is=True)
            if name not in source.clips:
                strangers[name] = None
                continue
            number = sentence.get("sen_id")
            source.add_caption(name, sentence["caption"], None if number is None else f"sen{number}")
    except (AttributeError, KeyError, TypeError) as error:
        raise WrongShapeError(
            path, "MSR-VTT, `videos` with video_id and `sentences` with video_id and caption", error
        ) from error
    if strangers:
        raise BenchError(
            f"{path} has captions of {many(len(strangers), 'clip')} that its videos do not name: {named(strangers)}"
        )
