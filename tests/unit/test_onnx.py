"""Networks in ONNX files: held against what their spec declares, and every way in which a spec can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("onnx", reason="builds small networks")
pytest.importorskip("onnxruntime", reason='needs pip install "captionbench[extract]"')
pytest.importorskip("av", reason='needs pip install "captionbench[extract]"')

import av
import onnx
from films import film, song
from onnx import TensorProto, helper, numpy_helper

from bench import BenchError
from bench.cli.main import main
from bench.declare.registry import read_definition
from bench.features.backends import need_timm
from bench.features.boxes import roi_align
from bench.features.cache import Cache
from bench.features.extract import Extractor
from bench.features.extraction import Work, as_recorded
from bench.features.footage import Footage
from bench.features.one_video import VideoStreams
from bench.features.sidecar import read_sidecar
from bench.features.sound import log_mel, read_sound
from bench.features.specs import LogMel, Preprocessing
from bench.features.video import read_frames
from bench.home import Home
from bench.method import StreamInfo
from bench.run.prepare import extract

ANEW = Work(workers=0, replace=True)
MEAN, STD = [10.0, 20.0, 30.0], [2.0, 4.0, 8.0]
INPUT = {"size": [16, 24], "colours": "bgr", "mean": MEAN, "std": STD}
DETECTOR = {
    "input": {"size": [32, 32], "colours": "bgr"},
    "output": {"gives": "boxes", "heads": "end_to_end", "classes": ["red", "blue"]},
}


def graph(
    path: Path, nodes: list[Any], shape: list[Any], outputs: list[tuple[str, list[Any]]], *constants: Any
) -> Path:
    """An ONNX file that reads `x` of `shape`."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    gives = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sides) for name, sides in outputs]
    own = helper.make_graph(nodes, "small", inputs, gives, list(constants))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("house", 1)]
    onnx.save(helper.make_model(own, opset_imports=opsets, ir_version=9), path)
    return path


def colours(path: Path, shape: list[Any] | None = None, to: str = "GlobalAveragePool") -> Path:
    """The mean of each channel, as [N, 3, 1, 1]; with another operation, what that makes."""
    shape = shape or ["n", 3, 16, 24]
    return graph(path, [helper.make_node(to, ["x"], ["y"])], shape, [("y", [shape[0], 3, None, None])])


def detector(path: Path) -> Path:
    """One box, in the left half and of class `red`, as sure as the third channel is bright; one on the right as its first is."""
    boxes = np.array([[[0, 0, 16, 32], [16, 0, 32, 32]]], np.float32)
    parts = {"boxes": boxes, "kinds": np.array([[[0], [1]]], np.float32), "which": np.array([2, 0], np.int64),
             "scale": np.array(255, np.float32), "form": np.array([1, 2, 1], np.int64)}  # fmt: skip
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["means"]),
        helper.make_node("Gather", ["means", "which"], ["two"], axis=1),
        helper.make_node("Div", ["two", "scale"], ["shares"]),
        helper.make_node("Reshape", ["shares", "form"], ["scores"]),
        helper.make_node("Concat", ["boxes", "scores", "kinds"], ["found"], axis=2),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in parts.items()]
    return graph(path, nodes, [1, 3, 32, 32], [("found", [1, 2, 6])], *constants)


def spec(folder: Path, content: dict[str, Any]) -> Path:
    (folder / "spec.yaml").write_text(yaml.safe_dump(content))
    return folder / "spec.yaml"


@pytest.fixture
def world(tmp_path: Path) -> Any:
    """A data set of two clips with videos; gives what an extraction of it makes, or raises."""
    for name in ("a", "b", "c"):
        film(tmp_path / "videos" / f"{name}.mkv", 9, width=96)
    (tmp_path / "captions.jsonl").write_text(
        "\n".join(json.dumps({"clip": clip, "caption": "a dog runs"}) for clip in "abc")
    )
    (tmp_path / "dataset.yaml").write_text(
        "name: films\ncaptions: [{format: jsonl, files: {captions: captions.jsonl}}]\nsplits: {first: [1, 1, 1]}\n"
    )

    def run(stream: str, weights: Path, content: dict[str, Any], **more: Any) -> Path:
        asked = {"encoder": "onnx", "videos": str(tmp_path / "videos"), "weights": str(weights), "frames": 3, **more}
        asked["spec"] = str(spec(tmp_path, content))
        definition = read_definition(tmp_path / "dataset.yaml")
        return extract(definition, stream, Home(tmp_path / "home"), asked, ANEW)[0]

    return run


def stored(path: Path, clip: str = "a") -> np.ndarray:
    with Cache(path) as cache:
        return cache.read(clip)[0].astype(np.float32)


def picture(path: Path, red: int, green: int, blue: int) -> Path:
    """A PNG of one colour."""
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "rgb24"
        pixels = np.broadcast_to(np.array([red, green, blue], np.uint8), (64, 64, 3))
        for packet in [
            *stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")),
            *stream.encode(),
        ]:
            container.mux(packet)
    return path


# -- what comes out -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("batch", ["n", 1])
def test_a_vector_is_made_of_the_declared_pixels(world: Any, tmp_path: Path, layout: str, batch: Any) -> None:
    """Blue first, scaled by mean and std in that order."""
    if layout == "nchw":
        weights = colours(tmp_path / "w.onnx", [batch, 3, 16, 24])
    else:
        node = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)
        weights = graph(tmp_path / "w.onnx", [node], [batch, 16, 24, 3], [("y", [batch, 3])])
    path = world("frames", weights, {"input": {**INPUT, "layout": layout}, "output": {"gives": "vector"}})
    seen = Preprocessing((16, 24), None, "BILINEAR", 0.0, 1.0)
    pixels = read_frames(tmp_path / "videos" / "a.mkv", 3, seen).astype(np.float64)
    own = (pixels[:, ::-1].mean(axis=(2, 3)) - MEAN) / STD
    np.testing.assert_allclose(stored(path), own, rtol=2e-3)
    made = read_sidecar(path)["encoder"]
    assert made["weights"].startswith("sha256:") and made["arguments"]["input"]["colours"] == "bgr"
    again = Extractor(as_recorded("frames", (3, 3), made, {made["weights"]: str(weights)}))
    found = again.streams(Footage(tmp_path / "videos" / "a.mkv"))["frames"]
    np.testing.assert_array_equal(found.astype(np.float16), stored(path).astype(np.float16))


def test_maps_classes_and_sound(world: Any, tmp_path: Path) -> None:
    pool = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[8, 8], strides=[8, 8])
    maps = graph(tmp_path / "maps.onnx", [pool], ["n", 3, 16, 24], [("y", ["n", 3, 2, 3])])
    path = world("spatial", maps, {"input": INPUT, "output": {"gives": "map"}})
    assert stored(path).shape == (6, 3)
    flat = [helper.make_node("GlobalAveragePool", ["x"], ["m"]), helper.make_node("Flatten", ["m"], ["logits"])]
    logits = graph(tmp_path / "logits.onnx", flat, ["n", 3, 16, 24], [("logits", ["n", 3])])
    softmax = helper.make_node("Softmax", ["logits"], ["y"])
    shares = graph(tmp_path / "shares.onnx", [*flat, softmax], ["n", 3, 16, 24], [("y", ["n", 3])])
    plain = {**INPUT, "mean": 0.0, "std": 255.0}
    found = [
        stored(world("objects", weights, {"input": plain, "output": {"gives": "classes", "softmax": own}}, frames=1))
        for weights, own in ((logits, True), (shares, False))
    ]
    assert found[0].sum() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)
    front = {"offset": 0.001, "steps": 50, "every": 25, "mono": "swresample"}
    mean = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)
    sound = graph(tmp_path / "sound.onnx", [mean], ["n", 1, 50, 64], [("y", ["n", 64])])
    for clip in "abc":
        (tmp_path / "videos" / f"{clip}.mkv").unlink()
        song(tmp_path / "song.wav", 3.0).rename(tmp_path / "videos" / f"{clip}.mkv")
    path = world("audio", sound, {"input": {"sound": front}, "output": {"gives": "vector"}})
    own = log_mel(read_sound(tmp_path / "videos" / "a.mkv", LogMel(**front)), LogMel(**front)).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(stored(path), own, rtol=2e-3)


@pytest.mark.parametrize("fit", ["stretch", "corner", "centre"])
def test_regions_are_pooled_from_the_map_of_another_network(world: Any, tmp_path: Path, fit: str) -> None:
    """Frames of 96x48 whose right half is brighter: in a square they leave half of it grey."""
    pool = helper.make_node("AveragePool", ["x"], ["y"], kernel_shape=[4, 4], strides=[4, 4])
    graph(tmp_path / "maps.onnx", [pool], ["n", 3, 16, 24], [("y", ["n", 3, 4, 6])])
    inner = {"input": {"size": [16, 24], "colours": "rgb"}, "output": {"gives": "map"}}
    (tmp_path / "maps.yaml").write_text(yaml.safe_dump(inner))
    vectors = {"encoder": "onnx", "weights": "maps.onnx", "spec": "maps.yaml"}
    own = {**DETECTOR, "input": {**DETECTOR["input"], "fit": fit}, "vectors": vectors}
    path = world("regions", detector(tmp_path / "w.onnx"), own, boxes=3)
    boxes, regions = stored(path.with_name("boxes.h5")), stored(path)
    assert (boxes.shape, regions.shape) == ((3, 3, 6), (3, 3, 3))
    assert not boxes[:, 2].any() and not regions[:, 2].any(), "the network finds two boxes"
    both = sorted(boxes[0, :2, :4].tolist())
    np.testing.assert_allclose(both, [[0, 0, 0.5, 1], [0.5, 0, 1, 1]], atol=1e-3)
    seen = Preprocessing((16, 24), None, "BILINEAR", 0.0, 1.0)
    frames = torch.from_numpy(read_frames(tmp_path / "videos" / "a.mkv", 3, seen)).float()
    maps = torch.nn.functional.avg_pool2d(frames, 4)
    for time in range(3):
        for row in range(2):
            place = torch.from_numpy(boxes[time, row, :4]) * torch.tensor([6.0, 4, 6, 4])
            rois = torch.cat([torch.tensor([float(time)]), place])[None]
            pooled = roi_align(maps, rois, 1.0, 7, 7, 2, True).mean(dim=(2, 3))[0]
            np.testing.assert_allclose(regions[time, row], pooled.numpy(), rtol=2e-3)
    said = read_sidecar(path)
    made = said["encoder"]
    info = StreamInfo("regions", (3, 3, 3), True, said["fingerprint"], made_by=made)
    weights = {"regions": f"{tmp_path / 'w.onnx'},{tmp_path / 'maps.onnx'}"}
    streams = VideoStreams({"regions": info}, weights=weights)
    np.testing.assert_array_equal(
        streams.read("regions", tmp_path / "videos" / "a.mkv"), stored(path).astype(np.float16)
    )
    np.testing.assert_allclose(streams.boxes(tmp_path / "videos" / "a.mkv"), boxes[..., :4], atol=1e-3)
    with pytest.raises(BenchError, match="name their files with weights=FILE,FILE"):
        VideoStreams({"regions": info}, weights={"regions": str(tmp_path / "w.onnx")}).read(
            "regions", tmp_path / "videos" / "a.mkv"
        )


# -- what is known of a network -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gives", ["boxes", "vector"])
def test_a_spec_that_lies_about_colours_is_caught_by_the_known_picture(world: Any, tmp_path: Path, gives: str) -> None:
    picture(tmp_path / "red.png", 204, 102, 51)
    if gives == "boxes":
        need_timm("test_resnet")
        stream, weights = "regions", detector(tmp_path / "w.onnx")
        own = {**DETECTOR, "vectors": {"encoder": "test_resnet", "weights": "random"}}
        known = {"file": "red.png", "class": "red", "score": 0.8}
    else:
        stream, weights = "frames", colours(tmp_path / "w.onnx")
        own = {"input": {"size": [16, 24], "colours": "bgr", "std": 255.0}, "output": {"gives": "vector"}}
        known = {"file": "red.png", "number": 2, "score": 0.8}
    world(stream, weights, {**own, "known": known})
    lie = {**own["input"], "colours": "rgb"}
    with pytest.raises(BenchError, match=r"red.png gets the score 0\.2\d\d and not 0\.800, as is known; with red and blue "
                       r"exchanged it gets 0\.(80\d|79\d): input.colours is not rgb"):  # fmt: skip
        world(stream, weights, {**own, "input": lie, "known": known})
    with pytest.raises(
        BenchError, match=r"as is known \(0\.2\d\d with red and blue exchanged\): correct input.size, mean"
    ):
        world(stream, weights, {**own, "known": {**known, "score": 0.6}}, frames=2)
    if gives == "boxes":
        with pytest.raises(BenchError, match='unknown class "read"; allowed: red, blue'):
            world(stream, weights, {**own, "known": {**known, "class": "read"}}, frames=2)
    with pytest.raises(BenchError, match=r"known.file is .*gone.png, but there is no such file"):
        world(stream, weights, {**own, "known": {**known, "file": "gone.png"}}, frames=2)


# -- files that do not fit ------------------------------------------------------------------------------------------------

VECTOR = {"input": INPUT, "output": {"gives": "vector"}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({**VECTOR, "input": {**INPUT, "size": [24, 16]}}, "input x is 3x16x24, but the spec declares 3x24x16"),
        (
            {**VECTOR, "input": {**INPUT, "layout": "nhwc"}},
            "but the spec declares 16x24x3: correct input.size or input.layout",
        ),
        (
            {**VECTOR, "input": {**INPUT, "name": "image"}},
            "reads x, but the spec declares one input, image: correct input.name",
        ),
        ({**VECTOR, "output": {"gives": "vector", "names": ["z"]}}, "has no output z; it has y"),
        (
            {**VECTOR, "output": {"gives": "map"}},
            "declares output.gives: map, and the stream frames is made by a network",
        ),
        ({**VECTOR, "input": {**INPUT, "colors": "bgr"}}, "input.colors.*colours"),
        ({**VECTOR, "input": {"size": [16, 24]}}, "names neither sound: nor size: .* and colours: rgb or bgr"),
        ({**VECTOR, "input": {**INPUT, "std": 0}}, "has std 0, by which nothing can be divided"),
        ({**VECTOR, "input": {**INPUT, "fit": "corner"}}, "only a square holds frames of every shape"),
        ({**VECTOR, "output": {"gives": "boxes"}}, "gives boxes, and needs heads"),
        (
            {"input": {"sound": {"window": 400, "hop": 500}}, "output": {"gives": "vector"}},
            "input.sound has a hop of 500 samples over a window of 400",
        ),
        ({"output": {"gives": "vector"}}, "input"),
    ],
)
def test_a_spec_of_another_network_is_a_sentence(
    world: Any, tmp_path: Path, content: dict[str, Any], said: str
) -> None:
    with pytest.raises(BenchError, match=said):
        world("frames", colours(tmp_path / "w.onnx"), content)


def test_files_that_cannot_be_run_are_sentences(world: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.onnx"
    for shape, said in (
        (["n", 3, "h", "w"], r"input x is 3x\?x\? with open axes, .* export it with the fixed size 3x16x24"),
        ([4, 3, 16, 24], "input x takes 4 at once: export it for one, or with that axis open"),
    ):
        with pytest.raises(BenchError, match=said):
            world("frames", colours(bad, shape), VECTOR)
    strange = helper.make_node("Frobnicate", ["x"], ["y"], domain="house")
    graph(bad, [strange], ["n", 3, 16, 24], [("y", ["n", 3])])
    with pytest.raises(
        BenchError, match=r"bad.onnx needs the operator .*Frobnicate.*, which onnxruntime .* does not have"
    ):
        world("frames", bad, VECTOR)
    bad.write_bytes(b"no network")
    with pytest.raises(BenchError, match=r"bad.onnx cannot be opened as an ONNX network"):
        world("frames", bad, VECTOR)
    with pytest.raises(BenchError, match=r"gives nx3x16x24|gives 1x3x16x24 where output.gives: vector is \[N, D\]"):
        world("frames", colours(bad, to="Relu"), VECTOR)
    with pytest.raises(BenchError, match="there is no file of weights"):
        world("frames", tmp_path / "gone.onnx", VECTOR)
    with pytest.raises(BenchError, match="which is no head yolox of 2 classes"):
        heads = {**DETECTOR["output"], "heads": "yolox"}
        world(
            "regions",
            detector(bad),
            {**DETECTOR, "output": heads, "vectors": {"encoder": "test_resnet", "weights": "random"}},
        )
    with pytest.raises(BenchError, match="declares a detector without vectors"):
        world("regions", detector(bad), DETECTOR)


def test_streams_that_such_a_network_does_not_make(world: Any, tmp_path: Path) -> None:
    network = colours(tmp_path / "w.onnx")
    heard = {"input": {"sound": {}}, "output": {"gives": "vector"}}
    for stream, content, said in (
        ("frames", DETECTOR, r"gives: boxes, and the stream frames is made by a network that gives vector"),
        ("frames", heard, "declares a network of sound, which does not make the stream frames"),
        ("audio", VECTOR, "declares a network of pictures, which does not make the stream audio"),
        ("motion", VECTOR, "the stream motion is made of runs of frames, and an ONNX network reads single ones"),
    ):
        with pytest.raises(BenchError, match=said):
            world(stream, network, content)


def test_onnx_and_its_spec_go_together(tmp_path: Path, world: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "features",
        "extract",
        f"dataset={tmp_path / 'dataset.yaml'}",
        "stream=frames",
        "frames=2",
        f"videos={tmp_path / 'videos'}",
    ]
    for more, said in (
        (["encoder=onnx"], "encoder=onnx needs spec=FILE.yaml"),
        (["encoder=shapes", "spec=x.yaml"], "spec= declares what a network in an ONNX file reads and gives"),
        (["encoder=onnx", "spec=x.yaml"], "encoder=onnx needs weights=FILE.onnx"),
        (["encoder=onnx", "spec=x.yaml", "weights=w.onnx"], "there is no such file"),
    ):
        assert main([*words, *more]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    with pytest.raises(BenchError, match="it cannot be named for other features"):
        as_recorded("frames", (2, 3), {"name": "onnx", "frames": 2})
