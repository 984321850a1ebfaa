"""What the figures of a paper read, traces beside the page and curves of the cells, and the parts of a page that they return."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.evaluation import metrics
from bench.pages.document import Code, Image, Paragraph, Part, Picture
from bench.records.curves import SELECTION, Row, finished_curves
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
    """What a figure gets: the done cells of one section in declared order (by seed within a cell).

    `missing` names the declared cells without a done record. `dataset` is that of the section (`shapes` for scale=small),
    `subset` as in the records (None: all clips). `data` is the folder of the trace's files, `pictures` that of the pictures,
    relative to the page. `printed` holds the paper's numbers in percent by the name of a cell and the metric, where a table
    prints them.
    """

    target: str
    dataset: str
    split: str
    subset: tuple[int, int, int] | None
    cells: tuple[Finished, ...]
    missing: tuple[str, ...]
    arguments: Mapping[str, Any]
    data: Path
    pictures: str
    printed: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


METRICS = {name: row.title for name, row in metrics.METRICS.items()}
VALIDATION = SELECTION
NOTHING = "No cell is finished: there is nothing to draw."


def image(drawing: Drawing, name: str, picture: Picture) -> Image:
    """A picture at its place beside the page."""
    return Image(picture, f"{drawing.pictures}/{name}.svg")


def by_name(cells: Iterable[Finished]) -> dict[str, list[Finished]]:
    """The cells of each name, in declared order, by seed within a name."""
    named: dict[str, list[Finished]] = {}
    for cell in cells:
        named.setdefault(cell.name, []).append(cell)
    return named


def traced(drawing: Drawing, figure: str) -> tuple[Trace | None, list[Part]]:
    """The trace that a figure draws, and in words what it lacks."""
    again = Code(f"bench reproduce {drawing.target}")
    way = ", asked as for this section, leaves them where the cells' checkpoints lie."
    trace = read_trace(drawing.data, figure)
    if trace is None:
        return None, [Paragraph(("There are no traces to draw: ", again, way))]
    keys = {name: cells[0].record.key for name, cells in by_name(drawing.cells).items()}
    wanted = asked(drawing.arguments, drawing.dataset, drawing.split, drawing.subset)
    if (trace.cells, trace.arguments) != (keys, wanted):
        return None, [Paragraph(("The traces beside this page are those of other cells or clips: ", again, way))]
    return trace, [Paragraph(f"{name}: {why}") for name, why in trace.lacking.items()]


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
    return by_epoch(finished_curves(folder))


def by_epoch(rows: Iterable[Row]) -> list[Epoch]:
    """Rows of curves, those of an epoch together."""
    found: dict[tuple[str, int], Epoch] = {}
    for row in rows:
        place = row["phase"], row["epoch"]
        epoch = found.get(place, Epoch(row["phase"], row["captions"], {}))
        found[place] = Epoch(epoch.phase, epoch.captions, {**epoch.values, row["name"]: row["value"]})
    return list(found.values())


def thousands(value: float, _: object = None) -> str:
    """12000 as `12k`, for axes of captions."""
    return f"{value / 1000:g}k" if value else "0"
