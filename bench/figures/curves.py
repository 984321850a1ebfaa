"""Scores against a setting, and what a training went through: lambda curves, training curves, reward curves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bench.figures.canvas import (
    BLUE,
    CYCLE,
    GREEN,
    INK,
    MARKERS,
    QUIET,
    RED,
    finish,
    listed,
    number_ticks,
    place,
    plain,
    sheet,
    style,
)
from bench.figures.drawing import (
    METRICS,
    NOTHING,
    VALIDATION,
    Drawing,
    Epoch,
    by_name,
    epochs,
    image,
    scores,
    thousands,
    traced,
)
from bench.pages.document import Paragraph, Part, Picture

NAMES = {
    "reconstruction_weight": "λ",
    "cross_entropy": "XE",
    "reconstruction": "reconstruction",
    "loss": "total",
    VALIDATION: "validation CIDEr-D",
}
COLOURS = {"cross_entropy": RED, "reconstruction": BLUE, "loss": INK}  # RecNet's figure 7 has red, blue and black too


@dataclass(frozen=True)
class Point:
    """Scores of one setting's cells, one for each seed, and the printed score of that setting where there is one."""

    setting: float
    scores: tuple[float, ...]
    printed: float | None = None


def lambda_curves(drawing: Drawing) -> list[Part]:
    """RecNet's figure 6: a score against the weight of a loss; cells without that setting are the base."""
    metric = drawing.arguments.get("metric", "bleu4")
    setting = drawing.arguments.get("setting", "reconstruction_weight")
    curves: dict[str, list[Point]] = {}
    base: dict[str, tuple[float, ...]] = {}
    for name, cells in by_name(drawing.cells).items():
        record = cells[0].record
        values = scores(cells, metric)
        if not values:
            continue
        if setting not in record.config["settings"]:
            base[name] = values
            continue
        printed = drawing.printed.get(name, {}).get(metric)
        point = Point(float(record.config["settings"][setting]), values, printed)
        curves.setdefault(f"{record.method}:{record.variant}", []).append(point)
    if not curves:
        return [
            Paragraph(
                f"No cell with the setting {setting} has a {METRICS.get(metric, metric)}: there is no curve to draw."
            )
        ]
    picture = sweep(curves, base, METRICS.get(metric, metric), NAMES.get(setting, setting))
    return [image(drawing, f"lambda_curves_{metric}", picture)]


def sweep(
    curves: Mapping[str, Sequence[Point]], base: Mapping[str, Sequence[float]], score: str, setting: str
) -> Picture:
    """One curve for each name: means with deviations over seeds, `base` as levels. Printed scores stand in a panel of their
    own, for those of other clips may not be read off against ours."""
    facts = []
    with style():
        figure = sheet(3.7)
        printed = any(point.printed is not None for points in curves.values() for point in points)
        axes = place(figure, 0.65, 0.35, 4.55 if printed else 7.4, 2.3)
        panels = [axes] if not printed else [axes, place(figure, 5.9, 0.35, 2.3, 2.3)]
        for number, (name, points) in enumerate(curves.items()):
            points = sorted(points, key=lambda point: point.setting)
            look = {"color": CYCLE[number % len(CYCLE)], "marker": MARKERS[number % len(MARKERS)]}
            x, means = [point.setting for point in points], [fmean(point.scores) for point in points]
            errors = [stdev(point.scores) if len(point.scores) > 1 else 0.0 for point in points]
            if any(errors):
                axes.errorbar(x, means, errors, fmt="none", ecolor=look["color"], elinewidth=1, capsize=3)
            axes.plot(x, means, markersize=5, label=plain(name), gid=f"curve-{number}", **look)  # type: ignore[arg-type]
            best = max(range(len(x)), key=means.__getitem__)
            facts.append(f"{name} is highest, {means[best]:.1f}, at {setting} = {x[best]:g}")
            known = [(point.setting, point.printed) for point in points if point.printed is not None]
            if known:
                panels[-1].plot(*zip(*known, strict=True), markersize=7, gid=f"printed-{number}", **look)  # type: ignore[arg-type]
                facts.append(f"{name} as printed: " + ", ".join(f"{value:.1f} at {x:g}" for x, value in known))
        for number, (name, values) in enumerate(base.items()):
            axes.axhline(fmean(values), color=QUIET, linestyle=(0, (4, 2 + 2 * number)), label=plain(name))
            facts.append(f"{name}, the base, has {fmean(values):.1f}")
        for panel, title in zip(panels, ("ours", "as printed"), strict=False):
            panel.set_title(f"{score}, {title}", loc="left")
            panel.set_xlabel(setting)
            panel.set_xlim(min(0, axes.get_xlim()[0]), axes.get_xlim()[1])
            panel.margins(y=0.12)
        figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=4)
        return finish(figure, f"{score} against {setting}", f"{score} against {setting}: {'; '.join(facts)}.")


def response(
    trials: Sequence[tuple[float, float, bool]],
    printed: float | None,
    setting: str,
    log: bool = False,
    score: str = "CIDEr",
    chosen: float | None = None,
) -> Picture:
    """The validation score of the trials of a search against one setting; those that were stopped early are hollow. `chosen`
    settles which of equals is marked."""
    trials = sorted(trials)
    with style():
        figure = sheet(3.2)
        axes = place(figure, 0.65, 0.3, 7.4, 2.2)
        if log:
            axes.set_xscale("log")
            number_ticks(axes.xaxis)
        axes.plot([one[0] for one in trials], [one[1] for one in trials], color=QUIET, linewidth=1, zorder=1)
        for whole in (True, False):
            some = [one for one in trials if one[2] is whole]
            label = "whole budget" if whole else "stopped early"
            if some:
                x, y = [one[0] for one in some], [one[1] for one in some]
                axes.scatter(x, y, s=36, color=BLUE, facecolor=BLUE if whole else "none", label=label, zorder=2)
        best = max(trials, key=lambda one: (one[1], one[0] == chosen))
        axes.scatter(
            *best[:2], s=130, facecolor="none", edgecolor=RED, linewidth=2, label="chosen", gid="chosen", zorder=3
        )
        low, high = axes.get_ylim()
        if high - low < 1:  # scores that hardly differ are a line, not five decimals of noise
            axes.set_ylim((low + high - 1) / 2, (low + high + 1) / 2)
        if printed is not None:
            axes.axvline(printed, color=GREEN, linestyle="--", label=f"printed, {printed:g}", gid="printed")
        axes.set_xlabel(plain(setting))
        axes.set_title(f"{score}, validation", loc="left")
        figure.legend(loc="lower left", bbox_to_anchor=(0.07, 0.0), ncols=4)
        beside = f", printed {printed:g}" if printed is not None else ""
        facts = f"Validation {score} against {setting}: highest {best[1]:.1f} at {best[0]:g}{beside}."
        return finish(figure, f"Response to {setting}", facts)


Steps = Mapping[int, Sequence[tuple[int, float]]]


def schedules(settings: Mapping[str, Steps], chosen: int | None, log: Collection[str] = ()) -> Picture:
    """What became of settings while models trained: a panel for each, captions read to the right, a line for each trial.

    A value holds from its captions until the next; the last of each trial is its end. The chosen trial stands out.
    """
    facts, height = [], 1.9
    with style():
        figure = sheet(0.95 + (height + 0.65) * len(settings) - 0.4)
        for number, (name, trials) in enumerate(settings.items()):
            axes = place(figure, 0.75, 0.35 + number * (height + 0.65), 7.3, height)
            if name in log:
                axes.set_yscale("log")
                number_ticks(axes.yaxis)
            for trial, steps in sorted(trials.items(), key=lambda item: item[0] == chosen):
                mine = trial == chosen
                look = {"color": RED, "linewidth": 2.4} if mine else {"color": QUIET, "linewidth": 1.2}
                label = "chosen" if mine else "other trials"
                x, y = zip(*steps, strict=True)
                axes.step(x, y, where="post", label=label, gid=f"schedule-{number}-{trial}", **look)  # type: ignore[arg-type]
                changes = list(steps[1:-1])
                marked, values = zip(steps[0], *changes, strict=True)
                axes.scatter(marked, values, s=14, color=RED if mine else QUIET, zorder=3)
                if mine:
                    later = "".join(f", {value:g} from {captions:,} captions" for captions, value in changes)
                    facts.append(f"{name} is {y[0]:g}{later}")
            axes.set_title(plain(name), loc="left")
            axes.xaxis.set_major_formatter(FuncFormatter(thousands))
            axes.set_xlabel("captions read")
        named = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
        figure.legend(named.values(), named.keys(), loc="lower left", bbox_to_anchor=(0.07, 0.0), ncols=2)
        title = "Settings against captions read"
        return finish(figure, title, f"{title}, of the chosen trial: {'; '.join(facts) or 'none'}.")


def training_curves(drawing: Drawing) -> list[Part]:
    """RecNet's figure 7: losses and validation CIDEr over all phases, one picture for the first seed of each cell."""
    wanted = drawing.arguments.get("losses", ["cross_entropy", "reconstruction", "loss"])
    parts: list[Part] = []
    for number, (name, cells) in enumerate(by_name(drawing.cells).items()):
        parts.append(image(drawing, f"training_curves{number}", history(epochs(cells[0].folder), wanted, name)))
    return parts or [Paragraph(NOTHING)]


def history(rows: Sequence[Epoch], losses: Sequence[str], name: str) -> Picture:
    """Losses and validation score of a training, over all phases."""
    phases = list(dict.fromkeys(row.phase for row in rows))
    with style():
        figure = _training(rows, losses, name)
        return finish(figure, f"Training of {name}", f"Training curves of {name}. {_ends(rows, losses, phases)}")


def _training(rows: Sequence[Epoch], losses: Sequence[str], name: str) -> Figure:
    """Losses (left axis) and validation score (right axis, dotted) by captions read; a line where a phase begins."""
    phases = list(dict.fromkeys(row.phase for row in rows))
    figure = sheet(3.5)
    axes = place(figure, 0.65, 0.45, 5.35, 2.5)
    score = axes.twinx()
    score.spines["right"].set_visible(True)
    for number, loss in enumerate(losses):
        # The total is drawn broad and below: where it equals the cross-entropy both are seen.
        broad = 3.0 if loss == "loss" else 1.5
        colour = COLOURS.get(loss, CYCLE[(number + 3) % len(CYCLE)])
        _by_phase(axes, rows, loss, phases, color=colour, linewidth=broad, zorder=1 if loss == "loss" else 2)
    _by_phase(score, rows, VALIDATION, phases, color=GREEN, linewidth=1.5, linestyle=":")
    _name_phases(axes, rows, phases)
    axes.set_xlabel("captions read")
    axes.xaxis.set_major_formatter(FuncFormatter(thousands))
    axes.set_ylabel("loss")
    score.set_ylabel(NAMES[VALIDATION], color=GREEN)
    handles = [line for part in (axes, score) for line in part.get_lines() if not str(line.get_label()).startswith("_")]
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.14, 0.5))
    axes.set_title(plain(name), loc="left", pad=18)
    return figure


def _by_phase(axes: Axes, rows: Sequence[Epoch], value: str, phases: Sequence[str], **options: object) -> None:
    """A line of its own for each phase: losses of different phases are different sums."""
    label = NAMES.get(value, value.replace("_", " "))
    for number, phase in enumerate(phases):
        points = [(row.captions, row.values[value]) for row in rows if row.phase == phase and value in row.values]
        if points:
            x, y = zip(*points, strict=True)
            axes.plot(x, y, marker="o", markersize=3, label=label, gid=f"{value}-{number}", **options)  # type: ignore[arg-type]
            label = f"_{label}"  # once in the legend


def _name_phases(axes: Axes, rows: Sequence[Epoch], phases: Sequence[str]) -> None:
    """Each phase's name above its part, a broken line where the next one starts."""
    start = 0
    for number, phase in enumerate(phases):
        end = max(row.captions for row in rows if row.phase == phase)
        if number:
            axes.axvline(start, color=QUIET, linestyle="--", linewidth=1, gid=f"switch-{number}")
        axes.annotate(
            plain(phase.replace("_", " ")),
            ((start + end) / 2, 1.02),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            color=QUIET,
        )
        start = end
    axes.set_xlim(0, start * 1.02)


def _ends(rows: Sequence[Epoch], losses: Sequence[str], phases: Sequence[str]) -> str:
    """First and last values of each phase in words."""
    facts = []
    for phase in phases:
        own = [row for row in rows if row.phase == phase]
        parts = [
            f"{NAMES.get(value, value)} from {own[0].values[value]:.1f} to {own[-1].values[value]:.1f}"
            for value in (*losses, VALIDATION)
            if value in own[0].values and value in own[-1].values
        ]
        facts.append(f"Phase {phase}: {listed(parts)}." if parts else f"Phase {phase}.")
    return " ".join(facts)


def reward_curves(drawing: Drawing) -> list[Part]:
    """GL-RG's baselines: the reward of drawn captions and the validation score of every cell over the captions read."""
    value = drawing.arguments.get("value", "reward")
    curves = {name: [epochs(cell.folder) for cell in cells] for name, cells in by_name(drawing.cells).items()}
    if not any(value in row.values for runs in curves.values() for rows in runs for row in rows):
        return [Paragraph(f"No finished cell has a curve called {value}.")]
    return [image(drawing, f"reward_curves_{value}", rewards(curves, value))]


def rewards(curves: Mapping[str, Sequence[Sequence[Epoch]]], value: str) -> Picture:
    """Two panels, `value` and the validation score; a thin line for each seed, one colour for each name."""
    facts = []
    with style():
        figure = sheet(3.5)
        panels = (place(figure, 0.65, 0.35, 3.4, 2.2), place(figure, 4.85, 0.35, 3.4, 2.2))
        for axes, name in zip(panels, (value, VALIDATION), strict=True):
            axes.set_title(plain(NAMES.get(name, name.replace("_", " "))), loc="left")
            axes.set_xlabel("captions read")
            axes.xaxis.set_major_formatter(FuncFormatter(thousands))
            axes.xaxis.set_major_locator(MaxNLocator(5))
        for number, (name, runs) in enumerate(curves.items()):
            look = {"color": CYCLE[number % len(CYCLE)], "marker": MARKERS[number % len(MARKERS)], "markersize": 4}
            for seed, rows in enumerate(runs):
                drawn = [row for row in rows if value in row.values]
                for axes, what in zip(panels, (value, VALIDATION), strict=True):
                    points = [(row.captions, row.values[what]) for row in drawn if what in row.values]
                    if points:
                        x, y = zip(*points, strict=True)
                        label = plain(name) if not seed and what == value else f"_{number}"
                        axes.plot(x, y, linewidth=1.3, label=label, gid=f"{what}-{number}-{seed}", **look)  # type: ignore[arg-type]
                if drawn and not seed:
                    facts.append(f"{name} goes from {drawn[0].values[value]:.2f} to {drawn[-1].values[value]:.2f}")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="lower center", ncols=min(len(curves), 4))
        title = f"{value.replace('_', ' ').capitalize()} and validation CIDEr-D over the captions read"
        return finish(figure, title, f"{title}: {'; '.join(facts)}.")


def step_memory(drawing: Drawing) -> list[Part]:
    """EtENet, Algorithm 1: what a training step holds for its backward pass, the batch at once and in small pieces."""
    trace, lines = traced(drawing, "step_memory")
    if trace is None or not trace.facts.get("cells"):
        return lines or [Paragraph(NOTHING)]
    facts = trace.facts
    picture = memory(facts["sizes"], facts["cells"], facts["piece"])
    rule = (
        "Held is what autograd saves between the forward and the backward pass of one step, weights and optimizer not counted; "
        f"in pieces of {facts['piece']} captions the gradients are added up and are those of the whole batch."
    )
    return [image(drawing, "step_memory", picture), Paragraph(rule), *lines]


def memory(sizes: Sequence[int], cells: Mapping[str, Mapping[str, Sequence[int]]], piece: int) -> Picture:
    """Megabytes by captions in a batch: one colour for each cell, whole batches as a line, pieces as a broken one."""
    facts = []
    with style():
        figure = sheet(3.5)
        axes = place(figure, 0.75, 0.35, 7.2, 2.3)
        for number, (name, held) in enumerate(cells.items()):
            look = {"color": CYCLE[number % len(CYCLE)], "marker": MARKERS[number % len(MARKERS)], "markersize": 5}
            for way, dashes, words in (("whole", "-", "whole batch"), ("pieces", "--", f"pieces of {piece}")):
                megabytes = [value / 2**20 for value in held[way]]
                label = f"{plain(name)}, {words}"
                axes.plot(sizes, megabytes, linestyle=dashes, label=label, gid=f"{way}-{number}", **look)  # type: ignore[arg-type]
                first, last = f"{megabytes[0]:.1f} MB at {sizes[0]}", f"{megabytes[-1]:.1f} MB at {sizes[-1]}"
                facts.append(f"{name}, {words}: {first} captions, {last}")
        axes.set_title("MB held for the backward pass", loc="left")
        axes.set_xlabel("captions in a batch")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        number_ticks(axes.yaxis)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=2)
        return finish(figure, "Memory of a training step", f"Memory of a training step: {'; '.join(facts)}.")
