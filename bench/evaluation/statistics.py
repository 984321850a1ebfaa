"""Corpus scores from per-clip statistics that add up, for any weights of the clips (the basis of resampling).

BLEU and METEOR of a corpus are not means of clip scores: their statistics are summed over clips first. A resample of clips
is a row of weights W [K, n], how often each clip was drawn, and W @ statistics does the rest. CIDEr's document frequencies
stay those of the whole set.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# METEOR 1.5, English, task `rank` (the jar's default): Denkowski and Lavie 2014, table 1. Stages: exact, stem, synonym,
# paraphrase.
ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
STAGES = np.array([1.0, 0.6, 0.8, 0.6])
METEOR_STATISTICS = 23


def bleu(statistics: ArrayLike) -> Floats:
    """BLEU-1..4 of rows of ten numbers (correct 4, guessed 4, length, closest length). Shape [..., 10] -> [..., 4].

    The two constants are pycocoevalcap's: they keep an empty hypothesis at 0 and must stay for agreement.
    """
    rows = np.asarray(statistics, np.float64)
    tiny, small = 1e-15, 1e-9
    precision = np.cumprod((rows[..., :4] + tiny) / (rows[..., 4:8] + small), axis=-1)
    scores = precision ** (1.0 / np.arange(1, 5))
    ratio = (rows[..., 8:9] + tiny) / (rows[..., 9:10] + small)
    with np.errstate(over="ignore", under="ignore"):
        brevity = np.where(ratio < 1, np.exp(np.minimum(1 - 1 / ratio, 0.0)), 1.0)
    return np.asarray(scores * brevity)


def meteor(statistics: ArrayLike) -> Floats:
    """METEOR of rows of 23 numbers as the jar replies to SCORE. Shape [..., 23] -> [...].

    0, 1: words of hypothesis and reference; 2, 3: function words among them; then per stage content words matched in
    hypothesis and reference, function words matched in both; 20: chunks; 21, 22: words matched in both.
    """
    rows = np.asarray(statistics, np.float64)
    words, function = rows[..., 0:2], rows[..., 2:4]
    stages = rows[..., 4:20].reshape(*rows.shape[:-1], 4, 4)
    content_matched = (stages[..., 0:2] * STAGES[:, None]).sum(axis=-2)
    function_matched = (stages[..., 2:4] * STAGES[:, None]).sum(axis=-2)
    matched = DELTA * content_matched + (1 - DELTA) * function_matched
    share = _ratio(matched, DELTA * (words - function) + (1 - DELTA) * function)
    precision, recall = share[..., 0], share[..., 1]
    mean = _ratio(np.ones_like(precision), _ratio(ALPHA, recall) + _ratio(1 - ALPHA, precision))
    mean = np.where((precision == 0) | (recall == 0), 0.0, mean)
    fragmentation = np.where(perfect(rows), 0.0, _ratio(rows[..., 20], (rows[..., 21] + rows[..., 22]) / 2))
    return np.asarray(mean * (1 - GAMMA * fragmentation**BETA))


def perfect(statistics: Floats) -> NDArray[np.bool_]:
    """Whether hypothesis and reference match word for word, in one chunk. Shape [..., 23] -> [...]."""
    rows = statistics
    return (rows[..., 21] == rows[..., 0]) & (rows[..., 22] == rows[..., 1]) & (rows[..., 20] == 1)


def _ratio(above: ArrayLike, below: ArrayLike) -> Floats:
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return np.divide(above, below, out=np.zeros(above.shape), where=below != 0)


def corpus_bleu(statistics: Floats, weights: ArrayLike | None = None) -> Floats:
    """Corpus BLEU-1..4 of clips [n, 10] under `weights` [n] or [K, n] (default: each once). Shape [4] or [K, 4]."""
    return bleu(_total(statistics, weights))


def corpus_meteor(statistics: Floats, weights: ArrayLike | None = None) -> Floats:
    """Corpus METEOR of clips [n, 23] under `weights` [n] or [K, n] (default: each once). Shape [] or [K]."""
    rows = np.array(statistics, np.float64)
    rows[perfect(rows), 20] = 0.0  # the jar adds no chunk for a perfect segment
    return meteor(_total(rows, weights))


def corpus_mean(scores: Floats, weights: ArrayLike | None = None) -> Floats:
    """Corpus CIDEr or ROUGE-L of clip scores [n] under `weights` [n] or [K, n] (default: each once). Shape [] or [K]."""
    shares = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    return _ratio(shares @ np.asarray(scores, np.float64), shares.sum(axis=-1))


def _total(statistics: Floats, weights: ArrayLike | None) -> Floats:
    if weights is None:
        return np.asarray(statistics, np.float64).sum(axis=0)
    return np.asarray(weights, np.float64) @ statistics


@functools.cache
def student(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t: 2.776 for four degrees of freedom, 1.96 for very many."""
    from scipy.special import stdtrit  # imported late: lists and plans do without

    return float(stdtrit(degrees, 0.975))
