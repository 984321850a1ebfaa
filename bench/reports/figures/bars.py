"""Scores as bars, ours and the paper's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from bench.reports.figures.canvas import BLUE, INK, ORANGE, Picture, cells, finish, place, plain, sheet, short, style
from bench.reports.figures.source import METRICS, by_name, image, paragraphs, scores

if TYPE_CHECKING:
    from bench.reports.reproduce import Drawing

ROW = 0.3  # inches
LONGEST = 40  # characters of a name


def bars(drawing: Drawing) -> list[str]:
    """One picture for each metric: our cells, and beside them the printed scores of the same rows, on an axis of their own."""
    lines = []
    for metric in drawing.arguments.get("metrics", ["cider"]):
        ours = {name: found for name, seeds in by_name(drawing.cells).items() if (found := scores(seeds, metric))}
        printed = {name: drawing.printed[name][metric] for name in ours if metric in drawing.printed.get(name, {})}
        if ours:
            where = f"{drawing.dataset}, {drawing.split}"
            lines.append(image(drawing, f"bars_{metric}", bar_chart(ours, printed, METRICS.get(metric, metric), where)))
    return paragraphs(lines or ["No cell has scores: there are no bars to draw."])


def bar_chart(ours: Mapping[str, Sequence[float]], printed: Mapping[str, float], score: str, where: str) -> Picture:
    """A bar for each name: the mean over seeds with its deviation, and the printed score in a panel of its own.

    The two panels have their own scales: scores of other clips may not be read off against one another.
    """
    names = [short(name, LONGEST) for name in ours]
    longest = max(map(cells, names))
    with style():
        left = min(max(0.075 * longest + 0.25, 0.8), 3.2)
        width = (8.3 - left - (0.6 if printed else 0.3)) / (2 if printed else 1.4)
        figure = sheet(0.75 + ROW * len(ours))
        axes = place(figure, left, 0.35, width, ROW * len(ours))
        means = [fmean(values) for values in ours.values()]
        errors = [stdev(values) if len(values) > 1 else 0.0 for values in ours.values()]
        _panel(axes, means, errors, BLUE, f"{score}, ours ({where})", "ours")
        axes.set_yticks(range(len(ours)), names)
        told = [f"{name} {mean:.1f}" for name, mean in zip(ours, means, strict=True)]
        if printed:
            beside = place(figure, left + width + 0.4, 0.35, width, ROW * len(ours))
            _panel(
                beside,
                [printed.get(name) for name in ours],
                [0.0] * len(ours),
                ORANGE,
                f"{score}, as printed",
                "printed",
            )
            beside.set_yticks([])
            told += [f"{name} as printed {value:.1f}" for name, value in printed.items()]
        return finish(figure, f"{score} of {len(ours)} systems", f"{score} on {where} as bars: {', '.join(told)}.")


def _panel(
    axes: Axes, values: Sequence[float | None], errors: Sequence[float], colour: str, title: str, gid: str
) -> None:
    most = (
        max([value + error for value, error in zip(values, errors, strict=True) if value is not None], default=0) or 1
    )
    for row, (value, error) in enumerate(zip(values, errors, strict=True)):
        if value is None:
            axes.text(0.01 * most, row, "not printed", va="center", color=INK, fontstyle="italic")
            continue
        (bar,) = axes.barh(row, value, 0.7, color=colour, xerr=error or None, error_kw={"capsize": 3, "ecolor": INK})
        bar.set_gid(f"{gid}-{row}")
        axes.text(value + error + 0.02 * most, row, f"{value:.1f}", va="center")
    axes.set_xlim(0, most * 1.17)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_title(plain(title), loc="left")
    axes.tick_params(left=False)
