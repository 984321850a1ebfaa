"""From clips to the score of a corpus: what the file of a metric provides, and its sums under any weights of the clips.

BLEU and METEOR of a corpus are not means of clip scores: their statistics are summed over clips first. A resample of clips
is a row of weights W [K, n], how often each clip was drawn, and W @ statistics does the rest. CIDEr's document frequencies
stay those of the whole set.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from bench.evaluation.metrics import PARTS
from bench.evaluation.ngrams import ClipTable, Floats


class Segment(NamedTuple):
    """One question to METEOR: a clip's name for messages, its references and its hypothesis, as tokens joined by blanks."""

    clip: str
    references: Sequence[str]
    hypothesis: str


@dataclass(frozen=True)
class References:
    """References of one split, read once for all metrics: `lines` are the PTB tokens of each, joined by blanks, by clip.

    `meteor` asks the METEOR program that the scorer keeps running.
    """

    lines: Mapping[str, Sequence[str]]
    meteor: Callable[[Sequence[Segment]], Floats]

    @cached_property
    def table(self) -> ClipTable:
        """Their n-grams, which CIDEr and BLEU share."""
        return ClipTable({clip: [tuple(line.split()) for line in lines] for clip, lines in self.lines.items()})


Count = Callable[[Sequence[str], Sequence[str]], Floats]
"""(clip ids, a caption of each as PTB tokens joined by blanks) -> what each caption is worth: numbers [n, F] of a part with
columns, scores [n] of one without."""


@dataclass(frozen=True)
class Counting:
    """What the file of a metric provides, as its `COUNTING`. Units: 0 to 1, CIDEr 0 to 10.

    `read` makes a count from references. `score` turns sums over clips [..., F] into the metrics of the part [..., M], and
    `addends` rows [n, F] into those that are summed; a part without columns has neither, for its metric is a mean of scores.
    `joint`: what a clip is worth depends on the references of the other clips as well.
    """

    read: Callable[[References], Count]
    score: Callable[[ArrayLike], Floats] | None = None
    addends: Callable[[Floats], Floats] | None = None
    joint: bool = False


@functools.cache
def counting(part: str) -> Counting:
    """What the file of a part provides."""
    found = importlib.import_module(PARTS[part].module).COUNTING
    assert isinstance(found, Counting)
    return found


def clip_scores(part: str, rows: Floats) -> Floats:
    """Scores of clips by themselves, from what a part counted of them. Shape [n, F] or [n] -> [n, M]."""
    score = counting(part).score
    return score(rows) if score else np.asarray(rows, np.float64)[:, None]


def addends(part: str, rows: Floats) -> Floats:
    """What is summed over clips. Shape [n, F], or [n, 1] of a part without columns."""
    prepared = counting(part).addends
    table = np.asarray(prepared(rows) if prepared else rows, np.float64)
    return table if table.ndim > 1 else table[:, None]


def from_sums(part: str, sums: Floats, clips: ArrayLike) -> Floats:
    """The metrics of a part from sums of `addends` over so many clips. Shape [..., F] -> [..., M]."""
    score = counting(part).score
    return score(sums) if score else ratio(sums, clips)


def corpus_scores(part: str, rows: Floats, weights: ArrayLike | None = None) -> Floats:
    """The metrics of a part over clips under `weights` [n] or [K, n] (default: each once). Shape [M] or [K, M]."""
    score = counting(part).score
    if score is None:
        return corpus_mean(rows, weights)[..., None]
    added = addends(part, rows)
    return score(added.sum(axis=0) if weights is None else np.asarray(weights, np.float64) @ added)


def corpus_mean(scores: Floats, weights: ArrayLike | None = None) -> Floats:
    """The mean of clip scores [n] under `weights` [n] or [K, n] (default: each once). Shape [] or [K]."""
    shares = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    return ratio(shares @ np.asarray(scores, np.float64), shares.sum(axis=-1))


def ratio(above: ArrayLike, below: ArrayLike) -> Floats:
    """`above / below`, 0 where `below` is 0."""
    above, below = np.broadcast_arrays(np.asarray(above, np.float64), np.asarray(below, np.float64))
    return np.divide(above, below, out=np.zeros(above.shape), where=below != 0)


@functools.cache
def student(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t: 2.776 for four degrees of freedom, 1.96 for very many."""
    from scipy.special import stdtrit  # imported late: lists and plans do without

    return float(stdtrit(degrees, 0.975))


def seeds_for(deviation: float, reach: float) -> int:
    """How many seeds, two or more, bring half of the 95 % interval of a mean down to `reach`; values spread by `deviation`."""
    return next(n for n in count(2) if student(n - 1) * deviation <= reach * sqrt(n))
