"""ROUGE-L (Lin 2004) as pycocoevalcap computes it: 0 to 1, beta 1.2, best precision and best recall over the references.

The longest common subsequence of many pairs at once: one bit per word of the shorter caption (Hyyrö 2004), one vector
operation per word of the longer. pycocoevalcap splits text at single blanks here, so that double blanks make empty tokens;
`split` does the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bench.evaluation.ngrams import ClipTable, Floats, Ints, Sentences, Tokens, mean, offsets, ranges
from bench.evaluation.statistics import Count, Counting, References

Ids = NDArray[np.uint16]

BETA = 1.2
WORD = 64  # bits of one machine word: longest caption, of the shorter of a pair, on the fast way
CHUNK = 1 << 12  # pairs compared at once: of like length, and small enough for a cache
PADDING = (65_534, 65_535)  # no word has these ids (`ngrams.LIMIT`), and they differ from each other


def split(text: str) -> tuple[str, ...]:
    """Tokens of a text for ROUGE: split at every single blank."""
    return tuple(text.split(" "))


class TokenRouge:
    """ROUGE-L of tokens (words or ids) against given references. Raises BenchError for a clip without references."""

    def __init__(self, references: Mapping[str, Sequence[Tokens]]) -> None:
        self.table = ClipTable(references)

    def score(self, hypotheses: Mapping[str, Tokens]) -> tuple[float, dict[str, float]]:
        """(mean over the given clips, score per clip)."""
        scores = self.score_many(list(hypotheses), list(hypotheses.values()))
        return mean(scores), dict(zip(hypotheses, scores.tolist(), strict=True))

    def score_many(self, clips: Sequence[str], hypotheses: Sequence[Tokens]) -> Floats:
        """Score of every hypothesis against the references of the clip beside it; a clip may come several times. Shape [H]."""
        table, clip = self.table, self.table.numbers(clips)
        sentences = table.lexicon.look_up(hypotheses)
        hypothesis, reference = ranges(table.first[clip], table.sizes[clip])
        common = common_subsequence(sentences, hypothesis, table.sentences, reference)
        recall = _share(common, table.sentences.lengths[reference])
        precision = _share(common, sentences.lengths[hypothesis])
        starts = offsets(table.sizes[clip])[:-1]
        if not len(starts):
            return np.zeros(0)
        return combine(np.maximum.reduceat(precision, starts), np.maximum.reduceat(recall, starts))


def combine(precision: Floats, recall: Floats) -> Floats:
    """F measure with beta 1.2; 0 where nothing is common."""
    below = recall + BETA**2 * precision
    return np.divide((1 + BETA**2) * precision * recall, below, out=np.zeros(len(below)), where=below != 0)


def _share(common: Ints, lengths: Ints) -> Floats:
    return np.divide(common, lengths, out=np.zeros(len(common)), where=lengths != 0)


def leave_one_out(table: ClipTable) -> Floats:
    """ROUGE-L of every reference against the others of its clip. Shape [R]."""
    # Every unordered pair of captions of a clip once: the subsequence is symmetric.
    rows = np.arange(len(table.clip))
    left, right = ranges(rows + 1, table.first[table.clip + 1] - rows - 1)
    common = common_subsequence(table.sentences, left, table.sentences, right)
    lengths = table.sentences.lengths
    precision, recall = np.zeros(len(rows)), np.zeros(len(rows))
    for self_, other in ((left, right), (right, left)):
        np.maximum.at(precision, self_, _share(common, lengths[self_]))
        np.maximum.at(recall, self_, _share(common, lengths[other]))
    return combine(precision, recall)


def common_subsequence(a: Sentences, rows_a: Ints, b: Sentences, rows_b: Ints) -> Ints:
    """Length of the longest common subsequence of sentence `rows_a[p]` of `a` and `rows_b[p]` of `b`. Shape [pairs]."""
    swap = a.lengths[rows_a] > b.lengths[rows_b]
    # One array of ids for both, so that the shorter caption of a pair can come from either side.
    ids = np.concatenate([a.ids, b.ids]).astype(np.uint16)
    start_a, start_b = a.starts[rows_a], len(a.ids) + b.starts[rows_b]
    length_a, length_b = a.lengths[rows_a], b.lengths[rows_b]
    short, short_length = np.where(swap, start_b, start_a), np.where(swap, length_b, length_a)
    long, long_length = np.where(swap, start_a, start_b), np.where(swap, length_a, length_b)
    result = np.zeros(len(rows_a), np.int64)
    # Pairs of like lengths together, so that a chunk is as narrow as its members.
    by_length = np.lexsort((short_length, long_length))
    for at in range(0, len(by_length), CHUNK):
        chunk = by_length[at : at + CHUNK]
        fits = short_length[chunk] <= WORD
        quick = chunk[fits]
        result[quick] = _bit_parallel(ids, short[quick], short_length[quick], long[quick], long_length[quick])
        for pair in chunk[~fits]:
            x = ids[short[pair] : short[pair] + short_length[pair]]
            y = ids[long[pair] : long[pair] + long_length[pair]]
            result[pair] = _row_by_row(x, y)
    return result


def _bit_parallel(ids: Ids, short: Ints, short_length: Ints, long: Ints, long_length: Ints) -> Ints:
    """Subsequences of pairs whose shorter side has at most 64 words, given as runs of `ids`. Shape [pairs]."""
    if not len(short) or not short_length.max():
        return np.zeros(len(short), np.int64)
    words = _rows(ids, short, short_length, padding=PADDING[0])
    others = _rows(ids, long, long_length, padding=PADDING[1])
    state = np.full(len(short), np.iinfo(np.uint64).max, np.uint64)
    octets = np.zeros((len(short), 8), np.uint8)
    for column in np.ascontiguousarray(others.T):
        bits = np.packbits(words == column[:, None], axis=1, bitorder="little")
        octets[:, : bits.shape[1]] = bits
        same = octets.view("<u8")[:, 0]
        hit = state & same
        state = (state + hit) | (state - hit)  # a zero bit per word of the subsequence; overflow is meant
    return np.asarray(np.unpackbits((~state).view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1, dtype=np.int64))


def _rows(ids: Ids, start: Ints, length: Ints, padding: int) -> Ids:
    """Runs of `ids` as the rows of a matrix, filled up with `padding`."""
    column = np.arange(length.max())
    inside = column < length[:, None]
    return np.where(inside, ids[np.where(inside, start[:, None] + column, 0)], np.uint16(padding))


def _row_by_row(x: Ids, y: Ids) -> int:
    """Subsequence of two sentences of any length, by the textbook table kept one row at a time."""
    row = np.zeros(len(x) + 1, np.int64)
    for word in y:
        taken = row[:-1] + (x == word)
        row[1:] = np.maximum.accumulate(np.maximum(row[1:], taken))
    return int(row[-1])


def _read(references: References) -> Count:
    rouge = TokenRouge({clip: [split(line) for line in lines] for clip, lines in references.lines.items()})
    return lambda ids, lines: rouge.score_many(ids, [split(line) for line in lines])


COUNTING = Counting(_read)
