"""Shi et al., "Watch It Twice: Video Captioning with a Refocused Video Encoder", Algorithms 1 and 2, eq. 4-22."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from oracles.arithmetic import Parameters, Vector, affine, lstm, sigm, softmax, tanh, weighted_sum


@dataclass(frozen=True)
class Seen:
    """V^f, the places of v^s and v^a of one clip; the last two may be absent."""

    frames: Sequence[Vector]
    places: Sequence[Vector] | None = None
    sound: Vector | None = None


def gru(p: Parameters, x: Vector, h: Vector) -> Vector:
    """r, z = sigm(W x + b + U h + d); n = tanh(W x + b + r (U h + d)); h = (1 - z) n + z h."""
    r = sigm(affine(p["W_r"], x, p["b_r"]) + affine(p["U_r"], h, p["d_r"]))
    z = sigm(affine(p["W_z"], x, p["b_z"]) + affine(p["U_z"], h, p["d_z"]))
    n = tanh(affine(p["W_n"], x, p["b_n"]) + r * affine(p["U_n"], h, p["d_n"]))
    return (1 - z) * n + z * h


def kbigru(left: Parameters, right: Parameters, p: Parameters, frames: Sequence[Vector], key: int) -> Vector:
    """Eq. 5-7: both directions start at the key frame, from zeros."""
    hb = np.zeros(len(left["b_r"]))
    for i in range(key, -1, -1):
        hb = gru(left, frames[i], hb)
    hf = np.zeros(len(right["b_r"]))
    for j in range(key, len(frames)):
        hf = gru(right, frames[j], hf)
    return tanh(affine(p["W_c"], np.concatenate([hb, hf]), p["b_c"]))


def attend(p: Parameters, values: Sequence[Vector], query: Vector, bias: float = 0.0) -> list[float]:
    """alpha of eq. 8-9 and 14-15: w tanh((W_q q) * (W_v v_i)) + b, softmax over i."""
    asked = affine(p["W_q"], query)
    energies = []
    for value in values:
        inner = tanh(asked * affine(p["W_v"], value))
        energies.append(sum(float(a) * float(b) for a, b in zip(p["w"], inner, strict=True)) + bias)
    return softmax(energies)


def heard(p: Parameters, h: Vector, sound: Vector | None) -> Vector:
    """tanh(W_a [h ; va] + b_a)."""
    return tanh(affine(p["W_a"], h if sound is None else np.concatenate([h, sound]), p["b_a"]))


@dataclass(frozen=True)
class Watched:
    """What Algorithm 1 gives: o_1, alpha, the key frame and o_2."""

    first: Vector
    alpha: list[float]
    key: int
    second: Vector


def watch(parts: Mapping[str, Parameters], seen: Seen, key: int | None = None) -> Watched:
    """Algorithm 1; a `key` that is given stands in for the refocusing module's."""
    p, left, right = parts["encoder"], parts["left"], parts["right"]
    h1 = kbigru(left, right, p, seen.frames, len(seen.frames) // 2)
    o1 = heard(p, h1, seen.sound)
    alpha = attend(parts["refocus"], seen.frames, o1)
    if key is None:
        key = max(range(len(alpha)), key=lambda i: alpha[i])
    h2 = kbigru(left, right, p, seen.frames, key)
    both = tanh(affine(p["W_m"], np.concatenate([h1, h2]), p["b_m"]))
    return Watched(o1, alpha, key, heard(p, both, seen.sound))


def first_vector(parts: Mapping[str, Parameters], seen: Seen) -> Vector:
    """o_1 alone."""
    h1 = kbigru(parts["left"], parts["right"], parts["encoder"], seen.frames, len(seen.frames) // 2)
    return heard(parts["encoder"], h1, seen.sound)


@dataclass(frozen=True)
class Told:
    """One word of Algorithm 2: its logits, and the weights of the frames and of the places (none without places)."""

    logits: Vector
    frames: list[float]
    places: list[float]


def tell(parts: Mapping[str, Parameters], seen: Seen, o: Vector | None, words: Sequence[int]) -> list[Told]:
    """Algorithm 2 for one step, over w_1 .. w_n and EOS. Without `o` (the row Vf + vs) zeros begin."""
    p = parts["decoder"]
    width = len(p["b_i"])
    h = np.zeros(width)
    c = np.zeros(width) if o is None else o
    if o is None:
        entry = np.zeros(p["E"].shape[1])
    else:
        entry = affine(p["W_e"], o) if "W_e" in p else o
    told = []
    for t in range(len(words) + 1):
        query = h if o is None else np.concatenate([o, h])
        of_frames, of_places = attend(parts["temporal"], seen.frames, query), []
        inputs = [weighted_sum(of_frames, seen.frames)]
        if seen.places is not None:
            of_places = attend(parts["spatial"], seen.places, query)
            inputs.append(weighted_sum(of_places, seen.places))
        if seen.sound is not None:
            inputs.append(seen.sound)
        inputs.append(entry if t == 0 else p["E"][words[t - 1]])
        h, c = lstm(p, inputs, h, c)
        told.append(Told(affine(p["W_x"], h, p["b_x"]), of_frames, of_places))
    return told


def decode(parts: Mapping[str, Parameters], seen: Seen, o: Vector | None, words: Sequence[int]) -> list[Vector]:
    """Logits of w_1 .. w_n and EOS."""
    return [one.logits for one in tell(parts, seen, o, words)]


def refocus_loss(alpha_key: float, change: float, form: str) -> float:
    """LR+ for R_e - R_{e-1} = `change`: eq. 21 as printed, or with the sign that its text asks for."""
    if change > 0:
        return -change * math.log(alpha_key)
    if change < 0:
        size = change if form == "printed" else abs(change)
        return -size * math.log(1 - alpha_key)
    return 0.0
