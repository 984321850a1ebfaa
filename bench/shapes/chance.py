"""Seeded chance from SHA-256 and SHAKE-128 alone: the same on every machine, Python and numpy."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

_MASK = (1 << 64) - 1


def zipf(n: int) -> tuple[int, ...]:
    """Integer weights of a long-tailed list of `n`: rank r has the weight 1 / (r + 1) (Zipf's law after Mandelbrot)."""
    return tuple(10_000 // (rank + 1) for rank in range(1, n + 1))


def noise_bytes(n: int, *key: object) -> bytes:
    """`n` pseudo-random bytes that depend on `key` alone."""
    return hashlib.shake_128(_name(key)).digest(n)


def _name(key: tuple[object, ...]) -> bytes:
    return "/".join(str(part) for part in key).encode()


class Dice:
    """Draws that depend on a key alone: `Dice(seed, clip, "scene")`. Integers only, so nothing is rounded."""

    def __init__(self, *key: object) -> None:
        self._state = int.from_bytes(hashlib.sha256(_name(key)).digest()[:8], "little")

    def below(self, n: int) -> int:
        """A whole number 0 .. n-1."""
        # splitmix64 (Steele, Lea, Flood 2014): one addition and three mixing steps for 64 bits.
        self._state = word = (self._state + 0x9E3779B97F4A7C15) & _MASK
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((word ^ (word >> 31)) * n) >> 64

    def between(self, low: int, high: int) -> int:
        """A whole number low .. high, both included."""
        return low + self.below(high - low + 1)

    def percent(self, share: int) -> bool:
        """True in `share` of 100 draws."""
        return self.below(100) < share

    def pick(self, items: Sequence[Item]) -> Item:
        """One of `items`, all equally likely."""
        return items[self.below(len(items))]

    def weighted(self, items: Sequence[Item], weights: Sequence[int]) -> Item:
        """One of `items`, each as likely as its whole-number weight."""
        left = self.below(sum(weights))
        for item, weight in zip(items, weights, strict=True):
            left -= weight
            if left < 0:
                return item
        raise ValueError("weights must be positive")

    def zipf(self, items: Sequence[Item]) -> Item:
        """One of `items`, the first most likely, with a long tail."""
        return self.weighted(items, zipf(len(items)))

    def shuffled(self, items: Sequence[Item]) -> list[Item]:
        """`items` in random order (Fisher-Yates)."""
        deck = list(items)
        for last in range(len(deck) - 1, 0, -1):
            other = self.below(last + 1)
            deck[last], deck[other] = deck[other], deck[last]
        return deck
