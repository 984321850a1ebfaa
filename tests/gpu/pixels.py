"""EtENet's second step on pixels of the printed size: 16 frames of 299 x 299 a clip, Inception-ResNet-v2 with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bench import BenchError
from bench.data.batches import CorpusClips, StreamSource
from bench.features.encoders import load_encoder
from bench.method import SPECIAL, StreamInfo
from tests.cards import card_rows
from tests.gpu.worlds import TRAIN, Run, Timed, build, phase_of, set_precision, train_alone
from tests.perf import generated
from tests.support import TinyEncoder

PHASES = {"etenet:step2": "end_to_end"}
WIDTH = 1536


def step2(precision: str, device: torch.device, quick: bool) -> dict[str, Any]:
    """Captions per second of a step over 64 captions of 16 clips, encoder and decoder learning."""
    frames, side, batch = (3, 24, 8) if quick else (16, 299, 64)
    row = card_rows()["etenet:step2"]
    told: dict[str, Any] = {"case": row.name, "pixels": [frames, 3, side, side], "precision": precision}
    try:
        encoder = TinyEncoder(WIDTH) if quick else load_encoder("inception_resnet_v2", "random")
    except BenchError as error:
        return told | {"left out": str(error)}
    set_precision(precision)
    clips = _clips(batch // 4, 4, frames, side)
    small = {"width": 16, "embedding": 12, "attention": 8} if quick else {}
    method = build(row, clips, encoder="inception_resnet_v2", encoder_weights="random", **small)
    train = TRAIN | {"captions": batch, "precision": "bfloat16" if precision == "bf16" else "float32"}
    run = Run(row, device, 1, train)
    method.prepare(lambda name, weights: encoder.to(device))
    method.borrow("random")
    phase = phase_of(method, PHASES[row.name], clips, run)
    batches = [one.to(device) for one in clips.epoch(0, batch, 4)]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    taken = train_alone(method, phase, Timed(clips, device, 3 if quick else 6, 1 if quick else 2, batches), run)
    told |= {"seconds of a step": taken, "captions/s": batch / taken, "frames/s": batch // 4 * frames / taken}
    if device.type == "cuda":
        told["peak MB"] = torch.cuda.max_memory_allocated(device) / 2**20
    set_precision("fp32")
    return told


def _clips(clips: int, captions: int, frames: int, side: int) -> CorpusClips:
    """Clips with random pixels; their vectors are zeros, for this step reads none."""
    random = np.random.default_rng(0)
    ids = [f"clip{number}" for number in range(clips)]
    place = {clip: number for number, clip in enumerate(ids)}
    pixels = random.integers(0, 256, (clips, frames, 3, side, side), dtype=np.uint8)
    vectors = np.zeros((clips, frames, WIDTH), np.float16)

    def source(name: str, values: np.ndarray) -> StreamSource:
        info = StreamInfo(name, values.shape[1:], True, "random", "inception_resnet_v2" if name == "pixels" else "")
        return StreamSource(info, lambda some: (values[[place[clip] for clip in some]], np.full(len(some), frames)))

    words = 12_000
    vocabulary = generated.vocabulary(words - len(SPECIAL))
    references = generated.references(ids, captions, words)
    sources = {"frames": source("frames", vectors), "pixels": source("pixels", pixels)}
    return CorpusClips(ids, references, sources, vocabulary)
