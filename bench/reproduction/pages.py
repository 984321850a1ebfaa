"""The pages of all targets that were asked for, from the declarations, `results/reproductions` and the records they name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.declare.registry import find_methods
from bench.declare.settings import given
from bench.figures.drawing import Drawing, Finished
from bench.home import Home, data_folder
from bench.pages.markdown import between_markers, bring_up_to_date, escape, link, table
from bench.records.store import cell_folder
from bench.reports.targets import Block, Line, Page, Section, render
from bench.reproduction import answers as asked
from bench.reproduction import ideas
from bench.reproduction.declaration import DeclaredCell, Part, Reproduction, find_reproductions

Put = Callable[[str, str], str]  # Drawing.write

INDEX = "README.md"
ORDER = ("printed", "small")  # sections in front, in this order; the others follow by name


def write(home: Home, check: bool = False) -> list[Path]:
    """Bring the pages of all targets that were asked for up to date; returns the files that changed, or would with `check`.

    Raises BenchError: a damaged file of what was asked for, a page that lost its markers.
    """
    names = asked.targets(home)
    if not names:
        return []
    known = find_reproductions(find_methods())
    texts: dict[Path, str] = {}
    made = [known[name] for name in names if name in known]
    for one in made:
        texts |= files_of(one, home)
    texts |= ideas.pages(home, pages_folder(home))
    texts[pages_folder(home) / INDEX] = between_markers(pages_folder(home) / INDEX, _index(made, home, texts))
    return bring_up_to_date(texts, check)


def pages_folder(home: Home) -> Path:
    return home.leaderboards / "reproductions"


def files_of(one: Reproduction, home: Home) -> dict[Path, str]:
    """The page of a target and its pictures."""
    pictures: dict[Path, str] = {}
    path = pages_folder(home) / f"{one.full}.md"

    def writer(inner: str) -> Put:
        def put(name: str, text: str) -> str:
            pictures[path.with_suffix("") / inner / name] = text
            return f"{one.name}/{inner}/{name}"

        return put

    sections = tuple(_sections(one, home, writer))
    page = Page(one.full, one.target.title, one.paper.paper, path, home.results, sections)
    return {path: between_markers(path, render(page)), **pictures}


def _sections(one: Reproduction, home: Home, writer: Callable[[str], Put]) -> Iterator[Section]:
    sections = asked.read(home, one.full).sections
    for name in sorted(sections, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)):
        section = sections[name]
        blocks = tuple(_block(one, part, section, home) for part in one.parts if part.table)
        drawings = tuple(drawings_of(one, name, section, home, writer))
        yield Section(section.dataset, section.protocol, section.small, _command(one, section), blocks, drawings)


def _command(one: Reproduction, section: asked.Section) -> str:
    words = ["bench reproduce", one.full]
    if section.small:
        return " ".join([*words, "scale=small"])
    if section.dataset is not None:
        shipped = (data_folder("datasets") / section.dataset / "dataset.yaml").is_file()
        words.append(f"dataset={section.dataset if shipped else 'FILE.yaml'}")
    if section.protocol != "paper":
        words.append(f"protocol={section.protocol}")
    return " ".join(words)


def _block(one: Reproduction, part: Part, section: asked.Section, home: Home) -> Block:
    """Every row of a printed table in its order, then the controls."""
    assert part.table is not None
    answers = {cell.prints[part.id]: cell for cell in part.cells if part.id in cell.prints}
    lines = []
    for number, row in enumerate(part.table.rows, start=1):
        cell = answers.get(number)
        lines.append(Line(row.system, row.metrics) if cell is None else _line(part, cell, section, home))
    lines += [_line(part, cell, section, home) for cell in part.cells if cell.control]
    table = part.table
    return Block(
        table.about, table.dataset, table.split, table.splits, table.scorer, tuple(lines), tuple(one.target.differs)
    )


def _line(part: Part, cell: DeclaredCell, section: asked.Section, home: Home) -> Line:
    row, place = part.row(cell), part.place(cell)
    return Line(
        system=row.system if row else "",
        printed=row.metrics if row else {},
        run=cell.label,
        control=cell.control,
        records=tuple(asked.records(home, section.cells, place)),
        asked=len(section.cells.get(place, [])),
        differs=tuple(cell.differs),
    )


def drawings_of(
    one: Reproduction, name: str, section: asked.Section, home: Home, writer: Callable[[str], Put]
) -> Iterator[tuple[str, Drawing]]:
    """The figures of the section called `name`: its target's, once for each part of a table."""
    for drawn in one.target.draw:
        for part in one.parts if drawn.figure else ():
            inner = f"{name}/{part.id}" if len(one.parts) > 1 else name
            folder = asked.folder(home) / one.full / inner
            yield str(drawn.figure), _drawing(one, part, drawn.arguments, folder, section, home, writer(inner))


def _drawing(
    one: Reproduction,
    part: Part,
    arguments: Mapping[str, Any],
    folder: Path,
    section: asked.Section,
    home: Home,
    put: Put,
) -> Drawing:
    cells: list[Finished] = []
    missing: list[str] = []
    printed: dict[str, Mapping[str, float]] = {}
    for cell in part.cells:
        done = [record for record in asked.records(home, section.cells, part.place(cell)) if record.state == "done"]
        cells += [
            Finished(
                cell.called, record.seed, record, cell_folder(home.results, record), cell.settings, given(cell.train)
            )
            for record in done
        ]
        missing += [] if done else [cell.called]
        row = part.row(cell)
        printed |= {cell.called: row.metrics} if row else {}
    subset = next((cell.record.config.get("subset") for cell in cells), None)
    return Drawing(
        target=one.full,
        dataset=section.dataset or part.dataset,
        split=cells[0].record.split if cells else part.split,
        subset=tuple(subset) if subset else None,
        cells=tuple(cells),
        missing=tuple(missing),
        arguments=arguments,
        data=folder,
        write=put,
        printed=printed,
    )


def _index(made: list[Reproduction], home: Home, texts: Mapping[Path, str]) -> str:
    head = ("target", "what", "made on")
    rows = []
    for one in made:
        sections = asked.read(home, one.full).sections.values()
        where = [section.dataset or "the paper's data" for section in sections]
        small = ["in small" if section.small else f"{section.protocol} protocol" for section in sections]
        made_on = ", ".join(f"{place} ({how})" for place, how in zip(where, small, strict=True))
        rows.append([link(one.full, f"{one.full}.md"), escape(one.target.title), escape(made_on)])
    if (pages_folder(home) / f"{ideas.NAME}.md") in texts:
        rows.insert(0, [link(ideas.NAME, f"{ideas.NAME}.md"), "each paper's idea against its own control", "ideas"])
    text = (
        "One page for each table and figure that was made again here; `bench reproduce list` shows what else there is."
    )
    return "\n\n".join(["# Reproductions", text, table(head, rows)])
