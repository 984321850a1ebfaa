"""From a video file to what an encoder reads: frames, runs of frames or sound, decoded by PyAV.

Whole videos or parts of them; frames are told apart by their order and, where seconds matter, by their time stamps, so that a
variable frame rate does no harm. This module imports no torch: decoder processes start with it.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.features.backends import need_av
from bench.features.specs import Preprocessing

EXTENSIONS = (".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
WHOLE = 0.9  # share of the frames or seconds that a file's header declares; with fewer, it was cut off in copying
CLOSE = 1e-6  # seconds: time stamps are fractions, and 1/30 is not a float

Span = tuple[float, float]


class UnreadableVideoError(ValueError):
    """A file of which no whole clip can be decoded; says why."""


class SilentVideoError(UnreadableVideoError):
    """A video without a sound track."""


@dataclass(frozen=True)
class Sampling:
    """Which frames of a clip are read.

    `frames` equally spaced ones, the first and the last among them (`choose_frames`); with `fps` one every 1/fps seconds
    instead, and `frames` is the most there may be: a longer clip has so many, further apart. `centred` takes the middles of
    `frames` equal parts, so that a single one is the middle frame. `window` takes so many consecutive frames around each
    place, the edge frames repeated, for networks that see motion.
    """

    frames: int
    fps: float | None = None
    centred: bool = False
    window: int = 1

    def places(self, times: Sequence[float]) -> NDArray[np.int64]:
        """Numbers [T], or [T, window], of the frames to read of a clip whose frames are shown at `times` (seconds).

        Raises UnreadableVideoError where `fps` needs times and there are none (NaN).
        """
        n = len(times)
        middles = self._spread(n) if self.fps is None else self._at_rate(np.asarray(times))
        if self.window == 1:
            return middles
        around = np.arange(self.window) - self.window // 2
        return (middles[:, None] + around).clip(0, n - 1)

    def _spread(self, n: int) -> NDArray[np.int64]:
        if not self.centred:
            return choose_frames(n, self.frames)
        return ((np.arange(self.frames) + 0.5) * n / self.frames).astype(np.int64).clip(0, n - 1)

    def _at_rate(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        assert self.fps is not None
        if not np.isfinite(times).all():
            raise UnreadableVideoError("tells no times, so that no fixed rate can be kept: leave fps= out")
        count = int((times[-1] - times[0]) * self.fps + CLOSE) + 1
        if count > self.frames:
            wanted = np.linspace(times[0], times[-1], self.frames)
        else:
            wanted = times[0] + np.arange(count) / self.fps
        return np.searchsorted(times, wanted + CLOSE, side="right") - 1

    def options(self) -> dict[str, Any]:
        """What decides the choice, for the fingerprint; what is as usual is left out."""
        usual = Sampling(self.frames)
        chosen = {name: getattr(self, name) for name in ("fps", "centred", "window")}
        return {"frames": self.frames} | {name: v for name, v in chosen.items() if v != getattr(usual, name)}


def choose_frames(n: int, frames: int) -> np.ndarray:
    """Indices of `frames` equally spaced frames of `n`, the first and the last among them: round(linspace).

    With fewer frames than asked for, indices repeat. Rounding matters: cut off instead, features of the same clips
    agreed with a cosine of 0.43 to 0.96 only.
    """
    return np.round(np.linspace(0, n - 1, frames)).astype(np.int64)


def read_frames(
    path: Path, frames: int | Sampling, preprocessing: Preprocessing, span: Span | None = None
) -> NDArray[np.uint8]:
    """Frames of a video, [T, 3, H, W] RGB; [T, window, 3, H, W] where the sampling has windows.

    `frames` equally spaced ones, or as a Sampling says; of the seconds start <= t < end only where `span` gives them. A video
    with fewer frames has some of them more than once. Raises UnreadableVideoError.
    """
    return read_views(path, frames, [preprocessing], span)[0]


def read_views(
    path: Path, frames: int | Sampling, views: Sequence[Preprocessing], span: Span | None = None
) -> list[NDArray[np.uint8]]:
    """The same frames of a video in several preparations, decoded once; see `read_frames`."""
    av = need_av()
    sampling = frames if isinstance(frames, Sampling) else Sampling(frames)
    if span is not None and not span[0] < span[1]:
        raise UnreadableVideoError(f"is to be cut from {span[0]:g} to {span[1]:g} s, but must start before it ends")
    try:
        # Packets are read without decoding and nearly always are the frames; where they are not, a second pass is.
        expected, first = _packet_times(av, path, span)
        wanted = set(sampling.places(expected).ravel().tolist()) if expected else set()
        found, times = _decode(av, path, wanted, views, span, first, seek=True)
        sought_too_far = span is not None and len(times) < len(expected)
        if sought_too_far:
            found, times = _decode(av, path, wanted, views, span, first, seek=False)
        if times and not found.keys() >= (wanted := set(sampling.places(times).ravel().tolist())):
            found, times = _decode(av, path, wanted, views, span, first, seek=False)
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableVideoError(f"cannot be decoded: {getattr(error, 'strerror', None) or error}") from error
    except av.codec.codec.UnknownCodecError as error:
        raise UnreadableVideoError(f"is coded as {error}, which this machine's FFmpeg cannot decode") from error
    if not times:
        raise UnreadableVideoError(
            "has no frame that can be decoded" if span is None else f"has no frame from {span[0]:g} to {span[1]:g} s"
        )
    places = sampling.places(times)
    if any(len({frame[number].shape for frame in found.values()}) > 1 for number in range(len(views))):
        raise UnreadableVideoError("changes its size on the way")
    order = places.ravel().tolist()
    chosen = [np.stack([found[place][number] for place in order]) for number in range(len(views))]
    return [view.reshape(*places.shape, *view.shape[1:]) for view in chosen]


def _pictures(container: Any) -> Any:
    """The stream of pictures of an open file."""
    streams = [stream for stream in container.streams.video if not _is_cover(stream)]
    if not streams:
        raise UnreadableVideoError("has no pictures, only sound or text")
    if streams[0].codec_context is None:
        raise UnreadableVideoError("is coded in a way that this machine's FFmpeg cannot decode")
    return streams[0]


def _is_cover(stream: Any) -> bool:
    """A still picture beside a song is a stream of pictures too, of one."""
    return "attached_pic" in str(getattr(stream, "disposition", "")).lower()


class _Clock:
    """Seconds since the first frame, by time stamp; by number and rate where there are no stamps.

    `first` is the earliest stamp of all packets: the stream's own start is a frame too early in an AVI of H.264.
    """

    def __init__(self, stream: Any, first: int | None) -> None:
        self.base, self.start = stream.time_base, first or 0
        rate = stream.average_rate or stream.guessed_rate
        self.rate = float(rate) if rate else float("nan")

    def __call__(self, stamp: int | None, number: int) -> float:
        if stamp is None:
            return number / self.rate if self.rate > 0 else float("nan")
        return float((stamp - self.start) * self.base)


def _packet_times(av: Any, path: Path, span: Span | None) -> tuple[list[float], int | None]:
    """When the frames of a video, or of a part of it, are shown, as its packets say, and the stamp of its first frame,
    None where not every packet has one.

    Raises UnreadableVideoError where the file was cut off in copying.
    """
    stat = path.stat()
    times, first = _all_packet_times(av, path, (stat.st_mtime_ns, stat.st_size))
    return _within(list(times), span), first


@functools.lru_cache(maxsize=1)  # the parts of a long video are read one after another
def _all_packet_times(av: Any, path: Path, state: tuple[int, int]) -> tuple[array[float], int | None]:
    """The times of all frames; eight bytes each, however long the video. `state` tells the file from an earlier one."""
    with av.open(str(path), metadata_errors="replace") as container:
        stream = _pictures(container)
        stamps, last = [], 0.0
        for packet in container.demux():
            if packet.size and packet.stream.index == stream.index:
                stamps.append(packet.pts)
            if packet.size and packet.pts is not None and packet.time_base:
                last = max(last, float(packet.pts * packet.time_base))
        declared, length = stream.frames, (container.duration or 0) / av.time_base
        if declared and len(stamps) < WHOLE * declared:
            raise UnreadableVideoError(f"breaks off: {len(stamps)} of {declared} frames are there")
        if not declared and length > 2 and last < WHOLE * length - 1:
            raise UnreadableVideoError(f"breaks off after {last:.0f} of {length:.0f} s")
        first = min(stamps, default=0) if None not in stamps else None
        clock = _Clock(stream, first)
        if first is not None:
            stamps.sort()  # packets come in the order of decoding
        return array("d", (clock(stamp, number) for number, stamp in enumerate(stamps))), first


def spans(path: Path, every: float) -> list[Span]:
    """A video in parts of `every` seconds, from its first frame to its last; a rest of less than half a part goes with the part
    before it. Raises UnreadableVideoError.
    """
    av = need_av()
    try:
        times, _ = _packet_times(av, path, None)
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableVideoError(f"cannot be decoded: {getattr(error, 'strerror', None) or error}") from error
    except av.codec.codec.UnknownCodecError as error:
        raise UnreadableVideoError(f"is coded as {error}, which this machine's FFmpeg cannot decode") from error
    if not times or any(time != time for time in times):
        raise UnreadableVideoError("tells no times, so that it cannot be cut into parts")
    end = times[-1] + (times[-1] - times[0]) / max(len(times) - 1, 1)  # the last frame is shown as long as the others
    whole = max(1, int(end / every + 0.5))
    return [(part * every, end if part == whole - 1 else (part + 1) * every) for part in range(whole)]


def _within(times: list[float], span: Span | None) -> list[float]:
    if span is None:
        return times
    if any(time != time for time in times):
        raise UnreadableVideoError("tells no times, so that no part can be cut out of it")
    return [time for time in times if span[0] - CLOSE <= time < span[1] - CLOSE]


def _decode(
    av: Any,
    path: Path,
    wanted: Collection[int],
    views: Sequence[Preprocessing],
    span: Span | None,
    first: int | None,
    seek: bool,
) -> tuple[dict[int, list[NDArray[np.uint8]]], list[float]]:
    """The frames numbered in `wanted`, prepared for each view, and when the frames of the video, or of its part, are shown."""
    found: dict[int, list[NDArray[np.uint8]]] = {}
    times: list[float] = []
    with av.open(str(path), metadata_errors="replace") as container:
        stream = _pictures(container)
        stream.thread_type = "AUTO"
        clock = _Clock(stream, first)
        if seek and first is not None and span is not None and span[0] > 0:
            _seek(av, container, stream, int(span[0] / stream.time_base) + first)
        for number, frame in enumerate(container.decode(stream)):
            time = clock(frame.pts, number)
            if span is not None:
                if time < span[0] - CLOSE:
                    continue
                if time >= span[1] - CLOSE:
                    break
            if len(times) in wanted:
                found[len(times)] = [prepare(frame, view) for view in views]
            times.append(time)
    if any(later < earlier for earlier, later in pairwise(times)):  # stamps that jump back say nothing of seconds
        times = [float("nan")] * len(times)
    return found, times


def _seek(av: Any, container: Any, stream: Any, stamp: int) -> None:
    """Go to the last key frame before `stamp`; stay at the beginning in files that cannot be sought in."""
    try:
        container.seek(stamp, stream=stream)
    except (av.error.FFmpegError, OSError):
        container.seek(0)


def prepare(frame: Any, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """A frame of PyAV at the size that the encoder reads, [3, H, W] RGB: swscale goes straight from YUV to it.

    Where the file says that pictures are to be turned by quarters, as telephones do, they are.
    """
    crop, quarters = preprocessing.crop, round(getattr(frame, "rotation", 0) / 90) % 4
    seen = (frame.width, frame.height) if quarters % 2 else (frame.height, frame.width)
    height, width = preprocessing.resized(*seen)
    if quarters % 2:
        height, width = width, height
    rgb = frame.reformat(width, height, format="rgb24", interpolation=preprocessing.resampler).to_ndarray()
    if quarters:
        rgb = np.rot90(rgb, quarters)
    if crop is not None:
        top, left = (rgb.shape[0] - crop) // 2, (rgb.shape[1] - crop) // 2
        rgb = rgb[top : top + crop, left : left + crop]
    return np.ascontiguousarray(rgb.transpose(2, 0, 1))
