"""Our scores beside printed ones: how tables write them, whether the two may be compared, and what the difference says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from bench.evaluation.metrics import PREFIX, SHOWN
from bench.evaluation.statistics import student
from bench.pages.document import NOTHING, Line
from bench.records.schema import Record
from bench.reports.blocks import Row
from bench.reports.published import Published, Scorer, Table, family, published_value
from bench.reports.published import Row as PrintedRow

NOT_COMPARABLE = "not comparable"


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
    count = len(values)
    reach = student(count - 1) * stdev(values) * sqrt(1 + 1 / count)
    if abs(fmean(values) - printed) <= reach:
        return "within"
    return "above" if fmean(values) > printed else "below"


HOW_TO_READ = (
    "A difference (ours minus printed) and a verdict are given only where data set, split lists, clips, protocol, settings, "
    "streams and scoring are those of the paper; elsewhere stands, where both were run, what a system gains over the base "
    "that its paper names, there and here. Scores of other clips do not stand beside the printed ones. A verdict is never given "
    "from one seed: “within” says that the printed number lies in the interval in which 95 % of further seeds are expected "
    "(mean ± t sd √(1 + 1/n)), “above” and “below” that ours are higher or lower than that. A record knows the fingerprint of "
    "its features and not which encoder made them: that they are those of the paper is the word of who made them."
)


@dataclass(frozen=True)
class Answer:
    """Printed scores and the records of ours that answer to them, which have scores; `cells` counts all cells of that row,
    `reasons` are why the two may not be compared, `other_clips` says that ours are of other clips than the paper's."""

    table: Table
    printed: Mapping[str, float]
    records: tuple[Record, ...]
    cells: int
    reasons: tuple[str, ...]
    other_clips: bool = False

    @property
    def metric(self) -> str:
        """What the two are compared by, where by one: CIDEr, or the last metric of the table's order that the paper prints."""
        return [name for name in SHOWN if name in self.printed][-1]

    def scores(self, metric: str) -> dict[int, float]:
        """Our scores by seed, by the paper's scorer where we have them."""
        found = {record.seed: record.scores[record.split] for record in self.records}
        own = prefix(self.table) + metric
        name = own if any(own in scores for scores in found.values()) else metric
        return {seed: scores[name] for seed, scores in found.items() if name in scores}

    def mean(self, metric: str) -> float | None:
        """The mean of our scores; None unless all cells of the row have them."""
        values = self.scores(metric).values()
        return fmean(values) if values and len(values) == self.cells else None

    def here(self, metric: str) -> str:
        """Our scores as tables write them."""
        return spread(list(self.scores(metric).values()), self.mean(metric) is not None)

    def difference(self, metric: str) -> float | None:
        """Ours minus printed; None where the two may not be compared."""
        mean = self.mean(metric)
        return None if mean is None or self.reasons or metric not in self.printed else mean - self.printed[metric]

    def gain(self, base: Answer, metric: str) -> tuple[float, float] | None:
        """What the system gains over its base, as printed and here over the same seeds; None unless both are known."""
        ours, bases = self.mean(metric), base.mean(metric)
        if ours is None or bases is None or not (metric in self.printed and metric in base.printed):
            return None
        if self.scores(metric).keys() != base.scores(metric).keys():
            return None
        return self.printed[metric] - base.printed[metric], ours - bases

    def verdict(self, metric: str) -> str:
        if self.mean(metric) is None:
            return "none: not all cells of the row have scores"
        if self.reasons:
            return NOT_COMPARABLE
        values = list(self.scores(metric).values())
        return verdict(values, self.printed[metric]) if len(values) > 1 else "none from one seed"


def answer(row: Row, printed: Published) -> Answer:
    """A printed row beside a row of ours."""
    done, why = row.in_state("done"), reasons(printed.table, row.records)
    if printed.row.setting:
        why.append(f"another paper's setting (bench reproduce {printed.row.setting} has that of the printed row)")
    other = other_clips(printed.table, row.records)
    return Answer(printed.table, printed.row.metrics, done, len(row.records), tuple(why), other)


def printed_result(row: Row, dataset: str, scorer: Scorer = "coco") -> Published | None:
    """The printed result of a row of ours, on the data set that its own one is or is cut from."""
    base = family(dataset)
    if base is None or row.external or not row.rewarded:
        return None
    loss, fraction = _loss_and_fraction(row)
    return published_value(
        row.first.method,
        row.first.variant,
        base,
        row.first.split,
        loss=loss,
        data_fraction=fraction,
        scorer=scorer,
        splits=row.first.config.get("splits"),
    )


def _loss_and_fraction(row: Row) -> tuple[str | None, float]:
    """The borrowed loss of a row and its part of the training clips."""
    config = row.first.config
    loss, train = config.get("loss") or {}, config.get("train") or {}
    return loss.get("name"), float(train.get("data_fraction", 1.0))


def best_answer(printed: Published, rows: Iterable[Row]) -> tuple[Row, Answer] | None:
    """The row of ours that is nearest to being comparable, then that which lacks fewest streams, with most seeds, and its answer;
    None where the row was not run."""
    fitting = [
        (row, answer(row, printed))
        for row in rows
        if _is_result_of(row, printed.row) and family(row.first.dataset) == printed.table.dataset
    ]

    def place(pair: tuple[Row, Answer]) -> tuple[int, int, bool, int, str]:
        row, found = pair
        absent = len(row.first.config.get("absent_streams") or ())
        return len(found.reasons), absent, found.mean(found.metric) is None, -len(found.records), row.first.key

    return min(fitting, key=place, default=None)


def base_answer(printed: Published, rows: Iterable[Row]) -> tuple[str, Answer] | None:
    """The base of a printed row among the rows of one table of ours, its label and its answer; None where the paper has no base
    or the table lacks it."""
    base = printed.table.base_of(printed.row)
    if base is None:
        return None
    fitting = [row for row in rows if _is_result_of(row, base) and not row.first.config.get("changed")]
    return (fitting[0].label, answer(fitting[0], Published(printed.paper, printed.table, base))) if fitting else None


def _is_result_of(row: Row, printed: PrintedRow) -> bool:
    """Whether a row of ours, which has scores, is the system of a printed row."""
    wanted = (printed.variant_name, printed.loss, printed.data_fraction)
    own = not row.external and row.rewarded and bool(row.in_state("done"))
    return own and (row.name, *_loss_and_fraction(row)) == wanted


def prefix(table: Table) -> str:
    """What stands before the name of a metric that was scored by the rules of the table's scorer."""
    return PREFIX if table.scorer == "densevid" else ""


def other_clips(table: Table, records: Iterable[Record]) -> bool:
    """Whether records are of other clips than a printed table: of another data set, of another split, or of some clips."""
    own = (table.dataset, table.split, False)
    return any((record.dataset, record.split, bool(record.config.get("subset"))) != own for record in records)


def reasons(table: Table, records: Iterable[Record], changed: bool = True) -> list[str]:
    """Why the numbers of a printed table do not answer to the records, each reason once.

    Without `changed` the settings of the records are those that the printed row has, although a card has others.
    """
    return list(dict.fromkeys(reason for record in records for reason in _reasons(table, record, changed)))


def _reasons(table: Table, record: Record, changed: bool) -> list[str]:
    config = record.config
    found = []
    if record.dataset != table.dataset:
        found.append(f"another data set ({record.dataset})")
    if record.split != table.split:
        found.append(f"another split ({record.split})")
    if subset := config.get("subset"):
        found.append(f"a subset of the clips ({'/'.join(map(str, subset))} of train, validation and test)")
    if (config.get("splits") or "default") not in (table.splits, "official"):
        found.append(f"other split lists ({config['splits']})")
    if config["protocol"] != "paper":
        found.append(f"the {config['protocol']} protocol")
    if changed and (settings := config.get("changed")):
        found.append(f"changed settings ({', '.join(map(str, settings))})")
    if absent := config.get("absent_streams"):
        found.append(f"streams that are not there ({', '.join(absent)})")
    if prefix(table) and record.state == "done" and not any(n.startswith(PREFIX) for n in record.scores[record.split]):
        found.append("scores by COCO's rules and not by densevid_eval's")
    return found


def why_not(answers: Sequence[tuple[str, Answer]]) -> list[Line]:
    """Why rows, by their labels, are not comparable with what is printed: each set of reasons once."""
    by_reasons: dict[tuple[str, ...], list[str]] = {}
    for label, found in answers:
        if found.reasons:
            by_reasons.setdefault(found.reasons, []).append(label)
    whole = len({label for label, _ in answers})
    return [
        f"Not comparable, because of {', '.join(why)}: {'all rows' if len(set(labels)) == whole > 1 else _once(labels)}."
        for why, labels in by_reasons.items()
    ]


def _once(labels: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(labels))


def features(published: Published) -> str:
    """The paper's features, as far as the table states them."""
    return " + ".join(published.row.variant.get("features") or []) or "not stated"
