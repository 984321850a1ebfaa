"""What a network in an ONNX file reads and gives, as the YAML beside it declares it (`encoder=onnx weights=FILE.onnx
spec=FILE.yaml`). Imports no torch.

An ONNX file tells shapes and types; size, colour order, mean, deviation and what the numbers mean it does not tell. They are
declared here, enter the fingerprint of the features, and are held against the file, and against a known picture where one is
named: a detector that gets red for blue still finds boxes, only worse ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from bench import BenchError
from bench.declare.dataset import resolved
from bench.declare.registry import read_model
from bench.declare.settings import Strict
from bench.disk.digests import file_digest
from bench.features.specs import LogMel, Preprocessing, Spec, spec_of
from bench.home import Home

Size = Annotated[list[int], Field(min_length=2, max_length=2)]
Channels = Annotated[list[float], Field(min_length=3, max_length=3)]
GIVES = {"vector": "vectors", "map": "maps", "classes": "classes", "boxes": "regions"}  # and what a stream calls it
Heads = Literal["nanodet", "nanodet_plus", "yolox", "yolov5", "yolov8", "end_to_end"]


class Sound(Strict):
    """The log-mel bands that an encoder of sound reads; see `LogMel`, whose numbers are VGGish's."""

    rate: int = Field(default=16_000, ge=1000)
    window: int = Field(default=400, ge=1)
    hop: int = Field(default=160, ge=1)
    length: int = Field(default=512, ge=2)
    bands: int = Field(default=64, ge=1)
    lowest: float = Field(default=125.0, ge=0)
    highest: float = Field(default=7500.0, gt=0)
    offset: float = Field(default=0.01, gt=0)
    steps: int = Field(default=96, ge=1)
    every: int = Field(default=96, ge=1)
    mono: Literal["mean", "swresample"] = "mean"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.window > self.length:
            raise ValueError(
                f"has a window of {self.window} samples, longer than the transform's length, {self.length}"
            )
        if self.hop > self.window:
            raise ValueError(
                f"has a hop of {self.hop} samples over a window of {self.window}: what lies between would not be heard"
            )
        if not self.lowest < self.highest <= self.rate / 2:
            raise ValueError(
                f"has bands from {self.lowest:g} to {self.highest:g} Hz, which must lie within 0 to {self.rate / 2:g}"
            )
        return self


class Input(Strict):
    """One picture or one example of sound. `size` is height and width, `mean` and `std` are of 0..255 in the order of `colours`.

    `fit` tells how a frame gets its size: stretched, or in its own shape in the upper left corner or the centre of a square of
    the grey `fill`.
    """

    name: str | None = None
    size: Size | None = None
    colours: Literal["rgb", "bgr"] | None = None
    mean: float | Channels = 0.0
    std: float | Channels = 1.0
    layout: Literal["nchw", "nhwc"] = "nchw"
    fit: Literal["stretch", "corner", "centre"] = "stretch"
    fill: int = Field(default=114, ge=0, le=255)
    sound: Sound | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.sound is None and (self.size is None or self.colours is None):
            raise ValueError("names neither sound: nor size: [HEIGHT, WIDTH] and colours: rgb or bgr")
        if self.sound is not None and (self.size or self.colours or self.fit != "stretch"):
            raise ValueError("has sound, with which size, colours and fit do not go")
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"has size {self.size}, which must be positive")
        if self.fit != "stretch" and self.size is not None and self.size[0] != self.size[1]:
            raise ValueError(f"has fit {self.fit} and size {self.size}: only a square holds frames of every shape")
        if 0 in (self.std if isinstance(self.std, list) else [self.std]):
            raise ValueError("has std 0, by which nothing can be divided")
        return self


class Output(Strict):
    """What comes out: one `vector` [N, D], a `map` [N, C, h, w], logits of `classes` [N, K] (probabilities where `softmax` is
    false), or `boxes`, decoded by the head called `heads`.

    `classes` are the names of what boxes or logits tell apart: coco, a list, or a file with one on each line. Boxes below the
    score `least` are dropped, and of two of a class that overlap by more than `overlap` the less sure one.
    """

    gives: Literal["vector", "map", "classes", "boxes"]
    names: list[str] | None = None
    layout: Literal["nchw", "nhwc"] = "nchw"
    softmax: bool = True
    heads: Heads | None = None
    classes: str | list[str] | None = None
    strides: list[int] = Field(default=[8, 16, 32], min_length=1)
    least: float = Field(default=0.05, ge=0, le=1)
    overlap: float = Field(default=0.6, ge=0, le=1)

    @model_validator(mode="after")
    def _boxes(self) -> Self:
        if (self.gives == "boxes") != (self.heads is not None):
            raise ValueError(
                f"gives {self.gives}" + (", and needs heads: for them" if self.gives == "boxes" else ", no boxes")
            )
        if self.gives == "boxes" and self.classes is None:
            raise ValueError("gives boxes, and needs classes: coco, a list of names, or a file of them")
        return self


class Vectors(Strict):
    """The 2-D encoder from whose map the features of boxes are pooled; `spec` where it is an ONNX file of its own."""

    encoder: str
    weights: str = "pretrained"
    spec: str | None = None


class Known(Strict):
    """What the network must make of one picture (or sound), as the program says from which it comes.

    `score` is that of the surest box of `class`, the probability of `class`, or the `number`-th number of the vector, of a map
    the mean over its places.
    """

    file: str
    score: float
    what: str | None = Field(default=None, alias="class")
    number: int = Field(default=0, ge=0)
    within: float = Field(default=0.02, gt=0)


class OnnxSpec(Strict):
    """The whole declaration."""

    title: str = ""
    input: Input
    output: Output
    vectors: Vectors | None = None
    known: Known | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.output.gives == "boxes" and self.input.sound:
            raise ValueError("reads sound and gives boxes")
        if self.input.fit != "stretch" and self.output.gives != "boxes":
            raise ValueError(f"has fit {self.input.fit}, which only boxes can be read through: say stretch")
        if self.vectors and self.output.gives != "boxes":
            raise ValueError(f"has vectors, which belong to boxes, and gives {self.output.gives}")
        return self


@dataclass(frozen=True)
class Declared:
    """An encoder as a spec file declares it, with the paths of its files of weights by digest."""

    spec: Spec
    files: Mapping[str, str]


def declared(path: Path, weights: Path, home: Home) -> Declared:
    """The encoder in the ONNX file `weights` as the YAML file `path` declares it. Raises BenchError for what is not there or
    contradicts itself; the network is not opened."""
    if not path.is_file():
        raise BenchError(
            f"spec={path}: there is no such file; it is a YAML file that says what the network reads and gives"
        )
    if not weights.is_file():
        raise BenchError(f"there is no file of weights {weights}; encoder=onnx needs weights=FILE.onnx")
    own = read_model(path, OnnxSpec)
    files = {file_digest(weights): str(weights)}
    document = own.model_dump(exclude={"title", "known", "vectors"}, exclude_defaults=True)
    classes = own.output.classes
    if isinstance(classes, str) and classes != "coco":
        document["output"]["classes"] = _lines(resolved(classes, path, home), path)
    if own.vectors is not None:
        vectors = _vectors(own.vectors, path, home)
        document["vectors"], files = vectors[0], files | vectors[1]
    known = None
    if own.known is not None:
        known = own.known.model_copy(update={"file": str(resolved(own.known.file, path, home))})
        if not Path(known.file).is_file():
            raise BenchError(f"{path}: known.file is {known.file}, but there is no such file")
    return Declared(of_document(document, str(path), known), files)


def _vectors(own: Vectors, path: Path, home: Home) -> tuple[dict[str, Any], dict[str, str]]:
    """The declaration of the encoder of vectors, its files replaced by digests, and those files."""
    where = resolved(own.weights, path, home)
    if own.encoder == "onnx":
        if own.spec is None:
            raise BenchError(
                f"{path}: vectors.encoder is onnx, but vectors.spec is missing, the YAML file that declares it"
            )
        inner = declared(resolved(own.spec, path, home), where, home)
        if inner.spec.arguments["output"]["gives"] != "map":
            raise BenchError(
                f"{path}: vectors are pooled from a map, and {own.spec} gives {inner.spec.arguments['output']['gives']}"
            )
        return {"encoder": "onnx", "weights": file_digest(where), "arguments": inner.spec.arguments}, dict(inner.files)
    encoder = spec_of(own.encoder)
    if encoder.family != "pictures":
        raise BenchError(
            f"{path}: vectors.encoder is {own.encoder}, which reads no single pictures: take one such as resnet152"
        )
    if own.weights in ("pretrained", "random"):
        return {"encoder": own.encoder, "weights": own.weights}, {}
    if not where.is_file():
        raise BenchError(f"{path}: vectors.weights is {where}, but there is no such file")
    digest = file_digest(where)
    return {"encoder": own.encoder, "weights": digest}, {digest: str(where)}


def of_document(document: Mapping[str, Any], where: str = "", known: Known | None = None) -> Spec:
    """The encoder of a declaration as a cache records it."""
    own = OnnxSpec.model_validate({key: value for key, value in document.items() if key != "vectors"})
    source = own.input
    if source.sound is not None:
        front = LogMel(**source.sound.model_dump())
        seen = Preprocessing((front.steps, front.bands), None, "log-mel", source.mean, source.std, sound=front)  # type: ignore[arg-type]
        family = "sound"
    else:
        assert source.size is not None
        height, width = source.size
        whole = source.fit == "stretch"
        mean, std = (_red_first(value, source.colours == "bgr") for value in (source.mean, source.std))
        seen = Preprocessing(
            (height, width) if whole else height, None, "BILINEAR", mean, std, None if whole else height
        )
        family = "regions" if own.output.gives == "boxes" else "pictures"
    return Spec("onnx", where, 0, seen, None, dict(document), "onnx", family, known=known)


def _red_first(value: float | list[float], turned: bool) -> Any:
    if not isinstance(value, list):
        return value
    return tuple(reversed(value)) if turned else tuple(value)


def vectors_of(spec: Spec) -> tuple[Spec, str] | None:
    """The encoder from whose map the features of a declared detector's boxes are pooled, with whole frames in place of a crop,
    and its weights; None where none is declared."""
    own = spec.arguments.get("vectors") if spec.package == "onnx" else None
    if own is None:
        return None
    found = of_document(own["arguments"]) if own["encoder"] == "onnx" else spec_of(own["encoder"])
    return found.of_whole_frames(), own["weights"]


def _lines(path: Path, spec: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(
            f"{spec}: output.classes is neither coco nor a file of names: {path} cannot be read"
        ) from error
