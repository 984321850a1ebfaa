"""MLflow as a view of a run, kept by a thread of the driver so that training never waits for a database."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from bench.cell.job import Job, sentence
from bench.home import Home
from bench.records.curves import Row
from bench.tracking.gallery import Gallery
from bench.tracking.stores import OFF, shown

DRAIN_SECONDS = 60.0  # a database that takes longer than this at the end of a run is given up, with a warning
LATER = "the records are not affected, and bench mlflow sync writes from them what is missing"


class Tracking:
    """Hands what happens to the tracker, in order. Whatever the tracker raises is told once and stops no cell."""

    def __init__(
        self, make_tracker: Callable[[], Any], dataset: str, command: str, warn: Callable[[str], None], home: Home
    ) -> None:
        self._make_tracker, self._dataset, self._command = make_tracker, dataset, command
        self._warn, self._gallery = warn, Gallery(home)
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._runs: dict[str, str | None] = {}  # by key; None: another command has the cell and its run
        self._parents: dict[str, str] = {}  # by method
        self._ended: set[str] = set()
        self._tracker: Any = None
        self._broken = False
        self._thread = Thread(target=self._loop, name="mlflow", daemon=True)
        self._queue.put(self._open)
        self._thread.start()

    def start(self, job: Job, cell: Any) -> None:
        """A cell begins: its nested run is made, or taken up again."""

        def begin() -> None:
            method = str(job.config["method"])
            if method not in self._parents:
                self._parents[method] = self._tracker.start_parent(self._dataset, method, self._command)
            self._runs[job.key] = self._tracker.start_cell(cell, self._parents[method])

        self._queue.put(begin)

    def curves(self, job: Job, rows: list[Row]) -> None:
        """New rows of a cell's curves."""
        self._put(job, lambda run: self._tracker.log_epoch(run, rows))

    def finish(self, job: Job, record: Any) -> None:
        """A cell has ended with `record`."""

        def end(run: str) -> None:
            asked = record, Path(job.folder), job.config.get("dataset_path")
            self._tracker.finish(run, *asked[:2], self._gallery.table(*asked), self._gallery.pictures(*asked))
            self._ended.add(job.key)

        self._put(job, end)

    def finish_trial(self, job: Job, state: str, value: float | None, message: str | None) -> None:
        """The trial of a search has ended."""

        def end(run: str) -> None:
            self._tracker.finish_trial(run, state, value, message)
            self._ended.add(job.key)

        self._put(job, end)

    def close(self, stopped: bool) -> None:
        """Wait until all is written.

        With `stopped` the runs of the command and of its running cells end as killed; the same command takes the cells' up
        again.
        """
        self._queue.put(lambda: self._end(stopped))
        self._queue.put(None)
        self._thread.join(DRAIN_SECONDS)
        if self._thread.is_alive():
            self._warn(f"MLflow still writes after {DRAIN_SECONDS:.0f} s and is left behind; {LATER}")

    def _put(self, job: Job, tell: Callable[[str], None]) -> None:
        def step() -> None:
            run = self._runs[job.key]
            if run is not None:
                tell(run)

        self._queue.put(step)

    def _open(self) -> None:
        self._tracker = self._make_tracker()
        self._tracker.close_stale(self._dataset)

    def _end(self, stopped: bool) -> None:
        for key, run in self._runs.items():
            if run is not None and key not in self._ended:
                self._tracker.kill(run)
        for parent in self._parents.values():
            (self._tracker.kill if stopped else self._tracker.end_parent)(parent)

    def _loop(self) -> None:
        while (step := self._queue.get()) is not None:
            if self._broken:
                continue
            try:
                step()
            except Exception as error:  # whatever a database, a server or a full disk raises: the records stand
                self._broken = True
                self._warn(f"MLflow is not kept up in this run ({shown(sentence(error))}); {LATER}")


class NoTracking:
    """The same calls, for `mlflow=off`."""

    def start(self, job: Job, cell: Any) -> None: ...

    def curves(self, job: Job, rows: list[Row]) -> None: ...

    def finish(self, job: Job, record: Any) -> None: ...

    def finish_trial(self, job: Job, state: str, value: float | None, message: str | None) -> None: ...

    def close(self, stopped: bool) -> None: ...


def open_tracking(
    uri: str | None, home: Home, dataset: str, command: str, warn: Callable[[str], None]
) -> Tracking | NoTracking:
    """Tracking at `uri` (None: the home's own database), or none for `off`. The command is told without passwords."""
    if uri == OFF:
        return NoTracking()

    def make_tracker() -> Any:
        from bench.tracking.client import Tracker

        return Tracker(uri or home.mlflow_uri, home)

    return Tracking(make_tracker, dataset, shown(command), warn, home)
