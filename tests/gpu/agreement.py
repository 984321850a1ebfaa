"""Whether a GPU computes what the CPU computes: every method and variant, the same batches, twenty steps of every phase.

Dropout is off, true words are fed, draws are given, TF32 is off: what is left is the order of additions. Features of the training
lie on the GPU. After it, both decode with the weights of the CPU.
"""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from bench.data.batches import CorpusClips
from bench.method import Batch, Caption, Search
from bench.training import Losses, Phase
from tests.cards import CardRow, card_rows
from tests.gpu.worlds import Run, as_cells_do, build, given_draws
from tests.support import TinyEncoder, make_clips

BAR = 1e-4  # largest relative difference of a loss
STEPS = 20
BATCH, CLIPS = 16, 8
SHAPES = {
    "frames": (12, 96),
    "spatial": (9, 80),
    "audio": (24,),
    "motion": (10, 72),
    "regions": (12, 5, 80),
    "words": (300,),
    "actions": (60,),
    "objects": (90,),
    "pixels": (12, 3, 24, 24),
}
SIZES = {"width": 96, "embedding": 80, "attention": 64, "dropout": 0.0}
WORDS = 400
MORE = {
    "glrg:dxe, words from frames": ("glrg:dxe", {}, ("frames", "actions", "objects")),
    "glrg:dxe_b2, mode=official": ("glrg:dxe_b2", {"mode": "official"}, None),
    "glrg:dxe_scst, mode=official": ("glrg:dxe_scst", {"mode": "official"}, None),
    "salstm:xe, initial=mean": ("salstm:xe", {"initial": "mean"}, None),
    "vre:full, printed": ("vre:full", {"refocus_loss": "printed", "reward_feeding": "truth"}, None),
}
"""Paths of the code that no variant takes: the variant, settings, streams."""


@dataclass(frozen=True)
class Case:
    """What is tried: a row of a card, its settings, and the streams it gets."""

    name: str
    row: CardRow
    steps: int = STEPS


def cases(steps: int = STEPS) -> list[Case]:
    """Every variant of every method, and the further paths."""
    rows = card_rows()
    found = [Case(name, row, steps) for name, row in rows.items()]
    for name, (base, settings, streams) in MORE.items():
        row = rows[base]
        found.append(
            Case(name, replace(row, settings={**row.settings, **settings}, streams=streams or row.streams), steps)
        )
    return found


def clips_of(case: Case, seed: int, captions: bool = True) -> CorpusClips:
    """Eight clips, some of them short, with ten captions each."""
    lengths = [12, 9, 12, 5, 12, 7, 12, 3]
    sizes = [[(clip + 3 * number) % 9 + 1 for number in range(10)] if captions else [] for clip in range(CLIPS)]
    return make_clips(lengths, sizes, {name: SHAPES[name] for name in case.row.streams}, WORDS, seed)


def trained(case: Case, device: torch.device) -> tuple[Any, dict[str, list[float]]]:
    """The method after training on `device`, and the losses of its steps by phase."""
    clips = clips_of(case, seed=1)
    if device.type != "cpu":
        clips = clips.on(device)
    method = build(case.row, clips, **SIZES)
    phases = len(case.row.phases)
    run = Run(case.row, device, case.steps * BATCH * phases, {"captions": BATCH, "captions_per_clip": 4})
    run.train = {**run.train, "learning_rate": 5e-4}
    run.shares = dict.fromkeys(case.row.phases, 1.0)
    run.search = Search(max_words=10)
    run.encoder = lambda name, weights="pretrained": TinyEncoder(SHAPES["frames"][-1]).to(device)  # type: ignore[method-assign]
    losses: dict[str, list[torch.Tensor]] = {}
    recipe = method.phases
    method.phases = lambda clips, run: [_kept(phase, losses) for phase in recipe(clips, run)]
    with given_draws():
        method.fit(clips, run)
    return method, {phase: torch.stack(values).double().tolist() for phase, values in losses.items()}


def _kept(phase: Phase, losses: dict[str, list[torch.Tensor]]) -> Phase:
    def loss(batch: Batch) -> Losses:
        found = phase.loss(batch)
        losses.setdefault(phase.name, []).append(found["loss"].detach())
        return found

    return replace(phase, loss=loss)


def compare(case: Case, device_name: str) -> dict[str, Any]:
    """Losses and captions of both devices; what goes wrong is told, not raised."""
    as_cells_do()
    device = torch.device(device_name)
    began = time.perf_counter()
    told: dict[str, Any] = {"case": case.name, "right": False}
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            told |= difference(case, device)
        except Exception as error:
            told["error"] = f"{type(error).__name__}: {error}"[:600]
            told["trace"] = traceback.format_exc()[-1500:]
    told["warnings"] = sorted({str(one.message)[:300] for one in heard})
    told["seconds"] = time.perf_counter() - began
    return told


def difference(case: Case, device: torch.device) -> dict[str, Any]:
    """Losses of the steps on the CPU and on `device`, and captions with the weights of the CPU."""
    here, wanted = trained(case, torch.device("cpu"))
    there, found = trained(case, device)
    apart = {phase: _apart(wanted[phase], found[phase]) for phase in wanted}
    there.load_state_dict(here.state_dict())
    clips, search = clips_of(case, seed=2, captions=False), Search(max_words=12, clips=3)
    captions = [method.decode(clips, search) for method in (here, there)]
    differ = [(one, two) for one, two in zip(*captions, strict=True) if one.words != two.words]
    right = max(apart.values()) <= BAR and not differ and wanted.keys() == found.keys()
    return {
        "right": right,
        "largest relative difference of a loss": apart,
        "steps": {phase: len(values) for phase, values in wanted.items()},
        "first and last loss": {phase: (values[0], values[-1]) for phase, values in wanted.items()},
        "captions": len(captions[0]),
        "captions that differ": len(differ),
        "differences": [_told(one, two) for one, two in differ[:3]],
    }


def _apart(wanted: list[float], found: list[float]) -> float:
    """Not-a-number counts as infinitely far."""
    if len(wanted) != len(found):
        return float("inf")
    apart = [abs(one - two) / max(abs(one), 1.0) for one, two in zip(wanted, found, strict=True)]
    return max(value if value == value else float("inf") for value in apart)


def _told(one: Caption, two: Caption) -> Mapping[str, Any]:
    return {
        "clip": one.clip,
        "cpu": (one.text, one.log_probability),
        "gpu": (two.text, two.log_probability),
    }
