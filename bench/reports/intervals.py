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
    """Two rows on the ranked metric, and the question that they answer: the difference of their means, its 95 % interval over
    clips, and p, corrected by Holm for the pairs of the table."""

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
    were asked for, where both rows are known. `gains` are those over the row at `base`: the difference and its interval.
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
    """The systems of one table by row: means over all seeds, and over those of the ranking where all ranked rows are known."""

    place: tuple[str, frozenset[str]]
    whole: Mapping[int, int]
    ranked: Mapping[int, int]
    pairs: Sequence[Asked]

    @property
    def families(self) -> list[list[int]]:
        """The ranked rows as far as they are compared in pairs, and each pair that was asked for."""
        return [list(self.ranked.values())[:MOST_TIED], *([self.whole[a], self.whole[b]] for a, b, _ in self.pairs)]


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
    ranked = [n for n, rank in enumerate(block.ranks) if rank]
    systems = {}
    if all(n in known for n in ranked):
        for n in ranked:
            own = [record for record in block.rows[n].records if record.seed in block.ranked_on]
            mean = _mean(own, clips)
            assert mean is not None  # its cells are some of those that are known
            systems[n] = whole[n] if len(own) == len(block.rows[n].records) else together.add(mean)
    return _Plan(place, whole, systems, [pair for pair in pairs if set(pair[:2]) <= set(whole)])


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
    base, gains = _gains(block, plan, scores, samples)
    pairs = _apart(plan, scores, samples, p[1:])
    return Chance(tuple(intervals), tuple(groups), tuple(places), _mean_ranks(block), pairs, base, gains)


def _gains(
    block: Block, plan: _Plan, scores: Floats, samples: Floats
) -> tuple[int | None, tuple[tuple[float, float, float] | None, ...]]:
    """The base of a table, and what each row gains over it on the same clips, with the interval of the difference."""
    known = [n for n in plan.whole if n not in block.sweeps]
    if len(known) < 2:
        return None, ()
    lowest = min(known, key=lambda n: scores[plan.whole[n]])
    named = [n for name in BASES for n in known if block.rows[n].name == name]
    base = next((n for n in named if _as_carded(block.rows[n])), next(iter(named), lowest))
    own = plan.whole[base]
    gains: list[tuple[float, float, float] | None] = [None] * len(block.rows)
    for n, system in plan.whole.items():
        if n != base:
            low, high = interval((samples[system] - samples[own])[:, None], len(plan.place[1]))
            gains[n] = (float(scores[system] - scores[own]), float(low[0]), float(high[0]))
    return base, tuple(gains)


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
    found = {}
    for (idea, control, question), chance in zip(plan.pairs, corrected.tolist(), strict=True):
        one, other = plan.whole[idea], plan.whole[control]
        low, high = interval((samples[one] - samples[other])[:, None], len(plan.place[1]))
        found[idea, control] = Apart(
            question, float(scores[one] - scores[other]), float(low[0]), float(high[0]), chance
        )
    return found


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
