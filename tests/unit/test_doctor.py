"""`bench doctor`: each part of a machine by what it really does, each fault with what mends it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from small_world import World

from bench.cli.main import main
from bench.conformance import machine
from bench.conformance.machine import Answer, caches, examine, off, packages, placing, room, scoring, tracking
from bench.features.cache import CacheWriter


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def states(answers: list[Answer]) -> list[tuple[str, str]]:
    return [(answer.part, answer.state) for answer in answers]


def test_packages_are_held_against_their_bounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ("packages", "ok") in states(list(packages(world.home)))
    wanted = [
        "numpy>=99",
        "no-such-package>=1",
        "torch>=2",
        'no-such-extra>=3; extra == "optuna"',
        'pytest>=99; extra == "test"',
    ]
    monkeypatch.setattr(machine.metadata, "requires", lambda name: wanted)
    _, old, absent, within, extra = packages(world.home)
    assert (old.state, old.mend) == ("broken", 'pip install "numpy>=99"')
    assert f"numpy {metadata.version('numpy')} is not >=99" in old.found
    assert (absent.state, absent.found) == ("broken", "no-such-package is not installed")
    assert within.found == "1 dependency within bounds"
    assert (extra.state, extra.mend) == ("ok", 'pip install "captionbench[optuna]"')
    assert "without bench tune search=optuna: no-such-extra" in extra.found


def test_versions_are_held_against_those_that_were_tested(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "TESTED", world.write("tested.txt", "# a comment\nnumpy==1.0.0\n"))
    (found,) = [answer for answer in packages(world.home) if answer.state == "warning"]
    assert f"numpy {metadata.version('numpy')} (tested: 1.0.0)" in found.found


@pytest.mark.usefixtures("whole_meteor")
def test_metrics_by_a_known_score(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = scoring(world.home)
    assert found.state == "ok", found
    assert off(machine.KNOWN, machine.TOKENS) == []
    wrong = off({**machine.KNOWN, "cider": machine.KNOWN["cider"] + 2e-9}, "a man")
    assert [line.split()[0] for line in wrong] == ["cider", "the"]
    monkeypatch.setenv("BENCH_JAVA", str(world.root / "nothing" / "java"))
    (found,) = scoring(world.home)
    assert found.state == "broken" and "nothing/java is no program" in found.found and "BENCH_JAVA" in found.mend


def test_a_ray_of_its_own(world: World) -> None:
    (found,) = placing(world.home)
    assert found.state == "ok" and "runs a worker" in found.found


def test_a_database_that_is_none(world: World) -> None:
    (found,) = tracking(world.home)
    assert (found.state, "not made yet" in found.found) == ("ok", True)
    world.write("home/.bench/mlflow.db", "no database at all, but long enough to look like one" * 30)
    (found,) = tracking(world.home)
    assert found.state == "broken" and "bench mlflow sync makes it anew" in found.mend


def test_a_flipped_bit_in_a_cache(world: World) -> None:
    path = world.home.cache / "little" / "frames.h5"
    with CacheWriter(path, "frames", (2, 3), True, "float16", ["vid0", "vid1"]) as writer:
        for clip in ("vid0", "vid1"):
            writer.write(clip, np.ones((2, 3), np.float32))
    (found,) = caches(world.home)
    assert (found.state, "1 stream" in found.found) == ("ok", True)
    path.write_bytes(path.read_bytes()[:-200])
    assert {answer.state for answer in caches(world.home)} == {"broken"}


@pytest.mark.parametrize(("free", "state"), [(2**29, "broken"), (2**32, "warning"), (2**40, "ok")])
def test_room_on_the_disk(world: World, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**41, 0, free))
    disk, files = room(world.home)
    assert (disk.part, disk.state, bool(disk.mend)) == ("disk", state, state != "ok")
    assert (files.part, files.state) == ("files", "ok")


def test_a_check_that_breaks_is_an_answer(world: World) -> None:
    def falls(home: object) -> list[Answer]:
        raise ZeroDivisionError("by zero")

    (found,) = examine(world.home, [falls])  # type: ignore[list-item]
    assert (found.state, found.found) == ("broken", "ZeroDivisionError: by zero")


@pytest.mark.parametrize(("state", "status"), [("ok", 0), ("warning", 0), ("broken", 1)])
def test_the_command(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: str, status: int
) -> None:
    checks: tuple[Callable[..., list[Answer]], ...] = (lambda home: [Answer("part", state, "was found", "do this")],)  # type: ignore[arg-type]
    monkeypatch.setattr(machine.examine, "__defaults__", (checks,))
    assert main(["doctor"]) == status
    printed = capsys.readouterr().out
    assert "was found" in printed and "do this" in printed and ("BROKEN" in printed) == (state == "broken")
    assert main(["doctor", "json=true"]) == status
    facts = json.loads(capsys.readouterr().out)["parts"]
    assert facts == [{"part": "part", "state": state, "found": "was found", "mend": "do this"}]
