"""Cells in Ray worker processes, and one scorer for the machine in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import LocalRayletDiedError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bench import BenchError
from bench.cell.job import CellScorer, Job, Outcome, Score, Work, record_failure, train
from bench.declare.card import Resources
from bench.errors import first_line
from bench.home import Home
from bench.run.admission import Available, Request, choose
from bench.run.backend import LOCAL, RETRIES, Kind, RayLostError
from bench.run.cluster import REFRESH_SECONDS, check_nodes, nodes, requests_for
from bench.run.connection import connect

POLL_SECONDS = 0.5  # how often a waiting driver gets the chance to see a signal
NO_NODE_SECONDS = 300.0  # a node that is restarted takes minutes; one that is gone for longer will not come tonight


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
        address: str = LOCAL,
        max_concurrent: int | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self._owns_ray = connect(address)
        try:
            home = Home(Path(jobs[0].root))
            check_nodes(jobs, home)
            cluster, self._requests = requests_for(jobs, cards, home)
        except BenchError:
            self._shut_down()
            raise
        self._available = [Available(node) for node in cluster]
        self._refreshed = time.monotonic()
        self._work, self._score = work, score
        self._max_concurrent, self._say = max_concurrent, say
        # One function for all cells: Ray uses its workers again. But a process that has used a GPU is bound to that one:
        # where GPUs are real (Ray names their kind) a cell gets a process of its own.
        self._train = ray.remote(max_retries=RETRIES)(train_in_worker)
        self._train_alone = ray.remote(max_retries=RETRIES, max_calls=1)(train_in_worker)
        self._scorer: Any = None  # an actor, started with the first score
        self._running: dict[Any, tuple[Kind, Job]] = {}  # by Ray's reference to the outcome
        self._placed: dict[str, tuple[Available, dict[int, float]]] = {}  # by key: the node, and shares of its GPUs
        self._widened: set[str] = set()  # keys of cells that ran out of their share of a GPU
        self._idle_since: float | None = None  # since when nothing runs
        self._lost = False

    def admit(self, waiting: Iterable[Job]) -> Job | None:
        """The job to train next, with a node reserved for it; None while there is no room for any."""
        if self._max_concurrent is not None and len(self._placed) >= self._max_concurrent:
            return None
        first: dict[Request, Job] = {}
        for job in waiting:
            first.setdefault(self._requests[job.key], job)
        found = choose(first, self._available)
        if found is None:
            return None
        request, node = found
        job = first[request]
        self._placed[job.key] = (node, node.reserve(request))
        return job

    def submit(self, kind: Kind, job: Job) -> None:
        """Start an admitted job (`train`), or a trained one (`score`)."""
        reference = self._submit_score(job) if kind == "score" else self._submit_train(job)
        self._running[reference] = (kind, job)

    def _submit_train(self, job: Job) -> Any:
        request, (available, _) = self._requests[job.key], self._placed[job.key]
        # Where somebody else's work holds the node, another will do: without this Ray would wait for it.
        near = NodeAffinitySchedulingStrategy(available.node.name, soft=True, _spill_on_unavailable=True)
        function = self._train_alone if request.gpus and available.node.accelerators else self._train
        placed = function.options(**request.options(), scheduling_strategy=near, name=job.label)
        return placed.remote(replace(job, gpus=request.gpus, again=job.key in self._widened), self._work)

    def _submit_score(self, job: Job) -> Any:
        if self._scorer is None:
            # num_cpus=0: scoring takes seconds, and a reserved processor would idle for hours. Its place is beside the
            # driver, not beside cells that are being timed. An actor that asks for nothing at all is placed by a node
            # drawn at random, which may not know this one yet; one byte makes it this node's own decision.
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
            actor = ray.remote(num_cpus=0, memory=1, max_restarts=RETRIES, max_task_retries=RETRIES)(CellScorer)
            self._scorer = actor.options(scheduling_strategy=here).remote(self._score)
        return self._scorer.score.remote(job)

    def wait(self) -> list[tuple[Kind, Job, Outcome]]:
        """Jobs that have ended, after at most half a second; an empty list when none has. Raises RayLostError."""
        if time.monotonic() - self._refreshed > REFRESH_SECONDS:
            self._refresh_nodes()
        if not self._running:
            self._wait_for_nodes()
            return []
        self._idle_since = None
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=POLL_SECONDS)
        ended = []
        for reference in ready:
            kind, job = self._running.pop(reference)
            if kind == "train":
                node, held = self._placed.pop(job.key)
                node.release(self._requests[job.key], held)
            ended.append((kind, job, self._outcome(reference, kind, job)))
        return ended

    def _refresh_nodes(self) -> None:
        """Take note of nodes that have joined or gone; cells of a lost node are moved by Ray, unless it is this one."""
        self._refreshed = time.monotonic()
        known = {one.node.name: one for one in self._available}
        try:
            self._available = [known.get(node.name) or Available(node) for node in nodes()]
        except RayLostError:
            self._lost = True
            raise
        for name in known.keys() - {one.node.name for one in self._available}:
            self._say(f"node {known[name].node.address} is gone; its cells go on elsewhere, from their checkpoints")

    def _wait_for_nodes(self) -> None:
        """Nothing runs and nothing fits: the nodes that could take the waiting cells are gone. They may come back."""
        self._idle_since = self._idle_since or time.monotonic()
        if time.monotonic() - self._idle_since > NO_NODE_SECONDS:
            raise BenchError(
                f"no node of this Ray has been able to take a waiting cell for {NO_NODE_SECONDS:.0f} s; the same command goes on "
                "when the nodes are back"
            )
        time.sleep(POLL_SECONDS)

    def _outcome(self, reference: Any, kind: Kind, job: Job) -> Outcome:
        try:
            outcome: Outcome = ray.get(reference)
            return outcome
        except LocalRayletDiedError as error:
            self._lost = True
            raise RayLostError from error
        except RayError as error:
            self._refresh_nodes()
            message = (
                f"the worker process ended {RETRIES + 1} times without an answer ({type(error).__name__}: {first_line(error)}); "
                "it was killed or ran out of memory"
            )
            if kind == "score":
                return Outcome("unscored", message)
            record_failure(job, type(error).__name__, message)
            return Outcome("failed", message)

    def widen(self, job: Job) -> bool:
        """Give a job that ran out of memory a whole GPU, once; False where it had one or none."""
        request = self._requests[job.key]
        if not 0 < request.gpus < 1:
            return False
        self._requests[job.key] = replace(request, gpus=1.0)
        self._widened.add(job.key)
        return True

    def close(self, stopped: bool) -> None:
        """End what this backend started: with `stopped` the running cells too, which keep their checkpoints."""
        if not self._lost:
            if stopped:
                self._cancel_running()
            elif self._scorer is not None:
                with contextlib.suppress(RayError):
                    ray.get(self._scorer.close.remote(), timeout=30)
            if self._scorer is not None:
                ray.kill(self._scorer)
        self._shut_down()

    def _cancel_running(self) -> None:
        for reference, (kind, _) in self._running.items():
            with contextlib.suppress(RayError, ValueError, TypeError):
                ray.cancel(reference, force=kind != "score")  # Ray refuses to cancel an actor's task by force

    def _shut_down(self) -> None:
        if self._owns_ray:
            ray.shutdown()
