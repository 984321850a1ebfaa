"""Metrics beside those that are reported: counted when they are asked for, shown below the tables, and never ranked.

A metric is a function from what was captioned to a `Measured`. Some are built in; a package brings others by an entry point of
the group `bench.metrics`, which names such a function.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import BenchError
from bench.errors import first_line, unknown

GROUP = "bench.metrics"
BUILT_IN = {
    "distinct1": "bench.evaluation.diversity:distinct1",
    "distinct2": "bench.evaluation.diversity:distinct2",
    "vocabulary": "bench.evaluation.diversity:vocabulary",
    "drawn": "bench.evaluation.drawn:drawn",
    "clipscore": "bench.cell.clipscore:clipscore",
}


def _not_trained_here(count: int) -> list[dict[str, str]]:
    raise BenchError("these captions have no trained method behind them that could draw others")


Footage = tuple[Path, tuple[float, float] | None]


@dataclass(frozen=True)
class Captioned:
    """What a metric is given, by clip: a caption each, and its references (empty where they are not on this machine).

    `tokenize` gives the PTB tokens on which the reported metrics are counted, a list for each text; `videos` the file of each
    clip whose video is on this machine, with start and end (seconds) where the clip is a part of it. `draw(n)` has the trained
    method behind the captions draw n others of every clip at random: n sets of captions, the same at every call. `option` is what
    stands behind the metric's name and a colon.
    """

    captions: Mapping[str, str]
    references: Mapping[str, Sequence[str]]
    tokenize: Callable[[Sequence[str]], list[list[str]]]
    videos: Callable[[], Mapping[str, Footage]] = dict
    draw: Callable[[int], Sequence[Mapping[str, str]]] = _not_trained_here
    option: str = ""


@dataclass(frozen=True)
class Measured:
    """A score on its own scale. The `signature` names implementation, model and whatever else changes the number."""

    value: float
    signature: str
    clips: Mapping[str, float] = field(default_factory=dict)


Further = Callable[[Captioned], Measured]


def places() -> dict[str, tuple[str, str]]:
    """Where each metric is (`module:function`), and which distribution brings it. A name that is built in stays so."""
    found = {point.name: (point.value, point.dist.name if point.dist else "unknown") for point in _points()}
    return {**dict(sorted(found.items())), **{name: (place, "bench") for name, place in BUILT_IN.items()}}


def _points() -> list[importlib.metadata.EntryPoint]:
    return list(importlib.metadata.entry_points(group=GROUP))


def find(name: str) -> Further:
    """The metric of this name, whatever stands behind a colon. Raises BenchError for an unknown one, and for a package whose
    import fails, with why."""
    name, known = name.partition(":")[0], places()
    if name not in known:
        raise unknown("metric", name, known)
    place, source = known[name]
    module, _, function = place.partition(":")
    try:
        metric = getattr(importlib.import_module(module), function)
    except Exception as error:
        what = f"{type(error).__name__}: {first_line(error)}"
        raise BenchError(f"metric {name} of the package {source} cannot be used: its import raises {what}") from error
    if not callable(metric):
        raise BenchError(f"metric {name} of the package {source} cannot be used: {place} is no function")
    return metric


def measure(name: str, given: Captioned) -> Measured:
    """The score of a metric. Raises BenchError where it fails, or gives no finite number with a signature."""
    metric = find(name)
    try:
        found = metric(replace(given, option=name.partition(":")[2]))
    except BenchError:
        raise
    except Exception as error:
        raise BenchError(f"metric {name} raises {type(error).__name__}: {first_line(error)}") from error
    if not (isinstance(found, Measured) and math.isfinite(found.value) and found.signature.strip()):
        raise BenchError(f"metric {name} gives {found!r}: it must give a Measured with a finite value and a signature")
    return found
