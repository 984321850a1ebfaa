"""What Ray costs: cells with workers that are used again against bare loops, GPU cells on three nodes, a long queue, the start.

The cells are of a method that does not exist: they train a fixed number of steps, or sleep, and leave a record. Every part
runs in a process of its own, as a command does.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.declare.card import Resources
from bench.home import Home
from bench.records.schema import Record, cell_key
from bench.records.store import read_record, write_record
from tests.perf.rows import Row

CELLS, STEPS = 12, 6  # on two processors, of so many training steps
PLACED, SECONDS, GPUS = 40, 10.0, 8  # cells that sleep on fake GPUs
PENDING, PLANNED = 1000, 10_000
QUEUE_SECONDS = 30.0  # in which the driver of the long queue is watched


@dataclass(frozen=True)
class Cell:
    """Enough of a cell for placing it."""

    name: str
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        fixed = {"variant": None, "dataset": "toy", "split": "test", "protocol": "standard", "seed": 0, "threads": 1}
        return {"method": self.name, "device": "auto", **fixed, **self.more}

    @property
    def key(self) -> str:
        return cell_key(self.config)

    @property
    def label(self) -> str:
        return self.name

    def folder(self, home: Home) -> Path:
        return home.results / "toy" / self.name / self.key


def work(config: dict[str, Any], root: str) -> None:
    """Sleep or train, and tell from when to when and on which node."""
    import ray

    began = time.time()
    time.sleep(config.get("sleep", 0.0))
    train(config.get("steps", 0))
    told = {"began": began, "ended": time.time(), "node": ray.get_runtime_context().get_node_id()}
    folder = Cell(config["method"], config).folder(Home(Path(root)))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "told.json").write_text(json.dumps(told))
    write_record(folder, Record(schema=1, key=cell_key(config), state="unscored", config=config))


def train(steps: int) -> None:
    """So many steps of a model made anew, on one thread."""
    if steps:
        import torch

        from tests.perf.generated import MSVD, batch
        from tests.perf.training import salstm, step_of

        torch.set_num_threads(1)
        pair = salstm()
        step = step_of(pair.engine, pair.loss, batch(MSVD))
        for _ in range(steps):
            step()


def score(config: dict[str, Any], root: str, scorer: Any) -> None:
    """A score without scoring."""
    folder = Cell(config["method"], config).folder(Home(Path(root)))
    scored = {"state": "done", "scores": {"test": {"cider": 0.0}}, "signatures": {"test": {"cider": "toy"}}}
    write_record(folder, read_record(folder / "record.json").model_copy(update=scored))


def go(cells: list[Cell], root: str, **changes: Any) -> list[dict[str, Any]]:
    """Run cells; what each told."""
    from bench.run.runner import run

    asked = {
        "executor": "ray",
        "retry_failed": False,
        "mlflow": "off",
        "wandb": None,
        "dataset": "toy",
        "address": "local",
        "device": "auto",
    }
    spec: Any = SimpleNamespace(**{**asked, "max_concurrent": None, "resources": Resources(), **changes})
    home = Home(Path(root))
    run(cells, home, spec, work=work, score=score)  # type: ignore[arg-type]
    paths = [cell.folder(home) / "told.json" for cell in cells]
    return [json.loads(path.read_text()) for path in paths if path.is_file()]


def span(told: list[dict[str, Any]]) -> float:
    return float(max(one["ended"] for one in told) - min(one["began"] for one in told))


def workers(root: str) -> None:
    """Seconds of twelve cells on two processors, after one cell in each worker."""
    warm = [Cell(f"warm{number}", {"device": "cpu", "steps": 1}) for number in range(2)]
    cells = [Cell(f"cell{number}", {"device": "cpu", "steps": STEPS}) for number in range(CELLS)]
    print("told", json.dumps(span(go([*warm, *cells], root)[len(warm) :])))


def loop(root: str) -> None:
    """Seconds of the cells of one processor without Ray, after one step; begins with a line on standard input."""
    train(1)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.time()
    for _ in range(CELLS // 2):
        train(STEPS)
    print("told", json.dumps(time.time() - began), flush=True)


def nodes(root: str) -> None:
    """Seconds of cells on the eight fake GPUs of two of three nodes, after one in each worker, and how many went astray."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=GPUS // 2, num_gpus=GPUS // 2)
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        warm = [Cell(f"warm{number}", {"sleep": 5.0}) for number in range(GPUS)]
        cells = [Cell(f"cell{number}", {"sleep": SECONDS}) for number in range(PLACED)]
        told = go([*warm, *cells], root)[len(warm) :]
        able = {node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU")}
        print("told", json.dumps([span(told), PLACED - sum(one["node"] in able for one in told)]))
    finally:
        ray.shutdown()
        cluster.shutdown()


def queue(root: str) -> None:
    """MiB that the driver of a long queue has held at most."""
    threading.Timer(QUEUE_SECONDS, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    go([Cell(f"cell{number}", {"device": "cpu", "sleep": 1.0}) for number in range(PENDING)], root)
    print("told", json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def plan(root: str) -> None:
    """Seconds of planning as `bench plan` does."""
    from bench.plan.request import parse
    from bench.plan.states import plan as planned

    began = time.perf_counter()
    seeds = ",".join(map(str, range(PLANNED)))
    found = planned(parse(["methods=salstm", "dataset=shapes", f"seeds=[{seeds}]"]), Home(Path(root)))
    assert len(found) == PLANNED
    print("told", json.dumps(time.perf_counter() - began))


def start(root: str) -> None:
    """Seconds from the start of `bench run` to the first training step of its first cell, the features being there."""
    from bench.declare.registry import dataset
    from bench.run.prepare import prepare

    prepare(dataset("shapes"), Home(Path(root)), (40, 8, 8), {"frames"})
    command = [sys.executable, "-m", "bench", "run", "methods=salstm", "dataset=shapes", "subset=40/8/8"]
    began = time.perf_counter()
    running = subprocess.Popen(command, env={**os.environ, "BENCH_HOME": root}, stdout=subprocess.DEVNULL)
    while running.poll() is None and not list(Path(root).glob("results/shapes/*/*/work/progress.json")):
        time.sleep(0.02)
    taken = time.perf_counter() - began
    running.wait()
    print("told", json.dumps(taken))


def told(part: str) -> Any:
    """What a part tells, measured in a process of its own."""
    return read(begin(part))


def begin(part: str) -> subprocess.Popen[str]:
    program = f"from tests.perf import placing; placing.{part}({tempfile.mkdtemp()!r})"
    return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read(process: subprocess.Popen[str]) -> Any:
    out, _ = process.communicate("go\n")
    lines = [line for line in out.splitlines() if line.startswith("told ")]
    assert lines, f"nothing was told: {out[-2000:]}"
    return json.loads(lines[-1].removeprefix("told "))


def two_loops() -> float:
    """Seconds of two bare loops at once."""
    both = [begin("loop"), begin("loop")]
    for process in both:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return max(read(process) for process in both)


def rows(threads: int) -> list[Row]:
    """The figures beside their bars."""
    bare, cells = two_loops(), told("workers")
    ideal, (taken, astray) = math.ceil(PLACED / GPUS) * SECONDS, told("nodes")
    return [
        Row(
            f"{CELLS} cells, workers used again",
            "two bare loops",
            cells / bare,
            1.15,
            at_most=True,
            details={"cells s": cells, "loops s": bare},
        ),
        Row(
            f"{PLACED} cells on {GPUS} fake GPUs of 3 nodes",
            "no time between cells",
            taken / ideal,
            1.25,
            at_most=True,
            details={"cells s": taken, "ideal s": ideal, "on a node without GPUs": astray},
        ),
        Row(f"driver with {PENDING:,} waiting cells", "its memory", told("queue"), 1536, "MiB", at_most=True),
        Row(f"planning {PLANNED:,} cells", "the clock", told("plan"), 5, "s", at_most=True),
        Row("start of bench run to the first training step", "the clock", told("start"), 15, "s", at_most=True),
    ]
