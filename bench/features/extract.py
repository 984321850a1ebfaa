"""From a folder of videos to a stream in the cache. So far the stream `pixels`: what an encoder reads, as bytes.

Clip by clip, and resumable: what is written stays written, and the next call goes on with the clips that are missing. A clip
that cannot be decoded is named with its reason; the others are written all the same, and the cache is finished once all are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench import BenchError
from bench.features.backends import need_av
from bench.features.cache import CacheWriter
from bench.features.encoders import ENCODERS, Spec, spec_of
from bench.features.importers import up_to_date
from bench.features.names import by_name
from bench.features.sidecar import cache_path, canonical, name_clips
from bench.features.video import EXTENSIONS, UnreadableVideoError, read_frames

if TYPE_CHECKING:
    from bench.data.source import Clip
    from bench.home import Home

PIXELS = "pixels"


@dataclass(frozen=True)
class Extraction:
    """What to extract: `frames` of every clip from the videos in `videos`, prepared for `encoder`."""

    dataset: str
    stream: str
    videos: Path
    frames: int
    encoder: Spec

    @classmethod
    def of(cls, definition: Any, stream: str, home: Home, told: Mapping[str, str] | None = None) -> Extraction:
        """The stream's entry in the definition, `told` (videos, frames, encoder, as text) over it. Raises BenchError."""
        told = told or {}
        if stream != PIXELS:
            raise BenchError(
                f"only the stream {PIXELS} can be extracted so far, not {stream}; import it from a file instead"
            )
        entry = definition.streams.get(stream)
        own = {name: getattr(entry, name, None) for name in ("videos", "frames", "encoder")}
        absent = [name for name in own if name not in told and own[name] is None]
        if absent:
            raise BenchError(
                f"stream {stream} of data set {definition.name}: {', '.join(f'{name}=' for name in absent)} is missing, as in "
                f"`bench features extract dataset={definition.called} stream={stream} videos=FOLDER frames=16 "
                f"encoder=inception_resnet_v2` (encoders: {', '.join(ENCODERS)})"
            )
        # A path on the command line is relative to the current folder, one in the definition to the definition's.
        videos = (
            Path(told["videos"]).expanduser().resolve() if "videos" in told else definition.resolve(own["videos"], home)
        )
        frames = str(told.get("frames", own["frames"]))
        if not frames.isdecimal() or int(frames) < 1:
            raise BenchError(f"frames is {frames!r}, but must be a whole number of at least 1")
        return cls(definition.name, stream, videos, int(frames), spec_of(str(told.get("encoder", own["encoder"]))))

    def options(self) -> dict[str, Any]:
        """All that decides the values, for the fingerprint."""
        return {"name": self.encoder.name, "frames": self.frames, **self.encoder.preprocessing.of_pixels()}


class _UnfinishedError(Exception):
    """Some clips could not be read: the file aside is kept, the cache gets no name yet."""


def extract_pixels(
    extraction: Extraction,
    clips: Mapping[str, Clip],
    aliases: Mapping[str, str],
    home: Home,
    tell: Callable[[int], None] = lambda left: None,
) -> tuple[Path, dict[str, str]]:
    """Fill the cache of `extraction` for all `clips`; returns its path, and for clips that could not be read the reason.

    `aliases` are other names of clips. A cache that is up to date is left as it is. `tell(left)` is called after each clip.
    Raises BenchError where the folder is absent or two videos claim one clip.
    """
    target = cache_path(home, extraction.dataset, extraction.stream)
    options = extraction.options()
    # Not the facts of the files: a video that was mended must not undo what is written of the others.
    folder = [{"path": str(extraction.videos)}] if extraction.videos.is_dir() else None
    request = json.loads(canonical({"options": options, "files": folder}))
    if up_to_date(target, request, list(clips)):
        return target, {}
    if folder is None:
        raise BenchError(
            f"there is no folder of videos at {extraction.videos}: name it with videos=FOLDER, or set BENCH_DATA"
        )
    about = {"request": request, "decoder": f"PyAV {need_av().__version__}"}
    attributes = {"encoder": options, "source": about}
    shape = (extraction.frames, 3, *extraction.encoder.preprocessing.size)
    files = find_videos(extraction.videos, clips, aliases)
    failures: dict[str, str] = {}
    with (
        suppress(_UnfinishedError),
        # Each clip is flushed: its decoding costs far more.
        CacheWriter(target, extraction.stream, shape, True, "uint8", list(clips), attributes, flush_every=1) as writer,
    ):
        missing = writer.missing
        for number, clip in enumerate(missing, start=1):
            try:
                writer.write(clip, _frames(clips[clip], files, extraction))
            except UnreadableVideoError as error:
                failures[clip] = str(error)
            tell(len(missing) - number)
        if failures:
            raise _UnfinishedError
    return target, failures


def _frames(clip: Clip, files: Mapping[str, Path], extraction: Extraction) -> NDArray[np.uint8]:
    if clip.start is not None:
        raise UnreadableVideoError("is a part of a longer video; parts are not cut out yet")
    if clip.id not in files:
        raise UnreadableVideoError(f"no video in {extraction.videos} is named after it")
    try:
        return read_frames(files[clip.id], extraction.frames, extraction.encoder.preprocessing)
    except UnreadableVideoError as error:
        raise UnreadableVideoError(f"{files[clip.id].name} {error}") from None


def find_videos(folder: Path, clips: Mapping[str, Clip], aliases: Mapping[str, str]) -> dict[str, Path]:
    """The video of each clip, named by its id or by another of its names. Raises BenchError where a clip has two."""
    rename = by_name(clips)
    found: dict[str, Path] = {}
    twice: list[str] = []
    for file in sorted(folder.rglob("*")):
        if file.suffix.lower() not in EXTENSIONS or file.name.startswith("."):
            continue
        known = (aliases.get(name, name) for name in rename(file.stem))
        clip = next((clip for clip in known if clip in clips), None)
        if clip is None:
            continue
        if clip in found:
            twice.append(f"{clip} as {found[clip].name} and {file.name}")
        found[clip] = file
    if twice:
        raise BenchError(f"{folder}: {len(twice)} clips have two videos ({name_clips(twice)}): keep one of each")
    return found


def told_failures(dataset: str, failures: Mapping[str, str], clips: int) -> str:
    """The sentence for clips that could not be read."""
    shown = name_clips([f"{clip}: {reason}" for clip, reason in failures.items()])
    return (
        f"{dataset}: {len(failures)} of {clips} clips could not be extracted ({shown}); mend their videos, or leave the "
        f"clips out with subset: {{ids: ..}} in the definition, then give the same command again: it goes on with them"
    )
