"""BLEU (Papineni et al. 2002) as pycocoevalcap computes it: 0 to 1, closest reference length, its smoothing constants.

A clip is worth ten numbers, which add up over clips: correct n-grams of order 1 to 4, guessed n-grams of order 1 to 4, length
of the hypothesis, length of the closest reference (the shorter of two equally close ones).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from bench.evaluation.ngrams import ORDERS, ClipTable, Floats, Grams, Ints, Tokens, offsets, ranges
from bench.evaluation.statistics import Count, Counting, References

_FAR = np.int64(1) << 31  # longer than any caption: packs (distance, length) into one number to take the minimum of


def bleu(statistics: ArrayLike) -> Floats:
    """BLEU-1..4 of rows of ten numbers (correct 4, guessed 4, length, closest length). Shape [..., 10] -> [..., 4].

    The two constants are pycocoevalcap's: they keep an empty hypothesis at 0 and must stay for agreement.
    """
    rows = np.asarray(statistics, np.float64)
    tiny, small = 1e-15, 1e-9
    precision = np.cumprod((rows[..., :4] + tiny) / (rows[..., 4:8] + small), axis=-1)
    scores = precision ** (1.0 / np.arange(1, 5))
    ratio = (rows[..., 8:9] + tiny) / (rows[..., 9:10] + small)
    with np.errstate(over="ignore", under="ignore"):
        brevity = np.where(ratio < 1, np.exp(np.minimum(1 - 1 / ratio, 0.0)), 1.0)
    return np.asarray(scores * brevity)


class TokenBleu:
    """BLEU of tokens (words or ids) against given references, or their table. Raises BenchError for a clip without references."""

    def __init__(self, references: Mapping[str, Sequence[Tokens]] | ClipTable) -> None:
        self.table = references if isinstance(references, ClipTable) else ClipTable(references)
        groups = self.table.by_clip
        counts = self.table.grams.count[groups.posting]
        self._most = np.maximum.reduceat(counts, groups.start[:-1]) if len(counts) else counts

    def statistics(self, clips: Sequence[str], hypotheses: Sequence[Tokens]) -> Floats:
        """The ten numbers of every hypothesis against the references of the clip beside it. Shape [H, 10]."""
        clip = self.table.numbers(clips)
        sentences, grams = self.table.read(hypotheses)
        entry, pair = self.table.find(grams, clip)
        correct = np.minimum(grams.count[entry], self._most[pair])
        right = _per_order(Grams(grams.owner[entry], grams.gram[entry], grams.order[entry], correct), len(clips))
        return _join(right, sentences.lengths, closest(self.table, sentences.lengths, clip))

    def score(self, hypotheses: Mapping[str, Tokens]) -> tuple[Floats, Floats]:
        """(corpus BLEU-1..4 [4], sentence BLEU-1..4 [H, 4]) in the order of `hypotheses`."""
        rows = self.statistics(list(hypotheses), list(hypotheses.values()))
        return bleu(rows.sum(axis=0)), bleu(rows)

    def score_many(self, clips: Sequence[str], hypotheses: Sequence[Tokens]) -> Floats:
        """Sentence BLEU-1..4 of every hypothesis; a clip may come several times. Shape [H, 4]."""
        return bleu(self.statistics(clips, hypotheses))


def _per_order(grams: Grams, sentences: int) -> Floats:
    """Sum of counts per sentence and order. Shape [sentences, 4]."""
    total = np.bincount(grams.owner * ORDERS + grams.order, grams.count, minlength=sentences * ORDERS)
    return total.reshape(-1, ORDERS).astype(np.float64)


def _join(correct: Floats, lengths: Ints, reference_lengths: Ints) -> Floats:
    guessed = np.maximum(lengths[:, None] - np.arange(ORDERS), 0)
    return np.column_stack([correct, guessed, lengths, reference_lengths]).astype(np.float64)


def closest(table: ClipTable, lengths: Ints, clip: Ints, left_out: Ints | None = None) -> Ints:
    """Length of the reference of `clip` [H] that is closest to `lengths` [H], not counting `left_out` [H]. Shape [H]."""
    hypothesis, reference = ranges(table.first[clip], table.sizes[clip])
    length = table.sentences.lengths[reference]
    rank = np.abs(length - lengths[hypothesis]) * _FAR + length
    starts = offsets(table.sizes[clip])[:-1]
    if left_out is not None:
        rank[starts + left_out - table.first[clip]] = np.iinfo(np.int64).max
    return np.minimum.reduceat(rank, starts) % _FAR if len(rank) else lengths


def leave_one_out(table: ClipTable) -> Floats:
    """The ten numbers of every reference against the others of its clip. Shape [R, 10]."""
    groups, grams = table.by_clip, table.grams
    counts = grams.count[groups.posting]
    group = np.repeat(np.arange(len(groups.pair)), np.diff(groups.start))
    most = np.maximum.reduceat(counts, groups.start[:-1]) if len(counts) else counts
    top = counts == most[group]
    holders = np.bincount(group[top], minlength=len(most))
    below = np.zeros(len(most), np.int64)
    np.maximum.at(below, group[~top], counts[~top])
    # Without the reference itself the largest count is that of the others: the runner-up where it held the most alone.
    others = np.where(top & (holders[group] == 1), below[group], most[group])
    correct = np.empty(len(counts), np.int64)
    correct[groups.posting] = np.minimum(counts, others)
    right = _per_order(Grams(grams.owner, grams.gram, grams.order, correct), len(table.clip))
    lengths = table.sentences.lengths
    return _join(right, lengths, closest(table, lengths, table.clip, left_out=np.arange(len(table.clip))))


def _read(references: References) -> Count:
    bleu_of = TokenBleu(references.table)
    return lambda ids, lines: bleu_of.statistics(ids, [tuple(line.split()) for line in lines])


COUNTING = Counting(_read, bleu)
