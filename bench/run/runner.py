"""`bench run`: skip what is done, train and score the rest, say how it went."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from bench import BenchError
from bench.cell.folds import score_rows
from bench.cell.job import Job, Outcome, Score, Work, state_of
from bench.cell.progress import Watcher
from bench.declare.card import Resources
from bench.declare.registry import find_methods
from bench.declare.settings import given
from bench.disk.whole import clear_aside
from bench.home import Home
from bench.plan.cells import Cell
from bench.plan.request import Running
from bench.plan.states import DAMAGED, UNREADABLE
from bench.plan.stores import refuse_one_machine
from bench.records.schema import Record
from bench.records.store import RECORD, BadRecord, read_record
from bench.run.backend import Backend, InlineBackend, Kind, RayLostError
from bench.run.display import Display, Result
from bench.run.greeting import check_places
from bench.tracking.background import Tracking, mend, open_tracking
from bench.tracking.content import of_record, run_of

ALL_WELL, SOME_FAILED = 0, 1
RETRY = "failed before; add --retry-failed to try it again"


def run(
    cells: Sequence[Cell],
    home: Home,
    spec: Running,
    *,
    work: Work | None = None,
    score: Score | None = None,
    begun: float | None = None,
) -> int:
    """Bring every cell to a scored record, on Ray or inline; returns the exit status.

    0: all cells are done; 1: some are not; 130 or 143: stopped by Ctrl-C or SIGTERM, the running cells go on from their
    checkpoints when the same command is given again. Raises BenchError before anything starts for requests that no node
    can meet, for results that cannot be written and for an `mlflow=` that cannot be used. `work` and `score` replace
    `run_cell` and `score_cell`. The command began at `begun` of the monotonic clock, now unless given.
    """
    check_places(spec, home)
    for folder in (home.work, home.tokens):  # of which a finished cell's command writes nothing
        clear_aside(folder)
    this = _Run(cells, home, spec)
    begun = begun or time.monotonic()
    status = None
    if this.queue:
        status = this.go(work, score)
    elif cells:
        mend(spec.mlflow, home, str(cells[0].config["dataset"]), print)
    results = this.results()
    Display([]).results(results, time.monotonic() - begun)
    if status is not None:
        return status
    written, told = score_rows(cells, home, score)
    if written:  # the trackers were done before
        open_tracking(spec.mlflow, home, str(cells[0].config["dataset"]), print, wandb=spec.wandb).close()
    for sentence in told:
        print(sentence, file=sys.stderr)
    return ALL_WELL if all(result.state == "done" for result in results) and not told else SOME_FAILED


def resources_of(method: str, spec: Running) -> Resources:
    """What the card of a method asks for, and what the request says instead."""
    entry = find_methods().get(method)
    card = entry.card.resources if entry is not None and entry.card is not None else Resources()
    return card.model_copy(update=given(spec.resources))


class _Queue:
    """Jobs that are not submitted yet: scores before training, since they cost seconds."""

    def __init__(self) -> None:
        self._to_score: deque[Job] = deque()
        self._to_train: dict[str, Job] = {}

    def __bool__(self) -> bool:
        return bool(self._to_score or self._to_train)

    def jobs(self) -> list[Job]:
        """All jobs, those to score first."""
        return [*self._to_score, *self._to_train.values()]

    def add(self, kind: Kind, job: Job) -> None:
        if kind == "score":
            self._to_score.append(job)
        else:
            self._to_train[job.key] = job

    def next(self, backend: Backend) -> tuple[Kind, Job] | None:
        """What to submit now; None while there is nothing or no room."""
        if self._to_score:
            return "score", self._to_score.popleft()
        job = backend.admit(self._to_train.values()) if self._to_train else None
        return None if job is None else ("train", self._to_train.pop(job.key))


class _Run:
    """The cells of one command: the queue of what is to do, and how each job ended."""

    def __init__(self, cells: Sequence[Cell], home: Home, spec: Running) -> None:
        self._home, self._spec = home, spec
        self._jobs = {cell.key: Job.of(cell, home) for cell in cells}
        self._before = {key: state_of(Path(job.folder)) for key, job in self._jobs.items()}
        self._begun: set[str] = set()
        self._outcomes: dict[str, Outcome] = {}
        self.queue = _Queue()
        to_train = ("missing", "failed") if spec.retry_failed else ("missing",)
        for key, job in self._jobs.items():
            if self._before[key] == "unscored":
                self.queue.add("score", job)
            elif self._before[key] in to_train:
                self.queue.add("train", job)

    def go(self, work: Work | None, score: Score | None) -> int | None:
        """Work off the queue; returns an exit status only if stopped by a signal."""
        display = Display(self.queue.jobs())
        with Signals() as signals:
            try:
                backend = self._backend(work, score, display)
                signals.listen()  # Ray puts handlers of its own in place when it starts
                self._use(backend, display)
            except KeyboardInterrupt:
                display.say("Stopped. The same command goes on from the last checkpoints.")
                return signals.status
            except RayLostError as error:
                display.say(str(error))
        return None

    def _backend(self, work: Work | None, score: Score | None, display: Display) -> Backend:
        spec = self._spec
        if spec.executor == "inline":
            return InlineBackend(work, score)
        # Here, because they import Ray, which neither executor=inline nor a command with nothing to do needs.
        from bench.run.cluster import nodes
        from bench.run.ray_backend import RayBackend

        todo = self.queue.jobs()
        cards = {job.key: resources_of(job.config["method"], spec) for job in todo}
        backend = RayBackend(todo, cards, work, score, spec.address, spec.max_concurrent, display.say)
        try:
            refuse_one_machine(spec.mlflow, len(nodes()))
        except BenchError:
            backend.close(stopped=True)
            raise
        return backend

    def _use(self, backend: Backend, display: Display) -> None:
        dataset = str(next(iter(self._jobs.values())).config["dataset"])  # the same for all cells of a command
        tracking = open_tracking(self._spec.mlflow, self._home, dataset, display.say, wandb=self._spec.wandb)
        finished = False
        try:
            watched = Watcher(display.move, [display.curves, tracking.curves], display.remind)
            with display, watched as watcher:
                self._work_off(backend, display, tracking, watcher)
            finished = True
        finally:
            with ignored_signals():
                backend.close(stopped=not finished)
                tracking.close()

    def _work_off(self, backend: Backend, display: Display, tracking: Tracking, watcher: Watcher) -> None:
        """Submit what fits, wait for what ends, until neither is left. A trained cell comes back to be scored."""
        running = 0
        while self.queue or running:
            while (step := self.queue.next(backend)) is not None:
                kind, job = step
                if job.key not in self._begun:
                    self._begun.add(job.key)
                    tracking.start(partial(run_of, job.key, job.config))
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
                    self.queue.add("train", job)
                elif kind == "train" and outcome.state == "unscored":
                    self.queue.add("score", job)
                elif (record := _record_of(job)) is not None:
                    tracking.finish(partial(of_record, record, self._home))

    def results(self) -> list[Result]:
        """The closing rows, one for each cell."""
        return [self._result(job) for job in self._jobs.values()]

    def _result(self, job: Job) -> Result:
        outcome, record = self._outcomes.get(job.key), _record_of(job)
        state, message = self._ending(job, record)
        if state == "unreadable":
            message = _unreadable(job)
        new = outcome is not None
        message = message or "; ".join(record.warnings if record is not None else ())
        damaged = Path(job.folder) / "work" / DAMAGED
        if new and not message and damaged.is_file():
            message = f"a resume state was damaged, and training began anew; it is kept as {damaged}"
        if record is None or record.state != "done":
            return Result(job.label, state, {}, None, message + _log_of(job, state), new)
        return Result(job.label, state, record.scores.get(record.split, {}), _seconds(record), message, new)

    def _ending(self, job: Job, record: Record | None) -> tuple[str, str]:
        """State of a cell at the end of the command, and what there is to say about it."""
        before = self._before[job.key]
        if job.key in self._outcomes:
            return self._outcomes[job.key].state, self._outcomes[job.key].message
        if job.key in self._begun:
            return "stopped", ""
        if before == "failed":
            failure = f" ({record.failure.message})" if record is not None and record.failure is not None else ""
            return "failed", f"{RETRY}{failure}"
        return ("not run" if before == "missing" else before), ""


def _record_of(job: Job) -> Record | None:
    try:
        return read_record(Path(job.folder) / RECORD)
    except BadRecord:
        return None


def _unreadable(job: Job) -> str:
    """What is wrong with the record of a cell that is left alone."""
    try:
        read_record(path := Path(job.folder) / RECORD)
    except BadRecord as error:
        return f"{path}: {error.reason}; {UNREADABLE}"
    return "its record can be read again: give the same command again"


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


class Signals:
    """Makes SIGINT and SIGTERM a KeyboardInterrupt, and keeps which it was: Ray's C code passes on no other exception."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._caught = signal.SIGINT.value
        self._mine = threading.current_thread() is threading.main_thread()  # handlers are the main thread's

    def __enter__(self) -> Signals:
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
def ignored_signals() -> Iterator[None]:
    """Ignore further signals while what was started is being ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = [signal.signal(number, signal.SIG_IGN) for number in Signals.NUMBERS]
    try:
        yield
    finally:
        for number, handler in zip(Signals.NUMBERS, before, strict=True):
            signal.signal(number, handler)
