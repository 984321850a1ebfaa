"""What happens to one cell inside the process that trains or scores it, whoever placed it there.

Nothing is raised for what goes wrong in a cell: a job ends in an `Outcome`, so that one cell never stops another.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from bench import BenchError
from bench.cell.provenance import GPU_SHARE
from bench.cell.repeatable import before_torch
from bench.disk.locks import CellBusyError, cell_lock
from bench.errors import ChangedError, masked
from bench.evaluation.metrics import outdated
from bench.home import Home
from bench.plan.cells import Cell
from bench.plan.sharing import tensors_of
from bench.plan.states import RESUME
from bench.records.schema import Failure, Record, impersonal, public
from bench.records.store import RECORD, BadRecord, read_record, write_record

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
NO_MEMORY = ("can't allocate memory", "out of memory")  # how torch says it, on CPU and on GPU
# Names and values of glibc's <malloc.h>, and the largest that it takes.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8
LARGEST = 2**31 - 1
Work = Callable[[dict[str, Any], str], None]  # run_cell(config, root)
Score = Callable[[dict[str, Any], str, Any], None]  # score_cell(config, root, scorer)


@dataclass(frozen=True)
class Job:
    """One cell as plain data: what crosses into a worker process. `folder` is the cell's, `root` the home's.

    `gpus` is its share of a GPU once it is placed; `again` says that it ran out of a smaller share before.
    """

    key: str
    label: str
    folder: str
    root: str
    config: dict[str, Any]
    gpus: float = 0.0
    again: bool = False

    @classmethod
    def of(cls, cell: Cell, home: Home) -> Job:
        """The job of a planned cell."""
        return cls(cell.key, cell.label, str(cell.folder(home)), str(home.root), cell.config)

    @property
    def threads(self) -> int:
        return int(self.config.get("threads") or 1)


@dataclass(frozen=True)
class Outcome:
    """How a job ended: done, unscored, failed, busy (another command has the cell), stopped (by the user) or unreadable (its
    folder holds a record that cannot be read)."""

    state: str
    message: str = ""
    pid: int = 0
    out_of_memory: bool = False


def state_of(folder: Path) -> str:
    """State of the record in `folder`: done, unscored or failed; missing without one; unreadable: there is one, and it is
    left alone until a person decides what becomes of it.

    Scores of another metric or tokenizer version count for nothing: such a cell is unscored, its training is kept.
    """
    try:
        record = read_record(folder / RECORD)
    except BadRecord as error:
        return "missing" if error.absent else "unreadable"
    if record.state == "done" and outdated(record.signatures.get(record.split, {})):
        return "unscored"
    return record.state


def train(job: Job, work: Work | None = None, capture: bool = True) -> Outcome:
    """Fit and decode one cell in this process. `work` defaults to `bench.cell.fit.run_cell`.

    With `capture` everything the process prints goes to `work/log.txt` of the cell, tracebacks always do.
    """
    folder = Path(job.folder)
    try:
        with cell_lock(Home(Path(job.root)), job.key):
            before = state_of(folder)
            if before in ("done", "unscored", "unreadable"):  # another command had it while this one waited
                return Outcome(before, pid=os.getpid())
            (folder / RECORD).unlink(missing_ok=True)  # of a failure that is being retried
            with _log(folder, capture) as log:
                return _train(job, work, log)
    except CellBusyError as error:
        return Outcome("busy", str(error), os.getpid())
    except OSError as error:
        return Outcome("failed", _no_room(error, folder), os.getpid())


def _train(job: Job, work: Work | None, log: TextIO) -> Outcome:
    folder = Path(job.folder)
    try:
        settle(job)
        if work is None:
            from bench.cell.fit import run_cell

            work = run_cell
        work(job.config, job.root)
    except (Exception, SystemExit) as error:
        log.write(masked(traceback.format_exc()))
        log.flush()
        message = sentence(error, job)
        if not isinstance(error, ChangedError):
            record_failure(job, type(error).__name__, message)
        return Outcome("failed", message, os.getpid(), out_of_memory(error))
    state = state_of(folder)
    if state not in ("done", "unscored"):
        message = f"the cell ended without a finished record in {folder}"
        record_failure(job, "MissingRecord", message)
        return Outcome("failed", message, os.getpid())
    return Outcome(state, pid=os.getpid())


def sentence(error: BaseException, job: Job | None = None) -> str:
    """One line for a person: a BenchError's own sentence, otherwise the type and the message of the error.

    Where the memory did not suffice it tells which job did not fit, how large its batches are, and in what.
    """
    text = masked(" ".join(str(error).split()))
    if isinstance(error, BenchError):
        return text
    if isinstance(error, OSError) and error.errno in FULL:
        return _no_room(error)
    if out_of_memory(error):
        return _too_large(job, text)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _too_large(job: Job | None, text: str) -> str:
    lower = "lower train.captions, search.clips or model.width"
    if job is None:
        return f"the memory does not suffice ({text}): {lower}"
    batch = job.config.get("train", {}).get("captions")
    where = "a GPU" if "CUDA" in text else "the memory of this machine"
    if 0 < job.gpus < 1:
        where, lower = f"{job.gpus:g} of a GPU", f"give it more with resources.gpus, or {lower}"
    batches = f", in batches of {batch} captions," if batch else ""
    return f"{job.label}{batches} does not fit into {where} ({text}): {lower}"


def out_of_memory(error: BaseException) -> bool:
    """Whether that is what an error says, of a GPU or of the machine."""
    return isinstance(error, MemoryError) or any(words in str(error) for words in NO_MEMORY)


def _no_room(error: OSError, folder: Path | None = None) -> str:
    """The sentence for a file that could not be written: which one, why, and what to do."""
    place = error.filename or folder
    where = f"{place}: " if place else ""
    return f"{where}{error.strerror or error}; make room there or set BENCH_HOME, and run the same command again"


def record_failure(job: Job, kind: str, message: str) -> None:
    """Write a failed record unless the cell has already written a record of its own.

    A disk that is full or read-only leaves the cell without a record: it then counts as missing and is run again.
    """
    folder = Path(job.folder)
    if state_of(folder) != "missing":
        return
    failure = Failure(stage="fit", type=kind, message=impersonal(message), log="work/log.txt")
    with contextlib.suppress(OSError):
        write_record(folder, Record(schema=1, key=job.key, state="failed", config=public(job.config), failure=failure))


def settle(job: Job) -> None:
    """Keep this process to the threads and the share of a GPU that `job` was given: a worker may have served another before.

    Memory that its steps free is kept for the next, what an earlier cell left is given back. Libraries that are not imported yet
    read their threads in the environment, records the share.
    """
    before_torch()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(job.threads)
    keep_freed()
    forget_peak()
    os.environ[GPU_SHARE] = f"{job.gpus:g}{' again' if job.again else ''}"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(job.threads)
    if 0 < job.gpus < 1:
        import torch

        if torch.cuda.is_available():  # two cells on one GPU would otherwise take what they find
            whole = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(tensors_of(job.gpus, whole))


def keep_freed() -> None:
    """Let this process reuse what it frees instead of giving it back to the system, as far as its C library allows.

    Tensors of a step are larger than glibc keeps by itself: it maps each anew, and the system clears every page of it (on one
    thread a quarter of the time of HAIL's step in bfloat16, a fifth of an encoder's). The process then stays as large as it was
    at its largest. There is one heap for all threads, for large blocks only fit into the first. For processes of bench's
    own: nothing of it can be undone.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, LARGEST)):
            library.mallopt(option, value)


def forget_peak() -> None:
    """Begin to measure the most memory that this process takes, as far as its system and C library can: a worker trains many
    cells, and the peak of one is not to stand in the record of the next."""
    if platform.libc_ver()[0] == "glibc":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # VmHWM of /proc/self/status
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_initialized():
        sys.modules["torch"].cuda.reset_peak_memory_stats()


@contextlib.contextmanager
def _log(folder: Path, capture: bool) -> Iterator[TextIO]:
    """Open the cell's log; with `capture`, point standard output and error of the whole process, C code too, at it."""
    path = folder / "work" / "log.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", buffering=1) as log:
        if not capture:
            yield log
            return
        sys.stdout.flush()
        sys.stderr.flush()
        saved = os.dup(1), os.dup(2)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield log
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, copy in enumerate(saved, start=1):
                os.dup2(copy, descriptor)
                os.close(copy)


class CellScorer:
    """The machine's one scorer. It starts with the first cell and keeps its Java process warm until `close`.

    `score` replaces `bench.cell.scores.score_cell`; it then gets None for a scorer.
    """

    def __init__(self, score: Score | None = None) -> None:
        self._score = score
        self._scorer: Any = None

    def score(self, job: Job) -> Outcome:
        """Fill in the scores of an unscored cell. What goes wrong leaves the cell unscored: no training is lost."""
        folder = Path(job.folder)
        try:
            with cell_lock(Home(Path(job.root)), job.key):
                if state_of(folder) == "done":
                    return Outcome("done", pid=os.getpid())
                self._fill(job)
                (folder / "work" / RESUME).unlink(missing_ok=True)  # of one that was killed as it ended
        except CellBusyError as error:
            return Outcome("busy", str(error), os.getpid())
        except Exception as error:
            with contextlib.suppress(OSError), _log(folder, capture=False) as log:
                log.write(masked(traceback.format_exc()))
            return Outcome("unscored", sentence(error), os.getpid())
        return Outcome(state_of(folder), pid=os.getpid())

    def _fill(self, job: Job) -> None:
        if self._score is not None:
            self._score(job.config, job.root, None)
            return
        from bench.cell.scores import score_cell
        from bench.evaluation.scorer import Scorer

        if self._scorer is None:
            self._scorer = Scorer(cache=Home(Path(job.root)).tokens)
        score_cell(job.config, job.root, self._scorer)

    def close(self) -> None:
        """End the Java processes."""
        if self._scorer is not None:
            self._scorer.close()
        self._scorer = None
