"""What a frame must look like before an encoder reads it. Imports no torch: the processes that decode videos need none."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Preprocessing:
    """From a decoded frame to the pixels that an encoder reads, and from pixels to numbers.

    `resize` is the length of the shorter side, or (height, width) whatever the frame's shape; the centre square of side
    `crop` is kept. `resampler` is swscale's, which goes to RGB at the new size in one step. A pixel x of 0..255 becomes
    (x - mean) / deviation, with one number for all or one for each of red, green and blue. `longest` bounds the longer
    side where the frame keeps its shape.
    """

    resize: int | tuple[int, int]
    crop: int | None
    resampler: str
    mean: float | tuple[float, float, float]
    deviation: float | tuple[float, float, float]
    longest: int | None = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the pixels; None where they follow the video's."""
        if self.crop is not None:
            return self.crop, self.crop
        return self.resize if isinstance(self.resize, tuple) else None

    def of_pixels(self) -> dict[str, Any]:
        """What decides the stored pixels, for their fingerprint."""
        told = ("resize", "crop", "resampler") + (("longest",) if self.longest is not None else ())
        return {name: value for name, value in asdict(self).items() if name in told}

    def of_features(self) -> dict[str, Any]:
        """What decides the numbers that the encoder reads, for the fingerprint of features."""
        return {**self.of_pixels(), "mean": self.mean, "deviation": self.deviation}

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a frame of this shape before the crop."""
        if isinstance(self.resize, tuple):
            return self.resize
        scale = self.resize / min(height, width)
        if self.longest is not None:
            scale = min(scale, self.longest / max(height, width))
        least = 1 if self.crop is None else self.crop
        return max(least, round(height * scale)), max(least, round(width * scale))
