"""Information Loss: what each word of a caption is worth to its video, from the training captions alone (eq. 6-8).

A caption is a sequence of word ids. A video is whatever the data set calls a clip. Nothing here is needed to write captions.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bench.method import UNK, Batch, Clips
from bench.nn.host import on_device

Captions = Sequence[Sequence[int]]
"""All captions of one video."""

Table = dict[str, dict[int, float]]
"""A number for each word of each clip."""


def relevance(captions: Captions) -> dict[int, float]:
    """R(y|V) = N_yV / N_V: the share of a video's captions that contain y, however often (eq. 6)."""
    holding = Counter(word for caption in captions for word in set(caption))
    return {word: count / len(captions) for word, count in holding.items()}


def information(videos: Mapping[str, Captions]) -> dict[int, float]:
    """I(y) = log(1 / p(y)) in nats, p(y) the share of captioned videos in which y appears (eq. 7)."""
    told = [captions for captions in videos.values() if captions]
    holding = Counter(word for captions in told for word in {word for caption in captions for word in caption})
    return {word: math.log(len(told) / count) for word, count in holding.items()}


def importance(videos: Mapping[str, Captions], exponent: float) -> Table:
    """f(y, V) = R(y|V)^gamma I(y) for every word of every video. R is never 0 here, so gamma = 0 is I alone."""
    content = information(videos)
    return {
        video: {word: share**exponent * content[word] for word, share in relevance(captions).items()}
        for video, captions in videos.items()
    }


def word_weights(clips: Clips, weight: float, exponent: float) -> Table:
    """1 + lambda f(y, V), the factor of eq. 8, by clip id and word id.

    Captions are counted whole, also beyond the longest that is learned from. EOS ends all captions, so its I is 0 and its
    factor 1: it needs no entry. UNK is many words at once and says nothing about any of them: it has no entry either.
    """
    videos = {
        clip: [
            [word for word in clips.vocabulary.encode(reference.tokens) if word != UNK]
            for reference in clips.references(clip)
        ]
        for clip in clips.ids
    }
    return {
        clip: {word: 1 + weight * value for word, value in values.items()}
        for clip, values in importance(videos, exponent).items()
    }


class WordWeights:
    """A `Table` in two sorted tensors, on whatever device is asked: finding a number there needs no word with the host."""

    def __init__(self, table: Table, vocabulary: int) -> None:
        self.row = {clip: row for row, clip in enumerate(table)}
        self.vocabulary = vocabulary
        entries = sorted(
            (self.row[clip] * vocabulary + word, value)
            for clip, words in table.items()
            for word, value in words.items()
        )
        self.keys = torch.tensor([key for key, _ in entries], dtype=torch.long)
        self.values = torch.tensor([value for _, value in entries], dtype=torch.float64)

    def of_targets(self, batch: Batch, targets_BW: Tensor) -> Tensor:
        """The factor of every target word, [B, W] float64; 1 for words without an entry (EOS, UNK, PAD)."""
        device = targets_BW.device
        if not len(self.keys):
            return torch.ones(targets_BW.shape, dtype=torch.float64, device=device)
        if self.keys.device != device:
            self.keys, self.values = self.keys.to(device), self.values.to(device)
        row_C = on_device(torch.tensor([self.row[clip] for clip in batch.clip_ids]), device)
        keys_BW = row_C[batch.clip_of_B].unsqueeze(1) * self.vocabulary + targets_BW
        place_BW = torch.searchsorted(self.keys, keys_BW).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[place_BW] == keys_BW, self.values[place_BW], 1.0)


def information_loss(losses_BW: Tensor, weights_BW: Tensor) -> Tensor:
    """L_I = -sum_t (1 + lambda f(y_t, V)) log p(y_t | V, y_{t-1}), eq. 8: mean over captions, not divided by the weights."""
    return (losses_BW * weights_BW.to(losses_BW.dtype)).sum(1).mean()
