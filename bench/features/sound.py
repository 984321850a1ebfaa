"""From the sound of a video to the examples of log-mel bands that a network of sound reads, a piece at a time: of hours of sound
only the bands are ever held. Imports no torch: decoder processes start with it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.features.backends import need_av
from bench.features.specs import LogMel
from bench.features.video import SilentVideoError, Span, UnreadableVideoError

Samples = NDArray[np.float32]
PIECE = 10.0  # seconds that are held at once: long enough that numpy works and not Python


def read_sound(path: Path, front: LogMel, span: Span | None = None) -> Iterator[Samples]:
    """The sound of a video, or of a part of it, in pieces [samples] at the rate of `front`, in one channel.

    Parts that are read one after another go on where the last one ended: the sound is decoded once. Raises
    UnreadableVideoError, and its kind SilentVideoError where there is no sound track.
    """
    if span is not None and not span[0] < span[1]:
        raise UnreadableVideoError(f"is to be cut from {span[0]:g} to {span[1]:g} s, but must start before it ends")
    first, end = (0, None) if span is None else (round(span[0] * front.rate), round(span[1] * front.rate))
    given = False
    try:
        stat = path.stat()
        asked = (path, front, (stat.st_mtime_ns, stat.st_size))
        if _track(*asked).start > first:
            _track.cache_clear()
        for part in _track(*asked).part(first, end):
            given = True
            yield part
    except OSError as error:
        raise UnreadableVideoError(f"cannot be decoded: {error.strerror or error}") from error
    except UnreadableVideoError:
        _track.cache_clear()  # it would seem to end here
        raise
    if not given:
        raise SilentVideoError("has no sound" if span is None else f"has no sound from {span[0]:g} to {span[1]:g} s")


class _Track:
    """The sound of a file, from which parts are taken in their order; `start` is the first sample that can still be had."""

    def __init__(self, path: Path, front: LogMel) -> None:
        self.start = 0
        self._pieces = _pieces(path, front)
        self._piece: Samples = np.zeros(0, np.float32)

    def part(self, first: int, end: int | None) -> Iterator[Samples]:
        """Samples first <= n < end, in pieces."""
        while True:
            part = self._piece[max(0, first - self.start) : None if end is None else max(0, end - self.start)]
            if len(part):
                yield part
            if end is not None and self.start + len(self._piece) >= end:
                return
            fresh = next(self._pieces, None)
            if fresh is None:
                return
            self.start += len(self._piece)
            self._piece = fresh


@functools.lru_cache(maxsize=1)
def _track(path: Path, front: LogMel, state: tuple[int, int]) -> _Track:
    """The track that was read last, where it is this one. `state` tells the file from an earlier one."""
    return _Track(path, front)


def _pieces(path: Path, front: LogMel) -> Iterator[Samples]:
    """Pieces of the sound from its beginning; decoded as they are asked for."""
    av = need_av()
    faults = (av.error.FFmpegError, OSError)  # found now: what was not read to its end is closed when Python ends
    parts: list[Samples] = []
    held = 0
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            if not container.streams.audio:
                raise SilentVideoError("has no sound track")
            mixed = "mono" if front.mono == "swresample" else None  # what keeps its channels is averaged below
            resampler, heard = None, None
            for frame in container.decode(container.streams.audio[0]):
                frame.pts = None  # gaps between packets are not sound
                fresh, sort = [], (frame.layout.name, frame.sample_rate, frame.format.name)
                if sort != heard:  # the first frame, and where a track changes midway
                    fresh = _resampled(resampler, None)
                    resampler, heard = av.AudioResampler(format="fltp", layout=mixed, rate=front.rate), sort
                fresh += _resampled(resampler, frame)
                parts, held = parts + fresh, held + sum(map(len, fresh))
                if held >= PIECE * front.rate:
                    yield np.concatenate(parts)
                    held, parts = 0, []
            parts += _resampled(resampler, None)
    except faults as error:
        raise UnreadableVideoError(f"cannot be decoded: {getattr(error, 'strerror', None) or error}") from error
    if parts:
        yield np.concatenate(parts)


def _resampled(resampler: Any, frame: Any) -> list[Samples]:
    """The samples of a frame in one channel; without a frame those that the resampler still holds."""
    return [] if resampler is None else [part.to_ndarray().mean(axis=0) for part in resampler.resample(frame)]


def log_mel(sound: Iterable[Samples], front: LogMel) -> NDArray[np.float32]:
    """Sound in pieces -> examples [N, 1, steps, bands], at least one: what is shorter is filled up with silence."""
    weights = _mel_weights(front)
    rest = np.zeros(0, np.float64)
    bands = [np.zeros((0, front.bands), np.float32)]
    for piece in sound:
        rest = np.concatenate([rest, piece.astype(np.float64)])
        bands.append(_bands(rest, front, weights))
        rest = rest[len(bands[-1]) * front.hop :]
    lacking = front.steps - sum(map(len, bands))
    if lacking > 0:
        padded = np.pad(rest, (0, (lacking - 1) * front.hop + front.window - len(rest)))
        bands.append(_bands(padded, front, weights))
    steps = np.concatenate(bands)
    examples = np.lib.stride_tricks.sliding_window_view(steps, front.steps, axis=0)[:: front.every]
    return examples.swapaxes(1, 2)[:, None].copy()


def _bands(samples: NDArray[np.float64], front: LogMel, weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """The steps [n, bands] of which all samples are there."""
    if len(samples) < front.window:
        return np.zeros((0, front.bands), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, front.window)[:: front.hop]
    periodic_hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(front.window) / front.window)
    return np.log(np.abs(np.fft.rfft(frames * periodic_hann, front.length)) @ weights + front.offset).astype(np.float32)


def _mel_weights(front: LogMel) -> NDArray[np.float64]:
    """[length / 2 + 1, bands]: triangles whose corners are equally spaced in mel, straight in mel between them; no weight on
    the mean."""
    bins = _mel(np.linspace(0, front.rate / 2, front.length // 2 + 1))[:, None]
    corners = np.linspace(_mel(front.lowest), _mel(front.highest), front.bands + 2)
    low, middle, high = corners[:-2], corners[1:-1], corners[2:]
    weights = np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))
    weights[0] = 0
    return weights


def _mel(hertz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.asarray(1127.0 * np.log1p(np.asarray(hertz) / 700.0))
