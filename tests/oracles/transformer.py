"""Transformer (Vaswani et al., NeurIPS 2017, section 3), with frames in the place of source words. Nothing is kept from one word
to the next: every word reads all words before it anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from oracles.arithmetic import BOS, Parameters, Vector, affine, softmax, weighted_sum

Sublayer = Callable[[Sequence[Vector]], Sequence[Vector]]


def positional_encoding(place: int, width: int) -> Vector:
    """PE(pos, 2i) = sin(pos / 10000^(2i/d)), PE(pos, 2i+1) = cos of the same (section 3.5)."""
    angles = [place / 10000 ** ((number - number % 2) / width) for number in range(width)]
    return np.array([math.cos(angle) if number % 2 else math.sin(angle) for number, angle in enumerate(angles)])


def layer_norm(p: Parameters, x: Vector) -> Vector:
    """g (x - mean) / deviation + b, with the variance over the width and a floor of 1e-5 under it."""
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return p["g"] * (x - mean) / math.sqrt(variance + 1e-5) + p["b"]


def multi_head(p: Parameters, heads: int, query: Vector, places: Sequence[Vector]) -> tuple[Vector, list[float]]:
    """Concat(head_1 .. head_h) W_O, head_i = softmax(Q_i K_i^T / sqrt(d_k)) V_i (eq. 1, section 3.2.2), and the mean weights."""
    q = affine(p["W_q"], query, p["b_q"])
    keys = [affine(p["W_k"], place, p["b_k"]) for place in places]
    values = [affine(p["W_v"], place, p["b_v"]) for place in places]
    size = len(q) // heads
    found, weights = [], []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        weights.append(softmax([float(np.dot(q[own], key[own])) / math.sqrt(size) for key in keys]))
        found.append(weighted_sum(weights[-1], [value[own] for value in values]))
    mean = [sum(column) / heads for column in zip(*weights, strict=True)]
    return affine(p["W_o"], np.concatenate(found), p["b_o"]), mean


def feed_forward(p: Parameters, x: Vector) -> Vector:
    """max(0, x W_1 + b_1) W_2 + b_2 (eq. 2)."""
    return affine(p["W_2"], np.maximum(0.0, affine(p["W_1"], x, p["b_1"])), p["b_2"])


def around(p: Mapping[str, Any], name: str, xs: Sequence[Vector], sublayer: Sublayer) -> list[Vector]:
    """LayerNorm(x + f(x)) as printed, or x + f(LayerNorm(x)) (Xiong et al. 2020)."""
    norm = p[f"norm_{name}"]
    if p["before"]:
        found = sublayer([layer_norm(norm, x) for x in xs])
        return [x + own for x, own in zip(xs, found, strict=True)]
    return [layer_norm(norm, x + own) for x, own in zip(xs, sublayer(xs), strict=True)]


def encode(p: Mapping[str, Any], heads: int, frames: Sequence[Vector]) -> list[Vector]:
    """Every frame looks at every frame."""
    xs = [affine(p["W_s"], v, p["b_s"]) for v in frames]
    xs = [x + positional_encoding(place, len(x)) for place, x in enumerate(xs)]
    for layer in p["encoder"]:
        own, feed = layer["self"], layer["feed"]
        xs = around(layer, "self", xs, lambda some, own=own: [multi_head(own, heads, x, some)[0] for x in some])
        xs = around(layer, "feed", xs, lambda some, feed=feed: [feed_forward(feed, x) for x in some])
    return [layer_norm(p["norm_encoder"], x) for x in xs] if p["before"] else xs


def decode(
    p: Mapping[str, Any], heads: int, frames: Sequence[Vector], words: Sequence[int]
) -> tuple[list[Vector], list[Vector], list[list[float]]]:
    """(states, logits, weights of the frames in the last layer) for BOS w_1 .. w_n."""
    seen = encode(p, heads, frames)
    states, logits, alphas = [], [], []
    for count in range(1, len(words) + 2):
        xs = [math.sqrt(p["E"].shape[1]) * p["E"][word] for word in [BOS, *words][:count]]
        xs = [x + positional_encoding(place, len(x)) for place, x in enumerate(xs)]
        alpha: list[float] = []
        for layer in p["decoder"]:

            def words_so_far(some: Sequence[Vector], own: Parameters = layer["self"]) -> list[Vector]:
                return [multi_head(own, heads, x, some[: place + 1])[0] for place, x in enumerate(some)]

            def at_frames(
                some: Sequence[Vector], own: Parameters = layer["frames"], alpha: list[float] = alpha
            ) -> list[Vector]:
                alpha[:] = multi_head(own, heads, some[-1], seen)[1]
                return [multi_head(own, heads, x, seen)[0] for x in some]

            feed = layer["feed"]
            xs = around(layer, "self", xs, words_so_far)
            xs = around(layer, "frames", xs, at_frames)
            xs = around(layer, "feed", xs, lambda some, feed=feed: [feed_forward(feed, x) for x in some])
        states.append(layer_norm(p["norm_decoder"], xs[-1]) if p["before"] else xs[-1])
        logits.append(affine(p["W_x"], states[-1], p["b_x"]))
        alphas.append(list(alpha))
    return states, logits, alphas
