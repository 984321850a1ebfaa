"""MLflow as a view of a run, kept by a thread of the driver so that training never waits for a database."""

from __future__ import annotations

import queue
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

from bench.execution.job import Job, sentence
from bench.execution.progress import Row
from bench.home import Home

DRAIN_SECONDS = 60.0  # a database that takes longer than this at the end of a run is given up, with a warning


class Tracking:
    """Hands what happens to the tracker, in order. Whatever the tracker raises is told once and stops no cell."""

    def __init__(
        self, make_tracker: Callable[[], Any], dataset: str, command: str, warn: Callable[[str], None]
    ) -> None:
        self._make_tracker, self._dataset, self._command, self._warn = make_tracker, dataset, command, warn
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._runs: dict[str, str] = {}
        self._tracker: Any = None
        self._parent: Any = None
        self._broken = False
        self._thread = Thread(target=self._loop, name="mlflow", daemon=True)
        self._queue.put(self._open)
        self._thread.start()

    def start(self, job: Job, cell: Any) -> None:
        """A cell begins: its nested run is made, or taken up again."""

        def begin() -> None:
            self._runs[job.key] = self._tracker.start_cell(cell, self._parent)

        self._queue.put(begin)

    def curves(self, job: Job, rows: list[Row]) -> None:
        """New rows of a cell's curves."""
        self._queue.put(lambda: self._tracker.log_epoch(self._runs[job.key], rows))

    def finish(self, job: Job, record: Any) -> None:
        """A cell has ended with `record`."""
        self._queue.put(lambda: self._tracker.finish(self._runs[job.key], record, Path(job.folder)))

    def finish_trial(self, job: Job, state: str, value: float | None, message: str | None) -> None:
        """The trial of a search has ended."""
        self._queue.put(lambda: self._tracker.finish_trial(self._runs[job.key], state, value, message))

    def close(self, stopped: bool) -> None:
        """Wait until all is written.

        With `stopped` the command's run and those of its running cells stay open: the next command takes the cells' up
        again or closes them as killed.
        """
        if not stopped:
            self._queue.put(lambda: self._tracker.end_parent(self._parent))
        self._queue.put(None)
        self._thread.join(DRAIN_SECONDS)
        if self._thread.is_alive():
            self._warn(f"MLflow still writes after {DRAIN_SECONDS:.0f} s and is left behind; the records are whole")

    def _open(self) -> None:
        self._tracker = self._make_tracker()
        self._parent = self._tracker.start_parent(self._dataset, self._command)

    def _loop(self) -> None:
        while (step := self._queue.get()) is not None:
            if self._broken:
                continue
            try:
                step()
            except Exception as error:  # whatever a database, a server or a full disk raises: the records stand
                self._broken = True
                self._warn(f"MLflow is not kept up in this run ({sentence(error)}); the records are not affected")


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
    """Tracking at `uri` (None: the home's own database), or none for `off`."""
    if uri == "off":
        return NoTracking()

    def make_tracker() -> Any:
        from bench.records.tracking import Tracker

        return Tracker(uri or home.mlflow_uri, home)

    return Tracking(make_tracker, dataset, command, warn)
