"""`make fuzz`: readers, grammars, cards and importers get ten thousand damaged inputs each, and the metrics five thousand
odd sets of captions beside pycocoevalcap.

Every input is read, or refused by a sentence: no traceback, no process that ends, none that takes longer than ten seconds or two
gigabytes. Goes on where it was stopped; the figures are written into `tests/fuzz/results`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # helpers of the tests

from hypothesis import HealthCheck, Phase, given, seed, settings
from meteor_jar import small_jar
from tabulate import tabulate

from bench import BenchError
from bench.evaluation import meteor
from bench.home import CHECKOUT
from tests.fuzz.captions import Judge, odd_set
from tests.fuzz.targets import Target, targets
from tests.fuzz.trial import apart
from tests.fuzz.words import READERS, command_lines

INPUTS, SETS, PART = 10_000, 5_000, 500
RESULTS = Path(__file__).with_name("results") / "fuzz.json"
Row = dict[str, Any]


def files(target: Target, row: Row) -> None:
    """Another part of the inputs of a reader of files."""
    found = apart(target, range(row["inputs"], min(row["inputs"] + PART, INPUTS)))
    row["inputs"] += found.inputs
    row["read"] += found.read
    row["refused"] += found.refused
    for kind, (first, often, _) in found.faults.items():
        row["faults"].setdefault(kind, [first, 0])[1] += often


def words(name: str, row: Row) -> None:
    """Another part of the command lines."""
    read, part = READERS[name], row["inputs"] // PART

    @seed(part)
    @settings(
        max_examples=PART,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(command_lines)
    def attempt(line: list[str]) -> None:
        row["inputs"] += 1
        try:
            read(line)
            row["read"] += 1
        except BenchError:
            row["refused"] += 1
        except Exception as error:
            row["faults"].setdefault(f"{type(error).__name__}: {error}"[:200], [line, 0])[1] += 1

    attempt()


def captions(judge: Judge, row: Row) -> None:
    """Another hundred sets of captions."""
    first = row["inputs"]
    for number, metric, far in judge.disagreements([odd_set(first + number) for number in range(100)]):
        row["faults"].setdefault(f"{metric} differs by {far:.2g}", [first + number, 0])[1] += 1
    row["inputs"] += 100
    row["read"] += 100


def parts(folder: Path, only: str, stack: ExitStack) -> Iterator[tuple[str, int, Any]]:
    """Name, number of inputs, and what takes a row further, of each reader."""
    for target in targets(folder):
        if only in target.name:
            yield target.name, INPUTS, lambda row, target=target: files(target, row)
    for name in READERS:
        if only in name:
            yield name, INPUTS, lambda row, name=name: words(name, row)
    if only in "captions against pycocoevalcap":
        jar = small_jar(folder / "jar")
        meteor.find_jar = lambda *_: jar  # type: ignore[assignment]
        judge = stack.enter_context(closing(Judge(jar)))
        yield "captions against pycocoevalcap", SETS, lambda row: captions(judge, row)


def main() -> int:
    """Run what is left; prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=str(__doc__).splitlines()[0])
    parser.add_argument("--note", type=Path, default=CHECKOUT / ".bench" / "fuzz.json", help="what is done so far")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop when these are over")
    parser.add_argument("--only", default="", help="readers whose names hold this")
    given_ = parser.parse_args()
    began, note = time.monotonic(), given_.note
    note.parent.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Row] = json.loads(note.read_text()) if note.is_file() else {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        found = list(parts(Path(folder), given_.only, stack))
        for name, _, _ in found:
            rows.setdefault(name, {"inputs": 0, "read": 0, "refused": 0, "faults": {}})
        while todo := [one for one in found if rows[one[0]]["inputs"] < one[1]]:
            for name, _, further in todo:  # in turns: what is done when it is stopped is of all of them
                if time.monotonic() - began < given_.seconds:
                    further(rows[name])
                    note.write_text(json.dumps(rows))
            if time.monotonic() - began >= given_.seconds:
                break
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
    faults = sum(often for row in rows.values() for _, often in row["faults"].values())
    columns = ("inputs", "read", "refused")
    table = [
        [name, *(row[one] for one in columns), sum(n for _, n in row["faults"].values())] for name, row in rows.items()
    ]
    print(tabulate(table, headers=("reader", *columns, "faults")))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
