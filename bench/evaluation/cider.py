"""CIDEr-D (Vedantam, Zitnick, Parikh 2015, arXiv 1411.5726), equal to pycocoevalcap's `Cider`: range 0 to 10.

Clipped TF-IDF cosine over one- to four-grams, a Gaussian of the length difference (sigma 6, lengths in bigrams), averaged
over orders and references. Document frequencies count the clips whose references hold an n-gram.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.evaluation.ngrams import ORDERS, ClipTable, Flags, Floats, Grams, Ints, Tokens, mean, offsets, ranges
from bench.evaluation.statistics import Count, Counting, References

SIGMA = 6.0
SCALE = 10.0


class TokenCider:
    """CIDEr-D of tokens (words or ids) against given references, whose document frequencies it counts once.

    The references keep their frequencies whatever is scored, so a reward does not depend on its batch. End marks count if
    they are among the tokens, on both sides. Raises BenchError for a clip without references, here or later.
    """

    def __init__(self, references: Mapping[str, Sequence[Tokens]] | ClipTable) -> None:
        self.table = references if isinstance(references, ClipTable) else ClipTable(references)
        self._weights = weigh(self.table, self.table.document_frequency)

    def score(self, hypotheses: Mapping[str, Tokens]) -> tuple[float, dict[str, float]]:
        """(mean over the given clips, score per clip), 0 to 10. Raises BenchError when nothing is given."""
        scores = self.score_many(list(hypotheses), list(hypotheses.values()))
        return mean(scores), dict(zip(hypotheses, scores.tolist(), strict=True))

    def score_many(self, clips: Sequence[str], hypotheses: Sequence[Tokens]) -> Floats:
        """Score of every hypothesis against the references of the clip beside it; a clip may come several times. Shape [H]."""
        clip = self.table.numbers(clips)
        sentences, grams = self.table.read(hypotheses)
        return score_grams(self.table, self._weights, grams, sentences.lengths, clip)


@dataclass(frozen=True)
class Weights:
    """TF-IDF of a table's references: `idf` [G + 1] (last: of any other n-gram), `weight` [P], `norm` [R, 4]."""

    idf: Floats
    weight: Floats
    norm: Floats


def weigh(table: ClipTable, document_frequency: Ints) -> Weights:
    """TF-IDF weights of the references under `document_frequency` [G]."""
    idf = np.log(float(len(table.clips))) - np.log(np.maximum(1.0, np.append(document_frequency, 0)))
    grams = table.grams
    weight = grams.count * idf[grams.gram]
    return Weights(idf, weight, _norms(grams, weight, len(table.sentences)))


def _norms(grams: Grams, weight: Floats, sentences: int) -> Floats:
    """Euclidean length of every sentence's TF-IDF vector, per order. Shape [sentences, 4]."""
    square = np.bincount(grams.owner * ORDERS + grams.order, weight**2, minlength=sentences * ORDERS)
    return np.sqrt(square).reshape(-1, ORDERS)


def score_grams(
    table: ClipTable, weights: Weights, grams: Grams, lengths: Ints, clip: Ints, left_out: Ints | None = None
) -> Floats:
    """CIDEr-D of hypotheses given as `grams` with `lengths` [H] in words, of the clips `clip` [H]. Shape [H].

    `left_out` [H] names for each hypothesis a reference of its clip that is not counted (the hypothesis itself).
    """
    weight = grams.count * weights.idf[grams.gram]  # gram -1, unseen, reads the last
    norm = _norms(grams, weight, len(lengths))

    # One row of `cosine` per (hypothesis, reference of its clip).
    hypothesis, reference = ranges(table.first[clip], table.sizes[clip])
    row = offsets(table.sizes[clip])[:-1] - table.first[clip]
    entry, position = table.match(grams, clip)
    posting = table.by_clip.posting[position]
    other = weights.weight[posting]
    owner = grams.owner[entry]
    at = (row[owner] + table.grams.owner[posting]) * ORDERS + grams.order[entry]
    product = np.minimum(weight[entry], other) * other
    cosine = np.bincount(at, product, minlength=len(hypothesis) * ORDERS).astype(float).reshape(-1, ORDERS)

    scale = norm[hypothesis] * weights.norm[reference]
    np.divide(cosine, scale, out=cosine, where=scale != 0)
    delta = _bigrams(lengths[hypothesis]) - _bigrams(table.sentences.lengths[reference])
    similarity = cosine.mean(axis=1) * np.exp(-(delta.astype(np.float64) ** 2) / (2 * SIGMA**2))
    counted = table.sizes[clip]
    if left_out is not None:
        similarity[row + left_out] = 0.0
        counted = counted - 1
    return np.bincount(hypothesis, similarity, minlength=len(lengths)) / counted * SCALE


def _bigrams(lengths: Ints) -> Ints:
    return np.maximum(lengths - 1, 0)


def leave_one_out(table: ClipTable) -> Floats:
    """CIDEr-D of every reference against the others of its clip. Shape [R].

    Column i takes the i-th caption out of every clip that has one and counts document frequencies over what is left; the
    number of clips stays that of the whole table. This is the rule by which GL-RG's published caption weights were made.
    """
    column = np.arange(len(table.clip)) - table.first[table.clip]
    scores = np.zeros(len(column))
    alone = _only_holder(table)
    for number in range(int(table.sizes.max())):
        rows = np.flatnonzero(column == number)
        gone = table.grams.gram[alone & (column[table.grams.owner] == number)]
        frequency = table.document_frequency - np.bincount(gone, minlength=len(table.keys))
        grams = _take(table, rows)
        scores[rows] = score_grams(
            table, weigh(table, frequency), grams, table.sentences.lengths[rows], table.clip[rows], left_out=rows
        )
    return scores


def _only_holder(table: ClipTable) -> Flags:
    """Whether a posting's reference is the only one of its clip with that n-gram. Shape [P], bool."""
    groups = table.by_clip
    sizes = np.diff(groups.start)
    alone = np.zeros(len(groups.posting), bool)
    alone[groups.posting[groups.start[:-1][sizes == 1]]] = True
    return alone


def _take(table: ClipTable, rows: Ints) -> Grams:
    """The postings of the references `rows` (ascending) as grams whose owners count from 0."""
    new = np.full(len(table.sentences), -1)
    new[rows] = np.arange(len(rows))
    grams = table.grams
    keep = new[grams.owner] >= 0
    return Grams(new[grams.owner[keep]], grams.gram[keep], grams.order[keep], grams.count[keep])


def _read(references: References) -> Count:
    cider = TokenCider(references.table)
    return lambda ids, lines: cider.score_many(ids, [tuple(line.split()) for line in lines])


COUNTING = Counting(_read, joint=True)
