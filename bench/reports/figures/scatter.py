"""Hidden states as points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bench.reports.figures.canvas import GREEN, RED, Picture, finish, place, plain, sheet, style
from bench.reports.figures.source import NOTHING, image, paragraphs, traced

if TYPE_CHECKING:
    from bench.reports.reproduce import Drawing

Points = Sequence[Sequence[float]]
MODES = {
    "training": (RED, "o"),
    "inference": (GREEN, "^"),
}  # RecNet's figure 8 has red and green too; shapes tell as well


def hidden_states(drawing: Drawing) -> list[str]:
    """RecNet's figure 8: last decoder states in training and inference in two dimensions, a panel for each cell."""
    trace, lines = traced(drawing, "hidden_states")
    if trace is None or not trace.facts:
        return paragraphs(lines or [NOTHING])
    facts = trace.facts
    picture = panels(facts["points"])
    how = (
        f"t-SNE of the states at the end mark, {facts['count']} training clips with one caption each: read under teacher "
        f"forcing, and the model's own; no dropout. Perplexity {facts['perplexity']:g}, seed {facts['seed']}; axes have no unit."
    )
    return paragraphs([image(drawing, "hidden_states", picture), how, *lines])


def panels(points: Mapping[str, Mapping[str, Points]]) -> Picture:
    """One panel for each name with the points of both modes."""
    told = []
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
            told.append(f"{name}, {len(groups['training'])} and {len(groups['inference'])} points")
        figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=2, markerscale=1.6)
        return finish(figure, "Last hidden states", f"Last hidden states in training and inference: {'; '.join(told)}.")
