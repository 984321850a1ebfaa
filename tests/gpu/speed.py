"""How fast training steps are, beside what the card could do: captions per second, share of the floor, share of busy time.

A step is the engine's own: loss, backward, clipping, Adam, as a cell does it (deterministic algorithms, one thread). The floor
of a step is the larger of two times: its operations at the measured rate of a large matrix product, and the bytes that its
operations read and write at the measured bandwidth. Both are counted on the CPU, in float32.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from bench.method import Batch, Clips
from tests.cards import card_rows
from tests.gpu.worlds import (
    TRAIN,
    Lengths,
    Run,
    Timed,
    as_cells_do,
    build,
    corpus,
    msrvtt_lengths,
    msvd_lengths,
    phase_of,
    set_precision,
    synchronize,
    train_alone,
)
from tests.perf.timing import product_rate, seconds

BATCH = 64
ANY = "any algorithm"
READY = 4  # batches that take turns
PROFILED = 2  # steps under the profiler, which takes seconds to say what it saw
MSRVTT_CAPTIONS = 6513 * 20
CASES = {
    "recnet:local": "reconstruct",
    "salstm:xe": "base",
    "vre:full": "joint",
    "hail:ha": "base",
    "s2vt:xe": "base",
    "glrg:dxe": "seed",
    "etenet:step1": "frozen",
}
"""What is measured, and in which phase."""


@dataclass(frozen=True)
class Shape:
    """A data set as far as the cost of a step goes."""

    words: int
    lengths: Lengths
    frames: Mapping[str, tuple[int, ...]]  # by method; the streams of the others stand in `streams`
    streams: Mapping[str, tuple[int, ...]]

    def of(self, name: str) -> dict[str, tuple[int, ...]]:
        """The streams that a row reads here."""
        row = card_rows()[name]
        own = {"frames": self.frames.get(row.method, (28, 1536)), **self.streams}
        return {
            stream: own[stream]
            for stream in row.streams
            if stream in own and not (row.method == "glrg" and stream == "frames")
        }


COMMON = {"regions": (40, 16, 2048), "spatial": (49, 2048), "words": (300,), "actions": (400,), "objects": (1000,)}
FRAMES = {"hail": (40, 2048), "vre": (20, 2048)}
DATASETS = {
    "msvd": Shape(12_000, msvd_lengths, FRAMES, COMMON | {"motion": (40, 4096)}),  # MSVD has no sound
    "msrvtt": Shape(10_549, msrvtt_lengths, FRAMES, COMMON | {"motion": (40, 4096), "audio": (128,)}),
}


def small(shape: Shape) -> Shape:
    """The same, a few numbers wide: for rehearsals."""

    def less(sizes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(min(size, 12) for size in sizes)

    streams = {name: less(sizes) if name != "words" else sizes for name, sizes in shape.streams.items()}
    return replace(shape, words=60, frames=dict.fromkeys(card_methods(), (12, 12)), streams=streams)


def card_methods() -> set[str]:
    return {row.method for row in card_rows().values()}


def settings(quick: bool) -> dict[str, Any]:
    return {"width": 16, "embedding": 12, "attention": 8} if quick else {}


def dataset(name: str, quick: bool) -> Shape:
    return small(DATASETS[name]) if quick else DATASETS[name]


# ------------------------------------------------------------------------------------------------------------- what the card can


def rates(device: torch.device, quick: bool) -> dict[str, float]:
    """Operations per second of a large square product in each precision, bytes per second of a large copy, launches per second,
    and what a process holds of the card beside its tensors (with all others that use it)."""
    side = 256 if quick else 8192
    found = {}
    for precision in ("fp32", "tf32", "bf16"):
        set_precision(precision)
        found[precision] = product_rate(low=precision == "bf16", device=str(device), side=side)
    set_precision("fp32")
    source = torch.randn(2**18 if quick else 2**30, device=device)
    target = torch.empty_like(source)
    taken = seconds({"copy": lambda: target.copy_(source)})["copy"]
    found["bytes"] = 2 * source.numel() * source.element_size() / taken
    tiny = torch.zeros(8, device=device)

    def launches() -> None:
        for _ in range(1000):
            tiny.add_(1)

    found["launches"] = 1000 / seconds({"launches": launches})["launches"]
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info(device)
        found["GiB beside tensors"] = (whole - free - torch.cuda.memory_reserved(device)) / 2**30
    return found


# ------------------------------------------------------------------------------------------------------- what a step has to do


class Bytes(TorchDispatchMode):
    """Counts what operations read and write; views are free. An operand of a fused operation that is changed counts twice."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        returns = func._schema.returns
        if any(one.alias_info is not None and not one.alias_info.is_write for one in returns):
            return found  # a view
        for argument, value in zip(func._schema.arguments, args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            self.total += (2 if written else 1) * _size(value)
        if not any(one.alias_info is not None for one in returns):
            self.total += _size(found)
        return found


def _size(value: Any) -> int:
    return sum(one.numel() * one.element_size() for one in tree_leaves(value) if isinstance(one, Tensor))


def work(name: str, where: str, quick: bool, batch: int = BATCH) -> dict[str, Any]:
    """Operations and bytes of a step in the mean over the batches that are timed, counted on the CPU."""
    as_cells_do()
    torch.set_num_threads(2)
    counted = []
    try:
        step, batches = _bare_step(name, where, quick, batch)
        for one in batches:
            with FlopCounterMode(display=False) as products, Bytes() as moved:
                step(one)
            counted.append((int(products.get_total_flops()), moved.total))
    except Exception as error:
        return {"case": name, "shape": where, "error": f"{type(error).__name__}: {error}"[:500]}
    operations, moved_bytes = (sum(values) / len(counted) for values in zip(*counted, strict=True))
    return {"case": name, "shape": where, "operations": operations, "bytes": moved_bytes}


def _bare_step(name: str, where: str, quick: bool, batch: int) -> tuple[Callable[[Batch], None], list[Batch]]:
    method, phase, clips, run = _made(name, where, torch.device("cpu"), quick, batch)
    learning = {id(parameter) for parameter in phase.parameters()}
    for parameter in method.module.parameters():
        parameter.requires_grad_(id(parameter) in learning)
    optimizer = torch.optim.Adam([group.options() for group in phase.learning()], lr=5e-4, fused=True)
    method.module.train()

    def step(one: Batch) -> None:
        phase.loss(one)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(phase.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    batches = ready(clips, run.device, batch)
    step(batches[0])  # the optimizer makes its moments
    return step, batches


def _made(name: str, where: str, device: torch.device, quick: bool, batch: int) -> tuple[Any, Any, Clips, Run]:
    row, shape = card_rows()[name], dataset(where, quick)
    clips = corpus(shape.of(name), batch // 4 * 2, 8, shape.words, shape.lengths)
    method = build(row, clips, **settings(quick))
    run = Run(row, device, 1, TRAIN | {"captions": batch})
    return method, phase_of(method, CASES[name], clips, run), clips, run


def ready(clips: Clips, device: torch.device, batch: int) -> list[Batch]:
    """The first batches of an epoch, on the device."""
    found: list[Batch] = []
    for one in clips.epoch(0, batch, 4):
        found.append(one.to(device))
        if len(found) == READY:
            break
    return found


# ---------------------------------------------------------------------------------------------------------------- a step, timed


def steps(name: str, where: str, device: torch.device, quick: bool) -> dict[str, Any]:
    """Seconds of a step on batches that lie on the device, in each precision; kernels and busy time at MSR-VTT's shape.

    `any algorithm` is fp32 without the demand that two runs add in the same order.
    """
    batch = 16 if quick else BATCH
    told: dict[str, Any] = {"case": name, "shape": where, "phase": CASES[name]}
    method, phase, clips, run = _made(name, where, device, quick, batch)
    batches = ready(clips, device, batch)
    captions = sum(len(one.caption_ids) for one in batches) / len(batches)
    told["words of a caption, longest"] = sum(one.words_BW.shape[1] - 1 for one in batches) / len(batches)
    for precision in ("fp32", "tf32", "bf16", ANY):
        set_precision(precision)
        torch.use_deterministic_algorithms(precision != ANY, warn_only=True)
        run.train = {**run.train, "precision": "bfloat16" if precision == "bf16" else "float32"}
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        timed = Timed(clips, device, 4 if quick else 28, 2 if quick else 8, batches)
        taken = train_alone(method, phase, timed, run)
        told[precision] = {"seconds": taken, "captions/s": captions / taken}
        if device.type == "cuda":
            told[precision]["peak MB"] = torch.cuda.max_memory_allocated(device) / 2**20
            if precision in ("fp32", "bf16") and where == "msrvtt":
                told[precision] |= busy(method, phase, clips, batches, run, taken)
    as_cells_do()
    return told


def busy(method: Any, phase: Any, clips: Clips, batches: list[Batch], run: Run, taken: float) -> dict[str, Any]:
    """Kernels of a step, the seconds in which any of them runs, and that as a share of the step as timed without a profiler."""
    try:
        seen = profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
        timed = Timed(clips, run.device, PROFILED + 1, 1, batches)
        timed.when_warm = seen.start  # the optimizer's moments are made in the first step
        train_alone(method, phase, timed, run)
        seen.stop()
        return _busy(seen, PROFILED, taken)
    except Exception as error:
        return {"profile": f"{type(error).__name__}: {error}"[:500], "trace": traceback.format_exc()[-800:]}


def _busy(seen: Any, count: int, taken: float) -> dict[str, Any]:
    events = seen.events()
    spans, names, waits = [], Counter(), Counter()
    for event in events:
        if event.device_type == torch.autograd.DeviceType.CUDA:
            if event.name.startswith(("ProfilerStep", "Optimizer")):
                continue  # a mark over kernels, not one of them
            spans.append((event.time_range.start, event.time_range.end))
            names[event.name[:80]] += event.time_range.end - event.time_range.start
        elif "Synchronize" in event.name or event.name.startswith(("cudaMemcpy", "cuMemcpy")):
            waits[event.name] += 1
    running = _union(spans) / 1e6 / count
    return {
        "kernels": len(spans) / count,
        "kernel seconds": running,
        "busy": running / taken,
        "waits": {name: number / count for name, number in waits.items()},
        "longest": {name: value / 1e6 / count for name, value in names.most_common(8)},
    }


def _union(spans: list[tuple[float, float]]) -> float:
    total, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        total += max(stop - max(start, end), 0.0)
        end = max(end, stop)
    return total


def floors(row: dict[str, Any], counted: Mapping[str, Any], card: Mapping[str, float]) -> None:
    """Set beside each time of a row the floor of its step, and what share of the time that is."""
    if "operations" not in counted:
        row["floor"] = counted.get("error", "not counted")
        return
    row["GFLOP"], row["GB moved"] = counted["operations"] / 1e9, counted["bytes"] / 1e9
    for precision in ("fp32", "tf32", "bf16"):
        if precision in row:
            products, moved = counted["operations"] / card[precision], counted["bytes"] / card["bytes"]
            row[precision]["floor seconds"] = max(products, moved)
            row[precision]["share of the floor"] = max(products, moved) / row[precision]["seconds"]


# ------------------------------------------------------------------------------------------------------------ an epoch of MSR-VTT


def epoch(
    name: str, precision: str, device: torch.device, quick: bool, phases: tuple[str, ...], stay: bool = True
) -> dict[str, Any]:
    """Seconds of an epoch over MSR-VTT's 130,260 captions at batch 64, reckoned from 200 steps of each phase, as a cell runs
    them: features `stay` on the GPU, or are copied batch by batch."""
    row, shape = card_rows()[name], dataset("msrvtt", quick)
    batch, timed_steps, warm = (16, 4, 2) if quick else (BATCH, 200, 15)
    total = timed_steps + warm
    clips = corpus(shape.of(name), total * batch // 20 + 1, 20, shape.words, shape.lengths, device=device, stay=stay)
    set_precision(precision)
    train = TRAIN | {"captions": batch, "precision": "bfloat16" if precision == "bf16" else "float32"}
    told: dict[str, Any] = {"case": name, "precision": precision, "steps that were timed": timed_steps, "phases": {}}
    for phase_name in phases:
        method = build(row, clips, **settings(quick))
        run = Run(row, device, 1, train)
        phase = phase_of(method, phase_name, clips, run)
        timed = Timed(clips, device, total, warm)
        taken = train_alone(method, phase, timed, run)
        per_caption = taken * timed_steps / timed.captions
        told["phases"][phase_name] = {
            "seconds of a step": taken,
            "captions/s": 1 / per_caption,
            "seconds of an epoch, reckoned": per_caption * MSRVTT_CAPTIONS,
        }
    set_precision("fp32")
    return told


def copies(device: torch.device, quick: bool) -> dict[str, float]:
    """What making a batch of MSR-VTT frames costs: reading it, and copying it to the device."""
    shape = dataset("msrvtt", quick)
    clips = corpus(shape.of("recnet:local"), 64, 20, shape.words, shape.lengths)
    began = time.perf_counter()
    batches = list(clips.epoch(0, BATCH, 4))
    made = (time.perf_counter() - began) / len(batches)
    synchronize(device)
    began = time.perf_counter()
    for one in batches:
        one.to(device)
    synchronize(device)
    return {"seconds to make a batch": made, "seconds to copy it": (time.perf_counter() - began) / len(batches)}
