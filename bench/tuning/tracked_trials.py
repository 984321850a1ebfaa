"""The trials of searches as runs of MLflow, made from the reports of the results folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.home import Home
from bench.records.curves import SELECTION, Row, read_curves
from bench.tracking.client import MlflowTracker
from bench.tracking.sync import Entry
from bench.tuning.space import by_group
from bench.tuning.study import FOLDER, Report, Trial, read


@dataclass(frozen=True)
class TrialCell:
    """A trial under the key that its run is found by."""

    key: str
    label: str
    config: dict[str, Any]


def trials(home: Home, dataset: str | None = None) -> list[Entry]:
    """Every trial of every search (of one data set)."""
    return [
        _entry(report, trial, path.stem.rpartition("-")[2], home)
        for path in sorted((home.results / FOLDER).glob(f"{dataset or '*'}/*/*.json"))
        for report in [read(path)]
        for trial in report.trials
    ]


def _entry(report: Report, trial: Trial, search: str, home: Home) -> Entry:
    config = {**report.config, "tuning": search}
    own, shared = by_group(trial.point)
    config |= {"settings": {**config["settings"], **own}, "train": {**config["train"], **shared}}
    point = " ".join(f"{name}={value}" for name, value in trial.point.items())
    cell = TrialCell(trial.key, f"{report.row} {point} seed {config['seed']}", config)

    def write(tracker: MlflowTracker, run: str) -> None:
        tracker.log_epoch(run, read_curves(home.work / "tune" / search / trial.key) or _rows(trial))
        tracker.finish_trial(run, trial.state, trial.value, trial.message)

    return Entry(cell, trial.state, write)


def _rows(trial: Trial) -> list[Row]:
    """The validation curve of a report, where the trial's own files are gone; its epochs stand at even distances of time."""
    return [
        {
            "phase": "search",
            "epoch": number,
            "captions": captions,
            "seconds": trial.seconds * (number + 1) / len(trial.curve),
            "name": SELECTION,
            "value": value,
        }
        for number, (captions, value) in enumerate(trial.curve)
    ]
