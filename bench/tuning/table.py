"""The trials of a search as a table for other programs: CSV beside its report, or a DataFrame."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.tuning.study import Report, read

if TYPE_CHECKING:
    import pandas


def rows(report: Report) -> list[dict[str, Any]]:
    """A row for each trial: its number and settings, its state, what it reached, and what it cost; the chosen one is marked.

    `schedule` is JSON, [[captions, settings], ..], where settings changed while it trained.
    """
    return [
        {
            "row": report.row,
            "trial": trial.number,
            **{name: trial.point.get(name) for name in report.space},
            "state": trial.state,
            report.how.get("metric", "cider"): trial.value,
            "captions": trial.captions,
            "reused_captions": trial.reused_captions,
            "seconds": trial.seconds,
            "chosen": trial.number == report.chosen,
            "schedule": json.dumps(trial.schedule) if trial.schedule and len(trial.schedule) > 1 else None,
            "message": trial.message,
            "key": trial.key,
        }
        for trial in report.trials
    ]


def as_csv(report: Report) -> str:
    """The trials as CSV text; what is not known is an empty field. Without trials it is empty."""
    found = rows(report)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]) if found else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return text.getvalue()


def frame(path: str | Path) -> pandas.DataFrame:
    """The trials of the report at `path` (results/tuning/DATASET/METHOD/..json), or of all reports below that folder.

    Raises BenchError for a damaged report.
    """
    import pandas

    path = Path(path)
    found = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    return pandas.DataFrame([row for one in found for row in rows(read(one))])
