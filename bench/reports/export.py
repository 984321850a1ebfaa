"""Records for other programs: all of them as one CSV table, and the tables of the leaderboards as plain JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

from bench import BenchError
from bench.errors import did_you_mean
from bench.evaluation.metrics import METRICS, RANKED_BY, TOP
from bench.home import Home
from bench.pages.document import clean
from bench.records.schema import Ledger, Record
from bench.records.store import BadRecord, all_records, record_paths
from bench.reports.blocks import Block, Row, blocks, whole_config

NAMED = ("dataset", "method", "variant", "title", "seed", "protocol", "split", "splits", "subset", "streams")
HIDDEN = (
    "dataset",
    "method",
    "variant",
    "protocol",
    "split",
    "splits",
    "subset",
)  # of the configuration: named already


def cells(home: Home, dataset: str | None, bad: list[BadRecord]) -> list[Record]:
    """The records of the home (of one data set) in the order of their paths; unsound ones are appended to `bad`.

    Raises BenchError where there are none.
    """
    if not record_paths(home.results, dataset):
        known = sorted({path.parents[2].name for path in record_paths(home.results)})
        there = f"there are of: {', '.join(known)}" if known else "bench run makes them"
        of = f" of data set {dataset}" if dataset else ""
        raise BenchError(
            f"there are no records{of} under {home.results}; {there}{did_you_mean(dataset, known) if dataset else ''}"
        )
    return all_records(home.results, dataset, bad)


def table(records: Sequence[Record]) -> str:
    """The CSV text: who the cell is, its scores, what it cost, where it is from, then every setting as a column of its own.

    Scores are on the papers' scale, those of the cell's split. A setting that a cell does not have is an empty field, one that
    it leaves at its default stands there by its value. The metrics are always there; other columns are those that some record
    fills.
    """
    head, rows = columns_and_rows(records)
    text = io.StringIO()
    writer = csv.DictWriter(text, head, lineterminator="\n", extrasaction="ignore", restval="")
    writer.writeheader()
    writer.writerows({name: _field(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def columns_and_rows(records: Sequence[Record]) -> tuple[list[str], list[dict[str, Any]]]:
    """The columns of the table of records, and a row for each by column: see `table`."""
    rows = [_fields(record) for record in records]
    settings = sorted({name for row in rows for name in row} - set(_FIRST))
    head = [name for name in _FIRST if name in METRICS or any(row.get(name) not in (None, "") for row in rows)]
    return [*head, *settings], rows


_FIRST = (
    "key",
    "state",
    *NAMED,
    *TOP,
    *Ledger.model_fields,
    "selection_metric",
    "selection_value",
    "selection_phase",
    "selection_epoch",
    "endings",
    "git",
    "dirty",
    "finished",
    "external",
    "failure",
    "signature",
)


def _fields(record: Record) -> dict[str, Any]:
    config, failure, selection, facts = record.config, record.failure, record.selection, record.provenance
    fields: dict[str, Any] = {"key": record.key, "state": record.state}
    fields |= {name: config.get(name) for name in NAMED}
    fields["streams"] = "+".join(config.get("streams") or {})
    fields |= record.scores.get(record.split, {})
    if record.ledger is not None:
        fields |= record.ledger.model_dump()
    if selection is not None:
        fields |= {f"selection_{name}": value for name, value in selection.model_dump().items()}
    if record.endings:
        fields["endings"] = ", ".join(f"{phase} {how}" for phase, how in record.endings.items())
    if facts is not None:
        fields |= {"git": facts.git, "dirty": facts.dirty, "finished": facts.finished}
    fields["external"] = record.external.source if record.external else None
    fields["failure"] = f"{failure.stage}: {failure.type}: {failure.message}" if failure else None
    fields["signature"] = record.signatures.get(record.split, {}).get(RANKED_BY)
    flat = {f"config.{name}": value for name, value in whole_config(record).items() if name not in HIDDEN}
    if record.external is not None:
        del flat["config.loss"]  # that of captions made elsewhere is not known
    return fields | flat


def _field(value: Any) -> Any:
    """A value as one field: nothing for null, JSON for lists and booleans, text on one line."""
    if value is None:
        return ""
    if isinstance(value, str):
        return clean(value)
    return json.dumps(value, ensure_ascii=False)


def tables(records: Iterable[Record]) -> dict[str, list[dict[str, Any]]]:
    """The tables of each data set, in the order of its page."""
    by_name: dict[str, list[Record]] = {}
    for record in records:
        by_name.setdefault(record.dataset, []).append(record)
    return {name: [_facts_of(block) for block in blocks(found)] for name, found in sorted(by_name.items())}


def _facts_of(block: Block) -> dict[str, Any]:
    """What its rows share, and its rows by rank."""
    return {
        "terms": dict(block.terms),
        "signatures": dict(block.signatures),
        "ranked_on_seeds": list(block.ranked_on),
        "rows": [_row(row, rank) for row, rank in zip(block.rows, block.ranks, strict=True)],
    }


def _row(row: Row, rank: int | None) -> dict[str, Any]:
    metrics = dict.fromkeys(metric for record in row.in_state("done") for metric in record.scores[record.split])
    return {
        "rank": rank,
        "row": row.label,
        "title": row.title,
        "external": row.external,
        "cells": [{"key": record.key, "seed": record.seed, "state": record.state} for record in row.records],
        "scores": {metric: _spread(row.values(metric)) for metric in metrics},
    }


def _spread(values: list[float]) -> dict[str, Any]:
    return {"values": values, "mean": fmean(values), "sd": stdev(values) if len(values) > 1 else None}
