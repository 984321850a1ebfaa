"""The numbers that the papers print: `results/published/<paper>.yaml`, one file per paper, every table of it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from bench import BenchError
from bench.declare.grammar import read_yaml
from bench.declare.registry import find_datasets
from bench.home import data_folder
from bench.records.schema import check_score, reasons

Scorer = Literal["coco", "densevid"]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Row(Part):
    """One system in one table. `variant` holds the settings that tell it from its neighbours, `variant_name` the
    variant of this project whose printed result it is (trained by the borrowed `loss`, where there is one), `ref` the
    citation the paper gives for it. `base` is the row of the same table, counted from 1, that the paper holds it against: the
    same system without the idea, or in a grid the setting that the paper chooses. `setting` names what `bench reproduce`
    runs with the paper's setting of the system, where the method's card has that of another paper."""

    system: str
    own: bool
    role: Literal["proposed", "baseline_rerun", "cited"]
    method: str | None
    variant_name: str | None = None
    loss: str | None = None
    base: int | None = None
    variant: dict[str, Any]
    metrics: dict[str, float]
    ref: str | None = None
    note: str | None = None
    setting: str | None = None

    @field_validator("metrics")
    @classmethod
    def _percent(cls, metrics: dict[str, float]) -> dict[str, float]:
        for name, value in metrics.items():
            check_score(name, value, f"metrics.{name}")
            if 0 < value < 1:  # no captioner worth printing scores under one percent: this is a fraction
                raise ValueError(f"metrics.{name} is {value:g}, which looks like the scale 0..1; write percent")
        return metrics

    @model_validator(mode="after")
    def _named(self) -> Row:
        if self.variant_name is not None and not self.variant_name.startswith(f"{self.method}:"):
            raise ValueError(f"variant_name {self.variant_name!r} is no variant of method {self.method!r}")
        return self

    @property
    def data_fraction(self) -> float:
        """The part of the training clips that it was trained on."""
        return float(self.variant.get("data_fraction", 1.0))


class Table(Part):
    """One printed table, or the part of it that is of one data set (`printed_in` then names the whole).

    `splits` is the split rule of the data set's definition that gives the paper's lists, `scorer` by whose rules the
    numbers were made: those of coco-caption over clips, or of densevid_eval over events.
    """

    id: str
    printed_in: str | None = None
    about: str
    dataset: str
    dataset_inferred: bool = False
    split: str
    splits: str = "default"
    scorer: Scorer = "coco"
    rows: tuple[Row, ...]

    @property
    def printed(self) -> str:
        return self.printed_in or self.id

    @model_validator(mode="after")
    def _bases(self) -> Table:
        for number, row in enumerate(self.rows, start=1):
            if row.base is not None and (not 1 <= row.base <= len(self.rows) or row.base == number):
                raise ValueError(
                    f"row {number} of {self.id} has the base {row.base}, which is no other row of the table"
                )
        return self

    def base_of(self, row: Row) -> Row | None:
        """The row that the paper holds `row` against."""
        return None if row.base is None else self.rows[row.base - 1]


class Source(Part):
    """The paper itself."""

    name: str
    title: str
    authors: tuple[str, ...]
    year: int
    venue: str
    arxiv: str | None


class Paper(Part):
    """One file of `results/published`."""

    paper: Source
    tables: tuple[Table, ...]

    @model_validator(mode="after")
    def _distinct(self) -> Paper:
        ids = [table.id for table in self.tables]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"tables with the same id: {', '.join(twice)}")
        return self


@dataclass(frozen=True)
class Published:
    """A printed result with its citation: the paper, the table as printed, and where it holds."""

    paper: Source
    table: Table
    row: Row

    @property
    def citation(self) -> str:
        return f"{self.paper.name} {self.table.printed}"


def load_papers(folder: Path | None = None) -> tuple[Paper, ...]:
    """All papers, by file name. `folder` defaults to the one that comes with the package.

    Raises BenchError with the file and the field: unknown fields, scores out of range or on the scale 0..1.
    """
    return _load(folder or data_folder("published"))


@functools.cache
def _load(folder: Path) -> tuple[Paper, ...]:
    return tuple(load_paper(path) for path in sorted(folder.glob("*.yaml")))


def load_paper(path: Path) -> Paper:
    """Read and check one file. Raises BenchError."""
    try:
        return Paper.model_validate(read_yaml(path))
    except ValidationError as error:
        raise BenchError(f"{path}: {reasons(error)}.") from error


def published_value(
    method: str,
    variant: str | None,
    dataset: str,
    split: str,
    folder: Path | None = None,
    *,
    loss: str | None = None,
    data_fraction: float = 1.0,
    scorer: Scorer = "coco",
    splits: str | None = None,
) -> Published | None:
    """The printed result of one variant on one data set and split; None where no paper prints it.

    `loss` is the borrowed loss that it was trained by, `data_fraction` the part of the training clips, `scorer` by whose
    rules it was scored; a table of the split rule `splits` comes before one of other lists.

    Where several tables print it, the paper that proposes it comes first, then one that states its features, then the earlier.
    """
    name = f"{method}:{variant}"
    found = [
        Published(paper.paper, table, row)
        for paper in load_papers(folder)
        for table in paper.tables
        for row in table.rows
        if (table.dataset, table.split, table.scorer) == (dataset, split, scorer)
        and (row.variant_name, row.loss, row.data_fraction) == (name, loss, data_fraction)
        and row.metrics
    ]

    def place(item: Published) -> tuple[bool, bool, bool]:
        other_lists = splits not in (None, item.table.splits)
        return other_lists, item.row.role != "proposed", not item.row.variant.get("features")

    return min(found, key=place, default=None)


def family(dataset: str) -> str | None:
    """The published data set that `dataset` is, or is cut from, as its definition declares it."""
    return _families(data_folder("datasets")).get(dataset)


@functools.cache
def _families(folder: Path) -> dict[str, str]:
    definitions = [entry.definition for entry in find_datasets(folder).values() if entry.definition]
    printed = {table.dataset for paper in load_papers() for table in paper.tables}
    return {one.name: one.cut_from or one.name for one in definitions if (one.cut_from or one.name) in printed}
