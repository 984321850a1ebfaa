"""The page of one target: what a paper prints beside our records, table by table, and its figures.

A target of `methods/<paper>/reproduce.yaml` says what to run (`cells:`) and what to draw (`draw:`, a list):

    fig6:
      title: lambda sweep
      dataset: msrvtt
      cells:
        - {name: global 0.1, run: "recnet:global", settings: {lambda: 0.1}}
        - {name: half the data, run: "recnet:local", train: {data_fraction: 0.5}}
      draw:
        - {figure: lambda_curves, arguments: {metric: bleu4}}

`figure` names a function in `bench.figures.FIGURES`. It is called once for every section of the page (the data sets of the
paper, `shapes` in small, or another data set) and part of the target, and

- reads the committed files of the done cells only: `Finished.record` and the files in `Finished.folder` (predictions,
  curves.csv, clip_scores.csv), and what the figure's trace left in `Drawing.data`;
- returns parts of the page: pictures, each at its place by `image(drawing, name, picture)`, and sentences. Same files in, same
  bytes out: no dates, no absolute paths, fixed digits and seeds;
- says in a sentence what could not be drawn and why (a cell of `drawing.missing`, no traces); it raises nothing for that.

What is not in the records (hidden states, attention, frames, words of a corpus) comes from a trace:
`bench.reproduction.tracing.TRACES`, found by the figure's name and called by `bench reproduce` alone, once the cells are done
and before the page is drawn. It may load checkpoints and data, and writes small files with fixed names into `drawing.data`
(committed, below results/reproductions). A figure without an entry there has no trace.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import BenchError
from bench.declare.settings import given
from bench.evaluation.metrics import SHOWN
from bench.figures import FIGURES
from bench.figures.drawing import Drawing, Finished
from bench.home import Home, data_folder
from bench.pages.document import (
    NOTHING,
    Alarm,
    Bullets,
    Cell,
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
    clean,
)
from bench.pages.files import pictures_of
from bench.records.schema import Record
from bench.records.store import cell_folder
from bench.reports.costs import record_links
from bench.reports.published import Row
from bench.reports.published_page import PUBLISHED
from bench.reports.verdicts import HOW_TO_READ, NOT_COMPARABLE, Answer, other_clips, prefix, reasons
from bench.reproduction import answers as asked
from bench.reproduction.declaration import DeclaredCell, Reproduction
from bench.reproduction.declaration import Part as TargetPart

FOLDER = "reproductions"
ORDER = ("printed", "small")  # sections in front, in this order; the others follow by name

SCORES = (
    "Scores are in percent (CIDEr-D x 100). Under “paper” is the number as printed, under “here” the mean ± standard deviation "
    "(n) over the seeds that were run, with n - 1 in the deviation and no ± for a single seed. Rows marked “cited” were not run "
    "by the authors of the paper, and are not run here; they stand beside rows of the paper's own clips alone."
)
IN_SMALL = (
    " The section marked so ran the cells on rendered clips of the corpus shapes, few of them and for a few epochs: it shows "
    "that every row can be run and what the ideas do there, and says nothing about the printed numbers."
)


def page_of(one: Reproduction) -> str:
    """The name of a target's page, from the folder of all pages on."""
    return f"{FOLDER}/{one.full}"


def document(one: Reproduction, home: Home) -> Document:
    """The page of a target, all its sections. Raises BenchError for a damaged file of what was asked for."""
    paper, sections = one.paper.paper, _sections(one, home)
    parts: list[Part] = [Paragraph(f"Of {paper.title} ({paper.authors[0]} et al., {paper.venue} {paper.year}).")]
    if any(section.small for section in sections.values()):
        parts.append(Paragraph((Alarm("Made in small."), IN_SMALL)))
    if all(section.dataset is not None for section in sections.values()):
        command = Code(f"bench reproduce {one.full}")
        parts.append(
            Paragraph(
                ("The cells have not been run on the data of the paper here: ", command, " does, where the data are.")
            )
        )
    if any(part.table for part in one.parts):
        parts.append(Folded("How to read the tables", (Paragraph(SCORES), Paragraph(HOW_TO_READ))))
    for number, (name, section) in enumerate(sections.items(), start=1):
        parts += [
            Heading(2, f"{number}. {_heading(section)}"),
            Paragraph(("Made by ", Code(_command(one, section)), ".")),
        ]
        for part in one.parts:
            parts += _table(one, part, section, home) if part.table else []
        drawings = list(drawings_of(one, name, section, home))
        for figure, drawing in drawings:
            parts += _figure(figure, drawing)
        if drawings and not any(part.table for part in one.parts):
            parts += _drawn_from(drawings[0][1], home, page_of(one))
    return Document(f"{one.full}: {one.target.title}", tuple(parts))


def _sections(one: Reproduction, home: Home) -> dict[str, asked.Section]:
    sections = asked.read(home, one.full).sections
    names = sorted(sections, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
    return {name: sections[name] for name in names}


def _heading(section: asked.Section) -> str:
    if section.small:
        return f"In small: {section.dataset}, {section.protocol} protocol"
    where = "the data of the paper" if section.dataset is None else section.dataset
    return f"On {where}, {section.protocol} protocol"


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


# -- tables --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Line:
    """One row of a table on the page: what the paper prints (nothing for a control), the cell that answers it (none for a row
    that the authors cite), the records of all seeds that were asked for, and the answer of those that are compared; `base`
    is what is run for the row's base, and its answer."""

    row: Row | None
    cell: DeclaredCell | None
    records: tuple[Record, ...]
    asked: int
    answer: Answer
    base: tuple[str, Answer] | None

    @property
    def system(self) -> str:
        return self.row.system if self.row else f"control: {self.cell.control if self.cell else ''}"


def _table(one: Reproduction, part: TargetPart, section: asked.Section, home: Home) -> list[Part]:
    """One printed table with our records beside it, then the controls; below it how they were made.

    Where ours are all of other clips than the paper's, only what is gained over the paper's base stands side by side.
    """
    assert part.table is not None
    lines = _lines(one, part, section, home)
    kept = [record for line in lines for record in line.answer.records]
    metrics = [name for name in SHOWN if any(line.row and name in line.row.metrics for line in lines)]
    compared = any(line.answer.records and not line.answer.reasons for line in lines) or not kept
    apart = bool(kept) and all(line.answer.other_clips for line in lines if line.records)
    gains = {name for name in metrics if any(_gain(line, name) for line in lines) and not compared}
    gains &= set(metrics if apart else metrics[-1:])
    shared = _shared_reasons(lines)
    columns = [Column("system"), Column("run"), *([Column("verdict")] if compared else [])]
    columns += [Column("base")] if gains else []
    for name in reversed(metrics):  # the one that decides comes first
        columns += [Column(f"{SHOWN[name]} {what}", True) for what in (("here",) if apart else ("paper", "here"))]
        columns += [Column(f"{SHOWN[name]} difference", True)] if compared else []
        columns += [Column(f"{SHOWN[name]} gain, {w}", True) for w in ("paper", "here")] if name in gains else []
    columns += [Column("remarks"), Column("records")]
    rows = []
    for line in lines:
        if apart and not line.cell:
            continue
        cells: list[Field] = [line.system, line.cell.label if line.cell else "cited"]
        cells += [_verdict(line, metrics)] if compared else []
        cells += [_base(line, gains)] if gains else []
        for name in reversed(metrics):
            cells += _numbers(line, name, compared, apart)
            cells += _gain(line, name) or [amount(None), amount(None)] if name in gains else []
        rows.append((*cells, _remarks(line, shared), record_links(line.records, home, page_of(one))))
    about = part.table.about
    title = f"{about[:1].upper()}{about[1:]} ({part.table.dataset}, {part.table.split})"
    notes: list[Line] = []
    if shared:
        notes.append(f"Not comparable with the printed numbers, because of {'; '.join(shared)}.")
    if apart:
        page = Link("printed results", f"../../{PUBLISHED}", page=True)
        notes.append(("The paper's scores are of its own clips: they stand among the ", page, " and not here."))
    if gains:
        notes.append("A gain is that over the row under “base”, there and here.")
    if any(record.split == "val" for record in kept):
        notes.append("The epoch was chosen on the validation clips, which are those reported.")
    made = "How these rows were made, and the signatures of their scores"
    return [
        Heading(3, title),
        Table(title, tuple(columns), tuple(rows)),
        *([Bullets(tuple(notes))] if notes else []),
        *([Folded(made, (Bullets(tuple(_made(part, kept, metrics))),))] if kept else []),
    ]


def _lines(one: Reproduction, part: TargetPart, section: asked.Section, home: Home) -> list[_Line]:
    """Every row of the printed table in its order, then the controls; a base comes with its answer."""
    assert part.table is not None
    answering = {cell.prints[part.id]: cell for cell in part.cells if part.id in cell.prints}
    pairs: list[tuple[Row | None, DeclaredCell | None]] = [
        (row, answering.get(number)) for number, row in enumerate(part.table.rows, start=1)
    ]
    pairs += [(None, cell) for cell in part.cells if cell.control]
    records = [tuple(asked.records(home, section.cells, part.place(cell))) if cell else () for _, cell in pairs]
    kept = _alike([record for some in records for record in some])
    answers: list[tuple[str, Answer]] = []
    for (row, cell), some in zip(pairs, records, strict=True):
        why = [*one.target.differs, *(cell.differs if cell else ()), *reasons(part.table, some, changed=False)]
        mine = tuple(record for record in some if record in kept)
        other = other_clips(part.table, some)
        answer = Answer(part.table, row.metrics if row else {}, mine, len(some), tuple(why), other)
        answers.append((cell.label if cell else NOTHING, answer))
    return [
        _Line(
            row,
            cell,
            some,
            len(section.cells.get(part.place(cell), ())) if cell else 0,
            answer,
            answers[row.base - 1] if row and row.base else None,
        )
        for (row, cell), some, (_, answer) in zip(pairs, records, answers, strict=True)
    ]


def _alike(records: Sequence[Record]) -> list[Record]:
    """The done records with the signatures that most of them have: one table does not mix signatures."""
    done = [record for record in records if record.state == "done"]
    counts = Counter(_signature(record) for record in done)
    most = max(counts, key=lambda signature: (counts[signature], signature), default=None)
    return [record for record in done if _signature(record) == most]


def _signature(record: Record) -> str:
    return json.dumps(record.signatures[record.split], sort_keys=True)


def _numbers(line: _Line, metric: str, compared: bool, apart: bool) -> list[Field]:
    """Printed, unless ours are of other clips; here; and, in a table where anything is compared, the difference."""
    printed, mean = line.answer.printed.get(metric), line.answer.mean(metric)
    cells: list[Field] = [*([] if apart else [amount(printed)]), Cell(line.answer.here(metric), mean)]
    return [*cells, amount(line.answer.difference(metric), "+.2f")] if compared else cells


def _gain(line: _Line, metric: str) -> list[Field] | None:
    """What the paper prints for the gain of a row over its base, and ours."""
    gain = line.answer.gain(line.base[1], metric) if line.base else None
    return [amount(one, "+.2f") for one in gain] if gain else None


def _base(line: _Line, metrics: Collection[str]) -> str:
    """What is run for the base of a row, where a gain over it is known in one of the metrics."""
    return line.base[0] if line.base and any(_gain(line, name) for name in metrics) else NOTHING


def _verdict(line: _Line, metrics: Sequence[str]) -> str:
    known = [name for name in metrics if name in line.answer.printed and line.answer.mean(name) is not None]
    if known and line.answer.reasons:
        return NOT_COMPARABLE
    verdicts = [(name, line.answer.verdict(name)) for name in known]
    words = [one if one.startswith("none") else f"{SHOWN[name]} {one}" for name, one in verdicts]
    return ", ".join(dict.fromkeys(words)) or NOTHING


def _remarks(line: _Line, shared: Sequence[str]) -> str:
    """What is to be said of one row: reasons not to compare it that others do not have, seeds without scores."""
    own = [reason for reason in line.answer.reasons if reason not in shared] if line.records else []
    found = [f"{NOT_COMPARABLE}: {reason}" for reason in own]
    for record in line.records:
        if record.failure is not None:
            found.append(f"FAILED seed {record.seed} ({record.failure.stage}): {clean(record.failure.message)[:120]}")
        elif record.state != "done":
            found.append(f"{record.state} seed {record.seed}")
        elif record not in line.answer.records:
            found.append(f"seed {record.seed} left out: scored with another signature")
    if line.cell and not line.records:
        found.append("not run")
    elif len(line.records) < line.asked:
        found.append(f"{line.asked - len(line.records)} of {line.asked} seeds not run")
    return "; ".join(dict.fromkeys(found)) or NOTHING


def _made(part: TargetPart, kept: Sequence[Record], metrics: Sequence[str]) -> list[Line]:
    """How the rows of a table were made, and the signatures of the scores that are shown."""
    assert part.table is not None
    made = {
        "epochs": [str(record.config.get("train", {}).get("epochs")) for record in kept],
        "captions read by a cell": [f"{record.ledger.captions:,}" for record in kept if record.ledger],
        "beam": [str(record.config.get("search", {}).get("beam")) for record in kept],
        "captions digest": [str(record.config.get("captions_digest"))[:8] for record in kept],
        "engine": [str(record.config.get("engine")) for record in kept],
    }
    words = [f"{name} {' / '.join(dict.fromkeys(values))}" for name, values in made.items() if values]
    notes: list[Line] = [f"Made with {'; '.join(words)}."]
    signatures = kept[0].signatures[kept[0].split]
    for metric in metrics:
        signature = signatures.get(prefix(part.table) + metric, signatures.get(metric))
        notes += [(f"{SHOWN[metric]}: ", Code(signature))] if signature else []
    return notes


def _shared_reasons(lines: Sequence[_Line]) -> list[str]:
    """The reasons that hold for every row of ours and are declared for none alone."""
    answers = [line.answer for line in lines if line.records]
    declared = {reason for line in lines if line.cell for reason in line.cell.differs}
    common = (
        [reason for reason in answers[0].reasons if all(reason in one.reasons for one in answers)] if answers else []
    )
    return [reason for reason in common if reason not in declared]


# -- figures -------------------------------------------------------------------------------------------------------------


def drawings_of(one: Reproduction, name: str, section: asked.Section, home: Home) -> Iterator[tuple[str, Drawing]]:
    """The figures of the section called `name`: its target's, once for each part of a table."""
    for drawn in one.target.draw:
        for part in one.parts if drawn.figure else ():
            inner = f"{name}/{part.id}" if len(one.parts) > 1 else name
            yield str(drawn.figure), _drawing(one, part, drawn.arguments, inner, section, home)


def _drawing(
    one: Reproduction, part: TargetPart, arguments: Mapping[str, Any], inner: str, section: asked.Section, home: Home
) -> Drawing:
    """What the figures of one part of a target are drawn from; its files and pictures lie in folders called `inner`."""
    cells: list[Finished] = []
    missing: list[str] = []
    printed: dict[str, Mapping[str, float]] = {}
    for cell in part.cells:
        done = [record for record in asked.records(home, section.cells, part.place(cell)) if record.state == "done"]
        for record in done:
            folder = cell_folder(home.results, record)
            cells.append(Finished(cell.called, record.seed, record, folder, cell.settings, given(cell.train)))
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
        data=asked.folder(home) / one.full / inner,
        pictures=f"{pictures_of(page_of(one))}/{inner}",
        printed=printed,
    )


def _figure(name: str, drawing: Drawing) -> list[Part]:
    if name not in FIGURES:
        raise BenchError(
            f"{drawing.target} declares the figure {name}, which does not exist: bench reproduce list says more"
        )
    return FIGURES[name](drawing)


def _drawn_from(drawing: Drawing, home: Home, page: str) -> list[Part]:
    """The records of a figure's cells, and the cells that it lacks."""
    by_name: dict[str, list[Record]] = {}
    for cell in drawing.cells:
        by_name.setdefault(cell.name, []).append(cell.record)
    lines: list[Line] = [(f"{name}: ", *record_links(some, home, page)) for name, some in by_name.items()]
    lines += [f"{name}: not run" for name in drawing.missing]
    return [Paragraph("Drawn from these records:"), Bullets(tuple(lines))] if lines else []
