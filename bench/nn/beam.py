"""Beam search over a batch of clips, finished beams frozen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.method import BOS, EOS, PAD, UNK, Batch, Caption, Search, Vocabulary
from bench.nn.decoding import Captioner, Memory, State, expand

NEVER = (PAD, BOS, UNK)
"""Ids that no caption contains: a beam may not write them."""


def length_divisor(length: Tensor, rule: str) -> Tensor:
    """What a hypothesis of `length` words (EOS counted) divides its log-probability by, for ranking.

    `none`: 1. `mean`: the length. `gnmt`: ((5 + length) / 6) ** 0.6, Wu et al. 2016 with alpha 0.6.
    """
    if rule == "none":
        return torch.ones_like(length)
    if rule == "mean":
        return length
    if rule == "gnmt":
        return ((5 + length) / 6) ** 0.6
    raise ValueError(f"length_rule {rule!r} is not one of none, mean, gnmt")


@dataclass
class _Beams:
    """The beams of the clips still searching: words [C, K, W], log-probabilities, lengths and `finished` [C, K]."""

    words: Tensor
    score: Tensor
    length: Tensor
    finished: Tensor
    attention: Tensor | None = None


@torch.inference_mode()
def beam_search(captioner: Captioner, batch: Batch, vocabulary: Vocabulary, search: Search) -> list[Caption]:
    """The best caption of every clip, and the other beams, best first.

    A hypothesis is scored by the sum of log p over its words and EOS. The (max_words + 1)-th word can only be EOS, so every
    hypothesis ends. A finished hypothesis keeps its place and its score and is never extended; a clip is done when all
    its beams are. With a beam as wide as the set of captions this is exhaustive search.
    """
    memory_C = captioner.encode(batch)
    clips, wide = len(batch.clip_ids), search.beam
    device = next(iter(memory_C.values())).device
    rows = torch.arange(clips, device=device)
    memory = expand(memory_C, rows.repeat_interleave(wide))
    state = captioner.start(memory)
    beams = _first_beams(clips, wide, device)
    captions: list[Caption | None] = [None] * clips
    for word in range(search.max_words + 1):
        beams, state = _extend(captioner, memory, state, beams, last=word == search.max_words, rule=search.length_rule)
        done_C = beams.finished.all(1)
        if not done_C.any():
            continue
        for place in done_C.nonzero().flatten().tolist():
            clip = int(rows[place])
            captions[clip] = _caption(batch.clip_ids[clip], beams, place, vocabulary)
        keep = (~done_C).nonzero().flatten()
        if not len(keep):
            break
        rows, memory, state, beams = _keep_clips(keep, rows, memory, state, beams, wide)
    return [caption for caption in captions if caption is not None]


def _first_beams(clips: int, wide: int, device: torch.device) -> _Beams:
    score = torch.full((clips, wide), float("-inf"), device=device)
    score[:, 0] = 0.0  # all beams are equal at the start: only the first may branch
    return _Beams(
        torch.full((clips, wide, 1), BOS, device=device),
        score,
        torch.zeros(clips, wide, device=device),
        torch.zeros(clips, wide, dtype=torch.bool, device=device),
    )


def _extend(
    captioner: Captioner, memory: Memory, state: State, beams: _Beams, last: bool, rule: str
) -> tuple[_Beams, State]:
    clips, wide = beams.score.shape
    features, state, weights = captioner.step(beams.words[:, :, -1].reshape(-1), state, memory)
    log_CKV = torch.log_softmax(captioner.logits(features).float(), dim=-1).view(clips, wide, -1)
    size = log_CKV.shape[-1]
    log_CKV[:, :, list(NEVER)] = float("-inf")
    if last:
        ending = log_CKV[:, :, EOS].clone()
        log_CKV.fill_(float("-inf"))
        log_CKV[:, :, EOS] = ending
    # A finished beam has one continuation, itself, at no cost.
    log_CKV.masked_fill_(beams.finished.unsqueeze(-1), float("-inf"))
    log_CKV[:, :, PAD].masked_fill_(beams.finished, 0.0)
    total_CKV = beams.score.unsqueeze(-1) + log_CKV
    length_CK = beams.length + (~beams.finished)
    ranked = total_CKV / length_divisor(length_CK, rule).unsqueeze(-1)
    top = ranked.view(clips, -1).topk(min(wide, wide * size), dim=1).indices
    parent_CK, word_CK = top // size, top % size
    flat = (torch.arange(clips, device=top.device).unsqueeze(1) * wide + parent_CK).view(-1)
    state = tuple(part.index_select(0, flat) for part in state)

    def follow(value: Tensor) -> Tensor:
        return value.reshape(clips * wide, *value.shape[2:]).index_select(0, flat).view(clips, wide, *value.shape[2:])

    attention = None
    if weights is not None:
        now = weights.view(clips, wide, 1, -1)
        attention = follow(now if beams.attention is None else torch.cat([beams.attention, now], dim=2))
    words = torch.cat([follow(beams.words), word_CK.unsqueeze(-1)], dim=2)
    finished = follow(beams.finished) | (word_CK == EOS)
    score = total_CKV.view(clips, -1).gather(1, top)
    # Beams that could not branch yet (fewer continuations than beams) are dead, not searching.
    return _Beams(words, score, follow(length_CK), finished | score.isneginf(), attention), state


def _keep_clips(
    keep: Tensor, rows: Tensor, memory: Memory, state: State, beams: _Beams, wide: int
) -> tuple[Tensor, Memory, State, _Beams]:
    flat = (keep.unsqueeze(1) * wide + torch.arange(wide, device=keep.device)).view(-1)
    attention = None if beams.attention is None else beams.attention[keep]
    left = _Beams(beams.words[keep], beams.score[keep], beams.length[keep], beams.finished[keep], attention)
    return rows[keep], expand(memory, flat), tuple(part.index_select(0, flat) for part in state), left


def _caption(clip: str, beams: _Beams, place: int, vocabulary: Vocabulary) -> Caption:
    """Beams stand in ranked order, for topk sorts."""
    scores = beams.score[place].tolist()
    texts = [
        vocabulary.decode([number for number in row if number != PAD]) for row in beams.words[place, :, 1:].tolist()
    ]
    alternatives = tuple(
        (" ".join(text), score) for text, score in zip(texts[1:], scores[1:], strict=True) if score > float("-inf")
    )
    traces = {}
    if beams.attention is not None:
        traces["attention"] = beams.attention[place, 0, : len(texts[0])].tolist()
    return Caption(clip, texts[0], scores[0], alternatives, traces)
