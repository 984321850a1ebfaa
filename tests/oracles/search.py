"""Decoding by the book: every caption there is, and a beam in plain lists."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oracles.arithmetic import EOS

NextLogP = Callable[[tuple[int, ...]], Sequence[float]]
"""log P of every next word after a prefix w_1 .. w_i (without BOS)."""

Hypothesis = tuple[tuple[int, ...], float]
"""Words, EOS among them if it is finished, and the sum of their log P."""


def rank(hypothesis: Hypothesis, rule: str) -> float:
    """What hypotheses are compared by; the length counts EOS (Wu et al. 2016 eq. 14 with alpha 0.6 for `gnmt`)."""
    words, score = hypothesis
    return score / {"none": 1.0, "mean": float(len(words)), "gnmt": ((5 + len(words)) / 6) ** 0.6}[rule]


def exhaustive(next_log_p: NextLogP, words: Sequence[int], max_words: int, rule: str) -> list[Hypothesis]:
    """All captions of at most `max_words` of `words`, each with its EOS, best first."""
    found: list[Hypothesis] = []

    def grow(prefix: tuple[int, ...], score: float) -> None:
        log_p = next_log_p(prefix)
        found.append(((*prefix, EOS), score + log_p[EOS]))
        if len(prefix) < max_words:
            for word in words:
                grow((*prefix, word), score + log_p[word])

    grow((), 0.0)
    return sorted(found, key=lambda one: -rank(one, rule))


def beam(next_log_p: NextLogP, words: Sequence[int], max_words: int, wide: int, rule: str) -> list[Hypothesis]:
    """Beam search: finished hypotheses keep their place and score; after `max_words` words only EOS can follow."""
    beams: list[Hypothesis] = [((), 0.0)]
    for step in range(max_words + 1):
        grown: list[Hypothesis] = []
        for prefix, score in beams:
            if prefix and prefix[-1] == EOS:
                grown.append((prefix, score))
                continue
            log_p = next_log_p(prefix)
            for word in [EOS] if step == max_words else [EOS, *words]:
                grown.append(((*prefix, word), score + log_p[word]))
        beams = sorted(grown, key=lambda one: -rank(one, rule))[:wide]
    return beams


def greedy(next_log_p: NextLogP, words: Sequence[int], max_words: int) -> Hypothesis:
    """The best word at every step."""
    prefix: tuple[int, ...] = ()
    total = 0.0
    while True:
        log_p = next_log_p(prefix)
        word = EOS if len(prefix) == max_words else max([EOS, *words], key=lambda one: log_p[one])
        prefix, total = (*prefix, word), total + log_p[word]
        if word == EOS:
            return prefix, total
