"""Zhang et al., "Reconstruct and Represent Video Contents for Captioning via Reinforcement Learning", eq. 2-13 and 22."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from oracles.arithmetic import BOS, Parameters, Vector, affine, lstm, mean, softmax, tanh, weighted_sum


def attend(
    p: Parameters, values: Sequence[Vector], query: Vector, names: tuple[str, str, str, str]
) -> tuple[Vector, list[float]]:
    """Eq. 3-5 with (w_a, W_v, W_h, b_d), and eq. 9-10 with (w_b, W_hr, W_zr, b_r): context and weights."""
    w, of_value, of_query, bias = (p[name] for name in names)
    energies = []
    for value in values:
        inner = tanh(affine(of_value, value) + affine(of_query, query) + bias)
        energies.append(sum(float(a) * float(b) for a, b in zip(w, inner, strict=True)))
    weights = softmax(energies)
    return weighted_sum(weights, values), weights


def decode(
    p: Parameters, frames: Sequence[Vector], words: Sequence[int], start: tuple[Vector, Vector] | None = None
) -> tuple[list[Vector], list[Vector], list[list[float]]]:
    """Eq. 2-5 over BOS w_1 .. w_n: hidden states H, logits x_1 .. x_{n+1}, attention weights alpha."""
    width = len(p["b_i"])
    h, c = start if start is not None else (np.zeros(width), np.zeros(width))
    hidden, logits, alphas = [], [], []
    for previous in [BOS, *words]:
        context, alpha = attend(p, frames, h, ("w_a", "W_v", "W_h", "b_d"))
        h, c = lstm(p, [p["E"][previous], context], h, c)
        hidden.append(h)
        logits.append(affine(p["W_x"], h, p["b_x"]))
        alphas.append(alpha)
    return hidden, logits, alphas


def psi(a: Vector, b: Vector, norm: str = "l2") -> float:
    """Euclidean distance; `sqsum` its square, `mse` the mean of squares."""
    square = sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True))
    return {"l2": math.sqrt(square), "sqsum": square, "mse": square / len(a)}[norm]


def rebuild_global(p: Parameters, hidden: Sequence[Vector]) -> list[Vector]:
    """Z of eq. 6 and 7: one step per word."""
    phi = mean(hidden)
    z, m = np.zeros(len(p["b_i"])), np.zeros(len(p["b_i"]))
    states = []
    for h in hidden:
        z, m = lstm(p, [h, phi], z, m)
        states.append(z)
    return states


def rebuild_local(p: Parameters, hidden: Sequence[Vector], frames: int) -> list[Vector]:
    """Z of eq. 9-11: one step per frame, attending over the words."""
    z, m = np.zeros(len(p["b_i"])), np.zeros(len(p["b_i"]))
    states = []
    for _ in range(frames):
        mu, _ = attend(p, hidden, z, ("w_b", "W_hr", "W_zr", "b_r"))
        z, m = lstm(p, [mu], z, m)
        states.append(z)
    return states


def rebuild_transposed(
    p: Parameters, hidden: Sequence[Vector], alphas: Sequence[Sequence[float]], renormalise: bool
) -> list[Vector]:
    """Z with beta replaced by the transpose of alpha [word][frame] (Table 6)."""
    z, m = np.zeros(len(p["b_i"])), np.zeros(len(p["b_i"]))
    states = []
    for frame in range(len(alphas[0])):
        column = [alpha[frame] for alpha in alphas]
        total = sum(column) if renormalise else 1.0
        mu = weighted_sum([weight / total for weight in column], hidden)
        z, m = lstm(p, [mu], z, m)
        states.append(z)
    return states


def reconstruction(
    p: Parameters,
    hidden: Sequence[Vector],
    frames: Sequence[Vector],
    kind: str,
    norm: str,
    alphas: Sequence[Sequence[float]] = (),
    word_weights: str = "attention",
) -> float:
    """L_rec of one caption: `global` eq. 8, `local` eq. 12, `joint` eq. 13; Table 6 reads the weights from `alphas`."""
    if kind == "global":
        return psi(mean(frames), mean(rebuild_global(p, hidden)), norm)
    if word_weights == "attention":
        states = rebuild_local(p, hidden, len(frames))
    else:
        states = rebuild_transposed(p, hidden, alphas, renormalise=word_weights == "transposed")
    loss = 0.0
    for z, v in zip(states, frames, strict=True):
        loss += psi(z, v, norm) / len(frames)
    if kind == "joint":
        loss += psi(mean(states), mean(frames), norm)
    return loss
