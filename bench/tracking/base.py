"""What trackers show of cells and trials, and the few hooks by which they are told.

A tracker is a class with the hooks of `Tracker`. It is told of runs by their keys, from one thread; it may raise whatever its
store raises, which is a warning to the user and stops no cell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

State = Literal["finished", "failed", "killed"]


@dataclass(frozen=True)
class Run:
    """One cell or trial, found again by its key. `label` is what all seeds of it share, `name` tells it from them.

    `inputs` are what it read: name, digest and context of each. It began at `began`, milliseconds since 1970.
    """

    key: str
    dataset: str
    label: str
    name: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]
    inputs: Sequence[tuple[str, str, str]] = ()
    began: int | None = None


@dataclass(frozen=True)
class Point:
    """One value of a curve: `seconds` after the run began, at `step`."""

    name: str
    value: float
    step: int
    seconds: float


@dataclass(frozen=True)
class Ending:
    """What is known of a run when it is over: whole curves, single values, tags, files, a table of captions by column, and PNG
    pictures by name, one for each step."""

    state: State
    points: Sequence[Point]
    values: Mapping[str, float]
    tags: Mapping[str, str]
    files: Sequence[Path] = ()
    captions: Mapping[str, Sequence[str]] | None = None
    pictures: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    ended: int | None = None


@dataclass(frozen=True)
class Entry:
    """A run that is over. `mark` differs where what is to be shown differs; `ending` reads it, which costs something."""

    run: Run
    mark: str
    ending: Callable[[], Ending]


class Tracker(Protocol):
    """The hooks, in the order of a run's life."""

    def start(self, run: Run) -> bool:
        """Begin the run, or take it up again; False where another living command has it."""

    def parameters(self, run: Run) -> None:
        """Settings and data sets of a run that was started."""

    def metrics(self, key: str, points: Sequence[Point]) -> None:
        """Add to the curves of a run; a point may come twice."""

    def artifacts(self, key: str, ending: Ending) -> None:
        """Keep files, captions and pictures; those of an earlier record of the cell are replaced."""

    def end(self, run: Run, mark: str, ending: Ending) -> None:
        """All that the run lacks of settings, curves, single values and tags, then its end; it shows `mark` from now on."""

    def shown(self, dataset: str, labels: Mapping[str, str]) -> Mapping[str, str] | None:
        """The marks that whole runs of a data set show, by key, after what killed commands left was cleared; None for a
        tracker that cannot be asked. `labels` are those of the runs that could be written, by key."""

    def close(self, dataset: str) -> None:
        """End as killed the runs that were started and not ended, and bring up to date what is shown of all together."""


def write(tracker: Tracker, entry: Entry) -> bool:
    """Write all that is known of a run that is over; False where another command has it."""
    if not tracker.start(entry.run):
        return False
    ending = entry.ending()
    tracker.artifacts(entry.run.key, ending)
    tracker.end(entry.run, entry.mark, ending)
    return True


def bring_up_to_date(tracker: Tracker, dataset: str, entries: Sequence[Entry]) -> Counter[str]:
    """Write those of the runs of a data set that its tracker lacks or shows as they were: how many were `written`, `kept`, and
    `busy`, of commands that are at work."""
    there = tracker.shown(dataset, {entry.run.key: entry.run.label for entry in entries})
    if there is None:
        return Counter()
    old = [entry for entry in entries if there.get(entry.run.key) != entry.mark]
    done = Counter("written" if write(tracker, entry) else "busy" for entry in old)
    return done + Counter(kept=len(entries) - len(old))
