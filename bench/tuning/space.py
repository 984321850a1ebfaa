"""The points that a search takes from a space: the settings of `search_space` in a card, or of `space.` on the command line.

Every parameter draws by its own name, so that one more parameter changes the values of no other.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench import BenchError
from bench.declare.card import TRAIN, Choices, Conditional, Interval, MethodCard, Searched
from bench.errors import listing

Space = Mapping[str, Choices]
Conditions = Mapping[str, Mapping[str, Sequence[Any]]]
"""What other searched parameters must be for one to matter."""
Point = dict[str, Any]
"""A value for every parameter, by canonical name: `reconstruction_weight`, `train.learning_rate`."""


def resolve(searched: Mapping[str, Searched], settings: Mapping[str, Any]) -> tuple[Space, Conditions]:
    """What is searched of a row with `settings`, and under which conditions on what else is searched of it."""
    space: dict[str, Choices] = {}
    conditions: dict[str, dict[str, Sequence[Any]]] = {}
    for name, one in searched.items():
        if isinstance(one, Conditional):
            open_ones: dict[str, Sequence[Any]] = {
                other: values for other, values in one.when.items() if other in searched
            }
            if any(settings.get(other) not in one.when[other] for other in one.when.keys() - open_ones.keys()):
                continue
            if open_ones:
                conditions[name] = open_ones
            one = one.choices
        space[name] = one
    return space, conditions


def that_matter(point: Mapping[str, Any], conditions: Conditions) -> Point:
    """A point without the parameters that change nothing there."""
    return {
        name: value
        for name, value in point.items()
        if all(point.get(other) in values for other, values in conditions.get(name, {}).items())
    }


def grid(
    space: Space, trials: int | None, seed: int, first: Point, conditions: Conditions | None = None
) -> list[Point]:
    """`first` and all other points in the order of the lists, or `trials` in all without repetition, drawn by `seed`.

    Raises BenchError where an interval has no list of points.
    """
    intervals = [name for name, choices in space.items() if isinstance(choices, Interval)]
    if intervals:
        raise BenchError(
            f"search=grid needs lists of values, and {listing(intervals)} is an interval: use search=random"
        )
    every = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    points = [first]
    for point in (that_matter(one, conditions or {}) for one in every):
        if point not in points:
            points.append(point)
    if trials is None or trials >= len(points):
        return points
    others = sorted(range(1, len(points)), key=lambda number: _share(seed, "grid", number))[: trials - 1]
    return [points[number] for number in [0, *sorted(others)]]


def scattered(space: Space, trials: int, seed: int, first: Point, conditions: Conditions | None = None) -> list[Point]:
    """`first` and points that are drawn, `trials` in all or as many as there are, no two alike; the value of a parameter
    depends on the seed, its name and the number of the draw alone."""
    endless = any(isinstance(choices, Interval) for choices in space.values())
    most = trials if endless else min(trials, len(grid(space, None, seed, first, conditions)))
    points = [first]
    for number in itertools.count(1):
        if len(points) >= most:
            break
        drawn = {name: value_at(choices, _share(seed, name, number)) for name, choices in space.items()}
        point = that_matter(drawn, conditions or {})
        if point not in points:
            points.append(point)
    return points


def value_at(choices: Choices, share: float) -> Any:
    """The value at a share in [0, 1) of the way through what may be chosen."""
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


def printed(card: MethodCard | None, variant: str, space: Mapping[str, Any]) -> Point:
    """The searched settings as the paper prints them for the row: those of its variant or of the card's paper protocol."""
    if card is None or variant not in card.variants:
        return {}
    known = {name: setting.default for name, setting in card.settings.items()}
    known |= card.protocol_paper.settings if card.protocol_paper else {}
    known |= card.variants[variant].settings
    return {name: known[name] for name in space if not name.startswith(TRAIN) and known.get(name) is not None}


def title_of(card: MethodCard | None, name: str) -> str:
    """What a searched setting is called: the paper's letter where it has one. A report may outlive its card, or be older."""
    setting = card.settings.get(name) if card is not None else None
    return (setting.alias if setting is not None else None) or name.removeprefix(TRAIN)


def describe(card: MethodCard | None, point: Mapping[str, Any]) -> str:
    """A point as text: `lambda=0.2 learning_rate=0.0005`."""
    parts = []
    for name, value in point.items():
        if card is not None and name in card.settings:
            parts.append(card.label(name, value))
        else:
            parts.append(f"{title_of(card, name)}={f'{value:g}' if isinstance(value, float) else value}")
    return " ".join(parts)
