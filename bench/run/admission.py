"""Which waiting cell goes next, and to which node: a function of what waits and of what is free, without Ray and clocks.

Large requests go first and small ones fill the gaps. No cell is placed where it would delay the one ahead of it that fits
nowhere yet, so that a cell which needs a whole GPU is never passed for ever by those that share one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

TOLERANCE = 1e-6  # shares of a GPU are fractions that no binary number holds: five times 0.2 must be one


@dataclass(frozen=True)
class Request:
    """What one cell asks of a node. `accelerator` is Ray's name of a kind of GPU."""

    cpus: float
    gpus: float
    accelerator: str | None = None

    def options(self) -> dict[str, Any]:
        """The same for a task of Ray's."""
        kind = {"accelerator_type": self.accelerator} if self.accelerator else {}
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, **kind}


@dataclass(frozen=True)
class Node:
    """What a node has in all, whoever uses it now. `name` is Ray's id of it, `address` what a person knows it by, `gpu_memory`
    the GiB of its smallest GPU."""

    cpus: float
    gpus: float
    accelerators: tuple[str, ...] = ()
    name: str = ""
    gpu_memory: float | None = None
    address: str = ""

    def can_meet(self, request: Request) -> bool:
        """Whether the request fits this node when it is idle."""
        known = request.accelerator is None or request.accelerator in self.accelerators
        return known and request.cpus <= self.cpus and request.gpus <= self.gpus


@dataclass
class Available:
    """What is free on a node: processors, and of each GPU the share that no cell holds."""

    node: Node
    cpus: float = field(init=False)
    gpus: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.cpus, self.gpus = self.node.cpus, [1.0] * int(self.node.gpus)

    def fits(self, request: Request) -> bool:
        """Whether the request can start here now."""
        return self.node.can_meet(request) and not any(lack > TOLERANCE for lack in self.missing(request))

    def missing(self, request: Request) -> tuple[float, float]:
        """GPUs and processors that cells must still give back before the request can start here."""
        gpus = sum(min(request.gpus, 1.0) - min(self.gpus[place], request.gpus) for place in self._gpus_for(request))
        return max(0.0, gpus), max(0.0, request.cpus - self.cpus)

    def leftover(self, request: Request) -> float:
        """The share of its GPU that nobody would hold beside the request: the smaller, the better it fits."""
        return sum(self.gpus[place] for place in self._gpus_for(request)) - request.gpus

    def _gpus_for(self, request: Request) -> list[int]:
        """The GPUs that the request would take: those nearest to free, or for a share the fullest that has room, as Ray does."""
        count = 1 if 0 < request.gpus < 1 else int(request.gpus)
        order = sorted(range(len(self.gpus)), key=lambda place: -self.gpus[place])
        enough = [place for place in order if self.gpus[place] >= request.gpus - TOLERANCE]
        return enough[-1:] if count == 1 and enough else order[:count]

    def reserve(self, request: Request) -> dict[int, float]:
        """Hold what the request asks for; returns the share of each of its GPUs, which `release` takes back."""
        held = dict.fromkeys(self._gpus_for(request), min(request.gpus, 1.0)) if request.gpus else {}
        self.cpus -= request.cpus
        for place, share in held.items():
            self.gpus[place] -= share
        return held

    def release(self, request: Request, held: dict[int, float]) -> None:
        """Free what `reserve` held."""
        self.cpus += request.cpus
        for place, share in held.items():
            self.gpus[place] += share

    def would_delay(self, request: Request, ahead: Request) -> bool:
        """Whether `ahead` would miss more here than it does, if the request were placed here now."""
        before = self.missing(ahead)
        held = self.reserve(request)
        after = self.missing(ahead)
        self.release(request, held)
        return any(more > less + TOLERANCE for more, less in zip(after, before, strict=True))


def choose(waiting: Collection[Request], nodes: Sequence[Available]) -> tuple[Request, Available] | None:
    """The request to start now and where; None if all have to wait.

    Tries the largest request first. The first that fits nowhere is promised the node where it misses least: smaller ones may
    only go there where they do not delay it, and its wait is then bounded by the cells that run there.
    """
    ahead: Request | None = None
    promised: Available | None = None
    for request in sorted(set(waiting), key=_size, reverse=True):
        fitting = [node for node in nodes if node.fits(request)]
        if ahead is not None:
            fitting = [node for node in fitting if node is not promised or not node.would_delay(request, ahead)]
        if fitting:
            return request, min(fitting, key=lambda node: _preference(node, request))
        if ahead is None and (able := _able(request, nodes)):
            ahead, promised = request, min(able, key=lambda node: node.missing(request))
    return None


def _able(request: Request, nodes: Iterable[Available]) -> list[Available]:
    return [one for one in nodes if one.node.can_meet(request)]


def _size(request: Request) -> tuple[float, float, str]:
    return request.gpus, request.cpus, request.accelerator or ""


def _preference(available: Available, request: Request) -> tuple[float, float, float]:
    """Lower is better: a gap that the share fills, no GPU beside a cell that uses none, then the idlest processors."""
    if request.gpus:
        return available.leftover(request), 0.0, -available.cpus
    return 0.0, available.node.gpus, -available.cpus
