"""kill -9 inside an epoch, between phases and inside the checkpoint write: the same command gives the same weights."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.conformance.workplace import write_corpus
from bench.home import Home
from bench.records.store import all_records

Run = Callable[[Path, str, int], int]

# Answers each line of its input, `HOME MOMENT NUMBER WORDS`, with the exit status of a process of its own that runs
# `bench WORDS` and kills itself at that moment; `state` counts what that process does. They are forked, for what one of them
# would import takes longer than what it does.
DRIVER = """
import os, shlex, signal, sys
import torch
import bench.cell.workbench as workbench
from bench.cli.main import main
import bench.cell.fit, bench.evaluation.scorer, bench.reports.leaderboard, bench.run.runner, methods.recnet

state = {"saves": 0, "ticks": 0}
save, tick, save_state = torch.save, workbench.Workbench.tick, workbench.Workbench.save_state

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def run(home, moment, number, words):
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

    def counted_state(self, content):
        save_state(self, content)
        if moment == "phase" and content["at"]["phase"] == number:
            die()

    workbench.torch.save = broken_save
    workbench.Workbench.tick = counted_tick
    workbench.Workbench.save_state = counted_state
    os.environ["BENCH_HOME"] = home
    os.dup2(2, 1)
    return main(words)

for line in sys.stdin:
    home, moment, number, *words = shlex.split(line)
    child = os.fork()
    if child == 0:
        os._exit(run(home, moment, int(number), words))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
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


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run the cell in a home, and kill it at a moment; the exit status of its process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, "text": True}
        driver = subprocess.Popen([sys.executable, "-c", DRIVER], env=environment, **pipes)

    def ask(home: Path, moment: str, number: int) -> int:
        assert driver.stdin is not None and driver.stdout is not None
        words = [str(home), moment, str(number), *command(home / "dataset.yaml")]
        print(shlex.join(words), file=driver.stdin, flush=True)
        status = driver.stdout.readline()
        assert status, (tmp_path / "log").read_text()[-2000:]
        return int(status)

    yield ask
    driver.communicate()


def weights(home: Path) -> str:
    (record,) = all_records(Home(home).results)
    assert record.weights_sha256
    return record.weights_sha256


MOMENTS = (("write", 2), ("epoch", 4), ("phase", 1), ("epoch", 2), ("write", 3))
"""When each process of one cell dies, in turn; numbers count what that process does, from 1 (phases: from 0)."""


def test_same_weights_after_kills(run: Run, tmp_path: Path) -> None:
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
