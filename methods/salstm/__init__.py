"""SA-LSTM: soft attention over frames, LSTM decoder. The base that RecNet and EtENet build on."""

from collections.abc import Mapping
from typing import Any

from bench.method import StreamInfo, Vocabulary
from bench.nn.captioners import SoftAttention
from bench.training import CaptionModel, base_phases


def build(settings: Mapping[str, Any], streams: Mapping[str, StreamInfo], vocabulary: Vocabulary) -> CaptionModel:
    captioner = SoftAttention(
        len(vocabulary),
        streams["frames"].shape[-1],
        settings["width"],
        settings["embedding"],
        settings["dropout"],
        settings["normalise"],
        settings["attention"],
        settings["initial"],
    )
    return CaptionModel(captioner, vocabulary, lambda clips, run: base_phases(captioner, settings, clips, run))
