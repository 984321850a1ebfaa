"""Commands given in this process: what they print and their exit status, as a shell would see them, without its second start."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.cli.main import main


@dataclass(frozen=True)
class Answer:
    """What `subprocess.run` would tell of a command."""

    returncode: int
    stdout: str
    stderr: str


def bench(home: Path, *words: str) -> Answer:
    """The command `bench` with these words, given in `home`, which is its BENCH_HOME too."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(home),
    ):
        patch.setenv("BENCH_HOME", str(home))
        for name in ("BENCH_DATA", "BENCH_CACHE"):
            patch.delenv(name, raising=False)
        status = main(words)
    return Answer(status, out.getvalue(), err.getvalue())
