"""`bench run`: skip what is done, train and score the rest, tell how it went."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Protocol

from bench import BenchError
from bench.cell.job import Job, Outcome, Score, Work, state_of
from bench.cell.progress import Watcher
from bench.declare.card import Resources
from bench.declare.registry import find_methods
from bench.declare.settings import given
from bench.home import Home
from bench.records.schema import Record
from bench.records.store import BadRecord, read_record
from bench.run.cluster import LOCAL, RayLostError, nodes
from bench.run.display import Display, Result
from bench.run.inline import InlineBackend
from bench.run.ray_backend import RayBackend
from bench.tracking.background import NoTracking, Tracking, open_tracking
from bench.tracking.stores import check_store, refuse_one_machine

if TYPE_CHECKING:
    from bench.plan.cells import Cell
    from bench.plan.request import RunSpec


ALL_WELL, SOME_FAILED = 0, 1
RETRY = "failed before; add --retry-failed to try it again"


class Backend(Protocol):
    """Where jobs run: `InlineBackend` or `RayBackend`."""

    def next_of(self, waiting: Iterable[Job]) -> Job | None: ...

    def widen(self, job: Job) -> bool: ...

    def submit(self, kind: str, job: Job) -> None: ...

    def wait(self) -> list[tuple[str, Job, Outcome]]: ...

    def close(self, stopped: bool) -> None: ...


def run(
    cells: Sequence[Cell], home: Home, spec: RunSpec, *, work: Work | None = None, score: Score | None = None
) -> int:
    """Bring every cell to a scored record, on Ray or inline; returns the exit status.

    0: all cells are done; 1: some are not; 130 or 143: stopped by Ctrl-C or SIGTERM, the running cells go on from their
    checkpoints when the same command is given again. Raises BenchError before anything starts for requests that no node
    can meet, for results that cannot be written and for an `mlflow=` that cannot be used. `work` and `score` replace
    `run_cell` and `score_cell`.
    """
    _check_writable(home)
    check_store(spec.mlflow, home)
    jobs = {cell.key: _job(cell, home) for cell in cells}
    states = {key: state_of(Path(job.folder)) for key, job in jobs.items()}
    todo = _todo(jobs, states, spec.retry_failed)
    this = _Run(jobs, {cell.key: cell for cell in cells}, states, home)
    begun = time.monotonic()
    status = this.go(todo, spec, work, score) if todo else None
    results = [this.result(key) for key in jobs]
    Display([]).results(results, time.monotonic() - begun)
    if status is not None:
        return status
    return ALL_WELL if all(result.state == "done" for result in results) else SOME_FAILED


def _job(cell: Cell, home: Home) -> Job:
    return Job(cell.key, cell.label, str(cell.folder(home)), str(home.root), cell.config)


def _todo(jobs: dict[str, Job], states: dict[str, str], retry_failed: bool) -> list[tuple[str, Job]]:
    """What is to be done: unscored cells first, since their scores cost seconds; then the cells to train, in order."""
    to_score = [("score", job) for key, job in jobs.items() if states[key] == "unscored"]
    wanted = ("missing", "failed") if retry_failed else ("missing",)
    return to_score + [("train", job) for key, job in jobs.items() if states[key] in wanted]


def _check_writable(home: Home) -> None:
    """Find out now, and not after an hour of training, that results cannot be written."""
    for folder in (home.results, home.work):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise BenchError(
                f"{folder} cannot be written ({error.strerror}): make it writable, or choose another folder for "
                "results with BENCH_HOME=FOLDER"
            ) from error


def resources_of(method: str, spec: RunSpec) -> Resources:
    """What the card of a method asks for, and what the request says instead."""
    entry = find_methods().get(method)
    card = entry.card.resources if entry is not None and entry.card is not None else Resources()
    return card.model_copy(update=given(spec.resources))


class _Run:
    """One command's cells on their way."""

    def __init__(self, jobs: dict[str, Job], cells: dict[str, Cell], states: dict[str, str], home: Home) -> None:
        self._jobs, self._cells, self._home = jobs, cells, home
        self._before = states
        self._outcomes: dict[str, Outcome] = {}
        self._begun: set[str] = set()

    @property
    def dataset(self) -> str:
        """Name of the data set, the same for all cells of a command."""
        return next(str(job.config["dataset"]) for job in self._jobs.values())

    def go(self, todo: list[tuple[str, Job]], spec: RunSpec, work: Work | None, score: Score | None) -> int | None:
        """Work off `todo`; returns an exit status only if stopped by a signal."""
        display = Display([job for _, job in todo])
        with _Signals() as signals:
            try:
                backend = self._backend([job for _, job in todo], spec, work, score)
                signals.listen()  # Ray puts handlers of its own in place when it starts
                self._use(backend, todo, spec, display)
            except KeyboardInterrupt:
                display.say("Stopped. The same command goes on from the last checkpoints.")
                return signals.status
            except RayLostError as error:
                display.say(str(error))
        return None

    def _use(self, backend: Backend, todo: list[tuple[str, Job]], spec: RunSpec, display: Display) -> None:
        command = shlex.join(["bench", *sys.argv[1:]])
        tracking = open_tracking(spec.mlflow, self._home, self.dataset, command, display.say)
        finished = False
        try:
            with display, Watcher(display.move, [display.curves, tracking.curves]) as watcher:
                self._work_off(todo, backend, display, tracking, watcher)
            finished = True
        finally:
            with _deaf():
                backend.close(stopped=not finished)
                tracking.close(stopped=not finished)

    def _backend(self, todo: list[Job], spec: RunSpec, work: Work | None, score: Score | None) -> Backend:
        if spec.executor == "inline":
            if spec.address != LOCAL:
                raise BenchError(
                    f"executor=inline runs cells in this process: leave executor.address={spec.address} out"
                )
            return InlineBackend(work, score)
        cards = {job.key: resources_of(job.config["method"], spec) for job in todo}
        backend = RayBackend(todo, cards, work, score, spec.address, spec.max_concurrent)
        try:
            refuse_one_machine(spec.mlflow, len(nodes()))
        except BenchError:
            backend.close(stopped=True)
            raise
        return backend

    def _work_off(
        self,
        todo: Sequence[tuple[str, Job]],
        backend: Backend,
        display: Display,
        tracking: Tracking | NoTracking,
        watcher: Watcher,
    ) -> None:
        waiting = _Waiting(todo)
        running = 0
        while waiting or running:
            while (step := waiting.next(backend)) is not None:
                kind, job = step
                if job.key not in self._begun:
                    self._begun.add(job.key)
                    tracking.start(job, self._cells[job.key])
                if kind == "train":
                    watcher.add(job)
                display.begin(job, kind)
                backend.submit(kind, job)
                running += 1
            for kind, job, outcome in backend.wait():
                running -= 1
                self._outcomes[job.key] = outcome
                if kind == "train":
                    watcher.remove(job)
                display.end(job, kind, outcome)
                if outcome.out_of_memory and backend.widen(job):
                    display.say(f"{job.label}: once more, alone on a whole GPU")
                    waiting.add("train", job)
                    continue
                if kind == "train" and outcome.state == "unscored":
                    waiting.add("score", job)
                    continue
                record = self._record(job.key)
                if record is not None:
                    tracking.finish(job, record)

    def _record(self, key: str) -> Record | None:
        try:
            return read_record(Path(self._jobs[key].folder) / "record.json")
        except BadRecord:
            return None

    def result(self, key: str) -> Result:
        """The closing row of a cell."""
        job, outcome = self._jobs[key], self._outcomes.get(key)
        record = self._record(key)
        if outcome is not None:
            state, message = outcome.state, outcome.message
        elif key in self._begun:
            state, message = "stopped", ""
        elif self._before[key] == "failed":
            told = f" ({record.failure.message})" if record is not None and record.failure is not None else ""
            state, message = "failed", f"{RETRY}{told}"
        else:
            state, message = self._before[key].replace("missing", "not run"), ""
        if record is None or record.state != "done":
            return Result(job.label, state, None, None, message + _log_of(job, state), outcome is not None)
        cider = record.scores.get(record.split, {}).get("cider")
        return Result(job.label, state, cider, _seconds(record), message, outcome is not None)


class _Waiting:
    """Jobs that are not handed over yet: scores before training, since they cost seconds."""

    def __init__(self, todo: Sequence[tuple[str, Job]]) -> None:
        self._scores = deque(job for kind, job in todo if kind == "score")
        self._cells = {job.key: job for kind, job in todo if kind == "train"}

    def __bool__(self) -> bool:
        return bool(self._scores or self._cells)

    def add(self, kind: str, job: Job) -> None:
        if kind == "score":
            self._scores.append(job)
        else:
            self._cells[job.key] = job

    def next(self, backend: Backend) -> tuple[str, Job] | None:
        """What to hand over now, if anything."""
        if self._scores:
            return "score", self._scores.popleft()
        job = backend.next_of(self._cells.values()) if self._cells else None
        return None if job is None else ("train", self._cells.pop(job.key))


def _log_of(job: Job, state: str) -> str:
    """Where the log of a failed cell lies, from the current folder if it is below that."""
    path = Path(job.folder) / "work" / "log.txt"
    if state != "failed" or not path.is_file():
        return ""
    here = Path.cwd()
    return f"; its log: {path.relative_to(here) if path.is_relative_to(here) else path}"


def _seconds(record: Record) -> float | None:
    if record.ledger is None:
        return None
    parts = (record.ledger.fit_seconds, record.ledger.decode_seconds, record.ledger.score_seconds)
    return sum(part for part in parts if part is not None)


class _Signals:
    """Makes SIGINT and SIGTERM a KeyboardInterrupt, and keeps which it was: Ray's C code passes on no other exception."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._caught = signal.SIGINT.value
        self._mine = threading.current_thread() is threading.main_thread()  # handlers are the main thread's

    def __enter__(self) -> _Signals:
        self._before = [signal.getsignal(number) for number in self.NUMBERS]
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        if self._mine:
            for number, handler in zip(self.NUMBERS, self._before, strict=True):
                signal.signal(number, handler)

    @property
    def status(self) -> int:
        """The exit status that tells a shell which signal ended the command."""
        return 128 + self._caught

    def listen(self) -> None:
        """Take the signals, also back from others who have taken them since."""
        if self._mine:
            for number in self.NUMBERS:
                signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._caught = number
        raise KeyboardInterrupt


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Ignore further signals while what was started is being ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(number, signal.SIG_IGN) for number in _Signals.NUMBERS]
    try:
        yield
    finally:
        for number, handler in zip(_Signals.NUMBERS, before, strict=True):
            signal.signal(number, handler)
