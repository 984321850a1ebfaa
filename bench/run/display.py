"""What a person sees of a run: a live table on a terminal, single lines elsewhere, and the results at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from bench.cell.job import Job, Outcome
from bench.cell.progress import Position
from bench.evaluation.metrics import RANKED_BY, SHOWN
from bench.records.curves import SELECTION, Row
from bench.run.backend import Kind

PLAIN_WIDTH = 160  # a file has no width; rich would fold its lines at 80
WIDE = 120  # columns of a terminal with room for budgets
OTHERS = {False: 65, True: 86}  # columns that a narrow and a wide table need beside the label
SCORES = 52  # columns that the closing table needs beside the label to show all metrics
SEED = 8  # columns of ` seed 12`
LIVE_MARGIN = 4  # lines of the terminal that the live table leaves free: one that is taller flickers
WORKING = ("running", "scoring")
ENDED = ("done", "failed", "unscored", "busy")
QUIET_SECONDS = 10.0  # off a terminal, between two lines of one cell: three hundred epochs are no log to read
SILENT_SECONDS = 60.0  # off a terminal, a cell that works for so long without a line gets one: it may look stuck


@dataclass
class Line:
    """One cell as it is shown."""

    label: str
    state: str = "waiting"
    position: Position | None = None
    cider: float | None = None
    started: float = 0.0
    last_epoch: float = float("-inf")  # when the line of an epoch was printed
    last_line: float = 0.0  # when any line of it was printed


@dataclass(frozen=True)
class Result:
    """One row of the closing table. `scores` are on the papers' scale, x100; `new` says that this command made it."""

    label: str
    state: str
    scores: Mapping[str, float]
    seconds: float | None
    message: str = ""
    new: bool = False


class Display:
    """Keeps one line per cell. Off a terminal each event is printed as a line of its own, without escape codes."""

    def __init__(self, jobs: list[Job], out: IO[str] | None = None) -> None:
        self._out = out or sys.stdout
        self._terminal = bool(getattr(self._out, "isatty", lambda: False)())
        self.console = Console(file=self._out, width=None if self._terminal else PLAIN_WIDTH, highlight=False)
        self._lines = {job.key: Line(job.label) for job in jobs}
        self._live: Live | None = None

    def __enter__(self) -> Display:
        if self._terminal and self._lines:
            self._live = Live(get_renderable=self._table, console=self.console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """One line, above the live table where there is one."""
        self.console.print(text, markup=False, soft_wrap=not self._terminal)  # a terminal is wrapped at word ends
        self._out.flush()

    def begin(self, job: Job, kind: Kind) -> None:
        """A job was handed over."""
        line = self._lines[job.key]
        line.state = "scoring" if kind == "score" else "running"
        line.last_line = time.monotonic()
        line.started = line.started or line.last_line
        if not self._terminal and kind == "train":
            self.say(f"{job.label}: started")

    def move(self, job: Job, position: Position) -> None:
        """A running cell has moved on."""
        line = self._lines[job.key]
        line.position = position
        if position.cider is not None:
            line.cider = position.cider  # known at the end of an epoch, worth seeing all through the next

    def curves(self, job: Job, rows: list[Row]) -> None:
        """Epochs of a cell have ended: off a terminal, a line for each, but no more than one in ten seconds."""
        line = self._lines[job.key]
        now, position = time.monotonic(), line.position
        if self._terminal or now - line.last_epoch < QUIET_SECONDS:
            return
        line.last_epoch = line.last_line = now
        for phase, epoch in dict.fromkeys((row["phase"], row["epoch"]) for row in rows):
            own = [row for row in rows if (row["phase"], row["epoch"]) == (phase, epoch)]
            values = {row["name"]: row["value"] for row in own}
            self.say(f"{job.label}: {_stand(phase, epoch, own[-1]['captions'], values, position)}")

    def remind(self) -> None:
        """Off a terminal, a line for each cell that works and has had none for a minute."""
        now = time.monotonic()
        for line in self._lines.values() if not self._terminal else ():
            if line.state not in WORKING or now - line.last_line < SILENT_SECONDS:
                continue
            line.last_line = now
            position = line.position if line.state == "running" else None
            at = "" if position is None else f", {_stand_at(position)}"
            self.say(f"{line.label}: {line.state} for {duration(now - line.started)}{at}")

    def end(self, job: Job, kind: Kind, outcome: Outcome) -> None:
        """A job has ended."""
        line = self._lines[job.key]
        waits = kind == "train" and outcome.state == "unscored"
        line.state = "decoded" if waits else outcome.state
        if not self._terminal:
            spent = duration(time.monotonic() - line.started)
            reason = f": {outcome.message}" if outcome.message else ""
            self.say(f"{job.label}: {'decoded, to be scored' if waits else outcome.state} after {spent}{reason}")

    def results(self, results: list[Result], seconds: float) -> None:
        """The closing table, one sentence for each cell that is not done or has warnings, and the totals."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        longest = max((len(result.label) for result in results), default=0)
        metrics = SHOWN if longest + SCORES <= self.console.size.width else {RANKED_BY: SHOWN[RANKED_BY]}
        for heading in ("method", "state"):
            table.add_column(heading, no_wrap=True)
        for heading in (*metrics.values(), "seconds"):
            table.add_column(heading, justify="right", no_wrap=True)
        for result in results:
            table.add_row(
                result.label,
                result.state if result.new or result.state != "done" else "done before",
                *(f"{result.scores[name]:.1f}" if name in result.scores else "-" for name in metrics),
                "-" if result.seconds is None else f"{result.seconds:.0f}",
            )
        self.console.print(table)
        for result in results:
            if result.message:
                self.say(f"{result.label} {result.state}: {result.message}")
        self.say(f"{_totals(results)}, in {duration(seconds)}")

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        width = self.console.size.width
        wide = width >= WIDE
        read, cider = ("captions", "val CIDEr") if wide else ("read", "CIDEr")
        for heading in ("cell", "state", "phase", "epoch", read, "loss", cider, "left"):
            table.add_column(heading, no_wrap=True)
        for line in self._shown():
            table.add_row(_shortened(line.label, width - OTHERS[wide]), line.state, *_columns(line, wide))
        ended = sum(line.state in ENDED for line in self._lines.values())
        waiting = sum(line.state == "waiting" for line in self._lines.values())
        table.add_row(f"{ended} of {len(self._lines)} ended", f"{waiting} waiting" if waiting else "")
        return table

    def _shown(self) -> list[Line]:
        """Cells that have begun, as many as the terminal has room for: those that are at work, then the last that ended."""
        begun = [line for line in self._lines.values() if line.state != "waiting"]
        room = max(self.console.size.height - LIVE_MARGIN, 1)
        first = sorted(range(len(begun)), key=lambda place: (begun[place].state in ENDED, -place))[:room]
        return [begun[place] for place in sorted(first)]


def _shortened(label: str, width: int) -> str:
    """A label on a narrow terminal: its beginning, and its end with the seed."""
    width = max(width, SEED + 7)
    return label if len(label) <= width else f"{label[: width - SEED - 1]}…{label[-SEED:]}"


def _columns(line: Line, wide: bool) -> tuple[str, ...]:
    position = line.position if line.state == "running" else None
    if position is None:
        return ("", "", "", "", "", "")
    share = f"{100 * position.captions / position.budget:.0f} %" if position.budget else ""
    if share and wide:
        share += f" of {position.budget:,}"
    left = "" if position.seconds_left is None else duration(position.seconds_left)
    loss = "" if position.loss is None else f"{position.loss:.3f}"
    cider = "" if line.cider is None else f"{line.cider:.1f}"
    return (position.phase, str(position.epoch), share, loss, cider, left)


def _stand_at(position: Position) -> str:
    return _stand(position.phase, position.epoch, position.captions, position.values, position)


def _stand(phase: str, epoch: int, captions: int, values: dict[str, float], position: Position | None) -> str:
    """Where a cell stands: `base epoch 3, 3,100 of 9,000 captions, loss 2.125, val CIDEr 31.5, 12 min left`."""
    of_budget = "" if position is None else f" of {position.budget:,}"
    parts = [f"{phase} epoch {epoch}", f"{captions:,}{of_budget} captions"]
    if "loss" in values:
        parts.append(f"loss {values['loss']:.3f}")
    if SELECTION in values:
        parts.append(f"val CIDEr {values[SELECTION]:.1f}")
    if position is not None and position.seconds_left is not None and captions < position.budget:
        parts.append(f"{duration(position.seconds_left)} left")
    return ", ".join(parts)


def _totals(results: list[Result]) -> str:
    counts: dict[str, int] = {}
    for result in results:
        name = "done before" if result.state == "done" and not result.new else result.state
        counts[name] = counts.get(name, 0) + 1
    cells = "1 cell" if len(results) == 1 else f"{len(results)} cells"
    return f"{cells}: " + ", ".join(f"{count} {name}" for name, count in counts.items())


def duration(seconds: float) -> str:
    """Seconds below two minutes, minutes below two hours, hours and minutes above."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"


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
        if left:
            text = f"{self._label}: {left} clips left, about {duration(spent / self._done * left)}"
        else:
            text = f"{self._label}: {self._done} clips done in {duration(spent)}"
        if failed:
            text += f", {failed} failed"
        if self._terminal:
            self._out.write(f"\r\x1b[K{text}")
            self._open = True
        else:
            self._out.write(f"{text}\n")
        self._out.flush()
