"""kill -9 inside an epoch, between phases and inside the checkpoint write: the same command gives the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from bench.conformance.workplace import write_corpus
from bench.home import Home
from bench.records.store import all_records

# Runs `bench run` in a process that kills itself at a chosen moment. `state` counts calls over the whole process.
DRIVER = """
import os, signal, sys
import torch
import bench.cell.workbench as workbench
from bench.cli.main import main

moment, number = sys.argv[1], int(sys.argv[2])
state = {"saves": 0, "ticks": 0}
save, tick = torch.save, workbench.Workbench.tick

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def broken_save(content, path):
    state["saves"] += 1
    if moment == "write" and state["saves"] == number:
        save(content, path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        die()
    save(content, path)

def counted_tick(self, phase, epoch, values):
    state["ticks"] += 1
    tick(self, phase, epoch, values)
    if moment == "epoch" and state["ticks"] == number:
        die()

original = workbench.Workbench.save_state
def counted_state(self, content):
    original(self, content)
    if moment == "phase" and content["at"]["phase"] == number:
        die()

workbench.torch.save = broken_save
workbench.Workbench.tick = counted_tick
workbench.Workbench.save_state = counted_state
sys.exit(main(sys.argv[3:]))
"""


def command(definition: Path) -> list[str]:
    return [
        "run",
        "methods=recnet",
        f"dataset={definition}",
        "executor=inline",
        "mlflow=off",
        "model.width=16",
        "model.embedding=12",
        "model.attention=8",
    ]


def run(home: Path, moment: str, number: int) -> int:
    environment = {**os.environ, "BENCH_HOME": str(home), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", DRIVER, moment, str(number), *command(home / "dataset.yaml")]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300).returncode


def weights(home: Path) -> str:
    (record,) = all_records(Home(home).results)
    assert record.weights_sha256
    return record.weights_sha256


MOMENTS = (("write", 2), ("epoch", 4), ("phase", 1), ("epoch", 2), ("write", 3))
"""When each process of one cell dies, in turn; numbers count what that process does, from 1 (phases: from 0)."""


def test_same_weights_after_kills(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for home in (whole, killed):
        home.mkdir()
        write_corpus(home, ["frames"])
    assert run(whole, "never", 0) == 0
    for moment, number in MOMENTS:
        assert run(killed, moment, number) == -signal.SIGKILL, "the process must die for this test to mean something"
        assert not all_records(Home(killed).results), "a killed cell must not look finished"
    assert run(killed, "never", 0) == 0
    assert weights(killed) == weights(whole)
