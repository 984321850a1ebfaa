"""What the cells of a table cost, and the way from a page to their records."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean

from bench.home import Home
from bench.pages.document import NOTHING, Cell, Column, Field, Link, Span, Table, amount
from bench.records.schema import Record
from bench.records.store import RECORD, cell_folder
from bench.reports.blocks import Block, Row

FOLDS = "of a row of folds the sum of its cells"


def ledger(number: int, block: Block, home: Home) -> Table:
    """What the cells of a table cost, means over seeds, with the way to their records."""
    columns = (
        Column("variant"),
        Column("records", help="one for each seed"),
        Column("captions", True, f"read or sampled in training, of the budget; {FOLDS}"),
        Column("epochs", True),
        Column("training, s", True, f"mean of a cell; {FOLDS}"),
        Column("decoding, s", True, f"mean of a cell, all clips of the split; {FOLDS}"),
        Column("captions/s", True, "in training"),
        Column("peak memory, MB", True),
        Column("parameters", True),
        Column("on"),
    )
    rows: list[tuple[Field, ...]] = []
    for row in block.rows:
        rows.append(
            (
                row.label,
                record_links(row.records, home),
                _captions(row),
                _mean(row, "epochs", ".0f"),
                _mean(row, "fit_seconds", ",.0f"),
                _mean(row, "decode_seconds", ",.1f"),
                _mean(row, "captions_per_second", ",.0f"),
                _mean(row, "peak_memory_mb", ",.0f"),
                _mean(row, "parameters", ",.0f"),
                _device(row),
            )
        )
    return Table(f"Cost and records of table {number}, means over seeds", columns, tuple(rows))


def known(row: Row, name: str) -> list[float]:
    """What the ledgers of a row's cells say of `name`, where they say it."""
    found = [record.spent(name) for record in row.records]
    return [float(value) for value in found if value is not None]


def _mean(row: Row, name: str, form: str) -> Cell:
    values = known(row, name)
    return amount(fmean(values) if values else None, form)


def _captions(row: Row) -> Cell:
    """Captions of the budget, and those used where a cell stopped early; a row of folds has no budget of its own."""
    budgets, used = known(row, "budget"), known(row, "captions")
    if not budgets:
        return amount(fmean(used) if used else None, ",.0f")
    whole = _range(budgets)
    return Cell(whole if _range(used) == whole else f"{_range(used)} of {whole}", fmean(used))


def _range(counts: Iterable[float]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"


def _device(row: Row) -> str:
    """Where the cells ran: times of other devices are not to be compared."""
    found = []
    for record in row.records:
        facts = record.provenance
        if facts is not None and facts.device and record.external is None:
            kind = "CPU" if facts.device.startswith("cpu") else "GPU"
            threads = f", {facts.threads} threads" if kind == "CPU" and facts.threads and facts.threads > 1 else ""
            share = f", {facts.gpu_share:g} of one" if kind == "GPU" and facts.gpu_share and facts.gpu_share < 1 else ""
            found.append(f"{kind}{threads}{share}")
    return " / ".join(dict.fromkeys(found)) or NOTHING


def record_link(record: Record, home: Home, words: str | None = None, page: str = "") -> Link:
    """The way from a page (its name, from the folder of all pages on) to a record, by the words or the seed."""
    start = (home.leaderboards / page).parent if page else home.leaderboards
    path = Path(os.path.relpath(cell_folder(home.results, record) / RECORD, start)).as_posix()
    return Link(words or str(record.seed), path)


def record_links(records: Iterable[Record], home: Home, page: str = "") -> tuple[Span, ...]:
    """The ways to all records of a row."""
    links = [part for record in records for part in (", ", record_link(record, home, page=page))]
    return tuple(links[1:]) or (NOTHING,)
