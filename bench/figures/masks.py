"""Where a model looks within frames: spatial attention as a mask, region attention as boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from bench.figures.canvas import QUIET, SMALL, finish, place, sheet, short, style, wrap, write
from bench.figures.drawing import Drawing
from bench.figures.strips import GAP, LEFT, LINE, ROOM, Captions, Frame, filmed, in_words, of_clips, strip
from bench.pages.document import Part, Picture
from bench.records.figure_data import Frames, Shown

Floats = NDArray[np.float64]
ACROSS = 7  # panels in a row
MOST_WORDS = 2 * ACROSS - 1
DIMMEST = 0.2  # of a frame where nothing is attended to: enough to see what is there


def spatial_masks(drawing: Drawing) -> list[Part]:
    """VRE's figure 4: a frame times the spatial attention at each word of the caption."""

    def draw(clip: Shown, name: str, shown: Mapping[str, Any], note: str) -> Picture | None:
        if not shown.get("spatial_attention"):
            return None
        return masks(f"{name}, {clip.clip}", clip, shown["words"], shown["spatial_attention"], note)

    return of_clips(drawing, "spatial_masks", draw, "The last cell of this target attends to no places within frames.")


def masks(
    title: str, clip: Shown, words: Sequence[str], weights_WS: Sequence[Sequence[float]], note: str = ""
) -> Picture:
    """The clip's frame, then one panel for each word; the places S are a square grid, row by row, else one row."""
    if len(words) > MOST_WORDS:
        note = f"{note} The first {MOST_WORDS} of {len(words)} words.".strip()
    words = words[:MOST_WORDS]
    weights = np.array(weights_WS)[: len(words)]
    places = weights.shape[1]
    side = isqrt(places) if isqrt(places) ** 2 == places else 1
    number = clip.places[0] if clip.places else 0
    pixels = clip.frames[0] if len(clip.frames) else np.full((64, 64, 3), 255, np.uint8)
    panels = [(f"frame {number}", pixels)] if len(clip.frames) else []
    panels += [
        (word, _dim(pixels, upsample(row.reshape(side, -1) / row.max(), *pixels.shape[:2])))
        for word, row in zip(words, weights, strict=True)
    ]
    wide = (ROOM + GAP) / ACROSS - GAP
    high = wide * pixels.shape[0] / pixels.shape[1]
    rows = -(-len(panels) // ACROSS)
    with style():
        notes = wrap(note, ROOM) if note else []
        figure = sheet(0.32 + rows * (high + 0.3) + LINE * len(notes) + 0.05)
        write(figure, LEFT, 0.08, short(title, 90), weight="bold")
        for place_, (word, panel) in enumerate(panels):
            row, column = divmod(place_, ACROSS)
            axes = place(figure, LEFT + column * (wide + GAP), 0.32 + row * (high + 0.3), wide, high)
            axes.imshow(panel, aspect="auto", gid=f"mask-{place_}")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set(visible=True, linewidth=0.5)
            axes.set_xlabel(short(word, 14), labelpad=3)
        for number, line in enumerate(notes):
            top = 0.32 + rows * (high + 0.3) + LINE * number
            write(figure, LEFT, top, line, color=QUIET, fontsize=SMALL, style="italic")
        peaks = ", ".join(
            f"“{word}” in row {row.argmax() // (places // side) + 1}, column {row.argmax() % (places // side) + 1}"
            for word, row in zip(words, weights, strict=True)
        )
        alt = f"{title}: spatial attention of each word on a grid of {side} by {places // side}; most of it: {peaks}. {note}"
        return finish(figure, title, alt)


def upsample(mask_YX: Floats, height: int, width: int) -> Floats:
    """A coarse mask in the size of a frame, linear between the centres of its cells."""
    for axis, size in ((0, height), (1, width)):
        old = (np.arange(mask_YX.shape[axis]) + 0.5) / mask_YX.shape[axis]
        new = (np.arange(size) + 0.5) / size
        lines = [np.interp(new, old, line) for line in np.moveaxis(mask_YX, axis, -1)]
        mask_YX = np.moveaxis(np.array(lines), -1, axis)
    return mask_YX


def _dim(frame: Frames, mask_YX: Floats) -> Frames:
    """The frame as bright as the mask (0 .. 1) says."""
    light = DIMMEST + (1 - DIMMEST) * mask_YX[..., None]
    return np.round(frame * light).astype(np.uint8)


def region_attention(drawing: Drawing) -> list[Part]:
    """HAIL's figure 4: frames of a clip, the less attended a region the whiter; captions of all cells."""

    def draw(clip: Shown, name: str, shown: Mapping[str, Any], note: str) -> Picture | None:
        if not shown.get("region_attention"):
            return None
        captions = [("reference", clip.reference)]
        captions += [(who, " ".join(said["words"])) for who, said in clip.by_cell.items()]
        return regions(f"{name}, {clip.clip}", clip, shown["region_attention"], captions, note)

    return of_clips(drawing, "region_attention", draw, "No cell of this target attends to regions.")


def regions(
    title: str, clip: Shown, weights_Tk: Sequence[Sequence[float]], captions: Captions, note: str = ""
) -> Picture:
    """Frames faded to white but for the regions that are attended to; without their places, the weights as a heat map."""
    frames, most_seen = ([], []) if clip.boxes else (filmed(clip), [])
    for number, pixels, boxes in zip(clip.places, clip.frames, clip.boxes, strict=bool(clip.boxes)):
        weights = np.array(weights_Tk[number])
        strength = weights / max(weights.max(), 1e-9)
        outlines = tuple((*box, 0.15 + 0.85 * float(value)) for box, value in zip(boxes, strength, strict=True))
        frames.append(Frame(number, fade(pixels, boxes, strength), boxes=outlines))
        most_seen.append(f"{weights.max():.2f} on one region of frame {number}")
    with style():
        figure, top = strip(title, frames, captions, note, extra=0.0 if most_seen else 1.6)
        if not most_seen:
            axes = place(figure, LEFT + 0.45, top + 0.1, ROOM - 0.45, 1.0)
            axes.pcolormesh(np.array(weights_Tk).T, cmap="cividis_r", vmin=0, gid="weights")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set(xlabel="frame", ylabel="region", yticks=[])
        most = f"Most attention: {', '.join(most_seen)}." if most_seen else "Attention over regions as a heat map."
        return finish(figure, title, f"{title}. {most} {in_words(captions)} {note}")


def fade(frame: Frames, boxes: Sequence[Sequence[float]], strength: Sequence[float] | Floats) -> Frames:
    """The frame, whiter the weaker the strongest region (0 .. 1) that holds a pixel; whitest outside of all regions."""
    height, width = frame.shape[:2]
    seen = np.zeros((height, width, 1))
    for (left, top, right, bottom), value in zip(boxes, strength, strict=True):
        area = seen[round(max(top, 0)) : round(bottom), round(max(left, 0)) : round(right)]
        np.maximum(area, value, out=area)
    seen = DIMMEST + (1 - DIMMEST) * seen
    return np.round(frame * seen + 255 * (1 - seen)).astype(np.uint8)
