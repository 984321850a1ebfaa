"""Several cells on one card, each in a process of its own, begun at the same moment: seconds of an epoch for each of them."""

from __future__ import annotations

import multiprocessing
import queue
import shutil
import subprocess
import threading
import time
from typing import Any

import torch

from tests.cards import card_rows
from tests.gpu.speed import BATCH, MSRVTT_CAPTIONS, dataset, settings
from tests.gpu.worlds import TRAIN, Run, Timed, as_cells_do, build, corpus, phase_of, set_precision, train_alone

ROW, PHASE = "recnet:local", "reconstruct"


def at_once(count: int, device: str, precision: str, quick: bool, deadline: float) -> dict[str, Any]:
    """`count` cells: captions per second of each, of all, and how busy the card says it is."""
    context = multiprocessing.get_context("spawn")
    answers: Any = context.Queue()
    start = context.Barrier(count + 1)
    arguments = (device, precision, quick, start, answers)
    cells = [context.Process(target=_cell, args=arguments, daemon=True) for _ in range(count)]
    for cell in cells:
        cell.start()
    told: dict[str, Any] = {"cells": count, "precision": precision}
    try:
        start.wait(max(deadline - time.monotonic(), 1.0))
        with _Watch(device) as watch:
            found = [answers.get(timeout=max(deadline - time.monotonic(), 1.0)) for _ in cells]
    except (threading.BrokenBarrierError, queue.Empty):
        return told | {"error": _first(answers)}
    finally:
        for cell in cells:
            cell.kill()
            cell.join()
    if wrong := [answer for answer in found if isinstance(answer, str)]:
        return told | {"error": wrong[0]}
    told["captions/s of each"] = found
    told["captions/s of all"] = sum(found)
    told["seconds of an epoch for each, reckoned"] = [MSRVTT_CAPTIONS / rate for rate in found]
    told["seconds of an epoch and cell, reckoned"] = MSRVTT_CAPTIONS / sum(found)
    told["busy by nvidia-smi, percent"] = watch.mean()
    return told


def _cell(device_name: str, precision: str, quick: bool, start: Any, answers: Any) -> None:
    try:
        as_cells_do()
        set_precision(precision)
        device = torch.device(device_name)
        row, shape = card_rows()[ROW], dataset("msrvtt", quick)
        batch, steps, warm = (16, 6, 2) if quick else (BATCH, 120, 15)
        clips = corpus(shape.of(ROW), steps * batch // 20 + 1, 20, shape.words, shape.lengths, device=device)
        method = build(row, clips, **settings(quick))
        low = "bfloat16" if precision == "bf16" else "float32"
        run = Run(row, device, 1, TRAIN | {"captions": batch, "precision": low})
        phase = phase_of(method, PHASE, clips, run)
        timed = Timed(clips, device, steps, warm)
        timed.when_warm = lambda: start.wait(120) and None
        taken = train_alone(method, phase, timed, run)
        answers.put(timed.captions / (steps - warm) / taken)
    except Exception as error:
        answers.put(f"{type(error).__name__}: {error}"[:500])
        start.abort()


def _first(answers: Any) -> str:
    try:
        return str(answers.get(timeout=1.0))
    except queue.Empty:
        return "the time was up"


class _Watch:
    """The card's own word on how busy it is, five times a second, where nvidia-smi is there."""

    def __init__(self, device: str) -> None:
        self.process: subprocess.Popen[str] | None = None
        if device.startswith("cuda") and shutil.which("nvidia-smi"):
            self.process = subprocess.Popen(
                ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        self.seen: list[float] = []

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.terminate()
            out, _ = self.process.communicate(timeout=10)
            self.seen = [float(line) for line in out.split() if line.replace(".", "").isdigit()]

    def mean(self) -> float | None:
        inner = self.seen[1:-1]  # the first and the last may reach beyond
        return sum(inner) / len(inner) if inner else None
