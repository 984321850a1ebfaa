"""What every part of the measurement shares: random corpora of the shapes of real ones, methods built from their cards,
runs that keep nothing, and the state of the process in which cells are trained."""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from bench.cell.repeatable import before_torch, same_every_time
from bench.data.batches import CorpusClips, StreamSource
from bench.method import BOS, EOS, PAD, SPECIAL, UNK, Batch, Clips, Reference
from bench.nn import sampling
from bench.nn.host import on_device
from bench.training import Phase, fit_phases
from tests import support
from tests.cards import CardRow
from tests.perf import generated

PRECISIONS = ("fp32", "tf32", "bf16")
CPU = torch.device("cpu")


def set_precision(precision: str) -> None:
    """Products of float32 numbers as they are, or rounded to TF32 on a GPU; `bf16` is the business of the training settings."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def synchronize(device: torch.device) -> None:
    """Wait until the GPU has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# ---------------------------------------------------------------------------------------------------------------- corpora

Lengths = Callable[[np.random.Generator, int], np.ndarray]


def msvd_lengths(random: np.random.Generator, count: int) -> np.ndarray:
    """Words of captions: seven in the mean."""
    return np.minimum(random.poisson(6, count) + 1, 30)


def msrvtt_lengths(random: np.random.Generator, count: int) -> np.ndarray:
    """Words of captions: 9.3 in the mean, the longest of 64 has about 24."""
    return np.minimum(random.negative_binomial(4, 4 / (4 + 7.3), count) + 2, 28)


def corpus(
    shapes: Mapping[str, tuple[int, ...]],
    clips: int,
    captions: int,
    words: int,
    lengths: Lengths,
    seed: int = 0,
    device: torch.device = CPU,
    stay: bool = True,
) -> CorpusClips:
    """Clips with random features, of float16 as a cache holds them, and `captions` captions each.

    For a training on a GPU they are what a cell makes of them: features that `stay` there, or are copied from pinned memory.
    """
    random = np.random.default_rng(seed)
    ids = [f"clip{number}" for number in range(clips)]
    row = {clip: number for number, clip in enumerate(ids)}
    vocabulary = generated.vocabulary(words - len(SPECIAL))

    def reference(clip: str, number: int, length: int) -> Reference:
        caption = tuple(random.integers(len(SPECIAL), words, length).tolist())
        tokens = tuple(vocabulary.words[word] for word in caption)
        return Reference(f"{clip}#{number}", clip, " ".join(tokens), tokens, caption)

    def source(name: str, shape: tuple[int, ...]) -> StreamSource:
        info = generated.streams({name: shape})[name]
        if name == "spatial":  # places, not times
            info = replace(info, timed=False)
        values = random.standard_normal((clips, *shape), dtype=np.float32).astype(np.float16)
        length = shape[0] if info.timed else 0
        return StreamSource(info, lambda some: (values[[row[clip] for clip in some]], np.full(len(some), length)))

    sources = {name: source(name, shape) for name, shape in shapes.items()}
    references = {
        clip: tuple(reference(clip, number, int(size)) for number, size in enumerate(lengths(random, captions)))
        for clip in ids
    }
    on_gpu = device.type == "cuda"
    found = CorpusClips(ids, references, sources, vocabulary, pinned=on_gpu)
    return found.on(device) if on_gpu and stay else found


class Timed:
    """`bench.method.Clips` that start a clock when the batch after the first `warm` ones is asked for.

    With `ready`, an epoch is `steps` of these batches, over and over; without, one of `inner`, read and copied as in a cell.
    """

    def __init__(self, inner: Clips, device: torch.device, steps: int, warm: int, ready: Sequence[Batch] = ()) -> None:
        self.ids, self.streams, self.vocabulary = inner.ids, inner.streams, inner.vocabulary
        self.inner, self.device, self.steps, self.warm, self.ready = inner, device, steps, warm, ready
        self.began = 0.0
        self.captions = 0
        self.when_warm: Callable[[], None] = lambda: None

    @property
    def n_captions(self) -> int:
        return self.inner.n_captions

    def references(self, clip: str) -> tuple[Reference, ...]:
        return self.inner.references(clip)

    def in_order(self, clips: int) -> Iterator[Batch]:
        return self.inner.in_order(clips)

    def reading(self, streams: Sequence[str]) -> Timed:
        return self  # all that a phase reads is there, and the clock has to stay one

    def epoch(self, order: int, captions: int, captions_per_clip: int, start: int = 0) -> Iterator[Batch]:
        if self.ready:
            batches: Iterator[Batch] = itertools.cycle(self.ready)
        else:
            batches = self.inner.epoch(order, captions, captions_per_clip, start)
        for number, batch in enumerate(itertools.islice(batches, self.steps)):
            if number == self.warm:
                synchronize(self.device)
                self.when_warm()
                self.began, self.captions = time.perf_counter(), 0
            self.captions += len(batch.caption_ids)
            yield batch


# ------------------------------------------------------------------------------------------------------- methods and their runs


def build(row: CardRow, clips: Clips, seed: int = 0, **settings: Any) -> Any:
    """The method of a row for the streams of `clips`; `settings` it does not know are left out."""
    torch.manual_seed(seed)
    own = {name: value for name, value in settings.items() if name in row.settings}
    return importlib.import_module(f"methods.{row.method}").build(
        {**row.settings, **own}, clips.streams, clips.vocabulary
    )


class Run(support.FakeRun):
    """A run on a device that keeps no state; the last epoch is always the best. `ended` is when an epoch's work was done."""

    def __init__(self, row: CardRow, device: torch.device, budget: int, train: Mapping[str, Any] | None = None) -> None:
        scores = itertools.count()
        super().__init__(budget, row.phases, train, score=lambda method: float(next(scores)))
        self.device = device
        self.ended = 0.0

    def report(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        synchronize(self.device)
        self.ended = time.perf_counter()
        super().report(phase, epoch, values)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Nothing is saved: what a save costs is not the step's."""


TRAIN = {"captions": 64, "captions_per_clip": 4, "learning_rate": 5e-4, "precision": "float32"}
"""The engine's own defaults."""


def phase_of(method: Any, name: str, clips: Clips, run: Run) -> Phase:
    """One phase of a method's recipe, ready to be trained alone and without validation."""
    method.module.to(run.device)
    method._fit_normalisers(clips, run)
    return replace({phase.name: phase for phase in method.phases(clips, run)}[name], validate=False)


def train_alone(method: Any, phase: Phase, clips: Timed, run: Run) -> float:
    """Seconds of a step of this phase, the first `warm` ones left out."""
    run.budget = clips.steps * run.train["captions"]
    fit_phases(method, method.module, [phase], clips, run)
    return (run.ended - clips.began) / (clips.steps - clips.warm)


# ---------------------------------------------------------------------------------------------- draws that are the same anywhere


@contextmanager
def given_draws(seed: int = 0) -> Iterator[None]:
    """Captions are not drawn from the model, nor its likeliest words, but given: the same on every device.

    Two devices round differently, and one word that falls on the other side of a draw makes another caption.
    """
    random = np.random.default_rng(seed)

    def words(*shape: int) -> Tensor:
        drawn = random.integers(UNK + 1, 40, shape)
        drawn[random.random(shape) < 0.15] = EOS
        return torch.from_numpy(drawn)

    def captions(batch: Batch, clip_of_N: Tensor, names: tuple[str, ...], max_words: int) -> sampling.Sampled:
        drawn_NW = words(len(names), max_words)
        ended_NW = (drawn_NW == EOS).long()
        drawn_NW = drawn_NW.masked_fill(ended_NW.cumsum(1) > ended_NW, PAD)
        words_NW = torch.cat([torch.full_like(drawn_NW[:, :1], BOS), drawn_NW], 1)
        return sampling.Sampled(sampling._as_batch(batch, words_NW, clip_of_N, names))

    def roll_out(captioner: Any, batch: Batch, max_words: int, drawn: bool, likeliest: bool) -> list[sampling.Sampled]:
        found = [captions(batch, batch.clip_of_B, batch.caption_ids, max_words)] if drawn else []
        if likeliest:
            rows = on_device(torch.arange(len(batch.clip_ids)), batch.clip_of_B.device)
            found.append(captions(batch, rows, batch.clip_ids, max_words))
        return found

    with (
        mock.patch.object(sampling, "_roll_out", roll_out),
        mock.patch.object(torch, "multinomial", lambda p, count: words(len(p), count).to(p.device)),
    ):
        yield


def as_cells_do() -> None:
    """Set this process up as that of a cell: the same algorithms at every run, one thread."""
    before_torch()
    torch.set_num_threads(1)
    same_every_time()
