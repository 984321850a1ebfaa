"""When a comparison by seeds may stop: looks at t statistics with O'Brien and Fleming's levels (1979), and what is decided there.

The levels are those of a Brownian motion that is looked at when n of N seeds are in, found by numerical integration (Armitage,
McPherson and Rowe 1969), and each is turned into a quantile of Student's t with n - 1 degrees of freedom. The interval that is
printed, the stop and the outcome use the same bound; judging by a plain interval after stopping at a width decides falsely more
often than it says.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, erfc, sqrt
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.resampling import LEVEL

Outcome = Literal["helps", "hurts", "gains less", "undecided"]
NODES = 96  # of the integration, at least: twice as many move no level by 1e-9
TINY = 1e-12  # chances that the integration, which subtracts from 1, cannot tell
PER_STEP = 10  # nodes on a standard deviation of the narrowest step between looks
NORMAL = NormalDist()


@dataclass(frozen=True)
class Decision:
    """What `seeds` paired differences say: their mean, its interval at the level of this look, and p over all looks.

    `ended` where nothing more is to be run: decided, narrow enough, or the last look.
    """

    seeds: int
    mean: float
    low: float
    high: float
    p: float
    outcome: Outcome
    ended: bool


def outcome(low: float, high: float, margin: float) -> Outcome:
    """`helps`, `hurts`, `gains less` than the margin, or `undecided`, by an interval alone."""
    if low > 0:
        return "helps"
    if high < 0:
        return "hurts"
    return "gains less" if high < margin else "undecided"


def decide(differences: Sequence[float], looks: Sequence[int], margin: float, width: float) -> Decision | None:
    """The first look at which a comparison ends, or the last for which there are differences; None before the first.

    `looks` are numbers of seeds, `width` is the half-width of the interval at which an undecided comparison ends.
    """
    found = None
    for seeds in looks:
        if seeds > len(differences):
            break
        values = np.asarray(differences[:seeds], np.float64)
        mean, reach = float(values.mean()), float(_reach(values, tuple(looks)))
        said = outcome(mean - reach, mean + reach, margin)
        ended = said != "undecided" or reach <= width or seeds == looks[-1]
        found = Decision(seeds, mean, mean - reach, mean + reach, _p(values, tuple(looks)), said, ended)
        if ended:
            break
    return found


def decide_once(differences: Sequence[float], margin: float) -> Decision:
    """What differences say that are looked at once, those of folds for instance: Student's t, two of them or more."""
    count = len(differences)
    found = decide(differences, (count,), margin, 0.0)
    assert found is not None
    return found


def levels(looks: tuple[int, ...]) -> tuple[float, ...]:
    """The two-sided level of each look; together they let one comparison in twenty without a difference be decided."""
    bound = _bound(looks)
    return tuple(2 * NORMAL.cdf(-bound / sqrt(seeds / looks[-1])) for seeds in looks)


def false_decisions(
    looks: tuple[int, ...], margin: float, width: float, truth: float, spread: float, count: int
) -> int:
    """In how many of `count` simulated comparisons the rule says what is not so.

    Differences are normal with mean `truth` and standard deviation `spread`, in units of `margin` and `width`. At a truth of 0
    `helps` and `hurts` are false, at one of the margin or more `hurts` and `gains less`.
    """
    random = np.random.default_rng([count, round(100 * truth), round(100 * spread)])
    differences_KN = random.normal(truth, spread, (count, looks[-1]))
    open_K, false_K = np.ones(count, bool), np.zeros(count, bool)
    for seeds in looks:
        values_Kn = differences_KN[:, :seeds]
        mean, reach = values_Kn.mean(axis=1), _reach(values_Kn, looks)
        helps, hurts = mean - reach > 0, mean + reach < 0
        less = ~helps & ~hurts & (mean + reach < margin)
        wrong = (helps | hurts) if truth == 0 else (hurts | less)
        false_K |= open_K & wrong
        open_K &= ~(helps | hurts | less | (reach <= width))
    return int(false_K.sum())


def _reach(values: NDArray[np.float64], looks: tuple[int, ...]) -> NDArray[np.float64]:
    """Half the width of the interval of the mean over the last axis, the seeds of one look."""
    from scipy.special import stdtrit  # imported late: lists and plans do without

    seeds = values.shape[-1]
    level = levels(looks)[looks.index(seeds)]
    deviation = values.std(axis=-1, ddof=1)
    return np.asarray(stdtrit(seeds - 1, 1 - level / 2) * deviation / sqrt(seeds))


def _p(values: NDArray[np.float64], looks: tuple[int, ...]) -> float:
    """The smallest level of the whole rule at which this look would decide that there is a difference."""
    from scipy.special import stdtr

    seeds, deviation = len(values), float(values.std(ddof=1))
    if deviation == 0:
        return 1.0 if values.mean() == 0 else 0.0
    tail = float(stdtr(seeds - 1, -abs(values.mean()) / deviation * sqrt(seeds)))
    return _crossing(-NORMAL.inv_cdf(tail) * sqrt(seeds / looks[-1]), looks) if tail > 0 else 0.0


@functools.cache
def _bound(looks: tuple[int, ...]) -> float:
    """The bound that a Brownian motion on [0, 1] crosses at one of the looks with a chance of 5 %."""
    low, high = 1.0, 4.0
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if _crossing(middle, looks) > LEVEL else (low, middle)
    return high


def _crossing(bound: float, looks: tuple[int, ...]) -> float:
    """The chance that the absolute value of a Brownian motion is above `bound` at one of the looks.

    It is at least that of the last look and at most the sum over all, which are the better figures where it is tiny.
    """
    if bound <= 0:
        return 1.0
    each = [erfc(bound / sqrt(2 * seeds / looks[-1])) for seeds in looks]
    steps = np.diff([0, *looks]) / looks[-1]
    if sum(each) < TINY:
        return sum(each)
    nodes, weights = _legendre(max(NODES, ceil(PER_STEP * bound / sqrt(steps.min()))))
    nodes, weights = nodes * bound, weights * bound
    inside = _density(nodes, steps[0])
    for step in steps[1:]:
        inside = _density(nodes[:, None] - nodes, step) @ (weights * inside)
    return min(max(float(1 - weights @ inside), each[-1]), sum(each))


@functools.cache
def _legendre(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes on [-1, 1] and their weights."""
    return np.polynomial.legendre.leggauss(count)


def _density(values: NDArray[np.float64], variance: float) -> NDArray[np.float64]:
    return np.asarray(np.exp(-(values**2) / (2 * variance)) / sqrt(2 * np.pi * variance))
