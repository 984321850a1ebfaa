"""The points that a search takes from a space: the settings of `search_space` in a card, or of `space.` on the command line.

Every parameter draws by its own name, so that one more parameter changes the values of no other.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping
from typing import Any

from bench import BenchError
from bench.declare.card import TRAIN, Choices, Interval, MethodCard
from bench.errors import listing

Space = Mapping[str, Choices]
Point = dict[str, Any]
"""A value for every parameter, by canonical name: `reconstruction_weight`, `train.learning_rate`."""


def size(space: Space) -> float:
    """How many points there are; infinite with an interval."""
    return math.prod(len(choices) if isinstance(choices, list) else math.inf for choices in space.values())


def grid(space: Space, trials: int | None, seed: int) -> list[Point]:
    """All points in the order of the lists, or `trials` of them without repetition, drawn by `seed`.

    Raises BenchError where an interval has no list of points.
    """
    intervals = [name for name, choices in space.items() if isinstance(choices, Interval)]
    if intervals:
        raise BenchError(
            f"search=grid needs lists of values, and {listing(intervals)} is an interval: use search=random"
        )
    points = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    if trials is None or trials >= len(points):
        return points
    drawn = sorted(range(len(points)), key=lambda number: _share(seed, "grid", number))[:trials]
    return [points[number] for number in sorted(drawn)]


def scattered(space: Space, trials: int, seed: int) -> list[Point]:
    """`trials` points; the value of a parameter depends on the seed, its name and the number of the trial alone."""
    return [
        {name: _value(choices, _share(seed, name, number)) for name, choices in space.items()}
        for number in range(trials)
    ]


def _value(choices: Choices, share: float) -> Any:
    if isinstance(choices, list):
        return choices[int(share * len(choices))]
    low, high = (math.log(end) if choices.log else end for end in (choices.min, choices.max))
    value = low + share * (high - low)
    return math.exp(value) if choices.log else value


def _share(seed: int, name: str, number: int) -> float:
    """A number in [0, 1) that these three give on any machine."""
    digest = hashlib.sha256(f"{seed}/{name}/{number}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def by_group(point: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The method's own settings of a point, and those of `train` without their prefix."""
    own = {name: value for name, value in point.items() if not name.startswith(TRAIN)}
    return own, {name.removeprefix(TRAIN): value for name, value in point.items() if name.startswith(TRAIN)}


def describe(card: MethodCard, point: Mapping[str, Any]) -> str:
    """A point as text: `lambda=0.2 learning_rate=0.0005`."""
    parts = []
    for name, value in point.items():
        if name.startswith(TRAIN):
            parts.append(f"{name.removeprefix(TRAIN)}={f'{value:g}' if isinstance(value, float) else value}")
        else:
            parts.append(card.label(name, value))
    return " ".join(parts)
