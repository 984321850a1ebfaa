"""What of a paper can be made again: `methods/<name>/reproduce.yaml`, one target for each of its tables and data figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from bench import BenchError
from bench.declare.card import PLAIN_LOSS, MethodCard
from bench.declare.losses import provider
from bench.declare.registry import MethodEntry, method_entry, read_model, variants
from bench.declare.settings import Search, Strict, Text, Train, given
from bench.errors import unknown
from bench.home import data_folder
from bench.reports.published import Paper, Row, Table, load_papers

FILE = "reproduce.yaml"
EVERYTHING = "all"


class Habit(Strict):
    """Settings that a paper prints for one data set or one row alone; the card of the method speaks of all of them."""

    text: Text = Text()
    train: Train = Train()
    search: Search = Search()
    settings: dict[str, Any] = Field(default_factory=dict)


class DeclaredCell(Strict):
    """What is run for a row of a table or a part of a figure, but for data set and seeds.

    `run` is method:variant with `settings` of that method, `loss` and `train` changed. `prints` names the rows of the
    printed tables that it answers, counted from 1, and `system` what stands there. A `control` is no row of the paper, but
    one beside which its claim is to be read: the text says why. `printed` is what the paper prints for this row where the card
    of the method, which may be of another paper, has something else. `differs` are reasons not to compare, beside those that
    the records show themselves.
    """

    run: str = Field(pattern=r"^[a-z0-9_]+:[a-z0-9_]+$")
    name: str | None = None
    system: str | None = None
    prints: dict[str, int] = Field(default_factory=dict)
    control: str | None = None
    loss: str = PLAIN_LOSS
    settings: dict[str, Any] = Field(default_factory=dict)
    train: Train = Train()
    printed: Habit = Habit()
    differs: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _is_called_something(self) -> DeclaredCell:
        if not (self.name or self.system or self.control):
            raise ValueError("needs a system (as the table prints it), a control (why it stands there) or a name")
        if bool(self.system) != bool(self.prints):
            raise ValueError("has a system without the rows that it prints, or rows without their system")
        return self

    @property
    def method(self) -> str:
        return self.run.partition(":")[0]

    @property
    def label(self) -> str:
        """What is run, in words: `hail:ha_il lambda=0.3 gamma=1`."""
        changed = {**({"loss": self.loss} if self.loss != PLAIN_LOSS else {}), **self.settings, **given(self.train)}
        return " ".join([self.run, *(f"{name}={value}" for name, value in changed.items())])

    @property
    def called(self) -> str:
        """The name by which a figure knows it."""
        return self.name or (self.label if self.control else self.system) or self.label


class Drawn(Strict):
    """One thing on the page: the printed table of this number with ours beside it, or a figure."""

    table: str | None = None
    figure: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_thing(self) -> Drawn:
        if bool(self.table) == bool(self.figure):
            raise ValueError("must name a table or a figure, and one thing only")
        return self


class Target(Strict):
    """One table or figure. Data set and split of a table are those of the printed one; a figure says its own."""

    title: str
    dataset: str | None = None
    split: str = "test"
    cells: list[DeclaredCell] = Field(default_factory=list)
    draw: list[Drawn] = Field(min_length=1)
    differs: list[str] = Field(default_factory=list)

    @property
    def table(self) -> str | None:
        return next((drawn.table for drawn in self.draw if drawn.table), None)

    @model_validator(mode="after")
    def _whole(self) -> Target:
        if (self.table is None) == (self.dataset is None):
            raise ValueError(
                "needs a dataset where it draws no table, and none where it does: the printed table says it"
            )
        names = [cell.called for cell in self.cells]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"has more than one cell called {', '.join(twice)}: give them names")
        return self


class Declarations(Strict):
    """One `reproduce.yaml`: the targets of a paper by name, and its habits by data set."""

    paper: str
    habits: dict[str, Habit] = Field(default_factory=dict)
    targets: dict[str, Target] = Field(min_length=1)


@dataclass(frozen=True)
class Part:
    """A target on one data set: a figure, or the part of a printed table that speaks of it (`table7_msvd`).

    `splits` is the split rule of the data set that gives the paper's lists.
    """

    id: str
    dataset: str
    split: str
    splits: str
    habit: Habit
    cells: tuple[DeclaredCell, ...]
    table: Table | None = None

    def row(self, cell: DeclaredCell) -> Row | None:
        """The printed row that `cell` answers; None for a control or a figure."""
        number = cell.prints.get(self.id)
        return self.table.rows[number - 1] if self.table and number else None

    def place(self, cell: DeclaredCell) -> str:
        """What a cell is called within its target, the same however the declaration is ordered."""
        number = cell.prints.get(self.id)
        name = f"row {number}" if number else cell.called
        return f"{self.id}: {name}" if self.id else name


@dataclass(frozen=True)
class Reproduction:
    """One target of one paper: `recnet/table7`."""

    paper: Paper
    name: str
    target: Target
    parts: tuple[Part, ...]

    @property
    def full(self) -> str:
        return f"{self.paper.paper.name}/{self.name}"

    def cells(self) -> Iterator[tuple[Part, DeclaredCell]]:
        """Every cell with its part, in order."""
        for part in self.parts:
            for cell in part.cells:
                yield part, cell


def find_reproductions(entries: dict[str, MethodEntry]) -> dict[str, Reproduction]:
    """Every target of every method that has a `reproduce.yaml`, by full name.

    Raises BenchError for a file that is not sound or speaks of tables and rows that were not printed.
    """
    papers = {paper.paper.name: paper for paper in load_papers(data_folder("published"))}
    found: dict[str, Reproduction] = {}
    for entry in entries.values():
        if entry.folder is None or not (entry.folder / FILE).is_file():
            continue
        path = entry.folder / FILE
        declared = read_model(path, Declarations)
        if declared.paper not in papers:
            raise unknown("paper", declared.paper, papers, str(path))
        for name, target in declared.targets.items():
            paper = papers[declared.paper]
            parts = tuple(_parts(path, paper, name, target, declared))
            found[f"{declared.paper}/{name}"] = Reproduction(paper, name, target, parts)
    return found


def _parts(path: Path, paper: Paper, name: str, target: Target, declared: Declarations) -> Iterator[Part]:
    where, habits = f"{path}: targets.{name}", declared.habits
    if target.table is None:
        assert target.dataset is not None
        place = target.dataset
        # A figure says nothing of its lists: those of the paper's tables on the same data set.
        splits = next((table.splits for table in paper.tables if table.dataset == place), "default")
        yield Part("", place, target.split, splits, habits.get(place, Habit()), tuple(target.cells))
        return
    tables = {table.id: table for table in paper.tables if table.printed == target.table}
    if not tables:
        raise unknown("table", target.table, dict.fromkeys(table.printed for table in paper.tables), where)
    for cell in target.cells:
        for part, number in cell.prints.items():
            _check_row(f"{where}: {cell.run}", cell, part, number, tables)
    for part, table in tables.items():
        answers = tuple(cell for cell in target.cells if part in cell.prints or cell.control)
        habit = habits.get(table.dataset, Habit())
        yield Part(part, table.dataset, table.split, table.splits, habit, answers, table)


def _check_row(where: str, cell: DeclaredCell, part: str, number: int, tables: Mapping[str, Table]) -> None:
    if part not in tables:
        raise unknown("part of the table", part, tables, where)
    rows = tables[part].rows
    if not 1 <= number <= len(rows):
        raise BenchError(f"{where}: {part} has {len(rows)} rows, and none with number {number}")
    row = rows[number - 1]
    if row.system != cell.system or not row.own:
        kind = "" if row.own else ", which the authors did not run"
        raise BenchError(f"{where}: row {number} of {part} is {row.system!r}{kind}, not {cell.system!r}")


def chosen(word: str, found: Mapping[str, Reproduction]) -> list[Reproduction]:
    """The targets that `recnet/table7`, `recnet` or `all` names. Raises BenchError with what was probably meant."""
    if word == EVERYTHING:
        return list(found.values())
    if word in found:
        return [found[word]]
    papers = list(dict.fromkeys(name.partition("/")[0] for name in found))
    paper, slash, _ = word.partition("/")
    if paper in papers:
        if not slash:
            return [one for name, one in found.items() if name.startswith(f"{paper}/")]
        raise unknown("target", word, [name for name in found if name.startswith(f"{paper}/")])
    if slash:
        raise unknown("target", word, found)
    raise unknown("target", word, [EVERYTHING, *papers, "PAPER/TARGET (see bench reproduce list)"])


def trouble(cell: DeclaredCell, entries: dict[str, MethodEntry]) -> str | None:
    """The sentence that says what the card of a declared cell's method lacks, or None."""
    try:
        card, variant = _variant(cell, entries)
        defaults = {name: setting.default for name, setting in card.settings.items()}
        own = card.variants[variant].settings | card.checked(cell.settings, card.name)
        for printed in ({}, card.protocol_paper.settings if card.protocol_paper else {}):
            card.refuse_impossible(defaults | printed | own, variant)
        if cell.loss != PLAIN_LOSS:
            provider(cell.loss, entries)
    except BenchError as error:
        return str(error)
    return None


def _variant(cell: DeclaredCell, entries: dict[str, MethodEntry]) -> tuple[MethodCard, str]:
    method_entry(cell.method, entries)
    return variants(cell.run, entries)[0]
