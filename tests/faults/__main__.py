"""`make faults`: commands of bench are killed, stopped, refused the disk, given several times at once; is anything lost?

Each case is a home: a command is disturbed in it a few times and then given undisturbed, and all that it leaves must be what it
leaves where nothing happened (`suite.Suite`): the same records, captions, weights and tables, nothing twice, no stray file, no
stale run of MLflow, no process. What was finished may not change in between, and nobody may see a traceback. Goes on where it
was stopped; the figures are written into `tests/faults/results`. Needs a C compiler, for the layer between commands and files.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # helpers of the tests

from tabulate import tabulate

from bench.home import CHECKOUT
from tests.faults.suite import Suite, cases

RESULTS = Path(__file__).with_name("results") / "faults.json"


def figures(done: dict[str, Any]) -> dict[str, Any]:
    """Counts by kind and stage, and everything that was wrong."""
    by_kind: dict[str, Counter[str]] = {}
    for name, found in done.items():
        kind = name.split("-")[0]
        row = by_kind.setdefault(kind, Counter())
        row["homes"] += 1
        row["happened"] += len(found["happened"])
        row["wrong"] += bool(found["wrong"])
        row["asked to retry"] += any(one.get("retried") for one in found["happened"])
    stages = Counter(
        one["stage"] for name, found in done.items() if name.startswith("kill") for one in found["happened"]
    )
    scenes = Counter(
        name.split("-")[1] for name, found in done.items() if name.startswith("kill") for _ in found["happened"]
    )
    return {
        "by kind": {kind: dict(row) for kind, row in sorted(by_kind.items())},
        "kills by stage": dict(stages.most_common()),
        "kills by scene": dict(scenes.most_common()),
        "wrong": {name: found["wrong"] for name, found in sorted(done.items()) if found["wrong"]},
        "seconds": round(sum(found["seconds"] for found in done.values())),
    }


def main() -> int:
    """Run what is left of the suite; prints the table and what was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=CHECKOUT / ".bench" / "faults", help="homes, and what is done so far"
    )
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="stop after the case in which these are over"
    )
    parser.add_argument("--only", default="", help="cases whose names this pattern is found in")
    parser.add_argument("--again", action="store_true", help="run those in which something was wrong once more")
    given = parser.parse_args()
    folder, began = given.folder.resolve(), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / "done.json"
    done: dict[str, Any] = json.loads(note.read_text()) if note.is_file() else {}
    if given.again:
        done = {name: found for name, found in done.items() if not found["wrong"]}
    todo = [case for case in cases() if case.name not in done and re.search(given.only, case.name)]
    suite = Suite(folder)
    with closing(suite.commands):
        for case in todo:
            if time.monotonic() - began > given.seconds:
                break
            found = suite.run(case)
            done[case.name] = asdict(found)
            note.write_text(json.dumps(done, indent=1))
            print(
                f"{case.name}: {[one['stage'] for one in found.happened]} {found.wrong or 'well'}, {found.seconds} s",
                flush=True,
            )
    told = figures(done)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(
        tabulate(
            [
                [kind, *(row.get(name, 0) for name in ("homes", "happened", "asked to retry", "wrong"))]
                for kind, row in told["by kind"].items()
            ],
            headers=("kind", "homes", "happened", "asked to retry", "wrong"),
        )
    )
    print(
        "\n".join(f"{name}: {'; '.join(wrong)}" for name, wrong in told["wrong"].items())
        or "Nothing lost, nothing twice, nothing stray."
    )
    return 1 if told["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
