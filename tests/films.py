"""Small videos for tests, made by PyAV: every frame tells which one it is by its grey."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np


def film(
    path: Path,
    frames: int,
    width: int = 64,
    height: int = 48,
    codec: str = "ffv1",
    ticks: Sequence[int] | None = None,
    format: str | None = None,
    **options: str,
) -> Path:
    """A video of 25 frames a second whose frame t is of one grey, 5 (t mod 32) + 20; its right half is 60 brighter.

    `ticks` are the frames' time stamps in hundredths of a second, for a variable frame rate.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=format) as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if ticks is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 100)
        for time in range(frames):
            picture = np.full((height, width, 3), 5 * (time % 32) + 20, np.uint8)
            picture[:, width // 2 :] += 60
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if ticks is not None:
                frame.pts, frame.time_base = ticks[time], Fraction(1, 100)
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def song(
    path: Path,
    seconds: float = 2.0,
    hertz: float = 1000.0,
    rate: int = 44_100,
    channels: int = 2,
    codec: str = "pcm_s16le",
) -> Path:
    """A sound file: a pure tone of amplitude 0.5 in each channel."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, layout="stereo" if channels == 2 else "mono")
        times = np.arange(int(seconds * rate)) / rate
        tone = np.round(0.5 * 32767 * np.sin(2 * np.pi * hertz * times)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(
            np.repeat(tone, channels)[None], format="s16", layout="stereo" if channels == 2 else "mono"
        )
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)
    return path


def greys(frames: np.ndarray) -> list[int]:
    """Which frame of a film each is, by its grey on the left."""
    left = frames[..., : frames.shape[-1] // 4].mean(axis=(-3, -2, -1))
    return np.round((left - 20) / 5).astype(int).tolist()
