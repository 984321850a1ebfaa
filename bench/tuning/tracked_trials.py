"""The trials of searches as runs of trackers, made from the reports of the results folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.declare.card import TRAIN
from bench.home import Home
from bench.plan.labels import card_of, label, symbol, word
from bench.records.curves import read_curves
from bench.tracking.base import Ending, Entry, Point, Run, State
from bench.tracking.content import BEST, LAYOUT, parameters, points, run_of
from bench.tuning.space import by_group, printed
from bench.tuning.study import FOLDER, Report, Trial, read

DIGITS = 6  # of a search's digest in its name


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


def trial_run(
    key: str, config: Mapping[str, Any], point: Mapping[str, Any], space: Mapping[str, Any], metric: str = "cider"
) -> Run:
    """The run of a trial: named by its point, told from cells by its kind, found by the name of its search, which ends with the
    first digits of the search's digest: rows are searched more than once."""
    method = config["method"]
    searched = [_parameter(method, name) for name in space]
    settings = [symbol(method, name) for name in space]
    search = " ".join([label({**config, "split": "test"}), *settings, str(config["tuning"])[:DIGITS]])
    run = run_of(key, config)
    tags = {
        "bench.kind": "trial",
        "search": search,
        "searched": " ".join(searched),
        "metric": metric,
        **({"printed": "yes"} if dict(point) == printed(card_of(method), str(config["variant"]), point) else {}),
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
        values = {} if trial.value is None else {f"{BEST}{metric}": round(trial.value, 3)}
        return Ending(state, points(rows) or _points(trial, metric), values, tags)

    metric = report.how.get("metric", "cider")
    run = trial_run(trial.key, {**report.config, "tuning": search}, trial.point, report.space, metric)
    return Entry(run, f"{LAYOUT} {trial.state} {trial.value}{' chosen' if chosen else ''}", ending)


def _parameter(method: str, name: str) -> str:
    """The name of a searched setting among the parameters of a run."""
    card = card_of(method)
    letter = card.settings[name].letter if card is not None and name in card.settings else None
    return letter or (name if name.startswith(TRAIN) else f"{method}.{name}")


def _points(trial: Trial, metric: str) -> list[Point]:
    """The validation curve of a report, where the trial's own files are gone; its epochs stand at even distances of time."""
    length = len(trial.curve)
    return [
        Point(f"val/{metric}", value, captions, trial.seconds * (number + 1) / length)
        for number, (captions, value) in enumerate(trial.curve)
    ]
