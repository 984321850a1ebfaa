"""Base captioners by name, for methods that stand on one of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from bench.method import Batch
from bench.nn.captioners import S2VT, SoftAttention
from bench.nn.decoding import Captioner
from bench.nn.transformer import Transformer


class Base(Captioner, Protocol):
    """A captioner on frames. `width` is that of its hidden states, which `teacher_forcing` lays out word by word."""

    width: int

    def frames(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Frame vectors as it sees them [C, T, D], and their mask [C, T]."""


def _sizes(words: int, frame_width: int, settings: Mapping[str, Any]) -> tuple[int, int, int, int, float, bool]:
    return (
        words,
        frame_width,
        settings["width"],
        settings["embedding"],
        settings["dropout"],
        settings["normalise"],
    )


BASES: dict[str, Callable[[int, int, Mapping[str, Any]], Base]] = {
    "salstm": lambda words, frame_width, settings: SoftAttention(
        *_sizes(words, frame_width, settings), settings["attention"], settings["initial"]
    ),
    "s2vt": lambda words, frame_width, settings: S2VT(*_sizes(words, frame_width, settings)),
    "transformer": lambda words, frame_width, settings: Transformer(
        words,
        frame_width,
        settings["width"],
        settings["dropout"],
        settings["normalise"],
        settings["layers"],
        settings["heads"],
        settings["expansion"],
        settings["norm"],
    ),
}
"""A base from the number of words, the width of a frame vector, and the settings of the method that stands on it."""
