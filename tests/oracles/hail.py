"""Dong et al., "Not All Words are Equal: Video-specific Information Loss for Video Captioning", eq. 1-8."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from oracles.arithmetic import (
    BOS,
    EOS,
    Parameters,
    Vector,
    affine,
    log_softmax,
    lstm,
    mean,
    softmax,
    tanh,
    weighted_sum,
)

UNK = 3


def attend(p: Parameters, values: Sequence[Vector], query: Vector) -> tuple[Vector, list[float]]:
    """Eq. 2 and 4: context and weights, with w, W (of the state), U (of the value) and z. No value: a zero context."""
    if not values:
        return np.zeros(p["U"].shape[1]), []
    scores = []
    for value in values:
        inner = tanh(affine(p["W"], query) + affine(p["U"], value) + p["z"])
        scores.append(sum(float(a) * float(b) for a, b in zip(p["w"], inner, strict=True)))
    weights = softmax(scores)
    return weighted_sum(weights, values), weights


def object_states(
    p: Parameters, attention: Parameters, frames: Sequence[Sequence[Vector]], kept: float = 1.0
) -> tuple[list[Vector], list[list[float]]]:
    """Eq. 1 and 2 over the regions of each frame: H^R and alpha.

    `kept` stands for dropout: a factor on the input and on the output of the LSTM (section 4.2), not on its state.
    """
    h, c = np.zeros(len(p["b_i"])), np.zeros(len(p["b_i"]))
    states, alphas = [], []
    for regions in frames:
        phi, alpha = attend(attention, regions, h)
        h, c = lstm(p, [kept * phi], h, c)
        states.append(kept * h)
        alphas.append(alpha)
    return states, alphas


def region_means(frames: Sequence[Sequence[Vector]], width: int) -> list[Vector]:
    """What TA-B2 and NA read: the mean over j of each frame."""
    return [mean(regions) if regions else np.zeros(width) for regions in frames]


def decode(
    p: Parameters,
    attentions: Mapping[str, Parameters],
    sources: Mapping[str, Sequence[Vector]],
    words: Sequence[int],
    kept: float = 1.0,
) -> tuple[list[Vector], list[dict[str, list[float]]]]:
    """Eq. 3 and 4 over BOS w_1 .. w_n: logits, and beta of each X. A source without attention is read by its mean (NA).

    `kept` is that of `object_states`.
    """
    h, c = np.zeros(len(p["b_i"])), np.zeros(len(p["b_i"]))
    logits, betas = [], []
    for previous in [BOS, *words]:
        inputs, beta = [p["E"][previous]], {}
        for name, values in sources.items():
            if name in attentions:
                context, beta[name] = attend(attentions[name], values, h)
            else:
                context = mean(values)
            inputs.append(context)
        h, c = lstm(p, [kept * part for part in inputs], h, c)
        logits.append(affine(p["U_y"], kept * h))
        betas.append(beta)
    return logits, betas


def factor(
    videos: Mapping[str, Sequence[Sequence[int]]], video: str, word: int, weight: float, exponent: float
) -> float:
    """1 + lambda R(y|V)^gamma log(1 / p(y)), eq. 6-8, counted anew for one word; 1 for UNK and for EOS, which is in all."""
    if word in (EOS, UNK):
        return 1.0
    captions = videos[video]
    containing = 0
    for caption in captions:
        if word in caption:
            containing += 1
    relevance = containing / len(captions)
    told = appears = 0
    for others in videos.values():
        if len(others) > 0:
            told += 1
            if any(word in caption for caption in others):
                appears += 1
    return 1 + weight * relevance**exponent * math.log(told / appears)


def information_loss(logits: Sequence[Sequence[float]], words: Sequence[int], factors: Sequence[float]) -> float:
    """Eq. 8 of one caption: `factors` of its words and of EOS."""
    total = 0.0
    for x, target, factor_t in zip(logits, [*words, EOS], factors, strict=True):
        total -= factor_t * log_softmax(x)[target]
    return total
