"""MP-LSTM (Venugopalan et al., NAACL 2015) and S2VT (Venugopalan et al., ICCV 2015), step by step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from oracles.arithmetic import BOS, Parameters, Vector, affine, lstm, mean


def mean_pool(
    p: Parameters, layers: Sequence[Parameters], frames: Sequence[Vector], words: Sequence[int]
) -> list[Vector]:
    """Logits of MP-LSTM: the mean frame beside the word in the first layer, each layer above reads the one below."""
    pooled = mean(frames)
    width = len(layers[0]["b_i"])
    states = [(np.zeros(width), np.zeros(width)) for _ in layers]
    logits = []
    for previous in [BOS, *words]:
        inputs = [p["E"][previous], pooled]
        for number, layer in enumerate(layers):
            states[number] = lstm(layer, inputs, *states[number])
            inputs = [states[number][0]]
        logits.append(affine(p["W_x"], states[-1][0], p["b_x"]))
    return logits


def s2vt(
    p: Parameters, lower: Parameters, upper: Parameters, frames: Sequence[Vector], words: Sequence[int]
) -> list[Vector]:
    """Logits of S2VT: read all frames with an empty word, then write with an empty frame, through the same two LSTMs."""
    width = len(lower["b_i"])
    below = above = (np.zeros(width), np.zeros(width))
    no_word = np.zeros(p["E"].shape[1])
    no_frame = np.zeros(p["W_s"].shape[0])
    for frame in frames:
        below = lstm(lower, [affine(p["W_s"], frame, p["b_s"])], *below)
        above = lstm(upper, [below[0], no_word], *above)
    logits = []
    for previous in [BOS, *words]:
        below = lstm(lower, [no_frame], *below)
        above = lstm(upper, [below[0], p["E"][previous]], *above)
        logits.append(affine(p["W_x"], above[0], p["b_x"]))
    return logits
