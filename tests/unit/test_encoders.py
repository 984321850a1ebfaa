"""Encoders: the embedded corpus's own, networks of timm, files of weights and everything that can be wrong with them."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench import BenchError
from bench.features.backends import need_open_clip, need_timm
from bench.features.encoders import Encoder, load_encoder, load_weights, scaled
from bench.features.shapes import features_of
from bench.features.specs import ENCODERS, spec_of
from bench.features.video import prepare
from bench.home import CHECKOUT
from bench.shapes.options import Options


def frames(encoder: Encoder, clip: str, dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
    """What the encoder makes of a clip of the embedded corpus, rounded as it is stored, and what is stored."""
    streams = features_of(clip, Options.read(None))
    vectors = encoder.to(dtype)(torch.from_numpy(streams["pixels"]))
    return vectors.detach().half().numpy(), streams["frames"]


@pytest.mark.parametrize("clip", ["shape0000", "shape0007", "shape1300"])
def test_the_encoder_of_shapes_makes_its_frames(clip: str) -> None:
    """To the last bit in float64, where the stream is standardised too; float32 may round the other way in its last place."""
    made, stored = frames(load_encoder("shapes"), clip, torch.float64)
    np.testing.assert_array_equal(made, stored)
    made, stored = frames(load_encoder("shapes"), clip, torch.float32)
    np.testing.assert_allclose(made.astype(np.float32), stored.astype(np.float32), rtol=1e-3, atol=1e-7)


def test_every_filter_of_shapes_has_a_gradient() -> None:
    encoder = load_encoder("shapes")
    encoder(torch.from_numpy(features_of("shape0000", Options.read(None))["pixels"])).square().sum().backward()
    for name, value in encoder.named_parameters():
        assert value.grad is not None
        assert (value.grad.flatten(1).abs().sum(1) > 0).float().mean() > 0.9, name
    assert {name for name, _ in encoder.named_parameters()} == {
        f"network.{layer}.weight" for layer in ("edges", "maps", "outlines")
    }


def test_a_filter_moves_its_feature_by_its_gradient() -> None:
    """Rounding down makes steps of what is smooth, so that the gradient is right on the whole only: here to a third."""
    pixels = torch.from_numpy(features_of("shape0003", Options.read(None))["pixels"])
    encoder = load_encoder("shapes").double()
    weight = encoder.network.get_parameter("outlines.weight")

    def total() -> Tensor:
        return encoder(pixels)[:, -64:].sum()  # the sums of the outline maps

    before = total()
    before.backward()
    assert weight.grad is not None
    step = 1e-3 * weight.grad / weight.grad.norm()
    with torch.no_grad():
        weight += step
    assert (total() - before).item() == pytest.approx(float((weight.grad * step).sum()), rel=0.33)


def test_random_weights_are_the_same_every_time_and_draw_nothing_from_the_training() -> None:
    before = torch.random.get_rng_state()
    one, other = load_encoder("shapes", "random"), load_encoder("shapes", "random")
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert not torch.equal(
        one.network.get_parameter("maps.weight"), load_encoder("shapes").network.get_parameter("maps.weight")
    )


def test_pixels_of_another_size_are_refused_with_both() -> None:
    with pytest.raises(
        BenchError, match=r"the pixels are 3x32x64, but encoder shapes reads 3x64x64: .* encoder=shapes"
    ):
        load_encoder("shapes")(torch.zeros(1, 3, 32, 64, dtype=torch.uint8))


def test_an_unknown_encoder_is_refused_with_all_there_are() -> None:
    with pytest.raises(
        BenchError,
        match=r"no encoder 'shape'; the encoders are inception_resnet_v2, mobilenetv2_100, shapes, .* network of timm",
    ):
        spec_of("shape")


def test_the_printed_preprocessing_of_etenet() -> None:
    """Resized to 314, centre of 299, mean and deviation 0.5; vectors of 1536."""
    spec = spec_of("inception_resnet_v2")
    scale = spec.preprocessing
    assert (scale.resize, scale.crop, scale.size, spec.width) == (314, 299, (299, 299), 1536)
    assert [(x - scale.mean) / scale.deviation for x in (0, 127.5, 255)] == [-1, 0, 1]


# -- files of weights ---------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    state = {name: value.clone() for name, value in load_encoder("shapes", "random").network.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors", state


def named(path: Path) -> tuple[str, dict[str, str]]:
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    return digest, {digest: str(path)}


def test_a_file_is_found_by_its_content(weights: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = weights
    digest, files = named(path)
    for loaded in (load_encoder("shapes", digest, files), load_encoder("shapes", str(path))):
        for name, value in loaded.network.state_dict().items():
            assert torch.equal(value, state[name])
    with pytest.raises(BenchError, match=rf"the file of weights {digest} is not known on this machine"):
        load_encoder("shapes", digest)
    save_file({**state, "mean": state["mean"] + 1}, path)
    with pytest.raises(
        BenchError, match=rf"w\.safetensors has changed since it was named: it has sha256:\w+, not {digest}"
    ):
        load_encoder("shapes", digest, files)
    path.unlink()
    with pytest.raises(BenchError, match=r"w\.safetensors is gone: put it back"):
        load_encoder("shapes", digest, files)


def refused(path: Path, sentence: str) -> None:
    network = load_encoder("shapes").network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(BenchError, match=sentence):
        load_weights(network, path, ENCODERS["shapes"])
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), "a refused file changes nothing"


def test_weights_of_another_network_are_refused_by_key(weights: tuple[Path, dict[str, Tensor]]) -> None:
    path, state = weights
    own = dict(state)
    del own["maps.weight"]
    save_file({**own, "conv.weight": torch.zeros(1)}, path)
    refused(path, r"holds no weights of encoder shapes: it lacks maps\.weight; has besides conv\.weight$")
    save_file({**state, "maps.weight": torch.zeros(2, 2)}, path)
    refused(path, r"holds no weights of encoder shapes: it has in another shape maps\.weight$")
    save_file({f"layer{number}": torch.zeros(1) for number in range(9)}, path)
    refused(path, r"has besides layer0, layer1, layer2, layer3, layer4 and 4 more")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(weights: tuple[Path, dict[str, Tensor]], value: float) -> None:
    path, state = weights
    broken = state["edges.weight"].clone()
    broken[3, 1, 0, 2] = value
    save_file({**state, "edges.weight": broken}, path)
    refused(path, r"has NaN or infinite values in edges\.weight; take a sound copy")


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"not weights")
    refused(tmp_path / "w.safetensors", r"w\.safetensors cannot be read as a safetensors file")
    refused(tmp_path / "gone.safetensors", r"gone\.safetensors cannot be read as a safetensors file")


# -- timm ---------------------------------------------------------------------------------------------------------------


def test_without_timm_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        BenchError, match=r'of timm, which is not installed \(.*\): pip install "captionbench\[extract\]"'
    ):
        load_encoder("mobilenetv2_100", "random")


def test_mobilenet_reads_224_and_takes_a_file_with_a_classifier(tmp_path: Path) -> None:
    try:
        encoder = load_encoder("mobilenetv2_100", "random")
    except BenchError as error:
        pytest.skip(str(error))
    with torch.inference_mode():
        assert encoder(torch.zeros(1, 3, 224, 224, dtype=torch.uint8)).shape == (1, ENCODERS["mobilenetv2_100"].width)
    head = {"classifier.weight": torch.zeros(1000, 1280), "classifier.bias": torch.zeros(1000)}
    halved = {name: v.half() if v.is_floating_point() else v for name, v in encoder.network.state_dict().items()}
    save_file({**halved, **head}, tmp_path / "w.safetensors")
    loaded = load_encoder("mobilenetv2_100", str(tmp_path / "w.safetensors"))
    assert not loaded.training
    own, stored = loaded.network.state_dict(), load_file(tmp_path / "w.safetensors")
    assert own["conv_stem.weight"].dtype == torch.float32
    assert torch.equal(own["conv_stem.weight"], stored["conv_stem.weight"].float())
    padding = [type(part).__name__ for part in loaded.network.modules() if "Same" in type(part).__name__]
    assert len(padding) == 5, "the five convolutions with a stride pad as TensorFlow does"
    with pytest.raises(BenchError, match=r"mobilenetv2_100 has no weights to download: .* name a file of weights"):
        load_encoder("mobilenetv2_100")


# -- features of today: the real architectures with random weights; their pretrained weights were never at hand --------------


def need(what: Any, name: str) -> Any:
    try:
        return what(name)
    except BenchError as error:
        pytest.skip(str(error))


def test_clip_by_open_clips_names_with_its_own_preprocessing(tmp_path: Path) -> None:
    """ViT-B-32 in size and layers, with random weights, against open_clip's own transform and image side."""
    clip = need(need_open_clip, "clip:ViT-B-32")
    spec = spec_of("clip:ViT-B-32")
    assert (spec.width, spec.preprocessing.size, spec.pretrained, spec.arguments) == (
        512,
        (224, 224),
        "openai",
        {"quick_gelu": True},
    )
    assert not spec_of("clip:ViT-B-32:laion2b_s34b_b79k").arguments["quick_gelu"]
    encoder = load_encoder("clip:ViT-B-32", "random")
    assert sum(value.numel() for value in encoder.parameters()) == 87_849_216, "the image side of the published network"
    visual = encoder.network.get_submodule("visual")
    config = clip.transform.PreprocessCfg(**clip.get_model_preprocess_cfg(type("M", (), {"visual": visual})()))
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    prepared = clip.transform.image_transform_v2(config, is_train=False)
    pictures = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pixels]
    with torch.inference_mode():
        own = visual(torch.stack([prepared(picture) for picture in pictures]))
        torch.testing.assert_close(encoder(pixels), own, atol=1e-4, rtol=1e-4)
    whole = {**encoder.network.state_dict(), "text_projection": torch.zeros(2), "logit_scale": torch.zeros(1)}
    save_file({name: value.clone() for name, value in whole.items()}, tmp_path / "open_clip_model.safetensors")
    again = load_encoder("clip:ViT-B-32", str(tmp_path / "open_clip_model.safetensors"))
    assert torch.equal(again.network.get_parameter("visual.proj"), encoder.network.get_parameter("visual.proj"))
    for name, said in (
        ("clip:ViT-B-33", "unknown encoder.*clip:ViT-B-32"),
        ("clip:ViT-B-32:openai2", "unknown weights.*openai"),
    ):
        with pytest.raises(BenchError, match=said):
            spec_of(name)
    with pytest.raises(BenchError, match="gives no maps"):
        load_encoder("clip:ViT-B-32", "random", gives="maps")


def test_dinov2_by_timms_name_gives_vectors_and_the_places_of_its_patches() -> None:
    """ViT-S/14 in size and layers, with random weights; patches are places, row by row."""
    need(need_timm, "vit_small_patch14_dinov2")
    spec = spec_of("vit_small_patch14_dinov2.lvd142m")
    assert (spec.preprocessing.size, spec.preprocessing.resampler) == ((518, 518), "BICUBIC")
    assert spec.preprocessing.mean == pytest.approx((123.675, 116.28, 103.53))
    encoder = load_encoder(spec.name, "random", gives="maps")
    pixels = torch.zeros(1, 3, 518, 518, dtype=torch.uint8)
    with torch.inference_mode():
        maps = encoder(pixels)
        tokens = encoder.network.forward_features((pixels - torch.tensor(spec.preprocessing.mean).view(3, 1, 1))  # type: ignore[operator]
                                                  / torch.tensor(spec.preprocessing.deviation).view(3, 1, 1))  # fmt: skip
    assert maps.shape == (1, 384, 37, 37)
    torch.testing.assert_close(maps[0, :, 2, 5], tokens[0, 1 + 2 * 37 + 5], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "gives", "shape", "parameters"),
    [
        ("clip:ViT-B-16-SigLIP", "vectors", (1, 768), 92_884_224),
        ("vit_base_patch16_siglip_224.webli", "maps", (1, 768, 14, 14), 92_884_224),
        ("vit_base_patch14_dinov2.lvd142m", None, None, 86_579_712),
    ],
)
def test_recipes_of_the_page_build_the_real_network_and_see_what_it_saw(
    name: str, gives: str | None, shape: tuple[int, ...] | None, parameters: int
) -> None:
    """SigLIP and DINOv2 with random weights. A frame of its own shape, smooth so that programs resample it alike, against the
    transform that timm or open_clip makes of the weights' configuration: squeezed or cut, and scaled."""
    assert f"encoder={name}\n" in (CHECKOUT / "docs" / "features.md").read_text()
    av = pytest.importorskip("av", reason='needs pip install "captionbench[extract]"')
    clip = name.startswith("clip:")
    package = need(need_open_clip if clip else need_timm, name)
    encoder = load_encoder(name, "random", gives=gives or "vectors")
    assert sum(value.numel() for value in encoder.parameters()) == parameters
    if clip:
        published = package.pretrained.get_pretrained_cfg("ViT-B-16-SigLIP", "webli")
        known = package.transform.PreprocessCfg.__dataclass_fields__
        facts = package.transform.PreprocessCfg(**{key: value for key, value in published.items() if key in known})
        transform = package.transform.image_transform_v2(facts, is_train=False)
    else:
        facts = package.data.resolve_data_config(package.get_pretrained_cfg(name).to_dict())
        transform = package.data.create_transform(**facts)
    y, x = np.mgrid[0:360, 0:480]
    picture = np.stack([40 + x / 3, 40 + y / 2, 200 - x / 4], axis=2).round().astype(np.uint8)
    pixels = torch.from_numpy(prepare(av.VideoFrame.from_ndarray(picture, format="rgb24"), encoder.spec.preprocessing))
    own = transform(Image.fromarray(picture).convert("RGB"))
    seen = scaled(pixels, encoder.spec.preprocessing, torch.float32)
    assert seen.shape == own.shape and float((seen - own).abs().max()) < 0.05, "six of 255 steps at most"
    if gives is not None:
        with torch.inference_mode():
            assert encoder(pixels[None]).shape == shape
