"""Gains of ideas over their controls with intervals, and what their papers claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures.canvas import BLUE, INK, ORANGE, QUIET, cells, finish, place, sheet, short, style
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
