"""When a comparison may stop: levels as they are printed, the rule by hand, and how often it says what is not so."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from bench.evaluation.sequential import _crossing, decide, decide_once, false_decisions, levels, outcome

LOOKS = (5, 8, 12, 16)
MARGIN, WIDTH = 2.0, 1.5
COUNT = 50_000
PAGE = Path(__file__).resolve().parents[2] / "docs" / "studies.md"


def test_levels_of_equal_looks_are_those_that_are_printed() -> None:
    """Jennison and Turnbull 2000, table 2.3: C_B(K, 0.05) is 1.960, 1.977, 2.004, 2.024, 2.040."""
    for looks, constant in ((1, 1.960), (2, 1.977), (3, 2.004), (4, 2.024), (5, 2.040)):
        found = levels(tuple(range(1, looks + 1)))
        assert stats.norm.isf(found[-1] / 2) == pytest.approx(constant, abs=5e-4)
        assert stats.norm.isf(found[0] / 2) == pytest.approx(constant * looks**0.5, abs=5e-3)


def test_levels_of_the_studies_looks_are_those_of_simulated_walks() -> None:
    found = levels(LOOKS)
    steps = np.random.default_rng(0).normal(size=(200_000, 16)).cumsum(axis=1)
    bounds = stats.norm.isf(np.array(found) / 2)
    crossed = np.zeros(len(steps), bool)
    for seeds, bound in zip(LOOKS, bounds, strict=True):
        crossed |= np.abs(steps[:, seeds - 1]) / seeds**0.5 > bound
    assert crossed.mean() == pytest.approx(0.05, abs=0.0015)
    assert list(found) == sorted(found)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.1, 9, "helps"), (-9, -0.1, "hurts"), (-1, 1.9, "gains less"), (-1, 2.1, "undecided"), (0, 5, "undecided")],
)
def test_outcomes(low: float, high: float, said: str) -> None:
    assert outcome(low, high, MARGIN) == said


def test_a_comparison_by_hand() -> None:
    values = [3.9, 4.1, 4.0, 4.2, 3.8, 4.5, 3.5, 5.0, 4.0]
    found = decide(values, LOOKS, MARGIN, WIDTH)
    assert found is not None and found.seeds == 5 and found.outcome == "helps" and found.ended
    reach = stats.t.isf(levels(LOOKS)[0] / 2, 4) * np.std(values[:5], ddof=1) / 5**0.5
    assert (found.low, found.high) == pytest.approx((4 - reach, 4 + reach))
    assert decide(values[:4], LOOKS, MARGIN, WIDTH) is None


def test_a_comparison_goes_on_until_it_is_decided_narrow_or_at_its_end() -> None:
    wide = [20.0, -19.0] * 8
    assert [decide(wide[:n], LOOKS, MARGIN, WIDTH).seeds for n in (5, 7, 8, 12, 16)] == [5, 5, 8, 12, 16]  # type: ignore[union-attr]
    assert [decide(wide[:n], LOOKS, MARGIN, WIDTH).ended for n in (5, 12, 16)] == [False, False, True]  # type: ignore[union-attr]
    narrow = [1.9, 2.3, 1.0, 3.0, 0.6] * 4  # neither zero nor the margin is outside at the first look
    found = decide(narrow, LOOKS, MARGIN, 9.0)
    assert found is not None and found.seeds == 5 and found.outcome == "undecided" and found.ended


def test_p_is_below_five_percent_where_the_rule_decides_for_a_difference() -> None:
    random = np.random.default_rng(1)
    seen = set()
    for _ in range(300):
        values = random.normal(0.9, 1.0, 16).tolist()
        for seeds in LOOKS:
            found = decide(values[:seeds], (5, 8, 12, 16), 0.0, 0.0)
            assert found is not None
            if found.seeds == seeds:
                assert (found.p < 0.05) == (found.outcome in ("helps", "hurts"))
                seen.add(found.outcome)
    assert seen >= {"helps", "undecided"}


def test_p_of_what_is_clear_is_tiny_and_never_below_zero() -> None:
    values = [6.1 + 0.01 * step for step in (-1, 1, -0.5, 0.5, -1, 1, 0, 0, 0.3, -0.3)]
    found = decide_once(values, MARGIN)
    assert 0 < found.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6)
    for bound, looks in ((12.0, (2, 100)), (20.0, (5, 8, 12, 16, 40, 80)), (8.0, (10,)), (6.9, LOOKS)):
        each = [math.erfc(bound / math.sqrt(2 * seeds / looks[-1])) for seeds in looks]
        assert 0 < each[-1] <= _crossing(bound, looks) <= sum(each)
    # Looks far apart: by independent walks, 2.2 at the end or 2.2 after a fiftieth of the way.
    walks = np.random.default_rng(3).normal(size=(400_000, 2)) * [0.02**0.5, 0.98**0.5]
    crossed = (abs(walks.cumsum(axis=1)) > 2.2).any(axis=1).mean()
    assert _crossing(2.2, (2, 100)) == pytest.approx(crossed, abs=4 * (crossed / 400_000) ** 0.5)


def test_one_look_is_a_t_test() -> None:
    values = [1.0, 2.5, -0.5, 3.0, 2.0, 0.5]
    found = decide_once(values, MARGIN)
    expected = stats.ttest_1samp(values, 0)
    low, high = expected.confidence_interval()
    assert (found.low, found.high, found.p) == pytest.approx((low, high, expected.pvalue), abs=1e-9)


def test_the_rule_decides_falsely_no_more_often_than_it_says() -> None:
    """50,000 simulated comparisons at several spreads, without a difference and with one of the margin; the page prints these."""
    printed = re.findall(
        r"^\| (0|2) \| ([\d.]+) \| ([\d.]+) % \| ([\d.]+) % \|$", PAGE.read_text("utf-8"), re.MULTILINE
    )
    assert len(printed) == 10
    for truth, spread, share, limit in printed:
        false = false_decisions(LOOKS, MARGIN, WIDTH, float(truth), float(spread), COUNT)
        upper = stats.beta.ppf(0.95, false + 1, COUNT - false)
        assert f"{100 * false / COUNT:.2f}" == share and f"{100 * upper:.2f}" == limit
        assert upper <= 0.053


def test_the_simulation_decides_as_the_rule() -> None:
    for truth in (0.0, MARGIN):
        random = np.random.default_rng([400, round(100 * truth), 200])
        differences = random.normal(truth, 2.0, (400, 16))
        false = 0
        for row in differences.tolist():
            found = decide(row, LOOKS, MARGIN, WIDTH)
            assert found is not None and found.ended
            false += found.outcome in (("helps", "hurts") if truth == 0 else ("hurts", "gains less"))
        assert false_decisions(LOOKS, MARGIN, WIDTH, truth, 2.0, 400) == false
