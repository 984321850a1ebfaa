"""What is told of a run: progress lines, curves, MLflow, provenance, the user interface."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench import BenchError
from bench.cell.job import Job, Outcome
from bench.cell.progress import Position, Watcher, read_position
from bench.cell.provenance import processor_name, provenance
from bench.home import Home
from bench.records.curves import read_curves
from bench.records.schema import Provenance
from bench.run.display import Display
from bench.tracking import ui
from bench.tracking.background import Tracking, mend, open_tracking
from bench.tracking.base import Ending, Entry, Run

# Progress ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def tell(folder: Path, captions: int, epoch: int = 1) -> None:
    told = {"phase": "base", "epoch": epoch, "captions": captions, "budget": 100, "values": {"loss": 3.25}}
    (folder / "work").mkdir(parents=True, exist_ok=True)
    (folder / "work" / "progress.json").write_text(json.dumps(told))


def test_progress_of_an_earlier_attempt_is_not_shown(tmp_path: Path) -> None:
    assert read_position(tmp_path, 0) is None
    tell(tmp_path, 40)
    found = read_position(tmp_path, time.time() - 10)
    assert found == Position("base", 1, 40, 100, {"loss": 3.25})
    assert read_position(tmp_path, time.time() + 10) is None
    (tmp_path / "work" / "progress.json").write_text('{"phase": "ba')
    assert read_position(tmp_path, 0) is None


def test_curves_are_read_by_whole_lines_and_told_once(tmp_path: Path) -> None:
    job = Job("k", "toy", str(tmp_path), str(tmp_path), {})
    header = "phase,epoch,captions,seconds,name,value\n"
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "curves.csv").write_text(header + "base,1,50,2.5,loss,3.5\nbase,1,50,2.5,val_cider_tokens,1")
    assert [row["name"] for row in read_curves(tmp_path)] == ["loss"]
    told: list[Any] = []
    watcher = Watcher(lambda *_: None, [lambda job, rows: told.extend(rows)])
    with watcher:
        watcher.add(job)
        deadline = time.monotonic() + 10
        while not told and time.monotonic() < deadline:
            time.sleep(0.05)
        (tmp_path / "curves.csv").write_text(header + "base,1,50,2.5,loss,3.5\nbase,2,100,5,loss,3.0\n")
        watcher.remove(job)
    assert [(row["epoch"], row["value"]) for row in told] == [(1, 3.5), (2, 3.0)]


def test_each_epoch_is_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    job = Job("k", "toy", "", "", {})
    display = Display([job])
    display.begin(job, "train")
    for captions in (10, 20):
        display.move(job, Position("base", 1, captions, 1000, {"loss": 3.5}, 90.0))
    row = {"phase": "base", "epoch": 1, "captions": 20, "seconds": 1.5}
    display.curves(job, [{**row, "name": "loss", "value": 3.25}, {**row, "name": "val_cider_tokens", "value": 12.34}])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "toy: started",
        "toy: base epoch 1, 20 of 1,000 captions, loss 3.250, val CIDEr 12.3, 90 s left",
    ]


def test_off_a_terminal_a_cell_is_not_told_of_every_second(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three hundred short epochs are some lines; two cells do not silence one another."""
    now = {"seconds": 100.0}
    monkeypatch.setattr("bench.run.display.time.monotonic", lambda: now["seconds"])
    jobs = [Job("a", "one", "", "", {}), Job("b", "other", "", "", {})]
    display = Display(jobs)
    for epoch in range(60):
        for job in jobs:
            row = {"phase": "base", "epoch": epoch, "captions": epoch, "seconds": 1.0, "name": "loss", "value": 2.0}
            display.curves(job, [row])
        now["seconds"] += 1.0
    told = [line.split(",")[0] for line in capsys.readouterr().out.splitlines()]
    assert told == [f"{name}: base epoch {epoch}" for epoch in range(0, 60, 10) for name in ("one", "other")]


def test_off_a_terminal_a_long_epoch_is_not_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten minutes without the end of an epoch: every cell at work has a line a minute, one that waits or has ended none."""
    now = {"seconds": 1000.0}
    monkeypatch.setattr("bench.run.display.time.monotonic", lambda: now["seconds"])
    reading, training, scored, ended, waiting = (Job(name, name, "", "", {}) for name in ("r", "t", "s", "e", "w"))
    display = Display([reading, training, scored, ended, waiting])
    for job in (reading, training, ended):
        display.begin(job, "train")
    display.begin(scored, "score")
    display.end(ended, "train", Outcome("done"))
    capsys.readouterr()
    for second in range(600):
        now["seconds"] += 1.0
        if second > 90:
            display.move(training, Position("base", 2, 1000 + second, 100_000, {"loss": 2.5}, 7300.0))
        display.remind()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["r", "t", "s"] * 10
    assert lines[:3] == ["r: running for 60 s", "t: running for 60 s", "s: scoring for 60 s"]
    assert lines[-2] == "t: running for 10 min, base epoch 2, 1,599 of 100,000 captions, loss 2.500, 2 h 1 min left"


def test_the_line_of_an_epoch_is_a_sign_of_life_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = {"seconds": 0.0}
    monkeypatch.setattr("bench.run.display.time.monotonic", lambda: now["seconds"])
    job = Job("k", "toy", "", "", {})
    display = Display([job])
    display.begin(job, "train")
    for second in range(1, 200):
        now["seconds"] = float(second)
        if second % 45 == 0:
            row = {"phase": "base", "epoch": second, "captions": 1, "seconds": 1.0, "name": "loss", "value": 2.0}
            display.curves(job, [row])
        display.remind()
    assert len(capsys.readouterr().out.splitlines()) == 1 + 4, "started, and four epochs"


def test_a_cell_that_writes_nothing_is_heard_of_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that watches cells is what makes the lines: the driver itself waits inside the cell with executor=inline."""
    monkeypatch.setattr("bench.run.display.SILENT_SECONDS", 0.5)
    monkeypatch.setattr("bench.cell.progress.POLL_SECONDS", 0.1)
    job = Job("k", "toy", str(tmp_path), str(tmp_path), {})
    display = Display([job])
    display.begin(job, "train")
    printed = ""
    with Watcher(display.move, [display.curves], display.remind):
        deadline = time.monotonic() + 20
        while "toy: running for" not in printed and time.monotonic() < deadline:
            time.sleep(0.05)
            printed += capsys.readouterr().out
    assert "toy: running for" in printed


class Screen(io.StringIO):
    """A terminal, for those who ask."""

    def isatty(self) -> bool:
        return True


def test_the_live_table_fits_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty cells on twelve lines: those at work are shown, then the last that ended, and the rest is counted."""
    monkeypatch.setenv("LINES", "12")
    monkeypatch.setenv("COLUMNS", "120")
    jobs = [Job(str(number), f"cell {number}", "", "", {}) for number in range(40)]
    display = Display(jobs, Screen())
    for number, job in enumerate(jobs[:30]):
        display.begin(job, "train")
        if number not in (3, 28):
            display.end(job, "train", Outcome("done"))
    display.move(jobs[3], Position("base", 4, 250, 1000, {"loss": 3.25}, 75.0))
    with display.console.capture() as capture:
        display.console.print(display._table())
    head, *lines = re.sub(r"\x1b\[\d*m", "", capture.get()).splitlines()
    assert len(lines) + 1 < 12
    assert head.split() == ["cell", "state", "phase", "epoch", "captions", "loss", "val", "CIDEr", "left"]
    assert lines[0].split() == "cell 3 running base 4 25 % of 1,000 3.250 75 s".split()
    assert [line.split()[1] for line in lines[1:-1]] == ["22", "23", "24", "25", "26", "27", "28", "29"][
        -len(lines) + 2 :
    ]
    assert lines[-2].split()[:3] == ["cell", "29", "done"] and lines[-1].split() == "28 of 40 ended 10 waiting".split()


def test_on_a_narrow_terminal_nothing_but_the_label_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("COLUMNS", "80")
    job = Job("k", "recnet:no_reconstruction_s2vt (lambda=0.2) seed 12", "", "", {})
    display = Display([job], Screen())
    display.begin(job, "train")
    values = {"loss": 138.25, "val_cider_tokens": 101.5}
    display.move(job, Position("reconstruct", 12, 9_600_000, 13_026_000, values, 5400.0))
    with display.console.capture() as capture:
        display.console.print(display._table())
    line = re.sub(r"\x1b\[\d*m", "", capture.get()).splitlines()[1]
    assert line.split() == "recnet… seed 12 running reconstruct 12 74 % 138.250 101.5 90 min".split()


# MLflow, provenance, user interface --------------------------------------------------------------------------------


class FakeTracker:
    """Remembers what it is told; `busy` cells belong to another command, `broken` calls raise."""

    def __init__(self, busy: str = "", broken: str = "") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.busy, self.broken = busy, broken

    def _tell(self, *call: Any) -> None:
        if call[0] == self.broken:
            raise OSError("database is locked at http://me:secret@host:5000")
        self.calls.append(call)

    def shown(self, dataset: str, labels: Any) -> dict[str, str]:
        self._tell("shown", dataset)
        return {}

    def start(self, run: Run) -> bool:
        self._tell("start", run.key)
        return run.key != self.busy

    def parameters(self, run: Run) -> None:
        self._tell("parameters", run.key)

    def metrics(self, key: str, points: Any) -> None:
        self._tell("metrics", key, len(points))

    def artifacts(self, key: str, files: Any) -> None:
        self._tell("artifacts", key)

    def end(self, run: Run, mark: str, ending: Ending) -> None:
        self._tell("end", run.key, mark)

    def close(self, dataset: str) -> None:
        self._tell("close", dataset)


def tracking_of(tracker: FakeTracker, home: Home, warned: list[str]) -> Tracking:
    return Tracking({"MLflow": lambda: tracker}, "toy", home, warned.append)


def run_called(key: str) -> Run:
    return Run(key, "toy", "toy", "toy s0", {}, {})


def over(key: str) -> Entry:
    return Entry(run_called(key), "mark", lambda: Ending("finished", [], {}, {}))


def test_tracking_tells_all_in_order(home: Home) -> None:
    """Of a cell that is another command's nothing; what it left is brought up to date at the end, as at the start."""
    tracker, warned = FakeTracker(busy="theirs"), list[str]()
    tracking = tracking_of(tracker, home, warned)
    rows = [{"phase": "base", "epoch": 1, "captions": 5, "seconds": 1.0, "name": "loss", "value": 2.0}]
    for key in ("good", "theirs"):
        tracking.start(partial(run_called, key))
        tracking.curves(Job(key, key, "", "", {}), rows)  # type: ignore[arg-type]
        tracking.finish(partial(over, key))
    tracking.close()
    begun = [("start", "good"), ("parameters", "good"), ("metrics", "good", 2)]
    ended = [("start", "good"), ("artifacts", "good"), ("end", "good", "mark")]
    assert tracker.calls == [
        *[("shown", "toy"), *begun, *ended, ("start", "theirs")],
        *[("shown", "toy"), ("close", "toy")],
    ]
    assert not warned


def test_one_of_two_trackers_may_fail(home: Home) -> None:
    trackers, warned = {"MLflow": FakeTracker(broken="start"), "other": FakeTracker()}, list[str]()
    tracking = Tracking({name: partial(trackers.get, name) for name in trackers}, "toy", home, warned.append)  # type: ignore[misc]
    tracking.start(partial(run_called, "good"))
    tracking.finish(partial(over, "good"))
    tracking.close()
    assert ("end", "good", "mark") in trackers["other"].calls and len(warned) == 1


@pytest.mark.parametrize("broken", ["shown", "start", "metrics"])
def test_a_broken_tracker_is_told_once_and_stops_nothing(home: Home, broken: str) -> None:
    warned: list[str] = []
    tracking = tracking_of(FakeTracker(broken=broken), home, warned)
    tracking.start(partial(run_called, "good"))
    for _ in range(3):
        tracking.curves(Job("good", "good", "", "", {}), [])
    tracking.close()
    assert len(warned) == 1
    assert "database is locked" in warned[0] and "bench mlflow sync" in warned[0] and "secret" not in warned[0]


def test_a_killed_command_leaves_a_note(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one of the same data set finds it, mends what there is, and removes it."""
    opened: list[FakeTracker] = []
    monkeypatch.setattr("bench.tracking.background._made", lambda *_: opened.append(FakeTracker()) or opened[-1])
    tracking = open_tracking(None, home, "toy", print)
    (mine,) = (home.work / "tracking").iterdir()
    text = mine.read_text()
    tracking.close()
    assert not mine.exists()
    mine.with_name("dead").write_text(text.replace(str(os.getpid()), str(2**22 + 1)))
    mend(None, home, "other", print)
    mend("http://host:1", home, "toy", print)
    assert len(opened) == 1
    mend(None, home, "toy", print)
    assert len(opened) == 2 and not list((home.work / "tracking").iterdir())


def test_the_note_of_a_command_that_is_killed_meanwhile_stays(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wrote after this one had looked is mended by the next."""
    folder = home.work / "tracking"

    class KilledMeanwhile(FakeTracker):
        def close(self, dataset: str) -> None:
            text = (folder / str(os.getpid())).read_text()
            (folder / "dead").write_text(text.replace(str(os.getpid()), str(2**22 + 1)))

    made: list[FakeTracker] = [KilledMeanwhile(), FakeTracker()]
    monkeypatch.setattr("bench.tracking.background._made", lambda *_: made.pop(0))
    open_tracking(None, home, "toy", print).close()
    assert [path.name for path in folder.iterdir()] == ["dead"]
    mend(None, home, "toy", print)
    assert not made and not list(folder.iterdir())


def test_mlflow_can_be_off(home: Home) -> None:
    before = set(sys.modules)
    tracking = open_tracking("off", home, "toy", print)
    tracking.finish(partial(over, "good"))
    tracking.close()
    assert "mlflow" not in set(sys.modules) - before


def test_provenance_fits_the_record() -> None:
    facts = provenance(2, "cpu")
    assert Provenance.model_validate(facts).threads == 2
    assert facts["host"] is None
    assert facts["torch"]


def test_processors_of_one_name_are_told_apart(tmp_path: Path) -> None:
    names = []
    for model, flags in (("1", "fpu avx avx2 fma"), ("17", "fpu avx avx2 avx512f"), ("1", "fpu")):
        facts = {"processor": "0", "cpu family": "25", "model": model, "model name": "AMD EPYC", "flags": flags}
        block = "".join(f"{name}\t: {value}\n" for name, value in facts.items())
        listing = tmp_path / "cpuinfo"
        listing.write_text(f"{block}\n{block.replace('AMD', 'Another')}\n", encoding="utf-8")
        names.append(processor_name.__wrapped__(listing))
    assert names == [f"AMD EPYC (family 25, {rest})" for rest in ("model 1, AVX2", "model 17, AVX-512", "model 1")]
    listing.write_text("processor\t: 0\nCPU implementer\t: 0x41\n", encoding="utf-8")
    assert processor_name.__wrapped__(listing) == processor_name.__wrapped__(tmp_path / "none") != ""
    listing.write_text("model name\t: Some Chip\n", encoding="utf-8")
    assert processor_name.__wrapped__(listing) == "Some Chip"


def test_a_port_in_use_is_a_sentence(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BenchError, match="another program has it"):
            ui.serve(home, dict, taken.getsockname()[1])
    with pytest.raises(BenchError, match="1 to 65535"):
        ui.serve(home, dict, 0)


def test_the_server_is_lean_and_local(home: Home) -> None:
    command = ui.command_line(home, 5001, home.mlflow_uri)
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert command[command.index("--backend-store-uri") + 1].startswith("sqlite:////")
    assert ui.lean_environment()["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"


def test_a_home_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(BenchError, match=r"cannot be made .* BENCH_HOME=FOLDER"):
        ui.serve(Home(tmp_path / "file" / "home"), dict, port)
