"""`leaderboards/published.md`: every row that the papers print, beside what was reproduced."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from bench.evaluation.metrics import RANKED_BY, SHOWN
from bench.pages.document import (
    NOTHING,
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
    amount,
)
from bench.pages.document import Table as ShownTable
from bench.reports.blocks import Row
from bench.reports.published import Paper, Published, Table, family, load_papers
from bench.reports.published import Row as PrintedRow
from bench.reports.reproduced import as_reproduced
from bench.reports.verdicts import HOW_TO_READ, Answer, best_answer, why_not

PUBLISHED = "published"  # the name of the page
SHORT = (
    "Every row of every table of the five papers, as printed, in percent. Where a row is the result of a variant that can be run "
    "here, the row of ours that comes nearest to its terms is named beside it, unless it is of a study that was given up; its "
    "score, whatever it is, stands there if it is of the paper's own clips. Cited rows were not run by the authors of the paper."
)
ABLATED = ("features", "data_fraction", "lambda", "beta", "gamma")
ROLES = {"proposed": "proposed", "baseline_rerun": "run by the authors", "cited": "cited"}


def document(rows: Sequence[Row]) -> Document:
    """The page. `rows` are all rows of all leaderboards."""
    by_family = defaultdict(list)
    for row in rows:
        by_family[family(row.first.dataset)].append(row)
    parts: list[Part] = [Paragraph(SHORT), Folded("How to read the tables", (Paragraph(HOW_TO_READ),))]
    for paper in load_papers():
        source = paper.paper
        parts.append(Heading(2, f"{source.title} ({source.authors[0]} et al., {source.venue} {source.year})"))
        for table in paper.tables:
            parts += _table(paper, table, by_family[table.dataset])
    return Document("Published and reproduced", tuple(parts))


def _table(paper: Paper, table: Table, rows: Sequence[Row]) -> list[Part]:
    caption = f"{paper.paper.name} {table.printed}: {table.about} ({table.dataset}, {table.split})"
    metrics = [name for name in SHOWN if any(name in row.metrics for row in table.rows)]
    columns = (
        Column("system"),
        Column("role"),
        *(Column(SHOWN[name], True) for name in metrics),
        Column("here"),
        Column("reproduced", True),
        Column("difference", True),
        Column("verdict"),
    )
    terms = f"Split lists: {table.splits}"
    terms += ", data set inferred from the text" if table.dataset_inferred else ""
    terms += ", events scored by densevid_eval" if table.scorer == "densevid" else ""
    shown = []
    answers: list[tuple[str, Answer]] = []
    for row in table.rows:
        printed = Published(paper.paper, table, row)
        found = best_answer(printed, rows) if row.variant_name and row.metrics else None
        answers += [(f"{found[0].label} on {found[0].first.dataset}", found[1])] if found else []
        shown.append((*_as_printed(row, metrics), *(_ours(*found) if found else _nothing(printed))))
    notes = why_not(answers)
    below: list[Part] = [Bullets(tuple(notes))] if notes else []
    return [Heading(3, caption), Paragraph(f"{terms}."), ShownTable(caption, columns, tuple(shown)), *below]


def _as_printed(row: PrintedRow, metrics: Sequence[str]) -> list[Field]:
    role = ROLES[row.role] + (f" {row.ref}" if row.ref else "")
    return [f"{row.system}{_settings(row)}", role, *(amount(row.metrics.get(name)) for name in metrics)]


def _ours(row: Row, found: Answer) -> list[Field]:
    """The row of ours that comes nearest, its score, difference and verdict."""
    dataset = row.first.dataset
    metric = "" if found.metric == RANKED_BY else f", {SHOWN[found.metric]}"
    link = (Link(row.label, dataset, page=True), f" on {dataset}{metric}")
    return [link, as_reproduced(found), amount(found.difference(found.metric), "+.2f"), found.verdict(found.metric)]


def _nothing(printed: Published) -> list[Field]:
    return [NOTHING, amount(None), amount(None), _why_not(printed)]


def _settings(row: PrintedRow) -> str:
    """What tells the row from its namesakes, the settings of an ablation; and what is to be said of how it is printed."""
    ablated = {name: value for name, value in row.variant.items() if name in ABLATED}
    parts = [
        f"{name} {'+'.join(map(str, value)) if isinstance(value, list) else value}" for name, value in ablated.items()
    ]
    parts += [row.note] if row.note else []
    return f" ({', '.join(parts)})" if parts else ""


def _why_not(printed: Published) -> Line:
    """Why nothing of ours stands beside a printed row."""
    row = printed.row
    if row.variant_name is not None:
        return "not run"
    if row.role == "cited":
        return NOTHING
    return ("a setting of its own: ", Code(f"bench reproduce {printed.paper.name}/{printed.table.printed}"))
