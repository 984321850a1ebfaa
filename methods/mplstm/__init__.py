"""MP-LSTM: mean-pooled frames, LSTM decoder. A base of the comparison."""

from collections.abc import Mapping
from typing import Any

from bench.method import StreamInfo, Vocabulary
from bench.nn.captioners import MeanPool
from bench.training import CaptionModel, base_phases


def build(settings: Mapping[str, Any], streams: Mapping[str, StreamInfo], vocabulary: Vocabulary) -> CaptionModel:
    captioner = MeanPool(
        len(vocabulary),
        streams["frames"].shape[-1],
        settings["width"],
        settings["embedding"],
        settings["dropout"],
        settings["normalise"],
        settings["layers"],
    )
    return CaptionModel(captioner, vocabulary, lambda clips, run: base_phases(captioner, settings, clips, run))
