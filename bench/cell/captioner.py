"""Captions of any video from a trained method, and what it looked at while it wrote them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench import BenchError
from bench.data.batches import CorpusClips, StreamSource
from bench.features.extraction import PIXELS
from bench.features.footage import Footage, videos_in
from bench.features.one_video import ByStream, VideoStreams
from bench.features.sidecar import cache_path, making, read_sidecar, sidecar_path
from bench.features.specs import Preprocessing
from bench.features.video import EXTENSIONS, Span, UnreadableVideoError, spans
from bench.home import find_home, written_path
from bench.method import Caption, Method, Search, StreamInfo, Vocabulary
from bench.records.figure_data import Frames, Shown


@dataclass(frozen=True)
class Checkpoint:
    """A trained method, ready to decode clips that offer `streams` and `vocabulary`. `config` is its cell's declaration,
    `device` what it computes on."""

    method: Method
    config: dict[str, Any]
    vocabulary: Vocabulary
    streams: dict[str, StreamInfo]
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - it never changes
    _captioners: dict[str, VideoCaptioner] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def search(self) -> Search:
        """How the cell decoded."""
        return Search(**self.config["search"])

    def caption(
        self,
        video: str | Path,
        *,
        encoder: str | ByStream | None = None,
        weights: str | Path | ByStream | None = None,
        search: Search | None = None,
    ) -> Caption:
        """The caption of a video file: text, log-probability, the other beams, traces.

        The streams that the method reads are made of it as its training features were. `encoder` (a name) and `weights` (a
        file) say how, where that is not recorded: for all streams, or as `{stream: value}`. Encoders are kept for the next
        video. Raises BenchError, which for a file that is no whole video is a `VideoError`.
        """
        asked = repr((encoder, weights, search))
        if asked not in self._captioners:
            self._captioners[asked] = VideoCaptioner(self, encoder, weights, search)
        return self._captioners[asked].caption(video)


SIDE = 144  # pixels of the shorter side of a frame in a picture


class VideoError(BenchError):
    """A video that cannot be captioned, while others may be: its path and the reason."""


class VideoCaptioner:
    """A trained method over videos, one at a time: what a video is called or stands beside changes no caption.

    `encoder` and `weights` name what made the training features, where neither the checkpoint nor a cache on this machine
    records it: for all streams, or by stream. `search` is the cell's own by default; `tell` gets sentences on the encoders.
    """

    def __init__(
        self,
        trained: Checkpoint,
        encoder: str | ByStream | None = None,
        weights: str | Path | ByStream | None = None,
        search: Search | None = None,
        tell: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.trained = trained
        self.search = search or trained.search
        known = _recorded(trained.streams, trained.config["dataset"])
        self._streams = VideoStreams(known, _by_stream(encoder), _by_stream(weights), tell, str(trained.device))

    def parts(self, video: str | Path, every: float) -> list[Span]:
        """A video in parts of `every` seconds: see `bench.features.video.spans`. Raises VideoError."""
        path = written_path(video)
        if not path.is_file():
            raise VideoError(f"{path}: there is no such file")
        try:
            return spans(path, every)
        except UnreadableVideoError as error:
            raise VideoError(f"{path} {error}") from None

    def caption(self, video: str | Path, span: Span | None = None) -> Caption:
        """The caption of a video, or of its seconds start <= t < end, under its path, with alternatives and traces.

        Only the streams that decoding reads are made. Raises VideoError for a video that cannot be read, BenchError where no
        video can be captioned.
        """
        path = written_path(video)
        if not path.is_file():
            raise VideoError(f"{path}: there is no such file")

        def source(info: StreamInfo) -> StreamSource:
            def read(clips: object) -> tuple[np.ndarray, np.ndarray]:
                values = self._streams.read(info.name, Footage(path, span))
                padded = np.zeros((1, *info.shape), values.dtype)
                padded[0, : len(values)] = values
                return padded, np.array([len(values)])

            return StreamSource(info, read)

        sources = {name: source(info) for name, info in self._streams.streams.items()}
        clips = CorpusClips([str(path)], {}, sources, self.trained.vocabulary)
        try:
            (caption,) = self.trained.method.decode(clips, self.search)
        except UnreadableVideoError as error:
            raise VideoError(f"{path} {error}") from None
        return caption

    def shown(self, video: str | Path, caption: Caption) -> Shown:
        """The frames of a captioned video as the method counts them, and where its regions lie, for a picture."""
        path = written_path(video)
        try:
            frames = np.ascontiguousarray(self._streams.pictures(path, self._view()).transpose(0, 2, 3, 1))
            boxes = self._boxes(path, frames) if "region_attention" in caption.traces else ()
        except UnreadableVideoError as error:
            raise VideoError(f"{path} {error}") from None
        return Shown(path.name, "", tuple(range(len(frames))), boxes, {}, frames)

    def _view(self) -> Preprocessing:
        """A frame as a picture shows it: what the encoder sees of it, in its own shape; whole where boxes are found in it."""
        crop = resize = None
        for name in ("regions", "spatial", "frames", PIXELS):
            if name in self._streams.streams:
                seen = self._streams.spec(name).preprocessing
                crop, resize = seen.crop, seen.resize
                break
        if crop is None or not isinstance(resize, int):
            return Preprocessing(SIDE, None, "BILINEAR", 0.0, 1.0)
        return Preprocessing(round(SIDE * resize / crop), SIDE, "BILINEAR", 0.0, 1.0)

    def _boxes(self, path: Path, frames: Frames) -> tuple[Any, ...]:
        """Regions of each frame as (left, top, right, bottom) in its pixels."""
        high, wide = frames.shape[1:3]
        boxes = self._streams.boxes(path) * np.array([wide, high, wide, high])
        return tuple(tuple(tuple(box) for box in row) for row in boxes.tolist())


def _recorded(streams: Mapping[str, StreamInfo], dataset: str) -> dict[str, StreamInfo]:
    """The streams with what made them: as the checkpoint says and the cache of the same fingerprint, if it is here. (Those of
    before do not say what their import did.)"""
    home = find_home()
    found = dict(streams)
    for name, info in streams.items():
        sidecar = sidecar_path(cache_path(home, dataset, name))
        if sidecar.is_file():
            content = read_sidecar(sidecar)
            if content["fingerprint"] == info.fingerprint:
                found[name] = replace(info, made_by={**info.made_by, **making(content)})
    return found


def _by_stream(value: str | Path | ByStream | None) -> dict[str, str]:
    """What is given for each stream; for all of them under the empty name."""
    if value is None:
        return {}
    return dict(value) if isinstance(value, Mapping) else {"": str(value)}


def find_videos(arguments: list[str]) -> list[Path]:
    """The files that were named, and in place of each folder the videos below it, by name; each once.

    Raises BenchError for a folder without videos.
    """
    found: dict[Path, None] = {}
    for argument in arguments:
        path = written_path(argument)
        if not path.is_dir():
            found[path] = None
            continue
        inside = videos_in(path)
        if not inside:
            raise BenchError(f"the folder {path} holds no videos ({', '.join(EXTENSIONS)})")
        found |= dict.fromkeys(inside)
    return list(found)
