"""kill -9 at random moments of `bench run`, in its driver, a worker or Ray's own daemon: `make faults`.

A home is killed a few times, always while the same command runs in it, until the command ends by itself; its page, weights and
captions must then be those of a home that nobody disturbed, byte for byte, but for what the cells cost. Nothing that was finished
may be done again, MLflow must hold one run for each cell and none that still runs, and no process may be left. Takes a quarter of
an hour or more; with `--seconds` it stops in time, and the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from tabulate import tabulate

from bench.home import CHECKOUT, Home
from bench.records.store import all_records

TARGETS = ("driver", "worker", "raylet")
PER_HOME = 3  # kills before a home may end
PATIENCE = 240.0  # seconds until a command that does not end counts as hung
LINGER = 90.0  # seconds that Ray's processes may outlive their driver: its agents look for the head for 61 s
WORDS = (
    "run",
    "methods=[mplstm,salstm,recnet]",
    "dataset=shapes",
    "seeds=[0,1]",
    "subset=16/4/4",
    "train.epochs=3",
    "train.captions=16",
    "model.width=24",
    "model.embedding=16",
    "model.attention=16",
)
Cells = dict[str, dict[str, str]]


@dataclass
class Kill:
    """One kill: in which home, of whom, how many seconds after the start of the command, and what was done by then."""

    home: int
    target: str
    second: float
    done: int
    fate: str


@dataclass
class Progress:
    """What the command goes on from."""

    kills: list[Kill] = field(default_factory=list)
    home: int = 0
    kept: dict[str, str] = field(default_factory=dict)  # of this home: digest of each finished record, by folder
    faults: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Progress:
        if not path.is_file():
            return cls()
        told = json.loads(path.read_text())
        return cls(**{**told, "kills": [Kill(**kill) for kill in told["kills"]]})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))


class Command:
    """`bench run` in a home, in a process of its own."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "BENCH_HOME": str(home), "PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": "1"}
        with (home / "out.txt").open("ab") as out:
            words = [sys.executable, "-m", "bench", *WORDS]
            self.driver = subprocess.Popen(words, stdout=out, stderr=out, env=environment, cwd=home)
        self.began = time.monotonic()
        self.family: set[psutil.Process] = set()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def look(self) -> list[psutil.Process]:
        """All processes below the driver; remembered, since they have no parent once it is killed."""
        try:
            found = psutil.Process(self.driver.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        self.family.update(found)
        return found

    def find(self, target: str) -> psutil.Process | None:
        """A process to kill: the driver, a worker that has a cell, or the raylet."""
        below = self.look()
        if target == "driver":
            return psutil.Process(self.driver.pid)
        for process in below:
            try:
                name, words = process.name(), process.cmdline()
            except psutil.Error:
                continue
            # Idle workers have nothing to lose; agents are the raylet's, which ends with them.
            busy = words and words[0].startswith("ray::") and not re.search("IDLE|Agent", words[0])
            if (target == "raylet" and name == "raylet") or (target == "worker" and busy):
                return process
        return None

    def wait(self, until: float) -> int | None:
        """The exit status once there is one, or None when the command is `until` seconds old."""
        while self.driver.poll() is None and self.seconds < until:
            self.look()
            time.sleep(0.1)
        return self.driver.poll()

    def left(self) -> list[psutil.Process]:
        """Processes that outlive the command for longer than `LINGER` seconds."""
        _, alive = psutil.wait_procs(self.family, timeout=LINGER)
        return [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def undisturbed(folder: Path) -> tuple[Cells, str, float]:
    """What a home holds that nobody kills anything in, its page, and the seconds it took; made once."""
    home, note = folder / "whole", folder / "whole.json"
    if not note.is_file():
        command = Command(home)
        status = command.wait(PATIENCE * 2)
        assert status == 0, f"the command itself does not end well ({status}): see {home / 'out.txt'}"
        note.write_text(json.dumps(command.seconds))
    return cells(home), page(home), float(json.loads(note.read_text()))


def cells(home: Path) -> Cells:
    """Of every cell: state, weights, captions and scores."""
    found = {}
    for record in all_records(Home(home).results):
        folder = home / "results" / "shapes" / record.method / record.key
        files = {name: digest(folder / name) for name in ("predictions.jsonl", "clip_scores.csv")}
        scores = json.dumps(record.scores, sort_keys=True)
        found[record.key] = {"state": record.state, "weights": str(record.weights_sha256), "scores": scores, **files}
    return found


def page(home: Path) -> str:
    """The page of a home without what its cells cost: seconds and memory are never the same twice."""
    path = home / "leaderboards" / "shapes.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    text = re.sub(r"^!\[[^\]]* against training time .*$", "", text, flags=re.M)
    return re.sub(r"^### Cost and records .*?(?=^#|^<|\Z)", "", text, flags=re.M | re.S)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"


def finished(home: Path) -> dict[str, str]:
    """Digest of the record of each cell that is done, by its folder."""
    found = {}
    for path in home.glob("results/*/*/*/record.json"):
        if json.loads(path.read_text())["state"] == "done":
            found[str(path.parent.relative_to(home))] = digest(path)
    return found


def disturb(
    home: Path, number: int, quota: int, whole: float, progress: Progress, draw: random.Random
) -> Iterator[Command]:
    """Run the command until it has been killed `quota` times or has ended; adds to `progress`, yields what was started."""
    while quota:
        check_kept(home, progress)
        yield (command := Command(home))
        while quota:
            target = TARGETS[len(progress.kills) % len(TARGETS)]
            at = command.seconds + draw.uniform(0.1, 0.8) * whole
            if command.wait(at) is not None:
                return
            victim = command.find(target)
            while victim is None and command.wait(command.seconds + 0.2) is None:
                victim = command.find(target)  # no worker has a cell yet
            if victim is None:
                return
            second, done = round(command.seconds, 1), len(finished(home))
            progress.kept.update(finished(home))
            victim.kill()
            quota -= 1
            if target == "worker":
                progress.kills.append(Kill(number, target, second, done, "the driver went on"))
                continue
            status = command.wait(command.seconds + PATIENCE)
            fate = f"exit status {status}" if status is not None else "hung"
            progress.kills.append(Kill(number, target, second, done, fate))
            if status is None:
                progress.faults.append(f"home {number}: the driver hung after its {target} was killed")
                command.driver.kill()
            break
        else:
            command.wait(command.seconds + PATIENCE)
            command.driver.kill()
        command.driver.wait()


def check_kept(home: Path, progress: Progress) -> None:
    """No record that was finished may have changed since."""
    now = finished(home)
    for folder, mark in progress.kept.items():
        if now.get(folder) != mark:
            progress.faults.append(f"home {progress.home}: {folder} was finished, and was done again")
    progress.kept = now


def settle(home: Path, progress: Progress, expected: Cells, expected_page: str, started: Sequence[Command]) -> None:
    """Let the command end by itself and compare what it and those before it leave."""
    for _ in range(3):
        check_kept(home, progress)
        command = Command(home)
        status = command.wait(PATIENCE)
        if status is None:
            command.driver.kill()
            progress.faults.append(f"home {progress.home}: the last command hung")
        if status == 0:
            break
    check_kept(home, progress)
    found = {
        "the last command did not end with 0": status == 0,
        "cells differ from the undisturbed ones": cells(home) == expected,
        "the page differs from the undisturbed one": page(home) == expected_page,
    }
    progress.faults += [f"home {progress.home}: {fault}" for fault, well in found.items() if not well]
    progress.faults += [f"home {progress.home}: {fault}" for fault in tracked(home, expected)]
    left = [process for one in (*started, command) for process in one.left()]
    progress.faults += [f"home {progress.home}: process {process} was left" for process in left]


def tracked(home: Path, expected: Cells) -> list[str]:
    """What is wrong with MLflow's view of a home."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow.tracking import MlflowClient

    client = MlflowClient(Home(home).mlflow_uri)
    experiment = client.get_experiment_by_name("bench/shapes")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    faults = [f"MLflow run {run.info.run_name} still runs" for run in runs if run.info.status == "RUNNING"]
    of_cells = Counter(run.data.tags["bench.key"] for run in runs if run.data.tags.get("bench.kind") == "cell")
    if of_cells != Counter(expected.keys()):
        faults.append(f"MLflow holds {sum(of_cells.values())} runs of {len(of_cells)} cells, not one for each")
    return faults


def told(progress: Progress) -> str:
    """The table of kills."""
    rows: list[list[Any]] = [
        [number, kill.home, kill.target, f"{kill.second:.1f}", kill.done, kill.fate]
        for number, kill in enumerate(progress.kills, start=1)
    ]
    return tabulate(rows, headers=("kill", "home", "of", "after s", "cells done by then", "then"), floatfmt=".1f")


def main() -> int:
    """Kill until there are enough; prints the table and what was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills", description=str(__doc__).splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="stop after the home in which these are over"
    )
    parser.add_argument("--folder", type=Path, default=CHECKOUT / ".bench" / "faults" / "kills")
    given = parser.parse_args()
    folder, began = given.folder.resolve(), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    expected, expected_page, whole = undisturbed(folder)
    note = folder / "progress.json"
    progress = Progress.read(note)
    while len(progress.kills) < given.kills and time.monotonic() - began < given.seconds:
        home = folder / f"home{progress.home}"
        draw = random.Random(f"{progress.home}/{len(progress.kills)}")
        quota = min(PER_HOME, given.kills - len(progress.kills))
        started = list(disturb(home, progress.home, quota, whole, progress, draw))
        settle(home, progress, expected, expected_page, started)
        progress.home, progress.kept = progress.home + 1, {}
        progress.write(note)
        print(f"home {progress.home - 1}: {len(progress.kills)} kills so far", flush=True)
    print(f"\n{told(progress)}\n\n{len(expected)} cells, {whole:.0f} s undisturbed.")
    print(
        "\n".join(progress.faults)
        or "Nothing lost, nothing twice: all pages, weights, captions and scores are the same."
    )
    return 1 if progress.faults else 0


if __name__ == "__main__":
    sys.exit(main())
