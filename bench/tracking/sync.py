"""`bench mlflow sync`: the MLflow view made again from what lies in the results folder. What is there already stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mlflow.exceptions import MlflowException

from bench import BenchError
from bench.errors import first_line
from bench.home import Home
from bench.plan.cells import Cell
from bench.records.curves import read_curves
from bench.records.schema import Record
from bench.records.store import BadRecord, all_records, cell_folder
from bench.tracking.client import MlflowTracker, digest
from bench.tracking.content import CellLike, span
from bench.tracking.gallery import Gallery
from bench.tracking.stores import OFF, check_store, shown


@dataclass(frozen=True)
class Entry:
    """One run that should be there: `mark` is what it has to show, `write` logs all of it, `began` is in ms."""

    cell: CellLike
    mark: str
    write: Callable[[MlflowTracker, str], None]
    began: int | None = None

    @property
    def dataset(self) -> str:
        return str(self.cell.config["dataset"])

    @property
    def method(self) -> str:
        return str(self.cell.config["method"])


@dataclass
class Synced:
    """How many runs were written anew or brought up to date, were whole before, belong to a command that still runs; and how
    many runs of killed commands were closed."""

    written: int = 0
    kept: int = 0
    busy: int = 0
    closed: int = 0
    parents: dict[tuple[str, str], str] = field(default_factory=dict)


def records(home: Home, dataset: str | None, path: str | None, bad: list[BadRecord]) -> list[Entry]:
    """The records of the results folder (of one data set, whose file is `path`); unreadable ones are appended to `bad`."""
    gallery = Gallery(home)
    return [_of_record(record, home, gallery, path) for record in all_records(home.results, dataset, bad)]


def _of_record(record: Record, home: Home, gallery: Gallery, path: str | None) -> Entry:
    folder = cell_folder(home.results, record)

    def write(tracker: MlflowTracker, run: str) -> None:
        tracker.log_epoch(run, read_curves(folder))
        table, pictures = gallery.table(record, folder, path), gallery.pictures(record, folder, path)
        tracker.finish(run, record, folder, table, pictures)

    return Entry(Cell(record.config), digest(record), write, span(record)[0])


def sync(
    entries: Sequence[Entry],
    uri: str | None,
    home: Home,
    command: str,
    dataset: str | None,
    say: Callable[[str], None],
) -> Synced:
    """Write the runs that are missing or not up to date in the store at `uri` (None: the home's own database).

    Running runs of `dataset` (None: of all) whose command is gone are closed as killed. Raises BenchError for a store that
    cannot be used or is lost on the way; the same command then goes on.
    """
    if uri == OFF:
        raise BenchError("mlflow=off keeps no runs: leave it out, or name a store that is to be written")
    place = uri or home.mlflow_uri
    check_store(place, home)
    done = Synced()
    try:
        tracker = MlflowTracker(place, home)
        names = [dataset] if dataset else [*tracker.datasets(), *(entry.dataset for entry in entries)]
        for name in dict.fromkeys(names):
            done.closed += tracker.close_stale(name)
            _sync(tracker, name, [entry for entry in entries if entry.dataset == name], shown(command), done, say)
    except (MlflowException, OSError) as error:
        reason = shown(first_line(error))
        raise BenchError(
            f"MLflow at {shown(place)} cannot be written any more ({reason}): {done.written} runs are; mend it and give "
            "the same command again"
        ) from error
    return done


def _sync(
    tracker: MlflowTracker,
    dataset: str,
    entries: Sequence[Entry],
    command: str,
    done: Synced,
    say: Callable[[str], None],
) -> None:
    there = tracker.recorded(dataset)
    todo = [entry for entry in entries if there.get(entry.cell.key) != entry.mark]
    done.kept += len(entries) - len(todo)
    if todo:
        say(f"{dataset}: {len(todo)} of {len(entries)} runs to be written")
    for entry in todo:
        parent = None
        if entry.cell.key not in there:
            family = (dataset, entry.method)
            parent = done.parents.get(family) or tracker.collection(dataset, entry.method, command)
            done.parents[family] = parent
        run = tracker.start_cell(entry.cell, parent, entry.began)
        if run is None:
            done.busy += 1
            continue
        entry.write(tracker, run)
        done.written += 1
