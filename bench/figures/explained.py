"""One video and its caption: the frames, and what the model looked at for each word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from bench.figures.canvas import RED, SMALL, finish, place, plain, sheet, short, stack, style, write
from bench.figures.grids import WORD, label_width, words_by_frames
from bench.figures.masks import masks, regions
from bench.figures.strips import LEFT, ROOM, Captions, Frame, key_strip, quoted
from bench.pages.document import Picture
from bench.records.figure_data import Shown, spread

ACROSS = 7  # frames of a strip
REGION_FRAMES = 5
NARROWEST = 0.8  # inches, of a frame above the columns
EVEN = 1e-6


def explained(clip: Shown, captions: Captions, words: Sequence[str], traces: Mapping[str, Any]) -> Picture:
    """Frames with the captions; then, of what `traces` tell: the weight of every frame at every word, the key frame, the
    attention to places at every word, the attention to regions.

    `clip` holds all frames as the method counts them.
    """
    parts = [quoted(clip.clip, _some(clip, ACROSS), captions)]
    count = len(clip.frames)  # traces reach over padding too
    if traces.get("attention") and words:
        parts.append(words_over_frames(clip, words, [row[:count] for row in traces["attention"]]))
    middle = count // 2
    key = int(traces.get("key_frame", middle))
    if "key_frame" in traces:
        parts.append(key_strip("Key frame", clip, key, traces["refocusing"], ()))
    if traces.get("spatial_attention") and words:
        which = "the key frame" if "key_frame" in traces else "the middle frame"
        one = replace(clip, places=(key,), frames=clip.frames[[key]])
        parts.append(masks(f"Places, on {which}", one, words, traces["spatial_attention"]))
    if traces.get("region_attention"):
        parts.append(regions("Regions", _fewer(clip, REGION_FRAMES), traces["region_attention"][:count], ()))
    return stack(parts, clip.clip)


def _places(clip: Shown, count: int) -> list[int]:
    """At most `count` places of the clip's frames, equally spaced."""
    return spread(len(clip.frames), count)


def _some(clip: Shown, count: int) -> list[Frame]:
    return [Frame(number, clip.frames[number]) for number in _places(clip, count)]


def _fewer(clip: Shown, count: int) -> Shown:
    """The clip with a few of its frames."""
    here = _places(clip, count)
    boxes = tuple(clip.boxes[number] for number in here) if clip.boxes else ()
    return replace(clip, places=tuple(here), boxes=boxes, frames=clip.frames[here])


def words_over_frames(clip: Shown, words: Sequence[str], weights_WT: Sequence[Sequence[float]]) -> Picture:
    """A heat map, words from top to bottom and frames from left to right. Above each stretch of columns stands its frame of most
    weight; the frame of most weight of each word is outlined."""
    labels, matrix = [short(word, 30) for word in words], np.array(weights_WT)
    count = matrix.shape[1]
    left = label_width(labels)
    wide = LEFT + ROOM - 0.75 - left
    thumbs = max(min(int(wide / NARROWEST), count), 1)
    each = wide / thumbs
    high = (each - 0.06) * clip.frames.shape[1] / clip.frames.shape[2]
    top = 0.5 + high + 0.08
    peaks = matrix.argmax(axis=1).tolist()
    with style():
        figure = sheet(top + WORD * len(labels) + 0.6)
        write(figure, LEFT, 0.08, "Weight of each frame at each word", weight="bold")
        for number in range(thumbs):
            column = _heaviest(matrix, number * count // thumbs, (number + 1) * count // thumbs)
            across = left + each * number + 0.03
            write(figure, across + each / 2 - 0.03, 0.33, str(column), ha="center", fontsize=SMALL - 0.5)
            axes = place(figure, across, 0.5, each - 0.06, high)
            axes.imshow(clip.frames[min(column, len(clip.frames) - 1)], aspect="auto")
            axes.set(xticks=[], yticks=[], gid=f"frame-{column}")
            axes.spines[:].set(visible=column in peaks, edgecolor=RED, linewidth=2)
        axes = words_by_frames(figure, labels, matrix, (left, top, wide), left + wide + 0.12)
        for row, column in enumerate(peaks):
            axes.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor=RED, linewidth=1.5, gid=f"most-{row}"))
        most_of = ", ".join(f"“{word}” on frame {column}" for word, column in zip(labels, peaks, strict=True))
        title = f"Weight of each frame at each word, {plain(clip.clip)}"
        return finish(figure, title, f"{title}; most weight: {most_of}.")


def _heaviest(matrix_WT: NDArray[np.float64], first: int, end: int) -> int:
    """Of the columns first..end - 1, the one with the largest weight of all; of even ones the middle."""
    heaviest = matrix_WT[:, first:end].max(axis=0)
    if np.ptp(heaviest) < EVEN:
        return (first + end) // 2
    return first + int(heaviest.argmax())
