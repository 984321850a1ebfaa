"""From videos to every stream that they can be made into, with every fault of clips, weights and caches named."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

pytest.importorskip("av", reason='needs pip install "captionbench[extract]"')

from films import film, song

from bench import BenchError
from bench.cli.main import main
from bench.declare.dataset import Clip, DatasetDefinition
from bench.declare.registry import read_definition
from bench.features.backends import need_timm, need_torchvision
from bench.features.cache import Cache
from bench.features.check import check_cache
from bench.features.encoders import load_encoder
from bench.features.extract import Extractor
from bench.features.extraction import Extraction, Work, as_recorded
from bench.features.footage import Footage, find_footage
from bench.features.importers import source_ids
from bench.features.regions import load_detector
from bench.features.sidecar import cache_path, read_sidecar, sidecar_path
from bench.features.specs import spec_of
from bench.features.video import Sampling, read_frames
from bench.home import Home
from bench.run.prepare import extract, prepare

HERE = Work(workers=0)
ANEW = Work(workers=0, replace=True)
CLIPS = [f"c{number}" for number in range(5)]
YAML = """
name: films
captions: [{format: jsonl, files: {captions: captions.jsonl}}]
splits: {train: train.txt, val: val.txt, test: test.txt}
streams:
  frames: {videos: videos, frames: 4, encoder: shapes}
"""


@pytest.fixture
def definition(tmp_path: Path) -> DatasetDefinition:
    lines = [json.dumps({"clip": clip, "caption": text}) for clip in CLIPS for text in ("a dog runs", "a cat sleeps")]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    for split, clips in (("train", CLIPS[:3]), ("val", CLIPS[3:4]), ("test", CLIPS[4:])):
        (tmp_path / f"{split}.txt").write_text("\n".join(clips))
    for number, clip in enumerate(CLIPS):
        film(tmp_path / "videos" / f"{clip}.mkv", 10 + number)
    (tmp_path / "dataset.yaml").write_text(YAML)
    return read_definition(tmp_path / "dataset.yaml")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def need(what: Any, name: str) -> None:
    try:
        what(name)
    except BenchError as error:
        pytest.skip(str(error))


def values(path: Path) -> dict[str, np.ndarray]:
    with Cache(path) as cache:
        return {clip: cache.read(clip)[0] for clip in cache.ids}


# -- frames -------------------------------------------------------------------------------------------------------------


def test_frames_are_what_the_encoder_makes_of_the_decoded_frames(
    definition: DatasetDefinition, home: Home, tmp_path: Path
) -> None:
    path, failed = extract(definition, "frames", home, work=HERE)
    assert failed == ""
    assert check_cache(path, CLIPS) == []
    encoder = load_encoder("shapes")
    for clip, found in values(path).items():
        pixels = read_frames(tmp_path / "videos" / f"{clip}.mkv", 4, encoder.spec.preprocessing)
        with torch.inference_mode():
            own = encoder(torch.from_numpy(pixels)).numpy()
        np.testing.assert_array_equal(found, own.astype(np.float16))
    made = read_sidecar(path)["encoder"]
    assert (made["name"], made["weights"], made["frames"], made["mean"]) == ("shapes", "fixed", 4, 0.0)
    assert made["digest"].startswith("sha256:")
    prepare(definition, home, None, ["frames"])


def test_batches_and_processes_change_nothing(definition: DatasetDefinition, tmp_path: Path) -> None:
    found = [
        values(extract(definition, "frames", Home(tmp_path / str(number)), work=work)[0])
        for number, work in enumerate((HERE, Work(batch=3, workers=2), Work(batch=1, workers=1)))
    ]
    for clip in CLIPS:
        for other in found[1:]:
            np.testing.assert_allclose(other[clip].astype(np.float32), found[0][clip].astype(np.float32), atol=1e-3)
    marks = [
        read_sidecar(extract(definition, "frames", Home(tmp_path / name), {"workers": workers})[0])["fingerprint"]
        for name, workers in (("one", "0"), ("two", "2"))
    ]
    assert marks[0] == marks[1], "two extractions give the same bytes"


def test_a_fixed_rate_gives_as_many_frames_as_the_clip_has(definition: DatasetDefinition, home: Home) -> None:
    path, _ = extract(definition, "frames", home, {"fps": 5.0, "frames": 3}, HERE)
    with Cache(path) as cache:
        assert cache.shape == (3, 256)
        lengths = [cache.read(clip)[1] for clip in CLIPS]
    assert lengths == [2, 3, 3, 3, 3], "10 frames at 25 a second last 0.36 s, 11 last 0.4 s: one more fits"


def test_the_extractor_of_a_cache_makes_the_same_of_one_more_video(
    definition: DatasetDefinition, home: Home, tmp_path: Path
) -> None:
    path, _ = extract(definition, "frames", home, work=HERE)
    said = read_sidecar(path)
    again = Extractor(as_recorded("frames", tuple(said["shape"]), said["encoder"]))
    found = again.streams(Footage(tmp_path / "videos" / "c3.mkv"))["frames"]
    np.testing.assert_array_equal(found.astype(np.float16), values(path)["c3"])
    with pytest.raises(BenchError, match="do not say which encoder made them: say encoder=NAME"):
        as_recorded("frames", (4, 256), {})


# -- which video ----------------------------------------------------------------------------------------------------------


def test_clips_are_whole_videos_or_parts_of_longer_ones(tmp_path: Path) -> None:
    for name in ("abc_3_5.avi", "xyz.mkv", "v_1.mp4", "plain.webm"):
        (tmp_path / name).touch()
    clips = {
        "vid1": Clip("vid1", "abc_3_5"),
        "vid2": Clip("vid2", "xyz_10_25"),
        "v_1#0": Clip("v_1#0", "v_1", 1.5, 2.0),
        "v_2#0": Clip("v_2#0", "v_2", 1.5, 2.0),
        "p": Clip("p", "plain"),
    }
    found, faults = find_footage(tmp_path, clips, {"abc_3_5": "vid1", "xyz_10_25": "vid2"})
    assert found == {
        "vid1": Footage(tmp_path / "abc_3_5.avi"),
        "vid2": Footage(tmp_path / "xyz.mkv", (10.0, 25.0)),
        "v_1#0": Footage(tmp_path / "v_1.mp4", (1.5, 2.0)),
        "p": Footage(tmp_path / "plain.webm"),
    }
    assert faults == {"v_2#0": f"no video in {tmp_path} is named after it"}
    (tmp_path / "plain.webm").rename(tmp_path / "p.webm")
    shown, _ = find_footage(tmp_path, clips, {"p": "vid1", "abc_3_5": "vid1"})
    assert shown["p"] == Footage(tmp_path / "p.webm") and shown["vid1"] == found["vid1"], (
        "an id goes before other names"
    )


# -- clips that fail ------------------------------------------------------------------------------------------------------


def spoil(folder: Path) -> None:
    """Of five clips, one is empty and one has no pictures."""
    (folder / "c1.mkv").write_bytes(b"")
    song(folder / "c3.wav").rename(folder / "c3.mkv")


def test_the_cache_is_finished_without_failed_clips_only_where_that_is_asked_for(
    definition: DatasetDefinition, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("BENCH_HOME", str(home.root))
    spoil(tmp_path / "videos")
    words = ["features", "extract", f"dataset={definition.path}", "stream=frames", "workers=0"]
    assert main(words) == 1
    said = capsys.readouterr().err
    for part in ("2 of 5 clips could not be extracted", "c1: c1.mkv cannot be decoded", "c3: c3.mkv has no pictures"):
        assert part in said
    assert main([*words, "skip=failed"]) == 0
    assert "the cache was finished without them" in capsys.readouterr().out
    path = home.cache / "films" / "frames.h5"
    with Cache(path) as cache:
        assert cache.ids == ("c0", "c2", "c4")
        assert cache.left_out == ("c1", "c3")
        with pytest.raises(BenchError, match="clip c1 is not among the 3 clips"):
            cache.read("c1")
    assert [finding.clips for finding in check_cache(path, CLIPS)] == [("c1", "c3")]
    assert check_cache(path) == []
    assert read_sidecar(path)["clips"] == 3
    assert source_ids(definition, "frames", home) == ("c0", "c2", "c4"), "what subset: {from_stream: frames} takes"
    stamp = path.stat().st_mtime_ns
    assert main([*words, "skip=failed"]) == 0
    assert path.stat().st_mtime_ns == stamp
    for clip in ("c1", "c3"):
        film(tmp_path / "videos" / f"{clip}.mkv", 12)
    for clip in ("c0", "c2", "c4"):
        (tmp_path / "videos" / f"{clip}.mkv").unlink()
    assert main(words) == 0, "what is there is taken over, only mended clips are decoded"
    assert check_cache(path, CLIPS) == []


def test_nothing_is_finished_where_every_clip_failed(definition: DatasetDefinition, home: Home, tmp_path: Path) -> None:
    for clip in CLIPS:
        (tmp_path / "videos" / f"{clip}.mkv").write_bytes(b"")
    path, failed = extract(definition, "frames", home, work=Work(workers=0, skip=True))
    assert "5 of 5 clips could not be extracted" in failed
    assert not path.is_file()


def test_features_that_are_no_numbers_are_a_fault_of_their_clip(
    definition: DatasetDefinition, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Extractor.encode

    def encode(self: Extractor, found: np.ndarray) -> dict[str, np.ndarray]:
        made = original(self, found)
        if found.mean() > 80:  # the brightest films alone
            made["frames"][1, 3] = np.inf
        return made

    monkeypatch.setattr(Extractor, "encode", encode)
    path, failed = extract(definition, "frames", home, work=HERE)
    assert "cannot be stored, 1 of 1024 values are NaN or infinite" in failed
    assert not path.is_file()


def test_a_killed_extraction_loses_the_clip_in_flight_at_most(definition: DatasetDefinition, home: Home) -> None:
    program = (
        "import time, sys; import bench.features.decoders as d; from bench.cli.main import main\n"
        "read = d.read_views\n"
        "def slow(path, *rest):\n"
        "    print('reads', path.stem, flush=True); time.sleep(0.3); return read(path, *rest)\n"
        "d.read_views = slow\n"
        f"main(['features', 'extract', 'dataset={definition.path}', 'stream=frames', 'workers=0'])"
    )
    environment = {**os.environ, "BENCH_HOME": str(home.root)}
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    for line in child.stdout:
        if line.strip() == "reads c3":
            break
    time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with h5py.File(home.cache / "films" / "frames.h5.tmp", locking=False) as file:
        assert file["done"][...].tolist() == [1, 1, 1, 0, 0]
    path, failed = extract(definition, "frames", home, work=HERE)
    assert failed == ""
    assert check_cache(path, CLIPS) == []


def test_a_cache_whose_writer_was_killed_before_its_sidecar_is_used(definition: DatasetDefinition, home: Home) -> None:
    prepare(definition, home, None, ["frames"])
    path = cache_path(home, "films", "frames")
    before, written = sidecar_path(path).read_bytes(), path.stat().st_mtime_ns
    sidecar_path(path).unlink()
    prepare(definition, home, None, ["frames"])
    assert json.loads(sidecar_path(path).read_bytes()) == json.loads(before)
    assert path.stat().st_mtime_ns == written


def test_a_full_disk_is_a_sentence_and_what_was_written_is_kept(
    definition: DatasetDefinition, home: Home, tmp_path: Path
) -> None:
    child = os.fork()
    if child == 0:
        code = 9
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_065_000, 1_065_000))
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            extract(definition, "frames", home, work=HERE)
        except BenchError as error:
            (tmp_path / "said").write_text(str(error))
            code = 7
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    said = (tmp_path / "said").read_text()
    assert "the disk or quota is full while writing" in said
    assert "`bench features extract dataset=FILE.yaml stream=frames`" in said
    path, failed = extract(definition, "frames", home, work=HERE)
    assert failed == ""
    assert check_cache(path, CLIPS) == []


# -- caches and weights that do not fit ---------------------------------------------------------------------------------


def test_a_cache_that_was_made_otherwise_makes_room_only_where_told(definition: DatasetDefinition, home: Home) -> None:
    path, _ = extract(definition, "frames", home, work=HERE)
    with pytest.raises(BenchError, match=r"made otherwise \(frames 4 instead of 2\).* or say replace=true"):
        extract(definition, "frames", home, {"frames": 2}, HERE)
    with pytest.raises(BenchError, match=r"weights fixed instead of random"):
        extract(definition, "frames", home, {"weights": "random"}, HERE)
    extract(definition, "frames", home, {"fps": 5.0}, ANEW)
    with pytest.raises(BenchError, match=r"made otherwise \(fps 5\.0 instead of None\)"):
        extract(definition, "frames", home, work=HERE)
    path, _ = extract(definition, "frames", home, {"frames": 2}, ANEW)
    with Cache(path) as cache:
        assert cache.shape == (2, 256)


def test_silent_videos_are_told_of_silence_which_the_failed_attempt_does_not_bar(
    definition: DatasetDefinition, home: Home
) -> None:
    asked = {"videos": str(definition.resolve("videos", home)), "encoder": "yamnet", "weights": "random"}
    path, said = extract(definition, "audio", home, asked, HERE)
    assert "has no sound track" in said and "silence=true counts clips without sound as silent" in said
    assert not path.is_file()
    path, said = extract(definition, "audio", home, {**asked, "silence": True}, HERE)
    assert said == "" and path.is_file()


def test_weights_from_a_file_are_keyed_by_content(
    definition: DatasetDefinition, home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = load_encoder("shapes", "random").network
    save_file(dict(network.state_dict()), tmp_path / "w.safetensors")
    path, _ = extract(definition, "frames", home, {"weights": str(tmp_path / "w.safetensors")}, HERE)
    own = values(path)
    assert read_sidecar(path)["encoder"]["weights"].startswith("sha256:")
    path, _ = extract(definition, "frames", home, {"weights": "random"}, ANEW)
    assert read_sidecar(path)["encoder"]["weights"] == "random"
    assert "the weights are random, which is for tests only" in capsys.readouterr().out
    for clip, found in values(path).items():
        np.testing.assert_array_equal(found, own[clip])
    with pytest.raises(BenchError, match=r"there is no file of weights .*gone.safetensors"):
        extract(definition, "frames", home, {"weights": str(tmp_path / "gone.safetensors")}, HERE)
    save_file({"conv.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(
        BenchError, match=r"holds no weights of encoder shapes: it lacks edges.weight.*besides conv.weight"
    ):
        extract(definition, "frames", home, {"weights": str(tmp_path / "other.safetensors")}, ANEW)


# -- the other streams ----------------------------------------------------------------------------------------------------


def extraction(stream: str, encoder: str, sampling: Sampling | None, **more: Any) -> Extraction:
    return Extraction("films", stream, Path(), sampling, spec_of(encoder), "random", **more)


def test_maps_and_classes_of_any_network_of_timm(tmp_path: Path) -> None:
    need(need_timm, "test_resnet")
    footage = Footage(film(tmp_path / "x.mkv", 9, width=96))
    spec = spec_of("test_resnet")
    pixels = torch.from_numpy(read_frames(footage.path, 3, spec.preprocessing))
    maps = load_encoder("test_resnet", "random", gives="maps")
    with torch.inference_mode():
        own = maps(pixels).mean(dim=0).flatten(1).T
    found = Extractor(extraction("spatial", "test_resnet", Sampling(3)), batch=2)
    np.testing.assert_allclose(found.streams(footage)["spatial"], own.numpy(), atol=1e-5)
    assert found.shapes == {"spatial": (tuple(own.shape), False, "float16")}
    classes = Extractor(extraction("objects", "test_resnet", Sampling(1, centred=True)))
    probabilities = classes.streams(footage)["objects"]
    assert probabilities.shape == (1000,)
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    patches = Extractor(extraction("spatial", "test_vit", Sampling(3)))
    assert patches.streams(footage)["spatial"].shape[0] == 100, "160x160 in patches of 16"
    with pytest.raises(
        BenchError, match=r"timm knows no weights 'resnet18\.nowhere': name the network alone, resnet18"
    ):
        spec_of("resnet18.nowhere")


def test_motion_and_actions_read_runs_of_frames(tmp_path: Path) -> None:
    need(need_torchvision, "r3d_18")
    footage = Footage(film(tmp_path / "x.mkv", 20))
    motion = Extractor(extraction("motion", "r3d_18", Sampling(2, window=16)), batch=1)
    assert motion.shapes == {"motion": ((2, 512), True, "float16")}
    runs = motion.reader(footage)
    assert runs.shape == (2, 16, 3, 112, 112)
    found = motion.encode(runs)["motion"]
    network = motion.encoder.network  # type: ignore[union-attr]
    scale = motion.extraction.encoder.preprocessing
    mean, deviation = (torch.tensor(value).view(3, 1, 1, 1) for value in (scale.mean, scale.deviation))
    with torch.inference_mode():
        own = network((torch.from_numpy(runs[0]).transpose(0, 1).float() - mean)[None] / deviation)
    np.testing.assert_allclose(found[0], own[0].numpy(), atol=1e-5)
    save_file({**network.state_dict(), "fc.weight": torch.zeros(400, 512), "fc.bias": torch.zeros(400)}, tmp_path / "w")
    assert load_encoder("r3d_18", str(tmp_path / "w")).spec.window == 16
    classes = load_encoder("r3d_18", str(tmp_path / "w"), gives="classes")
    with torch.inference_mode():
        assert classes(torch.from_numpy(runs[:1])).tolist() == [pytest.approx([1 / 400] * 400)]


def test_c3d_and_vggish_have_the_published_sizes(tmp_path: Path) -> None:
    from bench.features.networks import C3D, VGGish

    with torch.device("meta"):
        sizes = {name: sum(value.numel() for value in kind.parameters()) for name, kind in
                 (("c3d", C3D()), ("sports", C3D(487)), ("vggish", VGGish()))}  # fmt: skip
        assert C3D()(torch.zeros(2, 3, 16, 112, 112)).shape == (2, 4096)
        assert C3D(487)(torch.zeros(2, 3, 16, 112, 112)).shape == (2, 487)
        assert VGGish()(torch.zeros(5, 1, 96, 64)).shape == (5, 128)
    convolutions = 27_655_936  # 3x3x3: 3-64-128-256-256-512-512-512-512
    assert sizes["c3d"] == convolutions + 8192 * 4096 + 4096
    assert sizes["sports"] == sizes["c3d"] + 4096 * 4096 + 4096 + 4096 * 487 + 487
    assert sizes["vggish"] == 72_141_184


def test_audio_is_the_mean_over_its_examples_and_silence_fails_unless_told(tmp_path: Path) -> None:
    heard = Extractor(extraction("audio", "vggish", None), batch=2)
    examples = heard.reader(Footage(song(tmp_path / "x.wav", 3.2)))
    assert examples.shape == (3, 1, 96, 64)
    assert heard.shapes == {"audio": ((128,), False, "float16")}
    with torch.inference_mode():
        own = heard.encoder.network(torch.from_numpy(examples)).mean(dim=0)  # type: ignore[union-attr]
    np.testing.assert_allclose(heard.encode(examples)["audio"], own.numpy(), atol=1e-5)
    mute = Footage(film(tmp_path / "mute.mkv", 3))
    with pytest.raises(ValueError, match=r"mute\.mkv has no sound track"):
        heard.reader(mute)
    told = extraction("audio", "vggish", None, silence=True)
    np.testing.assert_allclose(told.reader(mute), np.log(0.01), atol=1e-5)


def test_regions_are_the_surest_boxes_and_what_is_seen_in_them() -> None:
    need(need_torchvision, "fasterrcnn_mobilenet_v3_large_fpn")
    finder = load_detector("fasterrcnn_mobilenet_v3_large_fpn", "random", 6)
    finder.network.transform.min_size = (96,)
    frames = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = finder(frames)
        alone = finder(frames[1:])
    assert {name: tuple(value.shape) for name, value in found.items()} == {"regions": (2, 6, 1024), "boxes": (2, 6, 6)}
    boxes = found["boxes"]
    assert (boxes[..., :4] >= 0).all() and (boxes[..., :4] <= 1).all()
    assert (boxes[..., 2:4] > boxes[..., :2]).all()
    assert (boxes[..., 4].diff(dim=1) <= 0).all(), "surest first"
    assert found["regions"].abs().sum(dim=-1).gt(0).all()
    torch.testing.assert_close(alone["regions"][0], found["regions"][1])


def test_regions_come_with_their_boxes(
    definition: DatasetDefinition, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(need_torchvision, "fasterrcnn_mobilenet_v3_large_fpn")
    from bench.features import extract as module
    from bench.features import specs
    from bench.features.specs import Preprocessing

    small = spec_of("fasterrcnn_mobilenet_v3_large_fpn")
    small = type(small)(
        **{**small.__dict__, "preprocessing": Preprocessing(64, None, "BILINEAR", 0.0, 255.0, longest=96)}
    )
    monkeypatch.setitem(specs.ENCODERS, small.name, small)
    load = module.load_detector

    def detector(*words: Any) -> Any:
        made = load(*words)
        made.network.transform.min_size, made.network.transform.max_size = (64,), 96
        return made

    monkeypatch.setattr(module, "load_detector", detector)
    videos = str(definition.path.parent / "videos")
    entry = {"videos": videos, "encoder": small.name, "frames": 1, "boxes": 3, "weights": "random"}
    path, failed = extract(definition, "regions", home, entry, HERE)
    assert failed == ""
    for name, width in (("regions", 1024), ("boxes", 6)):
        with Cache(path.with_name(f"{name}.h5")) as cache:
            assert (cache.shape, cache.ids) == ((1, 3, width), tuple(CLIPS))
