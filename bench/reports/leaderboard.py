"""Leaderboards: `leaderboards/<dataset>.md` and its HTML twin, a function of the records and the published numbers alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import BenchError
from bench.declare.registry import find_datasets
from bench.home import Home
from bench.pages.document import (
    Bullets,
    Code,
    Column,
    Document,
    Field,
    Folded,
    Heading,
    Line,
    Link,
    Paragraph,
    Part,
    Table,
    amount,
)
from bench.pages.files import has_markers, pictures_of, read_page, write_pages
from bench.pages.html import INDEX as HOME_PAGE
from bench.pages.html import README as INDEX
from bench.records.store import BadRecord, all_records, record_paths
from bench.reports.blocks import Block, blocks, distinctions
from bench.reports.clips import check as check_records
from bench.reports.intervals import of_tables
from bench.reports.published_page import PUBLISHED
from bench.reports.published_page import document as printed_results
from bench.reports.reproduced import study_given_up
from bench.reports.sections import EFFECTS, STUDIES, Setting, section
from bench.reports.study import Claim, claims, pairs

PAGES = (INDEX, HOME_PAGE, PUBLISHED, EFFECTS)  # pages that are no data set's
FOLDERS = {"reproductions": "Tables and figures of the papers, made again", "tuning": "Searches of settings"}
"""Pages of other commands, beside these; their files below `results` have the same names."""

SHORT = (
    "Higher is better. Scores are in percent (CIDEr-D x 100): mean ± standard deviation (n) over seeds. Only rows of one table "
    "may be compared. Rows with one number under “tied” cannot be told apart from the best of them on these clips."
)
HOW_TO_READ: tuple[Line, ...] = (
    "Only rows of one table may be compared: they share protocol, split, clips, streams and metric signatures, and under the "
    "standard protocol text, search and epochs as well.",
    "± is the standard deviation over the seeds of a row, with n - 1 in it; a single seed has none. What tuning adds to the "
    "variance is not in it.",
    "The 95 % interval is over the choice of clips: the clips of the split are drawn again 10,000 times and the score is "
    "computed anew (CIDEr with the document frequencies of the whole set). What other seeds would have given is not in it.",
    "tied: every two ranked rows are compared by approximate randomisation over the clips, corrected by Holm for all pairs of "
    "the table. Group 1 holds what cannot be told from the best row at 5 %, group 2 the same of the rest.",
    "A row is ranked once every seed it was run with has scores; a failed or unscored cell leaves the row without mean and rank, "
    "and its scores are listed one by one. The mean rank is over the metrics of the table, among ranked rows that have them all.",
    "Captions are those that a cell read or sampled in training. Rows marked external hold captions made elsewhere and are never "
    "ranked.",
)


def write(
    home: Home,
    dataset: str | None = None,
    check: bool = False,
    bad: list[BadRecord] | None = None,
    given_up: Mapping[str, str] | None = None,
) -> list[Path]:
    """Bring the pages up to date (of one data set, the printed results and the index) and return the files that changed.

    With `check` nothing is written, and what would change is returned. Records that are refused are named on the page
    and appended to `bad`. `given_up` names the study of records (`dataset/method/key`) that are no longer to answer anything.
    Raises BenchError: a data set without records or page, a page that lost its markers.
    """
    refused: list[BadRecord] = []
    records, clips = check_records(all_records(home.results, bad=refused), home, refused)
    if bad is not None:
        bad += refused
    names = _datasets(home)
    if dataset is not None and dataset not in names:
        known = ", ".join(names) or "none"
        raise BenchError(
            f"no records of data set {dataset!r} under {home.results}; there are records of: {known}. "
            f"Run bench run dataset={dataset} methods=[...] first."
        )
    if reserved := sorted(set(names) & set(PAGES)):
        raise BenchError(f"a data set cannot be called {reserved[0]}, as a page of its own is: give it another name")
    tables = {name: blocks([record for record in records if record.dataset == name]) for name in names}
    bad_by_name = {name: [item for item in refused if _dataset_of(item.path) == name] for name in names}
    declared = claims()
    pages = {
        name: _page(
            name, tables[name], declared, bad_by_name[name], Setting(home, clips, pictures_of(name), given_up or {})
        )
        for name in names
        if dataset in (None, name)
    }
    pages[PUBLISHED] = _printed(tables, given_up or {})
    pages[INDEX] = _index(tables, bad_by_name, home)
    return write_pages(pages, home.leaderboards, check)


def _dataset_of(path: Path) -> str:
    return path.parents[2].name


def _datasets(home: Home) -> list[str]:
    """Data sets with records, sound or not, and those whose page stands although their records are gone."""
    names = {_dataset_of(path) for path in record_paths(home.results)}
    for page in home.leaderboards.glob("*.md"):
        if page.stem not in PAGES and has_markers(read_page(page)):
            names.add(page.stem)
    return sorted(names)


def _page(
    name: str,
    tables: Sequence[Block],
    declared: Sequence[Claim],
    refused: Sequence[BadRecord],
    setting: Setting,
) -> Document:
    """One data set's page."""
    home = setting.home
    parts: list[Part] = [Paragraph(SHORT), *_remark(name), Folded("How to read the tables", (Bullets(HOW_TO_READ),))]
    if (home.results / "tuning" / name).is_dir():
        parts.append(
            Paragraph(
                ("How scores answer to lambda, gamma or beta: ", Link("searches", f"tuning/{name}", page=True), ".")
            )
        )
    if not tables:
        parts.append(Paragraph("There are no records of this data set."))
    asked = [
        [pair for pair in pairs(block.rows, declared) if not block.sweeps.intersection(pair[:2])] for block in tables
    ]
    chances = of_tables(tables, setting.clips, asked)
    for number, (block, chance, apart) in enumerate(zip(tables, chances, distinctions(tables), strict=True), start=1):
        parts += section(number, block, chance, name, setting, apart)
    if refused:
        lines: list[Line] = [
            (Code(_relative(item.path, home)), f": {_from_home(item.reason, home)}") for item in refused
        ]
        parts += [
            Heading(2, "Refused records"),
            Paragraph("These files are no sound records and stand in no table."),
            Bullets(tuple(lines)),
        ]
    return Document(f"Leaderboard: {name}", tuple(parts))


def _remark(name: str) -> list[Part]:
    """What the definition of a shipped data set says of its clips."""
    entry = find_datasets().get(name)
    return [Paragraph(entry.definition.remark)] if entry and entry.definition and entry.definition.remark else []


def _relative(path: Path, home: Home) -> str:
    return Path(os.path.relpath(path, home.root)).as_posix()


def _from_home(text: str, home: Home) -> str:
    """`text` with its paths from the home on: pages are the same on every machine."""
    return text.replace(f"{home.root}/", "")


def _printed(tables: Mapping[str, Sequence[Block]], given_up: Mapping[str, str]) -> Document:
    rows = [row for found in tables.values() for block in found for row in block.rows]
    return printed_results([row for row in rows if study_given_up(row, given_up) is None])


def _index(tables: Mapping[str, Sequence[Block]], refused: Mapping[str, Sequence[BadRecord]], home: Home) -> Document:
    """`leaderboards/README.md`."""
    head = ("data set", "tables", "rows", "done", "unscored", "failed", "refused")
    lines: list[tuple[Field, ...]] = []
    for name, found in tables.items():
        rows = [row for block in found for row in block.rows]
        cells = [sum(len(row.in_state(state)) for row in rows) for state in ("done", "unscored", "failed")]
        numbers = (len(found), len(rows), *cells, len(refused[name]))
        lines.append(((Link(name, name, page=True),), *map(amount, numbers)))
    words = (
        "One page for each data set, in Markdown and as one HTML file with tables that can be sorted. A row is a method with its "
        "settings; done, unscored, failed and refused count its cells, one per seed; folds count as the one row that they make."
    )
    more: list[Line] = [(Link("What the papers print, beside what was reproduced", PUBLISHED, page=True),)]
    more += [
        (Link(what, f"{folder}/{INDEX}", page=True),)
        for folder, what in FOLDERS.items()
        if (home.results / folder).is_dir()
    ]
    table = Table("Data sets", tuple(Column(name, name != "data set") for name in head), tuple(lines))
    first: list[Part] = []
    if (home.results / STUDIES).is_dir():
        first = [
            Paragraph(
                (Link("Does each paper's idea help?", EFFECTS, page=True), " What it claims beside what it gains here.")
            )
        ]
    return Document("Leaderboards", (*first, Paragraph(words), table, Bullets(tuple(more))))
