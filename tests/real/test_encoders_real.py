"""Real networks on real clips: sound by YAMNet against an independent extraction, frames by EfficientNet-Lite2, boxes by NanoDet
where captions name persons."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
import torch

pytest.importorskip("av", reason='needs pip install "captionbench[extract]"')

from bench.data.corpus import load_corpus
from bench.declare.registry import dataset
from bench.features.encoders import load_encoder
from bench.features.extract import Extractor
from bench.features.extraction import Extraction
from bench.features.footage import Footage, find_footage
from bench.features.heads import COCO
from bench.features.regions import load_detector
from bench.features.specs import spec_of
from bench.home import Home

PERSONS = set(
    "man men woman women person people guy guys boy boys girl girls lady ladies child children kid kids baby babies someone "
    "somebody player players".split()
)

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


def test_frames_are_the_same_bytes_twice(real_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_DATA", str(real_data))
    extraction = Extraction.of(dataset("msrvtt_videos"), "frames", Home(tmp_path), {"frames": 6})
    clip = Footage(real_data / "videos" / "msrvtt" / "video176.mp4")
    one, other = (Extractor(extraction).streams(clip)["frames"] for _ in range(2))
    assert one.shape == (6, 1280) and one.tobytes() == other.tobytes()


@pytest.mark.parametrize(("name", "every"), [("msvd_videos", 4), ("msrvtt_videos", 3)])
def test_clips_whose_captions_name_a_person_have_a_box_of_one(
    name: str, every: int, real_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Above 0.4, in one of 28 frames, in four of five clips. Of the whole corpora, 64 of 67 have one."""
    monkeypatch.setenv("BENCH_DATA", str(real_data))
    definition, home = dataset(name), Home(tmp_path)
    extraction = Extraction.of(definition, "regions", home)
    corpus = load_corpus(definition, home)
    named = {
        one: {word for caption in said for word in caption.text.lower().split()}
        for one, said in corpus.captions.items()
    }
    clips = [one for one, words in named.items() if words & PERSONS]
    footage, _ = find_footage(extraction.videos, corpus.clips, corpus.aliases)
    detector = load_detector(extraction.encoder, extraction.weights, extraction.boxes, extraction.files)

    def surest(frames: np.ndarray) -> float:
        ((_, scores, classes),) = detector.found(torch.from_numpy(frames[None]))
        return max(scores[classes == COCO.index("person")].tolist(), default=0.0)

    chosen = clips[::every]
    seen = 0
    for clip in chosen:
        frames, _ = extraction.reader(footage[clip])
        seen += any(surest(frame) > 0.4 for frame in from_the_middle(frames))
    assert len(chosen) >= 8 and seen >= 0.8 * len(chosen)


def from_the_middle(frames: np.ndarray) -> list[np.ndarray]:
    """Most clips show a person in their middle, where the search then ends."""
    return [frames[place] for place in sorted(range(len(frames)), key=lambda place: abs(place - len(frames) // 2))]
