"""Memory of a training step, and how time and memory grow with the number of clips.

Each figure comes from a process of its own, from the largest resident size that the system has seen: what torch holds for
a moment counts. The step is one of SA-LSTM at MSVD's shape; the reference makes logits for all words of all captions,
padding included. The epochs read their clips from a cache file.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.data.batches import CorpusClips, StreamSource
from bench.features.cache import Cache, CacheWriter
from bench.method import PAD, Batch, StreamInfo
from bench.nn.captioners import SoftAttention
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from tests.perf.generated import MSVD, WORDS, batch, references, vocabulary
from tests.perf.plain import STEPS
from tests.perf.rows import Row
from tests.perf.training import soft_attention, step_of

CLIPS, CAPTIONS = 60, 5


def full_logits(engine: SoftAttention, one: Batch) -> Tensor:
    """The engine's step with logits [B, W, V] for every place of captions padded to the longest allowed."""
    forced = teacher_forcing(engine, one)
    room = STEPS - forced.features_BWR.shape[1]
    features_BWR = functional.pad(forced.features_BWR, (0, 0, 0, room))
    targets_BW = functional.pad(forced.targets_BW, (0, room), value=PAD)
    logits_BWV = engine.logits(features_BWR)
    losses = functional.cross_entropy(logits_BWV.flatten(0, 1), targets_BW.flatten(), ignore_index=PAD, reduction="sum")
    return losses / len(targets_BW)


def loss_of(engine: SoftAttention, way: str) -> Callable[[Batch], Tensor]:
    """The engine's own loss, or `full`."""
    if way == "full":
        return lambda one: full_logits(engine, one)
    return lambda one: cross_entropy(word_losses(engine, teacher_forcing(engine, one)))


def peak() -> int:
    """Largest resident size of this program so far, bytes: not `ru_maxrss`, which a process takes over from its parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def step_memory(way: str) -> float:
    """Bytes that a training step takes above a step over two captions: weights, gradients and the optimizer's moments are
    the same in both."""
    torch.manual_seed(0)
    engine = soft_attention()
    step_of(engine, loss_of(engine, "own"), batch(MSVD, captions=2, per_clip=1))()
    at_rest = peak()
    step_of(engine, loss_of(engine, way), batch(MSVD))()
    return peak() - at_rest


def epoch(clips: int) -> tuple[float, float]:
    """Seconds of one epoch over `clips` clips of a cache, and the largest resident size of the process."""
    random = np.random.default_rng(0)
    ids = [f"clip{number}" for number in range(clips)]
    info = StreamInfo("frames", MSVD["frames"], True, "random")
    engine = soft_attention()
    optimizer = torch.optim.Adam(engine.parameters(), lr=5e-4)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.h5"
        with CacheWriter(path, "frames", info.shape, True, "float16", ids) as cache:
            for clip in ids:
                cache.write(clip, random.normal(size=info.shape).astype(np.float16))
        with Cache(path) as opened:
            source = StreamSource(info, opened.load)
            words = vocabulary(WORDS - 4)
            train = CorpusClips(ids, references(ids, CAPTIONS, WORDS), {"frames": source}, words, seed=0)
            begun = time.perf_counter()
            for one in train.epoch(0, 64, 4):
                loss_of(engine, "own")(one).backward()
                nn.utils.clip_grad_norm_(engine.parameters(), 5.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            return time.perf_counter() - begun, peak()


def alone(call: str, threads: int) -> list[float]:
    """What a call of this module returns in a process of its own, which keeps freed memory as a cell's does."""
    program = (
        "from bench.cell.job import keep_freed; keep_freed(); "
        f"import torch; torch.set_num_threads({threads}); from tests.perf import memory; "
        f"found = memory.{call}; print(*(found if isinstance(found, tuple) else [found]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def rows(threads: int) -> list[Row]:
    """Memory of a step, then time and memory over ten times the clips."""
    (own,), (full,) = alone("step_memory('own')", threads), alone("step_memory('full')", threads)
    few, many = alone(f"epoch({CLIPS})", threads), alone(f"epoch({10 * CLIPS})", threads)
    behind = {"own MB": own / 1e6, "full logits MB": full / 1e6}
    sizes = {"few MB": few[1] / 1e6, "many MB": many[1] / 1e6}
    times = {"few s": few[0], "many s": many[0]}
    return [
        Row("memory of a salstm step", "logits of all places", own / full, 0.5, at_most=True, details=behind),
        Row(f"time, {10 * CLIPS} clips", f"{CLIPS} clips", many[0] / few[0], 11, at_most=True, details=times),
        Row(f"memory, {10 * CLIPS} clips", f"{CLIPS} clips", many[1] / few[1], 1.1, at_most=True, details=sizes),
    ]
