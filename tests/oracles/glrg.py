"""Yan et al., "GL-RG: Global-Local Representation Granularity for Video Captioning", eq. 4-8.

Where the digest leaves the join of F with the embedding open, the method's card decides: one linear layer per range, ReLU,
one linear layer to the width of a word; and, with normalise=true, each vector of probabilities standardised by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from oracles.arithmetic import BOS, Parameters, Vector, affine, lstm


def level(scores: Vector) -> Vector:
    """A vector of probabilities, less its mean, over its deviation (variance + 1e-5 under the root)."""
    mean = sum(float(x) for x in scores) / len(scores)
    variance = sum((float(x) - mean) ** 2 for x in scores) / len(scores)
    return np.array([(float(x) - mean) / math.sqrt(variance + 1e-5) for x in scores])


def fuse(p: Parameters, scores: Mapping[str, Vector], order: Sequence[str]) -> Vector:
    """F of eq. 4, [phi_W(W) ; phi_A(A) ; phi_C(C)], then the map to the width of a word."""
    parts = [affine(p[f"phi_{name}"], scores[name], p[f"b_{name}"]) for name in order]
    joined = [max(float(value), 0.0) for part in parts for value in part]
    return affine(p["W_join"], np.array(joined), p["b_join"])


def decode(p: Parameters, fused: Vector, words: Sequence[int], feed: str = "first") -> list[Vector]:
    """Logits x_1 .. x_{n+1}: eq. 5-7 with the truth fed back (xi = 1).

    With `feed` = every, F stands beside every word from BOS on, as the authors' code has it.
    """
    width = len(p["b_i"])
    h, c = np.zeros(width), np.zeros(width)
    logits = []
    for step, previous in enumerate([BOS, *words]):
        word = p["E"][previous]
        if feed == "every":
            inputs = [word, fused]
        else:
            inputs = [fused if step == 0 else word]  # eq. 6: i = 1 is F itself
        h, c = lstm(p, inputs, h, c)  # eq. 5
        logits.append(affine(p["W_o"], h))  # eq. 7: no bias
    return logits


def discrepant(losses: Sequence[float], weights: Sequence[float]) -> float:
    """L_DXE of G captions of one video, eq. 8, from -log p of each and m(S) of each."""
    total = 0.0
    for loss, weight in zip(losses, weights, strict=True):
        total += weight * loss
    return total / len(losses)


def word_network(p: Parameters, frames: Sequence[Vector]) -> Vector:
    """The long range from frames: two convolutions over three frames, mean and maximum over time, one dense layer."""

    def convolve(values: Sequence[Vector], weight: Vector, bias: Vector) -> list[Vector]:
        after = []
        for t in range(len(values)):
            x = bias.copy()
            for tap, place in enumerate((t - 1, t, t + 1)):
                if 0 <= place < len(values):
                    x = x + affine(weight[:, :, tap], values[place])
            after.append(np.maximum(x, 0.0))
        return after

    x = convolve(convolve(frames, p["first"], p["b_first"]), p["second"], p["b_second"])
    mean = [sum(float(v[k]) for v in x) / len(x) for k in range(len(x[0]))]
    peak = [max(float(v[k]) for v in x) for k in range(len(x[0]))]
    return affine(p["dense"], np.array(mean + peak), p["b_dense"])
