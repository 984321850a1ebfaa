"""What VGGish reads: pictures of sound, 96 steps of 10 ms by 64 mel bands (Hershey et al., ICASSP 2017, section 2).

The constants are those of the published network; with others its weights mean nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # samples per second
WINDOW, HOP, LENGTH = 400, 160, 512  # samples: 25 ms, 10 ms, and the next power of two for the transform
BANDS, LOWEST, HIGHEST = 64, 125.0, 7500.0  # mel bands and their range in Hz
OFFSET = 0.01  # so that silence has a logarithm
STEPS = 96  # of one example: 0.96 s, examples do not overlap


def log_mel(sound: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sound [samples] at 16 kHz -> examples [N, 1, 96, 64], at least one: what is shorter is filled up with silence."""
    least = (STEPS - 1) * HOP + WINDOW
    samples = np.pad(sound.astype(np.float64), (0, max(0, least - len(sound))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    periodic_hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    bands = np.log(np.abs(np.fft.rfft(frames * periodic_hann, LENGTH)) @ _mel_weights() + OFFSET)
    count = len(bands) // STEPS
    return bands[: count * STEPS].reshape(count, 1, STEPS, BANDS).astype(np.float32)


def _mel_weights() -> NDArray[np.float64]:
    """[257, 64]: triangles whose corners are equally spaced in mel, straight in mel between them; no weight on the mean."""
    bins = _mel(np.linspace(0, RATE / 2, LENGTH // 2 + 1))[:, None]
    corners = np.linspace(_mel(LOWEST), _mel(HIGHEST), BANDS + 2)
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    weights = np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))
    weights[0] = 0
    return weights


def _mel(hertz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.asarray(1127.0 * np.log1p(np.asarray(hertz) / 700.0))
