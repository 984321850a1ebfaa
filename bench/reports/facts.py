"""The tables of the leaderboards as plain JSON."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean, stdev
from typing import Any

from bench.records.schema import Record
from bench.reports.blocks import Block, Row, blocks


def tables(records: Iterable[Record]) -> dict[str, list[dict[str, Any]]]:
    """The tables of each data set, in the order of its page."""
    by_name: dict[str, list[Record]] = {}
    for record in records:
        by_name.setdefault(record.dataset, []).append(record)
    return {name: [_table(block) for block in blocks(found)] for name, found in sorted(by_name.items())}


def _table(block: Block) -> dict[str, Any]:
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
