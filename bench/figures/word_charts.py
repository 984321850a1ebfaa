"""Words: how unequal they are in a corpus, and which ones a clip calls for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator

from bench.figures.canvas import BLUE, GREEN, QUIET, RED, finish, place, plain, sheet, short, style
from bench.figures.drawing import Drawing, image, traced
from bench.figures.strips import Frame, filmed, of_clips, strip
from bench.pages.document import Part, Picture
from bench.records.figure_data import Shown

RANGES = {
    "words": ("words (long range)", BLUE),
    "actions": ("actions (short range)", RED),
    "objects": ("objects (key frame)", GREEN),
}
LONGEST = 14  # characters of a label


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
        bars.set_yticks(range(len(common)), [short(word, LONGEST) for word, _ in common])
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
            axes.set_yticks(range(len(entries)), [short(label, LONGEST) for label, _ in entries])
            axes.set_ylim(most - 0.5, -0.5)
            axes.set_xlim(0, max(value for _, value in entries) * 1.08)
            axes.tick_params(left=False)
            axes.xaxis.set_major_locator(MaxNLocator(2))
            axes.set_title(name, loc="left")
            facts.append(f"{name}: " + ", ".join(f"{label} {value:.2f}" for label, value in entries[:3]))
        return finish(figure, title, f"{title}. Most probable {'; '.join(facts)}. Reference: “{reference}”. {note}")
