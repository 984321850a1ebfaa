"""What MLflow shows of a finished cell beside its numbers: a table of captions, its curves, clips with what it attended to.

The same clips for every cell of a split, so that runs can be laid side by side. What a cell attended to is known where it
was decoded and nowhere else: `keep_traces` leaves it for a few clips in the cell's work folder, which is never published.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL.Image import Image
from PIL.Image import open as open_image

from bench import BenchError
from bench.cell.pixels import Pixels
from bench.cell.scores import references
from bench.cell.traces import SHOWN, TRACES
from bench.declare.registry import dataset
from bench.figures.canvas import RED, WIDTH, place, short, style
from bench.figures.curves import training
from bench.figures.drawing import by_epoch
from bench.figures.strips import LEFT, Frame
from bench.figures.strips import strip as draw_strip
from bench.home import Home
from bench.records.clip_scores import SCORES, read_scores
from bench.records.curves import Row, read_curves
from bench.records.figure_data import spread
from bench.records.schema import Record
from bench.records.store import PREDICTIONS, read_predictions

LISTED = 100  # clips in the table
FRAMES = 8  # of a clip
DPI = 100
ROW, NAMES, BELOW = (
    0.23,
    1.35,
    0.5,
)  # inches: height of a word's row, width of its name, space for numbers below the rows


class Gallery:
    """Tables and pictures of finished cells; remembers what cells of one split have in common.

    `path` is the file of a data set that its name does not lead to. What is not on this machine is left out.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._counts: dict[str, Mapping[str, int]] = {}
        self._pixels: dict[str, Pixels | None] = {}

    def table(self, record: Record, folder: Path, path: str | None = None) -> dict[str, list[Any]] | None:
        """Columns `clip`, `caption`, `references` (how many; None where they are not on this machine) and `cider` of at most
        `LISTED` clips; None for a cell without scored captions."""
        if record.state != "done":
            return None
        try:
            ids, scores = read_scores(folder / SCORES)
            captions = read_predictions(folder / PREDICTIONS, ids)
        except BenchError:
            return None
        counts = self._counts_of(record, path)
        places = spread(len(ids), LISTED)
        clips = [ids[place] for place in places]
        found: dict[str, list[Any]] = {
            "clip": clips,
            "caption": [captions[clip] for clip in clips],
            "references": [counts.get(clip) for clip in clips],
        }
        if "cider" in scores:
            found["cider"] = [round(float(scores["cider"][place]), 2) for place in places]
        return found

    def pictures(self, record: Record, folder: Path, path: str | None = None) -> dict[str, list[Image]]:
        """`curves`, one picture, and `clips`, one for each of `SHOWN` clips of which there is more to see than a caption."""
        found: dict[str, list[Image]] = {}
        rows = read_curves(folder)
        with style():
            if rows:
                found["curves"] = [_image(curves(rows, record))]
            clips = [
                _image(figure) for shown in _shown_clips(folder, record) if (figure := self._clip(shown, record, path))
            ]
        if clips:
            found["clips"] = clips
        return found

    def _clip(self, shown: Mapping[str, Any], record: Record, path: str | None) -> Figure | None:
        pixels = self._pixels_of(record, path)
        rows = attention(shown)
        try:
            length = pixels.length(shown["clip"]) if pixels is not None else 0
        except BenchError:
            length = 0
        if not length and rows is None:
            return None
        count = rows[1].shape[1] if rows is not None else length
        places = spread(count, FRAMES)
        frames = pixels.of(shown["clip"], places, count) if pixels is not None and length else None
        return strip(shown, rows, places, frames)

    def _counts_of(self, record: Record, path: str | None) -> Mapping[str, int]:
        part = [str(record.config.get("splits")), str(record.config.get("subset"))]
        name = json.dumps(
            [path or record.dataset, record.split, *part, sorted(record.signatures[record.split].items())]
        )
        if name not in self._counts:
            self._counts[name] = {clip: len(texts) for clip, texts in references(record, self._home, path)[0].items()}
        return self._counts[name]

    def _pixels_of(self, record: Record, path: str | None) -> Pixels | None:
        """Frames of the record's data set, those of films too: this database is not published."""
        name = path or record.dataset
        if name not in self._pixels:
            try:
                self._pixels[name] = Pixels(dataset(name), self._home, real=True)
            except BenchError:
                self._pixels[name] = None
        return self._pixels[name]


def _shown_clips(folder: Path, record: Record) -> list[dict[str, Any]]:
    """What was kept of the clips that have pictures; where nothing was, their captions alone."""
    try:
        found = json.loads((folder / "work" / TRACES).read_text(encoding="utf-8"))
        if record.weights_sha256 is not None and isinstance(found, list):
            return found
    except (OSError, ValueError):
        pass
    try:
        ids, _ = read_scores(folder / SCORES)
        captions = read_predictions(folder / PREDICTIONS, ids)
    except BenchError:
        return []
    return [{"clip": ids[place], "words": captions[ids[place]].split()} for place in spread(len(ids), SHOWN)]


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


def strip(
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


def curves(rows: Sequence[Row], record: Record) -> Figure:
    """Training loss and validation CIDEr over the captions read, with the epoch that was chosen. Call it inside `style`."""
    selection = record.selection
    point = (selection.phase, selection.epoch, selection.metric) if selection is not None else None
    at = [(row["captions"], row["value"]) for row in rows if (row["phase"], row["epoch"], row["name"]) == point]
    name = f"{record.method}:{record.variant} seed {record.seed}"
    return training(by_epoch(rows), ["loss"], name, at[0] if at else None)


def _image(figure: Figure) -> Image:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI)
    return open_image(out).convert("RGB")
