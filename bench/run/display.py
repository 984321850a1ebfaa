"""What a person sees of a run: a live table on a terminal, single lines elsewhere, and the results at the end."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from bench.cell.job import Job, Outcome
from bench.cell.progress import SELECTION, Position, Row

if TYPE_CHECKING:
    from rich.table import Table


PLAIN_WIDTH = 160  # a file has no width; rich would fold its lines at 80
WIDE = 120  # columns of a terminal with room for budgets
OTHERS = {False: 65, True: 86}  # columns that a narrow and a wide table need beside the label
SEED = 8  # columns of ` seed 12`
LIVE_MARGIN = 4  # lines of the terminal that the live table leaves free: one that is taller flickers
ENDED = ("done", "failed", "unscored", "busy")
QUIET_SECONDS = 10.0  # off a terminal, between two lines of one cell: three hundred epochs are no log to read


@dataclass
class Line:
    """One cell as it is shown."""

    label: str
    state: str = "waiting"
    position: Position | None = None
    cider: float | None = None
    started: float = 0.0
    told: float = float("-inf")  # when its last epoch was told


@dataclass(frozen=True)
class Result:
    """One row of the closing table. `cider` is on the papers' scale, x100; `new` says that this command made it."""

    label: str
    state: str
    cider: float | None
    seconds: float | None
    message: str = ""
    new: bool = False


class Display:
    """Keeps one line per cell. Off a terminal each event is printed as a line of its own, without escape codes."""

    def __init__(self, jobs: list[Job], out: IO[str] | None = None) -> None:
        from rich.console import Console

        self._out = out or sys.stdout
        self._terminal = bool(getattr(self._out, "isatty", lambda: False)())
        self.console = Console(file=self._out, width=None if self._terminal else PLAIN_WIDTH, highlight=False)
        self._lines = {job.key: Line(job.label) for job in jobs}
        self._live: Any = None

    def __enter__(self) -> Display:
        if self._terminal and self._lines:
            from rich.live import Live

            self._live = Live(get_renderable=self._table, console=self.console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """One line, above the live table where there is one."""
        self.console.print(text, markup=False, soft_wrap=True)
        self._out.flush()

    def begin(self, job: Job, kind: str) -> None:
        """A job was handed over."""
        line = self._lines[job.key]
        line.state = "scoring" if kind == "score" else "running"
        line.started = line.started or time.monotonic()
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
        if self._terminal or time.monotonic() - line.told < QUIET_SECONDS:
            return
        line.told = time.monotonic()
        position = line.position
        for phase, epoch in dict.fromkeys((row["phase"], row["epoch"]) for row in rows):
            own = [row for row in rows if (row["phase"], row["epoch"]) == (phase, epoch)]
            values = {row["name"]: row["value"] for row in own}
            self.say(f"{job.label}: {', '.join(_words(phase, epoch, own[-1]['captions'], values, position))}")

    def end(self, job: Job, kind: str, outcome: Outcome) -> None:
        """A job has ended."""
        line = self._lines[job.key]
        waits = kind == "train" and outcome.state == "unscored"
        line.state = "decoded" if waits else outcome.state
        if not self._terminal:
            spent = duration(time.monotonic() - line.started)
            reason = f": {outcome.message}" if outcome.message else ""
            self.say(f"{job.label}: {'decoded, to be scored' if waits else outcome.state} after {spent}{reason}")

    def results(self, results: list[Result], seconds: float) -> None:
        """The closing table, one sentence for each cell that is not done, and the totals."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("method", "state", "CIDEr", "seconds"):
            table.add_column(heading, justify="right" if heading in ("CIDEr", "seconds") else "left", no_wrap=True)
        for result in results:
            table.add_row(
                result.label,
                result.state if result.new or result.state != "done" else "done before",
                "-" if result.cider is None else f"{result.cider:.1f}",
                "-" if result.seconds is None else f"{result.seconds:.0f}",
            )
        self.console.print(table)
        for result in results:
            if result.message:
                self.say(f"{result.label} {result.state}: {result.message}")
        self.say(f"{_totals(results)}, in {duration(seconds)}")

    def _table(self) -> Table:
        from rich.table import Table

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


def _words(phase: str, epoch: int, captions: int, values: dict[str, float], position: Position | None) -> list[str]:
    words = [f"{phase} epoch {epoch}", f"{captions:,} captions"]
    if position is not None:
        words[1] = f"{captions:,} of {position.budget:,} captions"
    if "loss" in values:
        words.append(f"loss {values['loss']:.3f}")
    if SELECTION in values:
        words.append(f"val CIDEr {values[SELECTION]:.1f}")
    if position is not None and position.seconds_left is not None and captions < position.budget:
        words.append(f"{duration(position.seconds_left)} left")
    return words


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
