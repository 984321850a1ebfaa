"""Everything that is measured, beside its bar: `make perf`, or `python -m tests.perf [PART ..] [--threads 2]`.

Nothing else should run meanwhile. Writes JSON and a picture of throughput into `tests/perf/results`, named after the hardware.
"""

from __future__ import annotations

import argparse
import time

import torch

from bench.cell.job import keep_freed
from tests.perf import (
    cells,
    decoding,
    features,
    full_size,
    memory,
    metrics,
    overhead,
    pixels,
    placing,
    rows,
    throughput,
    training,
)

PARTS = {
    "training": training.rows,
    "decoding": decoding.rows,
    "metrics": metrics.rows,
    "memory": memory.rows,
    "cells": cells.rows,
    "overhead": overhead.rows,
}
APART = {"features": features.rows, "pixels": pixels.rows, "placing": placing.rows, "full_size": full_size.rows}
"""Measured when they are named: the rest is to stay below ten minutes."""
METHODS = "methods"
ALL = (*PARTS, METHODS, *APART)


def main() -> None:
    """Measure the named parts, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.perf", description="speed and memory beside their bars")
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"of {', '.join(ALL)}; all but the last {len(APART)} without any"
    )
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    wanted = given.parts or [*PARTS, METHODS]
    if unknown := sorted({*wanted} - {*ALL}):
        parser.error(f"unknown part {', '.join(unknown)}; allowed: {', '.join(ALL)}")
    torch.set_num_threads(given.threads)
    keep_freed()  # as a cell's process does
    found: list[rows.Row] = []
    begun = time.monotonic()
    for name in wanted:
        if name == METHODS:
            continue
        part = (PARTS | APART)[name](given.threads)
        found += part
        if name in APART:
            print(*rows.save(part, {}, {}, given.threads, "cpu", part=name))
        print(f"{rows.told(part)}\n\n{name}: {time.monotonic() - begun:.0f} s since the start\n", flush=True)
    rates, profiles = (throughput.rates(), throughput.profiles()) if METHODS in wanted else ({}, {})
    for name, plain in (
        (row.what.split(" step")[0].split(":")[0], row) for row in found if "plain captions/s" in row.details
    ):
        if name in rates:
            rates[name] = {"plain": plain.details["plain captions/s"], **rates[name]}
    if rates:
        print(throughput.told(rates, profiles))
    if not given.parts:  # a part of the table does not replace the whole one
        for path in rows.save(found, rates, profiles, given.threads, "cpu"):
            print(path)
    print(f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
