"""Damaged files are given to a reader, in a process of its own that may take so much memory and so long for each."""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from bench import BenchError
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import Target

SECONDS = 10  # for one input
WAITED = 12 * SECONDS  # with other work on all cores
MEMORY = 2 * 2**30  # bytes beside what the process has when it begins


class HungError(BaseException):
    """An input took longer than `SECONDS`."""


@dataclass
class Found:
    """How many inputs were read and refused, and each fault with the number of the input that shows it first."""

    inputs: int = 0
    read: int = 0
    refused: int = 0
    faults: dict[str, list[Any]] = field(default_factory=dict)  # kind -> [first input, how often, the trace]

    def add(self, kind: str, number: int, trace: str) -> None:
        first, often, told = self.faults.get(kind, [number, 0, trace])
        self.faults[kind] = [first, often + 1, told]


def attempt(target: Target, numbers: range) -> Found:
    """Give the damaged files `numbers` to a reader, in this process."""
    found = Found()
    before = signal.signal(signal.SIGALRM, _hang)
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in numbers:
                _one(target, number, Path(folder) / "here", found)
    finally:
        signal.signal(signal.SIGALRM, before)
    return found


def apart(target: Target, numbers: range) -> Found:
    """`attempt` in forked processes, again behind each input that ends one."""
    whole, start = Found(), numbers.start
    while start < numbers.stop:
        with tempfile.TemporaryDirectory() as folder:
            at, told = Path(folder) / "at", Path(folder) / "told"
            gc.collect()  # what is done with must not be cleared by the child: a video's decoder waits for threads left here
            if (child := os.fork()) == 0:
                _forked(target, range(start, numbers.stop), at, told)
            status = _end(child, at)
            if told.is_file():
                part = Found(**json.loads(told.read_text()))
                start = numbers.stop
            else:
                last = int(at.read_text())
                part = attempt_known(start, last)
                part.add(f"the process ended with {status}", last, "")
                start = last + 1
        whole.inputs, whole.read, whole.refused = (
            whole.inputs + part.inputs,
            whole.read + part.read,
            whole.refused + part.refused,
        )
        for kind, (first, often, trace) in part.faults.items():
            for _ in range(often):
                whole.add(kind, first, trace)
    return whole


def _end(child: int, at: Path) -> int:
    """The exit code of a forked process. One that stays at an input, waiting in C code, where no alarm is heard, is killed."""
    number, since = "", time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if (now := at.read_text() if at.is_file() else "") != number:
            number, since = now, time.monotonic()
        if time.monotonic() - since > WAITED:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def attempt_known(start: int, last: int) -> Found:
    """What is known of inputs whose process ended: only how many there were."""
    return Found(inputs=last + 1 - start)


def _forked(target: Target, numbers: range, at: Path, told: Path) -> None:
    try:
        gc.freeze()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        signal.signal(signal.SIGALRM, _hang)
        found = Found()
        with tempfile.TemporaryDirectory() as folder:
            for number in numbers:
                at.write_text(str(number))
                signal.setitimer(
                    signal.ITIMER_VIRTUAL, 3 * SECONDS
                )  # ends the process: C code that hangs hears no alarm
                _one(target, number, Path(folder) / "here", found)
        told.write_text(json.dumps(vars(found)))
    finally:
        sys.stdout.flush()
        os._exit(0)


def _one(target: Target, number: int, folder: Path, found: Found) -> None:
    path = folder / target.file
    path.parent.mkdir(parents=True)
    path.write_bytes(mutated(target.seeds, number, target.name))
    found.inputs += 1
    signal.alarm(SECONDS)
    try:
        target.read(path)
        found.read += 1
    except (BenchError, *target.refusals):
        found.refused += 1
    except HungError:
        found.add(f"longer than {SECONDS} s", number, traceback.format_exc())
    except Exception as error:
        found.add(f"{type(error).__name__} at {_place(error)}", number, traceback.format_exc())
    finally:
        signal.alarm(0)
        shutil.rmtree(folder)


def _place(error: BaseException) -> str:
    """The last line of bench in a traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/bench/" in frame.filename]
    return f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else "?"


def _hang(number: int, frame: FrameType | None) -> None:
    raise HungError


@contextmanager
def sound(target: Target) -> Iterator[list[Path]]:
    """Its sound files on disk, each alone in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, content in enumerate(target.seeds):
            path = Path(folder) / str(number) / target.file
            path.parent.mkdir(parents=True)
            path.write_bytes(content)
            paths.append(path)
        yield paths


def summed(parts: list[Found]) -> Counter[str]:
    """Counts over several readers."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(inputs=part.inputs, read=part.read, refused=part.refused)
        total["faults"] += sum(often for _, often, _ in part.faults.values())
    return total
