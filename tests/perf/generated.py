"""Batches of the shapes of real data sets, filled with random numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from bench.data.batches import CorpusClips, StreamSource
from bench.method import BOS, EOS, PAD, SPECIAL, Batch, Reference, StreamInfo, Vocabulary

WORDS = 12_000
MSVD = {"frames": (28, 1536)}
GLRG = {"words": (300,), "actions": (400,), "objects": (1000,)}
HAIL = {"regions": (40, 16, 2048), "frames": (40, 2048), "motion": (40, 4096)}
VRE = {"frames": (20, 2048), "spatial": (49, 2048)}  # MSVD has no sound
LONGEST = 30
KINDS = 10


def vocabulary(words: int = WORDS) -> Vocabulary:
    """`words` words and the four marks."""
    return Vocabulary((*SPECIAL, *(f"w{number}" for number in range(words))))


def streams(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, StreamInfo]:
    """What a method is told of streams of these shapes; those with more than one axis have time."""
    return {name: StreamInfo(name, shape, len(shape) > 1, "random") for name, shape in shapes.items()}


def batch(
    shapes: Mapping[str, tuple[int, ...]], captions: int = 64, per_clip: int = 4, words: int = WORDS, seed: int = 0
) -> Batch:
    """`captions` captions of a mean of seven words and at most 30, `per_clip` to a clip."""
    random = np.random.default_rng(seed)
    clips = captions // per_clip
    lengths = np.minimum(random.poisson(6, captions) + 1, LONGEST)
    texts = [random.integers(len(SPECIAL), words, length).tolist() for length in lengths]
    values = {name: random.normal(size=(clips, *shape)) for name, shape in shapes.items()}
    return _joined(values, texts, random.permutation(np.repeat(np.arange(clips), per_clip)))


def references(ids: Sequence[str], each: int, words: int = WORDS) -> dict[str, tuple[Reference, ...]]:
    """`each` captions of seven words in the mean for every clip."""
    random = np.random.default_rng(0)

    def reference(clip: str, number: int) -> Reference:
        caption = tuple(random.integers(len(SPECIAL), words, size=random.poisson(6) + 1).tolist())
        return Reference(f"{clip}#{number}", clip, "", tuple(f"w{word - len(SPECIAL)}" for word in caption), caption)

    return {clip: tuple(reference(clip, number) for number in range(each)) for clip in ids}


def corpus(
    clips: int,
    captions: int = 10,
    words: int = WORDS,
    shapes: Mapping[str, tuple[int, ...]] = MSVD,
    spend: Callable[[int], None] | None = None,
) -> CorpusClips:
    """Training clips with random features in memory, of float16 as a cache holds them."""
    random = np.random.default_rng(0)
    ids = [f"clip{number}" for number in range(clips)]
    row = {clip: number for number, clip in enumerate(ids)}

    def source(info: StreamInfo) -> StreamSource:
        values = random.normal(size=(clips, *info.shape)).astype(np.float16)
        length = info.shape[0] if info.timed else 1
        return StreamSource(info, lambda some: (values[[row[clip] for clip in some]], np.full(len(some), length)))

    sources = {name: source(info) for name, info in streams(shapes).items()}
    return CorpusClips(
        ids, references(ids, captions, words), sources, vocabulary(words - len(SPECIAL)), seed=0, spend=spend
    )


def teachable(shapes: Mapping[str, tuple[int, ...]], clips: int, words: int = WORDS, seed: int = 0) -> Batch:
    """Clips of ten kinds, each with the caption of its kind (4 to 10 words, seven in the mean): soon learned by heart."""
    kinds = np.random.default_rng(0)
    texts = [kinds.integers(len(SPECIAL), words, 4 + number % 7).tolist() for number in range(KINDS)]
    centres = {name: kinds.normal(size=(KINDS, 1, shape[-1])) for name, shape in shapes.items()}
    random = np.random.default_rng(seed)
    kind = random.integers(KINDS, size=clips)
    values = {
        name: centres[name][kind].reshape(clips, *[1] * (len(shape) - 1), shape[-1])
        + 0.3 * random.normal(size=(clips, *shape))
        for name, shape in shapes.items()
    }
    return _joined(values, [texts[one] for one in kind], np.arange(clips))


def _joined(values: Mapping[str, np.ndarray], texts: list[list[int]], clip_of: np.ndarray) -> Batch:
    """A batch of clip streams and captions, longest caption first."""
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    words_BW = np.full((len(texts), len(texts[order[0]]) + 2), PAD)
    for row, text in enumerate(order):
        words_BW[row, : len(texts[text]) + 2] = [BOS, *texts[text], EOS]
    streams_ = {name: torch.from_numpy(value.astype(np.float32)) for name, value in values.items()}
    clips = len(next(iter(streams_.values())))
    return Batch(
        tuple(f"clip{number}" for number in range(clips)),
        streams_,
        {
            name: torch.ones(clips, value.shape[1], dtype=torch.bool)
            for name, value in streams_.items()
            if value.dim() > 2
        },
        tuple(f"caption{number}" for number in order),
        torch.from_numpy(clip_of[order]),
        torch.from_numpy(words_BW),
        torch.tensor([len(texts[text]) + 1 for text in order]),
    )
