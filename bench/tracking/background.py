"""Trackers of a run, told by a thread of the driver so that training never waits for a database."""

from __future__ import annotations

import importlib
import queue
from collections.abc import Callable, Sequence
from functools import partial
from threading import Thread
from typing import Any

from bench.cell.job import Job, sentence
from bench.disk.locks import Note
from bench.home import Home
from bench.plan.stores import OFF, shown
from bench.records.curves import Row
from bench.tracking.base import Entry, Run, Tracker, bring_up_to_date, write
from bench.tracking.content import points, records

LATER = "the records are not affected, and bench mlflow sync writes from them what is missing"
DRAIN_SECONDS = 60.0  # a database that takes longer than this at the end of a run is given up, with a warning

Say = Callable[[str], None]
Make = Callable[[], Tracker]
Entries = Callable[[], Sequence[Entry]]


class Tracking:
    """Hands what happens to the trackers, in order. Whatever one of them raises is one warning and stops no cell.

    First it writes what earlier commands left unwritten, of the records of the data set and of `more`.
    """

    def __init__(
        self,
        makers: dict[str, Make],
        dataset: str,
        home: Home,
        warn: Say,
        more: Entries = tuple,
        note: Note | None = None,
    ) -> None:
        self._makers, self._dataset, self._warn, self._note = makers, dataset, warn, note
        self._trackers: dict[str, Tracker] = {}
        self._mine: set[tuple[Tracker, str]] = set()  # runs that were begun here, by key
        self._over = lambda: [*records(home, dataset), *more()]
        self._queue: queue.Queue[Callable[[Tracker], object] | None] = queue.Queue()
        self._thread = Thread(target=self._loop, name="trackers", daemon=True)
        if note is not None:
            note.leave()
        if makers:
            self._thread.start()
        self.update(self._over)

    def start(self, run: Callable[[], Run]) -> None:
        """A cell or trial begins: its run is made, or taken up again."""

        def begin(tracker: Tracker) -> None:
            if tracker.start(this := run()):
                tracker.parameters(this)
                self._mine.add((tracker, this.key))

        self._put(begin)

    def curves(self, job: Job, rows: list[Row]) -> None:
        """New rows of its curves."""

        def add(tracker: Tracker) -> None:
            if (tracker, job.key) in self._mine:
                tracker.metrics(job.key, points(rows))

        self._put(add)

    def finish(self, entry: Callable[[], Entry]) -> None:
        """It is over: all that is known of it is written, by the command that began its run."""

        def end(tracker: Tracker) -> None:
            if (tracker, (over := entry()).run.key) in self._mine:
                write(tracker, over)

        self._put(end)

    def update(self, entries: Entries) -> None:
        """What is to be shown of runs that are over may have changed."""
        self._put(lambda tracker: bring_up_to_date(tracker, self._dataset, entries()))

    def close(self) -> None:
        """Wait until all is written, cells of this command's that others have ended too; runs of cells that did not end are
        closed as killed, the same command takes them up again."""
        left = [] if self._note is None else self._note.left()
        self.update(self._over)
        self._put(lambda tracker: tracker.close(self._dataset))
        self._put(None)
        if not self._makers:
            return
        self._thread.join(DRAIN_SECONDS)
        if self._thread.is_alive():
            self._warn(f"MLflow still writes after {DRAIN_SECONDS:.0f} s and is left behind; {LATER}")
        elif self._note is not None and len(self._trackers) == len(self._makers):
            self._note.remove(left)

    def _put(self, step: Callable[[Tracker], object] | None) -> None:
        if self._makers:
            self._queue.put(step)

    def _loop(self) -> None:
        for name, make in self._makers.items():
            self._try(name, lambda name=name, make=make: self._trackers.update({name: make()}))  # type: ignore[misc]
        while (step := self._queue.get()) is not None:
            for name, tracker in list(self._trackers.items()):
                self._try(name, partial(step, tracker))

    def _try(self, name: str, step: Callable[[], object]) -> None:
        try:
            step()
        except Exception as error:  # whatever a database, a server or a full disk raises: the records stand
            self._trackers.pop(name, None)
            self._warn(f"{name} is not kept up in this run ({shown(sentence(error))}); {LATER}")


def open_tracking(
    uri: str | None, home: Home, dataset: str, warn: Say, more: Entries = tuple, wandb: str | None = None
) -> Tracking:
    """Tracking by MLflow at `uri` (None: the home's own database, `off`: none) and in the project `wandb` of Weights & Biases.

    They are imported by the thread, each for more than a second.
    """
    makers: dict[str, Make] = {}
    if uri != OFF:
        makers["MLflow"] = partial(_made, "mlflow_runs", "MlflowTracker", uri or home.mlflow_uri, home)
    if wandb:
        makers["Weights & Biases"] = partial(_made, "wandb_runs", "WandbTracker", wandb, home)
    return Tracking(makers, dataset, home, warn, more, None if uri == OFF else _note(uri, home, dataset))


def mend(uri: str | None, home: Home, dataset: str, warn: Say, more: Entries = tuple) -> None:
    """Write what a killed command left unwritten in MLflow, if there is such a thing."""
    if uri != OFF and _note(uri, home, dataset).left():
        open_tracking(uri, home, dataset, warn, more).close()


def _note(uri: str | None, home: Home, dataset: str) -> Note:
    return Note(home.work / "tracking", f"{dataset} {uri or home.mlflow_uri}")


def _made(module: str, name: str, *where: Any) -> Tracker:
    made: Tracker = getattr(importlib.import_module(f"bench.tracking.{module}"), name)(*where)
    return made
