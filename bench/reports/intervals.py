"""What the choice of clips makes of a table: intervals, tie groups and places of its rows on the ranked metric.

The clips of a split are drawn again, the same draws for all tables of a data set and split (`bench.evaluation.resampling`).
Scores of the clips are read from beside the records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from bench.evaluation.metrics import RANKED_BY, SHOWN
from bench.evaluation.ngrams import Floats
from bench.evaluation.resampling import bootstrap, holm, interval, mean_ranks, randomise_means, tie_groups
from bench.records.schema import Record
from bench.reports.blocks import Block, Row
from bench.reports.clips import Clips

MOST_TIED = 30  # rows of a table that are compared in pairs, as many as its picture shows: 435 pairs
Asked = tuple[int, int, str]
"""Two rows of a table that are to be compared, and the question that this answers."""
BASES = (
    "salstm:xe",
    "glrg:xe",
    "mplstm:xe",
    "s2vt:xe",
    "transformer:xe",
    "hail:na",
    "vre:attention",
    "vre:kbigru_all",
    "etenet:step2_frozen",
)
"""Systems without the papers' ideas: the first that a table has with its own loss and settings, or else at all, is its base.
Without any it is the row of the lowest score."""
SCALE = 100.0  # scores are in percent; the rooms of statistics have 0 to 10


@dataclass(frozen=True)
class Apart:
    """Two rows on the ranked metric, and the question that they answer: the difference of their means over the seeds that both
    have, its 95 % interval over clips, and p, corrected by Holm for the pairs of the table."""

    question: str
    difference: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Chance:
    """Of each row of a table, by position, None where it is not known.

    `intervals` hold the mean of the ranked metric in 95 of 100 choices of clips; `groups` are tie groups from 1, `places` the
    range of the rank in 95 of 100 choices of clips, `mean_ranks` the mean over the metrics of the table. `pairs` are those that
    were asked for, where both rows are known. `gains` are those over the row at `base`: the difference, over the seeds that both
    have, and its interval.
    """

    intervals: tuple[tuple[float, float] | None, ...]
    groups: tuple[int | None, ...]
    places: tuple[tuple[int, int] | None, ...]
    mean_ranks: tuple[float | None, ...]
    pairs: Mapping[tuple[int, int], Apart]
    base: int | None = None
    gains: tuple[tuple[float, float, float] | None, ...] = ()


@dataclass
class _Drawn:
    """Systems that are drawn together: clip means [n] of each, in percent, in the order of `ids`."""

    ids: tuple[str, ...]
    means: list[Floats] = field(default_factory=list)

    def add(self, clips: Clips) -> int:
        """The number of a further system."""
        self.means.append(_ordered(clips, self.ids))
        return len(self.means) - 1


@dataclass(frozen=True)
class _Plan:
    """The systems of one table by row: means over all seeds, and over those of the ranking where all ranked rows are known.

    `both` has for two rows the means over the seeds that they share: for each pair that was asked for, and for every row with
    the one at `base`.
    """

    place: tuple[str, frozenset[str]]
    whole: Mapping[int, int]
    ranked: Mapping[int, int]
    pairs: Sequence[Asked]
    base: int | None
    both: Mapping[tuple[int, int], tuple[int, int]]

    @property
    def families(self) -> list[list[int]]:
        """The ranked rows as far as they are compared in pairs, and each pair that was asked for."""
        return [list(self.ranked.values())[:MOST_TIED], *(list(self.both[a, b]) for a, b, _ in self.pairs)]


def of_tables(tables: Sequence[Block], clips: Mapping[str, Clips], pairs: Sequence[Sequence[Asked]]) -> list[Chance]:
    """The chance of each table of one data set. `clips` by key of the cell, where they are known; `pairs` of rows by table."""
    drawn: dict[tuple[str, frozenset[str]], _Drawn] = {}
    plans = [_plan(block, clips, drawn, asked) for block, asked in zip(tables, pairs, strict=True)]
    found: dict[int, Chance] = {}
    for place, together in drawn.items():
        own = [(n, plan) for n, plan in enumerate(plans) if plan is not None and plan.place == place]
        means = np.stack(together.means) / SCALE
        name = f"{tables[0].rows[0].first.dataset} {place[0]} {len(together.ids)}"
        samples = SCALE * bootstrap([[{RANKED_BY: mean}] for mean in means], name)[..., 0]
        p = iter(randomise_means(means, name, [family for _, plan in own for family in plan.families]))
        for n, plan in own:
            found[n] = _chance(tables[n], plan, means.mean(axis=1) * SCALE, samples, [next(p) for _ in plan.families])
    return [found.get(n) or _unknown(block) for n, block in enumerate(tables)]


def _plan(
    block: Block,
    clips: Mapping[str, Clips],
    drawn: dict[tuple[str, frozenset[str]], _Drawn],
    pairs: Sequence[Asked],
) -> _Plan | None:
    """What is to be drawn for a table; None where the clips of no row are known. Its systems are added to `drawn`."""
    known = {n: mean for n, row in enumerate(block.rows) if row.complete and (mean := _mean(row.records, clips))}
    if not known:
        return None
    first = known[min(known)]
    place = (block.rows[0].first.split, frozenset(first.ids))
    known = {n: mean for n, mean in known.items() if frozenset(mean.ids) == place[1]}
    together = drawn.setdefault(place, _Drawn(first.ids))
    whole = {n: together.add(mean) for n, mean in known.items()}
    parts: dict[tuple[int, frozenset[int]], int] = {}

    def over(n: int, seeds: frozenset[int]) -> int:
        """The mean of a row that is known over some of its seeds."""
        own = [record for record in block.rows[n].records if record.seed in seeds]
        if len(own) == len(block.rows[n].records):
            return whole[n]
        if (n, seeds) not in parts:
            mean = _mean(own, clips)
            assert mean is not None  # its cells are some of those that are known
            parts[n, seeds] = together.add(mean)
        return parts[n, seeds]

    ranked = [n for n, rank in enumerate(block.ranks) if rank]
    on = frozenset(block.ranked_on)
    systems = {n: over(n, on) for n in ranked} if all(n in known for n in ranked) else {}
    asked = [pair for pair in pairs if set(pair[:2]) <= set(whole)]
    base = _base(block, known)
    both = {}
    for a, b in [*(pair[:2] for pair in asked), *((n, base) for n in known if base is not None and n != base)]:
        seeds = block.rows[a].shared_seeds(block.rows[b])
        both[a, b] = (over(a, seeds), over(b, seeds)) if seeds else (whole[a], whole[b])
    return _Plan(place, whole, systems, asked, base, both)


def _base(block: Block, known: Mapping[int, Clips]) -> int | None:
    """The base of a table, among the rows that are known and are no tries; None where there is nothing to compare with it."""
    rows = [n for n in known if n not in block.sweeps]
    if len(rows) < 2:
        return None
    named = [n for name in BASES for n in rows if block.rows[n].name == name]
    lowest = min(rows, key=lambda n: float(known[n].scores.mean()))
    return next((n for n in named if _as_carded(block.rows[n])), next(iter(named), lowest))


def _mean(records: Sequence[Record], clips: Mapping[str, Clips]) -> Clips | None:
    """The mean over cells, clip by clip; None where the clips of one are not known or not the same, or there is but one."""
    cells = [clips.get(record.key) for record in records]
    if not cells or cells[0] is None or len(cells[0].ids) < 2:
        return None
    ids = cells[0].ids
    total = np.zeros(len(ids))
    for cell in cells:
        if cell is None or (cell.ids != ids and set(cell.ids) != set(ids)):
            return None
        total += _ordered(cell, ids)
    return Clips(ids, total / len(cells))


def _ordered(clips: Clips, ids: tuple[str, ...]) -> Floats:
    """The scores in the order of `ids`, which are the same clips."""
    if clips.ids == ids:
        return clips.scores
    place = {clip: number for number, clip in enumerate(clips.ids)}
    return clips.scores[[place[clip] for clip in ids]]


def _chance(block: Block, plan: _Plan, scores: Floats, samples: Floats, p: Sequence[Floats]) -> Chance:
    count = len(block.rows)
    clips = len(plan.place[1])
    intervals: list[tuple[float, float] | None] = [None] * count
    low, high = interval(samples[list(plan.whole.values())][..., None], clips)
    for n, one, other in zip(plan.whole, low[:, 0].tolist(), high[:, 0].tolist(), strict=True):
        intervals[n] = (one, other)
    groups: list[int | None] = [None] * count
    places: list[tuple[int, int] | None] = [None] * count
    if len(plan.ranked) > 1:
        compared = list(plan.ranked.items())[:MOST_TIED]
        for (n, _), group in zip(compared, tie_groups([scores[system] for _, system in compared], p[0]), strict=True):
            groups[n] = group
        for n, span in zip(plan.ranked, _places(samples[list(plan.ranked.values())]), strict=True):
            places[n] = span
    gains = _gains(block, plan, scores, samples)
    pairs = _apart(plan, scores, samples, p[1:])
    return Chance(tuple(intervals), tuple(groups), tuple(places), _mean_ranks(block), pairs, plan.base, gains)


def _gains(block: Block, plan: _Plan, scores: Floats, samples: Floats) -> tuple[tuple[float, float, float] | None, ...]:
    """What each row gains over the base of the table on the same clips, with the interval of the difference."""
    if plan.base is None:
        return ()
    gains: list[tuple[float, float, float] | None] = [None] * len(block.rows)
    for n in plan.whole:
        if n != plan.base:
            gains[n] = _difference(plan, (n, plan.base), scores, samples)
    return tuple(gains)


def _difference(plan: _Plan, rows: tuple[int, int], scores: Floats, samples: Floats) -> tuple[float, float, float]:
    """What the first of two rows has more than the second, with its 95 % interval over clips."""
    one, other = plan.both[rows]
    low, high = interval((samples[one] - samples[other])[:, None], len(plan.place[1]))
    return float(scores[one] - scores[other]), float(low[0]), float(high[0])


def _as_carded(row: Row) -> bool:
    """Whether a row has the loss and the settings of its variant's card."""
    return not row.first.config.get("changed") and not row.first.config.get("loss")


def _places(samples_RK: Floats) -> list[tuple[int, int]]:
    """The ranks of R systems in 95 of 100 draws, from 1."""
    order = np.argsort(-samples_RK, axis=0, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, len(samples_RK) + 1)[:, None], axis=0)
    low, high = np.quantile(ranks, [0.025, 0.975], axis=1, method="nearest")
    return [(int(a), int(b)) for a, b in zip(low, high, strict=True)]


def _apart(plan: _Plan, scores: Floats, samples: Floats, p: Sequence[Floats]) -> dict[tuple[int, int], Apart]:
    corrected = holm([table[0, 1] for table in p])
    return {
        (idea, control): Apart(question, *_difference(plan, (idea, control), scores, samples), chance)
        for (idea, control, question), chance in zip(plan.pairs, corrected.tolist(), strict=True)
    }


def _mean_ranks(block: Block) -> tuple[float | None, ...]:
    """Mean rank over the metrics of the table, among the ranked rows that have them all."""
    ranked = [n for n, rank in enumerate(block.ranks) if rank]
    found: list[float | None] = [None] * len(block.rows)
    if len(ranked) > 1:
        table = [[_score(block.rows[n], metric, block.ranked_on) for metric in SHOWN] for n in ranked]
        for n, rank in zip(ranked, mean_ranks(np.array(table)).tolist(), strict=True):
            found[n] = None if np.isnan(rank) else rank
    return tuple(found)


def _score(row: Row, metric: str, seeds: Sequence[int]) -> float:
    values = row.values(metric, seeds)
    return fmean(values) if len(values) == len(seeds) else float("nan")


def _unknown(block: Block) -> Chance:
    nothing = (None,) * len(block.rows)
    return Chance(nothing, nothing, nothing, _mean_ranks(block), {})
