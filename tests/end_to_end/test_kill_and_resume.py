"""kill -9 inside an epoch, between phases and inside the checkpoint write: the same command gives the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.conformance.corpus import write_corpus
from bench.home import Home
from bench.records.store import all_records

# Runs `bench run` in a process that kills itself at a chosen moment. `state` counts calls over the whole process.
DRIVER = """
import os, signal, sys
import torch
import bench.execution.workbench as workbench
from bench.cli import main

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


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    home = tmp_path_factory.mktemp("whole")
    write_corpus(home, ["frames"])
    assert run(home, "never", 0) == 0
    return weights(home)


@pytest.mark.parametrize(("moment", "number"), [("epoch", 7), ("epoch", 13), ("phase", 1), ("write", 2), ("write", 5)])
def test_same_weights_after_kill(moment: str, number: int, uninterrupted: str, tmp_path: Path) -> None:
    write_corpus(tmp_path, ["frames"])
    assert run(tmp_path, moment, number) == -signal.SIGKILL, "the process must die for this test to mean something"
    assert not all_records(Home(tmp_path).results), "a killed cell must not look finished"
    assert run(tmp_path, "never", 0) == 0
    assert weights(tmp_path) == uninterrupted
