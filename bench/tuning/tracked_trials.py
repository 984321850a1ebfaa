"""The trials of searches as runs of trackers, made from the reports of the results folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.declare.card import TRAIN
from bench.home import Home
from bench.plan.labels import card_of, row, symbol, word
from bench.records.curves import SELECTION, read_curves
from bench.tracking.base import Ending, Entry, Point, Run, State
from bench.tracking.content import BEST, LAYOUT, SHARED, parameters, points, run_of
from bench.tuning.space import by_group
from bench.tuning.study import FOLDER, Report, Trial, read


def trials(home: Home, dataset: str | None = None) -> list[Entry]:
    """Every trial of every search (of one data set)."""
    return [
        entry
        for path in sorted((home.results / FOLDER).glob(f"{dataset or '*'}/*/*.json"))
        for entry in of_report(read(path), path, home)
    ]


def of_report(report: Report, path: Path, home: Home) -> list[Entry]:
    """The trials of the search whose file is `path`."""
    return [of_trial(report, trial, path.stem.rpartition("-")[2], home) for trial in report.trials]


def trial_run(key: str, config: Mapping[str, Any], point: Mapping[str, Any], space: Mapping[str, Any]) -> Run:
    """The run of a trial: named by its point, told from cells by its kind, found by the name of its search."""
    method = config["method"]
    searched = [_parameter(method, name) for name in space]
    search = " ".join([row(config), *(symbol(method, name) for name in space)])
    card = card_of(method)
    printed = card is not None and all(
        name in card.settings and card.settings[name].default == value for name, value in point.items()
    )
    run = run_of(key, config)
    tags = {
        "bench.kind": "trial",
        "search": search,
        "searched": " ".join(searched),
        **({"printed": "yes"} if printed else {}),
    }
    own, shared = by_group(point)
    at = {**config, "settings": {**config["settings"], **own}, "train": {**config["train"], **shared}}
    found = parameters(at) | {_parameter(method, name): str(value) for name, value in point.items()}
    name = " ".join(word(method, *one) for one in point.items())
    return Run(key, run.dataset, search, name, found | {"label": search}, {**run.tags, **tags}, run.inputs)


def of_trial(report: Report, trial: Trial, search: str, home: Home) -> Entry:
    """A trial that is over."""
    chosen = trial.number == report.chosen

    def ending() -> Ending:
        rows = read_curves(home.work / "tune" / search / trial.key)
        tags = {"bench.state": trial.state, "chosen": "yes" if chosen else "no"}
        tags |= {"bench.failure": trial.message} if trial.message else {}
        state: State = "failed" if trial.state == "failed" else "finished"
        values = {} if trial.value is None else {BEST: round(trial.value, 3)}
        return Ending(state, points(rows) or _points(trial), values, tags)

    run = trial_run(trial.key, {**report.config, "tuning": search}, trial.point, report.space)
    return Entry(run, f"{LAYOUT} {trial.state} {trial.value}{' chosen' if chosen else ''}", ending)


def _parameter(method: str, name: str) -> str:
    """The name of a searched setting among the parameters of a run."""
    card = card_of(method)
    letter = card.settings[name].letter if card is not None and name in card.settings else None
    return letter or (name if name.startswith(TRAIN) else f"{method}.{name}")


def _points(trial: Trial) -> list[Point]:
    """The validation curve of a report, where the trial's own files are gone; its epochs stand at even distances of time."""
    length = len(trial.curve)
    return [
        Point(SHARED[SELECTION], value, captions, trial.seconds * (number + 1) / length)
        for number, (captions, value) in enumerate(trial.curve)
    ]
