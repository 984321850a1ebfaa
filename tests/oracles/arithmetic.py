"""What every equation is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Parameters = Mapping[str, Vector]

BOS, EOS = 1, 2


def affine(weight: Vector, x: Vector, bias: Vector | None = None) -> Vector:
    """W x + b, row by row."""
    rows = [sum(float(w) * float(value) for w, value in zip(row, x, strict=True)) for row in weight]
    return np.array(rows) if bias is None else np.array([row + float(b) for row, b in zip(rows, bias, strict=True)])


def sigm(x: Vector) -> Vector:
    return np.array([1 / (1 + math.exp(-value)) for value in x])


def tanh(x: Vector) -> Vector:
    return np.array([math.tanh(value) for value in x])


def softmax(x: Sequence[float]) -> list[float]:
    top = max(x)
    powers = [math.exp(value - top) for value in x]
    return [power / sum(powers) for power in powers]


def log_softmax(x: Sequence[float]) -> list[float]:
    top = max(x)
    total = top + math.log(sum(math.exp(value - top) for value in x))
    return [float(value) - total for value in x]


def mean(vectors: Sequence[Vector]) -> Vector:
    """phi: the mean over time."""
    total = np.zeros_like(vectors[0])
    for vector in vectors:
        total = total + vector
    return total / len(vectors)


def weighted_sum(weights: Sequence[float], vectors: Sequence[Vector]) -> Vector:
    total = np.zeros_like(vectors[0])
    for weight, vector in zip(weights, vectors, strict=True):
        total = total + weight * vector
    return total


def lstm(p: Parameters, inputs: Sequence[Vector], h: Vector, c: Vector) -> tuple[Vector, Vector]:
    """One LSTM step: all four gates are affine in the concatenation [inputs .. ; h] (RecNet eq. 7 and the two lines below).

    `p` holds `T_i`, `T_f`, `T_o`, `T_g` and their `b_`.
    """
    joined = np.concatenate([*inputs, h])
    i, f, o = (sigm(affine(p[f"T_{gate}"], joined, p[f"b_{gate}"])) for gate in "ifo")
    g = tanh(affine(p["T_g"], joined, p["b_g"]))
    c = f * c + i * g
    return o * tanh(c), c


def caption_loss(logits: Sequence[Sequence[float]], words: Sequence[int]) -> float:
    """-sum_i log P(s_i | s_<i, V) over w_1 .. w_n and EOS (RecNet eq. 14, one caption)."""
    total = 0.0
    for x, target in zip(logits, [*words, EOS], strict=True):
        total -= log_softmax(x)[target]
    return total
