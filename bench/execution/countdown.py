"""How far a long walk over clips is: one line that is kept up to date on a terminal, single lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import IO

from bench.execution.display import duration

EVERY = 15.0  # seconds between two lines where there is no terminal
OFTEN = 0.5  # and on a terminal


class Countdown:
    """Says after each clip how many are left, how many failed and how long the rest will take at the pace so far."""

    def __init__(self, label: str, out: IO[str] | None = None) -> None:
        self._label, self._out = label, out or sys.stdout
        self._terminal = bool(getattr(self._out, "isatty", lambda: False)())
        self._begun = self._said = time.monotonic()
        self._done = 0
        self._open = False

    def __enter__(self) -> Countdown:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            self._out.write("\n")
            self._out.flush()

    def tell(self, left: int, failed: int) -> None:
        """A clip has ended, well or not."""
        self._done += 1
        now = time.monotonic()
        if now - self._said < (OFTEN if self._terminal else EVERY) and left:
            return
        self._said = now
        spent = now - self._begun
        words = [f"{self._label}: {self._done} clips done" if left == 0 else f"{self._label}: {left} clips left"]
        if left:
            words.append(f"about {duration(spent / self._done * left)}")
        else:
            words[0] += f" in {duration(spent)}"
        if failed:
            words.append(f"{failed} failed")
        text = ", ".join(words)
        if self._terminal:
            self._out.write(f"\r\x1b[K{text}")
            self._open = True
        else:
            self._out.write(f"{text}\n")
        self._out.flush()
