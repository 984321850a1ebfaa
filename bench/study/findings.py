"""What the pairs of all studies came to beside what their papers claim: for the terminal, and as data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.evaluation.metrics import RANKED_BY, SHOWN
from bench.evaluation.resampling import holm
from bench.evaluation.sequential import Decision
from bench.home import Home
from bench.pages.document import NOTHING
from bench.records.schema import Record
from bench.reports.published import load_papers
from bench.study import answers
from bench.study.declaration import Pair, Study, chosen, studies

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
        claimed = self.pair.claimed
        return None if claimed is None else f"{self.pair.paper} {_printed(self.pair)[0]}"

    def claimed(self, metric: str) -> float | None:
        """What the paper prints as the gain in `metric` over its own control."""
        if self.pair.claimed is None:
            return None
        _, idea, control = _printed(self.pair)
        return round(idea[metric] - control[metric], 4) if metric in idea and metric in control else None


def _printed(pair: Pair) -> tuple[str, dict[str, float], dict[str, float]]:
    """(table as printed, metrics of the idea, of the control)."""
    assert pair.claimed is not None
    (paper,) = [one for one in load_papers() if one.paper.name == pair.paper]
    (table,) = [one for one in paper.tables if one.id == pair.claimed.table]
    return table.printed, table.rows[pair.claimed.idea - 1].metrics, table.rows[pair.claimed.control - 1].metrics


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
    study: Study, home: Home, only: Sequence[str] | None = None
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The pairs of a study, or those that were asked for, as lines for a terminal: head and rows."""
    asked = answers.of_study(home, study)
    rows: list[tuple[str, ...]] = []
    for name in chosen(study, only):
        one = answers.answer(study, asked.pairs.get(name, answers.Keys()) if asked else answers.Keys(), home)
        done = len(one.cells)
        said = outcome(study, one.decision)
        rows.append((name, said, shown_interval(one.decision), str(done or NOTHING)))
    return ("pair", "outcome", f"{SHORT} gain", "cells"), rows


def overview(home: Home) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """All declared studies as lines for a terminal: of how many pairs each has an answer, and the cells that this took."""
    rows: list[tuple[str, ...]] = []
    for name, (study, _) in studies().items():
        asked = answers.of_study(home, study)
        its = (
            [answers.answer(study, asked.pairs.get(pair, answers.Keys()), home) for pair in study.pairs]
            if asked
            else []
        )
        ended = sum(one.decision is not None and one.decision.ended for one in its)
        cells = {record.key for one in its for record in one.cells}
        state = "given up" if study.given_up else "ended" if ended == len(study.pairs) else "begun" if cells else ""
        rows.append((name, study.corpus, f"{ended} of {len(study.pairs)}", f"{len(cells) or NOTHING}", state))
    return ("study", "data set", "pairs ended", "cells", "state"), rows


def outcome(study: Study, decision: Decision | None) -> str:
    """What a pair came to, in a word or two."""
    if decision is None:
        return "given up" if study.given_up else "not run yet"
    said = f"gains less than {study.margin:g}" if decision.outcome == "gains less" else decision.outcome
    return said if decision.ended else f"{said} so far"


def shown_interval(decision: Decision | None) -> str:
    """`+2.09 (+0.39 .. +3.79)`."""
    return NOTHING if decision is None else f"{decision.mean:+.2f} ({decision.low:+.2f} .. {decision.high:+.2f})"


def facts(one: Found) -> Iterator[dict[str, Any]]:
    """A pair as JSON, one object for each metric; CIDEr's alone has an outcome, for the others decide nothing."""
    decision = one.answer.decision
    if decision is None:
        return
    idea, control = one.answer.counted
    record = idea[0]
    for metric in SHOWN:
        found = one.answer.of(metric)
        ranked = metric == RANKED_BY
        yield {
            "idea": one.name,
            "question": one.pair.question,
            "study": one.study.name,
            "paper": one.pair.paper,
            "corpus": one.study.corpus,
            "metric": metric,
            "claimed": one.claimed(metric),
            "claimed_in": one.claimed_in,
            "unclaimed": one.pair.unclaimed
            or (None if one.claimed(metric) is not None else "not printed in this metric"),
            "difference": found and round(found.mean, 4),
            "low": found and round(found.low, 4),
            "high": found and round(found.high, 4),
            "outcome": outcome(one.study, decision) if ranked else None,
            "ended": decision.ended,
            "p": round(decision.p, 6) if ranked else None,
            "p_holm": None if one.p_holm is None or not ranked else round(one.p_holm, 6),
            "films": [round(value, 4) for value in one.answer.films] if one.answer.films and ranked else None,
            "margin": one.study.margin,
            "seeds": None if one.study.folds else decision.seeds,
            "folds": one.study.folds,
            "clips": record_clips(record, metric),
            "protocol": record.config["protocol"],
            "splits": record.config["splits"],
            "split": record.split,
            "streams": one.pair.streams,
            "signature": record.signatures[record.split][metric],
            "control": one.pair.control.label,
            "differs": one.pair.differs,
            "keys": {"idea": [one.key for one in idea], "control": [one.key for one in control]},
            "capped": sorted(record.key for record in one.answer.cells if record.capped),
            "precision": one.study.precision,
            "given_up": one.study.given_up or None,
        }


def record_clips(record: Record, metric: str = RANKED_BY) -> int:
    """On how many clips a record reports."""
    fields = record.signatures[record.split][metric].split("|")
    return int(next(field.removeprefix("n:") for field in fields if field.startswith("n:")))
