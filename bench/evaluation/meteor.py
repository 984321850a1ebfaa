"""A client of METEOR 1.5 (Denkowski and Lavie 2014) that keeps one Java process for many evaluations.

It asks for statistics only (SCORE lines: 23 numbers per clip); `statistics.meteor` and `corpus_meteor` make scores of them.
Starting the process loads 5 million paraphrases (5 to 10 s), so it lives as long as its client.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np

from bench.evaluation.java import OPTIONS, JavaProgram, ScoringUnavailable, check_java, find_jar, find_java, one_line
from bench.evaluation.ngrams import Floats
from bench.evaluation.statistics import METEOR_STATISTICS

JAR = ("meteor", "meteor-1.5.jar")
TIMEOUT = 300.0  # seconds without an answer, the start included: an overloaded machine was seen to need 30
WINDOW = (
    1 << 14
)  # bytes of questions under way: less than a pipe holds, so that neither side waits for the other for ever
_PLAIN = re.compile(r"[A-Za-z0-9_./+~-]+")  # what a path may hold to survive METEOR's own URL encoding


class Segment(NamedTuple):
    """One question: a clip's name for messages, its references and its hypothesis, as tokens joined by blanks."""

    clip: str
    references: Sequence[str]
    hypothesis: str


class _Died(Exception):  # noqa: N818  (never leaves this module)
    """The Java process is gone."""


class Meteor:
    """METEOR's statistics. The process starts at the first question, is restarted once if it dies, and ends with `close`.

    Threads may share a client; a forked child gets a process of its own.
    """

    def __init__(self, java: str | None = None, jar: Path | None = None, timeout: float = TIMEOUT) -> None:
        self._java = java
        self._jar = jar
        self._timeout = timeout
        self._lock = threading.Lock()
        self._program: JavaProgram | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def statistics(self, segments: Sequence[Segment]) -> Floats:
        """The jar's 23 numbers for every segment. Shape [n, 23].

        Raises ScoringUnavailable: Java or the jar is missing, no answer in time, or an answer that is no statistics.
        """
        lines = [question(segment) for segment in segments]
        with self._lock:
            with suppress(_Died):
                return self._converse(segments, lines)
            try:
                return self._converse(segments, lines)
            except _Died as death:
                raise ScoringUnavailable(str(death)) from death

    def _converse(self, segments: Sequence[Segment], lines: list[bytes]) -> Floats:
        rows = np.empty((len(segments), METEOR_STATISTICS))
        done = False
        try:
            for start, stop in windows(lines):
                program = self._running()
                program.progress()
                try:
                    program.write(b"".join(lines[start:stop]))
                except OSError as error:
                    raise self._gone(program) from error
                for number in range(start, stop):
                    rows[number] = self._answer(program, segments[number].clip)
                    program.progress()
            done = True
            if self._program is not None:
                self._program.rest()
            return rows
        finally:
            if not done:  # answers may still be under way: the next question must not read them
                self._end()

    def _answer(self, program: JavaProgram, clip: str) -> list[float]:
        reply = program.read_line()
        if not reply.endswith(b"\n"):
            raise self._gone(program)
        try:
            numbers = [float(number) for number in reply.split()]
        except ValueError:
            numbers = []
        if len(numbers) != METEOR_STATISTICS:
            said = reply.decode("utf-8", "replace").strip()[:200]
            raise ScoringUnavailable(
                f"METEOR answered clip {clip} with {said!r} in place of {METEOR_STATISTICS} numbers"
            )
        return numbers

    def _gone(self, program: JavaProgram) -> Exception:
        """The error for a silent program: late ones are not asked again, dead ones are."""
        late = program.timed_out
        why = program.failure()
        return ScoringUnavailable(why) if late else _Died(why)

    def _running(self) -> JavaProgram:
        if self._program is None or not self._program.mine:
            jar = self._plain_jar()
            java = check_java(self._java) if self._java else find_java()
            command = [java, *OPTIONS, "-Xmx1g", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
            self._program = JavaProgram("METEOR", command, jar.parent, self._timeout)
            weakref.finalize(self, self._program.end)
        return self._program

    def _plain_jar(self) -> Path:
        """The jar under a path that METEOR can read: it encodes blanks twice, so elsewhere it gets a copy."""
        jar = (self._jar or find_jar(*JAR)).resolve()
        if _PLAIN.fullmatch(str(jar)):
            return jar
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="bench-meteor-")
        copy = Path(self._folder.name).resolve() / jar.name
        if not _PLAIN.fullmatch(str(copy)):
            raise ScoringUnavailable(
                f"METEOR cannot be run from {jar.parent} nor from {copy.parent}: "
                "set TMPDIR to a folder whose path holds letters and digits only"
            )
        if not copy.exists():
            shutil.copyfile(jar, copy)  # a copy, for Java resolves links; the 60 MB beside it are linked
            (copy.parent / "data").symlink_to(jar.parent / "data")
        return copy

    def _end(self) -> None:
        if self._program is not None:
            self._program.end()
            self._program = None

    def close(self) -> None:
        """End the Java process; the next question starts another."""
        with self._lock:
            self._end()
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    def __enter__(self) -> Meteor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def question(segment: Segment) -> bytes:
    """The SCORE line of a segment: line breaks become blanks and field marks are removed, on both sides."""
    fields = [one_line(text).replace("|||", "") for text in (*segment.references, segment.hypothesis)]
    return (" ||| ".join(["SCORE", *fields]) + "\n").encode()


def windows(lines: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """(first, end) of groups of lines that fit in `WINDOW` bytes; a longer line goes alone."""
    start, size = 0, 0
    for number, line in enumerate(lines):
        if number > start and size + len(line) > WINDOW:
            yield start, number
            start, size = number, 0
        size += len(line)
    if start < len(lines):
        yield start, len(lines)
