"""Commands of bench in processes that a layer between them and their files disturbs (`layer.c`).

`python -m tests.faults.commands` is the server: it has imported what commands need, and forks a process for each.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.home import CHECKOUT

VARIABLE = "BENCH_FAULT"  # read by the layer in processes that a command starts
PATIENCE = 300.0  # seconds until a command that does not end counts as hung
LINGER = 90.0  # seconds that what a command started may outlive it: Ray's agents look for their head for 61 s
PRELOADED = (
    "torch._inductor",  # what torch imports where sums are to come out the same every time, for two seconds
    *("scipy.stats", "matplotlib.pyplot", "safetensors.torch", "hdf5plugin", "bench.tracking.mlflow_runs"),
    *("bench.cli.run", "bench.cli.pages", "bench.cli.features", "bench.cell.fit", "bench.cell.scores"),
    *("bench.evaluation.scorer", "bench.features.extract", "bench.features.importers", "bench.features.shapes"),
    *("bench.reports.leaderboard", "bench.run.runner", "bench.run.prepare"),
)


@dataclass(frozen=True)
class Fault:
    """What happens at the `moment`-th operation on a file below the command's home whose path holds `part`.

    `action` is kill (`value`: microseconds later), signal (its number), error (its number) or clock (seconds that it jumps).
    With `lasting` all later operations fail too.
    """

    part: str = ""
    moment: int = 0
    action: str = "kill"
    value: int = 0
    lasting: bool = False


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit status (negative: by a signal; None: it hung), what it printed, whether its fault happened,
    and what it left running."""

    status: int | None
    said: str
    happened: bool
    seconds: float
    left: tuple[str, ...]


def build_layer(folder: Path) -> Path:
    """Compile the layer; raises CalledProcessError or FileNotFoundError without a C compiler."""
    library = folder / "layer.so"
    source = Path(__file__).with_name("layer.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl", "-lpthread"], check=True)
    return library


class Commands:
    """Runs commands in homes, several at once if asked. `folder` takes what is needed on the way."""

    def __init__(self, folder: Path, packages: Path | None = None) -> None:
        """`packages` is a folder to import from first (see `tests/meteor_jar.py`)."""
        self._folder = folder
        environment = {
            **os.environ,
            "LD_PRELOAD": str(build_layer(folder)),
            "PYTHONPATH": os.pathsep.join(map(str, filter(None, (packages, CHECKOUT)))),
            "OMP_NUM_THREADS": "1",
        }
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.commands"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=CHECKOUT,
            text=True,
        )

    def run(
        self, home: Path, words: Sequence[str], fault: Fault | None = None, at_once: int = 1, note: Path | None = None
    ) -> list[Ended]:
        """Give the command `words`, `at_once` times at the same moment. The first one meets the fault. Operations on files
        below `home` are noted in `note`: number, seconds, what, path."""
        fault = fault or Fault()
        told = self._folder / "out"
        asked = {"home": str(home), "words": list(words), "at_once": at_once, "out": str(told)}
        asked |= {"fault": asdict(fault), "note": str(note or "")}
        assert self._server.stdin is not None and self._server.stdout is not None
        print(json.dumps(asked), file=self._server.stdin, flush=True)
        answer = self._server.stdout.readline()
        assert answer, "the server of commands has ended"
        return [Ended(**{**one, "left": tuple(one["left"])}) for one in json.loads(answer)]

    def close(self) -> None:
        """End the server."""
        self._server.communicate()


def _serve() -> None:
    """Answer each line of the input, as `Commands.run` writes them."""
    import importlib

    import psutil

    for name in PRELOADED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what outlives a command becomes a child of this process
    for line in sys.stdin:
        asked = json.loads(line)
        began = time.monotonic()
        started = [_start(asked, number) for number in range(asked["at_once"])]
        statuses = [_wait(child, began) for child in started]
        seconds = time.monotonic() - began
        left = _left(psutil.Process())
        answer = []
        for number, status in enumerate(statuses):
            count = Path(f"{asked['out']}.{number}.count")
            happened = int.from_bytes(count.read_bytes()[:8], sys.byteorder) >= asked["fault"]["moment"] > 0
            said = Path(f"{asked['out']}.{number}").read_text(encoding="utf-8", errors="replace")
            answer.append({"status": status, "said": said, "happened": happened, "seconds": seconds, "left": left})
        print(json.dumps(answer), file=answers, flush=True)


def _start(asked: dict[str, Any], number: int) -> int:
    """Fork a process that gives the command; returns its id."""
    fault = asked["fault"] if number == 0 else {**asked["fault"], "moment": 0}
    count = f"{asked['out']}.{number}.count"
    Path(count).unlink(missing_ok=True)
    fields = [os.path.realpath(asked["home"]), fault["part"], fault["moment"], fault["action"], fault["value"]]
    given = "\x1f".join(map(str, [*fields, int(fault["lasting"]), count, asked["note"]]))
    if child := os.fork():
        return child
    status = 70
    try:
        out = os.open(f"{asked['out']}.{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ["BENCH_HOME"], os.environ[VARIABLE] = asked["home"], given
        os.chdir(asked["home"])
        from bench.cli.main import main

        ctypes.CDLL(None).bench_fault(given.encode())
        status = main(asked["words"])
    finally:
        sys.stdout.flush()
        os._exit(status)


def _wait(child: int, began: float) -> int | None:
    """The exit status of a process; None for one that did not end in time, which is then killed."""
    while time.monotonic() - began < PATIENCE:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _left(this: Any) -> list[str]:
    """The command lines of what the commands have left running for longer than `LINGER` seconds; it is ended."""
    import psutil

    _, alive = psutil.wait_procs(this.children(recursive=True), timeout=LINGER)
    words = []
    for process in alive:
        try:
            words.append(" ".join(process.cmdline())[:200])
            process.kill()
            process.wait(5)
        except psutil.Error:
            continue
    return words


if __name__ == "__main__":
    _serve()
