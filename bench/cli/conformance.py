"""`bench test` and `bench doctor`: does a method keep the contract, and has a machine what runs need? A line for each check."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bench.cli.answers import FAILED, WELL, print_json
from bench.declare.options import Json, Options, Written, parse
from bench.home import find_home
from bench.pages.terminal import wrapped

MOVED = ("BENCH_HOME", "BENCH_CACHE", "BENCH_DATA")  # a corpus made for a check has no business in a user's folders


class Test(Options):
    methods: Annotated[
        list[str],
        Written(word="METHOD", missing="name a method, such as bench test salstm (bench list methods has them)"),
    ] = Field(min_length=1, description="a method: its default variant, METHOD:VARIANT, or METHOD:* for all of them")


def test(argv: Sequence[str]) -> int:
    """Make the checks that every method must pass, each on a tiny corpus made for it: one line per check, with the reason
    where one fails. Checks that a fault of another one hides are not made. Writes nothing into this project. For methods of
    this project, or of any installed package with an entry point in the group bench.methods (docs/method.md). Exit status 1
    if a check failed.

    Example: bench test salstm
    """
    asked = parse(Test, argv)
    from bench.declare.registry import find_methods, variants

    entries = find_methods()
    rows = [f"{card.name}:{variant}" for name in asked.methods for card, variant in variants(name, entries)]
    failed = 0
    for row in rows:
        if len(rows) > 1:
            print(f"{row}", flush=True)
        failed += _test(row)
    return FAILED if failed else WELL


def _test(row: str) -> int:
    """Print a line for each check of a method's variant; returns how many failed."""
    from bench.conformance.checks import CHECKS, examine

    width = max(map(len, CHECKS))
    counts: dict[str, int] = {}
    with _apart() as place:
        for finding in examine(row, place):
            counts[finding.state] = counts.get(finding.state, 0) + 1
            state = "FAILED" if finding.state == "failed" else finding.state
            print(f"{finding.check:{width}}  {state:11}  {finding.reason}".rstrip(), flush=True)
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    print(f"{row}: {sum(counts.values())} checks, {states}", flush=True)
    return counts.get("failed", 0)


@contextmanager
def _apart() -> Iterator[Path]:
    """An empty folder that is removed afterwards, and no variable that leads elsewhere."""
    before = {name: os.environ.pop(name) for name in MOVED if name in os.environ}
    try:
        with tempfile.TemporaryDirectory(prefix="bench-test-") as place:
            yield Path(place)
    finally:
        os.environ.update(before)


class Doctor(Options):
    as_json: Json = False


def doctor(argv: Sequence[str]) -> int:
    """Try what runs need on this machine, each part for itself: packages within their bounds, torch and GPU, Java with the
    tokenizer and METEOR by a known score, a Ray of its own, the MLflow database, a few clips of each feature cache, disk and
    open files; and what each extra would add. A fault has the command that mends it below. Exit status 1 if a part is broken.

    Example: bench doctor
    """
    asked = parse(Doctor, argv)
    from dataclasses import asdict

    from bench.conformance.machine import examine

    broken, facts = False, []
    for answer in examine(find_home()):
        broken |= answer.state == "broken"
        if asked.as_json:
            facts.append(asdict(answer))
            continue
        state = "BROKEN" if answer.state == "broken" else answer.state
        print(wrapped(f"{answer.part:9} {state:8} {answer.found}", hang=19), flush=True)
        if answer.mend:
            print(wrapped(f"{'':18} {'mend' if answer.state != 'ok' else 'add'}: {answer.mend}"), flush=True)
    if asked.as_json:
        print_json({"parts": facts})
    return FAILED if broken else WELL
