"""Captions drawn from the model itself: word by word at random, or greedily. The sampler of every policy gradient here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.method import BOS, EOS, PAD, Batch
from bench.nn.beam import NEVER
from bench.nn.decoding import Captioner, State, expand


@dataclass
class Sampled:
    """Captions of the model in the form in which a batch holds references, longest first.

    `batch` shares streams and masks with the batch that was asked; its `words_BW` holds BOS w1 .. wn EOS PAD .., and a caption
    cut at the length limit has no EOS, for none was drawn. `caption_ids` name the slots that were asked for.
    """

    batch: Batch

    def captions(self, ended: bool) -> list[tuple[int, ...]]:
        """Word ids of each caption without BOS and PAD; EOS stays where `ended` and it was drawn."""
        rows = self.batch.words_BW[:, 1:].tolist()
        leave_out = (PAD,) if ended else (PAD, EOS)
        return [tuple(word for word in row if word not in leave_out) for row in rows]

    def clips(self) -> list[str]:
        """The clip of each caption."""
        return [self.batch.clip_ids[row] for row in self.batch.clip_of_B.tolist()]


def sample(captioner: Captioner, batch: Batch, max_words: int) -> Sampled:
    """One caption drawn word by word from p(. | words so far, clip) for every caption slot of `batch`.

    PAD, BOS and UNK are never written, as in beam search: the distribution is that of the other words. The generator is
    torch's global one, which a resumed training restores.
    """
    return _roll_out(captioner, batch, batch.clip_of_B, batch.caption_ids, max_words, greedy=False)


def greedy(captioner: Captioner, batch: Batch, max_words: int) -> Sampled:
    """The caption of the likeliest word at every step, one for each clip of `batch`."""
    rows = torch.arange(len(batch.clip_ids), device=batch.clip_of_B.device)
    return _roll_out(captioner, batch, rows, batch.clip_ids, max_words, greedy=True)


@torch.no_grad()
def _roll_out(
    captioner: Captioner, batch: Batch, clip_of_N: Tensor, names: tuple[str, ...], max_words: int, greedy: bool
) -> Sampled:
    memory = expand(captioner.encode(batch), clip_of_N)
    state = captioner.start(memory)
    words_NW = torch.full((len(clip_of_N), max_words + 1), PAD, device=clip_of_N.device)
    words_NW[:, 0] = BOS
    running_R = torch.arange(len(clip_of_N), device=clip_of_N.device)  # rows whose caption has not ended
    for word in range(max_words):
        features_RF, state, _ = captioner.step(words_NW[running_R, word], state, memory)
        next_R = _choose(captioner.logits(features_RF), greedy)
        words_NW[running_R, word + 1] = next_R
        keep = (next_R != EOS).nonzero().flatten()
        if len(keep) < len(running_R):
            running_R, memory, state = running_R[keep], expand(memory, keep), _rows(state, keep)
        if not len(keep):
            break
    return Sampled(_as_batch(batch, words_NW, clip_of_N, names))


def _choose(logits_RV: Tensor, greedy: bool) -> Tensor:
    logits_RV = logits_RV.float()
    logits_RV[:, list(NEVER)] = float("-inf")
    if greedy:
        return logits_RV.argmax(-1)
    return torch.multinomial(torch.softmax(logits_RV, -1), 1).squeeze(1)


def _rows(state: State, keep: Tensor) -> State:
    return tuple(part.index_select(0, keep) for part in state)


def _as_batch(batch: Batch, words_NW: Tensor, clip_of_N: Tensor, names: tuple[str, ...]) -> Batch:
    """Longest caption first, as teacher forcing needs it; equal lengths keep their order."""
    lengths_N = (words_NW != PAD).sum(1) - 1
    order = lengths_N.argsort(descending=True, stable=True)
    return Batch(
        batch.clip_ids,
        batch.streams,
        batch.masks,
        tuple(names[row] for row in order.tolist()),
        clip_of_N[order],
        words_NW[order, : int(lengths_N.max()) + 1],
        lengths_N[order],
    )
