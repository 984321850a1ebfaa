"""METEOR 1.5 (Denkowski and Lavie 2014): a client that keeps one Java process for many evaluations, and the formula.

The client asks for statistics only (SCORE lines: 23 numbers per clip); `meteor` makes scores of them.
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

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.evaluation.java import OPTIONS, JavaProgram, ScoringUnavailable, check_java, find_jar, find_java, one_line
from bench.evaluation.ngrams import Floats
from bench.evaluation.statistics import Count, Counting, References, Segment, ratio

# METEOR 1.5, English, task `rank` (the jar's default): Denkowski and Lavie 2014, table 1. Stages: exact, stem, synonym,
# paraphrase.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
STAGES = np.array([1.0, 0.6, 0.8, 0.6])
STATISTICS = 23

JAR = ("meteor", "meteor-1.5.jar")
TIMEOUT = 300.0  # seconds without an answer, the start included: an overloaded machine was seen to need 30
WINDOW = (
    1 << 14
)  # bytes of questions under way: less than a pipe holds, so that neither side waits for the other for ever
_PLAIN = re.compile(r"[A-Za-z0-9_./+~-]+")  # what a path may hold to survive METEOR's own URL encoding


def meteor(statistics: ArrayLike) -> Floats:
    """METEOR of rows of 23 numbers as the jar replies to SCORE. Shape [..., 23] -> [...].

    0, 1: words of hypothesis and reference; 2, 3: function words among them; then per stage content words matched in
    hypothesis and reference, function words matched in both; 20: chunks; 21, 22: words matched in both.
    """
    rows = np.asarray(statistics, np.float64)
    words, function = rows[..., 0:2], rows[..., 2:4]
    stages = rows[..., 4:20].reshape(*rows.shape[:-1], 4, 4)
    content_matched = (stages[..., 0:2] * STAGES[:, None]).sum(axis=-2)
    function_matched = (stages[..., 2:4] * STAGES[:, None]).sum(axis=-2)
    matched = DELTA * content_matched + (1 - DELTA) * function_matched
    share = ratio(matched, DELTA * (words - function) + (1 - DELTA) * function)
    precision, recall = share[..., 0], share[..., 1]
    mean = ratio(np.ones_like(precision), ratio(ALPHA, recall) + ratio(1 - ALPHA, precision))
    mean = np.where((precision == 0) | (recall == 0), 0.0, mean)
    fragmentation = np.where(perfect(rows), 0.0, ratio(rows[..., 20], (rows[..., 21] + rows[..., 22]) / 2))
    return np.asarray(mean * (1 - GAMMA * fragmentation**BETA))


def perfect(statistics: Floats) -> NDArray[np.bool_]:
    """Whether hypothesis and reference match word for word, in one chunk. Shape [..., 23] -> [...]."""
    rows = statistics
    return (rows[..., 21] == rows[..., 0]) & (rows[..., 22] == rows[..., 1]) & (rows[..., 20] == 1)


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
        rows = np.empty((len(segments), STATISTICS))
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
        if len(numbers) != STATISTICS:
            answer = reply.decode("utf-8", "replace").strip()[:200]
            raise ScoringUnavailable(f"METEOR answered clip {clip} with {answer!r} in place of {STATISTICS} numbers")
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


def _read(references: References) -> Count:
    return lambda ids, lines: references.meteor(
        [Segment(clip, references.lines[clip], line) for clip, line in zip(ids, lines, strict=True)]
    )


def _addends(rows: Floats) -> Floats:
    """The jar adds no chunk for a perfect segment."""
    added = np.array(rows, np.float64)
    added[perfect(added), 20] = 0.0
    return added


COUNTING = Counting(_read, lambda sums: meteor(sums)[..., None], _addends)
