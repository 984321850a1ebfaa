"""Pages of `bench reproduce`: `leaderboards/reproductions/<paper>/<target>.md`, what a paper prints beside our records.

The seam to the figures
-----------------------
A target of `methods/<paper>/reproduce.yaml` says what to run (`cells:`) and what to draw (`draw:`, a list):

    fig6:
      title: lambda sweep
      dataset: msrvtt
      cells:
        - {name: global 0.1, run: "recnet:global", settings: {lambda: 0.1}}
        - {name: half the data, run: "recnet:local", train: {data_fraction: 0.5}}
      draw:
        - {figure: lambda_curves, arguments: {metric: bleu4}}

`figure` names a function in `bench.figures.FIGURES: dict[str, Callable[[Drawing], list[str]]]`. It is called once for
every section of the page (a section: the data sets of the paper, `shapes` in small, or another data set). It

- reads the committed files of the done cells only: `Finished.record` and the files in `Finished.folder` (predictions,
  curves.csv, clip_scores.csv), and what the figure's trace left in `Drawing.data`;
- hands each picture to `drawing.write("name.svg", text)`, which returns the path to use in Markdown (`![..](path)`), and
  returns the lines of Markdown of its section. It does not touch the disk itself, so that `bench leaderboard --check` can
  compare without writing. Same files in, same bytes out: no dates, no absolute paths, fixed digits and seeds;
- says in its lines what could not be drawn and why (a cell of `drawing.missing`, no traces); it raises nothing for that.

What is not in the records (hidden states, attention, frames, words of a corpus) comes from a trace:
`bench.reproduction.tracing.TRACES: dict[str, Callable[[Drawing, Home], None]]`, found by the figure's name and called by
`bench reproduce` alone, once the cells are done and before the page is drawn. It may load checkpoints and data, and writes
small files with fixed names into `drawing.data` (committed, below results/reproductions). A figure without an entry there has
no trace.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from bench import BenchError
from bench.evaluation.metrics import SHOWN
from bench.figures.drawing import Drawing
from bench.pages.markdown import clean, code, escape, link, table
from bench.records.schema import Record
from bench.records.store import RECORD, cell_folder
from bench.reports.published import Source
from bench.reports.verdicts import NOTHING, spread, verdict


@dataclass(frozen=True)
class Line:
    """One row of a printed table: what the paper says, and the records of the cell that answers it.

    `run` names that cell; it is None for a row that the authors cite and did not run. `control` says why a row stands
    there that the paper does not have. `asked` counts the seeds that were asked for, `differs` are declared reasons not to
    compare.
    """

    system: str
    printed: Mapping[str, float]
    run: str | None = None
    control: str | None = None
    records: tuple[Record, ...] = ()
    asked: int = 0
    differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """One printed table, or the part of it that speaks of one data set. `splits` and `scorer` are the paper's."""

    about: str
    dataset: str
    split: str
    splits: str
    scorer: str
    lines: tuple[Line, ...]
    differs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A target at one scale on the paper's data sets (`dataset` None) or another one, with the command that made it."""

    dataset: str | None
    protocol: str
    small: bool
    command: str
    blocks: tuple[Block, ...]
    figures: tuple[tuple[str, Drawing], ...] = ()


@dataclass(frozen=True)
class Page:
    """One target of one paper. `path` is where its page lies, `results` the folder of the records that it links to."""

    target: str
    title: str
    source: Source
    path: Path
    results: Path
    sections: tuple[Section, ...]


HOW_TO_READ = (
    "Scores are in percent (CIDEr-D x 100). *paper* is the number as printed; *here* is the mean ± standard deviation (n) over "
    "the seeds that were run, with n - 1 in the deviation and no ± for a single seed; the difference is here minus paper. A "
    "verdict is given only where data set, split, clips, protocol and scoring are those of the paper, and never from one seed: "
    "*within* says that the printed number lies in the interval in which 95 % of further seeds are expected (mean ± t sd "
    "√(1 + 1/n)), *above* and *below* that ours are higher or lower than that. Rows marked *cited* were not run by the authors "
    "of the paper, and are not run here."
)
IN_SMALL = (
    "**Made in small.** The section marked so ran the cells on rendered clips of the corpus shapes, few of them and for a few "
    "epochs: it shows that every row can be run and what the ideas do there, and says nothing about the printed numbers."
)
NOT_AS_PRINTED = (
    "The cells have not been run on the data of the paper here: `bench reproduce {target}` does, where the data are."
)


def render(page: Page) -> str:
    """The generated part of a page. Figures hand their pictures to `Drawing.write` on the way."""
    paper = page.source
    cited = f"{paper.title} ({paper.authors[0]} et al., {paper.venue} {paper.year})"
    parts = [f"# {escape(page.target)}: {escape(page.title)}", f"Of {escape(cited)}."]
    if any(section.small for section in page.sections):
        parts.append(IN_SMALL)
    if not any(section.dataset is None for section in page.sections):
        parts.append(NOT_AS_PRINTED.format(target=page.target))
    if any(section.blocks for section in page.sections):
        parts.append(HOW_TO_READ)
    for number, section in enumerate(page.sections, start=1):
        parts += [f"## {number}. {_heading(section)}", f"Made by {code(section.command)}."]
        for block in section.blocks:
            parts += _block(block, section, page)
        for name, drawing in section.figures:
            parts += _figure(name, drawing)
        if section.figures and not section.blocks:
            parts += _drawn_from(section.figures[0][1], page)
    return "\n\n".join(parts)


def _heading(section: Section) -> str:
    if section.small:
        return f"In small: {escape(str(section.dataset))}, {section.protocol} protocol"
    if section.dataset is None:
        return f"On the data of the paper, {section.protocol} protocol"
    return f"On {escape(section.dataset)}, {section.protocol} protocol"


def _block(block: Block, section: Section, page: Page) -> list[str]:
    kept = _alike([record for line in block.lines for record in line.records])
    apart = _differences(block, kept)
    metrics = [name for name in SHOWN if any(name in line.printed for line in block.lines)]
    numbers = [f"{SHOWN[name]} {what}" for name in metrics for what in ("paper", "here", "difference")]
    head = ["system", "run", *numbers, "verdict", "remarks", "records"]
    rows = [_row(line, block, metrics, kept, bool(apart), page) for line in block.lines]
    title = f"### {escape(block.about[:1].upper() + block.about[1:])} ({escape(block.dataset)}, {escape(block.split)})"
    notes = [f"Not comparable with the printed numbers, because of {escape('; '.join(apart))}."] if apart else []
    notes += _made_from(kept, block, metrics)
    return [title, table(head, rows, right=numbers), "\n".join(f"- {note}" for note in notes)]


def _alike(records: Sequence[Record]) -> list[Record]:
    """The done records with the signatures that most of them have: one table does not mix signatures."""
    done = [record for record in records if record.state == "done"]
    counts = Counter(_signature(record) for record in done)
    if not counts:
        return []
    most = max(counts, key=lambda signature: (counts[signature], signature))
    return [record for record in done if _signature(record) == most]


def _signature(record: Record) -> str:
    return json.dumps(record.signatures[record.split], sort_keys=True)


def _differences(block: Block, records: Sequence[Record]) -> list[str]:
    """Why the printed numbers do not answer to these records at all; empty where they do."""
    found = list(block.differs)
    for record in records:
        config = record.config
        if record.dataset != block.dataset:
            found.append(f"the data set ({record.dataset}, the paper's is {block.dataset})")
        if config.get("subset"):
            found.append(f"the clips (the first {'/'.join(map(str, config['subset']))} of train, validation and test)")
        if record.dataset == block.dataset and record.split != block.split:
            found.append(f"the split ({record.split}, the paper's is {block.split})")
        if record.dataset == block.dataset and config.get("splits") != block.splits:
            found.append(f"the split lists ({config.get('splits')}, the paper's are {block.splits})")
        if record.dataset == block.dataset and block.scorer != "coco" and not _prefix(record, block):
            found.append(f"the scoring (COCO over clips, the paper's is {block.scorer})")
        if config["protocol"] != "paper":
            found.append(f"the protocol ({config['protocol']}, with its own features, text and schedule)")
    return list(dict.fromkeys(found))


def _prefix(record: Record, block: Block) -> str:
    """What stands before a metric's name where the record was scored by the rules of the paper's scorer as well."""
    prefix = "" if block.scorer == "coco" else f"{block.scorer}_"
    return prefix if any(name.startswith(prefix) for name in record.scores[record.split]) else ""


def _row(
    line: Line, block: Block, metrics: Sequence[str], kept: Sequence[Record], apart: bool, page: Page
) -> list[str]:
    system = f"control: {line.control}" if line.control else line.system
    cells = [escape(system), escape(line.run) if line.run else "cited"]
    done = [record for record in line.records if record in kept]
    whole = bool(done) and len(done) == len(line.records)
    verdicts = []
    for metric in metrics:
        printed = line.printed.get(metric)
        values = [
            record.scores[record.split][name]
            for record in done
            if (name := _prefix(record, block) + metric) in record.scores[record.split]
        ]
        cells += [NOTHING if printed is None else f"{printed}", spread(values, whole)]
        if printed is None or not values or not whole:
            cells.append(NOTHING)
            continue
        cells.append(f"{fmean(values) - printed:+.2f}")
        verdicts.append(f"{SHOWN[metric]} {verdict(values, printed)}" if len(values) > 1 else "none from one seed")
    if verdicts and (apart or line.differs):
        verdicts = ["not comparable"]
    return [
        *cells,
        ", ".join(dict.fromkeys(verdicts)) or NOTHING,
        escape(_remarks(line, kept)),
        _links(line.records, page),
    ]


def _remarks(line: Line, kept: Sequence[Record]) -> str:
    """What is to be said of one row: reasons not to compare it, streams it did without, seeds without scores."""
    found = [f"not comparable: {reason}" for reason in line.differs]
    for record in line.records:
        absent = record.config.get("absent_streams") or []
        found += [f"without the stream{'s' if len(absent) > 1 else ''} {', '.join(absent)}"] if absent else []
        if record.failure is not None:
            found.append(f"FAILED seed {record.seed} ({record.failure.stage}): {clean(record.failure.message)[:120]}")
        elif record.state != "done":
            found.append(f"{record.state} seed {record.seed}")
        elif record not in kept:
            found.append(f"seed {record.seed} left out: scored with another signature")
    if line.run and not line.records:
        found.append("not run")
    elif len(line.records) < line.asked:
        found.append(f"{line.asked - len(line.records)} of {line.asked} seeds not run")
    return "; ".join(dict.fromkeys(found)) or NOTHING


def _links(records: Sequence[Record], page: Page) -> str:
    return (
        ", ".join(link(str(record.seed), _relative(_folder(record, page) / RECORD, page)) for record in records)
        or NOTHING
    )


def _folder(record: Record, page: Page) -> Path:
    return cell_folder(page.results, record)


def _relative(path: Path, page: Page) -> str:
    return Path(os.path.relpath(path, page.path.parent)).as_posix()


def _made_from(records: Sequence[Record], block: Block, metrics: Sequence[str]) -> list[str]:
    """How the rows were made, and the signatures of the scores that are shown."""
    if not records:
        return []
    told = {
        "epochs": [str(record.config.get("train", {}).get("epochs")) for record in records],
        "captions read by a cell": [f"{record.ledger.captions:,}" for record in records if record.ledger],
        "beam": [str(record.config.get("search", {}).get("beam")) for record in records],
        "captions digest": [str(record.config.get("captions_digest"))[:8] for record in records],
        "engine": [str(record.config.get("engine")) for record in records],
    }
    made = "; ".join(f"{name} {_range(values)}" for name, values in told.items() if values)
    notes = [f"Made with {escape(made)}."]
    if any(record.split == "val" for record in records):
        notes.append("The epoch was chosen on the validation clips, which are those reported.")
    signatures = records[0].signatures[records[0].split]
    prefix = _prefix(records[0], block)
    names = [(SHOWN[name], prefix + name) for name in metrics if prefix + name in signatures]
    return [*notes, *(f"{short}: {code(signatures[name])}" for short, name in names)]


def _range(values: Sequence[str]) -> str:
    return " / ".join(dict.fromkeys(values))


def _figure(name: str, drawing: Drawing) -> list[str]:
    from bench.figures import FIGURES

    if name not in FIGURES:
        raise BenchError(
            f"{drawing.target} declares the figure {name}, which does not exist: bench reproduce list says more"
        )
    return ["\n".join(FIGURES[name](drawing))]


def _drawn_from(drawing: Drawing, page: Page) -> list[str]:
    """The records of a figure's cells, and the cells that it lacks."""
    by_name: dict[str, list[Record]] = {}
    for cell in drawing.cells:
        by_name.setdefault(cell.name, []).append(cell.record)
    lines = [f"- {escape(name)}: {_links(records, page)}" for name, records in by_name.items()]
    lines += [f"- {escape(name)}: not run" for name in drawing.missing]
    return ["Drawn from these records:", "\n".join(lines)] if lines else []
