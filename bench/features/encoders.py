"""Encoders by name: what makes one vector of a frame, and what a frame must look like before it gets there.

An encoder is a network, the arguments it is built with, its weights and its preprocessing, and only all of them together
make its features: the same MobileNetV2 weights with another side padded at its strides agree with a cosine of 0.87, frames
resized by another program of 0.95. The part of the preprocessing that changes the size of a frame is done once, when pixels are
extracted (`bench.features.video`); scaling by mean and deviation belongs to the module.

2-D networks come from timm (`pip install "captionbench[extract]"`), which is imported only where one is built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench import BenchError
from bench.features.backends import need_timm

NAMED = 6  # keys of a file of weights that a sentence spells out


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded frame to the pixels that an encoder reads, and from pixels to numbers.

    `resize` is the length of the shorter side, or (height, width) whatever the frame's shape; the centre square of side
    `crop` is kept. `resampler` is swscale's, which goes to RGB at the new size in one step. A pixel x of 0..255 becomes
    (x - mean) / deviation.
    """

    resize: int | tuple[int, int]
    crop: int | None
    resampler: str
    mean: float
    deviation: float

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pixels."""
        if self.crop is not None:
            return self.crop, self.crop
        assert isinstance(self.resize, tuple)
        return self.resize

    def of_pixels(self) -> dict[str, Any]:
        """What decides the stored pixels, for their fingerprint."""
        return {name: value for name, value in asdict(self).items() if name in ("resize", "crop", "resampler")}


@dataclass(frozen=True)
class Spec:
    """One encoder. `network` is timm's name of it (`shapes`: ours), built with `arguments`; `width` the length of a vector.

    `pretrained` is timm's name of the weights that go with this preprocessing, None where timm has none.
    """

    name: str
    network: str
    width: int
    preprocessing: Preprocessing
    pretrained: str | None
    arguments: Mapping[str, Any] = field(default_factory=dict)


_INCEPTION = {"mean": 127.5, "deviation": 127.5}

ENCODERS = {
    spec.name: spec
    for spec in (
        # EtENet, section 5: resized to 314, centre of 299, mean and deviation 0.5; vectors are the last average pool's.
        Spec(
            "inception_resnet_v2",
            "inception_resnet_v2",
            1536,
            Preprocessing(314, 299, "BILINEAR", **_INCEPTION),
            "inception_resnet_v2.tf_in1k",
        ),
        # The network as TensorFlow pads it. timm's own weights were trained with another padding and other means.
        Spec(
            "mobilenetv2_100",
            "mobilenetv2_100",
            1280,
            Preprocessing((224, 224), None, "BILINEAR", **_INCEPTION),
            None,
            {"pad_type": "same"},
        ),
        # Ours, with weights that never change: the frames of the embedded corpus, which is painted at this size.
        Spec("shapes", "shapes", 256, Preprocessing((64, 64), None, "BILINEAR", mean=0.0, deviation=1.0), None),
    )
}


def spec_of(name: str) -> Spec:
    """The encoder called `name`. Raises BenchError naming all there are."""
    if name not in ENCODERS:
        raise BenchError(f"there is no encoder {name!r}; the encoders are {', '.join(ENCODERS)}")
    return ENCODERS[name]


class Encoder(nn.Module):
    """uint8 frames [N, 3, H, W] at the size of its preprocessing -> vectors [N, D] in the type of its weights."""

    def __init__(self, spec: Spec, network: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.network = network

    def forward(self, frames_NCYX: Tensor) -> Tensor:
        wanted, given = (3, *self.spec.preprocessing.size), tuple(frames_NCYX.shape[1:])
        if given != wanted:
            raise BenchError(
                f"the pixels are {_times(given)}, but encoder {self.spec.name} reads {_times(wanted)}: extract them for "
                f"it, `bench features extract dataset=.. stream=pixels encoder={self.spec.name}`"
            )
        kind = next(self.network.parameters()).dtype
        scale = self.spec.preprocessing
        vectors: Tensor = self.network((frames_NCYX.to(kind) - scale.mean) / scale.deviation)
        return vectors


def load_encoder(name: str, weights: str = "pretrained", files: Mapping[str, str] | None = None) -> Encoder:
    """The encoder called `name`, in eval mode, on the CPU.

    `weights` is `pretrained`, `random` (the same numbers every time, for tests), `empty` (others follow), `sha256:DIGEST` of
    a file that `files` gives the path of, or such a path. Raises BenchError where the network or its weights cannot be had,
    or do not fit.
    """
    spec = spec_of(name)
    with torch.random.fork_rng(devices=[]):  # what is drawn to fill a network must not move the draws of the training
        torch.manual_seed(0)
        network = _build(spec, weights)
    if weights not in ("pretrained", "random", "empty"):
        load_weights(network, _file(weights, files or {}), spec)
    return Encoder(spec, network).eval()


def _build(spec: Spec, weights: str) -> nn.Module:
    if spec.network == "shapes":
        from bench.data.shapes.encoder import ShapesNetwork

        return ShapesNetwork(random=weights == "random")
    timm = need_timm(spec.name)
    if weights != "pretrained":
        network: nn.Module = timm.create_model(spec.network, pretrained=False, num_classes=0, **spec.arguments)
        return network
    if spec.pretrained is None:
        raise BenchError(
            f"encoder {spec.name} has no weights to download: timm's own go with another padding and preprocessing; "
            f"name a file of weights (.safetensors) instead"
        )
    try:
        network = timm.create_model(spec.pretrained, pretrained=True, num_classes=0, **spec.arguments)
    except Exception as error:  # whatever a download can raise: timm, huggingface_hub, urllib, ssl
        told = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BenchError(
            f"the weights {spec.pretrained} of encoder {spec.name} cannot be had ({told}): connect this machine to the "
            f"network, or name a file of weights (.safetensors) instead"
        ) from error
    return network


def _file(weights: str, files: Mapping[str, str]) -> Path:
    """The file of weights; of a digest, the file that still has it."""
    if not weights.startswith("sha256:"):
        return Path(weights).expanduser()
    if weights not in files:
        raise BenchError(f"the file of weights {weights} is not known on this machine: name it again with its path")
    path = Path(files[weights])
    if not path.is_file():
        raise BenchError(f"the file of weights {path} is gone: put it back, it has {weights}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if f"sha256:{found}" != weights:
        raise BenchError(f"{path} has changed since it was named: it has sha256:{found}, not {weights}")
    return path


def load_weights(network: nn.Module, path: Path, spec: Spec) -> None:
    """Copy the weights in the safetensors file `path` into `network`; those of a classifier that it lacks are left out.

    Raises BenchError, naming keys, for a file that cannot be read, other keys, other shapes, and values that are not finite.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BenchError(f"{path} cannot be read as a safetensors file: {error}") from error
    head = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    heads = tuple(f"{name}." for name in ([head] if isinstance(head, str) else head))
    own = network.state_dict()
    state = {name: value for name, value in state.items() if name in own or not heads or not name.startswith(heads)}
    faults = {
        "lacks": sorted(own.keys() - state.keys()),
        "has besides": sorted(state.keys() - own.keys()),
        "has in another shape": [key for key in own if key in state and own[key].shape != state[key].shape],
    }
    if any(faults.values()):
        told = "; ".join(_named(what, keys) for what, keys in faults.items() if keys)
        raise BenchError(f"{path} holds no weights of encoder {spec.name}: it {told}")
    broken = [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise BenchError(f"{path}: {_named('has NaN or infinite values in', broken)}; take a sound copy of the file")
    network.load_state_dict(state)


def _named(what: str, keys: list[str]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return f"{what} {', '.join(keys[:NAMED])}{more}"


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
