"""The nodes of the Ray that cells are placed on, and what a cell may ask of one.

It imports Ray, so it is itself imported only where cells are placed on it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bench import BenchError, __version__
from bench.cell.job import Job
from bench.cell.provenance import gpu_memory
from bench.declare.card import Resources
from bench.declare.registry import find_methods, method_digest
from bench.errors import listing
from bench.features.sidecar import cache_path, read_sidecar
from bench.home import Home
from bench.plan.sharing import gpu_share, recorded_room
from bench.run.admission import Node, Request
from bench.run.backend import RayLostError

NODE_SECONDS = 120.0  # for a worker process to start on a busy node and to answer
GONE_SECONDS = 30.0  # in which Ray notices that a node does not answer its questions any more
REFRESH_SECONDS = 5.0  # between two questions which nodes there are
Answer = TypeVar("Answer")


def nodes() -> list[Node]:
    """The nodes of the Ray that this process is connected to. Raises RayLostError if this machine's own has ended."""
    prefix = "accelerator_type:"
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            kinds = tuple(resource.removeprefix(prefix) for resource in has if resource.startswith(prefix))
            address = str(node["NodeManagerAddress"])
            found.append(Node(has.get("CPU", 0.0), has.get("GPU", 0.0), kinds, node["NodeID"], address=address))
    if ray.get_runtime_context().get_node_id() not in {node.name for node in found}:
        raise RayLostError
    return found


def nodes_with_memory() -> list[Node]:
    """The nodes, with the memory of their GPUs: every node that has some has to be asked for it."""
    found = nodes()
    if not any(node.gpus for node in found):
        return found
    known = {one.node: one.answer for one in ask_nodes(gpu_memory)}
    known[ray.get_runtime_context().get_node_id()] = gpu_memory()
    return [replace(node, gpu_memory=known.get(node.name)) for node in found]


def requests_for(
    jobs: Sequence[Job], cards: Mapping[str, Resources], home: Home
) -> tuple[list[Node], dict[str, Request]]:
    """The nodes, and by key what each job asks of one of them. Raises BenchError, as `request_of` does."""
    on_gpu = {job.key: job.config for job in jobs if job.config.get("device") != "cpu"}
    recorded = recorded_room(on_gpu, home) if any(node.gpus for node in nodes()) else {}
    cluster = nodes_with_memory() if recorded or any(card.gpu_memory for card in cards.values()) else nodes()
    return cluster, {job.key: request_of(job, cards[job.key], cluster, recorded.get(job.key)) for job in jobs}


def request_of(job: Job, card: Resources, cluster: Sequence[Node], recorded: float | None = None) -> Request:
    """What `job` asks for: its threads, and where there are GPUs its card's share of one unless `device=cpu`.

    Under `device=auto` or `device=cuda` a card that names memory gets the smallest share that holds it, one that names
    nothing gets a share for the GiB that were `recorded` of like cells, or else a whole GPU. Raises BenchError for what no
    single node can give, whatever they add up to; Ray would wait for ever.
    """
    device = str(job.config.get("device") or "auto")
    most_gpus, most_cpus = max(node.gpus for node in cluster), max(node.cpus for node in cluster)
    wanted = device.startswith("cuda") or (device == "auto" and most_gpus > 0)
    having = [node.gpu_memory for node in cluster if card.accelerator_type in (None, *node.accelerators)]
    smallest = min(filter(None, having), default=None)
    gpus = gpu_share(job.label, card, smallest, recorded) if wanted else 0.0
    request = Request(max(float(job.threads), card.cpus), gpus, card.accelerator_type if gpus else None)
    if any(node.can_meet(request) for node in cluster):
        return request
    if gpus > most_gpus:
        raise BenchError(
            f"{job.label} asks for {gpus:g} GPUs and the largest node of this Ray has {most_gpus:g}: "
            "use device=cpu, or device=auto, which takes a GPU only where there is one"
        )
    if request.cpus > most_cpus:
        raise BenchError(
            f"{job.label} asks for {request.cpus:g} processors and the largest node of this Ray has {most_cpus:g}: "
            f"use threads={int(most_cpus)} or fewer, or executor=inline"
        )
    kinds = sorted({kind for node in cluster for kind in node.accelerators})
    kind = f" of kind {request.accelerator}" if request.accelerator else ""
    raise BenchError(
        f"{job.label} asks for {request.cpus:g} processors and {gpus:g} GPUs{kind} on one node, and no node of this Ray has "
        f"them together (kinds of GPUs here: {', '.join(kinds) or 'none named'}): ask for less with resources.cpus=, "
        "resources.gpus= or threads=, or for another resources.accelerator_type="
    )


@dataclass(frozen=True)
class Installation:
    """What a node has of what the driver has: bench's version, the code of the methods by digest, the home, the caches."""

    version: str
    methods: dict[str, str | None]
    home: bool
    caches: dict[str, tuple[str, str] | None]


def installation(methods: Sequence[str], mark: str, caches: Sequence[str]) -> Installation:
    """Run on a node: the code of the methods there, whether it sees the file `mark`, caches by fingerprint and content."""
    entries = find_methods()
    folders = {name: entries[name].folder if name in entries else None for name in methods}
    digests = {name: method_digest(folder) if folder else None for name, folder in folders.items()}
    return Installation(__version__, digests, Path(mark).is_file(), {path: _marks(Path(path)) for path in caches})


def _marks(cache: Path) -> tuple[str, str] | None:
    """Fingerprint of a cache and of what it holds, which may be a part of the stream; None where there is none."""
    try:
        said = read_sidecar(cache)
    except BenchError:
        return None
    return (str(said["fingerprint"]), str(said.get("content", said["fingerprint"]))) if cache.is_file() else None


class NodeAnswer(NamedTuple, Generic[Answer]):
    """What a function returned on a node: `node` is Ray's id of it, `address` what a person knows it by."""

    node: str
    address: str
    answer: Answer


def ask_nodes(question: Callable[..., Answer], *arguments: Any) -> list[NodeAnswer[Answer]]:
    """What `question(*arguments)` returns on every other node of the cluster; empty on a single machine.

    A node that dies meanwhile is left out. Raises BenchError for one that is there and cannot answer.
    """
    here = ray.get_runtime_context().get_node_id()
    task = ray.remote(num_cpus=0, max_retries=0)(question)
    asked = []
    for node in nodes():
        if node.name != here:
            there = NodeAffinitySchedulingStrategy(node.name, soft=False)
            asked.append((node, task.options(scheduling_strategy=there).remote(*arguments)))
    answers = []
    for node, reference in asked:
        try:
            answers.append(NodeAnswer(node.name, node.address, ray.get(reference, timeout=NODE_SECONDS)))
        except (ray.exceptions.RayError, TimeoutError) as error:
            if not isinstance(error, ray.exceptions.RayTaskError) and _is_gone(node):
                continue
            line = (str(error).strip().splitlines() or [type(error).__name__])[-1]
            raise BenchError(
                f"node {node.address} cannot run bench ({line}): install the same environment there"
            ) from None
    return answers


def _is_gone(node: Node) -> bool:
    """Whether a node that did not answer is dead; Ray needs a moment to find out."""
    until = time.monotonic() + GONE_SECONDS
    while any(one.name == node.name for one in nodes()):
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return True


def check_nodes(jobs: Sequence[Job], home: Home) -> None:
    """Whether every other node of the cluster has this code, sees the home and has the features.

    Raises BenchError, one sentence, before anything starts: a cell would find out in the middle of the night.
    """
    names = sorted({str(job.config.get("method")) for job in jobs})
    caches = {
        str(cache_path(home, str(job.config["dataset"]), stream)): str(mark)
        for job in jobs
        for stream, mark in job.config.get("streams", {}).items()
    }
    home.work.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=home.work, prefix="seen-") as mark:
        answers = ask_nodes(installation, names, mark.name, list(caches))
        if answers:
            own = installation(names, mark.name, list(caches))
            for _, address, found in answers:
                _compare(address, own, found, caches, home)


def _compare(address: str, own: Installation, found: Installation, caches: Mapping[str, str], home: Home) -> None:
    if found.version != own.version:
        raise BenchError(
            f"node {address} has bench {found.version}, and this machine {own.version}: install one version"
        )
    other = [name for name, digest in own.methods.items() if found.methods[name] != digest]
    if other:
        raise BenchError(f"node {address} has other code of {listing(other)}: bring the same checkout to every node")
    if not found.home:
        raise BenchError(
            f"node {address} does not see {home.root}: put it on storage that all nodes share, under the same path, or set "
            "BENCH_HOME to such a folder"
        )
    for path, mark in caches.items():
        there = found.caches[path]
        if there is None or there[0] != mark or there != own.caches[path]:
            raise BenchError(
                f"node {address} {'lacks' if there is None else 'has another version of'} the features {path}: "
                "put the cache on shared storage (BENCH_CACHE), or copy it there"
            )
