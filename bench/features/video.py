"""From a video file to the frames that an encoder reads: decoded by PyAV, equally spaced, resized and cropped."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.features.backends import need_av
from bench.features.cache import choose_frames
from bench.features.encoders import Preprocessing

EXTENSIONS = (".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm", ".wmv")


class UnreadableVideoError(ValueError):
    """A file of which no whole clip can be decoded; says why."""


def read_frames(path: Path, frames: int, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """`frames` equally spaced frames of a video, [T, 3, H, W] RGB, by the rule of `choose_frames`.

    A video with fewer frames has some of them more than once. Raises UnreadableVideoError.
    """
    av = need_av()
    try:
        # Packets are counted without decoding and nearly always are the frames; where they are not, a second pass is.
        expected = _count_packets(av, path)
        found, total = _decode(
            av, path, set(choose_frames(expected, frames).tolist()) if expected else (), preprocessing
        )
        if total != expected and total:
            found, total = _decode(av, path, set(choose_frames(total, frames).tolist()), preprocessing)
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableVideoError(f"cannot be decoded: {getattr(error, 'strerror', None) or error}") from error
    if not total:
        raise UnreadableVideoError("has no frame that can be decoded")
    return np.stack([found[place] for place in choose_frames(total, frames).tolist()])


def _count_packets(av: Any, path: Path) -> int:
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise UnreadableVideoError("has no pictures, only sound or text")
        return sum(packet.size > 0 for packet in container.demux(container.streams.video[0]))


def _decode(
    av: Any, path: Path, wanted: Collection[int], preprocessing: Preprocessing
) -> tuple[dict[int, NDArray[np.uint8]], int]:
    """The frames numbered in `wanted`, prepared, and how many frames the video has."""
    found = {}
    total = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            if total in wanted:
                found[total] = prepare(frame, preprocessing)
            total += 1
    return found, total


def prepare(frame: Any, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """A frame of PyAV at the size that the encoder reads, [3, H, W] RGB: swscale goes straight from YUV to it."""
    resize, crop = preprocessing.resize, preprocessing.crop
    height, width = _resized(frame.height, frame.width, resize) if isinstance(resize, int) else resize
    rgb = frame.reformat(width, height, format="rgb24", interpolation=preprocessing.resampler).to_ndarray()
    if crop is not None:
        top, left = (rgb.shape[0] - crop) // 2, (rgb.shape[1] - crop) // 2
        rgb = rgb[top : top + crop, left : left + crop]
    return np.ascontiguousarray(rgb.transpose(2, 0, 1))


def _resized(height: int, width: int, shorter: int) -> tuple[int, int]:
    """Height and width with the shorter side `shorter` and the same shape."""
    scale = shorter / min(height, width)
    return max(shorter, round(height * scale)), max(shorter, round(width * scale))
