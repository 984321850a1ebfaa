"""Cells in Ray worker processes, and one scorer for the machine in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.cell.job import Job, Outcome, Score, ScoringDesk, Work, record_failure, train
from bench.declare.card import Resources
from bench.home import Home
from bench.run.admission import Request, Room, choose
from bench.run.cluster import LOOK_SECONDS, RETRIES, RayLostError, check_nodes, connect, nodes, request_of, with_memory

POLL_SECONDS = 0.5  # how often a waiting driver gets the chance to see a signal
STARVED_SECONDS = 300.0  # a node that is restarted takes minutes; one that is gone for longer will not come tonight


def train_in_worker(job: Job, work: Work | None) -> Outcome:
    """`train`, in a process that SIGTERM ends at once.

    Ray ends workers so when their driver is gone, and its own handler raises SystemExit inside the cell: the cell would
    be recorded as failed, though it was only interrupted. Its checkpoints are whole at every moment.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    return train(job, work)


class RayBackend:
    """Places jobs on Ray. No more cells are handed over than fit at once, so that a thousand waiting cost nothing.

    `bench.run.admission` chooses cell and node; Ray keeps to the node unless others use it or it is gone.
    """

    def __init__(
        self,
        jobs: list[Job],
        cards: dict[str, Resources],
        work: Work | None = None,
        score: Score | None = None,
        address: str = "local",
        most: int | None = None,
    ) -> None:
        self._owns_ray = connect(address)
        import ray

        try:
            check_nodes(jobs, Home(Path(jobs[0].root)))
            having = with_memory(nodes(), cards.values())
            self._requests = {job.key: request_of(job, cards[job.key], having) for job in jobs}
        except BenchError:
            self._shut_down()
            raise
        self._rooms = [Room(node) for node in having]
        self._looked = time.monotonic()
        self._work, self._score = work, score
        # One function for all cells: Ray uses its workers again. But a process that has used a GPU is bound to that one:
        # where GPUs are real (Ray names their kind) a cell gets a process of its own.
        self._train = ray.remote(max_retries=RETRIES)(train_in_worker)
        self._train_alone = ray.remote(max_retries=RETRIES, max_calls=1)(train_in_worker)
        self._lost = False
        self._starved: float | None = None  # since when nothing runs
        self._desk: Any = None
        self._running: dict[Any, tuple[str, Job]] = {}
        self._places: dict[str, tuple[Room, dict[int, float]]] = {}  # of running cells: node, shares of its GPUs
        self._most = most
        self._again: set[str] = set()  # cells that ran out of their share of a GPU

    def next_of(self, waiting: Iterable[Job]) -> Job | None:
        """The job to submit now; None while there is no room for any."""
        if self._most is not None and len(self._places) >= self._most:
            return None
        first: dict[Request, Job] = {}
        for job in waiting:
            first.setdefault(self._requests[job.key], job)
        found = choose(first, self._rooms)
        if found is None:
            return None
        request, room = found
        job = first[request]
        self._places[job.key] = (room, room.take(request))
        return job

    def _look(self) -> None:
        """Take note of nodes that have joined or gone; cells of a lost node are moved by Ray, unless it is this one."""
        self._looked = time.monotonic()
        known = {room.node.name: room for room in self._rooms}
        try:
            self._rooms = [known.get(node.name) or Room(node) for node in nodes()]
        except RayLostError:
            self._lost = True
            raise

    def widen(self, job: Job) -> bool:
        """Give a job that ran out of memory a whole GPU, once; False where it had one or none."""
        request = self._requests[job.key]
        if not 0 < request.gpus < 1:
            return False
        self._requests[job.key] = replace(request, gpus=1.0)
        self._again.add(job.key)
        return True

    def submit(self, kind: str, job: Job) -> None:
        """Hand over a job that `next_of` named (`train`), or one to `score`."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if kind == "score":
            if self._desk is None:
                # num_cpus=0: scoring takes seconds, and a reserved processor would idle for hours. Its place is beside the
                # driver, not beside cells that are being timed. An actor that asks for nothing at all is placed by a node
                # drawn at random, which may not know this one yet; one byte makes it this node's own decision.
                here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
                desk = ray.remote(num_cpus=0, memory=1, max_restarts=RETRIES, max_task_retries=RETRIES)(ScoringDesk)
                self._desk = desk.options(scheduling_strategy=here).remote(self._score)
            self._running[self._desk.score.remote(job)] = (kind, job)
            return
        request, (room, _) = self._requests[job.key], self._places[job.key]
        # Where somebody else's work holds the node, another will do: without this Ray would wait for it.
        near = NodeAffinitySchedulingStrategy(room.node.name, soft=True, _spill_on_unavailable=True)
        function = self._train_alone if request.gpus and room.node.accelerators else self._train
        placed = function.options(**request.options(), scheduling_strategy=near, name=job.label)
        given = replace(job, gpus=request.gpus, again=job.key in self._again)
        self._running[placed.remote(given, self._work)] = (kind, job)

    def wait(self) -> list[tuple[str, Job, Outcome]]:
        """Jobs that have ended, after at most half a second; an empty list when none has. Raises RayLostError."""
        import ray

        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._look()
        if not self._running:
            self._starve()
            return []
        self._starved = None
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=POLL_SECONDS)
        ended = []
        for reference in ready:
            kind, job = self._running.pop(reference)
            if kind == "train":
                room, held = self._places.pop(job.key)
                room.give(self._requests[job.key], held)
            ended.append((kind, job, self._outcome(reference, kind, job)))
        return ended

    def _starve(self) -> None:
        """Nothing runs and nothing fits: the nodes that could take the waiting cells are gone. They may come back."""
        self._starved = self._starved or time.monotonic()
        if time.monotonic() - self._starved > STARVED_SECONDS:
            raise BenchError(
                f"no node of this Ray has been able to take a waiting cell for {STARVED_SECONDS:.0f} s; the same command goes on "
                "when the nodes are back"
            )
        time.sleep(POLL_SECONDS)

    def _outcome(self, reference: Any, kind: str, job: Job) -> Outcome:
        import ray

        try:
            outcome: Outcome = ray.get(reference)
            return outcome
        except ray.exceptions.RayError as error:
            if isinstance(error, ray.exceptions.LocalRayletDiedError):
                self._lost = True
                raise RayLostError from error
            self._look()
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

        if self._lost:
            self._shut_down()
            return
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
