"""Cells one after another in this process, for debugging: breakpoints work, prints reach the terminal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from bench.cell.job import Job, Outcome, Score, ScoringDesk, Work, train


class InlineBackend:
    """Runs a job inside `wait`. The same four calls as `RayBackend`."""

    def __init__(self, work: Work | None = None, score: Score | None = None) -> None:
        self._work = work
        self._desk = ScoringDesk(score)
        self._waiting: deque[tuple[str, Job]] = deque()

    def next_of(self, waiting: Iterable[Job]) -> Job | None:
        """One job at a time, in order."""
        return None if self._waiting else next(iter(waiting), None)

    def widen(self, job: Job) -> bool:
        """There is nothing wider than this process."""
        return False

    def submit(self, kind: str, job: Job) -> None:
        """Take a job of kind `train` or `score`."""
        self._waiting.append((kind, job))

    def wait(self) -> list[tuple[str, Job, Outcome]]:
        """Run the oldest job and return how it ended."""
        kind, job = self._waiting.popleft()
        outcome = self._desk.score(job) if kind == "score" else train(job, self._work, capture=False)
        return [(kind, job, outcome)]

    def close(self, stopped: bool) -> None:
        """End the scorer."""
        self._desk.close()
