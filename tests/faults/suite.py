"""Cases: a home, commands that are disturbed in it, and whether it is afterwards what it is where nothing happened."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from meteor_jar import PACKAGES, small_package

from bench.home import Home
from tests.faults.commands import Commands, Ended, Fault
from tests.faults.homes import SCENES, TRACED, Scene, differences, finished, picture, torn

ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EROFS": errno.EROFS}
# Kills and injected errors by scene, in homes of six kills (fewer where a command ends before its moment) and of one error each.
# Attempts at a kill: a command that goes on has less left to do, and fewer than every second one is still met.
KILLS = {"imported": 204, "phased": 90, "folds": 66, "extracted": 36, "rendered": 24, "first": 12, "evaluated": 24}
KILLS |= {"placed": 12, "tuned": 12}
WRITES = {"imported": 30, "phased": 9, "folds": 9, "extracted": 9, "first": 3, "evaluated": 9, "rendered": 3}
PER_HOME = 6
DAY = 86_400


@dataclass(frozen=True)
class Case:
    """A home of `scene` and what happens in it: `kind` with its number among those of the kind."""

    kind: str
    scene: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.scene}-{self.number}"


@dataclass
class Found:
    """What came of a case: the faults that happened (stage, where, how the command ended), and what was wrong afterwards."""

    happened: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0


def cases() -> Iterator[Case]:
    """All of the suite, the kinds mixed, so that its beginning is a sample."""
    every = [Case("kill", scene, number) for scene, total in KILLS.items() for number in range(total // PER_HOME)]
    every += [Case(kind, scene, n) for scene, total in WRITES.items() for n in range(total // 3) for kind in ERRORS]
    every += [
        Case(kind, scene, n) for kind in ("SIGTERM", "SIGINT") for n in range(4) for scene in ("imported", "phased")
    ]
    every += [Case(kind, scene, 0) for kind in ("SIGTERM", "SIGINT") for scene in ("placed", "extracted", "first")]
    every += [
        Case(kind, scene, n)
        for kind in ("two", "three")
        for n in range(3)
        for scene in ("imported", "first", "evaluated")
    ]
    every += [Case("two", "placed", 0)]
    every += [Case("clock", scene, n) for n in range(5) for scene in ("imported", "folds")]
    every += [Case("torn", scene, n) for n in range(4) for scene in ("imported", "folds")]
    every += [Case("locked", "imported", n) for n in range(4)]
    random.Random("faults").shuffle(every)
    return iter(every)


class Suite:
    """Cases in homes below `folder`, where undisturbed homes are remembered."""

    def __init__(self, folder: Path, database: Path | None = None) -> None:
        """`database` is one of MLflow without runs; it is made without it."""
        self.folder, self._database = folder, database
        folder.mkdir(parents=True, exist_ok=True)
        packages = Path(os.environ.get(PACKAGES, folder / "packages"))
        if not packages.exists():
            packages.mkdir()
            small_package(packages)
        self.commands = Commands(folder, packages)

    def database(self) -> Path:
        """A database of MLflow without runs."""
        path = self._database or self.folder / "mlflow.db"
        if not path.exists():
            from bench.tracking.mlflow_runs import MlflowTracker

            home = Home(self.folder / "of the database")
            MlflowTracker(home.mlflow_uri, home).datasets()
            (home.work / "mlflow.db").replace(path)
        return path

    def undisturbed(self, scene: Scene) -> dict[str, Any]:
        """`picture` of a home that nothing is disturbed in, and the paths of the operations of its command."""
        kept = self.folder / f"{scene.name}.json"
        if not kept.exists():
            home, note = self.home(scene), self.folder / f"{scene.name}.note"
            note.unlink(missing_ok=True)
            (ended,) = self.commands.run(home, scene.words, note=note)
            assert ended.status == 0, f"{scene.name}: the command itself fails: {ended.said}"
            paths = [line.split(" ", 3)[3] for line in note.read_text(encoding="utf-8").splitlines()]
            kept.write_text(json.dumps({"picture": picture(home), "paths": paths, "seconds": ended.seconds}))
        return json.loads(kept.read_text())

    def home(self, scene: Scene) -> Path:
        """A fresh home of a scene, always at the same path: records of where features came from hold it."""
        home = self.folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        scene.make(home, self.database())
        return home

    def run(self, case: Case) -> Found:
        """Disturb, settle, compare. The home of a case in which something was wrong stays."""
        scene, draw, found = SCENES[case.scene], random.Random(case.name), Found()
        whole, began = self.undisturbed(scene), time.monotonic()
        home = self.home(scene)
        getattr(self, f"_{_METHOD.get(case.kind, case.kind)}")(case, scene, home, whole, draw, found)
        if case.kind != "torn":
            self._settle(scene, home, whole["picture"], found)
        found.seconds = round(time.monotonic() - began, 1)
        if found.wrong:
            kept = self.folder / "kept" / case.name
            shutil.rmtree(kept, ignore_errors=True)
            kept.parent.mkdir(exist_ok=True)
            home.rename(kept)
        return found

    # -- what happens ---------------------------------------------------------------------------------------------------

    def _kill(
        self, case: Case, scene: Scene, home: Path, whole: dict[str, Any], draw: random.Random, found: Found
    ) -> None:
        stages = list(scene.stages.items())
        for number in range(PER_HOME):
            stage, part = stages[(case.number * PER_HOME + number) % len(stages)]
            delay = 0 if draw.random() < 0.6 else int(10 ** draw.uniform(3, 6))
            fault = Fault(part, _moment(part, whole["paths"], draw, number // 2 + 1), "kill", delay)
            if self._disturb(scene, home, fault, stage, found).status == 0:
                return

    def _write(
        self, case: Case, scene: Scene, home: Path, whole: dict[str, Any], draw: random.Random, found: Found
    ) -> None:
        """No space and no right to write last; an error of the device comes once."""
        stages = list(scene.stages.items())
        stage, part = stages[(case.number * 3 + list(ERRORS).index(case.kind)) % len(stages)]
        lasting = case.kind != "EIO"
        fault = Fault(part, _moment(part, whole["paths"], draw), "error", ERRORS[case.kind], lasting)
        ended = self._disturb(scene, home, fault, stage, found)
        if ended.status not in (0, 1, 2):
            found.wrong.append(f"a write error ended the command with {ended.status}: {ended.said[-400:]}")

    def _signal(
        self, case: Case, scene: Scene, home: Path, whole: dict[str, Any], draw: random.Random, found: Found
    ) -> None:
        number = signal.Signals[case.kind]
        fault = Fault("", _moment("", whole["paths"], draw), "signal", number)
        ended = self._disturb(scene, home, fault, "anything", found)
        if ended.status not in (0, 128 + number, -signal.SIGTERM if number == signal.SIGTERM else 130):
            found.wrong.append(f"{case.kind} ended the command with {ended.status}: {ended.said[-400:]}")

    def _clock(
        self, case: Case, scene: Scene, home: Path, whole: dict[str, Any], draw: random.Random, found: Found
    ) -> None:
        jump = draw.choice((-365 * DAY, -DAY, -3600, -2, 2, 3600, DAY, 365 * DAY))
        fault = Fault("", _moment("", whole["paths"], draw), "clock", jump)
        ended = self._disturb(scene, home, fault, f"by {jump} s", found)
        if ended.status != 0:
            found.wrong.append(
                f"a clock that jumped by {jump} s ended the command with {ended.status}: {ended.said[-400:]}"
            )

    def _several(
        self, case: Case, scene: Scene, home: Path, whole: dict[str, Any], draw: random.Random, found: Found
    ) -> None:
        """Equal commands at once, the first of them killed in every second case."""
        count = {"two": 2, "three": 3}[case.kind]
        fault = Fault("", _moment("", whole["paths"], draw), "kill") if case.number % 2 else Fault()
        ended = self.commands.run(home, scene.words, fault, at_once=count)
        found.happened.append({"stage": case.kind, "at": "", "status": [one.status for one in ended]})
        found.wrong += [wrong for one in ended for wrong in _unseemly(one)]

    def _locked(
        self, case: Case, scene: Scene, home: Path, whole: dict[str, Any], draw: random.Random, found: Found
    ) -> None:
        """Another program holds MLflow's database for a while."""
        base = sqlite3.connect(home / ".bench" / "mlflow.db", check_same_thread=False, isolation_level=None)
        base.execute("BEGIN EXCLUSIVE")
        release = threading.Timer((1, 4, 15, 100)[case.number], base.close)
        release.start()
        (ended,) = self.commands.run(home, scene.words)
        release.cancel()
        base.close()
        found.happened.append({"stage": "locked", "at": "", "status": ended.status})
        found.wrong += _unseemly(ended)
        if ended.status != 0:
            found.wrong.append(f"a locked database ended the command with {ended.status}: {ended.said[-400:]}")

    def _torn(
        self, case: Case, scene: Scene, home: Path, whole: dict[str, Any], draw: random.Random, found: Found
    ) -> None:
        """The last line of a file is torn; commands that read it say so, and once it is whole again nothing has changed."""
        self._settle(scene, home, whole["picture"], found)
        files = sorted(home.rglob("*.jsonl"))
        path = files[case.number % len(files)]
        content = path.read_bytes()
        torn(path, draw)
        for words in (scene.words, ("leaderboard",), ("list", "runs"), ("export", "csv"), ("mlflow", "sync")):
            (ended,) = self.commands.run(home, words)
            found.wrong += _unseemly(ended)
        found.happened.append({"stage": path.name, "at": path.relative_to(home).as_posix(), "status": ended.status})
        path.write_bytes(content)
        (home / "results.csv").unlink(missing_ok=True)
        self._settle(scene, home, whole["picture"], found)

    # -- and what comes of it -------------------------------------------------------------------------------------------

    def _disturb(self, scene: Scene, home: Path, fault: Fault, stage: str, found: Found) -> Ended:
        before, note = finished(home), self.folder / "note"
        note.unlink(missing_ok=True)
        (ended,) = self.commands.run(home, scene.words, fault, note=note)
        if ended.happened:
            at = next((line for line in note.read_text().splitlines() if line.startswith(f"{fault.moment} ")), "  ")
            at = re.sub(r"[0-9a-f]{12,}", "*", " ".join(at.split(" ")[2:]))
            found.happened.append({"stage": stage, "at": at, "after": fault.value, "status": ended.status})
        found.wrong += _unseemly(ended)
        after = finished(home)
        found.wrong += [f"{name} was finished, and changed" for name in before if after.get(name) != before[name]]
        return ended

    def _settle(self, scene: Scene, home: Path, expected: dict[str, Any], found: Found) -> None:
        """Give the command undisturbed, once more where it says that failed cells want to be asked for; compare."""
        before = finished(home)
        (ended,) = self.commands.run(home, scene.words)
        found.wrong += _unseemly(ended)
        if ended.status == 0 and "is left behind" in ended.said:  # MLflow, on a busy machine: the next command mends it
            (ended,) = self.commands.run(home, scene.words)
        if ended.status == 1 and "--retry-failed" in ended.said:
            (ended,) = self.commands.run(home, (*scene.words, "--retry-failed"))
            found.wrong += _unseemly(ended)
            if found.happened:
                found.happened[-1]["retried"] = True
        if ended.status != 0:
            found.wrong.append(f"the last command ended with {ended.status}: {ended.said[-600:]}")
        after = finished(home)
        found.wrong += [
            f"{name} was finished, and changed at last" for name in before if after.get(name) != before[name]
        ]
        found.wrong += differences(picture(home), expected)


_METHOD = (
    dict.fromkeys(ERRORS, "write")
    | dict.fromkeys(("SIGTERM", "SIGINT"), "signal")
    | dict.fromkeys(("two", "three"), "several")
)


def _moment(part: str, paths: Sequence[str], draw: random.Random, among: int = 1) -> int:
    """One of the operations on paths that hold `part`, of those in the first `among`-th: a command that goes on does fewer."""
    return draw.randint(1, max(1, sum(part in f"/{path}" for path in paths) // among))


def _unseemly(ended: Ended) -> list[str]:
    """What no command may do, whatever happens to it."""
    wrong = [f"left running: {words}" for words in ended.left]
    if ended.status is None:
        wrong.append(f"a command hung: {ended.said[-400:]}")
    if re.search(TRACED, ended.said):
        wrong.append(f"a traceback: {ended.said[-1500:]}")
    if ended.status == 70:
        wrong.append(f"a fault of bench: {ended.said[-800:]}")
    return wrong
