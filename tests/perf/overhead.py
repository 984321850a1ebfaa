"""What the harness costs: processor time of a cell's training by the shared loop against the bare loop over the same batches.

Both train salstm on one thread from the same weights over the same batches; the losses must be equal. The harness's part is
progress, curves, checkpoints, budget and selection; decoding the validation clips is timed apart, since the bare loop has none.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.cell.workbench import Workbench
from bench.data.batches import CorpusClips
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.training import CaptionModel
from methods.salstm import build
from tests.perf.generated import corpus
from tests.perf.rows import Row

CLIPS, CAPTIONS, FRAMES, WIDTH, WORDS, EPOCHS = 150, 10, 28, 512, 3000, 2
PAIRS = 3
SETTINGS = {"width": 384, "embedding": 384, "attention": 384, "dropout": 0.5, "normalise": True, "initial": "zeros"}
TRAIN = {
    "epochs": EPOCHS,
    "captions": 64,
    "captions_per_clip": 4,
    "learning_rate": 5e-4,
    "optimizer": "adam",
    "weight_decay": 0.0,
    "clip": 5.0,
    "clip_by": "norm",
    "scheduled_sampling": 0.0,
    "patience": None,
}
CONFIG = {
    "dataset": "generated",
    "device": "cpu",
    "seed": 0,
    "train": TRAIN,
    "phases": {"base": 1.0},
    "search": {"beam": 5, "max_words": 30},
}


def made(clips: int, spend: Callable[[int], None] | None = None) -> CorpusClips:
    """Clips of the size that this comparison takes."""
    return corpus(clips, CAPTIONS, WORDS, {"frames": (FRAMES, WIDTH)}, spend)


def fresh(clips: CorpusClips) -> CaptionModel:
    torch.manual_seed(0)
    model: CaptionModel = build(SETTINGS, clips.streams, clips.vocabulary)
    return model


def bare(clips: CorpusClips) -> tuple[float, float]:
    """Processor seconds of the plain loop, and the mean loss over the captions of its last epoch."""
    model = fresh(clips)
    network = model.module
    model._fit_normalisers(clips, Workbench(CONFIG, Path(tempfile.mkdtemp()), clips.n_captions))
    optimizer = torch.optim.Adam(network.parameters(), lr=TRAIN["learning_rate"], weight_decay=0.0, fused=True)
    total = 0.0
    started = time.process_time()
    network.train()
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in clips.epoch(epoch, TRAIN["captions"], TRAIN["captions_per_clip"]):
            loss = cross_entropy(word_losses(network, teacher_forcing(network, batch)))
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), TRAIN["clip"])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total += loss.item() * len(batch.caption_ids)
    return time.process_time() - started, total / clips.n_captions


def harness() -> tuple[float, float, float]:
    """Processor seconds of the shared loop without and of the validation decoding in it, and the last epoch's loss."""
    place = Path(tempfile.mkdtemp())
    clips = made(CLIPS, lambda captions: run.spend(captions))
    run = Workbench(CONFIG, place, clips.n_captions)
    val = made(10)
    run.lend_validation(val, {clip: [ref.tokens for ref in val.references(clip)] for clip in val.ids})
    spent = [0.0]
    validate = run.validate

    def timed(method: Any) -> float:
        begun = time.process_time()
        score = validate(method)
        spent[0] += time.process_time() - begun
        return score

    losses: list[float] = []
    run.validate = timed  # type: ignore[method-assign]
    report = run.report
    run.report = lambda *words: (losses.append(words[2]["loss"]), report(*words))[1]  # type: ignore[method-assign]
    model = fresh(clips)
    started = time.process_time()
    model.fit(clips, run)
    return time.process_time() - started - spent[0], spent[0], losses[-1]


def rows(threads: int) -> list[Row]:
    """The cost in percent of the bare loop, the median of three pairs, on one thread."""
    torch.set_num_threads(1)
    clips = made(CLIPS)
    bare(made(20))  # warm up
    pairs = []
    for _ in range(PAIRS):
        plain, expected = bare(clips)
        shared, decoding, loss = harness()
        assert abs(loss - expected) <= 1e-5 * expected, f"the two loops do not train alike: {loss} and {expected}"
        pairs.append((shared / plain, plain, shared, decoding))
    torch.set_num_threads(threads)
    ratio, plain, shared, decoding = sorted(pairs)[PAIRS // 2]
    behind = {"bare CPU s": plain, "shared CPU s": shared, "validation s": decoding}
    return [Row("overhead of the harness", "the bare loop", 100 * (ratio - 1), 5, "%", at_most=True, details=behind)]
