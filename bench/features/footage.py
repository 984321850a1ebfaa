"""Which file, and which seconds of it, shows each clip of a corpus."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.declare.dataset import Clip
from bench.features.names import by_name
from bench.features.video import EXTENSIONS, Span

_CUT = re.compile(r"(.+)_(\d+)_(\d+)")  # MSVD's names: <YouTube id>_<start>_<end>, in seconds


@dataclass(frozen=True)
class Footage:
    """Where a clip is to be seen: a video file, or the seconds start <= t < end of it."""

    path: Path
    span: Span | None = None


def videos_in(folder: Path) -> list[Path]:
    """All videos in a folder, at any depth."""
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in EXTENSIONS and not file.name.startswith(".")
    ]


def find_footage(
    folder: Path, clips: Mapping[str, Clip], aliases: Mapping[str, str]
) -> tuple[dict[str, Footage], dict[str, str]]:
    """The footage of each clip, and for clips without any the reason.

    A clip has a video of its own, named by its id or by another of its names; or it is a part of a longer one: by the seconds
    that its captions give, or, as in MSVD, by those that its name ends with.
    """
    by_stem: dict[str, list[Path]] = {}
    own: dict[str, list[Path]] = {}
    rename = by_name(clips)
    for file in videos_in(folder):
        by_stem.setdefault(file.stem, []).append(file)
        known = (name if name in clips else aliases.get(name, name) for name in rename(file.stem))
        whose = next((clip for clip in known if clip in clips), None)
        if whose is not None:
            own.setdefault(whose, []).append(file)
    others: dict[str, list[str]] = {}
    for name, id_ in aliases.items():
        others.setdefault(id_, []).append(name)
    found: dict[str, Footage] = {}
    faults: dict[str, str] = {}
    for id_, clip in clips.items():
        files, span = _files(clip, others.get(id_, []), own, by_stem)
        if not files:
            faults[id_] = f"no video in {folder} is named after it"
        elif len(files) > 1:
            faults[id_] = f"has two videos, {files[0].name} and {files[1].name}: keep one of them"
        else:
            found[id_] = Footage(files[0], span)
    return found, faults


def _files(
    clip: Clip, others: list[str], own: Mapping[str, list[Path]], by_stem: Mapping[str, list[Path]]
) -> tuple[list[Path], tuple[float, float] | None]:
    if clip.start is None or clip.end is None:
        if clip.id in own:
            return own[clip.id], None
        for name, start, end in _cuts([clip.id, clip.video, *others]):
            if name in by_stem:
                return by_stem[name], (start, end)
        return by_stem.get(clip.video, []), None
    return by_stem.get(clip.video, []), (clip.start, clip.end)


def _cuts(names: list[str]) -> Iterator[tuple[str, float, float]]:
    """Names that end with a start and an end: the name of the whole video, and both."""
    for name in names:
        cut = _CUT.fullmatch(name)
        if cut:
            yield cut[1], float(cut[2]), float(cut[3])
