"""Encoders by name: network, weights, and what a frame must look like before one reads it. Imports no torch: the processes
that decode videos need none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bench import BenchError
from bench.errors import unknown
from bench.features.backends import need_open_clip, need_timm


@dataclass(frozen=True)
class LogMel:
    """From sound to examples of log-mel bands: what VGGish (Hershey et al., ICASSP 2017) reads, unless told.

    `mono` is the mean of all channels, or what swresample mixes of them in floats: of two channels louder by the root of two, by
    which YAMNet's vectors move up to a cosine of 0.94. `rate` samples a second; every `hop` samples a `window` of them under a
    periodic Hann window, its magnitudes by a transform of `length`, in `bands` from `lowest` to `highest` Hz, log(x + `offset`):
    one step. An example has `steps` of them and begins `every` so many steps; a rest at the end that fills none is left out.
    """

    rate: int = 16_000
    window: int = 400
    hop: int = 160
    length: int = 512
    bands: int = 64
    lowest: float = 125.0
    highest: float = 7500.0
    offset: float = 0.01
    steps: int = 96
    every: int = 96
    mono: str = "mean"


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded frame to the pixels that an encoder reads, and from pixels to numbers.

    `resize` is the length of the shorter side, or (height, width) whatever the frame's shape; the centre square of side
    `crop` is kept. `resampler` is swscale's, which goes to RGB at the new size in one step. A pixel x of 0..255 becomes
    (x - mean) / deviation, with one number for all or one for each of red, green and blue. `longest` bounds the longer
    side where the frame keeps its shape. Of a network of sound, `sound` says what becomes of it, and an example is a picture of
    one channel.
    """

    resize: int | tuple[int, int]
    crop: int | None
    resampler: str
    mean: float | tuple[float, float, float]
    deviation: float | tuple[float, float, float]
    longest: int | None = None
    sound: LogMel | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the pixels; None where they follow the video's."""
        if self.crop is not None:
            return self.crop, self.crop
        return self.resize if isinstance(self.resize, tuple) else None

    def of_pixels(self) -> dict[str, Any]:
        """What decides the stored pixels, for their fingerprint."""
        names = ("resize", "crop", "resampler") + (("longest",) if self.longest is not None else ())
        return {name: value for name, value in asdict(self).items() if name in names}

    def of_features(self) -> dict[str, Any]:
        """What decides the numbers that the encoder reads, for the fingerprint of features."""
        heard = asdict(self.sound) if self.sound else {}
        unusual = {name: value for name, value in heard.items() if value != getattr(LogMel(), name)}
        sound = {"sound": unusual} if unusual else {}
        return {**self.of_pixels(), **sound, "mean": self.mean, "deviation": self.deviation}

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a frame of this shape before the crop."""
        if isinstance(self.resize, tuple):
            return self.resize
        scale = self.resize / min(height, width)
        if self.longest is not None:
            scale = min(scale, self.longest / max(height, width))
        least = 1 if self.crop is None else self.crop
        return max(least, round(height * scale)), max(least, round(width * scale))


@dataclass(frozen=True)
class Spec:
    """One encoder. `network` is its package's name of it, built with `arguments`; `width` the length of a vector, 0 where only
    the network itself tells.

    `family` is what it reads: pictures, runs of frames (`motion`, `window` of them), pictures for boxes (`regions`) or sound.
    `pretrained` is its package's name of the weights that go with this preprocessing, None where they are only to be had as a
    file. `heads` begin the names of the parameters above the vectors. `known` is what a declared network must make of one file
    (`bench.features.onnx_spec`).
    """

    name: str
    network: str
    width: int
    preprocessing: Preprocessing
    pretrained: str | None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    package: str = "timm"
    family: str = "pictures"
    window: int = 1
    heads: tuple[str, ...] = ()
    known: Any = None

    def of_whole_frames(self) -> Spec:
        """The same with frames squeezed to its size where it would keep their centre alone: boxes lie everywhere."""
        own = self.preprocessing
        assert own.size is not None
        return replace(self, preprocessing=replace(own, resize=own.size, crop=None))


_HALVES: dict[str, Any] = {"mean": 127.5, "deviation": 127.5}
_IMAGENET: dict[str, Any] = {"mean": (123.675, 116.28, 103.53), "deviation": (58.395, 57.12, 57.375)}
_KINETICS: dict[str, Any] = {"mean": (110.2008, 100.63983, 95.99475), "deviation": (58.14765, 56.46975, 55.332195)}
_CENTRE = Preprocessing(256, 224, "BILINEAR", **_IMAGENET)
_RUNS = Preprocessing((128, 171), 112, "BILINEAR", **_KINETICS)
_SCENE = Preprocessing(
    800, None, "BILINEAR", 0.0, 255.0, longest=1333
)  # a detector scales by mean and deviation itself


def _timm(name: str, width: int, preprocessing: Preprocessing, pretrained: str | None, **arguments: Any) -> Spec:
    return Spec(name, name, width, preprocessing, pretrained, arguments)


def _motion(name: str, width: int, preprocessing: Preprocessing, heads: tuple[str, ...]) -> Spec:
    weights = "KINETICS400_V1"
    return Spec(name, name, width, preprocessing, weights, {}, "torchvision", "motion", 16, heads)


def _detector(name: str) -> Spec:
    return Spec(name, name, 1024, _SCENE, "COCO_V1", {}, "torchvision", "regions")


def _sound(name: str, width: int, front: LogMel) -> Spec:
    window, hop, rate = 1000 * front.window // front.rate, 1000 * front.hop // front.rate, front.rate // 1000
    said = f"log-mel of {window} ms every {hop} ms at {rate} kHz"
    example = Preprocessing((front.steps, front.bands), None, said, 0.0, 1.0, sound=front)
    return Spec(name, name, width, example, None, {}, "ours", "sound", heads=("fc.",))


ENCODERS = {
    spec.name: spec
    for spec in (
        # EtENet, section 5: resized to 314, centre of 299, mean and deviation 0.5; vectors are the last average pool's.
        _timm(
            "inception_resnet_v2",
            1536,
            Preprocessing(314, 299, "BILINEAR", **_HALVES),
            "inception_resnet_v2.tf_in1k",
        ),
        # The network as TensorFlow pads it. timm's own weights were trained with another padding and other means.
        _timm("mobilenetv2_100", 1280, Preprocessing((224, 224), None, "BILINEAR", **_HALVES), None, pad_type="same"),
        # Ours, with weights that never change: the frames of the embedded corpus, which is painted at this size.
        Spec("shapes", "shapes", 256, Preprocessing((64, 64), None, "BILINEAR", 0.0, 1.0), "fixed", package="ours"),
        # The whole frame at the network's size: a centre crop would hide a tenth of it.
        _timm(
            "tf_efficientnet_lite2",
            1280,
            Preprocessing((260, 260), None, "BILINEAR", **_HALVES),
            "tf_efficientnet_lite2.in1k",
        ),
        # RecNet, section 4.2: frames at 299 x 299, last pooling layer.
        _timm("inception_v4", 1536, Preprocessing((299, 299), None, "BILINEAR", **_HALVES), "inception_v4.tf_in1k"),
        _timm("inception_v3", 2048, Preprocessing((299, 299), None, "BILINEAR", **_HALVES), "inception_v3.tf_in1k"),
        # VRE (section 4.1), HA_IL (4.1), and the kind GL-RG cites for its objects; papers name no resizing: torchvision's.
        _timm("resnet152", 2048, _CENTRE, "resnet152.tv_in1k"),
        _timm("resnet101", 2048, _CENTRE, "resnet101.tv_in1k"),
        _timm("resnext101_32x8d", 2048, _CENTRE, "resnext101_32x8d.tv_in1k"),
        # The second of the two wide layers, as earlier papers took it.
        _timm("vgg16", 4096, _CENTRE, "vgg16.tv_in1k"),
        _timm("vgg19", 4096, _CENTRE, "vgg19.tv_in1k"),
        Spec("alexnet", "alexnet", 4096, _CENTRE, "IMAGENET1K_V1", {}, "torchvision", heads=("classifier.6.",)),
        Spec(
            "googlenet",
            "googlenet",
            1024,
            Preprocessing(256, 224, "BILINEAR", **_HALVES),  # what `transform_input` makes of ImageNet's means
            "IMAGENET1K_V1",
            {"transform_input": False},
            "torchvision",
            heads=("fc.", "aux1.", "aux2."),
        ),
        _motion("r3d_18", 512, _RUNS, ("fc.",)),
        _motion("r2plus1d_18", 512, _RUNS, ("fc.",)),
        _motion("s3d", 1024, Preprocessing((256, 256), 224, "BILINEAR", **_KINETICS), ("classifier.",)),
        # The means of its training frames, red first; copies of its weights differ in order and scale.
        Spec(
            "c3d",
            "c3d",
            4096,
            Preprocessing((128, 171), 112, "BILINEAR", (102.0, 98.0, 90.0), 1.0),
            None,
            {"classes": 487},
            "ours",
            "motion",
            16,
            ("fc7.", "fc8."),
        ),
        _detector("fasterrcnn_resnet50_fpn"),
        _detector("fasterrcnn_resnet50_fpn_v2"),
        _detector("fasterrcnn_mobilenet_v3_large_fpn"),
        _sound("vggish", 128, LogMel()),
        _sound("yamnet", 1024, LogMel(offset=0.001, every=48, mono="swresample")),
    )
}


def spec_of(name: str) -> Spec:
    """The encoder called `name`. Raises BenchError naming all there are."""
    if name in ENCODERS:
        return ENCODERS[name]
    if name.startswith("clip:"):
        return _of_open_clip(name, need_open_clip(name))
    known = ", ".join(ENCODERS)
    try:
        timm = need_timm(name)
    except BenchError as error:
        raise BenchError(
            f"there is no encoder {name!r}; the encoders are {known}, any network of timm, and clip:NETWORK of open_clip: {error}"
        ) from None
    if not timm.is_model(name.split(".")[0]):
        raise BenchError(
            f"there is no encoder {name!r}; the encoders are {known}, any network of timm, and clip:NETWORK of open_clip"
        )
    return _of_timm(name, timm)


def _of_timm(name: str, timm: Any) -> Spec:
    """A network of timm with the preprocessing that its weights were trained with, by swscale's resampler of the same name."""
    try:
        facts = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # a tag that is not registered
        raise BenchError(f"timm knows no weights {name!r}: name the network alone, {name.split('.')[0]}") from None
    _, height, width = facts.input_size
    resampler = {"bilinear": "BILINEAR", "bicubic": "BICUBIC"}.get(facts.interpolation, "BICUBIC")
    means, deviations = (tuple(255.0 * value for value in values) for values in (facts.mean, facts.std))
    whole = height != width or facts.crop_mode == "squash"
    resize: int | tuple[int, int] = (height, width) if whole else int(height / facts.crop_pct)
    preprocessing = Preprocessing(resize, None if whole else height, resampler, means, deviations)
    pretrained = f"{facts.architecture}.{facts.tag}" if facts.tag else facts.architecture
    return Spec(name, name.split(".")[0], 0, preprocessing, pretrained if facts.has_weights else None)


_CLIP_TEXT = (
    "transformer.",
    "token_embedding.",
    "positional_embedding",
    "ln_final.",
    "text_projection",
    "text.",
    "logit_",
)


def _of_open_clip(name: str, clip: Any) -> Spec:
    """The image side of `clip:NETWORK` or `clip:NETWORK:WEIGHTS`, open_clip's names of both. Its weights decide on the
    preprocessing and on the kind of GELU, also where they come as a file: OpenAI's where no others are named."""
    _, network, *rest = name.split(":")
    config = clip.get_model_config(network)
    if config is None or len(rest) > 1:
        raise unknown("encoder", name, [f"clip:{own}" for own in clip.list_models()], "open_clip")
    tags = clip.list_pretrained_tags_by_model(network)
    tag = rest[0] if rest else next((own for own in ("openai", *tags) if own in tags), None)
    if rest and tag not in tags:
        raise unknown("weights", rest[0], tags, f"open_clip's network {network}")
    facts = clip.pretrained.get_pretrained_cfg(network, tag) if tag else {}
    own = {**clip.transform.PreprocessCfg().__dict__, **facts}
    side, crop = config["vision_cfg"]["image_size"], own["resize_mode"] == "shortest"
    if not isinstance(side, int) or own["resize_mode"] == "longest":
        raise BenchError(
            f"encoder {name} reads frames with grey at their sides, which is not done here: take another one"
        )
    means, deviations = (tuple(255.0 * value for value in own[kind]) for kind in ("mean", "std"))
    resampler = {"bilinear": "BILINEAR"}.get(own["interpolation"], "BICUBIC")
    seen = Preprocessing(side if crop else (side, side), side if crop else None, resampler, means, deviations)
    gelu = bool(facts.get("quick_gelu", False) or config.get("quick_gelu", False))
    return Spec(name, network, config["embed_dim"], seen, tag, {"quick_gelu": gelu}, "open_clip", heads=_CLIP_TEXT)
