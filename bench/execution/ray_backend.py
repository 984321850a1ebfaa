"""Cells in Ray worker processes, and one scorer for the machine in a process of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from dataclasses import dataclass
from typing import Any

from bench import BenchError
from bench.execution.job import Job, Outcome, Score, ScoringDesk, Work, record_failure, train

# A worker that dies, by the kernel's memory killer for instance, is replaced this often; the cell then goes on from its
# last checkpoint. A cell that kills its process every time must end all the same.
RETRIES = 3
OBJECT_STORE_BYTES = 100 * 2**20  # jobs and outcomes are a few kilobytes; Ray would set aside a third of the memory
POLL_SECONDS = 0.5  # how often a waiting driver gets the chance to see a signal


@dataclass(frozen=True)
class Request:
    """What one cell asks of a node."""

    cpus: float
    gpus: float


def start_ray() -> bool:
    """Start a Ray of this command's own; False where this process is connected to one already.

    `address="local"` keeps clear of whatever cluster an earlier `ray start` left on this machine.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # Ray's own default is to retry for ever
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # a cell that asks for no GPU sees none
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # Ray's own 15 puts cells behind every other program of the machine
    import ray

    if ray.is_initialized():
        return False
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
        )
    except (RuntimeError, OSError, ConnectionError, TimeoutError) as error:
        reason = str(error).strip().splitlines()
        raise BenchError(
            f"Ray does not start on this machine ({reason[0] if reason else type(error).__name__}): "
            "free memory and space in the temporary folder, or run the cells in this process with executor=inline"
        ) from error
    return True


def largest_node() -> Request:
    """Processors and GPUs of the largest single node: no cell can have more, whatever the cluster adds up to."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Request(max(node.get("CPU", 0.0) for node in nodes), max(node.get("GPU", 0.0) for node in nodes))


def request_of(job: Job, card: Request, node: Request) -> Request:
    """What `job` asks for: its threads, and on a node with GPUs its card's share of one unless `device=cpu`.

    A card that names no GPU still gets a whole one under `device=auto` or `device=cuda`, so that its timing is that of
    a GPU of its own. Raises BenchError for what no node can give; Ray would wait for ever.
    """
    device = str(job.config.get("device") or "auto")
    cpus = max(float(job.threads), card.cpus)
    gpus = (card.gpus or 1.0) if device.startswith("cuda") or (device == "auto" and node.gpus) else 0.0
    if gpus > node.gpus:
        raise BenchError(
            f"{job.label} asks for {gpus:g} GPUs and the largest node of this Ray has {node.gpus:g}: "
            "use device=cpu, or device=auto, which takes a GPU only where there is one"
        )
    if cpus > node.cpus:
        raise BenchError(
            f"{job.label} asks for {cpus:g} processors and the largest node of this Ray has {node.cpus:g}: "
            f"use threads={int(node.cpus)} or fewer, or executor=inline"
        )
    return Request(cpus, gpus)


def train_in_worker(job: Job, work: Work | None) -> Outcome:
    """`train`, in a process that SIGTERM ends at once.

    Ray ends workers so when their driver is gone, and its own handler raises SystemExit inside the cell: the cell would
    be recorded as failed, though it was only interrupted. Its checkpoints are whole at every moment.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    return train(job, work)


class RayBackend:
    """Places jobs on Ray. No more cells are handed over than fit at once, so that a thousand waiting cost nothing."""

    def __init__(
        self, jobs: list[Job], cards: dict[str, Request], work: Work | None = None, score: Score | None = None
    ) -> None:
        self._owns_ray = start_ray()
        import ray

        try:
            node = largest_node()
            self._requests = {job.key: request_of(job, cards[job.key], node) for job in jobs}
        except BenchError:
            self._shut_down()
            raise
        self._free_cpus, self._free_gpus = self._capacity()
        self._work, self._score = work, score
        self._train = ray.remote(max_retries=RETRIES)(
            train_in_worker
        )  # one function for all: Ray uses its workers again
        self._desk: Any = None
        self._running: dict[Any, tuple[str, Job]] = {}

    @staticmethod
    def _capacity() -> tuple[float, float]:
        import ray

        total = ray.cluster_resources()
        return total.get("CPU", 0.0), total.get("GPU", 0.0)

    def has_room(self, job: Job) -> bool:
        """Whether the job would start at once."""
        request = self._requests[job.key]
        return request.cpus <= self._free_cpus and request.gpus <= self._free_gpus

    def submit(self, kind: str, job: Job) -> None:
        """Hand over a job of kind `train` or `score`."""
        import ray

        if kind == "score":
            if self._desk is None:
                # num_cpus=0: scoring takes seconds, and a reserved processor would idle for hours
                desk = ray.remote(num_cpus=0, max_restarts=RETRIES, max_task_retries=RETRIES)(ScoringDesk)
                self._desk = desk.remote(self._score)
            self._running[self._desk.score.remote(job)] = (kind, job)
            return
        request = self._requests[job.key]
        self._free_cpus -= request.cpus
        self._free_gpus -= request.gpus
        placed = self._train.options(num_cpus=request.cpus, num_gpus=request.gpus, name=job.label)
        self._running[placed.remote(job, self._work)] = (kind, job)

    def wait(self) -> list[tuple[str, Job, Outcome]]:
        """Jobs that have ended, after at most half a second; an empty list when none has."""
        import ray

        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=POLL_SECONDS)
        ended = []
        for reference in ready:
            kind, job = self._running.pop(reference)
            if kind == "train":
                self._free_cpus += self._requests[job.key].cpus
                self._free_gpus += self._requests[job.key].gpus
            ended.append((kind, job, self._outcome(reference, kind, job)))
        return ended

    @staticmethod
    def _outcome(reference: Any, kind: str, job: Job) -> Outcome:
        import ray

        try:
            outcome: Outcome = ray.get(reference)
            return outcome
        except ray.exceptions.RayError as error:
            reason = (str(error).strip().splitlines() or [""])[0]
            message = (
                f"the worker process ended {RETRIES + 1} times without an answer ({type(error).__name__}: {reason}); "
                "it was killed or ran out of memory"
            )
            if kind == "score":
                return Outcome("unscored", message)
            record_failure(job, type(error).__name__, message)
            return Outcome("failed", message)

    def close(self, stopped: bool) -> None:
        """End what this backend started: with `stopped` the running cells too, which keep their checkpoints."""
        import ray

        if stopped:
            for reference in self._running:
                with contextlib.suppress(ray.exceptions.RayError, ValueError, TypeError):
                    ray.cancel(reference, force=not self._is_score(reference))
        elif self._desk is not None:
            with contextlib.suppress(ray.exceptions.RayError):
                ray.get(self._desk.close.remote(), timeout=30)
        if self._desk is not None:
            ray.kill(self._desk)
        self._shut_down()

    def _is_score(self, reference: Any) -> bool:
        return self._running[reference][0] == "score"  # Ray refuses to cancel an actor's task by force

    def _shut_down(self) -> None:
        import ray

        if self._owns_ray:
            ray.shutdown()
