"""The pictures of a leaderboard: scores with intervals and places, score against cost, learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from bench.figures.canvas import (
    BLUE,
    CYCLE,
    INK,
    MARKERS,
    ORANGE,
    QUIET,
    SKY,
    cells,
    finish,
    number_ticks,
    place,
    sheet,
    short,
    style,
)
from bench.figures.drawing import thousands
from bench.pages.document import Picture

ROW = 0.27  # inches
LONGEST = 40  # characters of a name
MOST_ROWS = 30  # rows of a forest
MOST_CURVES = len(MARKERS)  # rows that have a colour and a marker of their own
FAR = 8.0  # costs this many times apart stand on a logarithmic axis
GROUPS = (BLUE, ORANGE, SKY)


@dataclass(frozen=True)
class Standing:
    """One ranked row: mean and 95 % interval over clips in percent, tie group, the ranks it has in 95 of 100 draws of clips."""

    name: str
    mean: float
    interval: tuple[float, float]
    rank: int
    group: int | None
    places: tuple[int, int]


@dataclass(frozen=True)
class Cost:
    """One row: mean training time in seconds (None where it is not known), mean score, validation scores by captions read."""

    name: str
    seconds: float | None
    score: float
    curve: tuple[tuple[float, float], ...]


def forest(rows: Sequence[Standing], score: str, where: str) -> Picture:
    """Left the scores with their intervals, one line a row; right the places that a row takes when clips are drawn again.

    The best `MOST_ROWS` rows are drawn. Colour and marker tell the tie group.
    """
    drawn = rows[:MOST_ROWS]
    names = [short(f"{row.rank}  {row.name}", LONGEST) for row in drawn]
    with style():
        left = min(max(0.075 * max(map(cells, names)) + 0.2, 0.9), 3.3)
        height = ROW * len(drawn)
        figure = sheet(height + 0.75)
        wide = (8.3 - left - 0.35) * 0.64
        axes = place(figure, left, 0.35, wide, height)
        beside = place(figure, left + wide + 0.35, 0.35, 8.3 - left - 0.35 - wide, height)
        ties = "; colour: tie group" if len({row.group for row in drawn}) > 1 else ""
        for group in dict.fromkeys(row.group for row in drawn):
            own = [(n, row) for n, row in enumerate(drawn) if row.group == group]
            _draw_group(axes, beside, own, group)
        axes.set_yticks(range(len(drawn)), names)
        beside.set_yticks([])
        beside.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        beside.set_xlim(0.5, max(max(row.places[1], row.rank) for row in drawn) + 0.5)
        for one, title in ((axes, f"{score}, 95 % interval over clips{ties}"), (beside, "rank, 95 % over clips")):
            one.set_title(title, loc="left")
            one.set_ylim(len(drawn) - 0.5, -0.5)
            one.tick_params(axis="y", length=0)
            one.grid(axis="x", color=QUIET, alpha=0.25, linewidth=0.6)
            one.set_axisbelow(True)
        facts = [
            "{} {:.1f} ({:.1f} to {:.1f}), rank {} ({} to {})".format(
                row.name, row.mean, *row.interval, row.rank, *row.places
            )
            for row in drawn
        ]
        rest = f" The best {len(drawn)} of {len(rows)} rows." if len(rows) > len(drawn) else ""
        return finish(
            figure, f"{score} with intervals", f"{score} with 95 % intervals on {where}: {'; '.join(facts)}.{rest}"
        )


def _draw_group(axes: Axes, beside: Axes, rows: Sequence[tuple[int, Standing]], group: int | None) -> None:
    """The rows of one tie group, each at its height."""
    look = _group(group)
    heights = [n for n, _ in rows]
    low, high = zip(*(row.interval for _, row in rows), strict=True)
    first, last = zip(*(row.places for _, row in rows), strict=True)
    axes.hlines(heights, low, high, color=look["color"], linewidth=2, gid=f"intervals-{group}")
    beside.hlines(heights, first, last, color=look["color"], linewidth=4, capstyle="round", gid=f"places-{group}")
    axes.plot([row.mean for _, row in rows], heights, linestyle="", markersize=6, gid=f"means-{group}", **look)  # type: ignore[arg-type]
    beside.plot([row.rank for _, row in rows], heights, linestyle="", markersize=6, gid=f"ranks-{group}", **look)  # type: ignore[arg-type]


def _group(group: int | None) -> dict[str, str]:
    """Colour and marker of a tie group; the third one has those of all further groups."""
    if group is None:
        return {"color": INK, "marker": "o"}
    number = min(group, len(GROUPS)) - 1
    return {"color": GROUPS[number], "marker": MARKERS[number]}


def cost(rows: Sequence[Cost], score: str, where: str) -> Picture:
    """Left the score against training time, right the validation score while training, where that is known; one colour and
    marker for each row.

    The best `MOST_CURVES` rows are drawn.
    """
    drawn = rows[:MOST_CURVES]
    facts = []
    with style():
        columns = 2
        lines = -(-len(drawn) // columns)
        figure = sheet(3.15 + 0.2 * lines)
        axes, beside = place(figure, 0.6, 0.35, 3.3, 2.2), place(figure, 4.75, 0.35, 3.5, 2.2)
        for n, row in enumerate(drawn):
            look = {"color": CYCLE[n % len(CYCLE)], "marker": MARKERS[n]}
            label = short(row.name, LONGEST)
            parts = [f"{score} {row.score:.1f}"]
            if row.seconds is not None:
                axes.plot([row.seconds], [row.score], linestyle="", markersize=7, label=label, gid=f"cost-{n}", **look)  # type: ignore[arg-type]
                parts.append(f"{row.seconds:.0f} s of training")
            if row.curve:
                x, y = zip(*row.curve, strict=True)
                shown = f"_{label}" if row.seconds is not None else label
                beside.plot(x, y, linewidth=1.3, markersize=4, label=shown, gid=f"curve-{n}", **look)  # type: ignore[arg-type]
                parts.append(f"validation from {y[0]:.1f} to {max(y):.1f} at best")
            facts.append(f"{row.name} {', '.join(parts)}")
        _cost_axis(axes, [row.seconds for row in drawn if row.seconds])
        axes.set_title(f"{score} against training time", loc="left")
        axes.set_xlabel("seconds of training, mean over seeds")
        axes.margins(0.12)
        beside.set_title("validation CIDEr-D (tokens) while training", loc="left")
        beside.set_xlabel("captions read")
        beside.xaxis.set_major_formatter(FuncFormatter(thousands))
        beside.xaxis.set_major_locator(MaxNLocator(5))
        beside.set_visible(any(row.curve for row in drawn))
        handles = [h for one in (axes, beside) for h in one.get_lines() if not str(h.get_label()).startswith("_")]
        figure.legend(handles=handles, loc="lower center", ncols=columns)
        rest = f" The best {len(drawn)} of {len(rows)} rows." if len(rows) > len(drawn) else ""
        return finish(
            figure, f"{score} against cost", f"{score} against training time on {where}: {'; '.join(facts)}.{rest}"
        )


def _cost_axis(axes: Axes, seconds: Sequence[float]) -> None:
    if seconds and max(seconds) > FAR * min(seconds):
        axes.set_xscale("log")
        number_ticks(axes.xaxis)
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlim(0, max(seconds, default=1.0) * 1.12)
