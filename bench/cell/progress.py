"""Where running cells stand and the new rows of their curves, read from the files that they write."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread

from bench.cell.job import Job
from bench.disk.limits import own_json, own_text
from bench.records.curves import SELECTION, Row, read_curves

POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Position:
    """Where a cell stands. `seconds_left` is None until its speed is known."""

    phase: str
    epoch: int
    captions: int
    budget: int
    values: dict[str, float]
    seconds_left: float | None = None

    @property
    def loss(self) -> float | None:
        return self.values.get("loss")

    @property
    def cider(self) -> float | None:
        return self.values.get(SELECTION)


def read_position(folder: Path, since: float) -> Position | None:
    """Position in `work/progress.json` of a cell's folder; None without one or with one written before `since`.

    The file of an earlier, interrupted attempt stays until the new attempt writes its own.
    """
    path = folder / "work" / "progress.json"
    try:
        if path.stat().st_mtime < since:
            return None
        found = own_json(own_text(path))
        return Position(
            str(found["phase"]),
            int(found["epoch"]),
            int(found["captions"]),
            int(found["budget"]),
            {name: float(value) for name, value in (found.get("values") or {}).items() if value is not None},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # absent, or not ours: the display then shows the cell without a position


class _Watched:
    """One running cell: when it was handed over, and which rows of its curves were passed on."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.since = time.time()
        self.first: tuple[float, int] | None = None
        self.passed_on: set[tuple[str, int, str]] = set()

    def position(self) -> Position | None:
        """Where the cell stands now, with the time left once its speed is known."""
        found = read_position(Path(self.job.folder), self.since)
        if found is None:
            return None
        moment = time.monotonic()
        if self.first is None or found.captions < self.first[1]:
            self.first = (moment, found.captions)
        gained, spent = found.captions - self.first[1], moment - self.first[0]
        left = (found.budget - found.captions) * spent / gained if gained > 0 else None
        return Position(found.phase, found.epoch, found.captions, found.budget, found.values, left)

    def new_rows(self) -> list[Row]:
        """Rows not passed on before. A cell that resumes writes some of its rows again, with the same values."""
        rows = []
        for row in read_curves(Path(self.job.folder)):
            name = (row["phase"], row["epoch"], row["name"])
            if name not in self.passed_on:
                self.passed_on.add(name)
                rows.append(row)
        return rows


class Watcher:
    """Reads the files of running cells once a second in a thread of its own and passes on what is new.

    `ticked` is called after each round, whether anything was new or not.
    """

    def __init__(
        self,
        moved: Callable[[Job, Position], None],
        curves: Sequence[Callable[[Job, list[Row]], None]],
        ticked: Callable[[], None] = lambda: None,
    ) -> None:
        self._moved, self._curves, self._ticked = moved, curves, ticked
        self._watched: dict[str, _Watched] = {}
        self._lock = Lock()
        self._ended = Event()
        self._thread = Thread(target=self._loop, name="watch cells", daemon=True)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def add(self, job: Job) -> None:
        """Watch a cell from now on."""
        with self._lock:
            self._watched[job.key] = _Watched(job)

    def remove(self, job: Job) -> None:
        """Pass on the last rows of a cell and watch it no longer."""
        with self._lock:
            watched = self._watched.pop(job.key, None)
            if watched is not None:
                self._pass_on(watched)

    def _loop(self) -> None:
        while not self._ended.wait(POLL_SECONDS):
            with self._lock:
                for watched in self._watched.values():
                    self._pass_on(watched)
            self._ticked()

    def _pass_on(self, watched: _Watched) -> None:
        position = watched.position()
        if position is not None:
            self._moved(watched.job, position)
        rows = watched.new_rows()
        for receive in self._curves if rows else ():
            receive(watched.job, rows)
