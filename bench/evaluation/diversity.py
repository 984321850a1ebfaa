"""How varied captions are: distinct n-grams (Li et al., NAACL 2016, section 5.3) and the number of different words."""

from __future__ import annotations

from bench.evaluation.further import Captioned, Measured
from bench.evaluation.metrics import NUMPY, PTB


def _distinct(given: Captioned, n: int) -> Measured:
    """Different n-grams of all captions together over their number, in percent."""
    tokens = given.tokenize(list(given.captions.values()))
    grams = [tuple(line[at : at + n]) for line in tokens for at in range(len(line) - n + 1)]
    return Measured(100.0 * len(set(grams)) / max(len(grams), 1), _signature(f"distinct-{n}", given))


def distinct1(given: Captioned) -> Measured:
    """Different words of all captions over their number, in percent."""
    return _distinct(given, 1)


def distinct2(given: Captioned) -> Measured:
    """Different pairs of words of all captions over their number, in percent."""
    return _distinct(given, 2)


def vocabulary(given: Captioned) -> Measured:
    """How many different words the captions hold."""
    tokens = given.tokenize(list(given.captions.values()))
    return Measured(float(len({word for line in tokens for word in line})), _signature("vocabulary", given))


def _signature(name: str, given: Captioned) -> str:
    return f"{name}|impl:{NUMPY}|tok:{PTB}|n:{len(given.captions)}"
