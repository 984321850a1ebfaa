"""Heat maps: a score over two settings, and where a caption's words look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from bench.figures.canvas import INK, PAPER, RED, SMALL, cells, finish, place, plain, sheet, short, style
from bench.figures.drawing import METRICS, Drawing, by_name, image, scores
from bench.figures.strips import of_clips
from bench.pages.document import Paragraph, Part, Picture
from bench.records.figure_data import Shown

MAP = "cividis"  # even steps of lightness, the same for all kinds of colour vision
WORD = 0.22  # inches, the height of a word
Floats = NDArray[np.float64]
Grid = Mapping[tuple[float, float], float]
"""Values by (x, y)."""


def grid(drawing: Drawing) -> list[Part]:
    """HAIL's table 3: a score over two settings, ours and as printed."""
    x, y = drawing.arguments.get("x", "information_weight"), drawing.arguments.get("y", "relevance_exponent")
    metric = drawing.arguments.get("metric", "cider")
    ours: dict[tuple[float, float], float] = {}
    printed: dict[tuple[float, float], float] = {}
    for name, seeds in by_name(drawing.cells).items():
        settings = seeds[0].record.config["settings"]
        values = scores(seeds, metric)
        if x not in settings or y not in settings or not values:
            continue
        spot = float(settings[x]), float(settings[y])
        ours[spot] = fmean(values)
        if metric in drawing.printed.get(name, {}):
            printed[spot] = drawing.printed[name][metric]
    if not ours:
        return [Paragraph(f"No cell with scores has the settings {x} and {y}: there is no grid to draw.")]
    panels = {f"ours ({drawing.dataset}, {drawing.split})": ours} | ({"as printed": printed} if printed else {})
    names = {"information_weight": "λ", "relevance_exponent": "γ"}
    picture = heat_maps(panels, METRICS.get(metric, metric), names.get(x, x), names.get(y, y))
    return [image(drawing, f"grid_{metric}", picture)]


def heat_maps(
    panels: Mapping[str, Grid], score: str, x: str, y: str, marked: tuple[float, float] | None = None
) -> Picture:
    """A panel for each name, coloured on its own scale: numbers in the cells, the highest framed, absent ones empty.

    `marked` is the printed optimum: its cell gets a dashed frame in every panel that has it.
    """
    facts = []
    with style():
        rows = max(len({place[1] for place in values}) for values in panels.values())
        figure = sheet(0.95 + 0.5 * rows)
        for number, (name, values) in enumerate(panels.items()):
            axes = place(figure, 0.65 + 4.15 * number, 0.4, 3.55, 0.5 * rows)
            _heat_map(axes, values, number, marked)
            axes.set_title(plain(f"{score}, {name}"), loc="left")
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            best = max(values, key=lambda place, values=values: values[place])  # type: ignore[misc]
            facts.append(f"{name}: highest {values[best]:.1f} at {x} = {best[0]:g}, {y} = {best[1]:g}")
        if marked is not None:
            facts.append(f"printed optimum at {x} = {marked[0]:g}, {y} = {marked[1]:g} (dashed)")
        title = f"{score} over {x} and {y}"
        return finish(figure, title, f"{title}. {'; '.join(facts)}.")


def _heat_map(axes: Axes, values: Grid, number: int, marked: tuple[float, float] | None = None) -> None:
    across, down = sorted({place[0] for place in values}), sorted({place[1] for place in values})
    matrix = np.array([[values.get((x, y), np.nan) for x in across] for y in down])
    low, high = np.nanmin(matrix), np.nanmax(matrix)
    axes.pcolormesh(matrix, cmap=MAP, vmin=low, vmax=max(high, low + 1e-9), edgecolors=PAPER, linewidth=1)
    for row, column in np.ndindex(*matrix.shape):
        value = matrix[row, column]
        light = value - low > 0.55 * (high - low)
        text = "–" if np.isnan(value) else f"{value:.1f}"
        axes.text(
            column + 0.5, row + 0.5, text, ha="center", va="center", color=INK if light or np.isnan(value) else PAPER
        )
        if value == high:
            axes.add_patch(
                Rectangle((column, row), 1, 1, fill=False, edgecolor=RED, linewidth=2.5, gid=f"best-{number}")
            )
    if marked is not None and marked[0] in across and marked[1] in down:
        corner = across.index(marked[0]) + 0.06, down.index(marked[1]) + 0.06
        dashed = Rectangle(
            corner, 0.88, 0.88, fill=False, edgecolor=INK, linewidth=1.5, linestyle="--", gid=f"printed-{number}"
        )
        axes.add_patch(dashed)
    axes.set_xticks(np.arange(len(across)) + 0.5, [f"{x:g}" for x in across])
    axes.set_yticks(np.arange(len(down)) + 0.5, [f"{y:g}" for y in down])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def frame_weights(drawing: Drawing) -> list[Part]:
    """EtENet and RecNet: the weight of every frame at every word of the last cell's captions."""

    def draw(clip: Shown, name: str, shown: Mapping[str, Any], note: str) -> Picture | None:
        return word_map(shown["words"], shown["attention"], name, clip.clip) if shown.get("attention") else None

    return of_clips(drawing, "frame_weights", draw, "The last cell of this target attends to no frames.")


def word_map(words: Sequence[str], weights_WT: Sequence[Sequence[float]], name: str, clip: str) -> Picture:
    """Words from top to bottom, frames from left to right, darker for more weight."""
    labels, matrix = [short(word, 30) for word in words], np.array(weights_WT)
    with style():
        left = label_width(labels)
        figure = sheet(0.9 + WORD * len(labels))
        axes = words_by_frames(figure, labels, matrix, (left, 0.35, 7.2 - left), 7.4)
        axes.set_title(plain(f"{name}, {clip}"), loc="left")
        peaks = ", ".join(f"“{word}” on frame {int(row.argmax())}" for word, row in zip(labels, matrix, strict=True))
        return finish(figure, f"Frame weights of {name}", f"Frame weights of {name} on {clip}; most weight: {peaks}.")


def label_width(labels: Sequence[str]) -> float:
    """Inches left of a heat map that its words need."""
    return min(max(0.085 * max(map(cells, labels)) + 0.3, 0.9), 3.0)


def words_by_frames(
    figure: Figure, labels: Sequence[str], matrix_WT: Floats, at: tuple[float, float, float], bar_left: float
) -> Axes:
    """The heat map itself, its left, top and width `at` in inches, and the bar that explains its colours.

    Colours go from no weight at all to three times the even share, 1 / T: even weights then look even, not extreme.
    """
    left, top, width = at
    count, height = matrix_WT.shape[1], WORD * len(labels)
    most = max(float(matrix_WT.max()), 3 / count)
    axes = place(figure, left, top, width, height)
    mesh = axes.pcolormesh(matrix_WT, cmap=f"{MAP}_r", vmin=0, vmax=most, edgecolors=PAPER, linewidth=0.5)
    axes.set_ylim(len(labels), 0)
    axes.set_yticks(np.arange(len(labels)) + 0.5, labels)
    axes.set_xticks(np.arange(0, count, 2) + 0.5, [str(frame) for frame in range(0, count, 2)])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("frame")
    bar = figure.colorbar(mesh, cax=place(figure, bar_left, top, 0.15, height))
    bar.outline.set_visible(False)
    bar.set_label("weight", size=SMALL)
    return axes
