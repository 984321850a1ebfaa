"""Processes of this machine that answer questions side by side: started at once, and anew where a question has ended one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from bench import BenchError

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class ProcessEndedError(Exception):
    """A process ended over its question; `status` is what the system says of it, below zero the signal."""

    def __init__(self, status: int) -> None:
        super().__init__(f"a process ended with status {status}")
        self.status = status


class Processes(Generic[Question, Answer]):
    """`count` processes that answer with `work`, which like questions and answers must be picklable.

    `environment` is laid over that of this process. What `work` raises as a BenchError is raised by the future; any other
    error ends the process and is a ProcessEndedError. Used as a context manager, at whose end they are ended.
    """

    def __init__(
        self, work: Callable[[Question], Answer], count: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self.work, self.count = work, count
        self._all = [_Process(work, environment or {}) for _ in range(count)]
        self._idle: SimpleQueue[_Process] = SimpleQueue()
        for process in self._all:
            self._idle.put(process)
        self._pool = ThreadPoolExecutor(max(1, count), "ask")

    def submit(self, question: Question) -> Future[Answer]:
        """Ask the next process that is idle."""
        return self._pool.submit(self._ask, question)

    def _ask(self, question: Question) -> Answer:
        process = self._idle.get()
        try:
            answer: Answer = process.ask(question)
            return answer
        finally:
            self._idle.put(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._all:
            process.end()
        self._pool.shutdown(cancel_futures=True)
        for process in self._all:
            process.end()  # those that were started anew in between


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Process:
    """One of them."""

    def __init__(self, work: Callable[[Any], Any], environment: Mapping[str, str]) -> None:
        self._work, self._environment = work, environment
        self._ended = False
        self._start()

    def _start(self) -> None:
        # Neither forked, as locks of torch's threads do not survive that, nor spawned by multiprocessing, which imports the
        # caller's program once more: this one starts in a third of a second and needs no torch.
        ours, theirs = socket.socketpair()
        code = "import sys; from bench.features.processes import serve; serve(int(sys.argv[1]))"
        places = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, **self._environment, "PYTHONPATH": places},
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self._pipe = Connection(ours.detach())
        with suppress(OSError):  # a process that ended at once is met when it is asked
            self._pipe.send(self._work)

    def ask(self, question: Any) -> Any:
        try:
            self._pipe.send(question)
            answer = self._pipe.recv()
        except (EOFError, OSError):
            status = self._process.wait()
            if not self._ended:
                self._start()
            raise ProcessEndedError(status) from None
        if isinstance(answer, BenchError):
            raise answer
        return answer

    def end(self) -> None:
        self._ended = True
        self._process.terminate()
        self._process.wait()
        with suppress(OSError):
            self._pipe.close()


def serve(descriptor: int) -> None:
    """What such a process does until its owner is gone: answer each question that comes over the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, who ends us
    pipe = Connection(descriptor)
    with suppress(EOFError, OSError):
        work: Callable[[Any], Any] = pipe.recv()
        while True:
            question = pipe.recv()
            try:
                answer = work(question)
            except BenchError as error:
                answer = error
            pipe.send(answer)
