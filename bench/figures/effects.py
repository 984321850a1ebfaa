"""Gains of ideas over their controls with intervals and what their papers claim; what a phase with rewards does to the scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bench.figures.canvas import BLUE, GREEN, INK, ORANGE, QUIET, RED, cells, finish, place, sheet, short, style
from bench.figures.drawing import thousands
from bench.pages.document import Picture

ROW = 0.27  # inches
LONGEST = 60  # characters of a name


@dataclass(frozen=True)
class Effect:
    """One idea on one corpus: mean gain and its interval in percent, and the printed gain where there is one."""

    name: str
    mean: float
    low: float
    high: float
    claimed: float | None


def effects(rows: Sequence[Effect], score: str) -> Picture:
    """A line for each idea and corpus: the gain with its interval, the printed gain as an open diamond."""
    names = [short(row.name, LONGEST) for row in rows]
    heights = range(len(rows))
    with style():
        left = min(max(0.075 * max(map(cells, names)) + 0.2, 0.9), 4.2)
        height = ROW * len(rows)
        figure = sheet(height + 0.75)
        axes = place(figure, left, 0.35, 8.3 - left - 0.2, height)
        axes.axvline(0, color=QUIET, linewidth=0.8)
        axes.hlines(
            heights, [row.low for row in rows], [row.high for row in rows], color=BLUE, linewidth=2, gid="intervals"
        )
        axes.plot([row.mean for row in rows], heights, linestyle="", marker="o", color=BLUE, markersize=6, gid="gains")
        printed = [(row.claimed, n) for n, row in enumerate(rows) if row.claimed is not None]
        if printed:
            gains, at = zip(*printed, strict=True)
            axes.plot(
                gains, at, linestyle="", marker="D", markerfacecolor="none", color=ORANGE, markersize=6, gid="claimed"
            )
        axes.set_yticks(heights, names)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_title(
            f"gain in {score} over the control, with interval; diamond: as the paper prints it", loc="right", color=INK
        )
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=QUIET, alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        facts = [
            f"{row.name} {row.mean:+.1f} ({row.low:+.1f} to {row.high:+.1f})"
            + (f", claimed {row.claimed:+.1f}" if row.claimed is not None else "")
            for row in rows
        ]
        return finish(
            figure, f"Gains in {score}", f"Gains in {score} over the controls, with intervals: {'; '.join(facts)}."
        )


@dataclass(frozen=True)
class Course:
    """One cell in its phase with rewards, or in the same phase without: by the captions read since the phase began its validation
    scores less the best one before the phase, and the mean rewards of drawn captions and of their baseline, where it has them.
    All are on the scale of 100."""

    captions: tuple[int, ...]
    gains: tuple[float, ...]
    drawn: tuple[float, ...] = ()
    baseline: tuple[float, ...] = ()


def courses(idea: Sequence[Course], control: Sequence[Course], score: str) -> Picture:
    """Left the rewards, right how the validation score goes on from the best one before, with rewards and without: means over the
    cells, and bands of one standard deviation."""
    with style():
        figure = sheet(3.3)
        panels = (place(figure, 0.65, 0.35, 3.4, 2.0), place(figure, 4.85, 0.35, 3.4, 2.0))
        told = [
            _mean(
                panels[0], "drawn", [(one.captions, one.drawn) for one in idea], "reward of a drawn caption", BLUE, "o"
            ),
            _mean(
                panels[0],
                "baseline",
                [(one.captions, one.baseline) for one in idea],
                "reward of the baseline",
                QUIET,
                "s",
            ),
            _mean(panels[1], "with", [(one.captions, one.gains) for one in idea], "with rewards", GREEN, "D", 0.0),
            _mean(panels[1], "without", [(one.captions, one.gains) for one in control], "without", RED, "^", 0.0),
        ]
        panels[0].set_title("reward in training (CIDEr-D x 100)", loc="left")
        panels[1].set_title(f"validation {score}, less the best before", loc="left")
        panels[1].axhline(0, color=QUIET, linewidth=0.8, zorder=0)
        for axes in panels:
            axes.set_xlabel("captions since the phase began")
            axes.xaxis.set_major_formatter(FuncFormatter(thousands))
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.set_xlim(left=0)
        handles = [line for axes in panels for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
        figure.legend(handles=handles, loc="lower center", ncols=4)
        title = "Rewards, and the validation score from the best one before"
        return finish(figure, title, f"{title}, means of {len(idea)} cells: {'; '.join(filter(None, told))}.")


def _mean(
    axes: Axes,
    gid: str,
    runs: Sequence[tuple[Sequence[int], Sequence[float]]],
    label: str,
    colour: str,
    marker: str,
    start: float | None = None,
) -> str:
    """The mean curve of some cells as far as all of them go, with its band, from `start` on; says where it begins and ends."""
    length = min((len(values) for _, values in runs), default=0)
    if not length:
        return ""
    at = [fmean(captions[n] for captions, _ in runs) for n in range(length)]
    columns = [[values[n] for _, values in runs] for n in range(length)]
    means = [fmean(column) for column in columns]
    spread = [stdev(column) if len(column) > 1 else 0.0 for column in columns]
    if start is not None:
        at, means, spread = [0.0, *at], [start, *means], [0.0, *spread]
    low, high = ([mean + side * s for mean, s in zip(means, spread, strict=True)] for side in (-1, 1))
    axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0, gid=f"{gid}-band")
    axes.plot(at, means, color=colour, marker=marker, markersize=4, linewidth=1.4, label=label, gid=gid)
    return f"{label} from {means[0]:.2f} to {means[-1]:.2f}"
