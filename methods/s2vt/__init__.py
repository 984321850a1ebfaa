"""S2VT: two stacked LSTMs read all frames, then write all words. The second base of RecNet."""

from collections.abc import Mapping
from typing import Any

from bench.method import StreamInfo, Vocabulary
from bench.nn.captioners import S2VT
from bench.training import CaptionModel, base_phases


def build(settings: Mapping[str, Any], streams: Mapping[str, StreamInfo], vocabulary: Vocabulary) -> CaptionModel:
    captioner = S2VT(
        len(vocabulary),
        streams["frames"].shape[-1],
        settings["width"],
        settings["embedding"],
        settings["dropout"],
        settings["normalise"],
    )
    return CaptionModel(captioner, vocabulary, lambda clips, run: base_phases(captioner, settings, clips, run))
