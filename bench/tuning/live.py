"""What a person sees of a search: a live table of its trials on a terminal, single lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live as RichLive
from rich.table import Table

from bench.evaluation.metrics import METRICS
from bench.run.display import LIVE_MARGIN, SILENT_SECONDS, duration
from bench.tuning.study import Report

REFRESH_SECONDS = 1.0
OTHERS = 58  # columns that the table needs beside the settings
NARROW = 20  # columns of settings that a terminal always has room for


@dataclass
class Line:
    """One trial as it is shown; `at` are captions read and the score there."""

    number: int
    settings: str
    state: str = "waiting"
    at: tuple[int, float] | None = None
    began: float = 0.0
    said: float = 0.0  # when a line was printed about it
    looked: float = 0.0
    value: float | None = None


class Live:
    """Keeps one line per trial; those of the report are there from the start."""

    def __init__(self, row: str, report: Report, metric: str, trials: int, say: Callable[[str], None]) -> None:
        self._row, self._budget, self._trials, self._say = row, report.budget, trials, say
        self._metric = METRICS[metric].long.removesuffix("-D")
        self._lines: list[Line] = []
        self._before = len(report.trials)
        self._best = report.best
        self._terminal = sys.stdout.isatty()
        self._console = Console(highlight=False)
        self._live: RichLive | None = None

    def start(self) -> None:
        if self._terminal:
            self._live = RichLive(get_renderable=self._table, console=self._console, refresh_per_second=2)
            self._live.start()

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def add(self, number: int, settings: str) -> Line:
        """A trial is known."""
        self._lines.append(Line(number, settings))
        return self._lines[-1]

    def begin(self, line: Line, settings: str) -> None:
        """A trial starts, or goes on with other settings."""
        if line.state == "waiting":
            line.began = time.monotonic()
            self._tell(line, f"{settings}: started")
        elif settings != line.settings:
            self._tell(line, f"goes on with {settings}")
        line.state, line.settings = "running", settings

    def due(self, line: Line) -> bool:
        """Whether to look how far a trial is: once a second for the table, else a minute after its last line."""
        now = time.monotonic()
        wait, since = (REFRESH_SECONDS, line.looked) if self._terminal else (SILENT_SECONDS, line.said)
        return line.state == "running" and now - since >= wait

    def move(self, line: Line, at: tuple[int, float] | None) -> None:
        """How far a trial is."""
        line.at, now = at, time.monotonic()
        line.looked = now
        if not self._terminal and now - line.said >= SILENT_SECONDS:
            read = "" if at is None else f", {at[0]:,} of {self._budget:,} captions"
            self._tell(line, f"{line.settings}: running for {duration(now - line.began)}{read}")

    def end(self, line: Line, state: str, value: float | None, message: str | None) -> None:
        """A trial is over."""
        line.state, line.value = state, value
        reached = "no score" if value is None else f"validation {self._metric} {value:.1f}"
        self._tell(
            line, f"{line.settings}: {state}, {reached}{f' ({message})' if message else ''}", always=bool(message)
        )

    def _tell(self, line: Line, what: str, always: bool = False) -> None:
        """A line of its own; on a terminal the table says most of it."""
        line.said = time.monotonic()
        text = f"{self._row} trial {line.number}: {what}"
        if not self._terminal:
            self._say(text)
        elif always:
            self._console.print(text, markup=False)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading, right in (
            ("trial", True),
            ("settings", False),
            ("state", False),
            ("captions", True),
            (f"val {self._metric}", True),
            ("time", True),
        ):
            table.add_column(heading, no_wrap=True, justify="right" if right else "left", overflow="ellipsis")
        best = self._best()
        room = max(self._console.size.height - LIVE_MARGIN, 1)
        shown = sorted(self._lines, key=lambda line: (line.state != "running", -line.number))[:room]
        wide = max(self._console.size.width - OTHERS, NARROW)
        for line in sorted(shown, key=lambda line: line.number):
            share = "" if line.at is None else f"{100 * line.at[0] / self._budget:.0f} %"
            score = line.value if line.value is not None else line.at[1] if line.at is not None else None
            mark = " best" if best is not None and best.number == line.number else ""
            spent = duration(time.monotonic() - line.began) if line.state == "running" else ""
            settings = line.settings if len(line.settings) <= wide else f"{line.settings[: wide - 1]}…"
            table.add_row(
                str(line.number), settings, line.state + mark, share, "" if score is None else f"{score:.1f}", spent
            )
        ended = self._before + sum(line.state not in ("running", "waiting") for line in self._lines)
        table.add_row("", f"{ended} of {self._trials} ended", "", "", "", "")
        return table
