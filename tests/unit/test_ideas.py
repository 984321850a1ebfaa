"""Ideas against their controls: the declared study, its page, its command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from record_factory import put, record
from scipy import stats

from bench.cli.main import main
from bench.declare.registry import dataset, find_methods
from bench.home import Home
from bench.pages.markdown import to_markdown
from bench.plan.request import RunSpec
from bench.reports.study import study
from bench.reproduction import answers as asked
from bench.reproduction import ideas, pages
from bench.reproduction.ideas import Compared, Side, interval, outcome

IDEA, CONTROL = [30.0, 31.0, 29.5, 33.0, 30.5], [28.0, 30.0, 29.0, 29.0, 28.5]


def side(method: str, scores: list[float], label: str = "") -> Side:
    records = tuple(record(method=method, seed=n, made={"cider": score}) for n, score in enumerate(scores))
    return Side(label or f"{method}:xe", records, 5)


def pair(name: str, idea: Side, control: Side) -> Compared:
    [declared] = list(study().pairs.values())[:1]
    return Compared(name, declared, idea, control)


def page(*compared: Compared, missing: tuple[str, ...] = ()) -> str:
    """The page as text, columns as wide as they need to be."""
    return re.sub(" +", " ", to_markdown(ideas.study_page(study(), compared, missing, Home(Path.cwd()))))


def test_interval_is_students_t_over_paired_differences() -> None:
    mean, reach = interval([one - other for one, other in zip(IDEA, CONTROL, strict=True)])
    expected = stats.ttest_rel(IDEA, CONTROL).confidence_interval(0.95)
    assert mean - reach == pytest.approx(expected.low, abs=2e-3)
    assert mean + reach == pytest.approx(expected.high, abs=2e-3)


def test_pairs_are_made_by_seed_and_not_by_place() -> None:
    """What the seeds of both sides share leaves the interval; one record missing on one side leaves one pair out."""
    control = [20.0, 25.0, 30.0, 35.0, 40.0]
    idea = [score + gain for score, gain in zip(control, (1.0, 1.2, 0.8, 1.1, 0.9), strict=True)]
    shuffled = Side("salstm:xe", tuple(reversed(side("salstm", idea).records)), 5)
    text = page(pair("one", shuffled, side("s2vt", control)))
    assert "| +1.00 (+0.80 .. +1.20) |" in text
    four = Side("s2vt:xe", side("s2vt", control).records[1:], 5)
    text = page(pair("one", shuffled, four))
    assert "| +1.00 (+0.71 .. +1.29) |" in text


@pytest.mark.parametrize(
    ("mean", "reach", "said"),
    [(2.0, 1.0, "helps"), (-2.0, 1.0, "hurts"), (1.0, 1.0, "undecided"), (-0.1, 3, "undecided")],
)
def test_outcome(mean: float, reach: float, said: str) -> None:
    assert outcome(mean, reach) == said


def test_page_says_the_difference_whichever_way_it_falls() -> None:
    good = pair("one", side("salstm", IDEA), side("s2vt", CONTROL))
    bad = pair("two", side("mplstm", CONTROL), side("glrg", IDEA))
    text = page(good, bad)
    assert "| 30.80 ± 1.35 (5) |" in text
    assert "+1.90 (" in text
    assert "-1.90 (" in text
    assert text.count("| helps") == text.count("| hurts") == 1


def test_page_shows_failed_and_missing_cells() -> None:
    failed = record("failed", method="salstm", seed=4)
    broken = Side("salstm:xe", (*side("salstm", IDEA[:4]).records, failed), 5)
    text = page(pair("one", broken, side("s2vt", CONTROL[:1])), missing=("regions",))
    assert "30.00 / 31.00 / 29.50 / 33.00" in text, "an incomplete row shows its scores one by one"
    assert "one, idea: FAILED seed 4: boom" in text
    assert "one, control: 4 of 5 seeds not run" in text
    assert "regions: not run" in text
    assert "too few seeds" in text


def test_every_number_of_the_page_is_in_a_record(tmp_path: Path) -> None:
    """Through files, as the command leaves them: records, the note of what answers a pair, the page."""
    home = Home(tmp_path)
    sides = {"idea": side("salstm", IDEA), "control": side("s2vt", CONTROL)}
    for one in sides.values():
        put(home.results, *one.records)
    keys = {name: [f"toy/{r.config['method']}/{r.key}" for r in one.records] for name, one in sides.items()}
    section = asked.Section(small=False, dataset="ideas", protocol="standard", cells=keys)
    asked.note(home, "ideas/reconstructor", "study", section)
    written = pages.write(home)
    path = home.leaderboards / "reproductions" / "ideas.md"
    assert {path, path.with_suffix(".html")} <= set(written)
    text = path.read_text(encoding="utf-8")
    assert "30.80 ± 1.35 (5)" in text
    for one in sides.values():
        for item in one.records:
            link = f"../../results/toy/{item.config['method']}/{item.key}/record.json"
            assert link in text
            assert (path.parent / link).resolve().is_file()
    assert pages.write(home) == []


def test_the_study_runs_what_the_cards_have() -> None:
    """Every arm is a variant with settings that its card knows, on streams that the corpus has; sides differ in one thing."""
    declared, entries = study(), find_methods()
    streams = dataset(declared.dataset).streams
    for name, pair in declared.pairs.items():
        specs = dict(ideas.requests(declared, name, RunSpec(methods=["salstm"], dataset="ideas"), entries))
        assert set(pair.streams) <= set(streams)
        for spec in specs.values():
            method, _, variant = spec.methods[0].partition(":")
            card = entries[method].card
            assert card is not None
            assert variant in card.variants, f"{name}: {spec.methods[0]}"
            assert spec.seeds == [0, 1, 2, 3, 4]
        assert json.dumps(specs["idea"].model_dump()) != json.dumps(specs["control"].model_dump())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ideas/regiosn"], 'did you mean "ideas/regions"?'),
        (["ideas", "seeds=[1]"], "seeds of ideas was fixed before the first comparison"),
        (["ideas/regions", "dataset=shapes"], "leave dataset= out"),
    ],
)
def test_what_cannot_be_asked(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *words]) == 2
    assert said in capsys.readouterr().err
