"""How much of a training step through an encoder is spent in waiting for its pixels, read from a cache on disk.

Batches of EtENet's second step: 64 captions of four clips, 16 frames of 224x224 a clip, MobileNetV2 with random weights learning
and its activations made twice. Pixels are noise, which no filter shrinks: the most that there can be to read.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from bench.data.batches import CorpusClips, StreamSource
from bench.features.cache import Cache, CacheWriter
from bench.features.encoders import load_encoder
from bench.features.specs import spec_of
from bench.method import StreamInfo
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from methods.etenet.model import EndToEnd, EtENetDecoder
from tests.perf.generated import references, vocabulary
from tests.perf.rows import Row
from tests.perf.training import WIDTH, step_of

CLIPS, CAPTIONS, FRAMES, WORDS = 16, 16, 16, 12_000
ENCODER = "mobilenetv2_100"
MOST = 5  # percent


def captioner() -> EndToEnd:
    """EtENet in its second step, encoder and decoder learning."""
    encoder = load_encoder(ENCODER, "random")
    decoder = EtENetDecoder(WORDS, spec_of(ENCODER).width, WIDTH, WIDTH, WIDTH, 0.0, False)
    model = EndToEnd(decoder, learns=True)
    model.attach(encoder)
    model.from_pixels.fill_(True)
    for parameter in model.trainable():
        parameter.requires_grad_(True)
    return model


def epoch(path: Path, info: StreamInfo, ids: list[str], ahead: bool) -> tuple[float, float]:
    """Seconds of one epoch, and those of them in which it waited for a batch; `ahead` reads the next one meanwhile."""
    torch.manual_seed(0)
    model = captioner()
    waited = []
    with Cache(path) as cache:
        source = StreamSource(info, cache.load, slow=ahead)
        clips = CorpusClips(
            ids, references(ids, CAPTIONS, WORDS), {"pixels": source}, vocabulary(WORDS - 4), wait=waited.append
        )
        begun = time.perf_counter()
        for one in clips.epoch(0, 64, CAPTIONS):
            step_of(model, lambda batch: cross_entropy(word_losses(model, teacher_forcing(model, batch))), one)()
        return time.perf_counter() - begun, sum(waited)


def rows(threads: int) -> list[Row]:
    """The share of waiting in percent, with the next batch read ahead as cells do it, and without."""
    shape = (FRAMES, 3, *spec_of(ENCODER).preprocessing.size)  # type: ignore[misc]
    info = StreamInfo("pixels", shape, True, "random", ENCODER)
    random = np.random.default_rng(0)
    ids = [f"clip{number}" for number in range(CLIPS)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pixels.h5"
        with CacheWriter(path, "pixels", shape, True, "uint8", ids) as cache:
            for clip in ids:
                cache.write(clip, random.integers(0, 256, shape, dtype=np.uint8))
        found = {ahead: epoch(path, info, ids, ahead) for ahead in (False, True)}
    shares = {ahead: 100 * waited / whole for ahead, (whole, waited) in found.items()}
    behind = {"epoch s": found[True][0], "waited s": found[True][1], "not read ahead %": shares[False]}
    return [Row("waiting for pixels", "an epoch of step 2", shares[True], MOST, "%", at_most=True, details=behind)]
