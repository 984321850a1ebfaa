"""Beam search over a batch of clips."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.method import BOS, EOS, PAD, UNK, Batch, Caption, Search, Vocabulary
from bench.nn.decoding import Captioner, Memory, expand
from bench.nn.deferred import deferred_weight_gradients
from bench.nn.host import all_rows, ids, told

NEVER = (PAD, BOS, UNK)
"""Ids that no caption contains: a beam may not write them."""

LOOK = 12  # words between two looks whether all captions have ended, where the host has to wait for the answer


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


@torch.inference_mode()
def beam_search(
    captioner: Captioner,
    batch: Batch,
    vocabulary: Vocabulary,
    search: Search,
    beside: Mapping[str, Tensor] | None = None,
) -> list[Caption]:
    """The best caption of every clip, and the other beams, best first.

    `traces` hold `attention` [W, T] where there is any, and the clip's row of each tensor [C, ..] of `beside`, which go to the
    host together with the captions.

    A hypothesis is scored by the sum of log p over its words and EOS. The (max_words + 1)-th word can only be EOS, so every
    hypothesis ends. A finished hypothesis keeps its place and its score, is never extended and costs nothing. With a beam as
    wide as the set of captions this is exhaustive search.
    """
    memory_C = captioner.encode(batch)
    device = next(iter(memory_C.values())).device
    with deferred_weight_gradients():
        beams = (_all_beams if all_rows(device) else _searching_beams)(captioner, memory_C, search)
    attention = {} if beams.attention is None else {"attention": beams.attention[:, 0]}
    lists = {
        name: part.tolist()
        for name, part in told({"words": beams.words, "scores": beams.score, **attention, **(beside or {})}).items()
    }
    words, scores = lists.pop("words"), lists.pop("scores")
    return [
        _caption(clip, words[place], scores[place], {name: rows[place] for name, rows in lists.items()}, vocabulary)
        for place, clip in enumerate(batch.clip_ids)
    ]


def _searching_beams(captioner: Captioner, memory_C: Memory, search: Search) -> _Beams:
    """Only hypotheses that still search are computed."""
    device, clip_L = next(iter(memory_C.values())).device, torch.arange(_clips(memory_C))
    beams = _first_beams(len(clip_L), search.beam, device)
    memory = memory_C  # of the beams that search, whose clips are `clip_L`: at first one of each clip
    state = captioner.start(memory)
    row_CK = clip_L.unsqueeze(1).expand(-1, search.beam)  # where the state of each beam is
    for word in range(search.max_words + 1):
        live_L = (~beams.finished).view(-1).nonzero().squeeze(1)
        if not len(live_L):
            break
        before_L, clip_L = clip_L, live_L // search.beam
        if not torch.equal(before_L, clip_L):
            memory = expand(memory_C, clip_L)
        source_L = row_CK.reshape(-1)[live_L]
        state = tuple(part.index_select(0, source_L) for part in state)
        words_L = beams.words[:, :, -1].reshape(-1)[live_L]
        features, state, weights_LT = captioner.step(words_L, state, memory)
        log_LH, word_LH = _heirs(captioner.logits(features), search, last=word == search.max_words)
        # A finished beam has one continuation, itself, at no cost.
        log_BH = log_LH.new_full((beams.score.numel(), log_LH.shape[1]), float("-inf"))
        log_BH[:, 0] = 0.0
        log_BH.index_copy_(0, live_L, log_LH)
        word_BH = word_LH.new_full(log_BH.shape, PAD).index_copy_(0, live_L, word_LH)
        weights_BT = None
        if weights_LT is not None:
            weights_BT = weights_LT.new_zeros(len(log_BH), weights_LT.shape[1]).index_copy_(0, live_L, weights_LT)
        beams, parent_CK = _extend(beams, log_BH, word_BH, weights_BT, search.length_rule)
        row_CK = torch.zeros_like(parent_CK)
        row_CK.view(-1)[live_L] = torch.arange(len(live_L))
        row_CK = row_CK.gather(1, parent_CK)
    return beams


def _all_beams(captioner: Captioner, memory_C: Memory, search: Search) -> _Beams:
    """All hypotheses are computed, finished ones too, and the host looks now and then whether any still searches."""
    device, clips = next(iter(memory_C.values())).device, _clips(memory_C)
    beams = _first_beams(clips, search.beam, device)
    place_C1 = torch.arange(0, clips * search.beam, search.beam, device=device).unsqueeze(1)
    memory = expand(memory_C, (place_C1 // search.beam).expand(-1, search.beam).flatten())
    state = captioner.start(memory)
    words_B, itself_1H = beams.words.flatten(), None
    for word in range(search.max_words + 1):
        if word and word % LOOK == 0 and bool(beams.finished.all()):
            break
        features, state, weights_BT = captioner.step(words_B, state, memory)
        log_BH, word_BH = _heirs(captioner.logits(features), search, last=word == search.max_words)
        finished_B1 = beams.finished.view(-1, 1)
        itself_1H = _itself(log_BH) if itself_1H is None else itself_1H
        log_BH, word_BH = torch.where(finished_B1, itself_1H, log_BH), word_BH.masked_fill(finished_B1, PAD)
        beams, parent_CK = _extend(beams, log_BH, word_BH, weights_BT, search.length_rule)
        source_B = (place_C1 + parent_CK).view(-1)
        state = tuple(part.index_select(0, source_B) for part in state)
        words_B = beams.words[:, :, -1].flatten()
    return beams


def _clips(memory_C: Memory) -> int:
    return len(next(iter(memory_C.values())))


def _itself(log_BH: Tensor) -> Tensor:
    """The continuations of a finished beam, [1, heirs]: itself, at no cost, and no other."""
    first_1H = torch.full_like(log_BH[:1], float("-inf"))
    first_1H[:, 0] = 0.0
    return first_1H


def _heirs(logits_LV: Tensor, search: Search, last: bool) -> tuple[Tensor, Tensor]:
    """log p and word of the best continuations of each hypothesis: no hypothesis can have more heirs than there are beams."""
    log_LV = torch.log_softmax(logits_LV.float(), dim=-1)
    if last:
        ending_L = log_LV[:, EOS].clone()
        log_LV.fill_(float("-inf"))
        log_LV[:, EOS] = ending_L
    else:
        log_LV.index_fill_(1, ids(NEVER, log_LV.device), float("-inf"))
    return log_LV.topk(min(search.beam, log_LV.shape[1]), dim=1)


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
    beams: _Beams, log_BH: Tensor, word_BH: Tensor, weights_BT: Tensor | None, rule: str
) -> tuple[_Beams, Tensor]:
    """The next beams, and the beam that each comes from, [C, K], out of the continuations of all, [C K, heirs]."""
    clips, wide = beams.score.shape
    heirs = log_BH.shape[1]
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
    if weights_BT is not None:
        now = weights_BT.view(clips, wide, 1, -1)
        attention = follow(now if beams.attention is None else torch.cat([beams.attention, now], dim=2))
    words = torch.cat([follow(beams.words), word_CK.unsqueeze(-1)], dim=2)
    score = total_CKH.view(clips, -1).gather(1, top_CK)
    # Beams that could not branch yet (fewer continuations than beams) are dead, not searching.
    finished = follow(beams.finished) | (word_CK == EOS) | score.isneginf()
    return _Beams(words, score, follow(length_CK), finished, attention), parent_CK


def _caption(
    clip: str,
    words: list[list[int]],
    scores: list[float],
    traces: dict[str, Any],
    vocabulary: Vocabulary,
) -> Caption:
    """Beams stand in ranked order, for topk sorts."""
    texts = [vocabulary.decode([number for number in row if number != PAD]) for row in words]
    alternatives = tuple(
        (" ".join(text), score) for text, score in zip(texts[1:], scores[1:], strict=True) if score > float("-inf")
    )
    if "attention" in traces:
        traces["attention"] = traces["attention"][: len(texts[0])]
    return Caption(clip, texts[0], scores[0], alternatives, traces)
