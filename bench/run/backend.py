"""Where jobs run: what the runner asks of a backend, and the one that runs them in this process.

`bench.run.ray_backend` is the other; it is imported only where it is used, so that `executor=inline` needs no Ray.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from typing import Literal, Protocol

from bench import BenchError
from bench.cell.job import CellScorer, Job, Outcome, Score, Work, train

Kind = Literal["train", "score"]
LOCAL = "local"  # the address of a Ray of this command's own
# A worker that dies, by the kernel's memory killer for instance, is replaced this often; the cell then goes on from its
# last checkpoint. A cell that kills its process every time must end all the same.
RETRIES = 3
# Ray, which is not imported yet, reads these, and its daemons inherit them.
for name, value in {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_oom_retries": str(RETRIES),  # Ray's own default is to retry for ever
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # a cell that asks for no GPU sees none
    "RAY_worker_niceness": "0",  # Ray's own 15 puts cells behind every other program of the machine
}.items():
    os.environ.setdefault(name, value)


class RayLostError(BenchError):
    """The Ray of this command has ended under it: no cell has failed, all go on from their checkpoints."""

    def __init__(self) -> None:
        super().__init__("Ray has ended on this machine. The same command goes on from the last checkpoints.")


class Backend(Protocol):
    """Runs jobs: `admit` and `submit` them one by one, `wait` for the ends of those that run, and `close` at last."""

    def admit(self, waiting: Iterable[Job]) -> Job | None:
        """The job to train next; None while there is no room for any. It must be submitted."""
        ...

    def submit(self, kind: Kind, job: Job) -> None:
        """Start an admitted job (`train`), or a trained one (`score`)."""
        ...

    def wait(self) -> list[tuple[Kind, Job, Outcome]]:
        """Jobs that have ended; an empty list where none has for a moment. Raises RayLostError."""
        ...

    def widen(self, job: Job) -> bool:
        """Give a job that ran out of GPU memory more of it, once; False where there is no more to give."""
        ...

    def close(self, stopped: bool) -> None:
        """End what the backend started: with `stopped` the running cells too, which keep their checkpoints."""
        ...


class InlineBackend:
    """Runs cells one after another in this process, for debugging: breakpoints work, prints reach the terminal."""

    def __init__(self, work: Work | None = None, score: Score | None = None) -> None:
        self._work = work
        self._scorer = CellScorer(score)
        self._submitted: deque[tuple[Kind, Job]] = deque()

    def admit(self, waiting: Iterable[Job]) -> Job | None:
        """One job at a time, in order."""
        return None if self._submitted else next(iter(waiting), None)

    def submit(self, kind: Kind, job: Job) -> None:
        """Take a job; it is run by `wait`."""
        self._submitted.append((kind, job))

    def wait(self) -> list[tuple[Kind, Job, Outcome]]:
        """Run the oldest job and return how it ended."""
        kind, job = self._submitted.popleft()
        outcome = self._scorer.score(job) if kind == "score" else train(job, self._work, capture=False)
        return [(kind, job, outcome)]

    def widen(self, job: Job) -> bool:
        """There is nothing wider than this process."""
        return False

    def close(self, stopped: bool) -> None:
        """End the scorer."""
        self._scorer.close()
