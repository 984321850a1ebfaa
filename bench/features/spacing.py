"""Equally spaced frames, the rule by which features, pixels and videos are thinned alike."""

from __future__ import annotations

import numpy as np


def choose_frames(n: int, frames: int) -> np.ndarray:
    """Indices of `frames` equally spaced frames of `n`, the first and the last among them: round(linspace).

    With fewer frames than asked for, indices repeat. Rounding matters: cut off instead, features of the same clips
    agreed with a cosine of 0.43 to 0.96 only.
    """
    return np.round(np.linspace(0, n - 1, frames)).astype(np.int64)
