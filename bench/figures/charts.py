"""Charts: scores as bars, last hidden states as points, and words: how unequal they are, and which ones a clip calls for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bench.figures.canvas import BLUE, GREEN, INK, ORANGE, QUIET, RED, cells, finish, place, plain, sheet, short, style
from bench.figures.drawing import METRICS, NOTHING, Drawing, by_name, image, scores, traced
from bench.figures.strips import Frame, filmed, of_clips, strip
from bench.pages.document import Paragraph, Part, Picture
from bench.records.figure_data import Shown

ROW = 0.3  # inches
LONGEST = 40  # characters of a name


def bars(drawing: Drawing) -> list[Part]:
    """One picture for each metric: our cells, and beside them the printed scores of the same rows, on an axis of their own."""
    parts: list[Part] = []
    for metric in drawing.arguments.get("metrics", ["cider"]):
        ours = {name: found for name, seeds in by_name(drawing.cells).items() if (found := scores(seeds, metric))}
        printed = {name: drawing.printed[name][metric] for name in ours if metric in drawing.printed.get(name, {})}
        if ours:
            where = f"{drawing.dataset}, {drawing.split}"
            parts.append(image(drawing, f"bars_{metric}", bar_chart(ours, printed, METRICS.get(metric, metric), where)))
    return parts or [Paragraph("No cell has scores: there are no bars to draw.")]


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
        facts = [f"{name} {mean:.1f}" for name, mean in zip(ours, means, strict=True)]
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
            facts += [f"{name} as printed {value:.1f}" for name, value in printed.items()]
        return finish(figure, f"{score} of {len(ours)} systems", f"{score} on {where} as bars: {', '.join(facts)}.")


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


Points = Sequence[Sequence[float]]
MODES = {
    "training": (RED, "o"),
    "inference": (GREEN, "^"),
}  # RecNet's figure 8 has red and green too; shapes tell as well


def hidden_states(drawing: Drawing) -> list[Part]:
    """RecNet's figure 8: last decoder states in training and inference in two dimensions, a panel for each cell."""
    trace, lines = traced(drawing, "hidden_states")
    if trace is None or not trace.facts:
        return lines or [Paragraph(NOTHING)]
    facts = trace.facts
    picture = panels(facts["points"])
    how = (
        f"t-SNE of the states at the end mark, {facts['count']} training clips with one caption each: read under teacher "
        f"forcing, and the model's own; no dropout. Perplexity {facts['perplexity']:g}, seed {facts['seed']}; axes have no unit."
    )
    return [image(drawing, "hidden_states", picture), Paragraph(how), *lines]


def panels(points: Mapping[str, Mapping[str, Points]]) -> Picture:
    """One panel for each name with the points of both modes."""
    facts = []
    with style():
        side = min(8.2 / len(points) - 0.3, 3.9)
        figure = sheet(side + 0.85)
        for number, (name, groups) in enumerate(points.items()):
            axes = place(figure, 0.2 + number * (side + 0.3), 0.35, side, side)
            for mode, (colour, marker) in MODES.items():
                x, y = np.array(groups[mode]).T
                axes.plot(
                    x,
                    y,
                    linestyle="none",
                    marker=marker,
                    markersize=4,
                    markeredgewidth=0,
                    color=colour,
                    alpha=0.6,
                    label=mode,
                    gid=f"{mode}-{number}",
                )
            axes.set_title(plain(name), loc="left")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(True)
            facts.append(f"{name}, {len(groups['training'])} and {len(groups['inference'])} points")
        figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=2, markerscale=1.6)
        return finish(
            figure, "Last hidden states", f"Last hidden states in training and inference: {'; '.join(facts)}."
        )


RANGES = {
    "words": ("words (long range)", BLUE),
    "actions": ("actions (short range)", RED),
    "objects": ("objects (key frame)", GREEN),
}
WORD = 14  # characters of a label


def word_frequency(drawing: Drawing) -> list[Part]:
    """HAIL's figure 1a: a few words are most of the tokens, and stand in most of the clips."""
    trace, lines = traced(drawing, "word_frequency")
    if trace is None or not trace.facts:
        return lines
    facts = trace.facts
    return [image(drawing, "word_frequency", frequency(facts["tokens"], facts["common"], facts["clips"]))]


def frequency(tokens: Sequence[int], common: Sequence[tuple[str, int]], clips: int) -> Picture:
    """`tokens` are the counts of all words in falling order; `common` the words in most clips, of `clips` clips."""
    counts = np.array(tokens)
    share = np.concatenate([[0.0], np.cumsum(counts) / counts.sum() * 100])
    vocabulary = np.arange(len(share)) / len(counts) * 100
    mark = float(np.interp(5, vocabulary, share))
    with style():
        height = max(2.6, 0.2 * len(common))
        figure = sheet(height + 0.95)
        axes = place(figure, 0.65, 0.35, 3.4, height)
        axes.plot(vocabulary, share, color=BLUE, linewidth=2, gid="share")
        axes.plot([0, 5, 5], [mark, mark, 0], color=QUIET, linestyle="--", linewidth=1)
        axes.annotate(
            f"the top 5 % of words\nhold {mark:.0f} % of tokens",
            (5, mark),
            (14, mark * 0.72),
            arrowprops={"arrowstyle": "-"},
        )
        axes.set(xlim=(0, 100), ylim=(0, 102), xlabel="share of the vocabulary, %", ylabel="share of the tokens, %")
        axes.set_title(plain(f"{len(counts):,} words, {int(counts.sum()):,} tokens"), loc="left")
        bars = place(figure, 5.15, 0.35, 2.75, height)
        for row, (_, count) in enumerate(common):
            (bar,) = bars.barh(row, 100 * count / clips, 0.7, color=BLUE)
            bar.set_gid(f"word-{row}")
            bars.text(100 * count / clips + 2, row, f"{100 * count / clips:.0f}", va="center", fontsize=8)
        bars.set_yticks(range(len(common)), [short(word, WORD) for word, _ in common])
        bars.set_ylim(len(common) - 0.5, -0.5)
        bars.set(xlim=(0, 112), xlabel=f"share of the {clips:,} training clips, %")
        bars.tick_params(left=False)
        bars.set_title("clips whose captions have the word", loc="left")
        facts = ", ".join(f"“{word}” in {100 * count / clips:.0f} %" for word, count in common[:3])
        alt = f"The most frequent 5 % of {len(counts):,} words hold {mark:.0f} % of the training tokens; of the clips, {facts}."
        return finish(figure, "Word distribution", alt)


def top_words(drawing: Drawing) -> list[Part]:
    """GL-RG: the most probable words, actions and objects of a clip."""

    def draw(clip: Shown, name: str, shown: Mapping[str, Any], note: str) -> Picture | None:
        if not shown.get("scores"):
            return None
        return probabilities(f"{name}, {clip.clip}", filmed(clip), clip.reference, shown["scores"], note)

    nothing = "The last cell of this target has no probabilities of words, actions or objects."
    return of_clips(drawing, "top_words", draw, nothing)


def probabilities(
    title: str,
    frames: Sequence[Frame],
    reference: str,
    scores: Mapping[str, Sequence[tuple[str, float]]],
    note: str = "",
) -> Picture:
    """A panel for each range with its most probable entries, under the clip's frames and one reference."""
    most = max(len(entries) for entries in scores.values())
    facts = []
    with style():
        figure, top = strip(title, frames, [("reference", reference)], note, extra=0.24 * most + 0.75)
        for number, kind in enumerate(kind for kind in RANGES if kind in scores):
            (name, colour), entries = RANGES[kind], scores[kind]
            axes = place(figure, 1.25 + 2.75 * number, top + 0.35, 1.4, 0.24 * most)
            for row, (_, value) in enumerate(entries):
                (bar,) = axes.barh(row, value, 0.7, color=colour)
                bar.set_gid(f"{kind}-{row}")
            axes.set_yticks(range(len(entries)), [short(label, WORD) for label, _ in entries])
            axes.set_ylim(most - 0.5, -0.5)
            axes.set_xlim(0, max(value for _, value in entries) * 1.08)
            axes.tick_params(left=False)
            axes.xaxis.set_major_locator(MaxNLocator(2))
            axes.set_title(name, loc="left")
            facts.append(f"{name}: " + ", ".join(f"{label} {value:.2f}" for label, value in entries[:3]))
        return finish(figure, title, f"{title}. Most probable {'; '.join(facts)}. Reference: “{reference}”. {note}")
