"""The cells that lie under `results/`, for `bench list runs`: finished, failed, refused, and those under way."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bench.home import Home
from bench.records.process import alive
from bench.records.store import RECORD, BadRecord, all_records

PROGRESS = Path("work") / "progress.json"


@dataclass(frozen=True)
class RunRow:
    """One cell. `state` is a record's done, unscored or failed; running or interrupted without a record; or refused.

    `scores` are those of its split, on the papers' scale; `note` says why a cell failed or was refused.
    """

    dataset: str
    method: str
    key: str
    state: str
    variant: str | None = None
    seed: int | None = None
    protocol: str | None = None
    scores: tuple[tuple[str, float], ...] = ()
    finished: str | None = None
    note: str = ""


def list_runs(home: Home, dataset: str | None = None) -> list[RunRow]:
    """All cells (of one data set) by data set, method, variant, seed and key."""
    bad: list[BadRecord] = []
    rows = []
    for record in all_records(home.results, dataset, bad):
        failure = record.failure
        rows.append(
            RunRow(
                record.dataset,
                record.method,
                record.key,
                record.state,
                record.variant,
                record.seed,
                record.config["protocol"],
                tuple(record.scores.get(record.split, {}).items()),
                record.provenance.finished if record.provenance else None,
                f"{failure.stage}: {failure.type}: {failure.message}" if failure else "",
            )
        )
    rows += [RunRow(*_place(item.path.parent), "refused", note=item.reason) for item in bad]
    rows += _under_way(home, dataset)
    return sorted(rows, key=lambda row: (row.dataset, row.method, row.variant or "", row.seed or 0, row.key))


def _place(folder: Path) -> tuple[str, str, str]:
    """Data set, method and key from the folder `results/<dataset>/<method>/<key>`."""
    return folder.parents[1].name, folder.parent.name, folder.name


def _under_way(home: Home, dataset: str | None) -> list[RunRow]:
    rows = []
    for path in sorted(home.results.glob(f"{dataset or '*'}/*/*/{PROGRESS.as_posix()}")):
        folder = path.parents[1]
        if (folder / RECORD).exists():
            continue
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            note = f"{told['phase']}, epoch {told['epoch']}, {told['captions']} of {told['budget']} captions"
            state = "running" if alive(int(told["pid"])) else "interrupted"
        except (OSError, ValueError, KeyError, TypeError):  # cut short, or written by something else
            note, state = "its progress cannot be read", "interrupted"
        rows.append(RunRow(*_place(folder), state, note=note))
    return rows
