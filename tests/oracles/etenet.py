"""Olivastri, Singh, Cuzzolin, "End-to-End Video Captioning", eq. 3-20."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oracles.arithmetic import BOS, Parameters, Vector, affine, mean, sigm, softmax, tanh, weighted_sum


def decode(
    p: Parameters, frames: Sequence[Vector], words: Sequence[int]
) -> tuple[list[Vector], list[list[float]], list[Vector]]:
    """Eq. 3-17 over BOS w_1 .. w_n: logits before the softmax of eq. 15, alpha, hidden states."""
    v_mean = mean(frames)
    h = tanh(affine(p["W_h"], v_mean, p["b_h"]))  # eq. 16
    c = tanh(affine(p["W_c"], v_mean, p["b_c"]))  # eq. 17
    logits, alphas, hidden = [], [], []
    for y in [BOS, *words]:
        e = []
        for v in frames:  # eq. 3
            inner = tanh(affine(p["W_eh"], h) + affine(p["W_ev"], v) + p["b_e"])
            e.append(sum(float(a) * float(b) for a, b in zip(p["W_a"], inner, strict=True)) + float(p["b_a"]))
        alpha = softmax(e)  # eq. 4
        beta = float(sigm(affine(p["W_beta"], h, p["b_beta"]))[0])  # eq. 5: a number, not a vector
        phi = beta * weighted_sum(alpha, frames)  # eq. 6
        z = np.concatenate([phi, p["E"][y]])  # eq. 7

        def gate(name: str, z: Vector = z, h: Vector = h) -> Vector:
            return affine(p[f"W_i{name}"], z, p[f"b_i{name}"]) + affine(p[f"W_h{name}"], h, p[f"b_h{name}"])

        i, f, g, o = sigm(gate("i")), sigm(gate("f")), tanh(gate("g")), sigm(gate("o"))  # eq. 8-11
        c = f * c + i * g  # eq. 12
        h = o * tanh(c)  # eq. 13
        u = affine(p["W_u"], np.concatenate([phi, h]), p["b_u"]) + p["E"][y]  # eq. 14
        logits.append(affine(p["W_p"], tanh(u), p["b_p"]))  # eq. 15
        alphas.append(alpha)
        hidden.append(h)
    return logits, alphas, hidden


def doubly_stochastic(alphas: Sequence[Sequence[float]]) -> float:
    """L_DSA of one caption, eq. 19: alphas[t][k], L frames."""
    frames = len(alphas[0])
    loss = 0.0
    for k in range(frames):
        total = 0.0
        for alpha in alphas:
            total += alpha[k]
        loss += (1 - total) ** 2
    return loss / frames
