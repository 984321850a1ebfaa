"""Two cells of one thread each at the same time, against one after the other.

A cell is a process of its own: it warms up, says so, waits for its turn and tells the seconds of its training steps.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import IO

import torch

from tests.perf.generated import MSVD, batch
from tests.perf.rows import Row
from tests.perf.training import salstm, step_of

STEPS = 8


def cell() -> None:
    """One cell: `ready` when it is warm, then its seconds once a line comes in."""
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
    command = [sys.executable, "-c", "from tests.perf.cells import cell; cell()"]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    pipes: list[tuple[IO[str], IO[str]]] = []
    for process in started:
        assert process.stdin is not None and process.stdout is not None
        pipes.append((process.stdin, process.stdout))
    for _, out in pipes:
        assert out.readline() == "ready\n"
    for into, _ in pipes:
        into.write("go\n")
        into.flush()
    taken = [float(out.readline()) for _, out in pipes]
    for process in started:
        process.communicate()
    return max(taken)


def rows(threads: int) -> list[Row]:
    """The ratio of throughputs."""
    alone, both = together(1), together(2)
    behind = {"one s": alone, "two at once s": both}
    return [Row("two cells of one thread at once", "one after the other", 2 * alone / both, 1.7, details=behind)]
