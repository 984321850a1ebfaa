"""All records as one CSV table, a line for each cell, for a spreadsheet or a notebook."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from bench import BenchError
from bench.errors import did_you_mean
from bench.evaluation.metrics import METRICS, RANKED_BY, TOP
from bench.home import Home
from bench.pages.document import clean
from bench.records.schema import Ledger, Record
from bench.records.store import BadRecord, all_records, record_paths
from bench.reports.blocks import flat_config

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

    Scores are on the papers' scale, those of the cell's split. A setting that a cell does not have is an empty field. The
    metrics are always there; other columns are those that some record fills.
    """
    rows = [_fields(record) for record in records]
    settings = sorted({name for row in rows for name in row} - set(_FIRST))
    head = [name for name in _FIRST if name in METRICS or any(row.get(name) not in (None, "") for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, [*head, *settings], lineterminator="\n", extrasaction="ignore", restval="")
    writer.writeheader()
    writer.writerows({name: _told(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


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
    if facts is not None:
        fields |= {"git": facts.git, "dirty": facts.dirty, "finished": facts.finished}
    fields["external"] = record.external.source if record.external else None
    fields["failure"] = f"{failure.stage}: {failure.type}: {failure.message}" if failure else None
    fields["signature"] = record.signatures.get(record.split, {}).get(RANKED_BY)
    flat = {f"config.{name}": value for name, value in flat_config(config).items() if name not in HIDDEN}
    if record.external is not None:
        del flat["config.loss"]  # that of captions made elsewhere is not known
    return fields | flat


def _told(value: Any) -> Any:
    """A value as one field: nothing for null, JSON for lists and booleans, text on one line."""
    if value is None:
        return ""
    if isinstance(value, str):
        return clean(value)
    return json.dumps(value, ensure_ascii=False)
