"""Placing under a simulated clock: the function that `RayBackend` asks, with fifty nodes that nobody has to own."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Iterable

import pytest

from bench.run.admission import Available, Node, Request, choose

HALF, WHOLE = Request(1, 0.5), Request(1, 1.0)
CLUSTER = [Node(32.0, 8.0, name=f"node{number}") for number in range(50)]


class Clock:
    """Cells that end at set times. Placing is `choose`'s; what it breaks is found here."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes = [Available(node) for node in nodes]
        self.gpus = sum(one.node.gpus for one in self.nodes)
        self.now, self.idle, self.waited = 0.0, 0.0, 0.0
        self.waiting: dict[Request, list[tuple[float, float]]] = {}  # (asked at, lasts)
        self.running: list[tuple[float, int, Available, Request, dict[int, float]]] = []
        self.begun: list[tuple[Request, float, float]] = []  # (request, asked at, began at)
        self._order = itertools.count()

    def ask(self, request: Request, lasts: float) -> None:
        self.waiting.setdefault(request, []).append((self.now, lasts))

    def start(self) -> None:
        """Place what can start now."""
        while (found := choose([request for request, cells in self.waiting.items() if cells], self.nodes)) is not None:
            request, node = found
            asked, lasts = self.waiting[request].pop(0)
            held = node.reserve(request)
            assert node.cpus >= -1e-9 and all(free >= -1e-9 for free in node.gpus), "more than the node has"
            assert sum(held.values()) == pytest.approx(request.gpus)
            heapq.heappush(self.running, (self.now + lasts, next(self._order), node, request, held))
            self.begun.append((request, asked, self.now))

    def step(self) -> bool:
        """Start what can, go on to the next end; False when all is done."""
        self.start()
        if not self.running:
            return False
        until, _, node, request, held = heapq.heappop(self.running)
        if any(self.waiting.values()):  # at the end of a queue GPUs stand idle whatever the order
            self.idle += (until - self.now) * sum(sum(one.gpus) for one in self.nodes)
            self.waited += (until - self.now) * self.gpus
        self.now = until
        node.release(request, held)
        return True


@pytest.mark.parametrize("seed", range(2))
def test_two_thousand_cells_of_mixed_shares_keep_four_hundred_gpus_busy(seed: int) -> None:
    draw = random.Random(seed)
    clock = Clock(CLUSTER)
    shares = {0.2: 500, 0.25: 400, 0.5: 500, 1.0: 500, 2.0: 60, 4.0: 40}
    cells = [share for share, count in shares.items() for _ in range(count)]
    assert len(cells) == 2000
    draw.shuffle(cells)
    for share in cells:
        clock.ask(Request(draw.choice([1.0, 2.0]), share), draw.uniform(600.0, 3600.0))
    while clock.step():
        pass
    assert Counter(request.gpus for request, _, _ in clock.begun) == shares
    assert clock.idle / clock.waited < 0.10
    work = sum(share * count for share, count in shares.items() if share >= 1)
    last = max(began for request, _, began in clock.begun if request.gpus >= 1)
    # What whole GPUs need by themselves, at the longest time of a cell, and one cell that was there before.
    assert last <= 3600.0 * (work / clock.gpus + 1)


def test_a_whole_gpu_is_not_passed_for_ever_by_halves() -> None:
    """Cells that ran out of their share come back for a whole GPU while halves hold them all, staggered."""
    draw = random.Random(0)
    clock = Clock([Node(8.0, 4.0)])
    for _ in range(400):
        clock.ask(HALF, draw.uniform(50.0, 100.0))
    for _ in range(20):
        clock.step()
    assert all(free < 1 for free in clock.nodes[0].gpus)
    clock.ask(WHOLE, 100.0)
    asked = clock.now
    while clock.step():
        pass
    (began,) = [began for request, _, began in clock.begun if request == WHOLE]
    assert began - asked <= 100.0, "no longer than the longest of the cells that held the GPU"
    passed = sum(request == HALF and asked < began_ < began for request, _, began_ in clock.begun)
    assert passed > 0, "the other GPUs went on taking halves meanwhile"


def test_processors_are_kept_for_the_cell_ahead_too() -> None:
    wide, narrow = Request(8, 1.0), Request(1, 0.0)
    clock = Clock([Node(8.0, 2.0)])
    for number in range(200):
        clock.ask(narrow, 10.0 + number % 7)
    clock.start()
    clock.ask(wide, 10.0)
    while clock.step():
        pass
    (began,) = [began for request, _, began in clock.begun if request == wide]
    assert began <= 17.0, "after the eight that ran, before the many that wait"


def test_what_cannot_be_met_keeps_nobody_waiting() -> None:
    other = Request(1, 1.0, "H100")
    nodes = [Available(Node(2.0, 1.0, ("A100",), "a"))]
    assert choose([other, HALF], nodes) == (HALF, nodes[0])
    assert choose([other], nodes) is None and choose([], nodes) is None and choose([HALF], []) is None


def test_kinds_of_gpus_are_kept_apart_and_held_up_by_none() -> None:
    nodes = [Available(Node(4.0, 1.0, ("A100",), "a")), Available(Node(4.0, 1.0, ("H100",), "h"))]
    fast = Request(1, 1.0, "H100")
    assert choose([fast], nodes) == (fast, nodes[1])
    nodes[1].reserve(fast)
    assert choose([fast, WHOLE], nodes) == (WHOLE, nodes[0]), "the other GPU does not wait for the cell ahead"


def test_shares_fill_gaps_and_cells_without_gpus_leave_them_alone() -> None:
    plain, gpu = Available(Node(4.0, 0.0, name="plain")), Available(Node(4.0, 2.0, name="gpu"))
    assert choose([Request(1, 0.0)], [gpu, plain]) == (Request(1, 0.0), plain)
    held = gpu.reserve(HALF)
    assert gpu.reserve(HALF).keys() == held.keys(), "two halves share one GPU"
    assert gpu.reserve(WHOLE).keys() != held.keys()
    gpu.release(HALF, held)
    assert gpu.cpus == 2.0 and sorted(gpu.gpus) == [0.0, 0.5]
    fifths = Available(Node(8.0, 1.0))
    for _ in range(5):
        assert fifths.fits(Request(1, 0.2))
        fifths.reserve(Request(1, 0.2))
    assert not fifths.fits(Request(1, 0.2))


def test_idle_processors_are_preferred() -> None:
    busy, free = Available(Node(4.0, 0.0, name="busy")), Available(Node(4.0, 0.0, name="free"))
    busy.reserve(Request(1, 0.0))
    assert choose([Request(1, 0.0)], [busy, free]) == (Request(1, 0.0), free)
