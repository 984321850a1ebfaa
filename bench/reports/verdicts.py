"""Scores as tables write them, and what our scores say of a printed one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from bench.evaluation.metrics import PREFIX, SHOWN
from bench.reports.blocks import Row
from bench.reports.published import Published, Scorer, family, published_value

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


WORDS = {"within": "within interval", "above": "above", "below": "below"}

HOW_TO_READ = (
    "A verdict is given only where data set, split lists, clips, protocol, settings, streams and scoring are those of the paper, "
    "and never from one seed: “within interval” says that the printed number lies in the interval in which 95 % of further seeds "
    "are expected (mean ± t sd √(1 + 1/n)), “above” and “below” that ours are higher or lower than that. A record knows the "
    "fingerprint of its features and not which encoder made them: that they are those of the paper is the word of who made them."
)


@dataclass(frozen=True)
class Answer:
    """A printed result and the row of ours that answers to it; `reasons` are why the two are not comparable."""

    printed: Published
    row: Row
    reasons: tuple[str, ...]

    @property
    def metric(self) -> str:
        """What the two are compared by: CIDEr, or the last metric of the table's order that the paper prints."""
        return [name for name in SHOWN if name in self.printed.row.metrics][-1]

    @property
    def value(self) -> float:
        return self.printed.row.metrics[self.metric]

    @property
    def ours(self) -> list[float]:
        """Our scores, by the paper's scorer where we have them."""
        own = self.row.values(_prefix(self.printed) + self.metric)
        return own or self.row.values(self.metric)

    @property
    def whole(self) -> bool:
        return self.row.complete and len(self.ours) == len(self.row.records)

    @property
    def difference(self) -> float | None:
        """Ours minus printed; None for a row without mean."""
        return fmean(self.ours) - self.value if self.ours and self.whole else None

    @property
    def here(self) -> str:
        return spread(self.ours, self.whole)

    @property
    def verdict(self) -> str:
        if self.difference is None:
            return "none: not all cells of the row have scores"
        if self.reasons:
            return f"not comparable, because of {', '.join(self.reasons)}"
        if len(self.ours) < 2:
            return "none from one seed"
        return WORDS[verdict(self.ours, self.value)]


def printed_result(row: Row, dataset: str, scorer: Scorer = "coco") -> Published | None:
    """The printed result of a row of ours, on the data set that its own one is or is cut from."""
    base = family(dataset)
    if base is None or row.external:
        return None
    loss, fraction = _told_apart(row)
    return published_value(
        row.first.method, row.first.variant, base, row.first.split, loss=loss, data_fraction=fraction, scorer=scorer
    )


def _told_apart(row: Row) -> tuple[str | None, float]:
    """The borrowed loss of a row and its part of the training clips."""
    config = row.first.config
    loss, train = config.get("loss") or {}, config.get("train") or {}
    return loss.get("name"), float(train.get("data_fraction", 1.0))


def answer(row: Row, printed: Published) -> Answer:
    return Answer(printed, row, tuple(_reasons(row, printed)))


def best_answer(printed: Published, rows: Iterable[Row]) -> Answer | None:
    """The answer of the rows of ours that is nearest to being comparable, with most seeds; None where the row was not run."""
    wanted = (printed.row.variant_name, printed.row.loss, printed.row.data_fraction)
    fitting = [
        answer(row, printed)
        for row in rows
        if not row.external
        and (row.name, *_told_apart(row)) == wanted
        and family(row.first.dataset) == printed.table.dataset
        and row.in_state("done")
    ]
    return min(
        fitting, key=lambda one: (len(one.reasons), not one.whole, -len(one.ours), one.row.first.key), default=None
    )


def _prefix(printed: Published) -> str:
    return PREFIX if printed.table.scorer == "densevid" else ""


def _reasons(row: Row, printed: Published) -> list[str]:
    """Why a printed number does not answer to the row."""
    config, table = row.first.config, printed.table
    found = []
    if row.first.dataset != table.dataset:
        found.append(f"another data set ({row.first.dataset})")
    if row.first.split != table.split:
        found.append(f"another split ({row.first.split})")
    if config.get("subset"):
        found.append("a subset of the clips")
    if (config.get("splits") or "default") not in (table.splits, "official"):
        found.append(f"other split lists ({config['splits']})")
    if config["protocol"] != "paper":
        found.append(f"the {config['protocol']} protocol")
    if changed := config.get("changed"):
        found.append(f"changed settings ({', '.join(map(str, changed))})")
    if absent := config.get("absent_streams"):
        found.append(f"streams that are not there ({', '.join(absent)})")
    scored = {name for record in row.in_state("done") for name in record.scores[record.split]}
    if _prefix(printed) and not any(name.startswith(PREFIX) for name in scored):
        found.append("scores by COCO's rules and not by densevid_eval's")
    return found


def features(published: Published) -> str:
    """The paper's features, as far as the table states them."""
    return " + ".join(published.row.variant.get("features") or []) or "not stated"
