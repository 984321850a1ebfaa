"""Two cells of one thread each at the same time, against one after the other.

A cell is a process of its own: it warms up, says so, waits for its turn and tells the seconds of its training steps.
"""

from __future__ import annotations

import sys
import time

import torch

from bench.cell.job import keep_freed
from tests.perf.generated import MSVD, batch
from tests.perf.rows import Row
from tests.perf.timing import at_once
from tests.perf.training import salstm, step_of

STEPS = 8


def cell() -> None:
    """One cell: `ready` when it is warm, then its seconds once a line comes in."""
    keep_freed()
    torch.set_num_threads(1)
    pair = salstm()
    step = step_of(pair.engine, pair.loss, batch(MSVD))
    step()
    print("ready", flush=True)
    sys.stdin.readline()
    begun = time.perf_counter()
    for _ in range(STEPS):
        step()
    print(time.perf_counter() - begun, flush=True)


def together(count: int) -> float:
    """Seconds until the last of `count` cells that began at once has done its steps."""
    return max(taken for (taken,) in at_once("from tests.perf.cells import cell; cell()", count))


def rows(threads: int) -> list[Row]:
    """The ratio of throughputs."""
    alone, both = together(1), together(2)
    behind = {"one s": alone, "two at once s": both}
    return [Row("two cells of one thread at once", "one after the other", 2 * alone / both, 1.7, details=behind)]
