"""Extraction over a cluster: a maker of streams for each of its GPUs gets shares of the clips, and this process writes.

It imports Ray, so it is itself imported only where clips are spread.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bench import BenchError, __version__
from bench.errors import many
from bench.features.decoders import Decoders, flow
from bench.features.extract import Extractor, lanes_of
from bench.features.extraction import Extraction, Work
from bench.features.footage import Footage
from bench.run.admission import Node
from bench.run.cluster import ask_nodes, nodes
from bench.run.connection import connect

SHARE = 8  # clips that are handed over at once: their streams have to fit into the memory that Ray shares
POLL_SECONDS = 0.5  # how often a waiting driver gets the chance to see a signal


class Maker:
    """In a worker: the streams of clips, by an encoder that is loaded once."""

    def __init__(self, extraction: Extraction, batch: int | None, device: str, workers: int) -> None:
        self._extractor = Extractor(extraction, batch, device)
        self._decoders = Decoders(extraction.reader, workers)
        self._lanes = lanes_of(extraction, workers, self._extractor.device)

    def streams(self, share: Mapping[str, Footage]) -> list[tuple[str, Any]]:
        """Each clip with its streams, or with the UnreadableVideoError that says why there are none."""
        return list(flow(share, self._decoders, self._extractor.encode, self._lanes))


class Cluster:
    """The makers of a cluster: one for each GPU, or, where there is none, one for each node."""

    def __init__(self, extraction: Extraction, work: Work) -> None:
        _check(extraction.videos)
        there = [node for node in nodes() if node.gpus] or [node for node in nodes() if node.cpus]
        self._idle = [maker for node in there for maker in _makers(node, extraction, work)]
        if not self._idle:
            raise BenchError("no node of this Ray has a processor for the clips: leave executor.address= out")
        what = "GPU" if there[0].gpus else "node"
        self.told = f"{many(len(self._idle), what)} of {many(len(there), 'node')} share the clips"

    def __call__(self, todo: Mapping[str, Footage]) -> Iterator[tuple[str, Any]]:
        """Each clip with what became of it, in whatever order they are ready. Shares of a lost node go to the others."""
        clips = iter(todo.items())
        shares = deque(iter(lambda: dict(islice(clips, SHARE)), {}))
        running: dict[Any, tuple[Any, dict[str, Footage]]] = {}
        why = ""
        while shares or running:
            while shares and self._idle:
                maker, share = self._idle.pop(), shares.popleft()
                running[maker.streams.remote(share)] = (maker, share)
            if not running:
                raise BenchError(f"all makers of streams are gone ({why}); the same command goes on where they ended")
            for reference in ray.wait(list(running), num_returns=1, timeout=POLL_SECONDS)[0]:
                maker, share = running.pop(reference)
                try:
                    found = ray.get(reference)
                except ray.exceptions.RayActorError as error:
                    why = str(error).strip().splitlines()[-1].strip()
                    shares.append(share)
                    continue
                self._idle.append(maker)
                yield from found


@contextlib.contextmanager
def cluster(address: str, extraction: Extraction, work: Work) -> Iterator[Cluster]:
    """The makers of the cluster at `address`; they end with the block. Raises BenchError where a node lacks the videos."""
    own = connect(address)
    try:
        yield Cluster(extraction, work)
    finally:
        if own:
            ray.shutdown()


def _makers(node: Node, extraction: Extraction, work: Work) -> Iterator[Any]:
    """The makers of a node, which share its processors: one for each GPU, or one."""
    count = int(node.gpus) or 1
    cpus = int(node.cpus) // count
    for _ in range(count):
        there = NodeAffinitySchedulingStrategy(node.name, soft=False)
        actor = ray.remote(num_cpus=cpus, num_gpus=min(node.gpus, 1), scheduling_strategy=there)(Maker)
        yield actor.remote(extraction, work.batch, work.device, cpus if work.workers is None else work.workers)


def _check(videos: Path) -> None:
    for node in ask_nodes(_seen, str(videos)):
        version, there = node.answer
        if version != __version__:
            raise BenchError(
                f"node {node.address} has bench {version}, and this machine {__version__}: install one version"
            )
        if not there:
            raise BenchError(
                f"node {node.address} does not see {videos}: put the videos on storage that all nodes share, under the same path"
            )


def _seen(videos: str) -> tuple[str, bool]:
    return __version__, Path(videos).is_dir()
