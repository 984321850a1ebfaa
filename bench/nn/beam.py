"""Beam search over a batch of clips; only hypotheses that still search are computed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.method import BOS, EOS, PAD, UNK, Batch, Caption, Search, Vocabulary
from bench.nn.decoding import Captioner, expand

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
    """The beams of all clips: words [C, K, W], log-probabilities, lengths and `finished` [C, K]; a dead beam is finished too."""

    words: Tensor
    score: Tensor
    length: Tensor
    finished: Tensor
    attention: Tensor | None = None

    def on_cpu(self) -> _Beams:
        """The same beams on the CPU: four copies instead of one for each clip."""
        return _Beams(*(None if part is None else part.cpu() for part in vars(self).values()))  # type: ignore[arg-type]


@torch.inference_mode()
def beam_search(captioner: Captioner, batch: Batch, vocabulary: Vocabulary, search: Search) -> list[Caption]:
    """The best caption of every clip, and the other beams, best first.

    A hypothesis is scored by the sum of log p over its words and EOS. The (max_words + 1)-th word can only be EOS, so every
    hypothesis ends. A finished hypothesis keeps its place and its score, is never extended and costs nothing. With a beam as
    wide as the set of captions this is exhaustive search.
    """
    memory_C = captioner.encode(batch)
    device, clip_L = next(iter(memory_C.values())).device, torch.arange(len(batch.clip_ids))
    beams = _first_beams(len(clip_L), search.beam, device)
    memory = memory_C  # of the beams that search, whose clips are `clip_L` on the CPU: at first one of each clip
    state = captioner.start(memory)
    row_CK = clip_L.to(device).unsqueeze(1).expand(-1, search.beam)  # where the state of each beam is
    for word in range(search.max_words + 1):
        # The one time in a word that the host waits for a GPU: it decides here which beams are computed, and whether any.
        live_L = (~beams.finished).view(-1).cpu().nonzero().squeeze(1)
        if not len(live_L):
            break
        before_L, clip_L, live_L = clip_L, live_L // search.beam, live_L.to(device)
        if not torch.equal(before_L, clip_L):
            memory = expand(memory_C, clip_L.to(device))
        source_L = row_CK.reshape(-1)[live_L]
        state = tuple(part.index_select(0, source_L) for part in state)
        words_L = beams.words[:, :, -1].reshape(-1)[live_L]
        features, state, weights = captioner.step(words_L, state, memory)
        log_LV = torch.log_softmax(captioner.logits(features).float(), dim=-1)
        beams, parent_CK = _extend(
            beams, live_L, log_LV, weights, last=word == search.max_words, rule=search.length_rule
        )
        row_CK = torch.zeros_like(parent_CK)
        row_CK.view(-1)[live_L] = torch.arange(len(live_L), device=live_L.device)
        row_CK = row_CK.gather(1, parent_CK)
    beams = beams.on_cpu()
    return [_caption(clip, beams, place, vocabulary) for place, clip in enumerate(batch.clip_ids)]


def _first_beams(clips: int, wide: int, device: torch.device) -> _Beams:
    score = torch.full((clips, wide), float("-inf"), device=device)
    score[:, 0] = 0.0  # all beams are equal at the start: only the first may branch
    return _Beams(
        torch.full((clips, wide, 1), BOS, device=device),
        score,
        torch.zeros(clips, wide, device=device),
        score.isneginf(),
    )


def _extend(
    beams: _Beams, live_L: Tensor, log_LV: Tensor, weights_LT: Tensor | None, last: bool, rule: str
) -> tuple[_Beams, Tensor]:
    """The next beams, and the beam that each comes from. `live_L` are the places of the searching ones in [C, K]."""
    clips, wide = beams.score.shape
    for mark in NEVER:
        log_LV[:, mark] = float("-inf")
    if last:
        ending_L = log_LV[:, EOS].clone()
        log_LV.fill_(float("-inf"))
        log_LV[:, EOS] = ending_L
    # No hypothesis can have more heirs than there are beams.
    log_LH, word_LH = log_LV.topk(min(wide, log_LV.shape[1]), dim=1)
    heirs = log_LH.shape[1]
    # A finished beam has one continuation, itself, at no cost.
    log_BH = log_LH.new_full((clips * wide, heirs), float("-inf"))
    log_BH[:, 0] = 0.0
    log_BH.index_copy_(0, live_L, log_LH)
    word_BH = word_LH.new_full((clips * wide, heirs), PAD).index_copy_(0, live_L, word_LH)
    total_CKH = beams.score.unsqueeze(-1) + log_BH.view(clips, wide, heirs)
    length_CK = beams.length + (~beams.finished)
    ranked = total_CKH / length_divisor(length_CK, rule).unsqueeze(-1)
    top_CK = ranked.view(clips, -1).topk(wide, dim=1).indices
    parent_CK = top_CK // heirs
    word_CK = word_BH.view(clips, -1).gather(1, top_CK)
    flat = (torch.arange(clips, device=top_CK.device).unsqueeze(1) * wide + parent_CK).view(-1)

    def follow(value: Tensor) -> Tensor:
        return value.reshape(clips * wide, *value.shape[2:]).index_select(0, flat).view(clips, wide, *value.shape[2:])

    attention = None
    if weights_LT is not None:
        now = weights_LT.new_zeros(clips * wide, weights_LT.shape[1]).index_copy_(0, live_L, weights_LT)
        now = now.view(clips, wide, 1, -1)
        attention = follow(now if beams.attention is None else torch.cat([beams.attention, now], dim=2))
    words = torch.cat([follow(beams.words), word_CK.unsqueeze(-1)], dim=2)
    score = total_CKH.view(clips, -1).gather(1, top_CK)
    # Beams that could not branch yet (fewer continuations than beams) are dead, not searching.
    finished = follow(beams.finished) | (word_CK == EOS) | score.isneginf()
    return _Beams(words, score, follow(length_CK), finished, attention), parent_CK


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
