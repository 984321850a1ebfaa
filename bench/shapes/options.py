"""What can be chosen about the corpus: a seed, the sizes of its splits, captions per clip."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import BenchError

GENERATOR_VERSION = "1"
"""Raised by hand whenever a caption, a pixel or a feature of any clip changes; part of every record's key."""

SPLITS = ("train", "val", "test")
DEFAULT_SIZE = (1000, 100, 300)
MOST_CLIPS = 10_000  # clip ids carry four digits
MOST_CAPTIONS = 20  # written for every clip; fewer are the first of them


@dataclass(frozen=True)
class Options:
    """Seed, clips per split, captions per clip. A clip depends on the seed and its own number, never on the others."""

    seed: int = 0
    size: tuple[int, int, int] = DEFAULT_SIZE
    captions: int = MOST_CAPTIONS

    @classmethod
    def read(cls, given: Mapping[str, Any] | Options | None) -> Options:
        """Check the `options` of a data set definition. Raises BenchError on unknown keys and impossible values."""
        if isinstance(given, Options):
            return given
        given = dict(given or {})
        unknown = sorted(set(given) - {"seed", "size", "captions"})
        if unknown:
            raise BenchError(f"options of shapes: unknown key {', '.join(unknown)}; known are seed, size and captions.")
        seed, size = given.get("seed", 0), given.get("size", DEFAULT_SIZE)
        size = tuple(size) if isinstance(size, list | tuple) else (size,)
        captions = given.get("captions", MOST_CAPTIONS)
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise BenchError(f"options.seed of shapes is {seed!r}; it must be a whole number from 0 on.")
        if not isinstance(captions, int) or isinstance(captions, bool) or not 1 <= captions <= MOST_CAPTIONS:
            raise BenchError(
                f"options.captions of shapes is {captions!r}; it must be a whole number from 1 to {MOST_CAPTIONS}."
            )
        return cls(seed, _three(size, "options.size of shapes", "[1000, 100, 300]"), captions)

    @property
    def clips(self) -> int:
        return sum(self.size)

    def splits(self, subset: Sequence[int] | None = None) -> dict[str, tuple[str, ...]]:
        """Clip ids of each split, in order; with `subset` the first n of each. Raises BenchError if n is too many."""
        first = self.size if subset is None else _three(tuple(subset), "subset of shapes", "[300, 50, 150]")
        ids: dict[str, tuple[str, ...]] = {}
        start = 0
        for split, have, want in zip(SPLITS, self.size, first, strict=True):
            if want > have:
                raise BenchError(f"subset asks for {want} {split} clips of shapes, which has {have}; ask for fewer.")
            ids[split] = tuple(clip_id(number) for number in range(start, start + want))
            start += have
        return ids


def _three(values: tuple[Any, ...], what: str, example: str) -> tuple[int, int, int]:
    fine = len(values) == 3 and all(isinstance(value, int) and value >= 1 for value in values)
    if not fine or sum(values) > MOST_CLIPS:
        raise BenchError(
            f"{what} is {list(values)}; it must be three whole numbers from 1 on (train, val, test), "
            f"at most {MOST_CLIPS} in all, such as {example}."
        )
    return values[0], values[1], values[2]


def clip_id(number: int) -> str:
    """`shape0007` for clip number 7."""
    return f"shape{number:04d}"


def clip_number(clip: str) -> int:
    """The reverse of `clip_id`. Raises BenchError for anything else."""
    digits = clip.removeprefix("shape")
    if clip == digits or len(digits) != 4 or not digits.isdecimal():
        raise BenchError(f"{clip!r} is no clip of shapes; its ids run from shape0000 on.")
    return int(digits)


def corpus_digest(options: Mapping[str, Any] | Options | None = None) -> str:
    """SHA-256 that stands for the captions and pixels: the generator's declared version, seed and sizes."""
    chosen = Options.read(options)
    text = f"shapes {GENERATOR_VERSION} {chosen.seed} {list(chosen.size)}"
    if chosen.captions != MOST_CAPTIONS:
        text += f" {chosen.captions} captions"
    return hashlib.sha256(text.encode()).hexdigest()
