"""Strips: frames of a clip side by side, with what was said of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from bench.figures.canvas import (
    INK,
    QUIET,
    RED,
    SMALL,
    WIDTH,
    YELLOW,
    cells,
    finish,
    place,
    plain,
    sheet,
    short,
    style,
    wrap,
    write,
)
from bench.figures.drawing import NOTHING, Drawing, image, traced
from bench.pages.document import Paragraph, Part, Picture
from bench.records.figure_data import Frames, Shown

LEFT, GAP, LINE = 0.25, 0.08, 0.165  # inches: margin, space between frames, line of text
ROOM = WIDTH - 2 * LEFT
EMPTY = "#e1e1e1"
WIDEST = 1.25  # of one frame
NO_PIXELS = "No pixels of this clip are shown: "
Captions = Sequence[tuple[str, str]]
"""(who says it, what)."""


@dataclass(frozen=True)
class Frame:
    """One picture of a strip: its place in the clip, its pixels [H, W, 3] (None: an empty box), the colour of its border, and
    what stands below it beside the number. `boxes` are (left, top, right, bottom, opacity) in pixels."""

    number: int
    pixels: Frames | None
    border: str | None = None
    below: str = ""
    boxes: tuple[tuple[float, float, float, float, float], ...] = ()


def strip(
    title: str, frames: Sequence[Frame], captions: Captions, note: str = "", extra: float = 0.0
) -> tuple[Figure, float]:
    """A figure of frames over captions, and the height in inches from the top where `extra` inches are left free."""
    wide, high = _size(frames)
    rows = _rows(captions)
    notes = wrap(note, ROOM) if note else []
    top = 0.32
    text = top + (high + 0.24 if frames else 0.0) + (LINE if any(frame.below for frame in frames) else 0.0)
    end = text + LINE * (len(rows) + len(notes)) + 0.08
    figure = sheet(end + extra)
    write(figure, LEFT, 0.08, short(title, 90), weight="bold")
    for column, frame in enumerate(frames):
        _draw(figure, frame, LEFT + column * (wide + GAP), top, wide, high)
    label = _label_width(captions)
    for number, (who, line) in enumerate(rows):
        write(figure, LEFT, text + LINE * number, who, color=QUIET, fontsize=SMALL)
        write(figure, LEFT + label, text + LINE * number, line, fontsize=SMALL)
    for number, line in enumerate(notes, len(rows)):
        write(figure, LEFT, text + LINE * number, line, color=QUIET, fontsize=SMALL, style="italic")
    return figure, end


def _size(frames: Sequence[Frame]) -> tuple[float, float]:
    """Width and height of each frame in inches; empty boxes are square."""
    wide = min((ROOM + GAP) / max(len(frames), 1) - GAP, WIDEST)
    pixels = next((frame.pixels for frame in frames if frame.pixels is not None), None)
    return wide, wide if pixels is None else wide * pixels.shape[0] / pixels.shape[1]


def _draw(figure: Figure, frame: Frame, left: float, top: float, wide: float, high: float) -> None:
    axes = place(figure, left, top, wide, high, facecolor=EMPTY)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if frame.pixels is not None:
        axes.imshow(frame.pixels, aspect="auto")
    for x0, y0, x1, y1, opacity in frame.boxes:
        box = Rectangle((x0 - 0.5, y0 - 0.5), x1 - x0, y1 - y0, fill=False, edgecolor=RED, linewidth=1.2, alpha=opacity)
        axes.add_patch(box)
    if frame.border:
        around: dict[str, Any] = {"transform": axes.transAxes, "fill": False, "clip_on": False}
        axes.add_patch(
            Rectangle((0, 0), 1, 1, edgecolor=INK, linewidth=5.5, **around)
        )  # so that yellow is seen on white
        edge = Rectangle((0, 0), 1, 1, edgecolor=frame.border, linewidth=4, gid=f"border-{frame.number}", **around)
        axes.add_patch(edge)
    below = {"ha": "center", "fontsize": SMALL - 0.5}
    write(figure, left + wide / 2, top + high + 0.07, str(frame.number), gid=f"frame-{frame.number}", **below)
    if frame.below:
        write(figure, left + wide / 2, top + high + 0.07 + LINE * 0.85, frame.below, weight="bold", **below)


def _label_width(captions: Captions) -> float:
    longest = max((cells(plain(who)) for who, _ in captions), default=0)
    return min(0.075 * longest + 0.2, 3.0)


def _rows(captions: Captions) -> list[tuple[str, str]]:
    """Captions in lines that fit; who says it stands on the first."""
    room = _label_width(captions)
    rows = []
    for who, what in captions:
        names, lines = wrap(who, room - 0.1), wrap(what or "(says nothing)", ROOM - room)
        length = max(len(names), len(lines))
        names, lines = (part + [""] * (length - len(part)) for part in (names, lines))
        rows += list(zip(names, lines, strict=True))
    return rows


def in_words(captions: Captions) -> str:
    """Captions for an alt text."""
    return " ".join(f"{who}: “{what}”." for who, what in captions)


def filmed(clip: Shown) -> list[Frame]:
    """The frames of a clip that are there, as they are."""
    return [Frame(number, pixels) for number, pixels in zip(clip.places, clip.frames, strict=True)]


def missing_pixels(clip: Shown, why: object) -> str:
    """What a figure says in place of frames; nothing where there are some."""
    return "" if len(clip.frames) else f"{NO_PIXELS}{why}."


def qualitative(drawing: Drawing) -> list[Part]:
    """Frames with one reference and the captions of every cell (RecNet's figure 9, GL-RG's 1 and 3, EtENet's 3)."""
    trace, lines = traced(drawing, "qualitative")
    if trace is None:
        return lines
    parts: list[Part] = []
    for number, clip in enumerate(trace.clips):
        said = [("reference", clip.reference), *((name, words["caption"]) for name, words in clip.by_cell.items())]
        note = missing_pixels(clip, trace.facts["pixels"])
        picture = quoted(f"{clip.clip}: {trace.facts['chosen'][number]}", filmed(clip), said, note)
        parts.append(image(drawing, f"qualitative{number}", picture))
    return [*parts, Paragraph(trace.facts["rule"])] if parts else lines or [Paragraph(NOTHING)]


def of_clips(
    drawing: Drawing,
    figure: str,
    draw: Callable[[Shown, str, Mapping[str, Any], str], Picture | None],
    nothing: str,
) -> list[Part]:
    """One picture for each clip of the trace of `figure`, by its rightmost cell that `draw` can draw; the rule by which clips
    were chosen; what the trace lacks. `nothing` says that there is no picture.

    `draw` gets the clip, the name of a cell, what that cell left of the clip, and the note that stands for frames.
    """
    trace, lines = traced(drawing, figure)
    if trace is None:
        return lines
    parts: list[Part] = []
    for number, clip in enumerate(trace.clips):
        note = missing_pixels(clip, trace.facts["pixels"])
        drawn = [picture for name, shown in clip.by_cell.items() if (picture := draw(clip, name, shown, note))]
        parts += [image(drawing, f"{figure}{number}", picture) for picture in drawn[-1:]]
    return [*parts, Paragraph(trace.facts["rule"]), *lines] if parts else lines or [Paragraph(nothing)]


def quoted(title: str, frames: Sequence[Frame], captions: Captions, note: str = "") -> Picture:
    """A strip as a picture."""
    with style():
        figure, _ = strip(title, frames, captions, note)
        shown = f"{len(frames)} frames. " if frames else ""
        return finish(figure, title, f"{title}. {shown}{in_words(captions)} {note}")


def key_frames(drawing: Drawing) -> list[Part]:
    """VRE's figure 3: even frames, default key frame yellow, predicted one red, captions of both steps."""
    trace, lines = traced(drawing, "key_frames")
    if trace is None:
        return lines
    parts: list[Part] = []
    for number, clip in enumerate(trace.clips):
        for name, said in clip.by_cell.items():
            captions = [("reference", clip.reference)]
            captions += [("step 1", said["first_caption"]), ("step 2", " ".join(said["words"]))]
            note = missing_pixels(clip, trace.facts["pixels"])
            picture = key_strip(f"{name}, {clip.clip}", clip, said["key_frame"], said["refocusing"], captions, note)
            parts.append(image(drawing, f"key_frames{number}", picture))
    if not parts:
        return lines or [Paragraph("The last cell of this target chooses no key frames.")]
    keys, default = trace.facts["keys"], trace.facts["defaults"]
    moved = sum(key != middle for key, middle in zip(keys, default, strict=True))
    counts = (
        f"The key frame left the middle in {moved} of {len(keys)} clips of this split; "
        "shown are those where it went farthest."
    )
    return [*parts, Paragraph(counts), image(drawing, "key_frames", histogram(keys))]


def key_strip(
    title: str, clip: Shown, key: int, weights: Sequence[float], captions: Captions, note: str = ""
) -> Picture:
    """Even frames and both key frames, over captions and the weight of every frame in the refocusing module."""
    default = len(weights) // 2
    frames = []
    for number in sorted({*range(0, len(weights), 2), default, key}):
        names = [name for name, place in (("default", default), ("predicted", key)) if place == number]
        border = RED if number == key else YELLOW if number == default else None
        frames.append(Frame(number, clip.picture(number), border, " = ".join(names)))
    with style():
        figure, top = strip(title, frames, captions, note, extra=0.95)
        axes = place(figure, LEFT + 0.45, top + 0.12, ROOM - 0.45, 0.42)
        for number, weight in enumerate(weights):
            colour = RED if number == key else YELLOW if number == default else QUIET
            (bar,) = axes.bar(number, weight, 0.75, color=colour, edgecolor=INK, linewidth=0.4)
            bar.set_gid(f"weight-{number}")
        axes.set_xlim(-0.6, len(weights) - 0.4)
        axes.set_yticks([0, round(max(weights), 2)])
        axes.set_xticks(range(0, len(weights), 2))
        axes.set_xlabel("frame: its weight in the refocusing module", fontsize=SMALL)
        where = "stays in the middle" if key == default else f"moves from frame {default} to frame {key}"
        return finish(figure, title, f"{title}: the key frame {where}. {in_words(captions)} {note}")


def histogram(keys: Sequence[int]) -> Picture:
    """How often each frame is the predicted key frame."""
    places, counts = np.unique(np.array(keys), return_counts=True)
    with style():
        figure = sheet(1.9)
        axes = place(figure, 0.65, 0.35, 7.2, 1.05)
        axes.bar(places, counts, 0.8, color=RED)
        axes.set(xlabel="predicted key frame", ylabel="clips")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_title(f"{len(keys)} clips", loc="left")
        most = int(places[counts.argmax()])
        return finish(
            figure, "Predicted key frames", f"Predicted key frames of {len(keys)} clips; most often frame {most}."
        )
