"""Transformer: self-attention over frames, a decoder that attends to words and frames. A base, as SA-LSTM is one."""

from collections.abc import Mapping
from typing import Any

from bench.method import StreamInfo, Vocabulary
from bench.nn.bases import BASES
from bench.training import CaptionModel, base_phases


def build(settings: Mapping[str, Any], streams: Mapping[str, StreamInfo], vocabulary: Vocabulary) -> CaptionModel:
    captioner = BASES["transformer"](len(vocabulary), streams["frames"].shape[-1], settings)
    return CaptionModel(captioner, vocabulary, lambda clips, run: base_phases(captioner, settings, clips, run))
