"""Real clips, real weights: decoded frames become the stored features, and a step through the encoder moves every convolution."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
import torch
import yaml
from support import FakeRun
from torch import Tensor, nn

from bench import BenchError
from bench.cell.checkpoint import CHECKPOINT, load
from bench.cell.fit import run_cell
from bench.cell.inputs import gather
from bench.data.batches import CorpusClips, StreamSource
from bench.declare.registry import dataset
from bench.features.backends import need_av, need_timm
from bench.features.cache import Cache
from bench.features.encoders import Encoder, load_encoder
from bench.features.extraction import Work
from bench.features.specs import spec_of
from bench.features.video import read_frames
from bench.home import Home
from bench.method import StreamInfo
from bench.plan.cells import cells
from bench.plan.request import parse
from bench.records.store import read_predictions, read_record
from bench.run.prepare import extract, prepare
from bench.training import Group, Phase, fit_phases
from methods.etenet import FromPixels, build

pytestmark = pytest.mark.real

torch.set_num_threads(1)
NAME = "mobilenetv2_100"
CLIPS = {"msvd": ("04Gt01vatkk_248_265", "qvg9eM4Hmzk_4_10"), "msrvtt": ("video176", "video9301")}
STORED = {"msvd": "msvd_40clips_mobilenetv2_28x1280.h5", "msrvtt": "msrvtt_24clips_mobilenetv2_28x1280.h5"}


@pytest.fixture(scope="module", autouse=True)
def _extra() -> None:
    try:
        need_av(), need_timm(NAME)
    except BenchError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def weights(real_data: Path) -> Path:
    return real_data / "weights" / "mobilenetv2_100_imagenet.safetensors"


@pytest.fixture(scope="module")
def encoder(weights: Path) -> Encoder:
    return load_encoder(NAME, str(weights))


def video(real_data: Path, corpus: str, clip: str) -> Path:
    return real_data / "videos" / corpus / f"{clip}{'.avi' if corpus == 'msvd' else '.mp4'}"


@pytest.mark.parametrize("corpus", CLIPS)
def test_decoded_frames_become_the_stored_features(real_data: Path, encoder: Encoder, corpus: str) -> None:
    with h5py.File(real_data / "features" / STORED[corpus]) as stored:
        for clip in CLIPS[corpus]:
            frames = read_frames(video(real_data, corpus, clip), 28, spec_of(NAME).preprocessing)
            some = [0, 13, 27]
            with torch.inference_mode():
                own = encoder(torch.from_numpy(frames[some])).numpy()
            there = stored[clip][()][some].astype(np.float32)
            cosine = (own * there).sum(1) / np.linalg.norm(own, axis=1) / np.linalg.norm(there, axis=1)
            assert cosine.min() > 0.9999, (clip, cosine)


def test_decoding_twice_gives_the_same_bytes(real_data: Path) -> None:
    path = video(real_data, "msvd", "qvg9eM4Hmzk_4_10")
    first, second = (read_frames(path, 16, spec_of("inception_resnet_v2").preprocessing) for _ in range(2))
    assert first.shape == (16, 3, 299, 299)
    assert np.array_equal(first, second)


@pytest.mark.parametrize("corpus", CLIPS)
def test_extracted_frames_are_the_stored_features(
    real_data: Path, tmp_path: Path, weights: Path, corpus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command, one way and another: cosine above 0.999 for every frame, and the same bytes twice."""
    monkeypatch.setenv("BENCH_DATA", str(real_data))
    ids = CLIPS[corpus]
    (tmp_path / "captions.jsonl").write_text(
        "\n".join(json.dumps({"clip": clip, "caption": text}) for clip in ids for text in ("one", "two"))
    )
    content = {
        "name": "agreement",
        "captions": [{"format": "jsonl", "files": {"captions": "captions.jsonl"}}],
        "splits": {"first": [1, 1, 0]},
        "streams": {
            "frames": {
                "videos": f"${{BENCH_DATA}}/videos/{corpus}",
                "frames": 28,
                "encoder": NAME,
                "weights": "${BENCH_DATA}/weights/mobilenetv2_100_imagenet.safetensors",
            }
        },
    }
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(content))
    definition = dataset(str(tmp_path / "dataset.yaml"))
    found = []
    for name, work in (("one", Work(28, 0)), ("two", Work(9, 2))):
        path, failed = extract(definition, "frames", Home(tmp_path / name), work=work)
        assert failed == ""
        with Cache(path) as cache:
            found.append((cache.load(ids)[0].astype(np.float32), cache.fingerprint))
    again, _ = extract(definition, "frames", Home(tmp_path / "three"), work=Work(28, 1))
    with Cache(again) as cache:
        assert cache.fingerprint == found[0][1], "as many frames at once: the same bytes"
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=2e-3, atol=1e-5)  # one step of float16
    with h5py.File(real_data / "features" / STORED[corpus]) as stored:
        there = np.stack([stored[clip][()] for clip in ids]).astype(np.float32)
    own = found[0][0]
    cosine = (own * there).sum(-1) / np.linalg.norm(own, axis=-1) / np.linalg.norm(there, axis=-1)
    assert cosine.min() > 0.9999


@pytest.mark.parametrize("name", ["msvd_clips", "msrvtt_clips"])
def test_the_small_sets_with_videos(
    real_data: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every clip of the lists has captions, features and a video."""
    from bench.data.corpus import load_corpus
    from bench.features.footage import find_footage

    monkeypatch.setenv("BENCH_DATA", str(real_data))
    definition = dataset(name)
    corpus = load_corpus(definition, Home(tmp_path))
    sizes = {split: len(ids) for split, ids in corpus.splits.items()}
    captions = sum(len(corpus.captions[clip]) for clip in corpus.splits["train"])
    told = {"msvd_clips": ((27, 5, 8), 1104), "msrvtt_clips": ((12, 4, 8), 240)}
    assert (tuple(sizes.values()), captions) == told[name]
    folder = definition.resolve(definition.streams["pixels"].videos or "", Home(tmp_path))
    found, faults = find_footage(folder, corpus.clips, corpus.aliases)
    assert (found.keys(), faults) == (corpus.clips.keys(), {})
    prepare(definition, Home(tmp_path), None, ["frames"])


# -- learning through the encoder ---------------------------------------------------------------------------------------


def real_clips(real_data: Path, encoder: Encoder, frames: int = 3) -> CorpusClips:
    """Two real clips with eight of their captions each, a few frames of each clip, and the features of those frames."""
    from bench.data.text import build_vocabulary, tokenize_all
    from bench.method import Reference

    told = json.loads((real_data / "videos" / "msvd" / "captions.json").read_text(encoding="utf-8"))
    texts = {clip: told[clip]["captions"][:8] for clip in CLIPS["msvd"]}
    tokens = {clip: tokenize_all(captions, "strip") for clip, captions in texts.items()}
    vocabulary = build_vocabulary([words for own in tokens.values() for words in own], 1)
    references = {
        clip: tuple(
            Reference(f"{clip}#{k}", clip, text, words, tuple(vocabulary.encode(words)))
            for k, (text, words) in enumerate(zip(texts[clip], tokens[clip], strict=True))
        )
        for clip in texts
    }
    ids = list(texts)
    pixels = np.stack([read_frames(video(real_data, "msvd", clip), frames, encoder.spec.preprocessing) for clip in ids])
    with torch.inference_mode():
        seen = encoder(torch.from_numpy(pixels).flatten(0, 1)).numpy().reshape(len(ids), frames, -1)

    def source(name: str, values: np.ndarray) -> StreamSource:
        info = StreamInfo(name, values.shape[1:], True, "f" * 64, NAME)
        return StreamSource(info, lambda asked: (values[[ids.index(c) for c in asked]], np.full(len(asked), frames)))

    sources = {"frames": source("frames", seen), "pixels": source("pixels", pixels)}
    return CorpusClips(ids, references, sources, vocabulary)


def settings(**more: Any) -> dict[str, Any]:
    sizes = {"width": 32, "embedding": 32, "attention": 32, "dropout": 0.0, "normalise": True}
    step2 = {"step2": "end_to_end", "encoder": None, "encoder_weights": "pretrained", "encoder_weight_decay": 0.0}
    return {**sizes, **step2, "attention_weight": 0.70602, "encoder_rate": 1e-4, **more}


def encoder_alone(
    clips: CorpusClips, encoder: Encoder, rate: float, steps: int
) -> tuple[list[float], nn.Module, nn.Module]:
    """Losses of so many steps of Adam on the encoder, with the decoder as it came; and the encoder before and after."""
    torch.manual_seed(0)
    before, lent = encoder, copy.deepcopy(encoder)
    model = build(settings(), clips.streams, clips.vocabulary)
    assert isinstance(model, FromPixels)
    run = FakeRun(
        steps * clips.n_captions, {"frozen": 0.5, "end_to_end": 0.5}, {"captions": 100, "captions_per_clip": 100}
    )
    run.encoder = lambda name, weights: lent
    model.prepare(run.encoder)
    model.borrow("pretrained")
    model._fit_normalisers(clips, run)
    decoder = {name: value.clone() for name, value in model.captioner.decoder.state_dict().items()}
    _, second = model.phases(clips, run)
    alone = Phase(
        "encoder",
        second.loss,
        model.module,
        1.0,
        validate=False,
        reads=second.reads,
        groups=[Group(model.captioner.trainable(), rate)],
    )
    fit_phases(model, model.module, [alone], clips, run)
    for name, value in model.captioner.decoder.state_dict().items():
        assert torch.equal(value, decoder[name]), f"decoder.{name} was to stay"
    return [values["loss"] for _, _, values in run.reports], before, lent


def moves(before: nn.Module, after: nn.Module, kind: Callable[[nn.Module], bool]) -> dict[str, float]:
    """Largest change of every tensor of the modules of one kind."""
    own, old = dict(after.named_modules()), dict(before.named_modules())
    found = {}
    for name, module in own.items():
        if kind(module):
            for part, value in module.state_dict(keep_vars=False).items():
                found[f"{name}.{part}"] = float((value.double() - old[name].state_dict()[part].double()).abs().max())
    return found


def is_convolution(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d)


def is_normalisation(module: nn.Module) -> bool:
    return isinstance(module, nn.BatchNorm2d)


def test_the_encoder_alone_lowers_the_loss_and_every_convolution_moves(
    real_data: Path, encoder: Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    """The decoder is frozen, the encoder's rate is 1e-4; then the printed rate, 1e-9, and what it changes."""
    clips = real_clips(real_data, encoder)
    losses, before, after = encoder_alone(clips, encoder, 1e-4, 4)
    convolutions = moves(before, after, is_convolution)
    assert len(convolutions) == 52
    assert losses[-1] < losses[0]
    assert min(convolutions.values()) > 1e-5, min(convolutions, key=convolutions.__getitem__)
    norms = moves(before, after, is_normalisation)
    assert len(norms) == 52 * 5
    assert max(norms.values()) == 0, "batch normalisation is frozen in statistics and affine"
    printed, before, after = encoder_alone(clips, encoder, 1e-9, 2)
    tiny = moves(before, after, is_convolution)
    pairs = [(value, before.state_dict()[name]) for name, value in after.state_dict().items() if name in tiny]
    changed = sum(int((one != other).sum()) for one, other in pairs) / sum(one.numel() for one, _ in pairs)
    with capsys.disabled():
        print(
            f"\n  encoder rate 1e-4: loss {losses[0]:.4f} -> {losses[-1]:.4f} in 4 steps; largest change of a convolution "
            f"{min(convolutions.values()):.1e} to {max(convolutions.values()):.1e}"
            f"\n  encoder rate 1e-9: loss {printed[0]:.6f} -> {printed[-1]:.6f} in 2 steps; {sum(v > 0 for v in tiny.values())} "
            f"of {len(tiny)} convolutions change, by at most {max(tiny.values()):.1e}, in {changed:.0%} of their weights: the "
            f"others are too large for float32 to take up a step so small"
        )
    assert max(tiny.values()) <= 1e-8


# -- a whole cell -------------------------------------------------------------------------------------------------------


def test_a_cell_from_real_pixels(real_data: Path, tmp_path: Path, weights: Path, encoder: Encoder) -> None:
    """`etenet:step2` over videos, a file of weights and captions: trained, recorded, loaded again, the same captions."""
    told = json.loads((real_data / "videos" / "msvd" / "captions.json").read_text(encoding="utf-8"))
    ids = [*CLIPS["msvd"], "BtQtRGI0F2Q_15_20", "IhwPQL9dFYc_124_129"]
    lines = [json.dumps({"clip": clip, "caption": text}) for clip in ids for text in told[clip]["captions"][:4]]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    for split, part in (("train", ids[:2]), ("val", ids[2:3]), ("test", ids[3:])):
        (tmp_path / f"{split}.txt").write_text("\n".join(part))
    (tmp_path / "frames").mkdir()
    for clip in ids:
        frames = read_frames(video(real_data, "msvd", clip), 2, encoder.spec.preprocessing)
        with torch.inference_mode():
            np.save(tmp_path / "frames" / f"{clip}.npy", encoder(torch.from_numpy(frames)).numpy())
    content = {
        "name": "real_pixels",
        "captions": [{"format": "jsonl", "files": {"captions": "captions.jsonl"}}],
        "splits": {split: f"{split}.txt" for split in ("train", "val", "test")},
        "streams": {
            "frames": {"source": "frames", "encoder": NAME},
            "pixels": {"videos": str(real_data / "videos" / "msvd"), "frames": 2, "encoder": NAME},
        },
        "train": {"epochs": 2, "captions": 8},
        "model": {"width": 16, "embedding": 16, "attention": 16},
    }
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(content))
    home = Home(tmp_path / "home")
    prepare(dataset(str(tmp_path / "dataset.yaml")), home)
    words = ["methods=etenet:step2", f"dataset={tmp_path / 'dataset.yaml'}", f"etenet.encoder_weights={weights}"]
    (cell,) = cells(parse([*words, "etenet.encoder_rate=1e-4"]), home)
    assert cell.config["settings"]["encoder_weights"].startswith("sha256:e8e0906982d35f25")
    run_cell(cell.config, str(home.root))
    record = read_record(cell.folder(home) / "record.json")
    assert record.state == "unscored"
    assert str(weights) not in (cell.folder(home) / "record.json").read_text()
    saved = load(cell.folder(home) / CHECKPOINT, method="etenet:step2")
    target = gather(cell.config, home, lambda captions: None).target
    assert saved.streams["pixels"].shape == (2, 3, 224, 224)
    said = {caption.clip: caption.text for caption in saved.method.decode(target, saved.search)}
    assert said == read_predictions(cell.folder(home) / "predictions.jsonl", target.ids)
    trained: dict[str, Tensor] = saved.method.state_dict()
    stem = "encoder.network.conv_stem.weight"
    assert not torch.equal(trained[stem], encoder.state_dict()["network.conv_stem.weight"]), (
        "the checkpoint has the encoder"
    )
