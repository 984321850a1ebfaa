"""Times in one run: ways take turns, so that a busy moment meets them all."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import IO

import torch
from torch.utils.flop_counter import FlopCounterMode

REPEATS = 5
SQUARE = 2048  # side of the matrices whose product tells the machine's rate


def seconds(steps: Mapping[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """Median seconds of each, one warm-up before, in turns. A GPU has done its work when the clock is read."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(repeats + 1):
        for name, step in steps.items():
            wait()
            begun = time.perf_counter()
            step()
            wait()
            if round_:
                taken[name].append(time.perf_counter() - begun)
    return {name: statistics.median(times) for name, times in taken.items()}


def product_rate(low: bool = False, device: str = "cpu", side: int = SQUARE) -> float:
    """Floating-point operations per second of a large square product."""
    kind = torch.bfloat16 if low else torch.float32
    a, b = (torch.randn(side, side, dtype=kind, device=device) for _ in range(2))
    return 2 * side**3 / seconds({"product": lambda: a @ b})["product"]


def operations(step: Callable[[], object]) -> int:
    """Floating-point operations of the products of one call."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def at_once(program: str, count: int) -> list[list[float]]:
    """The numbers that `count` processes of a Python program print which begin their work at the same moment.

    A program warms up, prints `ready`, waits for a line of input, and prints its numbers in one line.
    """
    command = [sys.executable, "-c", program]
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
    found = [[float(word) for word in out.readline().split()] for _, out in pipes]
    for process in started:
        process.communicate()
    return found
