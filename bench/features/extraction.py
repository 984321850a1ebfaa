"""What is to be extracted: a stream, the encoder behind it, the frames it reads. One declaration serves all streams.

| stream | reads | gives |
|---|---|---|
| `pixels` | frames | the frames themselves [T, 3, H, W], bytes, for methods that train the encoder |
| `frames` | frames | a vector each [T, D], after the last pooling |
| `spatial` | frames | the last maps, mean over time [places, C] |
| `objects` | the middle frame | probabilities of classes, mean over frames [K] |
| `motion` | runs of frames around each frame | a vector each [T, D] |
| `actions` | the run around the middle | probabilities of classes, mean over runs [K] |
| `regions` | frames | vectors of the boxes that are surest [T, k, D]; beside it `boxes` [T, k, 6] |
| `audio` | the sound | mean of the vectors of its examples of 0.96 s [D] |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.declare.dataset import DatasetDefinition, StreamSource
from bench.disk.digests import file_digest
from bench.features.decoders import Reader
from bench.features.encoders import WORDS
from bench.features.onnx_spec import GIVES, declared, of_document, vectors_of
from bench.features.sidecar import cache_path, canonical, read_sidecar
from bench.features.specs import ENCODERS, Spec, spec_of
from bench.features.video import Sampling
from bench.home import Home, written_path

PIXELS = "pixels"
BOXES = 16  # of a frame, unless given: as many as HA_IL reads


@dataclass(frozen=True)
class Kind:
    """A stream that videos can be made into: the family of its encoder, what that gives, how many frames unless given."""

    family: str
    gives: str
    example: str
    frames: int | None = None
    centred: bool = False
    timed: bool = True


KINDS = {
    PIXELS: Kind("pictures", "pixels", "inception_resnet_v2"),
    "frames": Kind("pictures", "vectors", "inception_v4"),
    "spatial": Kind("pictures", "maps", "resnet152", timed=False),
    "objects": Kind("pictures", "classes", "resnext101_32x8d", 1, centred=True, timed=False),
    "motion": Kind("motion", "vectors", "r2plus1d_18"),
    "actions": Kind("motion", "classes", "r3d_18", 1, centred=True, timed=False),
    "regions": Kind("regions", "regions", "fasterrcnn_resnet50_fpn"),
    "audio": Kind("sound", "vectors", "vggish", 0, timed=False),
}


@dataclass(frozen=True)
class Extraction:
    """What to extract of every clip of `dataset` from the videos in `videos`.

    `sampling` is None where sound is read. `weights` is `pretrained`, `random` or the digest of a file whose path `files` tells.
    `boxes` counts those of a frame of `regions`; with `silence` a clip without sound is silent instead of failed.
    """

    dataset: str
    stream: str
    videos: Path
    sampling: Sampling | None
    encoder: Spec
    weights: str = "pretrained"
    files: Mapping[str, str] = field(default_factory=dict)
    boxes: int = BOXES
    silence: bool = False
    dtype: str = "float16"

    @classmethod
    def of(
        cls, definition: DatasetDefinition, stream: str, home: Home, asked: Mapping[str, Any] | None = None
    ) -> Extraction:
        """The stream's entry in the definition, and over it `asked`: the same fields, of a command. Raises BenchError."""
        asked = asked or {}
        kind = kind_of(stream)
        entry = definition.streams.get(stream) or StreamSource()
        given = entry.model_dump(
            include={"videos", "frames", "fps", "encoder", "weights", "boxes", "spec"}, exclude_none=True
        )
        given |= asked
        if kind.frames is not None:
            given.setdefault("frames", kind.frames)
        absent = [name for name in ("videos", "frames", "encoder") if name not in given]
        if absent:
            frames = "" if kind.frames is not None else " frames=28"
            names = ", ".join(spec.name for spec in ENCODERS.values() if spec.family == kind.family)
            raise BenchError(
                f"stream {stream} of data set {definition.name}: {', '.join(f'{name}=' for name in absent)} is missing, as in "
                f"`bench features extract dataset={definition.called} stream={stream} videos=FOLDER{frames} "
                f"encoder={kind.example}` (encoders: {names})"
            )
        # A path on the command line is relative to the current folder, one in the definition to the definition's.
        videos, weights, spec = (
            written_path(asked[name]).resolve() if name in asked else _resolved(given.get(name), definition, home)
            for name in ("videos", "weights", "spec")
        )
        encoder, digest, files = _encoder(given, weights, spec, kind, stream, home)
        return cls(
            definition.name,
            stream,
            videos or Path(),
            _sampling(given, kind, encoder),
            encoder,
            weights=digest,
            files=files,
            boxes=given.get("boxes", BOXES),
            silence=given.get("silence", False),
            dtype=entry.dtype or "float16",
        )

    @property
    def kind(self) -> Kind:
        return KINDS[self.stream]

    @property
    def reader(self) -> Reader:
        """What decoding reads of a clip."""
        vectors = vectors_of(self.encoder)
        also = None if vectors is None else vectors[0].preprocessing
        return Reader(self.sampling, self.encoder.preprocessing, self.silence, also)

    def options(self) -> dict[str, Any]:
        """All that decides the values, for the fingerprint."""
        chosen = {} if self.sampling is None else self.sampling.options()
        if self.stream == PIXELS:
            return {"name": self.encoder.name, **chosen, **self.encoder.preprocessing.of_pixels()}
        made: dict[str, Any] = {
            "name": self.encoder.name,
            "gives": self.kind.gives,
            "weights": self.encoder.pretrained if self.weights == "pretrained" else self.weights,
            "arguments": dict(self.encoder.arguments),
        }
        if self.stream == "regions":
            made["boxes"] = self.boxes
        if self.sampling is None:
            made["silence"] = self.silence
        return {**made, **chosen, **self.encoder.preprocessing.of_features()}


def _encoder(
    given: Mapping[str, Any], weights: Path | None, spec: Path | None, kind: Kind, stream: str, home: Home
) -> tuple[Spec, str, dict[str, str]]:
    """The encoder that was asked for, its weights as they are keyed, and paths by digest. Raises BenchError."""
    name, said = str(given["encoder"]), str(given.get("weights", "pretrained"))
    if (name == "onnx") != (spec is not None):
        raise BenchError(
            f"encoder={name} and spec={spec}: spec= declares what a network in an ONNX file reads and gives"
            if spec is not None
            else "encoder=onnx needs spec=FILE.yaml, which declares what the network reads and gives, and weights=FILE.onnx"
        )
    if spec is None:
        encoder = spec_of(name)
        _check_family(encoder, kind, stream)
        return encoder, *_weights(said, weights, stream)
    if weights is None or stream == PIXELS:
        wrong = (
            "makes no pixels: name an encoder whose frames they are" if stream == PIXELS else "needs weights=FILE.onnx"
        )
        raise BenchError(f"encoder=onnx {wrong}")
    found = declared(spec, weights, home)
    gives, heard = found.spec.arguments["output"]["gives"], found.spec.family == "sound"
    if heard != (kind.family == "sound"):
        raise BenchError(
            f"{spec} declares a network of {'sound' if heard else 'pictures'}, which does not make the stream {stream}"
        )
    if kind.family == "motion":
        raise BenchError(f"the stream {stream} is made of runs of frames, and an ONNX network reads single ones")
    if GIVES[gives] != kind.gives:
        wanted = next(word for word, own in GIVES.items() if own == kind.gives)
        raise BenchError(
            f"{spec} declares output.gives: {gives}, and the stream {stream} is made by a network that gives {wanted}"
        )
    return found.spec, file_digest(weights), dict(found.files)


def _check_family(encoder: Spec, kind: Kind, stream: str) -> None:
    if encoder.family != kind.family:
        names = ", ".join(spec.name for spec in ENCODERS.values() if spec.family == kind.family)
        raise BenchError(f"encoder {encoder.name} does not make the stream {stream}; the encoders that do are {names}")


def kind_of(stream: str) -> Kind:
    """The kind of a stream. Raises BenchError for one that videos cannot be made into."""
    if stream not in KINDS:
        raise BenchError(
            f"the stream {stream!r} cannot be extracted from videos; those that can are {', '.join(KINDS)}, and words "
            f"from frames by a trained method (checkpoint=); import others from a file"
        )
    return KINDS[stream]


def differences(made: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    """How features that were `made` so differ from those of `options`, in words; empty where they do not."""
    names = [*options, *(name for name in made if name not in options and name != "digest")]
    differ = [name for name in names if made.get(name) != options.get(name)]
    return ", ".join(f"{name} {_short(made.get(name))} instead of {_short(options.get(name))}" for name in differ)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:21]}.."


def made_otherwise(definition: DatasetDefinition, stream: str, home: Home) -> str:
    """A sentence on a cache that was extracted otherwise than the definition says by now, as a command or an earlier definition
    said; empty where it was not, and where it cannot be known."""
    path = cache_path(home, definition.name, stream)
    try:
        made = read_sidecar(path)["encoder"]
        asked = json.loads(canonical(Extraction.of(definition, stream, home).options()))
    except BenchError:
        return ""  # whoever reads it says so; encoders and weights need not be where the cache is
    if made.keys() <= {"name"} or not (differ := differences(made, asked)):  # imported features record a name at most
        return ""
    return (
        f"{path} was made otherwise than {definition.path} says ({differ}) and is used as it is; to make it anew: `bench "
        f"features extract dataset={definition.called} stream={stream} replace=true`"
    )


def recorded_spec(made_by: Mapping[str, Any]) -> Spec:
    """The encoder that a cache's sidecar says made it. Raises BenchError where it is not known."""
    if made_by.get("name") != "onnx":
        return spec_of(str(made_by["name"]))
    if not isinstance(made_by.get("arguments"), Mapping):
        raise BenchError(
            "encoder=onnx is declared by spec=, which extraction records: it cannot be named for other features"
        )
    return of_document(made_by["arguments"], "the recorded spec")


def as_recorded(
    stream: str, shape: tuple[int, ...], encoder: Mapping[str, Any], weights: Mapping[str, str] | str | None = None
) -> Extraction:
    """The extraction that made a cached stream, for one more video: from its clips' `shape` and from `encoder` as its sidecar
    has it.

    `weights` are paths of files by digest, or the path of a file where the cache does not say which (features that were
    imported). Raises BenchError where the encoder is not known, or its weights are not given and cannot be downloaded.
    """
    kind, name = kind_of(stream), str(encoder.get("name", ""))
    if not name:
        raise BenchError(f"the features of stream {stream} do not say which encoder made them: say encoder=NAME")
    spec = recorded_spec(encoder)
    files = dict(weights) if isinstance(weights, Mapping) else {}
    said = str(encoder.get("weights", "pretrained"))
    if isinstance(weights, str):
        said, files = _weights(weights, written_path(weights).resolve(), stream)
    elif said != "random" and not said.startswith("sha256:"):
        said = "pretrained"  # by its package's name of them
    given = {"frames": shape[0] if kind.timed else kind.frames, **encoder}
    if given["frames"] is None:
        raise BenchError(
            f"the features of stream {stream} do not say from how many frames they were made: say frames=N"
        )
    sampling = _sampling(given, kind, spec)
    return Extraction("", stream, Path(), sampling, spec, said, files, int(encoder.get("boxes", BOXES)), True)


def _sampling(given: Mapping[str, Any], kind: Kind, encoder: Spec) -> Sampling | None:
    if kind.family == "sound":
        return None
    return Sampling(given["frames"], given.get("fps"), kind.centred, encoder.window)


def _resolved(text: str | None, definition: DatasetDefinition, home: Home) -> Path | None:
    return None if text is None or text in WORDS else definition.resolve(text, home)


def _weights(said: str, path: Path | None, stream: str) -> tuple[str, dict[str, str]]:
    """`weights=` as it is keyed: a word, or the digest of a file with its path."""
    if said in ("pretrained", "random") or stream == PIXELS or said.startswith("sha256:"):
        return said, {}
    if path is None or not path.is_file():
        raise BenchError(
            f"there is no file of weights {path or said}; weights is a .safetensors file, pretrained or random"
        )
    digest = file_digest(path)
    return digest, {digest: str(path)}


@dataclass(frozen=True)
class Work:
    """How the work is done; nothing of it changes the values beyond rounding.

    `batch` frames (or runs, or examples of sound) go through the network at once (None: as suits the device), `workers`
    processes decode (None: one for each processor; 0: this process), `device` is a torch device or `auto`. With `skip` the
    cache is finished without the clips that failed; with `replace` one that was made otherwise makes room.
    """

    batch: int | None = None
    workers: int | None = None
    device: str = "auto"
    skip: bool = False
    replace: bool = False
