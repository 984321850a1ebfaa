"""Scores of captions as tokens, on the papers' scale: the metrics that a validation needs no Java for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.evaluation.bleu import TokenBleu
from bench.evaluation.cider import TokenCider
from bench.evaluation.ngrams import Tokens
from bench.evaluation.rouge import TokenRouge

References = Mapping[str, Sequence[Tokens]]
Score = Callable[[Mapping[str, Tokens]], float]
"""A caption for each clip -> the score of all of them."""


def _cider(references: References) -> Score:
    scorer = TokenCider(references)
    return lambda captions: 100.0 * float(scorer.score(captions)[0])


def _rouge(references: References) -> Score:
    scorer = TokenRouge(references)
    return lambda captions: 100.0 * float(scorer.score(captions)[0])


def _bleu(order: int) -> Callable[[References], Score]:
    def made(references: References) -> Score:
        scorer = TokenBleu(references)
        return lambda captions: 100.0 * float(scorer.score(captions)[0][order - 1])

    return made


TOKEN_SCORES: dict[str, Callable[[References], Score]] = {
    **{f"bleu{order}": _bleu(order) for order in range(1, 5)},
    "rouge_l": _rouge,
    "cider": _cider,
}
