"""Encoders: what makes vectors of frames, of runs of frames and of sound.

An encoder is a network, the arguments it is built with, its weights and its preprocessing, and only all of them together
make its features: the same MobileNetV2 weights with another side padded at its strides agree with a cosine of 0.87, frames
resized by another program of 0.95. The part of the preprocessing that changes the size of a frame is done once, when videos are
decoded (`bench.features.video`); scaling by mean and deviation belongs to the module.

Networks come from timm and torchvision (`pip install "captionbench[extract]"`), which are imported only where one is built.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench import BenchError
from bench.disk.digests import file_digest
from bench.errors import first_line, named, sizes, unknown
from bench.features.backends import need_open_clip, need_timm, need_torchvision
from bench.features.heads import COCO
from bench.features.networks import C3D, VGGish, YAMNet
from bench.features.sound import log_mel, read_sound
from bench.features.specs import Preprocessing, Spec, spec_of
from bench.features.video import UnreadableVideoError, read_frames
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
        kind = next((value.dtype for value in self.network.parameters()), torch.float32)
        numbers = scaled(frames_NCYX, self.spec.preprocessing, kind)
        if self.spec.window > 1:
            numbers = numbers.transpose(1, 2)  # networks of motion have time after the channels
        if self.gives == "maps":
            return self._maps(numbers)
        found: Tensor = self.network(numbers)
        return found.softmax(dim=-1) if self.gives == "classes" else found

    def _maps(self, numbers: Tensor) -> Tensor:
        maps: Tensor = self.network.forward_features(numbers)  # type: ignore[operator]
        if maps.ndim == 3 and hasattr(self.network, "patch_embed"):  # a transformer's patches are places, row by row
            network: Any = self.network
            patches = maps[:, network.num_prefix_tokens :]
            maps = patches.transpose(1, 2).unflatten(2, network.patch_embed.grid_size)
        if maps.ndim != 4:
            raise BenchError(f"encoder {self.spec.name} has no maps of places, so that it makes no stream spatial")
        return maps.movedim(3, 1) if getattr(self.network, "output_fmt", "NCHW") == "NHWC" else maps


def scaled(pixels: Tensor, scale: Preprocessing, kind: torch.dtype) -> Tensor:
    """Pixels [..., 3, H, W] of 0..255 as the numbers that a network reads."""
    if isinstance(scale.mean, tuple) or isinstance(scale.deviation, tuple):
        mean, deviation = (
            torch.as_tensor(value, dtype=kind, device=pixels.device).view(-1, 1, 1)
            for value in (scale.mean, scale.deviation)
        )
        return (pixels.to(kind) - mean) / deviation
    return (pixels.to(kind) - scale.mean) / scale.deviation


def load_encoder(
    name: str | Spec, weights: str = "pretrained", files: Mapping[str, str] | None = None, gives: str = "vectors"
) -> Encoder:
    """The encoder called `name`, or declared, in eval mode, on the CPU.

    `weights` is `pretrained`, `random` (the same numbers every time, for tests), `empty` (others follow), `sha256:DIGEST` of
    a file that `files` gives the path of, or such a path. `gives` is vectors, maps or classes. Raises BenchError where the
    network or its weights cannot be had, or do not fit.
    """
    spec = name if isinstance(name, Spec) else spec_of(name)
    name = spec.name
    if spec.package == "onnx":
        return _declared(spec, weights, files or {}, gives)
    if spec.family == "regions":
        raise BenchError(f"encoder {name} finds boxes: it makes the stream regions and no other")
    if gives == "maps" and (spec.package != "timm" or spec.family != "pictures"):
        raise BenchError(f"encoder {name} gives no maps: take one of timm, such as resnet152, for the stream spatial")
    if gives == "classes" and spec.package in ("ours", "open_clip") and "classes" not in spec.arguments:
        raise BenchError(f"encoder {name} tells no classes apart: take another one for the streams objects and actions")
    return Encoder(spec, built(spec, weights, files, gives), gives).eval()


def _declared(spec: Spec, weights: str, files: Mapping[str, str], gives: str) -> Encoder:
    """An encoder in an ONNX file, held against what is known of it."""
    from bench.features.onnx import OnnxNetwork

    encoder = Encoder(spec, OnnxNetwork(find_file(weights, files), spec.arguments), gives).eval()
    if spec.known is not None:
        check_known(spec, lambda values: _score(encoder(torch.from_numpy(values)), spec))
    return encoder


def _score(found: Tensor, spec: Spec) -> float:
    """The number of the first row that is known: of a map the mean over its places."""
    row = found[0].float().flatten(1).mean(dim=1) if found.ndim == 4 else found[0].float()
    known, classes = spec.known, spec.arguments["output"].get("classes")
    number = class_number(known.what, classes) if known.what is not None else known.number
    if number >= len(row):
        raise BenchError(f"{spec.network}: known.number is {number}, but the network gives {len(row)} numbers")
    return float(row[number])


def class_number(what: str, classes: Any) -> int:
    """The number of the class called `what`. Raises BenchError where there is none."""
    names = list(COCO) if classes == "coco" else list(classes or ())
    if what not in names:
        raise unknown("class", what, names, "known")
    return names.index(what)


def check_known(spec: Spec, score: Callable[[NDArray[Any]], float]) -> None:
    """Raise BenchError where the known file gets another score than it must: something that was declared is not so."""
    known, seen = spec.known, spec.preprocessing
    try:
        values: NDArray[Any]
        if seen.sound is not None:
            values = log_mel(read_sound(Path(known.file), seen.sound), seen.sound)[:1]
        else:
            values = read_frames(Path(known.file), 1, seen)
    except UnreadableVideoError as error:
        raise BenchError(f"{spec.network}: known.file {known.file} {error}") from None
    found = score(values)
    if abs(found - known.score) <= known.within:
        return
    start = f"{spec.network}: {Path(known.file).name} gets the score {found:.3f} and not {known.score:.3f}, as is known"
    if seen.sound is not None:
        raise BenchError(f"{start}: correct what is declared of the sound")
    turned = score(np.ascontiguousarray(values[:, ::-1]))
    own = spec.arguments["input"]["colours"]
    if abs(turned - known.score) <= known.within:
        raise BenchError(f"{start}; with red and blue exchanged it gets {turned:.3f}: input.colours is not {own}")
    raise BenchError(
        f"{start} ({turned:.3f} with red and blue exchanged): correct input.size, mean, std, layout or fit"
    )


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


def _build_open_clip(spec: Spec, weights: str, gives: str) -> nn.Module:
    clip = need_open_clip(spec.name)

    def create(tag: str | None) -> Any:
        bare = {"pretrained_image": False, "pretrained_text": False}
        logging.disable(logging.ERROR)  # of weights that come next; what cannot be had is raised too
        try:
            return clip.create_model(
                spec.network, pretrained=tag, force_quick_gelu=spec.arguments["quick_gelu"], **bare
            )
        finally:
            logging.disable(logging.NOTSET)

    model: Any = _downloaded(spec, lambda: create(spec.pretrained)) if weights == "pretrained" else create(None)
    if gives == "texts too":
        return model
    images = nn.Sequential()
    images.add_module("visual", model.visual)  # as whole models name its parameters
    return images


def _build_ours(spec: Spec, weights: str, gives: str) -> nn.Module:
    if spec.network == "shapes":
        from bench.shapes.network import ShapesNetwork

        return ShapesNetwork(random=weights == "random")

    if spec.network == "c3d":
        return C3D(**(spec.arguments if gives == "classes" else {}))
    return VGGish() if spec.network == "vggish" else YAMNet()


_BUILDERS = {"timm": _build_timm, "torchvision": _build_torchvision, "open_clip": _build_open_clip, "ours": _build_ours}


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


# -- weights: found by path or by content, and everything that can be wrong with them said by key -----------------------


def state_digest(network: nn.Module) -> str:
    """`sha256:DIGEST` over names and values of all parameters and buffers, wherever they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + b"\0")
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    for module in network.modules():  # what onnxruntime holds is no parameter
        digest.update(str(getattr(module, "digest", "")).encode())
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
