"""The store of phases: what cells share, that their numbers are those of cells that share nothing, and its faults."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.cell import shared_phases
from bench.cell.fit import Trainer, run_cell
from bench.cell.shared_phases import APART, SharedPhases, addresses, weights_digest
from bench.conformance import Bench
from bench.disk.whole import CannotWrite
from bench.home import Home
from bench.records.curves import Row, read_curves
from bench.records.schema import NOT_KEYED, Record
from bench.records.store import read_record

# A row, what another cell has in place of its own setting, and the phases that both train in the same way.
SHARED = {
    "recnet:no_reconstruction_rl": ("recnet.lambda=0.3", ["base"]),
    "recnet:local_rl": ("recnet.reinforce_rate=0.001", ["base", "reconstruct"]),
    "glrg:dxe_b2": ("glrg.boost_rate=0.01", ["seed"]),
    "vre:full_rl": ("vre.reinforce_rate=0.001", ["warm_up", "joint", "retrain"]),
}


@pytest.mark.parametrize("row", SHARED)
def test_a_cell_that_takes_up_phases_has_the_numbers_of_one_that_trains_them(row: str, tmp_path: Path) -> None:
    other, phases = SHARED[row]
    bench = Bench(row, tmp_path)
    trained(bench)
    again, curves = trained(bench, other)
    assert again.ledger is not None and again.provenance is not None and again.provenance.reused == phases
    assert again.ledger.reused_captions == max(row["captions"] for row in curves if row["phase"] == phases[-1])
    assert 0 < (again.ledger.reused_seconds or 0) <= (again.ledger.fit_seconds or 0)
    assert {row["phase"] for row in curves} > set(phases), "curves hold the rows of phases that were taken up"
    alone, own = trained(bench, other, reuse=False)
    assert alone.ledger is not None and alone.provenance is not None and alone.provenance.reused is None
    assert alone.weights_sha256 == again.weights_sha256 and numbers(own) == numbers(curves)
    assert alone.ledger.captions == again.ledger.captions, "what another cell spent counts"


def trained(bench: Bench, *words: str, reuse: bool = True) -> tuple[Record, list[Row]]:
    cell = bench.cell(0, "train.epochs=4", *words)
    run_cell({**cell.config, "reuse": reuse}, str(bench.home.root))
    folder = cell.folder(bench.home)
    return read_record(folder / "record.json"), read_curves(folder)


def numbers(rows: list[Row]) -> list[tuple[Any, ...]]:
    """Curves without their times."""
    return [tuple(value for name, value in row.items() if name != "seconds") for row in rows]


CONFIG: dict[str, Any] = {
    "method": "recnet",
    "settings": {"reconstruction_weight": 0.1, "width": 4, "reinforce_rate": 1e-5},
    "train": {"epochs": 3, "learning_rate": 1e-3},
    "seed": 0,
    "engine": 1,
    "split": "test",
}
PHASES = [("base", 100), ("reconstruct", 50), ("reinforce", 50)]


def places(phases: Any = PHASES, module: nn.Module | None = None, **changes: Any) -> list[str]:
    settings = CONFIG["settings"] | changes.pop("settings", {})
    train = CONFIG["train"] | changes.pop("train", {})
    torch.manual_seed(0)
    made = module or nn.Linear(2, 2)
    config = {**CONFIG, "settings": settings, "train": train, **changes}
    return addresses(config, phases, made, torch.device("cpu"))


def test_an_address_tells_what_acted_until_its_phase_ends() -> None:
    base, reconstruct = places()
    assert places(settings={"reconstruction_weight": 0.2}) == [base, places(settings={"reconstruction_weight": 0.2})[1]]
    assert places(settings={"reconstruction_weight": 0.2})[1] != reconstruct
    assert places(settings={"reinforce_rate": 1.0}) == [base, reconstruct] == places(split="val", title="another")
    assert places(train={"epochs": 9}) == [base, reconstruct], "captions of each phase say it"
    assert places([("base", 100), ("reconstruct", 60)])[0] == base
    for other in (
        places(settings={"width": 5}),
        places(train={"learning_rate": 1e-4}),
        places(seed=1),
        places(engine=2),
        places(something_new=1),
        places([("base", 99), *PHASES[1:]]),
        places(module=nn.Linear(2, 3)),
    ):
        assert base not in other and reconstruct not in other
    torch.manual_seed(1)
    assert base not in addresses(CONFIG, PHASES, nn.Linear(2, 2), torch.device("cpu")), "other weights at the start"


def test_what_is_apart_is_known_to_change_nothing_or_accounted_for() -> None:
    assert {*NOT_KEYED} - {"threads"} < APART
    assert APART - {*NOT_KEYED} == {"tuning", "variant", "protocol", "split", "phases", "settings", "train", "schedule"}


def store(folder: Path, name: str = "one", phases: int = 2) -> SharedPhases:
    """The store as one cell sees it, with a resume state that is a line of text."""
    state = folder / f"{name}.state"
    state.write_text(name)
    names = [f"phase{number}" for number in range(phases + 1)]
    return SharedPhases(Home(folder), names, [f"{number}" * 20 for number in range(phases)], state, take)


def take(path: Path, count: int) -> dict[str, Any]:
    if not (text := path.read_text()):
        raise EOFError("nothing in it")
    return {"text": text, "count": count}


def test_the_latest_phase_is_taken_up_and_the_last_is_nobodys(tmp_path: Path) -> None:
    one, other = store(tmp_path), store(tmp_path, "other")
    assert one.enter(0) is None
    one.leave(0)
    assert one.enter(1) is None
    one._state.unlink()  # replaced, as a resume state is
    one._state.write_text("later")
    one.leave(1)
    assert one.enter(2) is None
    one.leave(2)
    assert other.enter(0) == {"text": "later", "count": 2}
    assert len(list(tmp_path.glob(".bench/phases/*.pt"))) == 2 and not list(tmp_path.glob(".bench/phases/*.tmp"))


def test_a_damaged_phase_is_trained_again(tmp_path: Path) -> None:
    one = store(tmp_path)
    one.enter(0)
    one.leave(0)
    (path,) = tmp_path.glob(".bench/phases/*.pt")
    path.unlink()
    path.write_text("")
    assert store(tmp_path, "other").enter(0) is None and not path.exists()


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError(), CannotWrite("no space left")])
def test_a_phase_stays_where_the_disk_or_the_memory_failed(tmp_path: Path, error: Exception) -> None:
    one = store(tmp_path)
    one.enter(0)
    one.leave(0)
    (path,) = tmp_path.glob(".bench/phases/*.pt")
    other = store(tmp_path, "other")

    def take(path: Path, phase: int) -> None:
        raise error

    other._take = take
    with pytest.raises(type(error)):
        other.enter(0)
    assert path.exists()


def test_phases_that_were_not_taken_up_for_longest_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_phases, "LIMIT", 8)
    folder = tmp_path / ".bench" / "phases"
    folder.mkdir(parents=True)
    for number, name in enumerate(("old", "used", "new")):
        (folder / f"{name}.pt").write_text("four")
        os.utime(folder / f"{name}.pt", (number, number))
    os.utime(folder / "old.pt", (9, 9))
    shared_phases._make_room(folder / "new.pt")
    assert {path.stem for path in folder.glob("*.pt")} == {"old", "new"}


def _train(folder: str, name: str, seconds: float, told: Any) -> None:
    mine = store(Path(folder), name)
    found = mine.enter(0)
    told.put((name, None if found is None else found["text"]))
    if found is None:
        time.sleep(seconds)
        mine.leave(0)


@pytest.mark.parametrize("killed", [False, True])
def test_two_at_once_train_a_phase_once_and_the_second_goes_on_where_the_first_was_killed(
    tmp_path: Path, killed: bool
) -> None:
    context = multiprocessing.get_context("fork")
    told = context.Queue()
    first = context.Process(target=_train, args=(str(tmp_path), "first", 60 if killed else 0.5, told))
    first.start()
    assert told.get(timeout=30) == ("first", None)
    second = context.Process(target=_train, args=(str(tmp_path), "second", 0, told))
    second.start()
    if killed:
        time.sleep(0.2)
        assert told.empty(), "the second waits"
        os.kill(first.pid or 0, signal.SIGKILL)
    assert told.get(timeout=30) == ("second", None if killed else "first")
    first.join(), second.join()


class TestSchedules:
    """Letters that change while a cell trains, and training in parts."""

    @pytest.fixture(scope="class")
    def bench(self, tmp_path_factory: pytest.TempPathFactory) -> Bench:
        return Bench("recnet:local", tmp_path_factory.mktemp("schedules"))

    def weights(self, bench: Bench, folder: Path, marks: Sequence[int] = (), **more: Any) -> str:
        """The last weights of a cell of 180 captions, 90 in each phase, trained from mark to mark in processes of their own."""
        config = {**bench.cell(0, "train.epochs=6").config, "reuse": False, **more}
        for mark in (*marks, None):
            trainer = Trainer(config, folder, bench.home)
            method = trainer.train(mark)
            assert (method is None) == (mark is not None)
        assert method is not None
        return weights_digest(method.state_dict())

    def test_parts_are_the_whole(self, bench: Bench, tmp_path: Path) -> None:
        folders = [tmp_path / name for name in "ab"]
        [folder.mkdir() for folder in folders]
        assert self.weights(bench, folders[0]) == self.weights(bench, folders[1], [20, 100, 150])

    def test_a_change_is_exact_over_parts_and_over_shared_phases(self, bench: Bench, tmp_path: Path) -> None:
        folders = [tmp_path / name for name in "abcd"]
        [folder.mkdir() for folder in folders]
        change = {"captions": 90, "settings": {"reconstruction_weight": 0.9}, "train": {"learning_rate": 1e-3}}
        changed = self.weights(bench, folders[0], schedule=[change])
        assert changed != self.weights(bench, folders[1])
        assert changed == self.weights(bench, folders[2], [20, 120], schedule=[change], reuse=True)
        assert changed == self.weights(bench, folders[3], schedule=[change], reuse=True), "the first phase was taken up"
        assert len(list(bench.home.work.glob("phases/*.pt"))) == 1
