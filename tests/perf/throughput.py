"""Captions per second of a training step of every method by its own recipe, and where the time of the step goes.

The batch is one of MSVD's shape (captions of seven words in the mean, 12,000 words, four captions a clip). Runs on a GPU with
torch, numpy, h5py, hdf5plugin, PyYAML and safetensors alone.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from tabulate import tabulate
from torch import nn
from torch.profiler import ProfilerActivity, profile

import methods
from bench.method import Batch
from tests.perf import generated
from tests.perf.generated import corpus
from tests.perf.timing import seconds
from tests.support import FakeRun

CLIPS = 32
SHARES = {  # parts of a step's time by what the operation is called
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "linear", "convolution", "_addmm"),
    "output losses": ("log_softmax", "nll_loss", "cross_entropy"),
    "softmax": ("softmax",),
    "optimizer": ("_foreach", "_fused", "linalg", "norm"),
    "copies": ("copy_", "cat", "index", "stack", "gather", "scatter", "embedding", "pad", "fill", "zero"),
}
REST = "the rest"


@dataclass(frozen=True)
class Case:
    """A method's row, the phase of its recipe that is measured, and the streams that it reads."""

    variant: str
    phase: str
    streams: Mapping[str, tuple[int, ...]]


CASES = {
    "mplstm": Case("xe", "base", generated.MSVD),
    "salstm": Case("xe", "base", generated.MSVD),
    "s2vt": Case("xe", "base", generated.MSVD),
    "transformer": Case("xe", "base", generated.MSVD),
    "recnet": Case("local", "reconstruct", generated.MSVD),
    "etenet": Case("step1", "frozen", generated.MSVD),
    "glrg": Case("dxe", "seed", generated.GLRG),
    "hail": Case("ha_il", "base", generated.HAIL),
    "vre": Case("full", "joint", generated.VRE),
}


def step(name: str, captions: int = 64, device: str = "cpu", low: bool = False) -> tuple[Callable[[], object], Batch]:
    """One training step of a method over one batch, as often as it is called: loss, backward, clipping, Adam."""
    case = CASES[name]
    card = yaml.safe_load((Path(methods.__path__[0]) / name / "card.yaml").read_text())
    settings = {key: setting["default"] for key, setting in card["settings"].items()}
    settings |= card["variants"][case.variant].get("settings", {})
    shares = card["variants"][case.variant].get("phases") or card.get("phases") or {"base": 1.0}
    torch.manual_seed(0)
    clips = corpus(CLIPS, captions=8, words=generated.WORDS, shapes=case.streams)
    model = importlib.import_module(f"methods.{name}").build(settings, clips.streams, clips.vocabulary)
    run = FakeRun(clips.n_captions, shares, train={"captions_per_clip": 4})
    run.device = torch.device(device)
    model.module.to(device)
    model._fit_normalisers(clips, run)
    phase = {phase.name: phase for phase in model.phases(clips, run)}[case.phase]
    batch = next(iter(clips.epoch(0, captions, 4))).to(run.device)
    if phase.begin is not None:
        phase.begin(0)
    parameters = phase.parameters()
    optimizer = torch.optim.Adam([group.options() for group in phase.learning()], lr=5e-4, fused=True)
    model.module.train()

    def one() -> None:
        with torch.autocast(run.device.type, torch.bfloat16, enabled=low):
            loss = phase.loss(batch)["loss"]
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return one, batch


def rates(device: str = "cpu") -> dict[str, dict[str, float]]:
    """Captions per second of every method, in fp32 and with bfloat16 products."""
    found = {}
    for name in CASES:
        steps = {way: step(name, device=device, low=way == "bf16") for way in ("fp32", "bf16")}
        taken = seconds({way: made[0] for way, made in steps.items()})
        found[name] = {way: len(steps[way][1].caption_ids) / taken[way] for way in taken}
    return found


def shares(name: str, steps: int = 3) -> dict[str, float]:
    """Where the processor time of a training step goes, in parts of one."""
    one, _ = step(name)
    one()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(steps):
            one()
    spent: Counter[str] = Counter()
    for event in seen.key_averages():
        spent[_kind(event.key)] += event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: value / total for kind, value in spent.most_common()}


def _kind(operation: str) -> str:
    bare = operation.removeprefix("aten::")
    if operation.startswith("Optimizer."):
        return "optimizer"
    return next((kind for kind, names in SHARES.items() if any(bare.startswith(name) for name in names)), REST)


def profiles() -> dict[str, dict[str, float]]:
    """The shares of every method."""
    return {name: shares(name) for name in CASES}


def told(found: Mapping[str, Mapping[str, float]], parts: Mapping[str, Mapping[str, float]]) -> str:
    """Captions per second, and the shares of a step's time in percent, a line for each method."""
    ways, kinds = ("plain", "fp32", "bf16"), [*SHARES, REST]
    lines = [
        [name, *(per.get(way) for way in ways), *(100 * parts[name].get(kind, 0.0) for kind in kinds)]
        for name, per in found.items()
    ]
    head = ["captions/s", *ways, *(f"% {kind}" for kind in kinds)]
    return tabulate(lines, head, floatfmt=("", *[".0f"] * (len(head) - 1)), missingval="")
