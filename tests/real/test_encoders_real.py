"""Real networks on real clips: sound by YAMNet against an independent extraction, frames by EfficientNet-Lite2."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
import torch

pytest.importorskip("av", reason='needs pip install "captionbench[extract]"')

from bench.features.encoders import load_encoder
from bench.features.extract import Extractor
from bench.features.extraction import Extraction
from bench.features.footage import Footage
from bench.features.specs import spec_of

pytestmark = pytest.mark.real
torch.set_num_threads(1)


def cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)


def test_sound_agrees_with_another_extraction(real_data: Path) -> None:
    """Example by example, and their mean, which is the stream."""
    weights = str(real_data / "weights" / "yamnet_audioset_f16.safetensors")
    extractor = Extractor(Extraction("", "audio", Path(), None, spec_of("yamnet"), weights))
    with h5py.File(real_data / "features" / "msrvtt_24clips_yamnet_audio.h5") as stored:
        for clip in ("video176", "video9301", "video24"):
            examples = extractor.reader(Footage(real_data / "videos" / "msrvtt" / f"{clip}.mp4"))
            with torch.inference_mode():
                own = load_encoder("yamnet", weights)(torch.from_numpy(examples)).numpy()
            theirs = stored[clip]["feats"][()]
            assert own.shape == theirs.shape
            assert cosine(own, theirs).min() > 0.999
            assert cosine(extractor.encode(examples)["audio"], theirs.mean(axis=0, dtype=np.float64)) > 0.999
