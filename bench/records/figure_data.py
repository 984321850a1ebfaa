"""What a page shows of clips and of trained cells beyond their records: plain values in two small files beside the page.

`bench.reproduction.tracing` gathers them where checkpoints, captions and features lie; `bench.figures` draws them.
`<figure>.json` holds words and numbers, `<figure>.npz` the frames. The same values give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import BenchError
from bench.disk.arrays import read_arrays
from bench.disk.digests import file_digest
from bench.disk.limits import own_json, own_text
from bench.disk.whole import write_atomically, write_whole

Frames = NDArray[np.uint8]
DIGITS = 4  # of attention weights and probabilities: more than an eye or a colour can tell apart


@dataclass(frozen=True)
class Shown:
    """One clip.

    `reference` is one of its captions. `frames` [P, H, W, 3] are its pictures, those at its places `places`; empty where there
    are no pixels. `boxes` [P][k] are the regions of each picture as (left, top, right,
    bottom) in its pixels. `by_cell` holds what each cell made of the clip, by the cell's name: its `caption`, or `words` and
    the traces of a decoded caption, or `scores`, (name, probability) pairs of each range.
    """

    clip: str
    reference: str
    places: tuple[int, ...] = ()
    boxes: tuple[tuple[tuple[float, float, float, float], ...], ...] = ()
    by_cell: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    frames: Frames = field(default_factory=lambda: np.zeros((0, 1, 1, 3), np.uint8))

    def picture(self, place: int) -> Frames | None:
        """The frame at a place of the clip, [H, W, 3], if it is there."""
        return self.frames[self.places.index(place)] if place in self.places else None


@dataclass(frozen=True)
class Trace:
    """What one figure was given. `cells` are the keys of the cells that it shows, by name; `lacking` says why a cell has
    nothing to show; `facts` are further values of the figure, `arguments` what it was `asked` with."""

    figure: str
    cells: Mapping[str, str]
    arguments: Mapping[str, Any]
    lacking: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    clips: tuple[Shown, ...] = ()


def asked(
    arguments: Mapping[str, Any], dataset: str, split: str, subset: tuple[int, int, int] | None
) -> dict[str, Any]:
    """What a figure was asked with: its declared arguments, and the clips that it shows."""
    clips = {"dataset": dataset, "split": split, "subset": subset and list(subset)}
    return {**clips, **arguments}


def write_trace(folder: Path, trace: Trace) -> None:
    """Write both files, the frames first: the other names their digest. Theirs is removed where there are no frames."""
    content = asdict(trace)
    for clip in content["clips"]:
        del clip["frames"]
    frames = {str(number): clip.frames for number, clip in enumerate(trace.clips) if len(clip.frames)}
    path = folder / f"{trace.figure}.npz"
    folder.mkdir(parents=True, exist_ok=True)
    if frames:
        write_whole(path, lambda aside: _save(aside, frames))
        content["frames"] = file_digest(path)
    else:
        path.unlink(missing_ok=True)
    write_atomically(folder / f"{trace.figure}.json", json.dumps(_short(content), ensure_ascii=True) + "\n")


def _save(path: Path, frames: Mapping[str, Frames]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **frames)


def _short(value: Any) -> Any:
    """Plain lists, dictionaries and numbers, those with a point cut to `DIGITS`."""
    if isinstance(value, np.ndarray):
        return _short(value.tolist())
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, Mapping):
        return {str(name): _short(part) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_short(part) for part in value]
    return value


def read_trace(folder: Path, figure: str) -> Trace | None:
    """The trace of a figure; None where there is none. Raises BenchError for files that are not what was written."""
    path = folder / f"{figure}.json"
    if not path.is_file():
        return None
    try:
        raw = own_json(own_text(path))
        frames, digest = _frames(folder / f"{figure}.npz"), raw.pop("frames", None)
        if digest is not None and digest != file_digest(folder / f"{figure}.npz"):
            raise ValueError("the frames are not those that were written with it")
        clips = []
        for number, clip in enumerate(raw.pop("clips")):
            if "told" in clip:  # as earlier versions called it
                clip["by_cell"] = clip.pop("told")
            boxes = tuple(tuple(tuple(box) for box in boxes) for boxes in clip.pop("boxes"))
            here: dict[str, Any] = {"frames": frames[str(number)]} if str(number) in frames else {}
            clips.append(Shown(**{**clip, "places": tuple(clip["places"])}, boxes=boxes, **here))
        return Trace(**raw, clips=tuple(clips))
    except (AttributeError, BenchError, KeyError, OSError, TypeError, ValueError) as error:
        raise BenchError(
            f"{path} and its frames cannot be read ({error}): remove them and give the bench reproduce command again."
        ) from error


def _frames(path: Path) -> dict[str, Frames]:
    if not path.is_file():
        return {}
    return read_arrays(path)


def spread(length: int, count: int) -> list[int]:
    """At most `count` of `length` places, equally spaced, the first and the last among them."""
    count = min(count, length)
    return sorted({round(place * (length - 1) / max(count - 1, 1)) for place in range(count)})
