"""Captions drawn from the model itself: word by word at random, or greedily. The sampler of every policy gradient here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.method import BOS, EOS, PAD, Batch
from bench.nn.beam import LOOK, NEVER
from bench.nn.decoding import Captioner, Memory, State, expand, pick
from bench.nn.deferred import deferred_weight_gradients
from bench.nn.host import all_rows, ids, on_device, on_host


@dataclass
class Sampled:
    """Captions of the model in the form in which a batch holds references, longest first.

    `batch` shares streams and masks with the batch that was asked; its `words_BW` holds BOS w1 .. wn EOS PAD .., and a caption
    cut at the length limit has no EOS, for none was drawn. `caption_ids` name the slots that were asked for.
    """

    batch: Batch

    def captions(self, ended: bool) -> list[tuple[int, ...]]:
        """Word ids of each caption without BOS and PAD; EOS stays where `ended` and it was drawn."""
        rows = on_host(self.batch.words_BW)[:, 1:].tolist()
        leave_out = (PAD,) if ended else (PAD, EOS)
        return [tuple(word for word in row if word not in leave_out) for row in rows]

    def clips(self) -> list[str]:
        """The clip of each caption."""
        return [self.batch.clip_ids[row] for row in on_host(self.batch.clip_of_B).tolist()]


def sample(captioner: Captioner, batch: Batch, max_words: int) -> Sampled:
    """One caption drawn word by word from p(. | words so far, clip) for every caption slot of `batch`.

    PAD, BOS and UNK are never written, as in beam search: the distribution is that of the other words. The generator is
    torch's global one, which a resumed training restores.
    """
    return _roll_out(captioner, batch, max_words, drawn=True, likeliest=False)[0]


@torch.no_grad()
def likeliest_words(captioner: Captioner, batch: Batch, max_words: int) -> Tensor:
    """The words of `greedy` where the clips lie, [C, W + 1], BOS first and PAD behind EOS."""
    return _words(captioner, batch, torch.arange(len(batch.clip_ids), device=batch.clip_of_B.device), max_words, 0)


def greedy(captioner: Captioner, batch: Batch, max_words: int) -> Sampled:
    """The caption of the likeliest word at every step, one for each clip of `batch`."""
    return _roll_out(captioner, batch, max_words, drawn=False, likeliest=True)[0]


def sample_and_greedy(captioner: Captioner, batch: Batch, max_words: int) -> tuple[Sampled, Sampled]:
    """Both, in one pass over the words."""
    drawn, likeliest = _roll_out(captioner, batch, max_words, drawn=True, likeliest=True)
    return drawn, likeliest


@torch.no_grad()
def _roll_out(captioner: Captioner, batch: Batch, max_words: int, drawn: bool, likeliest: bool) -> list[Sampled]:
    device = batch.clip_of_B.device
    groups = [(batch.clip_of_B, batch.caption_ids)] if drawn else []
    if likeliest:
        groups.append((on_device(torch.arange(len(batch.clip_ids)), device), batch.clip_ids))
    clip_of_N = torch.cat([rows for rows, _ in groups])
    words_NW = _words(captioner, batch, clip_of_N, max_words, len(batch.caption_ids) if drawn else 0).cpu()
    parts = words_NW.split([len(rows) for rows, _ in groups])
    return [
        Sampled(_as_batch(batch, part_NW, rows, names)) for (rows, names), part_NW in zip(groups, parts, strict=True)
    ]


def _words(captioner: Captioner, batch: Batch, clip_of_N: Tensor, max_words: int, drawn: int) -> Tensor:
    """BOS and words of a caption for each of `clip_of_N`, [N, W + 1]: drawn for the first `drawn`, else the likeliest."""
    with deferred_weight_gradients():
        memory = expand(captioner.encode(batch), clip_of_N)
        run = _to_the_end if all_rows(clip_of_N.device) else _while_running
        return run(captioner, memory, len(clip_of_N), max_words, drawn)


def _while_running(captioner: Captioner, memory: Memory, rows: int, max_words: int, drawn: int) -> Tensor:
    """Words of `rows` captions, [N, max_words + 1], the first of which are drawn and the others the likeliest; a caption that has
    ended is not computed any more."""
    state = captioner.start(memory)
    words_NW = torch.full((rows, max_words + 1), PAD)
    words_NW[:, 0] = BOS
    running_R = torch.arange(rows)
    for word in range(max_words):
        features_RF, state, _ = captioner.step(words_NW[running_R, word], state, memory)
        next_R = _choose(captioner.logits(features_RF), drawn)
        words_NW[running_R, word + 1] = next_R
        keep = (next_R != EOS).nonzero().flatten()
        if len(keep) < len(running_R):
            running_R, memory, state = running_R[keep], expand(memory, keep), _rows(state, keep)
            drawn = int((keep < drawn).sum())
        if not len(keep):
            break
    return words_NW


def _to_the_end(captioner: Captioner, memory: Memory, rows: int, max_words: int, drawn: int) -> Tensor:
    """The same on a GPU, [N, W + 1]: ended captions are computed on and thrown away, and the host looks for the end of the last
    one now and then. To know at each word who has ended it would have to wait each time."""
    state = captioner.start(memory)
    device = next(iter(memory.values())).device
    words_N = torch.full((rows,), BOS, device=device)
    ended_N = torch.zeros(rows, dtype=torch.bool, device=device)
    words = [words_N]
    for word in range(1, max_words + 1):
        features_NF, state, _ = captioner.step(words_N, state, memory)
        words_N = _choose(captioner.logits(features_NF), drawn).masked_fill(ended_N, PAD)
        words.append(words_N)
        ended_N = ended_N | (words_N == EOS)
        if word % LOOK == 0 and word < max_words and bool(ended_N.all()):
            break
    return torch.stack(words, 1)


def _choose(logits_RV: Tensor, count: int) -> Tensor:
    """The next word of each row: drawn for the first `count` rows, the likeliest for the others."""
    logits_RV = logits_RV.float().index_fill(1, ids(NEVER, logits_RV.device), float("-inf"))
    chosen = []
    if count:
        chosen.append(pick(torch.softmax(logits_RV[:count], -1)))
    if count < len(logits_RV):
        chosen.append(logits_RV[count:].argmax(-1))
    return chosen[0] if len(chosen) == 1 else torch.cat(chosen)


def _rows(state: State, keep: Tensor) -> State:
    return tuple(part.index_select(0, keep) for part in state)


def _as_batch(batch: Batch, words_NW: Tensor, clip_of_N: Tensor, names: tuple[str, ...]) -> Batch:
    """Longest caption first, as teacher forcing needs it; equal lengths keep their order. Words are on the CPU, then moved."""
    device, clip_of_N = batch.clip_of_B.device, on_host(clip_of_N)
    lengths_N = (words_NW != PAD).sum(1) - 1
    order = lengths_N.argsort(descending=True, stable=True)
    return Batch(
        batch.clip_ids,
        batch.streams,
        batch.masks,
        tuple(names[row] for row in order.tolist()),
        on_device(clip_of_N[order], device),
        on_device(words_NW[order, : int(lengths_N.max()) + 1], device),
        on_device(lengths_N[order], device),
    )
