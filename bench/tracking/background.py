"""MLflow as a view of a run, kept by a thread of the driver so that training never waits for a database."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from bench.cell.job import Job, sentence
from bench.home import Home
from bench.records.curves import Row
from bench.records.schema import Record
from bench.tracking.content import CellLike
from bench.tracking.stores import OFF, shown

DRAIN_SECONDS = 60.0  # a database that takes longer than this at the end of a run is given up, with a warning
LATER = "the records are not affected, and bench mlflow sync writes from them what is missing"


class Tracker(Protocol):
    """What a tracker is called for, in this order; `bench.tracking.client` has MLflow's. All may raise what their store does."""

    def close_stale(self, dataset: str) -> int: ...

    def start_parent(self, dataset: str, method: str, command: str) -> str: ...

    def start_cell(self, cell: CellLike, parent: str) -> str | None: ...

    def log_epoch(self, run_id: str, rows: Sequence[Row]) -> None: ...

    def finish(
        self,
        run_id: str,
        record: Record,
        folder: Path,
        table: Mapping[str, Sequence[Any]] | None,
        pictures: Mapping[str, Sequence[Any]],
    ) -> None: ...

    def finish_trial(self, run_id: str, state: str, value: float | None, message: str | None) -> None: ...

    def kill(self, run_id: str) -> None: ...

    def end_parent(self, parent: str) -> None: ...


class Tracking:
    """Hands what happens to the tracker, in order. Whatever the tracker raises is one warning and stops no cell."""

    def __init__(
        self, make_tracker: Callable[[], Tracker], dataset: str, command: str, warn: Callable[[str], None], home: Home
    ) -> None:
        self._make_tracker, self._dataset, self._command = make_tracker, dataset, command
        self._warn, self._home = warn, home
        self._queue: queue.Queue[Callable[[Tracker], None] | None] = queue.Queue()
        self._runs: dict[str, str | None] = {}  # by key; None: another command has the cell and its run
        self._parents: dict[str, str] = {}  # by method
        self._ended: set[str] = set()
        self._gallery: Any = None  # made with the first cell that ends
        self._queue.put(self._close_stale)
        self._thread = Thread(target=self._loop, name="mlflow", daemon=True)
        self._thread.start()

    def start(self, job: Job, cell: CellLike) -> None:
        """A cell begins: its nested run is made, or taken up again."""

        def begin(tracker: Tracker) -> None:
            method = str(job.config["method"])
            if method not in self._parents:
                self._parents[method] = tracker.start_parent(self._dataset, method, self._command)
            self._runs[job.key] = tracker.start_cell(cell, self._parents[method])

        self._queue.put(begin)

    def curves(self, job: Job, rows: list[Row]) -> None:
        """New rows of a cell's curves."""
        self._put(job, lambda tracker, run: tracker.log_epoch(run, rows))

    def finish(self, job: Job, record: Record) -> None:
        """A cell has ended with `record`."""

        def end(tracker: Tracker, run: str) -> None:
            self._finish(tracker, run, job, record)
            self._ended.add(job.key)

        self._put(job, end)

    def _finish(self, tracker: Tracker, run: str, job: Job, record: Record) -> None:
        from bench.tracking.gallery import Gallery  # it imports matplotlib: the thread waits, training does not

        self._gallery = self._gallery or Gallery(self._home)
        folder, path = Path(job.folder), job.config.get("dataset_path")
        table, pictures = self._gallery.table(record, folder, path), self._gallery.pictures(record, folder, path)
        tracker.finish(run, record, folder, table, pictures)

    def finish_trial(self, job: Job, state: str, value: float | None, message: str | None) -> None:
        """The trial of a search has ended."""

        def end(tracker: Tracker, run: str) -> None:
            tracker.finish_trial(run, state, value, message)
            self._ended.add(job.key)

        self._put(job, end)

    def close(self, stopped: bool) -> None:
        """Wait until all is written.

        With `stopped` the runs of the command and of its running cells end as killed; the same command takes the cells' up
        again.
        """
        self._queue.put(lambda tracker: self._end(tracker, stopped))
        self._queue.put(None)
        self._thread.join(DRAIN_SECONDS)
        if self._thread.is_alive():
            self._warn(f"MLflow still writes after {DRAIN_SECONDS:.0f} s and is left behind; {LATER}")

    def _put(self, job: Job, step: Callable[[Tracker, str], None]) -> None:
        """Queue a step for the run of a cell, unless the run is another command's."""

        def of_run(tracker: Tracker) -> None:
            run = self._runs[job.key]
            if run is not None:
                step(tracker, run)

        self._queue.put(of_run)

    def _close_stale(self, tracker: Tracker) -> None:
        tracker.close_stale(self._dataset)

    def _end(self, tracker: Tracker, stopped: bool) -> None:
        for key, run in self._runs.items():
            if run is not None and key not in self._ended:
                tracker.kill(run)
        for parent in self._parents.values():
            (tracker.kill if stopped else tracker.end_parent)(parent)

    def _loop(self) -> None:
        try:
            tracker = self._make_tracker()
            while (step := self._queue.get()) is not None:
                step(tracker)
        except Exception as error:  # whatever a database, a server or a full disk raises: the records stand
            self._warn(f"MLflow is not kept up in this run ({shown(sentence(error))}); {LATER}")
            while self._queue.get() is not None:
                pass  # nobody waits for it, and it is not to pile up


class NoTracking:
    """The same calls, for `mlflow=off`."""

    def start(self, job: Job, cell: CellLike) -> None: ...

    def curves(self, job: Job, rows: list[Row]) -> None: ...

    def finish(self, job: Job, record: Record) -> None: ...

    def finish_trial(self, job: Job, state: str, value: float | None, message: str | None) -> None: ...

    def close(self, stopped: bool) -> None: ...


def open_tracking(
    uri: str | None, home: Home, dataset: str, command: str, warn: Callable[[str], None]
) -> Tracking | NoTracking:
    """Tracking at `uri` (None: the home's own database), or none for `off`. Runs name the command without its passwords."""
    if uri == OFF:
        return NoTracking()

    def make_tracker() -> Tracker:
        # Here, because it imports MLflow, for more than a second: the thread waits, training does not.
        from bench.tracking.client import MlflowTracker

        return MlflowTracker(uri or home.mlflow_uri, home)

    return Tracking(make_tracker, dataset, shown(command), warn, home)
