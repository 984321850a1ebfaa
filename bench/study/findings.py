"""What the pairs of all studies came to beside what their papers claim: for the terminal, and as data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench import BenchError
from bench.declare.registry import MethodEntry
from bench.errors import unknown
from bench.evaluation.metrics import RANKED_BY, SHOWN
from bench.evaluation.resampling import holm
from bench.evaluation.sequential import Decision
from bench.home import Home
from bench.pages.document import NOTHING
from bench.plan.cells import Cell, requested
from bench.plan.request import Running
from bench.records.schema import Record
from bench.records.store import BadRecord
from bench.reports.published import Row, Table, load_papers
from bench.study import answers
from bench.study.declaration import Pair, Study, check_differences, chosen, requests, studies

SHORT = SHOWN[RANKED_BY]


@dataclass(frozen=True)
class Found:
    """One pair of one study with its answer, Holm's p over the study, and the printed gain by metric."""

    study: Study
    name: str
    pair: Pair
    answer: answers.Answer
    p_holm: float | None

    @property
    def claimed_in(self) -> str | None:
        return None if self.pair.claimed is None else f"{self.pair.paper} {_printed(self.study, self.name)[0].printed}"

    @property
    def claimed_on(self) -> str | None:
        """The table of a claim and the data set that it is of: `glrg table1 on msrvtt`."""
        return (
            None if self.pair.claimed is None else f"{self.claimed_in} on {_printed(self.study, self.name)[0].dataset}"
        )

    @property
    def claimed_over(self) -> str | None:
        """What a claim is the difference of: `SA-LSTM over RecNet on msvd`, by the names that the paper's table has."""
        if self.pair.claimed is None:
            return None
        table, idea, control = _printed(self.study, self.name)
        return f"{idea.system} over {control.system} on {table.dataset}"

    @property
    def counts(self) -> bool:
        """Whether it has come to its end and asks something."""
        return self.answer.decision is not None and self.answer.decision.ended and not self.pair.withdrawn

    @property
    def lost_with_overlap(self) -> bool:
        """Whether the wider interval, for training sets that overlap, would not say what the pair came to."""
        decision, wider = self.answer.decision, self.answer.overlap
        if decision is None or wider is None:
            return False
        if decision.outcome == "gains less":
            return not wider[0] <= 0 <= wider[1] < self.study.margin
        return decision.outcome in ("helps", "hurts") and wider[0] <= 0 <= wider[1]

    def claimed(self, metric: str) -> float | None:
        """What the paper prints as the gain in `metric` over its own control."""
        if self.pair.claimed is None:
            return None
        idea, control = (row.metrics for row in _printed(self.study, self.name)[1:])
        return round(idea[metric] - control[metric], 4) if metric in idea and metric in control else None

    @property
    def holds(self) -> str:
        """Where the claim in the metric that decides lies: `inside` the interval, `above` it or `below`; empty without one."""
        claim, decision = self.claimed(RANKED_BY), self.answer.decision
        if claim is None or decision is None:
            return ""
        return "above" if claim > decision.high else "below" if claim < decision.low else "inside"


def _printed(study: Study, name: str) -> tuple[Table, Row, Row]:
    """The table of a pair's claim, the row of the idea, and that of the control. Raises BenchError for what is not printed."""
    pair = study.pairs[name]
    assert pair.claimed is not None
    where = f"study {study.name}, {name}"
    papers = {one.paper.name: one for one in load_papers()}
    if pair.paper not in papers:
        raise unknown("paper", pair.paper, papers, where)
    tables = {one.id: one for one in papers[pair.paper].tables}
    if pair.claimed.table not in tables:
        raise unknown("table", pair.claimed.table, tables, f"{where}: paper {pair.paper}")
    table, numbers = tables[pair.claimed.table], (pair.claimed.idea, pair.claimed.control)
    if max(numbers) > len(table.rows):
        raise BenchError(
            f"{where}: {table.id} of {pair.paper} has rows 1 to {len(table.rows)}, and none {max(numbers)}"
        )
    idea, control = (table.rows[number - 1] for number in numbers)
    return table, idea, control


def _named_streams(cell: Cell) -> Cell:
    """A cell whose streams count as read though they are not in the cache yet."""
    return Cell({**cell.config, "streams": {name: mark or name for name, mark in cell.config["streams"].items()}})


def check(
    study: Study, base: Running, home: Home, entries: dict[str, MethodEntry], only: Sequence[str] | None = None
) -> None:
    """Raise BenchError for a declaration, or the pairs `only` of it, that could not be run to its end: a paper or claim that is
    not printed, a method, setting or split rule that there is not, sides that differ otherwise than declared."""
    study.seeds()
    papers = [
        *dict.fromkeys((*(one.paper.name for one in load_papers()), *entries))
    ]  # a method of one's own is its own paper
    for name, pair in study.pairs.items():
        if only is not None and name not in only:
            continue
        if pair.paper not in papers:
            raise unknown("paper", pair.paper, papers, f"study {study.name}, {name}")
        if pair.claimed is not None:
            _printed(study, name)
        sides = [
            map(_named_streams, requested(spec, home, entries)) for spec in requests(study, name, base, entries, 1)
        ]
        for idea, control in zip(*sides, strict=True):
            check_differences(study, name, idea, control)


def found(home: Home) -> list[Found]:
    """The pairs of all studies that have begun here, in the order of their declarations."""
    pairs = []
    for study, _ in studies().values():
        asked = answers.of_study(home, study)
        if asked is None:
            continue
        its = {name: answers.answer(study, asked.pairs.get(name, answers.Keys()), home) for name in study.pairs}
        # All that are declared count from the first on: a p that stands alone for now is no smaller for it.
        p = holm([one.decision.p if one.decision else 1.0 for one in its.values()]).tolist()
        pairs += [
            Found(study, name, study.pairs[name], one, corrected if one.decision else None)
            for (name, one), corrected in zip(its.items(), p, strict=True)
        ]
    return pairs


def progress(
    study: Study, home: Home, only: Sequence[str] | None, bad: list[BadRecord]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The pairs of a study, or those that were asked for, as lines for a terminal: head and rows. Records that do not hold are
    appended to `bad`."""
    asked = answers.of_study(home, study)
    rows: list[tuple[str, ...]] = []
    for name in chosen(study, only):
        one = answers.answer(study, asked.pairs.get(name, answers.Keys()) if asked else answers.Keys(), home, bad)
        done = len(one.cells)
        rows.append((name, standing(study, study.pairs[name], one), shown_interval(one.decision), str(done or NOTHING)))
    return ("pair", "outcome", f"{SHORT} gain", "cells"), rows


def overview(home: Home) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """All declared studies as lines for a terminal: of how many pairs each has an answer, and the cells that this took."""
    rows: list[tuple[str, ...]] = []
    for name, (study, _) in studies().items():
        asked = answers.of_study(home, study)
        its = (
            {pair: answers.answer(study, asked.pairs.get(pair, answers.Keys()), home) for pair in study.pairs}
            if asked
            else {}
        )
        cells = {record.key for one in its.values() for record in one.cells}
        wanted = [pair for pair, one in study.pairs.items() if not one.withdrawn]
        decisions = [its[pair].decision for pair in wanted if pair in its]
        ended = sum(one is not None and one.ended for one in decisions)
        state = "given up" if study.given_up else "ended" if ended == len(wanted) else "begun" if cells else ""
        rows.append((name, study.corpus, f"{ended} of {len(wanted)}", f"{len(cells) or NOTHING}", state))
    return ("study", "data set", "pairs ended", "cells", "state"), rows


def outcome(study: Study, answer: answers.Answer) -> str:
    """What a pair came to, in a word or two."""
    decision = answer.decision
    if decision is None:
        return "given up" if study.given_up else "begun" if answer.idea or answer.control else "not run yet"
    said = f"gains less than {study.margin:g}" if decision.outcome == "gains less" else decision.outcome
    return said if decision.ended or study.given_up else f"{said} so far"


def standing(study: Study, pair: Pair, answer: answers.Answer) -> str:
    """The outcome of a pair, or that it was withdrawn."""
    return "withdrawn" if pair.withdrawn else outcome(study, answer)


def shown_interval(decision: Decision | None) -> str:
    """`+2.09 (+0.39 .. +3.79)`."""
    return NOTHING if decision is None else f"{decision.mean:+.2f} ({decision.low:+.2f} .. {decision.high:+.2f})"


def facts(one: Found) -> Iterator[dict[str, Any]]:
    """A pair as JSON, one object for each metric; CIDEr's alone has an outcome, for the others decide nothing. What is not known
    before its cells have run is null."""
    decision = one.answer.decision
    idea, control = one.answer.counted if decision else ((), ())
    record = idea[0] if idea else None
    for metric in SHOWN:
        found = one.answer.of(metric)
        ranked = metric == RANKED_BY
        yield {
            "idea": one.name,
            "question": one.pair.reworded or one.pair.question,
            "study": one.study.name,
            "paper": one.pair.paper,
            "corpus": one.study.corpus,
            "metric": metric,
            "claimed": one.claimed(metric),
            "claimed_in": one.claimed_in,
            "claimed_over": one.claimed_over,
            "unclaimed": one.pair.unclaimed
            or (None if one.claimed(metric) is not None else "not printed in this metric"),
            "difference": found and round(found.mean, 4),
            "low": found and round(found.low, 4),
            "high": found and round(found.high, 4),
            "outcome": outcome(one.study, one.answer) if ranked else None,
            "ended": decision is not None and decision.ended,
            "p": round(decision.p, 6) if decision and ranked else None,
            "p_holm": None if one.p_holm is None or not ranked else round(one.p_holm, 6),
            "overlap": [round(value, 4) for value in one.answer.overlap] if one.answer.overlap and ranked else None,
            "films": [round(value, 4) for value in one.answer.films] if one.answer.films and ranked else None,
            "margin": one.study.margin,
            "seeds": None if one.study.folds or decision is None else decision.seeds,
            "folds": one.study.folds,
            "clips": record and record_clips(record, metric),
            "protocol": record and record.config["protocol"],
            "splits": one.study.splits,
            "split": record and record.split,
            "streams": one.pair.streams,
            "signature": record and record.signatures[record.split][metric],
            "control": one.pair.control.label,
            "differs": one.pair.differs,
            "keys": {"idea": [one.key for one in idea], "control": [one.key for one in control]},
            "capped": sorted(record.key for record in one.answer.cells if record.capped),
            "precision": one.study.precision,
            "given_up": one.study.given_up or None,
            "withdrawn": one.pair.withdrawn or None,
        }


def record_clips(record: Record, metric: str = RANKED_BY) -> int:
    """On how many clips a record reports."""
    fields = record.signatures[record.split][metric].split("|")
    return int(next(field.removeprefix("n:") for field in fields if field.startswith("n:")))
