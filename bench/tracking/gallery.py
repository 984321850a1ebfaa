"""What MLflow shows of a finished cell beside its numbers: a table of captions, its curves, clips with what it looked at.

The same clips for every cell of a split, so that runs can be laid side by side. What a cell attended to is known where it
was decoded and nowhere else: `keep_traces` leaves it for a few clips in the cell's work folder, which is never published.
"""

from __future__ import annotations

import io
import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench import BenchError
from bench.cell.traces import SHOWN, TRACES, spread
from bench.home import Home
from bench.records.clip_scores import SCORES, read_scores
from bench.records.curves import SELECTION, Row, read_curves
from bench.records.schema import Record
from bench.records.store import PREDICTIONS, read_predictions

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from bench.cell.pixels import Pixels


LISTED = 100  # clips in the table
FRAMES = 8  # of a clip
WIDE, DPI = 9.0, 100  # inches; pixels of an inch
FRAME, LINE = 1.05, 0.23  # inches: width of a frame, height of a word's row
INK, LOSS, SCORE, KEY = "#1a1a1a", "#0072b2", "#d55e00", "#d55e00"  # Okabe and Ito's: told apart by every eye
PLAIN: Any = {"text.parse_math": False, "font.size": 9.0}  # a dollar in a caption is a dollar


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
        import matplotlib as mpl

        found: dict[str, list[Image]] = {}
        rows = read_curves(folder)
        with mpl.rc_context(PLAIN):
            if rows:
                found["curves"] = [_image(curves(rows, record))]
            clips = [_image(figure) for look in _looks(folder, record) if (figure := self._clip(look, record, path))]
        if clips:
            found["clips"] = clips
        return found

    def _clip(self, look: Mapping[str, Any], record: Record, path: str | None) -> Figure | None:
        pixels = self._pixels_of(record, path)
        rows = attention(look)
        try:
            length = pixels.length(look["clip"]) if pixels is not None else 0
        except BenchError:
            length = 0
        if not length and rows is None:
            return None
        count = rows[1].shape[1] if rows is not None else length
        places = spread(count, FRAMES)
        frames = pixels.of(look["clip"], places, count) if pixels is not None and length else None
        return strip(look, rows, places, frames)

    def _counts_of(self, record: Record, path: str | None) -> Mapping[str, int]:
        from bench.cell.scores import references

        asked = [
            path or record.dataset,
            record.split,
            *map(str, (record.config.get("splits"), record.config.get("subset"))),
        ]
        name = json.dumps([*asked, sorted(record.signatures[record.split].items())])
        if name not in self._counts:
            self._counts[name] = {clip: len(texts) for clip, texts in references(record, self._home, path)[0].items()}
        return self._counts[name]

    def _pixels_of(self, record: Record, path: str | None) -> Pixels | None:
        """Frames of the record's data set, those of films too: this database is not published."""
        from bench.cell.pixels import Pixels
        from bench.declare.registry import dataset

        name = path or record.dataset
        if name not in self._pixels:
            try:
                self._pixels[name] = Pixels(dataset(name), self._home, real=True)
            except BenchError:
                self._pixels[name] = None
        return self._pixels[name]


def _looks(folder: Path, record: Record) -> list[dict[str, Any]]:
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


def attention(look: Mapping[str, Any]) -> tuple[list[str], NDArray[np.float64]] | None:
    """Rows of a heat map over the frames of a clip [R, T] and their names: the words of the caption, and first the weights by
    which a key frame was chosen. Padded frames, which nobody attends to, are cut off. None where nothing was attended to."""
    rows = list(zip(look["words"], look.get("attention") or [], strict=False))
    if look.get("refocusing"):
        rows.insert(0, ("(key frame)", look["refocusing"]))
    if not rows:
        return None
    width = max(len(row) for _, row in rows)
    weights = np.array([[*row, *[0.0] * (width - len(row))] for _, row in rows], np.float64)
    seen = np.flatnonzero(weights.any(axis=0))
    return ([name for name, _ in rows], weights[:, : seen[-1] + 1]) if len(seen) else None


def strip(
    look: Mapping[str, Any],
    rows: tuple[list[str], NDArray[np.float64]] | None,
    places: Sequence[int],
    frames: NDArray[np.uint8] | None,
) -> Figure:
    """Frames of a clip at `places` over the weights that each word gave to each frame; a key frame has a border."""
    title = textwrap.wrap(f"{look['clip']}: {' '.join(look['words']) or '(says nothing)'}", 95)
    first = look.get("first_caption")
    title += textwrap.wrap(f"before it chose a key frame: {first}", 95) if first else []
    key = look.get("key_frame")
    head = 0.2 * len(title) + 0.1
    tall = FRAME * frames.shape[1] / frames.shape[2] + 0.3 if frames is not None else 0.0
    below = LINE * len(rows[0]) + 0.5 if rows is not None else 0.0
    figure = _sheet(head + tall + below + 0.1)
    high = figure.get_size_inches()[1]
    figure.text(0.1 / WIDE, 1 - 0.08 / high, "\n".join(title), va="top", color=INK, weight="bold")
    for column, (place, pixels) in enumerate(zip(places, frames if frames is not None else [], strict=False)):
        left = (0.1 + column * (FRAME + 0.06)) / WIDE
        axes = figure.add_axes(
            (left, 1 - (head + tall - 0.25) / high, FRAME / WIDE, (tall - 0.3) / high), xticks=[], yticks=[]
        )
        axes.imshow(pixels, aspect="auto", interpolation="none")
        axes.set_xlabel(f"{place}, key frame" if place == key else str(place), labelpad=2)
        for edge in axes.spines.values():
            edge.set(visible=place == key, color=KEY, linewidth=3)
    if rows is not None:
        names, weights = rows
        axes = figure.add_axes((1.1 / WIDE, 0.4 / high, (WIDE - 1.3) / WIDE, LINE * len(names) / high))
        axes.imshow(weights, aspect="auto", cmap="Blues", vmin=0.0, interpolation="none")
        axes.set_yticks(range(len(names)), [name[:16] for name in names])
        axes.set_xlabel("frame", labelpad=1)
        if isinstance(key, int) and key < weights.shape[1]:
            axes.axvline(key, color=KEY, linewidth=1.2)
    return figure


def curves(rows: Sequence[Row], record: Record) -> Figure:
    """Training loss and validation CIDEr over the captions read, with the phases and the epoch that was chosen."""
    figure = _sheet(3.6)
    upper, lower = figure.subplots(2, 1, sharex=True)
    for axes, name, label, colour in (
        (upper, "loss", "training loss", LOSS),
        (lower, SELECTION, "validation CIDEr", SCORE),
    ):
        for phase in dict.fromkeys(row["phase"] for row in rows):
            points = [(row["captions"], row["value"]) for row in rows if (row["phase"], row["name"]) == (phase, name)]
            axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=3) if points else None
        axes.set_ylabel(label)
        axes.grid(alpha=0.25)
    _phases(upper, lower, rows)
    chosen = record.selection
    for row in rows if chosen is not None else ():
        if chosen and (row["phase"], row["epoch"], row["name"]) == (chosen.phase, chosen.epoch, chosen.metric):
            lower.plot(row["captions"], row["value"], "*", color=INK, markersize=11, label="chosen")
            lower.legend(frameon=False, loc="lower right")
    lower.set_xlabel("captions read")
    lower.xaxis.set_major_formatter("{x:,.0f}")
    figure.subplots_adjust(left=0.08, right=0.98, top=0.93, bottom=0.13, hspace=0.12)
    return figure


def _phases(upper: Any, lower: Any, rows: Sequence[Row]) -> None:
    """The name of each phase where it begins."""
    before = 0
    for phase in dict.fromkeys(row["phase"] for row in rows):
        upper.text(before, 1.02, f" {phase}", transform=upper.get_xaxis_transform(), va="bottom", color=INK)
        if before:
            for axes in (upper, lower):
                axes.axvline(before, color=INK, linewidth=0.8, linestyle=":")
        before = max(row["captions"] for row in rows if row["phase"] == phase)


def _sheet(height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDE, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _image(figure: Figure) -> Image:
    from PIL import Image

    out = io.BytesIO()
    figure.savefig(out, format="png")
    return Image.open(out).convert("RGB")
