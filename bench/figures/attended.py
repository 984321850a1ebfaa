"""A clip with what a captioner attended to: frames over its caption and the weight that each word gave to each frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench import BenchError
from bench.disk.limits import own_json, own_text
from bench.disk.whole import replacing
from bench.figures.canvas import RED, WIDTH, place, short, style
from bench.figures.strips import LEFT, Frame
from bench.figures.strips import strip as draw_strip
from bench.records.figure_data import Frames, spread

FRAMES = 8  # of a clip
DPI = 100
# Inches: height of a word's row, width of its name, space for numbers below the rows.
ROW, NAMES, BELOW = 0.23, 1.35, 0.5


class Pixels(Protocol):
    """Frames of clips (`bench.cell.pixels` has those of a data set)."""

    def length(self, clip: str) -> int: ...

    def of(self, clip: str, places: Sequence[int], length: int) -> Frames: ...


def attention(shown: Mapping[str, Any]) -> tuple[list[str], NDArray[np.float64]] | None:
    """Rows of a heat map over the frames of a clip [R, T] and their names: the words of the caption, and first the weights by
    which a key frame was chosen. Padded frames, which nobody attends to, are cut off. None where nothing was attended to."""
    rows = list(zip(shown["words"], shown.get("attention") or [], strict=False))
    if shown.get("refocusing"):
        rows.insert(0, ("(key frame)", shown["refocusing"]))
    if not rows:
        return None
    width = max(len(row) for _, row in rows)
    weights = np.array([[*row, *[0.0] * (width - len(row))] for _, row in rows], np.float64)
    seen = np.flatnonzero(weights.any(axis=0))
    return ([name for name, _ in rows], weights[:, : seen[-1] + 1]) if len(seen) else None


def attended(
    shown: Mapping[str, Any],
    rows: tuple[list[str], NDArray[np.float64]] | None,
    places: Sequence[int],
    pixels: NDArray[np.uint8] | None,
) -> Figure:
    """Frames of a clip at `places` over its caption and the weights that each word gave to each frame; a key frame has a
    border. Call it inside `style`."""
    key = shown.get("key_frame")
    frames = [
        Frame(place, picture, RED if place == key else None, "key frame" if place == key else "")
        for place, picture in zip(places, pixels if pixels is not None else [], strict=False)
    ]
    captions = [("caption", " ".join(shown["words"]))]
    if shown.get("first_caption"):
        captions.insert(0, ("before the key frame", shown["first_caption"]))
    height = ROW * len(rows[0]) if rows is not None else 0.0
    figure, top = draw_strip(shown["clip"], frames, captions, extra=height + BELOW if rows is not None else 0.0)
    if rows is not None:
        names, weights = rows
        axes = place(figure, NAMES, top + 0.05, WIDTH - NAMES - LEFT, height)
        axes.imshow(weights, aspect="auto", cmap="Blues", vmin=0.0)
        axes.set_yticks(range(len(names)), [short(name, 16) for name in names])
        axes.set_xlabel("frame", labelpad=1)
        if isinstance(key, int) and key < weights.shape[1]:
            axes.axvline(key, color=RED, linewidth=1.2)
    return figure


def pictures_of(traces: Path, pixels: Pixels | None) -> list[Path]:
    """A PNG file beside `traces` for each of their clips of which there is more to see than a caption, drawn unless it is there
    and newer. `pixels` has the frames of the clips, where there are any. Empty where no traces were left."""
    try:
        shown = own_json(own_text(traces))
    except (OSError, ValueError):
        return []
    paths = []
    for number, one in enumerate(shown if isinstance(shown, list) else []):
        path = traces.with_suffix(f".{number}.png")
        if path.is_file() and path.stat().st_mtime_ns >= traces.stat().st_mtime_ns:
            paths.append(path)
            continue
        rows = attention(one)
        try:
            length = pixels.length(one["clip"]) if pixels is not None else 0
        except BenchError:
            length = 0
        if not length and rows is None:
            continue
        count = rows[1].shape[1] if rows is not None else length
        places = spread(count, FRAMES)
        frames = pixels.of(one["clip"], places, count) if pixels is not None and length else None
        with style(), replacing(path, several=True, durable=False) as aside:
            attended(one, rows, places, frames).savefig(aside, format="png", dpi=DPI)
        paths.append(path)
    return paths
