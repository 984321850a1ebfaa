"""Frames of clips for people to look at, from the cache or, where a data set is generated, painted again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bench.declare.dataset import DatasetDefinition
from bench.features.cache import Cache
from bench.features.sidecar import cache_path
from bench.home import Home
from bench.records.figure_data import Frames
from bench.shapes import render_clip
from bench.shapes.streams import region_boxes

LARGEST = 128  # pixels of the longer side of a stored frame


class Pixels:
    """Frames of the clips of a data set, or `why` there are none. `real` allows frames of films, beside generated ones."""

    def __init__(self, definition: DatasetDefinition, home: Home, real: bool) -> None:
        self.definition = definition
        self.cache: Cache | None = None
        self.why = ""
        if self.definition.generated:
            return
        path = cache_path(home, self.definition.name, "pixels")
        if not real:
            self.why = "frames of released clips are not published; real_frames: true draws them on pages of one's own"
        elif not path.is_file():
            self.why = f"bench features import dataset={self.definition.called} stream=pixels puts them into the cache"
        else:
            self.cache = Cache(path)

    def of(self, clip: str, places: Sequence[int], length: int) -> Frames:
        """[P, H, W, 3]: frames at `places` of a clip that has `length` of them; empty where there are no pixels."""
        if self.why or not places:
            return np.zeros((0, 1, 1, 3), np.uint8)
        every = self._all(clip)
        here = np.round(np.array(places) * (len(every) - 1) / max(length - 1, 1)).astype(int)
        return _small(every[here])

    def length(self, clip: str) -> int:
        """Frames of a clip; 0 where there are no pixels."""
        return 0 if self.why else len(self._all(clip))

    def _all(self, clip: str) -> Frames:
        if self.cache is None:
            return render_clip(clip, self.definition.options)
        values, lengths = self.cache.load([clip])
        return np.ascontiguousarray(values[0, : lengths[0]].transpose(0, 2, 3, 1))

    def boxes(self, clip: str, places: Sequence[int]) -> tuple[Any, ...]:
        """Regions at `places`, (left, top, right, bottom) in pixels. Feature files of real regions keep no places."""
        if not self.definition.generated:
            return ()
        boxes = region_boxes(self._all(clip))
        return tuple(tuple(tuple(float(edge) for edge in box) for box in boxes[place]) for place in places)


def _small(frames: Frames) -> Frames:
    """Frames that a repository can hold: at most `LARGEST` pixels wide or high, 32 levels of each colour."""
    by = -(-max(frames.shape[1:3]) // LARGEST)
    high, wide = (size // by * by for size in frames.shape[1:3])
    blocks = frames[:, :high, :wide].reshape(len(frames), high // by, by, wide // by, by, 3)
    return np.round(blocks.mean(axis=(2, 4))).astype(np.uint8) & 0xF8 | 0x04
