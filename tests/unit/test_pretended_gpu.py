"""Every method on a pretended GPU: nothing mixes sides, a killed training goes on exactly, and the host hardly ever waits."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from bench.cell.fit import Trainer
from bench.cell.workbench import Workbench
from bench.conformance.workplace import Bench
from bench.data import batches
from bench.method import Batch, Search
from bench.plan.sharing import room_for_features
from bench.training import Losses, Phase, phases, tally
from tests import launches
from tests.gpu import agreement
from tests.gpu.worlds import Run, build
from tests.pretended import GPU, is_there, pretended_gpu, with_the_cpus_torch
from tests.support import DiedError, TinyEncoder, digest, make_clips

pytestmark = with_the_cpus_torch
SMALL = {"width": 16, "embedding": 12, "attention": 8}
CASES = {case.name: case for case in agreement.cases(2)}


def test_planted_faults_are_found() -> None:
    with pretended_gpu() as seen:
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        assert there.device == GPU and here.device.type == "cpu" and (there * 2)[1:].device == GPU
        assert here.to(GPU).device == GPU and here.device.type == "cpu" and torch.zeros_like(there).device == GPU
        assert not there.cpu().is_cuda and there.to(torch.float64).device == GPU
        seen.forget()
        there + torch.tensor(1.0)
        assert not seen.mixed and not seen.waits
        for fault in (lambda: there + here, lambda: torch.cat([here, there]), lambda: there.numpy()):
            fault()
        assert sum(seen.mixed.values()) == 3, seen.mixed
        waits = (
            lambda: there.sum().item(),
            lambda: there.tolist(),
            lambda: there.cpu(),
            lambda: there[there > 0],
            lambda: there.nonzero(),
            lambda: bool((there > 0).all()),
        )
        for number, wait in enumerate(waits, 1):
            wait()
            assert sum(seen.waits.values()) == number, seen.waits
        weight = nn.Parameter(torch.ones(3, 3, device="cuda"))
        before = seen.launches
        there[:2].view(2, 1).t()
        assert seen.launches == before, "views start nothing"
        (there @ weight).sum().backward()
        assert is_there(weight.grad) and seen.launches > before
        with pytest.raises(TypeError, match="RNG state must be"):
            torch.cuda.set_rng_state(torch.cuda.get_rng_state().to(GPU))


class SavingRun(Run):
    """A run whose state goes through a file and comes back on the CPU; it dies when it has saved `die` times."""

    saved: bytes | None = None
    die: int | None = None
    saves = 0

    def save_state(self, state: Mapping[str, Any]) -> None:
        file = io.BytesIO()
        torch.save(dict(state), file)
        self.saved = file.getvalue()
        self.saves += 1
        if self.saves == self.die:
            raise DiedError

    def load_state(self) -> dict[str, Any] | None:
        # As a file is read where it lies on a GPU: all of it there, and then what the workbench asks for.
        return None if self.saved is None else torch.load(io.BytesIO(self.saved), map_location="cpu", weights_only=True)


def trained(case: agreement.Case, run: SavingRun, seed: int = 0) -> Any:
    """A method after training on the pretended GPU, or after the run died."""
    clips = agreement.clips_of(case, seed=1)
    method = build(case.row, clips, seed, **SMALL)
    run.encoder = lambda name, weights="pretrained": TinyEncoder(96).to(run.device)  # type: ignore[method-assign]
    method.fit(clips, run)
    return method


def run_of(case: agreement.Case, steps: int = 2) -> SavingRun:
    train = {"captions": 16, "captions_per_clip": 4, "learning_rate": 5e-4}
    run = SavingRun(case.row, GPU, steps * 16 * len(case.row.phases), train)
    run.shares, run.search = dict.fromkeys(case.row.phases, 1.0), Search(max_words=10)
    return run


@pytest.mark.parametrize("name", CASES)
def test_a_step_and_captions_start_no_more_and_wait_no_longer_than_the_table_says(name: str) -> None:
    """Nothing mixes sides. The table was written with one torch; others may need a twentieth more.

    After a change that needs fewer, or has to need more: python -m tests.launches --write
    """
    table = launches.written()
    steps, mixed = launches.count(CASES[name], launches.SMALL)
    assert not mixed, mixed
    room = 1.0 if table["torch"] == launches.version() else 1.05
    assert steps.keys() == table["rows"][name].keys()
    for phase, step in steps.items():
        most, waits = table["rows"][name][phase]
        assert step.launches <= room * most, (phase, step.launches, step.operations.most_common(20))
        assert sum(step.waits.values()) <= waits, (phase, step.waits)


def test_the_table_promises_few_waits() -> None:
    """None in a step, three where captions are drawn; one of eight words and all that is told beside them.

    `mode=official` draws with `torch.multinomial`, which looks at its input at every one of eight words.
    """
    for name, row in launches.written()["rows"].items():
        for phase, (_, waits) in row.items():
            most = {"reinforce": 3, "boost": 3, "decode": 1}.get(phase, 0)
            most += 8 if phase == "boost" and name.endswith("mode=official") else 0
            assert waits <= most, (name, phase, waits)


GOALS = {
    ("salstm:rl", "base"): 900,
    ("salstm:rl", "reinforce"): 1211,
    ("recnet:local", "reconstruct"): 1700,
    ("hail:ha", "base"): 2500,
    ("vre:full", "joint"): 3000,
    ("s2vt:xe", "base"): 2000,
}
"""Launches of a step over 64 captions of up to 24 words of 16 clips of 28 frames. A policy gradient made 2,423 when each word was
drawn and then written greedily, and all rows were cut to those that had not ended."""


@pytest.mark.parametrize("name", dict.fromkeys(name for name, _ in GOALS))
def test_a_step_of_msrvtts_shape_starts_few_operations(name: str) -> None:
    """Rounding to bfloat16 takes a twentieth more at most, and a tenth where captions are drawn, whose words need float32."""
    steps, _ = launches.count(CASES[name], launches.MSRVTT)
    rounded, _ = launches.count(CASES[name], launches.MSRVTT, low=True)
    for phase in steps.keys() - {"decode"}:
        room = 1.1 if phase == "reinforce" else 1.05
        assert rounded[phase].launches <= room * steps[phase].launches, (phase, rounded[phase].operations)
    for phase, step in steps.items():
        assert step.launches <= GOALS.get((name, phase), step.launches), (phase, step.operations.most_common(20))


STEPS = {
    "salstm:xe": 50,
    "salstm:rl": 8,
    "recnet:local": 8,
    "hail:ha_il": 5,
    "vre:full": 5,
    "s2vt:xe": 5,
    "glrg:dxe_scst": 8,
}


@pytest.mark.parametrize("name", STEPS)
def test_a_gpus_way_gives_the_losses_and_captions_of_a_cpus(name: str) -> None:
    """All rows to the end, one operation for a cell, fixed beams, against what a CPU does; `make gpu` does it for every case."""
    with pretended_gpu():
        told = agreement.difference(replace(CASES[name], steps=STEPS[name]), GPU)
    assert max(told["largest relative difference of a loss"].values()) < 1e-5, told
    assert not told["captions that differ"], told


DEATHS = [(name, die) for name in ("salstm:rl", "recnet:local") for die in (1, 4)]
DEATHS += [
    (name, 4) for name in ("vre:full", "hail:ha_il", "s2vt:xe", "etenet:step2", "glrg:dxe_scst", "transformer:rl")
]


@pytest.mark.parametrize(("name", "die"), DEATHS)
def test_a_training_that_died_goes_on_exactly_on_a_gpu(name: str, die: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is on the CPU when it comes back: weights, moments, pending gradients and best weights go where they were."""
    monkeypatch.setattr(phases, "SAVE_SECONDS", -1.0)
    case = CASES[name]

    def attempt(saved: bytes | None = None, die: int | None = None) -> SavingRun | Any:
        run = run_of(case, steps=6)
        run.train = {**run.train, "accumulate": 40}
        run.saved, run.die = saved, die
        torch.manual_seed(0)
        if die is None:
            return trained(case, run)
        with pytest.raises(DiedError):
            trained(case, run)
        return run

    with pretended_gpu() as seen:
        whole = weights(attempt())
        left = attempt(die=die).saved
        assert left is not None
        assert weights(attempt(left)) == whole
        assert not seen.mixed, seen.mixed


def weights(method: Any) -> str:
    state = method.state_dict()
    assert all(is_there(value) for value in state.values() if value.numel() and value.is_floating_point())
    return digest({name: value.cpu() for name, value in state.items()})


def copied_and_learned(case: agreement.Case, stay: bool) -> tuple[dict[str, int], str, list[str]]:
    """Bytes that went to the GPU, by where they were copied, digest of the weights, captions."""
    shapes = {name: agreement.SHAPES[name] for name in case.row.streams}
    clips = make_clips([12, 5, 9, 3], [(3, 1), (2, 4), (5, 3), (2, 2)], shapes, 40, 1, dtype=np.float16)
    with pretended_gpu() as seen:
        if stay:
            clips = clips.on(GPU)
        method, run = build(case.row, clips, **SMALL), run_of(case, steps=3)
        torch.manual_seed(0)
        method.fit(clips, run)
        captions = [caption.text for caption in method.decode(clips, run.search)]
        assert not seen.mixed, seen.mixed
        assert all(held is None or is_there(held) for held in (one.held for one in clips._sources.values()))
        return dict(seen.copies), weights(method), captions


@pytest.mark.parametrize("name", ["salstm:rl", "hail:ha", "vre:full"])
def test_features_that_stay_on_a_gpu_change_no_number_and_are_never_copied(name: str) -> None:
    copied, learned, captions = copied_and_learned(CASES[name], stay=False)
    fewer, again, same = copied_and_learned(CASES[name], stay=True)
    assert (again, same) == (learned, captions)
    of_batches, rest = (
        sum(size for place, size in sizes.items() if place.startswith(("bench/method.py", "bench/data")))
        for sizes in (copied, fewer)
    )
    assert of_batches > 10 * rest, "words, masks and rows are what is left"


def test_features_stay_on_a_gpu_where_a_share_of_it_holds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a cell, from its cache: the same curves and weights, whether they fit or are copied batch by batch."""
    bench = Bench("salstm", tmp_path)
    config = {**bench.cell(0, "train.epochs=2").config, "device": "cuda"}
    monkeypatch.setattr(batches, "pinned_memory", lambda size: torch.empty(size, dtype=torch.uint8))
    found = {}
    for free in (2**10, 2**30):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 2**34))
        with pretended_gpu() as seen:
            (tmp_path / str(free)).mkdir()
            trainer = Trainer(config, tmp_path / str(free), bench.home)
            trainer.run.store = None  # the second is to train its phase itself
            method = trainer.train()
            assert method is not None and not seen.mixed, seen.mixed
            found[free] = weights(method), trainer.run._rows[-1]["value"]
            held = [source.held is not None for source in trainer.inputs.train._sources.values()]
            assert trainer.inputs.on_gpu == all(held) == any(held) == (free == 2**30)
            assert not any(source.held is not None for source in trainer.inputs.target._sources.values())
    assert found[2**10] == found[2**30]


def test_a_cell_keeps_no_more_features_on_a_gpu_than_its_like_would_that_share_it() -> None:
    whole = 80 * 2**30
    rooms = [room_for_features(share, whole, whole) / 2**30 for share in (1.0, 0.5, 0.25, 0.125)]
    assert rooms == pytest.approx([4.8125, 4.8125, 4.8125, 2.3125]), "a quarter of what tensors may fill"
    assert room_for_features(1.0, whole, 2**30) == 2**28, "what others have taken is not there"


def test_a_workbench_brings_a_state_of_a_gpu_back_to_the_cpu(tmp_path: Path) -> None:
    """Torch would move all of it to the device that is asked for, and no generator takes its state from there."""
    run = Workbench(CONFIG, tmp_path, 8)
    run.save_state({"generators": {"cpu": torch.get_rng_state()}, "weight": torch.ones(2)})
    again = Workbench(CONFIG, tmp_path, 8)
    again.device = torch.device("meta")  # a device that is not the CPU, on every machine
    state = again.load_state()
    assert state is not None and torch.equal(state["weight"], torch.ones(2))
    torch.set_rng_state(state["generators"]["cpu"])


def test_a_loss_that_is_not_finite_is_never_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the losses are read later than they are made: before anything is saved, and the first bad batch is named."""
    monkeypatch.setattr(tally, "READ_SECONDS", math.inf)
    case = CASES["salstm:xe"]
    with pretended_gpu():
        run = run_of(case, steps=5)
        clips = agreement.clips_of(case, seed=1)
        method = build(case.row, clips, **SMALL)
        recipe, met = method.phases, []

        def spoilt(phase: Phase) -> Phase:
            def loss(batch: Batch) -> Losses:
                met.append(batch)
                found = phase.loss(batch)
                return {**found, "loss": found["loss"] * (math.nan if len(met) in (3, 4) else 1.0)}

            return replace(phase, loss=loss)

        method.phases = lambda clips, run: [spoilt(phase) for phase in recipe(clips, run)]
        with pytest.raises(
            FloatingPointError, match=r"phase 'base' is nan in epoch 0, batch 2: lower train.learning_rate"
        ):
            method.fit(clips, run)
        assert len(met) > 4 and run.saves == 0, "the epoch went on, and its state was not written"


CONFIG = {
    "device": "cpu",
    "seed": 0,
    "train": {"epochs": 1, "captions": 8},
    "phases": {"base": 1.0},
    "search": {},
    "dataset": "tiny",
}
