"""What the figures read: traces beside the page, curves of the cells, and the way of a picture onto the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.evaluation import metrics
from bench.pages.document import Picture
from bench.pages.markdown import escape
from bench.records.curves import SELECTION, finished_curves
from bench.records.figure_data import Trace, asked, read_trace
from bench.records.schema import Record


@dataclass(frozen=True)
class Finished:
    """One cell that is done: its name in the declaration, its seed, its record and the folder that holds it.

    `settings` and `train` are what the declaration changes (`{"lambda": 0.1}`, `{"data_fraction": 0.5}`).
    """

    name: str
    seed: int
    record: Record
    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawing:
    """What a figure gets: the done cells of one section in declared order (by seed within a cell), and where to put pictures.

    `missing` names the declared cells without a done record. `dataset` is that of the section (`shapes` for scale=small),
    `subset` as in the records (None: all clips). `data` is the folder of the trace's files. `printed` holds the paper's
    numbers in percent by the name of a cell and the metric, where a table prints them.
    """

    target: str
    dataset: str
    split: str
    subset: tuple[int, int, int] | None
    cells: tuple[Finished, ...]
    missing: tuple[str, ...]
    arguments: Mapping[str, Any]
    data: Path
    write: Callable[[str, str], str]
    printed: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


METRICS = {name: row.title for name, row in metrics.METRICS.items()}
VALIDATION = SELECTION
NOTHING = "No cell is finished: there is nothing to draw."


def image(drawing: Drawing, name: str, picture: Picture) -> str:
    """The line of Markdown that shows a picture."""
    return f"![{escape(picture.alt)}]({drawing.write(f'{name}.svg', picture.svg)})"


def paragraphs(parts: Iterable[str]) -> list[str]:
    """Lines of Markdown with an empty one between any two of them."""
    return [line for part in parts for line in (part, "")][:-1]


def by_name(cells: Iterable[Finished]) -> dict[str, list[Finished]]:
    """The cells of each name, in declared order, by seed within a name."""
    named: dict[str, list[Finished]] = {}
    for cell in cells:
        named.setdefault(cell.name, []).append(cell)
    return named


def traced(drawing: Drawing, figure: str) -> tuple[Trace | None, list[str]]:
    """The trace that a figure draws, and what is to be said of what it lacks."""
    again = (
        f"`bench reproduce {drawing.target}`, asked as for this section, leaves them where the cells' checkpoints lie."
    )
    trace = read_trace(drawing.data, figure)
    if trace is None:
        return None, [f"There are no traces to draw: {again}"]
    keys = {name: cells[0].record.key for name, cells in by_name(drawing.cells).items()}
    wanted = asked(drawing.arguments, drawing.dataset, drawing.split, drawing.subset)
    if (trace.cells, trace.arguments) != (keys, wanted):
        return None, [f"The traces beside this page are those of other cells or clips: {again}"]
    return trace, [f"{escape(name)}: {escape(why)}" for name, why in trace.lacking.items()]


def scores(seeds: Iterable[Finished], metric: str) -> tuple[float, ...]:
    """A metric of all seeds of a cell that were scored by it, on the papers' scale."""
    of_split = [cell.record.scores[cell.record.split] for cell in seeds]
    return tuple(own[metric] for own in of_split if metric in own)


@dataclass(frozen=True)
class Epoch:
    """One row of the training curves: its phase, captions read so far, and the values by name."""

    phase: str
    captions: int
    values: Mapping[str, float]


def epochs(folder: Path) -> list[Epoch]:
    """The training curves of a cell, in order. Raises BenchError for a file that is not one of curves."""
    found: dict[tuple[str, int], Epoch] = {}
    for row in finished_curves(folder):
        place = row["phase"], row["epoch"]
        epoch = found.get(place, Epoch(row["phase"], row["captions"], {}))
        found[place] = Epoch(epoch.phase, epoch.captions, {**epoch.values, row["name"]: row["value"]})
    return list(found.values())


def thousands(value: float, _: object = None) -> str:
    """12000 as `12k`, for axes of captions."""
    return f"{value / 1000:g}k" if value else "0"
