"""What a captioner offers to the shared decoders, and teacher forcing over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.method import BOS, PAD, Batch
from bench.nn.deferred import deferred_weight_gradients, first_rows, lookup
from bench.nn.host import all_rows, ids, on_device, on_host

Memory = dict[str, Tensor]
"""All that one clip lends to its words, computed once: every tensor has the clips (or their copies) as first axis."""

State = tuple[Tensor, ...]
"""What one hypothesis carries from word to word: every tensor has the hypotheses as first axis."""


class Captioner(Protocol):
    """A word-by-word decoder. All shared code (teacher forcing, beam search, sampling) uses only these four names.

    `state[0]` is the hidden state [B, H]. One whose words do not wait for one another may offer `read` besides:
    `ParallelCaptioner`.
    """

    def encode(self, batch: Batch) -> Memory:
        """Per-clip tensors, first axis C."""

    def start(self, memory: Memory) -> State:
        """State before the first word, first axis that of `memory`."""

    def step(self, words_B: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor | None]:
        """Read one word: features of the next word [B, R], new state, attention weights [B, T] or None."""

    def logits(self, features_NR: Tensor) -> Tensor:
        """Scores of the next word, [N, V]."""


@runtime_checkable
class ParallelCaptioner(Captioner, Protocol):
    """A decoder that reads true words all at once: teacher forcing asks it to."""

    def read(self, words_BW: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Tensor | None]:
        """What `step` gives word by word: features [B, W, R], hidden states [B, W, H], attention weights [B, W, T] or None.

        Place w knows the words up to w. `memory` has a row for each caption. What stands on padding does not matter.
        """


class Remembered:
    """A captioner, or what has all of one but `encode`, with the memory of clips that were encoded beforehand."""

    def __init__(self, decoder: Any, memory: Memory) -> None:
        self.memory = memory
        self.start, self.step, self.logits = decoder.start, decoder.step, decoder.logits

    def encode(self, batch: Batch) -> Memory:
        return self.memory


def expand(memory: Memory, rows: Tensor) -> Memory:
    """One copy of the clip's memory for each hypothesis or caption; `rows` gives the clip of each."""
    return {name: value.index_select(0, rows) for name, value in memory.items()}


def head(memory: Memory, count: int) -> Memory:
    """The first `count` rows, without a copy."""
    return {name: first_rows(value, count) for name, value in memory.items()}


@dataclass
class Forced:
    """Teacher forcing over a batch, captions in batch order, W = the longest caption with EOS.

    `features_BWR` are the inputs of the output layer, `hidden_BWH` the decoder's hidden states, `attention_BWT` the frame
    weights (None without attention); all are zero on padding. `mask_BW` is True on predicted words, EOS included; `real_N` are
    their places in the flattened mask.
    """

    features_BWR: Tensor
    hidden_BWH: Tensor
    attention_BWT: Tensor | None
    mask_BW: Tensor
    targets_BW: Tensor
    memory: Memory
    real_N: Tensor


def teacher_forcing(captioner: Captioner, batch: Batch, sampling: float = 0.0) -> Forced:
    """Run `captioner` over the captions of a batch, each caption only as long as it is, or all to the end (`all_rows`).

    The batch has its longest caption first, so the captions still running at a word are always the first rows.
    `sampling` is the probability of feeding the model's own sample instead of the true word (scheduled sampling,
    Bengio et al. 2015). Without it a `ParallelCaptioner` reads all words at once.
    """
    clips = captioner.encode(batch)
    memory = expand(clips, batch.clip_of_B)
    inputs_BW, targets_BW = batch.words_BW[:, :-1], batch.words_BW[:, 1:]
    mask_BW = targets_BW != PAD
    if sampling == 0 and isinstance(captioner, ParallelCaptioner):
        parts, whole = captioner.read(inputs_BW, memory), True
    else:
        parts, whole = _word_by_word(captioner, memory, inputs_BW, mask_BW, sampling), all_rows(mask_BW.device)
    padding_BW1 = ~mask_BW.unsqueeze(-1) if whole else None

    def laid(part: Tensor) -> Tensor:
        return part if padding_BW1 is None else part.masked_fill(padding_BW1, 0.0)

    features_BWR, hidden_BWH, weights_BWT = parts
    if weights_BWT is not None:
        weights_BWT = laid(weights_BWT).to(torch.promote_types(weights_BWT.dtype, torch.float32))
    return Forced(laid(features_BWR), laid(hidden_BWH), weights_BWT, mask_BW, targets_BW, clips, real_words(batch))


def _word_by_word(
    captioner: Captioner, memory: Memory, inputs_BW: Tensor, mask_BW: Tensor, sampling: float
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Features, hidden states and attention weights of all words: zero on padding, where rows that have ended are not
    computed (`all_rows`)."""
    state = captioner.start(memory)
    total = inputs_BW.shape[0]
    running = [total] * mask_BW.shape[1] if all_rows(mask_BW.device) else mask_BW.sum(0).tolist()
    features: list[Tensor] = []
    hidden: list[Tensor] = []
    attention: list[Tensor] = []
    with deferred_weight_gradients():
        for word, count in enumerate(running):
            words_B = inputs_BW[:count, word]
            if sampling > 0 and word > 0:
                words_B = _mixed(captioner, words_B, features[-1][:count], sampling)
            state = tuple(part if count == part.shape[0] else part[:count] for part in state)
            features_BR, state, weights_BT = captioner.step(words_B, state, head(memory, count))
            features.append(_pad_rows(features_BR, total))
            hidden.append(_pad_rows(state[0], total))
            if weights_BT is not None:
                attention.append(_pad_rows(weights_BT, total))
    return torch.stack(features, 1), torch.stack(hidden, 1), torch.stack(attention, 1) if attention else None


def real_words(batch: Batch) -> Tensor:
    """Places of the predicted words, EOS included, in a flattened [B, W] of them."""
    told_BW = on_host(batch.words_BW)[:, 1:] != PAD
    return on_device(told_BW.flatten().nonzero().squeeze(1), batch.words_BW.device)


@torch.no_grad()
def _mixed(captioner: Captioner, words_B: Tensor, features_BR: Tensor, sampling: float) -> Tensor:
    logits_BV = captioner.logits(features_BR)
    for mark in (PAD, BOS):  # no words: BOS would start a caption anew
        logits_BV[:, mark] = float("-inf")
    own_B = pick(torch.softmax(logits_BV - logits_BV.logsumexp(-1, keepdim=True), -1))
    take_B = torch.rand(words_B.shape, device=words_B.device) < sampling
    return torch.where(take_B, own_B, words_B)


def pick(chance_NV: Tensor) -> Tensor:
    """A place of each row, [N], drawn by its chance.

    The same draw as `torch.multinomial`, which on a GPU has the host wait twice to see that no chance is negative.
    """
    return (chance_NV / torch.empty_like(chance_NV).exponential_()).argmax(-1)


def _pad_rows(value: Tensor, rows: int) -> Tensor:
    return (
        value
        if value.shape[0] == rows
        else functional.pad(value, (0, 0) * (value.dim() - 1) + (0, rows - value.shape[0]))
    )


def word_losses(captioner: Captioner, forced: Forced, never: Sequence[int] = ()) -> Tensor:
    """-log p of every target word, [B, W], zero on padding. The output layer sees real words only.

    Words of `never` have no part in p: a sampler that may not write them draws from the distribution of the others.
    """
    logits_NV = captioner.logits(forced.features_BWR.flatten(0, 1)[forced.real_N])
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))  # -log p is no matter for bfloat16
    if never:
        logits_NV = logits_NV.index_fill(1, ids(tuple(never), logits_NV.device), float("-inf"))
    losses_N = functional.cross_entropy(logits_NV, forced.targets_BW.flatten()[forced.real_N], reduction="none")
    return losses_N.new_zeros(forced.mask_BW.numel()).index_copy(0, forced.real_N, losses_N).view_as(forced.mask_BW)


def cross_entropy(losses_BW: Tensor) -> Tensor:
    """Sum over words, mean over captions: the scale in which RecNet eq. 14 and EtENet eq. 18 weigh their second term."""
    return losses_BW.sum(1).mean()


class WordEmbedding(nn.Embedding):
    """Word vectors, uniform in -0.1..0.1 at the start; PAD stays zero.

    PyTorch's unit normal makes the words louder than the frames: SA-LSTM then fits the language first and looks later (test
    CIDEr 22.6 against 25.7 after the same ten epochs on `msrvtt1000`, one seed each).
    """

    def __init__(self, words: int, width: int) -> None:
        super().__init__(words, width, padding_idx=PAD)
        with torch.no_grad():
            self.weight.uniform_(-0.1, 0.1)
            self.weight[PAD].zero_()

    def forward(self, words: Tensor) -> Tensor:
        """Vectors [..., E] of words [...]."""
        return lookup(words, self.weight, PAD) if words.dim() == 1 else super().forward(words)
