"""Scores as tables write them, and what our scores say of a printed one."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev

METRICS = {"bleu4": "B@4", "meteor": "M", "rouge_l": "R-L", "cider": "CIDEr"}
NOTHING = "—"


def spread(values: Sequence[float], whole: bool) -> str:
    """`24.10 ± 0.61 (3)` of a whole row; the scores one by one of a row with failed or unscored cells; or a dash."""
    if not values:
        return NOTHING
    if not whole:
        return " / ".join(f"{value:.2f}" for value in values)
    if len(values) == 1:
        return f"{values[0]:.2f} (1)"
    return f"{fmean(values):.2f} ± {stdev(values):.2f} ({len(values)})"


def verdict(values: Sequence[float], printed: float) -> str:
    """`within`, `above` or `below`: where our seeds lie by the printed number. Needs two values or more.

    The printed number is taken for one more run of the same kind: within is mean ± t sd sqrt(1 + 1/n), 95 %.
    """
    from bench.evaluation.statistics import student  # imported late, as numpy is: lists of runs do without

    count = len(values)
    reach = student(count - 1) * stdev(values) * sqrt(1 + 1 / count)
    if abs(fmean(values) - printed) <= reach:
        return "within"
    return "above" if fmean(values) > printed else "below"
