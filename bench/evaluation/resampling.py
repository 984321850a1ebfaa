"""Intervals, p values and tie groups of corpus metrics, by drawing clips again.

A system is one cell or several, its seeds; a cell is its clip statistics by part (`Rows`): `bleu` [n, 10], `meteor` [n, 23],
`rouge_l` [n], `cider` [n], or some of them. The score of a system is the mean over its seeds. All systems have the same clips
in the same order, and what is drawn of the clips is the same for all of them. Two ways to draw:

- `bootstrap`: n clips with replacement (Efron 1979; Koehn 2004 for BLEU). Its quantiles give the intervals.
- `randomise`: two systems exchange their captions of a clip, for half of the clips (approximate randomisation, Noreen 1989;
  Riezler and Maxwell 2005). How often that makes a difference as large as the observed one is the p value.

Corpus metrics are computed anew in every draw. CIDEr's document frequencies stay those of the whole set. Other seeds or other
training are not drawn: intervals and p values are those of the choice of clips alone.

Letters: N systems, K draws, n clips, F numbers of a clip, M metrics. Units: 0 to 1, CIDEr 0 to 10.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import ceil, comb, lcm, sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.evaluation.metrics import PARTS, made_of
from bench.evaluation.ngrams import Floats
from bench.evaluation.statistics import addends, from_sums, student

Rows = Mapping[str, Floats]
System = Sequence[Rows]

DRAWS = 10_000
LEVEL = 0.05
BLOCK = 1 << 22  # weights held at a time: 32 MB
NOISE = 1e-12  # differences that are less apart are equal: sums in another order differ by rounding


@dataclass(frozen=True)
class Difference:
    """One metric of two systems: their scores, `first - second`, and what chance in the choice of clips makes of it.

    `low` and `high` hold the difference in 95 of 100 choices of clips (paired bootstrap, quantiles); NaN for a single clip.
    `p` is that of approximate randomisation, `p_bootstrap` of the bootstrap; both are two-sided.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float
    p_bootstrap: float


def compare(first: System, second: System, name: str, count: int = DRAWS) -> dict[str, Difference]:
    """Two systems on the same clips, by metric. `name` seeds the draws."""
    tables = _Tables([first, second])
    one, other = tables.scores()
    observed = one - other
    samples_NKM = bootstrap([first, second], name, count)
    differences_KM = samples_NKM[0] - samples_NKM[1]
    if tables.clips > 1:
        low, high = interval(differences_KM, tables.clips)
        p_bootstrap = shifted(differences_KM, observed)
    else:  # every resample of one clip is that clip: nothing is known of its spread
        low = high = np.full_like(observed, np.nan)
        p_bootstrap = np.ones_like(observed)
    p = randomise([first, second], name, count)[0, 1]
    columns = (one, other, observed, low, high, p, p_bootstrap)
    return {metric: Difference(*(float(column[m]) for column in columns)) for m, metric in enumerate(tables.metrics)}


def metrics_of(rows: Rows) -> tuple[str, ...]:
    """The metrics that `rows` give, in the order of every last axis here."""
    return tuple(metric for part in PARTS if part in rows for metric in made_of(part))


def scores(system: System) -> dict[str, float]:
    """Corpus scores by metric, means over the seeds."""
    tables = _Tables([system])
    return dict(zip(tables.metrics, tables.scores()[0].tolist(), strict=True))


def bootstrap(systems: Sequence[System], name: str, count: int = DRAWS) -> Floats:
    """Corpus scores of every system on the same `count` resamples of the clips. Shape [N, K, M]."""
    tables = _Tables(systems)
    found = [tables.scores(weights_Kn) for weights_Kn in resamples(tables.clips, name, count)]
    return np.concatenate(found, axis=1)


def interval(samples: Floats, clips: int) -> tuple[Floats, Floats]:
    """The 95 % interval over the draws of `clips` clips, two or more. Shape [..., K, M] -> two of [..., M].

    Quantiles of the draws, moved outwards as far as Student's interval of a mean lies outside of its bootstrap's (the expanded
    percentile interval of Hesterberg 2015): plain quantiles are too narrow by a fifth for 8 clips and by 2 % for 100.
    """
    reach = student(clips - 1) * sqrt(clips / (clips - 1))
    below = NormalDist().cdf(-reach)
    low, high = np.quantile(samples, [below, 1 - below], axis=-2)
    return low, high


def shifted(differences: Floats, observed: Floats) -> Floats:
    """Two-sided p of the bootstrap: how often a resample's difference is as far from the observed one as this is from 0.

    The resamples, shifted so that no difference is expected, stand for the null hypothesis (Efron and Tibshirani 1993,
    ch. 16). Shapes [K, M], [M] -> [M]. Not for a single clip, whose resamples have no spread.
    """
    hits = (np.abs(differences - observed) >= np.abs(observed) - NOISE).sum(axis=0)
    return np.asarray((hits + 1) / (len(differences) + 1))


def randomise(systems: Sequence[System], name: str, count: int | None = None) -> Floats:
    """Two-sided p values of all pairs of systems by approximate randomisation. Shape [N, N, M], ones on the diagonal.

    Seeds exchange captions in pairs, the first with the first; where one system has fewer, its seeds come round again. The
    default `count` lets the smallest p pass Holm's correction over all pairs.
    """
    tables = _Tables(systems)
    count = count or enough(len(systems))
    one = tables.scores()
    pairs = list(combinations(range(len(systems)), 2))
    hits = np.zeros((len(systems), len(systems), len(tables.metrics)))
    for swaps_Kn in swaps(tables.clips, name, count):
        leaving = [[swaps_Kn @ table for table in seeds] for seeds in tables.of]  # totals of the swapped clips [k, F]
        for i, j in pairs:
            reached = np.abs(one[i] - one[j]) - NOISE
            hits[i, j] += (np.abs(tables.after_swaps(i, j, leaving)) >= reached).sum(axis=0)
    p = np.ones_like(hits)
    for i, j in pairs:
        p[i, j] = p[j, i] = (hits[i, j] + 1) / (count + 1)
    return p


def randomise_means(means_Nn: Floats, name: str, families: Sequence[Sequence[int]]) -> list[Floats]:
    """`randomise` of a metric that is a mean over clips, for many systems at once: the p values [R, R] of each family of R.

    `means_Nn` holds the clip scores of N systems, means over their seeds: a mean over clips and seeds does not mind in which
    order it is taken. A family is a table: the numbers of its systems, which are compared in pairs. All of them share the draws.
    """
    _, clips = means_Nn.shape
    counts = [enough(len(family)) for family in families]
    one = means_Nn.mean(axis=1)
    hits = [np.zeros((len(family), len(family))) for family in families]
    start = 0
    for swaps_Kn in swaps(clips, name, max(counts, default=0)):
        taken = swaps_Kn @ means_Nn.T * (2.0 / clips)  # twice what leaves a system: its rival gains it, too
        for family, hit, count in zip(families, hits, counts, strict=True):
            wanted = max(0, count - start)  # a table's p values are the same whichever tables are drawn with it
            scores, own = one[list(family)], np.ascontiguousarray(taken[:wanted, list(family)].T)
            for i in range(len(family) - 1):
                apart = scores[i] - scores[i + 1 :]
                drawn = own[i + 1 :] - (own[i] - apart[:, None])
                np.abs(drawn, out=drawn)
                hit[i, i + 1 :] += np.count_nonzero(drawn >= np.abs(apart)[:, None] - NOISE, axis=1)
        start += len(swaps_Kn)
    p = [(hit + hit.T + 1) / (count + 1) for hit, count in zip(hits, counts, strict=True)]
    for table in p:
        np.fill_diagonal(table, 1.0)
    return p


def enough(systems: int) -> int:
    """Draws for a table: `DRAWS`, or more where the smallest p, 1 / (draws + 1), times all pairs would not be below 5 %."""
    return max(DRAWS, ceil(2 * comb(systems, 2) / LEVEL))


def holm(p: ArrayLike) -> Floats:
    """p values corrected for being a family (Holm 1979), in their order. Shape [m]."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)))
    return corrected


def tie_groups(scores: ArrayLike, p: Floats) -> list[int]:
    """Group of every system on one metric, from 1: those that do not differ significantly from the best; then so for the rest.

    `scores` [N] and p values [N, N] of all pairs, which are one family: Holm's correction is over all of them, because
    which system is best is found in the same data. A system may share a group with the best although one that scores
    higher does not.
    """
    values = np.asarray(scores, np.float64)
    upper = np.triu_indices(len(values), 1)
    corrected = np.ones_like(p)
    corrected[upper] = holm(p[upper])
    corrected = np.minimum(corrected, corrected.T)
    groups = np.zeros(len(values), np.int64)
    while not groups.all():
        free = groups == 0
        best = int(np.argmax(np.where(free, values, -np.inf)))
        groups[free & ((corrected[best] >= LEVEL) | (np.arange(len(values)) == best))] = groups.max() + 1
    return [int(group) for group in groups]


def mean_ranks(scores: ArrayLike) -> Floats:
    """Mean rank of every system over the columns, 1 is best. Shape [..., N, C] -> [..., N].

    Systems of equal score share the mean of their ranks. A system that lacks a score (NaN) in some column has no mean rank
    (NaN) and takes no place from the others.
    """
    values = np.array(scores, np.float64)
    whole = ~np.isnan(values).any(axis=-1)
    values[~whole] = -np.inf
    above = (values[..., None, :, :] > values[..., :, None, :]).sum(axis=-2)
    equal = (values[..., None, :, :] == values[..., :, None, :]).sum(axis=-2)
    return np.where(whole, (above + (equal + 1) / 2).mean(axis=-1), np.nan)


def resamples(clips: int, name: str, count: int = DRAWS) -> Iterator[Floats]:
    """Weights of `count` resamples, how often each clip was drawn, in chunks [k, n]. The same name gives the same weights."""
    bits = _bits(name)
    for size in _chunks(count, clips):
        drawn = ((bits.random_raw(size * clips) >> 32) * clips) >> 32  # uniform on 0 .. n-1, to one part in 2^32 / n
        place = np.repeat(np.arange(size) * clips, clips) + drawn.astype(np.int64)
        yield np.bincount(place, minlength=size * clips).reshape(size, clips).astype(np.float64)


def swaps(clips: int, name: str, count: int = DRAWS) -> Iterator[Floats]:
    """For `count` draws 1 where two systems exchange their captions of a clip, else 0, in chunks [k, n]."""
    bits = _bits(name)
    for size in _chunks(count, clips):
        raw = bits.random_raw(-(-size * clips // 64)).astype("<u8").view(np.uint8)
        yield np.unpackbits(raw)[: size * clips].reshape(size, clips).astype(np.float64)


def _bits(name: str) -> np.random.PCG64:
    """A source of random bits, seeded by a name. Its raw numbers are the same in every version of numpy, which the methods of
    `Generator` do not promise, and pages are checked byte for byte."""
    return np.random.PCG64(int.from_bytes(hashlib.sha256(name.encode()).digest()))


def _chunks(count: int, clips: int) -> Iterator[int]:
    size = max(1, BLOCK // clips)
    for start in range(0, count, size):
        yield min(size, count - start)


class _Tables:
    """The statistics of all cells as one table [n, F] each, so that one product with weights draws every metric."""

    def __init__(self, systems: Sequence[System]) -> None:
        """Raises ValueError unless all cells have the same clips and parts."""
        cells = [rows for system in systems for rows in system]
        shapes = {tuple((part, np.shape(rows[part])) for part in PARTS if part in rows) for rows in cells}
        if len(shapes) != 1 or not all(systems):
            raise ValueError(f"systems have other clips or statistics, or no seeds: {sorted(shapes)}")
        self.parts = tuple(part for part in PARTS if part in cells[0])
        self.metrics = metrics_of(cells[0])
        self.clips = len(cells[0][self.parts[0]])
        self.of = [[self._table(rows) for rows in system] for system in systems]
        self._widths = [len(PARTS[part].columns) or 1 for part in self.parts]

    def _table(self, rows: Rows) -> Floats:
        return np.concatenate([addends(part, rows[part]) for part in self.parts], axis=1)

    def scores(self, weights: NDArray[np.float64] | None = None) -> Floats:
        """Scores of all systems, [N, M], or under `weights` [K, n], each row of which sums to n, [N, K, M]."""
        shares = np.ones(self.clips) if weights is None else weights
        joined = shares @ np.concatenate(
            [table for seeds in self.of for table in seeds], axis=1
        )  # one product is quicker
        each = iter(np.split(joined, joined.shape[-1] // sum(self._widths), axis=-1))
        return np.stack([np.mean([self._scored(next(each)) for _ in seeds], axis=0) for seeds in self.of])

    def after_swaps(self, i: int, j: int, leaving: list[list[Floats]]) -> Floats:
        """Differences of systems i and j after they exchanged the clips whose totals are `leaving[system][seed]`. [k, M]."""
        first, second = self.of[i], self.of[j]
        pairs = lcm(len(first), len(second))
        difference = np.zeros((len(leaving[0][0]), len(self.metrics)))
        for pair in range(pairs):
            a, b = pair % len(first), pair % len(second)
            gained = leaving[j][b] - leaving[i][a]
            difference += self._scored(first[a].sum(axis=0) + gained) - self._scored(second[b].sum(axis=0) - gained)
        return difference / pairs

    def _scored(self, totals: Floats) -> Floats:
        """Metrics of sums over n clips. Shape [..., F] -> [..., M]."""
        found = []
        stop = 0
        for part, width in zip(self.parts, self._widths, strict=True):
            start, stop = stop, stop + width
            found.append(from_sums(part, totals[..., start:stop], self.clips))
        return np.concatenate(found, axis=-1)
