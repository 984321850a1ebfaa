"""`bench tune`: search, choose on validation clips, train the chosen points anew over the seeds, bring the pages up to date."""

from __future__ import annotations

import importlib.util

from bench import BenchError
from bench.cell.inputs import budget_of
from bench.declare.registry import MethodEntry, dataset
from bench.disk.locks import CellBusyError, cell_lock
from bench.evaluation.metrics import METRICS
from bench.home import Home
from bench.plan.cells import Cell, cells, requested
from bench.run.greeting import check_places
from bench.run.prepare import prepare, refuse_empty_splits
from bench.run.runner import Signals
from bench.run.runner import run as run_cells
from bench.tuning import storage
from bench.tuning.request import TuneSpec
from bench.tuning.study import Report, Study, in_words, load, scheduled, studies

FAILED = 1


def tune(spec: TuneSpec, home: Home, entries: dict[str, MethodEntry]) -> int:
    """Run the searches of a request one after the other, each on all of Ray, then the last stage; returns the exit status.

    Searches and cells that are done are kept. Raises BenchError before anything starts for what cannot run.
    """
    _refuse(spec)
    check_places(spec.run, home)
    studies(spec, home, entries, ready=False)
    definition = dataset(spec.run.dataset)
    asked = requested(spec.run, home, entries)
    refuse_empty_splits(definition, home, asked[0].config["splits"], spec.run.subset, spec.run.split)
    prepare(definition, home, spec.run.subset, {stream for cell in asked for stream in cell.config["streams"]})
    made = studies(spec, home, entries)
    for study in made:
        for point in study.points or [study.first]:
            study.cell(point, home)  # settings that cannot go together are found now
    with Signals() as signals:
        try:
            reports = [(study, _searched(study, home, signals)) for study in made]
        except KeyboardInterrupt:
            print("Stopped. The same command goes on with the trials that are left.", flush=True)
            return signals.status
    lost = [study.row for study, report in reports if report.chosen is None]
    last = [cell for study, report in reports for cell in last_stage(study, report, home)]
    status = run_cells(last, home, spec.run) if last else FAILED
    for row in lost:
        print(f"{row}: no trial of the search has a score, and nothing was chosen")
    return max(status, FAILED) if lost else status


def _searched(study: Study, home: Home, signals: Signals) -> Report:
    try:
        with cell_lock(home, study.digest, wait=0):
            return _search(study, home, signals)
    except CellBusyError as error:
        raise BenchError(
            f"another command (process {error.holder or 'unknown'}) is at this search of {study.row}: wait until it is done, "
            "then give the same command again"
        ) from None


def _search(study: Study, home: Home, signals: Signals) -> Report:
    report = load(study, home, budget_of(study.base.config, home))
    if study.spec.run.retry_failed:
        report.trials = [trial for trial in report.trials if trial.state != "failed"]
    kept = sum(trial.state != "interrupted" for trial in report.trials)
    if kept < study.trials or report.chosen is None:
        from bench.tuning.search import search  # it imports Ray Tune

        known = f", {kept} of them tried before" if kept else ""
        print(
            f"{study.row} with {'+'.join(study.streams)}: {study.trials} trials of {', '.join(study.space)}{known}",
            flush=True,
        )
        search(study, report, home, lambda line: print(line, flush=True), signals)
    best = report.best()
    if best is not None:
        metric = METRICS[study.spec.how.metric].title
        print(f"{study.row}: chosen {in_words(best, study.card)}, validation {metric} {best.value:.1f}", flush=True)
    return report


def last_stage(study: Study, report: Report, home: Home) -> list[Cell]:
    """The cells of the chosen point, over the seeds of the request, with the full budget and on its split."""
    best = report.best()
    if report.chosen is None or best is None:
        return []
    run = study.spec.run
    found = cells(study.at(best.point, run, run.seeds, run.split), home, study.entries)
    return [scheduled(cell, best.schedule or [], study.card) for cell in found]


def _refuse(spec: TuneSpec) -> None:
    """What a search cannot be."""
    if spec.run.split == "val":
        raise BenchError("split=val: a search chooses on the validation clips and must report others; leave split= out")
    if spec.run.executor == "inline":
        raise BenchError("executor=inline: a search is run by Ray Tune; leave executor= out")
    if spec.how.storage is not None:
        storage.refuse(spec.how.storage)
    if spec.how.search == "optuna" and importlib.util.find_spec("optuna") is None:
        raise BenchError('search=optuna needs the package optuna: pip install "captionbench[optuna]"')
