"""Encoders: what makes vectors of frames, of runs of frames and of sound.

An encoder is a network, the arguments it is built with, its weights and its preprocessing, and only all of them together
make its features: the same MobileNetV2 weights with another side padded at its strides agree with a cosine of 0.87, frames
resized by another program of 0.95. The part of the preprocessing that changes the size of a frame is done once, when videos are
decoded (`bench.features.video`); scaling by mean and deviation belongs to the module.

Networks come from timm and torchvision (`pip install "captionbench[extract]"`), which are imported only where one is built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench import BenchError
from bench.disk.digests import file_digest
from bench.errors import first_line, named, sizes
from bench.features.backends import need_timm, need_torchvision
from bench.features.networks import C3D, VGGish, YAMNet
from bench.features.specs import Preprocessing, Spec, spec_of
from bench.home import written_path

WORDS = ("pretrained", "random", "empty")  # what `weights` may be besides a file


class Encoder(nn.Module):
    """What decoding makes of a video -> what the network makes of it, in the type of its weights.

    It reads uint8 frames [N, 3, H, W] at the size of its preprocessing, runs of them [N, window, 3, H, W], or examples of sound
    [N, 1, 96, 64] in float32. It `gives` vectors [N, D], the last maps [N, C, h, w], or probabilities of classes [N, K].
    """

    def __init__(self, spec: Spec, network: nn.Module, gives: str = "vectors") -> None:
        super().__init__()
        self.spec = spec
        self.network = network
        self.gives = gives

    def forward(self, frames_NCYX: Tensor) -> Tensor:
        size = self.spec.preprocessing.size
        channels = 1 if self.spec.family == "sound" else 3
        wanted = (*([self.spec.window] if self.spec.window > 1 else []), channels, *(size or frames_NCYX.shape[-2:]))
        given = tuple(frames_NCYX.shape[1:])
        if given != wanted:
            raise BenchError(
                f"the pixels are {sizes(given)}, but encoder {self.spec.name} reads {sizes(wanted)}: extract them for "
                f"it, `bench features extract dataset=.. stream=pixels encoder={self.spec.name}`"
            )
        numbers = _scaled(frames_NCYX, self.spec.preprocessing, next(self.network.parameters()).dtype)
        if self.spec.window > 1:
            numbers = numbers.transpose(1, 2)  # networks of motion have time after the channels
        if self.gives == "maps":
            return self._maps(numbers)
        found: Tensor = self.network(numbers)
        return found.softmax(dim=-1) if self.gives == "classes" else found

    def _maps(self, numbers: Tensor) -> Tensor:
        maps: Tensor = self.network.forward_features(numbers)  # type: ignore[operator]
        if maps.ndim != 4:
            raise BenchError(f"encoder {self.spec.name} has no maps of places, so that it makes no stream spatial")
        return maps.movedim(3, 1) if getattr(self.network, "output_fmt", "NCHW") == "NHWC" else maps


def _scaled(pixels: Tensor, scale: Preprocessing, kind: torch.dtype) -> Tensor:
    if isinstance(scale.mean, tuple) or isinstance(scale.deviation, tuple):
        mean, deviation = (
            torch.as_tensor(value, dtype=kind, device=pixels.device).view(-1, 1, 1)
            for value in (scale.mean, scale.deviation)
        )
        return (pixels.to(kind) - mean) / deviation
    return (pixels.to(kind) - scale.mean) / scale.deviation


def load_encoder(
    name: str, weights: str = "pretrained", files: Mapping[str, str] | None = None, gives: str = "vectors"
) -> Encoder:
    """The encoder called `name`, in eval mode, on the CPU.

    `weights` is `pretrained`, `random` (the same numbers every time, for tests), `empty` (others follow), `sha256:DIGEST` of
    a file that `files` gives the path of, or such a path. `gives` is vectors, maps or classes. Raises BenchError where the
    network or its weights cannot be had, or do not fit.
    """
    spec = spec_of(name)
    if spec.family == "regions":
        raise BenchError(f"encoder {name} finds boxes: it makes the stream regions and no other")
    if gives == "maps" and (spec.package != "timm" or spec.family != "pictures"):
        raise BenchError(f"encoder {name} gives no maps: take one of timm, such as resnet152, for the stream spatial")
    if gives == "classes" and spec.package == "ours" and "classes" not in spec.arguments:
        raise BenchError(f"encoder {name} tells no classes apart: take another one for the streams objects and actions")
    return Encoder(spec, built(spec, weights, files, gives), gives).eval()


def built(spec: Spec, weights: str, files: Mapping[str, str] | None = None, gives: str = "vectors") -> nn.Module:
    """The network of `spec` with its weights; see `load_encoder`."""
    if weights == "pretrained" and spec.pretrained is None:
        raise BenchError(
            f"encoder {spec.name} has no weights to download"
            + (": timm's own go with another padding and preprocessing" if spec.package == "timm" else "")
            + "; name a file of weights (.safetensors) instead"
        )
    with torch.random.fork_rng(devices=[]):  # what is drawn to fill a network must not move the draws of the training
        torch.manual_seed(0)
        network = _BUILDERS[spec.package](spec, weights, gives)
    if weights not in WORDS:
        load_weights(network, find_file(weights, files or {}), spec)
    return network


def _build_timm(spec: Spec, weights: str, gives: str) -> nn.Module:
    timm = need_timm(spec.name)
    arguments = dict(spec.arguments) if gives == "classes" else {"num_classes": 0, **spec.arguments}
    if weights != "pretrained":
        network: nn.Module = timm.create_model(spec.network, pretrained=False, **arguments)
        return network
    return _downloaded(spec, lambda: timm.create_model(spec.pretrained, pretrained=True, **arguments))


def _build_torchvision(spec: Spec, weights: str, gives: str) -> nn.Module:
    models = need_torchvision(spec.name).models
    more: dict[str, Any] = {"init_weights": True, "aux_logits": False} if spec.network == "googlenet" else {}
    if spec.family == "regions":
        more = {"weights_backbone": None}
    if weights == "pretrained":
        more.pop("aux_logits", None)
        more.pop("init_weights", None)
        network = _downloaded(spec, lambda: models.get_model(spec.network, weights=spec.pretrained, **spec.arguments))
    else:
        network = models.get_model(spec.network, weights=None, **more, **spec.arguments)
    if gives == "vectors" and spec.heads:
        _behead(network, spec.heads[0].removesuffix("."))
    return network


def _behead(network: nn.Module, head: str) -> None:
    """Take away the layer called `head`, so that what it read comes out."""
    parent, _, last = head.rpartition(".")
    setattr(network.get_submodule(parent) if parent else network, last, nn.Identity())


def _build_ours(spec: Spec, weights: str, gives: str) -> nn.Module:
    if spec.network == "shapes":
        from bench.shapes.network import ShapesNetwork

        return ShapesNetwork(random=weights == "random")

    if spec.network == "c3d":
        return C3D(**(spec.arguments if gives == "classes" else {}))
    return VGGish() if spec.network == "vggish" else YAMNet()


_BUILDERS = {"timm": _build_timm, "torchvision": _build_torchvision, "ours": _build_ours}


def _downloaded(spec: Spec, create: Any) -> nn.Module:
    try:
        network: nn.Module = create()
    except Exception as error:  # whatever a download can raise: timm, huggingface_hub, urllib, ssl
        raise BenchError(
            f"the weights {spec.pretrained} of encoder {spec.name} cannot be had ({first_line(error)}): connect this machine to "
            f"the network, or name a file of weights (.safetensors) instead"
        ) from error
    return network


def load_weights(network: nn.Module, path: Path, spec: Spec) -> None:
    """Copy the weights in the safetensors file `path` into `network`; those of a classifier that it lacks are left out.

    Raises BenchError, naming keys, for a file that cannot be read, other keys, other shapes, and values that are not finite.
    """
    head = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    heads = spec.heads or tuple(f"{name}." for name in ([head] if isinstance(head, str) else head))
    fill(network, path, spec.name, heads)


OVERLAP = 0.5


class RegionEncoder(nn.Module):
    """uint8 frames [N, 3, H, W] -> `regions` [N, k, 1024], surest first, and `boxes` [N, k, 5]: x1, y1, x2, y2 as shares of width
    and height, and the probability. A frame with fewer boxes has zeros after them."""

    def __init__(self, spec: Spec, network: Any, count: int) -> None:
        super().__init__()
        self.spec, self.network, self.count = spec, network, count

    def forward(self, frames_NCYX: Tensor) -> dict[str, Tensor]:
        found = [self._one(frame) for frame in frames_NCYX]
        return {name: torch.stack([one[name] for one in found]) for name in ("regions", "boxes")}

    def _one(self, frame: Tensor) -> dict[str, Tensor]:
        network = self.network
        images, _ = network.transform([frame.float() / 255])
        maps = network.backbone(images.tensors)
        if isinstance(maps, Tensor):
            maps = {"0": maps}
        (proposals,), _ = network.rpn(images, maps)
        vectors = self._vectors(maps, proposals, images.image_sizes)
        logits, shifts = network.roi_heads.box_predictor(vectors)
        scores, classes = logits.softmax(-1)[:, 1:].max(dim=1)  # class 0 is the background
        boxes = network.roi_heads.box_coder.decode(shifts, [proposals])
        boxes = boxes[torch.arange(len(boxes), device=boxes.device), classes + 1]
        height, width = images.image_sizes[0]
        limits = boxes.new_tensor([width, height, width, height])
        boxes = boxes.clamp(min=0).minimum(limits)
        real = (boxes[:, 2] - boxes[:, 0] > 1) & (boxes[:, 3] - boxes[:, 1] > 1)
        boxes, scores = boxes[real], scores[real]
        from torchvision.ops import nms

        kept = nms(boxes, scores, OVERLAP)[: self.count]
        scored = torch.cat([boxes[kept] / limits, scores[kept, None]], dim=1)
        return {
            "regions": _filled(self._vectors(maps, boxes[kept], images.image_sizes), self.count),
            "boxes": _filled(scored, self.count),
        }

    def _vectors(self, maps: Mapping[str, Tensor], boxes: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        heads = self.network.roi_heads
        vectors: Tensor = heads.box_head(heads.box_roi_pool(maps, [boxes], sizes))
        return vectors


def _filled(rows: Tensor, count: int) -> Tensor:
    return nn.functional.pad(rows, (0, 0, 0, count - len(rows)))


def load_detector(name: str, weights: str, count: int, files: Mapping[str, str] | None = None) -> RegionEncoder:
    """The detector called `name`, in eval mode, on the CPU, for `count` boxes of a frame. Raises BenchError."""
    spec = spec_of(name)
    if spec.family != "regions":
        raise BenchError(f"encoder {name} finds no boxes, as the stream regions needs")
    return RegionEncoder(spec, built(spec, weights, files, gives="boxes"), count).eval()


# -- weights: found by path or by content, and everything that can be wrong with them said by key -----------------------


def state_digest(network: nn.Module) -> str:
    """`sha256:DIGEST` over names and values of all parameters and buffers, wherever they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + b"\0")
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def find_file(weights: str, files: Mapping[str, str]) -> Path:
    """The file of weights; of a digest, the file that still has it."""
    if not weights.startswith("sha256:"):
        return written_path(weights)
    if weights not in files:
        raise BenchError(f"the file of weights {weights} is not known on this machine: name it again with its path")
    path = Path(files[weights])
    if not path.is_file():
        raise BenchError(f"the file of weights {path} is gone: put it back, it has {weights}")
    found = file_digest(path)
    if found != weights:
        raise BenchError(f"{path} has changed since it was named: it has {found}, not {weights}")
    return path


def fill(network: nn.Module, path: Path, name: str, heads: Sequence[str] = ()) -> None:
    """Copy the weights in the safetensors file `path` into `network`, the network of encoder `name`; those that begin with one of
    `heads`, layers above the features, and that the network lacks are left out.

    Raises BenchError, naming keys, for a file that cannot be read, other keys, other shapes, and values that are not finite.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BenchError(f"{path} cannot be read as a safetensors file: {error}") from error
    own = network.state_dict()
    state = {key: value for key, value in state.items() if key in own or not key.startswith(tuple(heads))}
    faults = {
        "lacks": sorted(own.keys() - state.keys()),
        "has besides": sorted(state.keys() - own.keys()),
        "has in another shape": [key for key in own if key in state and own[key].shape != state[key].shape],
    }
    if any(faults.values()):
        found = "; ".join(f"{what} {named(keys)}" for what, keys in faults.items() if keys)
        raise BenchError(f"{path} holds no weights of encoder {name}: it {found}")
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise BenchError(f"{path}: has NaN or infinite values in {named(broken)}; take a sound copy of the file")
    network.load_state_dict(state)
