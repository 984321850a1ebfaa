"""`bench caption`: what a trained method says of a video is what its cell said of the same clip; every fault is a sentence."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from drawn import SVG, Drawn
from record_factory import put_scored
from safetensors import safe_open
from safetensors.torch import save_file

import bench
from bench import BenchError
from bench.cell.captioner import Checkpoint, VideoCaptioner, VideoError, _recorded, find_videos
from bench.cell.checkpoint import CHECKPOINT
from bench.cell.fit import run_cell
from bench.cell.traces import ALTERNATIVES
from bench.cli.caption import Request, find_checkpoint
from bench.cli.main import main
from bench.declare.options import parse
from bench.declare.registry import dataset, read_definition
from bench.declare.settings import given
from bench.features.backends import need_timm
from bench.features.cache import Cache
from bench.features.extraction import Work
from bench.features.importers import import_stream
from bench.features.one_video import VideoStreams
from bench.features.specs import Preprocessing
from bench.features.video import read_frames, spans
from bench.home import Home
from bench.method import Search, StreamInfo
from bench.plan.cells import Cell, cells
from bench.plan.request import parse as parse_run
from bench.records.schema import Record
from bench.records.store import PREDICTIONS, all_records, cell_folder
from bench.run.prepare import extract, prepare
from bench.shapes import render_clip
from tests.pretended import pretended_gpu, with_the_cpus_torch

OPTIONS = {"seed": 3, "size": [8, 2, 2], "captions": 3}
METHODS = ("salstm", "vre:full", "hail:ha", "etenet:step2")
ROOT = Path(__file__).resolve().parents[2]
WHOLE = Preprocessing(64, None, "BILINEAR", 0.0, 1.0)
CLIP, OTHER = "shape0010", "shape0011"  # the test split


def film(path: Path, frames_TYX3: np.ndarray) -> Path:
    """A video without any loss: its frames are the pixels themselves."""
    av = pytest.importorskip("av", reason='needs pip install "captionbench[extract]"')
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height, stream.width = frames_TYX3.shape[1:3]
        stream.pix_fmt = "bgr0"
        for picture in frames_TYX3:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="bgr0")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("caption")
        patch.setenv("BENCH_HOME", str(root))
        patch.delenv("BENCH_CACHE", raising=False)
        yield Home(root)


@pytest.fixture(scope="module")
def trained(home: Home) -> dict[str, Cell]:
    """A cell of each method, hardly trained, on a small corpus of painted clips."""
    pytest.importorskip("av", reason='needs pip install "captionbench[extract]"')
    streams = {name: {} for name in ("frames", "spatial", "audio", "motion", "regions", "pixels")}
    content = {
        "name": "painted",
        "captions": [{"format": "shapes"}],
        "splits": "official",
        "options": OPTIONS,
        "streams": streams,
    }
    path = home.root / "dataset.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    prepare(dataset(str(path)), home)
    words = [f"methods=[{','.join(METHODS)}]", f"dataset={path}", "search.max_words=5"]
    words += ["model.width=16", "model.embedding=12", "model.attention=12"]
    words += ["train.epochs=4", "train.captions=6", "train.learning_rate=0.01"]  # enough to say something
    found = {}
    for cell in cells(parse_run(words), home):
        if not cell.config["absent_streams"]:  # no twins on frames alone
            run_cell(cell.config, str(home.root))
            found[cell.method] = cell
    return found


@pytest.fixture(scope="module")
def video(trained: dict[str, Cell], home: Home) -> Path:
    return film(home.root / "videos" / "a clip.mkv", render_clip(CLIP, OPTIONS))


@pytest.fixture
def salstm(trained: dict[str, Cell], home: Home) -> Path:
    return trained["salstm"].folder(home)


# -- what is said ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name.partition(":")[0] for name in METHODS])
def test_a_video_is_captioned_as_its_clip_was(trained: dict[str, Cell], home: Home, video: Path, method: str) -> None:
    """From the cache in the cell, from a file here: the same words, for frames, places, sound, regions, motion, pixels."""
    folder = trained[method].folder(home)
    said = {line["clip"]: line for line in map(json.loads, (folder / PREDICTIONS).read_text().splitlines())}
    found = bench.load(folder).caption(video)
    assert found.clip == str(video)
    assert found.text == said[CLIP]["caption"]
    assert found.log_probability == pytest.approx(said[CLIP]["log_probability"], abs=1e-4)
    assert abs(said[OTHER]["log_probability"] - said[CLIP]["log_probability"]) > 1e-3, "clips are told apart"
    others = {line["clip"]: line for line in map(json.loads, (folder / "work" / ALTERNATIVES).read_text().splitlines())}
    assert [text for text, _ in found.alternatives] == [text for text, _ in others[CLIP]["alternatives"]]
    values = [found.log_probability, *(value for _, value in found.alternatives)]
    assert len(values) == 5
    assert values == sorted(values, reverse=True)


@with_the_cpus_torch
@pytest.mark.parametrize("method", [name.partition(":")[0] for name in METHODS])
def test_a_gpu_says_the_same(trained: dict[str, Cell], home: Home, video: Path, method: str) -> None:
    """On a pretended one: the method and its encoders compute there, and nothing is left on the other side."""
    folder = trained[method].folder(home)
    caption = bench.load(folder).caption(video)
    with pretended_gpu() as seen:
        there = bench.load(folder, device="cuda").caption(video)
    assert not seen.mixed and seen.launches > 100
    assert there.text == caption.text and there.log_probability == pytest.approx(caption.log_probability, abs=1e-4)


def test_a_device_that_is_not_there_is_refused(salstm: Path, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for device, why in (("cuda", "but this process sees no GPU"), ("tpu", "must be auto, cpu, cuda or cuda:NUMBER")):
        assert main(["caption", str(video), f"checkpoint={salstm}", f"device={device}"]) == 2
        assert why in capsys.readouterr().err
        with pytest.raises(BenchError, match=why):
            bench.load(salstm, device=device)


def test_the_command_prints_captions_and_others_with_log_probabilities(
    trained: dict[str, Cell], home: Home, video: Path, salstm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    caption = bench.load(salstm / CHECKPOINT).caption(video)
    assert main(["caption", str(video), f"checkpoint={trained['salstm'].key[:8]}", "alternatives=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(video)
    others = caption.alternatives[:2]
    wanted = [(caption.text, caption.log_probability), *others]
    assert [line.split(maxsplit=1) for line in lines[1:]] == [[f"{value:.2f}", text] for text, value in wanted]


def test_two_files_of_weights_are_two_files(
    video: Path, salstm: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a detector and the network of its boxes' features need them; here one that needs none is reached with them."""
    for name in ("a.onnx", "b.safetensors"):
        (tmp_path / name).write_bytes(b"weights")
    both = f"weights.frames={tmp_path / 'a.onnx'},{tmp_path / 'b.safetensors'}"
    assert main(["caption", str(video), f"checkpoint={salstm}", both]) == 2
    assert "encoder shapes has weights of its own" in capsys.readouterr().err


def test_more_alternatives_than_beams_widen_the_beam_and_say_so(
    video: Path, salstm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", str(video), f"checkpoint={salstm}", "alternatives=6"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1 + 7
    assert "a beam of 7; the cell was scored with 5" in err
    assert main(["caption", str(video), f"checkpoint={salstm}", "search.beam=1", "search.max_words=2"]) == 0
    caption = capsys.readouterr().out.splitlines()[1:]
    assert len(caption) == 1
    assert len(caption[0].split()) <= 3
    assert bench.load(salstm).caption(video, search=Search(beam=1, max_words=2)).text == caption[0].split(maxsplit=1)[1]


def test_folders_lists_and_broken_videos(
    home: Home,
    video: Path,
    salstm: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = film(tmp_path / "deep" / "b.avi", render_clip(OTHER, OPTIONS))
    (tmp_path / "deep" / "a.mp4").write_bytes(b"")
    (tmp_path / "deep" / "notes.txt").write_text("no video")
    (tmp_path / "häßlich.mkv").write_bytes(video.read_bytes()[:3000])
    odd = os.fsencode(tmp_path) + b"/\xff.mp4"  # no UTF-8
    listed = b"\n".join([os.fsencode(video), b"", os.fsencode(tmp_path / "gone.mp4"), odd, os.fsencode(good), b""])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed)))
    assert main(["caption", str(tmp_path), "-", f"checkpoint={salstm}", "alternatives=0"]) == 1
    out, err = capsys.readouterr()
    named = [line for line in out.splitlines() if line and not line.startswith(" ")]
    assert named == [str(good), str(video)], "each once, in order; what is no video is not tried"
    assert f"{tmp_path / 'deep' / 'a.mp4'} cannot be decoded" in err
    assert f"{tmp_path / 'gone.mp4'}: there is no such file" in err
    assert "häßlich.mkv" in err
    assert "4 of 6 videos could not be captioned" in err


# -- pictures -------------------------------------------------------------------------------------------------------------


def test_pictures_show_what_was_looked_at(
    trained: dict[str, Cell], home: Home, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = film(tmp_path / "a clip.avi", render_clip(OTHER, OPTIONS))
    drawn = {}
    for method, cell in trained.items():
        folder = tmp_path / method
        more, names = ([str(twin)], ["a clip-2.svg", "a clip.svg"]) if method == "salstm" else ([], ["a clip.svg"])
        assert main(["caption", str(video), *more, f"checkpoint={cell.folder(home)}", f"explain={folder}"]) == 0
        assert [path.name for path in sorted(folder.iterdir())] == names
        assert f"picture: {folder / 'a clip.svg'}" in capsys.readouterr().out
        drawn[method] = Drawn((folder / "a clip.svg").read_text(encoding="utf-8"))
    said = bench.load(trained["vre"].folder(home)).caption(video)
    for method, picture in drawn.items():
        assert "a clip.mkv" in picture.texts
        assert len(picture.images()) >= 7, method
        names = [part.get("id") for part in picture.root.iter() if part.get("id")]
        assert len(names) == len(set(names)), "no part of a picture takes the name of another's"
    vre = drawn["vre"]
    assert len(vre.ids("part1-most")) == len(said.words) > 0
    assert vre.ids(f"part2-border-{said.traces['key_frame']}")
    places = [part for part in vre.root if part.tag == f"{SVG}svg"][3]
    assert len(list(places.iter(f"{SVG}image"))) == 1 + len(said.words), "the key frame, and once more for each word"
    assert "Regions" in drawn["hail"].texts
    assert "Key frame" not in drawn["etenet"].texts


# -- what made the features -------------------------------------------------------------------------------------------------


def without_maker(trained: Checkpoint, **more: Any) -> Checkpoint:
    """A checkpoint whose features came without a word of their making."""
    streams = {
        name: replace(info, encoder="", made_by={}, fingerprint="0" * 64, **more)
        for name, info in trained.streams.items()
    }
    return replace(trained, streams=streams)


def test_features_of_an_unknown_encoder_need_a_word_of_the_user(video: Path, salstm: Path) -> None:
    own = bench.load(salstm)
    assert own.streams["frames"].made_by["name"] == "shapes"
    blind = without_maker(own)
    with pytest.raises(BenchError, match=r"nothing says which encoder made the stream frames \(20x256\).*encoder=NAME"):
        blind.caption(video)
    assert blind.caption(video, encoder="shapes").text == own.caption(video).text
    assert blind.caption(video, encoder={"frames": "shapes"}).text == own.caption(video).text
    with pytest.raises(BenchError, match=r"there is no encoder 'nobody'"):
        blind.caption(video, encoder="nobody")
    with pytest.raises(BenchError, match=r"encoder\.motion: the method reads frames, not motion"):
        blind.caption(video, encoder={"motion": "shapes"})
    with pytest.raises(BenchError, match=r"encoder=mobilenetv2_100, but shapes made the stream frames"):
        own.caption(video, encoder="mobilenetv2_100")
    with pytest.raises(BenchError, match="encoder shapes has weights of its own"):
        own.caption(video, weights="x.safetensors")


def test_a_checkpoint_of_before_asks_the_cache_beside_it(video: Path, salstm: Path, tmp_path: Path) -> None:
    """Checkpoints that name no maker are told by the cache with the same fingerprint."""
    with safe_open(salstm / CHECKPOINT, framework="pt") as file:
        state, metadata = {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118
    streams = yaml.safe_load(metadata["streams"])
    del streams["frames"]["made_by"]
    streams["frames"]["encoder"] = ""
    save_file(state, tmp_path / "old.safetensors", metadata={**metadata, "streams": json.dumps(streams)})
    old = bench.load(tmp_path / "old.safetensors")
    assert old.streams["frames"].made_by == {}
    assert old.caption(video).text == bench.load(salstm).caption(video).text


def test_weights_are_those_that_made_the_features(tmp_path: Path) -> None:
    info = StreamInfo("frames", (28, 1280), True, "0" * 64, "mobilenetv2_100", {"name": "mobilenetv2_100"})
    with pytest.raises(BenchError, match=r"no weights to download: name their file with weights=FILE"):
        VideoStreams({"frames": info}).read("frames", tmp_path / "x.mp4")
    with pytest.raises(BenchError, match=r"weights=gone.safetensors: there is no such file"):
        VideoStreams({"frames": info}, weights={"": "gone.safetensors"}).read("frames", tmp_path / "x.mp4")
    digest = f"sha256:{'a' * 64}"
    known = replace(info, made_by={"name": "mobilenetv2_100", "weights": digest})
    with pytest.raises(BenchError, match=rf"by mobilenetv2_100 with weights {digest}: name their file"):
        VideoStreams({"frames": known}).read("frames", tmp_path / "x.mp4")
    (tmp_path / "other.safetensors").write_bytes(b"other")
    with pytest.raises(BenchError, match=rf"has sha256:d9298a10.*was made with {digest}"):
        VideoStreams({"frames": known}, weights={"frames": str(tmp_path / "other.safetensors")}).read(
            "frames", tmp_path / "x.mp4"
        )


def test_streams_that_no_video_gives_and_other_sizes_are_told(video: Path) -> None:
    motion = StreamInfo("motion", (40, 4096), True, "0" * 64, "mobilenetv2_100")
    with pytest.raises(BenchError, match="encoder mobilenetv2_100 does not make the stream motion"):
        VideoStreams({"motion": motion}).read("motion", video)
    words = StreamInfo("words", (300,), False, "0" * 64, "mobilenetv2_100")
    with pytest.raises(BenchError, match="stream 'words' cannot be extracted from videos"):
        VideoStreams({"words": words}).read("words", video)
    wide = StreamInfo("frames", (20, 1536), True, "0" * 64, "shapes")
    with pytest.raises(BenchError, match=r"comes out as 20x256, but the method was trained on 20x1536"):
        VideoStreams({"frames": wide}).read("frames", video)
    other = StreamInfo("pixels", (4, 3, 64, 64), True, "0" * 64, "shapes", {"name": "shapes", "resize": [32, 32]})
    with pytest.raises(BenchError, match=r"made of frames with resize \[32, 32\], and encoder shapes .* \[64, 64\]"):
        VideoStreams({"pixels": other}).read("pixels", video)


@pytest.mark.parametrize("stream", ["spatial", "frames"])
def test_a_stream_is_made_as_the_extraction_made_it(video: Path, tmp_path: Path, stream: str) -> None:
    """Bit for bit, by what the cache says of its making; other weights are refused by the digest of all their values."""
    try:
        need_timm("mobilenetv2_100")
    except BenchError as error:
        pytest.skip(str(error))
    (tmp_path / "captions.jsonl").write_text(json.dumps({"clip": video.stem, "caption": "a dog"}))
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.txt").write_text(f"{video.stem}\n" if split == "train" else "")
    content = {
        "name": "films",
        "captions": [{"format": "jsonl", "files": {"captions": "captions.jsonl"}}],
        "splits": {split: f"{split}.txt" for split in ("train", "val", "test")},
        "streams": {stream: {"videos": str(video.parent), "frames": 3, "encoder": "mobilenetv2_100"}},
    }
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(content))
    own, work = dataset(str(tmp_path / "dataset.yaml")), Work(workers=0)
    path, failed = extract(own, stream, Home(tmp_path / "home"), {"weights": "random"}, work)
    assert failed == ""
    with Cache(path) as cache:
        info = StreamInfo(stream, cache.shape, cache.timed, cache.fingerprint, cache.encoder, cache.made_by)
        assert np.array_equal(VideoStreams({stream: info}).read(stream, video), cache.read(video.stem)[0])
    other = replace(info, made_by={**info.made_by, "digest": f"sha256:{'b' * 64}"})
    with pytest.raises(BenchError, match="the weights of encoder mobilenetv2_100 are not those that made the stream"):
        VideoStreams({stream: other}).read(stream, video)


def test_a_stream_is_scaled_and_kept_as_its_import_did(video: Path, tmp_path: Path, home: Home) -> None:
    """Of vectors of length 1, which a method was trained on, plain ones of another video would be nonsense."""
    plain = StreamInfo("frames", (20, 256), True, "0" * 64, "shapes")
    vectors = VideoStreams({"frames": plain}).read("frames", video).astype("float32")
    (tmp_path / "frames").mkdir()
    np.save(tmp_path / "frames" / "a.npy", vectors)
    (tmp_path / "captions.jsonl").write_text('{"clip": "a", "caption": "a dog"}')
    content = {
        "name": "unit",
        "captions": [{"format": "jsonl", "files": {"captions": "captions.jsonl"}}],
        "splits": {"first": [1, 0, 0]},
        "streams": {"frames": {"source": "frames", "l2": True, "dtype": "float32", "encoder": "shapes"}},
    }
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(content))
    path = import_stream(read_definition(tmp_path / "dataset.yaml"), "frames", Home(tmp_path / "home"), ["a"])
    with Cache(path) as cache:
        info = StreamInfo("frames", cache.shape, cache.timed, cache.fingerprint, cache.encoder, cache.made_by)
        kept, _ = cache.read("a")
    again = VideoStreams({"frames": info}).read("frames", video)
    assert again.dtype == np.float32 and np.allclose(np.linalg.norm(again, axis=-1), 1)
    assert np.abs(again - kept).max() < 1e-3 < np.abs(vectors - kept).max()
    before = replace(info, made_by={"name": "shapes"})  # as checkpoints say it that were trained before
    shutil.copytree(path.parent, home.cache / "unit")
    assert _recorded({"frames": before}, "unit")["frames"].made_by == info.made_by


# -- what was asked for -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["v.mp4"], "checkpoint is missing, such as checkpoint="),
        (["checkpoint=x"], "name videos or a folder"),
        (["v.mp4", "checkpoint=x", "beam=3"], 'unknown key "beam"'),
        (["v.mp4", "checkpoint=x", "search.clips=3"], 'unknown key "search.clips"'),
        (["v.mp4", "checkpoint=x", "search.beam=0"], "beam is 0, but must be at least 1"),
        (["v.mp4", "checkpoint=x", "alternatives=some"], "alternatives is 'some'"),
        (["v.mp4", "checkpoint=x", "alternatives=5", "search.beam=5"], "say search.beam=6 or leave it out"),
        (["v.mp4", "checkpoint=x", "weights=[a,b]"], "weights is ['a', 'b'], but must be text"),
        (["v.mp4", "checkpoint=x", "explain=[a,b]"], "explain is ['a', 'b'], but must be text"),
        (["v.mp4", "--loud", "checkpoint=x"], 'unknown flag "--loud"'),
    ],
)
def test_requests_that_are_not_understood(
    words: list[str], told: str, home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", *words]) == 2
    assert told in capsys.readouterr().err


def test_words_of_a_request() -> None:
    words = ["a.mp4", "checkpoint=402034cc", "weights=w.safetensors", "weights.motion=m.safetensors", "explain=true"]
    found = parse(Request, [*words, "search.length_rule=mean"])
    assert found.weights == {"": "w.safetensors", "motion": "m.safetensors"}
    assert found.explain == "explained"
    assert given(found.search) == {"length_rule": "mean"}
    assert parse(Request, ["a.mp4", "checkpoint=x", "explain=false"]).explain is None


def test_checkpoints_that_are_not_there(trained: dict[str, Cell], home: Home, salstm: Path, tmp_path: Path) -> None:
    assert find_checkpoint(str(salstm), home) == find_checkpoint(trained["salstm"].key, home) == salstm / CHECKPOINT
    with pytest.raises(BenchError, match=r"there is no checkpoint .*gone\.safetensors"):
        find_checkpoint(str(tmp_path / "gone.safetensors"), home)
    with pytest.raises(BenchError, match='no row or record is called "nothing"'):
        find_checkpoint("nothing", home)
    aside = (salstm / CHECKPOINT).rename(salstm / "aside")
    try:
        with pytest.raises(BenchError, match="checkpoints are not published: move its folder away"):
            find_checkpoint(trained["salstm"].key[:6], home)
    finally:
        aside.rename(salstm / CHECKPOINT)


def test_a_folder_without_videos_and_a_file_that_is_gone(salstm: Path, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="holds no videos"):
        find_videos([str(tmp_path)])
    with pytest.raises(VideoError, match=r"gone\.mp4: there is no such file"):
        VideoCaptioner(bench.load(salstm)).caption(tmp_path / "gone.mp4")


# -- part by part ---------------------------------------------------------------------------------------------------------


def test_a_long_video_is_captioned_part_by_part_into_subtitles(
    trained: dict[str, Cell], home: Home, salstm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two clips in one film: each part gets the caption of its clip, in the terminal and in three files."""
    clips = [render_clip(clip, OPTIONS) for clip in (CLIP, OTHER)]
    long = film(home.root / "long" / "two & more.mkv", np.concatenate(clips))
    every = len(clips[0]) / 10  # film() writes ten frames a second
    folder = home.root / "subtitles"
    words = ["caption", str(long), f"checkpoint={salstm}", f"every={every:g}s", f"into={folder}"]
    assert main(words) == 0
    said = capsys.readouterr().out
    lines = [json.loads(line) for line in (folder / "two & more.jsonl").read_text().splitlines()]
    assert [(line["start"], line["end"]) for line in lines] == [(0, every), (every, pytest.approx(2 * every))]
    recorded = {line["clip"]: line for line in map(json.loads, (salstm / PREDICTIONS).read_text().splitlines())}
    for line, clip in zip(lines, (CLIP, OTHER), strict=True):
        assert line["caption"] == recorded[clip]["caption"]
        assert line["log_probability"] == pytest.approx(recorded[clip]["log_probability"], abs=1e-4)
        assert line["caption"] in said
    srt = (folder / "two & more.srt").read_text().split("\n")
    assert srt[:2] == ["1", f"00:00:00,000 --> 00:00:0{every:.3f}".replace(".", ",")]
    vtt = (folder / "two & more.vtt").read_text()
    assert vtt.startswith(f"WEBVTT\n\n00:00:00.000 --> 00:00:0{every:.3f}\n{lines[0]['caption']}\n\n")


def test_a_part_too_short_for_a_caption_goes_with_the_one_before(home: Home, trained: dict[str, Cell]) -> None:
    frames = np.repeat(render_clip(CLIP, OPTIONS)[:1], 24, axis=0)
    short = film(home.root / "long" / "short.mkv", frames)
    assert spans(short, 1.0) == [(0.0, 1.0), (1.0, pytest.approx(2.4))]
    assert spans(short, 0.9) == [(0.0, 0.9), (0.9, 1.8), (1.8, pytest.approx(2.4))]
    assert spans(short, 60) == [(0.0, pytest.approx(2.4))]


def test_the_memory_of_a_video_in_parts_does_not_grow_with_its_length(home: Home, salstm: Path) -> None:
    """Of two videos, one eight times as long, no more frames are held at once."""
    held = []
    for parts in (2, 16):
        long = film(home.root / "long" / f"{parts}.mkv", np.concatenate([render_clip(CLIP, OPTIONS)] * parts))
        captioner = VideoCaptioner(bench.load(salstm))
        every = len(render_clip(CLIP, OPTIONS)) / 10
        captioner.caption(long, (0.0, every))
        tracemalloc.start()
        for span in captioner.parts(long, every):
            captioner.caption(long, span)
        held.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert held[1] < 1.2 * held[0] + 2**16


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["every=soon"], "every=soon, but it must be seconds above 0, such as 10s"),
        (["every=0s"], "every=0s, but it must be seconds above 0"),
        (["every=10s", "explain=true"], "a picture is of a video as a whole"),
        (["into=here"], "into=, which goes with every="),
    ],
)
def test_parts_that_cannot_be_are_refused(
    video: Path, salstm: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["caption", str(video), f"checkpoint={salstm}", *words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_video_that_breaks_off_leaves_no_subtitles(
    salstm: Path, home: Home, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(video.read_bytes()[:3000])
    words = ["caption", str(broken), str(video), f"checkpoint={salstm}", "every=10", f"into={tmp_path / 'out'}"]
    assert main(words) == 1
    assert "broken.mkv" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a clip.jsonl", "a clip.srt", "a clip.vtt"]


def test_the_example_of_the_readme_runs_as_it_is_printed(
    trained: dict[str, Cell],
    home: Home,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its two lines, with a cell that is trained here in place of the demo's."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.partition("## Caption your own video")[2].partition("\n    ")[2].partition("\n\n")[0]
    render, caption = (line.strip() for line in block.splitlines())
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        [sys.executable, *render.split()[1:]],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (render.split()[0], done.returncode, done.stderr) == ("python", 0, "")
    np.testing.assert_array_equal(
        read_frames(tmp_path / "shape1100.mkv", 20, WHOLE)[0].transpose(1, 2, 0), render_clip("shape1100")[0]
    )
    words = caption.split()
    assert words[-1] == "checkpoint=shapes/recnet"
    assert main([*words[1:-1], "checkpoint=painted/salstm"]) == 0
    assert capsys.readouterr().out.startswith("shape1100.mkv\n  ")


def cells_by_seed(home: Home) -> dict[int, Record]:
    return {record.seed: record for record in all_records(home.results)}


def test_the_newest_cell_of_a_method_is_found_by_its_data_set(
    trained: dict[str, Cell], home: Home, tmp_path: Path
) -> None:
    folder = trained["vre"].folder(home)
    assert find_checkpoint("painted/vre", home) == find_checkpoint("painted/vre:full", home) == folder / CHECKPOINT
    with pytest.raises(
        BenchError, match=r"data set painted has no trained cell of method vre:other under .*; bench run methods"
    ):
        find_checkpoint("painted/vre:other", home)
    later = Home(tmp_path)
    for number, day in ((0, 3), (1, 7), (2, 5)):
        facts = {"finished": f"2026-01-0{day}T00:00:00+00:00", "started": "2026-01-01T00:00:00+00:00"}
        one = put_scored(later.results, [20.0, 30.0], seed=number)
        place = cell_folder(later.results, one)
        record = json.loads((place / "record.json").read_text())
        record["provenance"] = json.loads((folder / "record.json").read_text())["provenance"] | facts
        (place / "record.json").write_text(json.dumps(record))
        if number:
            (place / CHECKPOINT).touch()
        else:
            with pytest.raises(BenchError, match="none of the 1 cells of toy/salstm has its checkpoint here"):
                find_checkpoint("toy/salstm", later)
    assert find_checkpoint("toy/salstm", later).parent == cell_folder(later.results, cells_by_seed(later)[1])
