"""What a person sees of a long walk over clips."""

from __future__ import annotations

import io

import pytest

from bench.run import display as countdown
from bench.run.display import Countdown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("out", [io.StringIO(), Terminal()], ids=["file", "terminal"])
def test_clips_left_and_the_time_they_will_take(out: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(countdown.time, "monotonic", lambda: now[0])
    with Countdown("msvd: stream frames", out) as shown:
        for left, failed in ((3, 0), (2, 1), (1, 1), (0, 1)):
            now[0] += 20
            shown.tell(left, failed)
    said = out.getvalue()
    assert "msvd: stream frames: 3 clips left, about 60 s" in said
    assert "2 clips left, about 40 s, 1 failed" in said
    assert "4 clips done in 80 s, 1 failed" in said
    assert said.count("\r") == (4 if out.isatty() else 0), "one line on a terminal, plain ones in a file"
    assert said.endswith("\n")


def test_quick_clips_are_not_told_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    with Countdown("x", out) as shown:
        for left in range(999, -1, -1):
            shown.tell(left, 0)
    assert out.getvalue().count("\n") == 1
