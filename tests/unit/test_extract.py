"""From videos to the stream `pixels`: which frames, at which size, resumed clip by clip, with every fault named."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench import BenchError
from bench.cell import inputs
from bench.cell.inputs import gather
from bench.cli.main import main
from bench.declare.dataset import DatasetDefinition
from bench.declare.registry import read_definition
from bench.features import decoders as module
from bench.features.cache import Cache
from bench.features.check import check_cache
from bench.features.extraction import Work
from bench.features.sidecar import read_sidecar
from bench.features.specs import Preprocessing
from bench.features.video import choose_frames, read_frames
from bench.home import Home
from bench.plan.cells import cells
from bench.plan.request import parse
from bench.run.prepare import extract, prepare

HERE = Work(workers=0)  # decode in this process
SQUARE = Preprocessing((16, 16), None, "BILINEAR", mean=0.0, deviation=1.0)
YAML = """
name: films
captions: [{format: jsonl, files: {captions: captions.jsonl}}]
splits: {train: train.txt, val: val.txt, test: test.txt}
streams:
  frames: {source: frames}
  pixels: {videos: videos, frames: 4, encoder: shapes}
"""


@pytest.fixture
def av() -> Any:
    return pytest.importorskip("av", reason='needs pip install "captionbench[extract]"')


def film(av: Any, path: Path, frames: int, width: int = 64, height: int = 48, codec: str = "ffv1") -> None:
    """A video, without loss, whose frame t is of one grey, 5 t + 20; its right half is 60 brighter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for time in range(frames):
            picture = np.full((height, width, 3), 5 * time + 20, np.uint8)
            picture[:, width // 2 :] += 60
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def greys(frames: np.ndarray) -> list[int]:
    """Which frame of a film each is, by its grey on the left."""
    return np.round((frames[:, :, :, : frames.shape[3] // 4].mean(axis=(1, 2, 3)) - 20) / 5).astype(int).tolist()


@pytest.fixture
def definition(tmp_path: Path, av: Any) -> DatasetDefinition:
    clips = [f"c{number}" for number in range(5)]
    lines = [json.dumps({"clip": clip, "caption": text}) for clip in clips for text in ("a dog runs", "a cat sleeps")]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    (tmp_path / "train.txt").write_text("c0\nc1\nc2\n")
    (tmp_path / "val.txt").write_text("c3\n")
    (tmp_path / "test.txt").write_text("c4\n")
    (tmp_path / "frames").mkdir()
    for number, clip in enumerate(clips):
        film(av, tmp_path / "videos" / "deep" / f"{clip}.{'avi' if number % 2 else 'mkv'}", 10 + number)
        np.save(tmp_path / "frames" / f"{clip}.npy", np.ones((4, 256), np.float32))
    (tmp_path / "dataset.yaml").write_text(YAML)
    return read_definition(tmp_path / "dataset.yaml")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


# -- one video ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "frames"), [(10, 4), (10, 10), (30, 7), (3, 5), (1, 4)])
def test_frames_are_equally_spaced_first_and_last_among_them(av: Any, tmp_path: Path, length: int, frames: int) -> None:
    film(av, tmp_path / "x.mkv", length)
    found = read_frames(tmp_path / "x.mkv", frames, SQUARE)
    assert (found.shape, found.dtype) == ((frames, 3, 16, 16), np.uint8)
    assert greys(found) == choose_frames(length, frames).tolist()


def test_a_frame_is_squeezed_to_the_size_or_its_centre_cut_out(av: Any, tmp_path: Path) -> None:
    film(av, tmp_path / "x.avi", 2, width=96, height=32)
    whole = read_frames(tmp_path / "x.avi", 1, SQUARE)[0, 0]
    assert whole[8, 2] < 40 < 60 < whole[8, 13], "left and right edge are both there"
    centre = read_frames(tmp_path / "x.avi", 1, Preprocessing(40, 20, "BILINEAR", mean=0.0, deviation=1.0))[0, 0]
    assert centre.shape == (20, 20)
    dark, bright = (centre < 50).mean(axis=0), (centre > 50).mean(axis=0)
    assert dark[:8].all()
    assert bright[12:].all(), "the border between the halves lies in the middle of the cut"


def test_what_is_no_video_is_told(av: Any, tmp_path: Path) -> None:
    film(av, tmp_path / "whole.mp4", 12, codec="mpeg4")
    raw = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "half.mp4").write_bytes(raw[: len(raw) // 3])
    (tmp_path / "text.avi").write_text("no video")
    with av.open(str(tmp_path / "sound.mkv"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    for name, reason in (
        ("empty.mp4", "cannot be decoded"),
        ("half.mp4", "cannot be decoded"),
        ("text.avi", "cannot be decoded|has no pictures"),
        ("sound.mkv", "has no pictures, only sound or text"),
    ):
        with pytest.raises(ValueError, match=reason):
            read_frames(tmp_path / name, 4, SQUARE)


# -- a folder -----------------------------------------------------------------------------------------------------------


def test_all_clips_become_a_stream_of_bytes(definition: DatasetDefinition, home: Home) -> None:
    path, failed = extract(definition, "pixels", home)
    assert failed == ""
    assert check_cache(path, [f"c{number}" for number in range(5)]) == []
    with Cache(path) as cache:
        assert (cache.shape, cache.dtype, cache.timed, cache.encoder) == ((4, 3, 64, 64), np.uint8, True, "shapes")
        for number in range(5):
            values, length = cache.read(f"c{number}")
            assert length == 4
            assert greys(values) == choose_frames(10 + number, 4).tolist()
    said = read_sidecar(path)["encoder"]
    assert said == {"name": "shapes", "frames": 4, "resize": [64, 64], "crop": None, "resampler": "BILINEAR"}


def test_what_the_command_says_goes_before_the_definition(definition: DatasetDefinition, home: Home) -> None:
    path, _ = extract(definition, "pixels", home, {"frames": 2, "encoder": "mobilenetv2_100"})
    with Cache(path) as cache:
        assert (cache.shape, cache.encoder) == ((2, 3, 224, 224), "mobilenetv2_100")
    before = path.stat().st_mtime_ns
    extract(definition, "pixels", home, {"frames": 2, "encoder": "mobilenetv2_100"})
    assert path.stat().st_mtime_ns == before, "what is there already is left alone"
    prepare(definition, home, None, ["pixels"])
    assert path.stat().st_mtime_ns == before, "a run takes what the command has made"


def test_a_definition_that_was_edited_is_told_of_and_a_corpus_that_grew_is_made_up_for(
    definition: DatasetDefinition, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_HOME", str(home.root))
    where = definition.path
    captions, text = where.parent / "captions.jsonl", where.read_text()
    lines = captions.read_text().splitlines()
    captions.write_text("\n".join(line for line in lines if '"c2"' not in line))
    (where.parent / "train.txt").write_text("c0\nc1\n")
    prepare(definition, home, None, ["pixels"])
    path = home.cache / definition.name / "pixels.h5"
    with Cache(path) as cache:
        assert len(cache) == 4
        kept = cache.read("c4")[0]
    captions.write_text("\n".join(lines))
    (where.parent / "train.txt").write_text("c0\nc1\nc2\n")
    capsys.readouterr()
    prepare(definition, home, None, ["pixels"])
    with Cache(path) as cache:
        assert len(cache) == 5 and np.array_equal(cache.read("c4")[0], kept)
    assert "otherwise" not in capsys.readouterr().out
    where.write_text(text.replace("frames: 4", "frames: 3"))
    edited, told = read_definition(where), "(frames 4 instead of 3)"
    prepare(edited, home, None, ["pixels"])
    assert told in (said := " ".join(capsys.readouterr().out.split())) and "replace=true" in said
    frames = ["streams=frames,pixels", "methods=etenet:step2"]
    for command in (["features", "check", "stream=pixels"], ["data", "check"], ["plan", *frames]):
        assert main([*command, f"dataset={where}"]) == 0
        assert told in " ".join(capsys.readouterr().out.split())
    captions.write_text(captions.read_text() + '\n{"clip": "c9", "caption": "a dog"}')
    (where.parent / "train.txt").write_text("c0\nc9\n")
    with pytest.raises(BenchError, match=r"made otherwise \(frames 4 instead of 3\).*replace=true"):
        prepare(edited, home, None, ["pixels"])


def test_two_extractions_give_the_same_bytes(definition: DatasetDefinition, tmp_path: Path) -> None:
    first, second = (extract(definition, "pixels", Home(tmp_path / name))[0] for name in ("one", "two"))
    with Cache(first) as one, Cache(second) as other:
        assert one.fingerprint == other.fingerprint


def test_an_interrupted_extraction_goes_on_clip_by_clip(
    definition: DatasetDefinition, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    original = module.read_views

    def read(path: Path, *rest: Any) -> Any:
        if len(seen) == 3:
            raise KeyboardInterrupt
        seen.append(path.stem)
        return original(path, *rest)

    monkeypatch.setattr(module, "read_views", read)
    with pytest.raises(KeyboardInterrupt):
        extract(definition, "pixels", home, work=HERE)
    monkeypatch.setattr(module, "read_views", lambda path, *rest: (seen.append(path.stem), original(path, *rest))[1])
    path, failed = extract(definition, "pixels", home, work=HERE)
    assert failed == ""
    assert seen == ["c0", "c1", "c2", "c3", "c4"], "no clip is decoded twice"
    assert check_cache(path, [f"c{number}" for number in range(5)]) == []


def test_clips_that_fail_are_named_and_the_rest_is_kept(
    definition: DatasetDefinition, home: Home, tmp_path: Path, av: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, gone = tmp_path / "videos" / "deep" / "c1.avi", tmp_path / "videos" / "deep" / "c4.mkv"
    broken.write_bytes(b"")
    gone.unlink()
    path, failed = extract(definition, "pixels", home)
    for part in ("2 of 5 clips", "c1: c1.avi cannot be decoded", "c4: no video in", "goes on with them"):
        assert part in failed
    assert not path.is_file()
    words = ["features", "extract", f"dataset={tmp_path / 'dataset.yaml'}", "stream=pixels"]
    assert main(words) == 1
    assert "2 of 5 clips could not be extracted" in capsys.readouterr().err
    with pytest.raises(BenchError, match="2 of 5 clips could not be extracted"):
        prepare(definition, home, None, ["pixels"])
    film(av, broken, 11)
    film(av, gone, 14)
    decoded: list[str] = []
    original = module.read_views
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "read_views", lambda file, *rest: (decoded.append(file.stem), original(file, *rest))[1])
        path, failed = extract(definition, "pixels", home, work=HERE)
    assert (failed, decoded) == ("", ["c1", "c4"]), "only the clips that were mended are decoded"


def test_a_stream_that_no_method_would_read_is_said_to_be_so(
    definition: DatasetDefinition, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = definition.path
    own.write_text(own.read_text().replace("  pixels: {videos: videos, frames: 4, encoder: shapes}\n", ""))
    words = [f"dataset={own}", f"videos={tmp_path / 'videos'}", "frames=4", "encoder=shapes"]
    assert main(["features", "extract", "stream=pixels", *words]) == 0
    assert f"pixels.h5; declare it under streams: in {own} to let methods read it\n" in capsys.readouterr().out
    own.write_text(YAML)
    assert main(["features", "extract", "stream=pixels", *words]) == 0
    assert "declare" not in capsys.readouterr().out


def test_a_clip_of_two_videos_is_named_and_the_rest_goes_on(
    definition: DatasetDefinition, home: Home, tmp_path: Path, av: Any
) -> None:
    film(av, tmp_path / "videos" / "c2.avi", 3)
    path, failed = extract(definition, "pixels", home, work=HERE)
    assert "1 of 5 clips could not be extracted (c2: has two videos, c2.avi and c2.mkv: keep one of them)" in failed
    assert not path.is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            {"stream": "smells"},
            "the stream 'smells' cannot be extracted from videos; those that can are pixels, frames, ",
        ),
        ({"encoder": "r3d_18"}, "encoder r3d_18 does not make the stream pixels; the encoders that do are inception_r"),
        ({"fps": "-3"}, "command line: fps is -3, but must be greater than 0"),
        ({"batch": "0"}, "batch is 0, but must be at least 1"),
        ({"workers": "all"}, "workers is 'all', but must be a whole number"),
        ({"skip": "all"}, "skip is 'all', but must be one of failed"),
        ({"replace": "yes"}, "replace is 'yes', but must be true or false"),
        ({"encoder": "resnet"}, "there is no encoder 'resnet'"),
        ({"frames": "0"}, "frames is 0, but must be at least 1"),
        ({"frames": "many"}, "frames is 'many', but must be a whole number"),
        ({"checkpoint": "x"}, "checkpoint= makes the stream words, not pixels"),
        (
            {"stream": "words", "checkpoint": "x", "fps": "2"},
            "checkpoint= makes the stream words, fps= does not go with it",
        ),
        ({"videos": "nowhere"}, "there is no folder of videos at .*nowhere: name it with videos=FOLDER"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_mistakes_are_sentences(
    definition: DatasetDefinition,
    home: Home,
    words: dict[str, str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BENCH_HOME", str(home.root))
    asked = [f"{key}={value}" for key, value in ({"stream": "pixels"} | words).items()]
    assert main(["features", "extract", f"dataset={definition.path}", *asked]) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_what_nobody_says_is_asked_for(definition: DatasetDefinition, home: Home) -> None:
    definition.streams["pixels"].encoder = definition.streams["pixels"].videos = None
    with pytest.raises(
        BenchError, match=r"videos=, encoder= is missing, as in `bench features extract dataset=\S+dataset.yaml"
    ):
        extract(definition, "pixels", home)


def test_without_pyav_a_sentence_says_what_to_install(
    definition: DatasetDefinition, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(BenchError, match=r'PyAV, which is not installed \(.*\): pip install "captionbench\[extract\]"'):
        extract(definition, "pixels", home)


# -- as a method sees them ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 2**28], ids=["read clip by clip", "held in memory"])
def test_pixels_reach_a_batch_as_bytes(
    definition: DatasetDefinition, home: Home, tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "PIXEL_LIMIT", limit)
    loads: list[tuple[str, ...]] = []
    original = Cache.load
    monkeypatch.setattr(Cache, "load", lambda self, ids: (loads.append(tuple(ids)), original(self, ids))[1])
    prepare(definition, home, None, ["frames", "pixels"])
    words = ["methods=etenet:step2", f"dataset={tmp_path / 'dataset.yaml'}"]
    found = gather(cells(parse(words), home)[0].config, home, lambda captions: None)
    assert found.train.streams["pixels"].encoder == "shapes"
    assert ("c0", "c1", "c2") in loads, "frames are held in memory"
    loads.clear()
    with Cache(home.cache / "films" / "pixels.h5") as cache:
        for batch in found.train.reading(["pixels"]).epoch(0, 2, 1):
            assert batch.streams["pixels"].dtype == torch.uint8
            assert batch.masks["pixels"].all()
            for row, clip in enumerate(batch.clip_ids):
                np.testing.assert_array_equal(batch.streams["pixels"][row], cache.read(clip)[0])
    assert max(map(len, loads), default=0) == (2 if limit == 0 else 0), "no more clips are read than a batch has"
