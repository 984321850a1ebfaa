"""The streams of one video, made as those were on which a method was trained.

What made them is read from the stream's `made_by`, the words of its cache; what nobody wrote down, the user has to tell.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import BenchError
from bench.disk.digests import file_digest
from bench.errors import sizes
from bench.features.contents import unfit
from bench.features.extract import Extractor
from bench.features.extraction import PIXELS, Extraction, as_recorded, kind_of, recorded_spec
from bench.features.footage import Footage
from bench.features.importers import unit
from bench.features.onnx_spec import vectors_of
from bench.features.sidecar import canonical
from bench.features.specs import Preprocessing, Spec
from bench.features.video import Sampling, UnreadableVideoError, read_views
from bench.home import written_path
from bench.method import StreamInfo

FRAMES = 20  # of a picture, where the method has none; and of a clip of `shapes`, for its streams without time

Values = NDArray[Any]
ByStream = Mapping[str, str]
"""By stream; under the empty name for all streams."""


class VideoStreams:
    """Makes the streams of videos. An encoder is loaded when its stream is first asked for, and kept.

    `encoder` and `weights` are what the user says of the features; they may fill in what is not recorded, but not
    contradict it. `tell` is given a sentence for each encoder: which weights it has, and whether that is certain. Encoders
    compute on the `device`.
    """

    def __init__(
        self,
        streams: Mapping[str, StreamInfo],
        encoder: ByStream | None = None,
        weights: ByStream | None = None,
        tell: Callable[[str], None] = lambda sentence: None,
        device: str = "auto",
    ) -> None:
        self.streams = dict(streams)
        self._device = device
        self._encoder, self._weights, self._tell = encoder or {}, weights or {}, tell
        self._makers: dict[str, Callable[[Footage], Values]] = {}
        self._boxes: tuple[Footage, Values] | None = None
        self._last: tuple[Any, list[NDArray[np.uint8]]] | None = None
        for what, by_stream in (("encoder", self._encoder), ("weights", self._weights)):
            for stream in by_stream:
                if stream and stream not in self.streams:
                    raise BenchError(f"{what}.{stream}: the method reads {', '.join(self.streams)}, not {stream}")

    def read(self, stream: str, video: Path | Footage) -> Values:
        """One clip's values of a stream, of a whole video or of a part of it: [T, ...] where it has time (at most as long as the
        method read them), in the type in which caches hold them.

        Raises UnreadableVideoError for a video of which they cannot be made; BenchError where they can be made of no video:
        the encoder or its weights are not known, or are not those of the recorded features.
        """
        if stream not in self._makers:
            self._makers[stream] = self._maker(self.streams[stream])
        footage, made_by = _footage(video), self.streams[stream].made_by
        values = self._makers[stream](footage)
        if made_by.get("l2"):
            values = unit(values)
        shape, timed = self.streams[stream].shape, self.streams[stream].timed
        shorter = timed and values.ndim == len(shape) and 1 <= len(values) < shape[0]
        if values.shape != ((len(values), *shape[1:]) if shorter else shape):
            raise BenchError(
                f"stream {stream} of {footage.path.name} comes out as {sizes(values.shape)}, but the method was trained on "
                f"{sizes(shape)}: another encoder made those features, name it with encoder=NAME"
            )
        dtype = "uint8" if values.dtype == np.uint8 else made_by.get("dtype", "float16")
        reason = unfit(values, dtype)
        if reason:
            raise UnreadableVideoError(f"gives features that are of no use ({reason})")
        return values.astype(dtype, copy=False)

    def spec(self, stream: str) -> Spec:
        """The encoder that made a stream, or for which its pixels were prepared. Raises BenchError where it is not known."""
        info = self.streams[stream]
        recorded, given = info.made_by.get("name", info.encoder), _of(self._encoder, stream)
        if recorded and given and recorded != given:
            raise BenchError(
                f"encoder={given}, but {recorded} made the stream {stream} that the method was trained on; leave it out, or "
                f"say encoder.STREAM=NAME for another stream"
            )
        if not recorded and not given:
            raise BenchError(
                f"nothing says which encoder made the stream {stream} ({sizes(info.shape)}) that the method was trained on: "
                f"its features were imported without a name; say encoder=NAME, and weights=FILE where the encoder has none "
                f"of its own"
            )
        spec = recorded_spec({**info.made_by, "name": recorded or given})
        own = json.loads(canonical(spec.preprocessing.of_features()))
        for name, value in own.items():
            if info.made_by.get(name, value) != value:
                raise BenchError(
                    f"stream {stream} was made of frames with {name} {info.made_by[name]}, and encoder {spec.name} of this "
                    f"version reads them with {name} {value}: use the version that made the features"
                )
        return spec

    def frames(
        self, video: Path | Footage, sampling: int | Sampling, preprocessing: Preprocessing
    ) -> NDArray[np.uint8]:
        """`read_frames`; two streams that see the same frames have the video decoded once."""
        return self._views(_footage(video), sampling, [preprocessing])[0]

    def _views(self, footage: Footage, sampling: int | Sampling, views: list[Preprocessing]) -> list[NDArray[np.uint8]]:
        key = (footage, sampling, views)
        if self._last is None or self._last[0] != key:
            self._last = (key, read_views(footage.path, sampling, views, footage.span))
        return self._last[1]

    def pictures(self, video: Path, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        """The frames that the method counts, [T, 3, H, W], for the eyes of its user."""
        for stream in ("frames", PIXELS, "regions"):
            if stream in self.streams:
                info, spec = self.streams[stream], self.spec(stream)
                recorded = None if spec.name == "shapes" else self._recorded(info, spec).sampling
                return self.frames(video, recorded or info.shape[0], preprocessing)
        return self.frames(video, FRAMES, preprocessing)

    def boxes(self, video: Path) -> Values:
        """Where the regions of a video lie, [T, k, 4]: left, top, right, bottom as shares of width and height."""
        info, spec = self.streams["regions"], self.spec("regions")
        if spec.name == "shapes":
            from bench.shapes.streams import region_boxes

            pixels = self.frames(video, info.shape[0], spec.preprocessing)
            return region_boxes(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))) / pixels.shape[-1]
        if self._boxes is None or self._boxes[0] != Footage(video):
            self.read("regions", video)
        assert self._boxes is not None
        return self._boxes[1][..., :4]

    def _maker(self, info: StreamInfo) -> Callable[[Footage], Values]:
        """How one stream is made of a video."""
        spec = self.spec(info.name)
        if spec.name == "shapes" and info.name != PIXELS:
            if _of(self._weights, info.name):
                raise BenchError("encoder shapes has weights of its own: leave weights= out")
            return partial(self._of_shapes, info, spec.preprocessing)
        kind = kind_of(info.name)
        if spec.family != kind.family:
            raise BenchError(
                f"encoder {spec.name} does not make the stream {info.name}, as for instance {kind.example} does"
            )
        weights = None if info.name == PIXELS else self._weights_of(info, spec)
        extractor = Extractor(self._recorded(info, spec, weights), device=self._device)
        recorded, found = info.made_by.get("digest"), extractor.about().get("digest")
        if recorded and found != recorded:
            raise BenchError(
                f"the weights of encoder {spec.name} are not those that made the stream {info.name} that the method was "
                f"trained on: {found}, not {recorded}"
            )
        return partial(self._extracted, info.name, extractor)

    def _recorded(self, info: StreamInfo, spec: Spec, weights: Mapping[str, str] | str | None = None) -> Extraction:
        made = {**info.made_by, "name": spec.name}
        if (
            info.name == "spatial" and "frames" in self.streams
        ):  # imported maps do not say of how many frames they are the mean
            made.setdefault("frames", self.streams["frames"].shape[0])
        return as_recorded(info.name, info.shape, made, weights)

    def _extracted(self, stream: str, extractor: Extractor, video: Footage) -> Values:
        sampling = extractor.extraction.sampling
        if sampling is None:
            return extractor.streams(video)[stream]
        reader = extractor.reader
        found = extractor.encode(
            self._views(video, sampling, [reader.preprocessing, *([reader.also] if reader.also else [])])
        )
        if "boxes" in found:
            self._boxes = (video, found["boxes"])
        return found[stream]

    def _of_shapes(self, info: StreamInfo, preprocessing: Preprocessing, video: Footage) -> Values:
        """Any stream of the embedded corpus: all of them are functions of a clip's pixels."""
        from bench.shapes.streams import STREAMS, constants, extract

        if info.name not in STREAMS:
            raise BenchError(f"encoder shapes makes no stream {info.name}, only {', '.join(STREAMS)}")
        # motion lies between two frames each
        count = info.shape[0] + (info.name == "motion") if info.timed else FRAMES
        pixels = self.frames(video, count, preprocessing)
        return extract(np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)), constants())[info.name]

    def _weights_of(self, info: StreamInfo, spec: Spec) -> Mapping[str, str] | str | None:
        """The user's files of weights, where they are not others than the recorded ones; None for those that are recorded."""
        recorded, given = str(info.made_by.get("weights", "")), _of(self._weights, info.name)
        if given:
            return self._given(info, spec, recorded, [written_path(part) for part in given.split(",")])
        if recorded.startswith("sha256:"):
            raise BenchError(
                f"the stream {info.name} that the method was trained on was made by {spec.name} with weights {recorded}: name "
                f"their file with weights=FILE"
            )
        if recorded and recorded not in (spec.pretrained, "random"):
            raise BenchError(
                f"the stream {info.name} that the method was trained on was made by {spec.name} with the weights {recorded}, "
                f"and this version has {spec.pretrained} of it: use the version that made the features"
            )
        if spec.pretrained is None and not recorded:
            raise BenchError(
                f"encoder {spec.name} made the stream {info.name} that the method was trained on, and it has no weights to "
                f"download: name their file with weights=FILE.safetensors"
            )
        sure = "" if recorded else " (which weights made the training features is not recorded)"
        self._tell(f"stream {info.name}: encoder {spec.name} with its weights {recorded or spec.pretrained}{sure}")
        return None

    def _given(self, info: StreamInfo, spec: Spec, recorded: str, paths: list[Path]) -> Mapping[str, str] | str:
        """The files by digest; where the stream does not record which weights made it, the one path."""
        for path in paths:
            if not path.is_file():
                raise BenchError(f"weights={path}: there is no such file")
        found = {file_digest(path): str(path) for path in paths}
        told = ", ".join(map(str, paths))
        vectors = vectors_of(spec)
        needed = [digest for digest in (recorded, vectors[1] if vectors else "") if digest.startswith("sha256:")]
        lacking = [digest for digest in needed if digest not in found]
        if recorded and (lacking or recorded not in found):
            more = ": two networks made it, name their files with weights=FILE,FILE" if len(needed) > 1 else ""
            raise BenchError(
                f"weights={told} has {', '.join(found)}, but the stream {info.name} that the method was trained on was made with "
                f"{' and '.join(lacking or [recorded])}{more}; give these, or say weights.STREAM=FILE for another stream"
            )
        sure = "" if recorded else ", as you say: which weights made the training features is not recorded"
        self._tell(f"stream {info.name}: encoder {spec.name} with the weights of {told}{sure}")
        return found if recorded else str(paths[0])


def _of(by_stream: ByStream, stream: str) -> str:
    return by_stream.get(stream, by_stream.get("", ""))


def _footage(video: Path | Footage) -> Footage:
    return video if isinstance(video, Footage) else Footage(video)
