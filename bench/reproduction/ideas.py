"""`bench reproduce ideas`: each paper's idea against its own control, over the same seeds, and the page of what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from bench.declare.registry import MethodEntry, method_entry
from bench.errors import unknown
from bench.evaluation.metrics import RANKED_BY, SHOWN
from bench.evaluation.statistics import student
from bench.home import Home
from bench.pages.document import (
    NOTHING,
    Bullets,
    Cell,
    Code,
    Column,
    Document,
    Field,
    Folded,
    Heading,
    Line,
    Link,
    Paragraph,
    Part,
    Table,
    clean,
)
from bench.plan.request import Running, RunSpec, request
from bench.records.schema import Record
from bench.reports.costs import record_links
from bench.reports.sections import EFFECTS, STUDIES
from bench.reports.study import Pair, Study, study
from bench.reports.verdicts import spread
from bench.reproduction import answers as asked
from bench.reproduction.run import prepared, run_cells
from bench.reproduction.targets import FOLDER
from bench.run import greeting

NAME = "ideas"
PAGE = f"{FOLDER}/{NAME}"
SIDES = ("idea", "control")

WHAT = (
    "Each row is one idea of one paper beside its own control: the same corpus, streams, widths, decoding and number of training "
    "captions, one thing changed. Seeds were named beforehand; a difference is that of two cells with the same seed. What is "
    "found here is found on small rendered clips and says nothing about other data."
)
HOW_TO_READ = (
    "The mean of these differences stands before the interval that holds the expected difference in 95 of 100 such studies "
    "(Student's t over the seeds). “helps” and “hurts” mean that the interval of CIDEr leaves zero out, “undecided” that "
    "it does not; with several rows some interval leaves zero out by chance, and the page does not correct for it."
)


def is_asked(word: str) -> bool:
    """Whether a target of `bench reproduce` is `ideas` or one of its pairs, such as `ideas/regions`."""
    return word.partition("/")[0] == NAME


def chosen(word: str, declared: Study) -> list[str]:
    """The pairs that `ideas` or `ideas/NAME` asks for. Raises BenchError with what was probably meant."""
    _, slash, name = word.partition("/")
    if not slash:
        return list(declared.pairs)
    if name not in declared.pairs:
        raise unknown("target", word, [f"{NAME}/{pair}" for pair in declared.pairs])
    return [name]


def requests(
    declared: Study, name: str, base: Running, entries: dict[str, MethodEntry]
) -> Iterator[tuple[str, RunSpec]]:
    """(`idea` or `control`, the request that runs it over all seeds); executor and the like are those of `base`."""
    pair = declared.pairs[name]
    for side, arm in zip(SIDES, (pair.idea, pair.control), strict=True):
        card = method_entry(arm.run.partition(":")[0], entries).card
        assert card is not None
        settings = card.checked(arm.settings, card.name)
        yield (
            side,
            request(
                base.model_copy(update={"seeds": declared.seeds}),
                methods=[arm.run],
                dataset=declared.dataset,
                streams=list(pair.streams),
                loss=arm.loss,
                train=pair.train,
                overrides={card.name: settings} if settings else {},
            ),
        )


def run(word: str, base: Running, home: Home, entries: dict[str, MethodEntry]) -> int:
    """Run the cells of the comparisons that are missing and write down what answers them; returns the exit status."""
    greeting.check_places(base, home)
    declared = study()
    names = chosen(word, declared)
    wanted = [(name, side, spec) for name in names for side, spec in requests(declared, name, base, entries)]
    its = prepared([spec for _, _, spec in wanted], home, entries)
    status = run_cells(its, home, base)
    for name in names:
        keys = {
            side: [asked.place_of(cell) for cell in some]
            for (pair, side, _), some in zip(wanted, its, strict=True)
            if pair == name
        }
        section = asked.Section(small=False, dataset=declared.dataset, protocol="standard", cells=keys)
        asked.note(home, f"{NAME}/{name}", "study", section)
    return status


# -- the page ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """The idea or the control: its records by seed, and how many seeds were asked for."""

    label: str
    records: tuple[Record, ...]
    asked: int

    def scores(self, metric: str) -> dict[int, float]:
        """Scores of the done cells by seed."""
        done = {one.seed: one.scores[one.split] for one in self.records if one.state == "done"}
        return {seed: scores[metric] for seed, scores in done.items() if metric in scores}


@dataclass(frozen=True)
class Compared:
    """One comparison of the study with what came of it."""

    name: str
    pair: Pair
    idea: Side
    control: Side

    def differences(self, metric: str) -> list[float]:
        """Idea minus control, of the seeds that both sides have, in order."""
        idea, control = self.idea.scores(metric), self.control.scores(metric)
        return [idea[seed] - control[seed] for seed in sorted(idea.keys() & control.keys())]


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Mean of paired differences and half the width of its 95 % interval. Needs two of them or more."""
    count = len(differences)
    return fmean(differences), student(count - 1) * stdev(differences) / sqrt(count)


def outcome(mean: float, reach: float) -> str:
    """`helps`, `hurts` or `undecided`."""
    if abs(mean) <= reach:
        return "undecided"
    return "helps" if mean > 0 else "hurts"


def document(home: Home) -> Document | None:
    """The page of the study, a function of the declaration and the records; None where none of it was run."""
    names = [name.partition("/")[2] for name in asked.targets(home) if is_asked(name)]
    if not names:
        return None
    declared = study()
    compared = [_compared(name, pair, home) for name, pair in declared.pairs.items() if name in names]
    missing = [name for name in declared.pairs if name not in names]
    return study_page(declared, compared, missing, home)


def study_page(declared: Study, compared: Sequence[Compared], missing: Sequence[str], home: Home) -> Document:
    """The page: the metric that decides, the others with cost and records, and what did not run."""
    seeds = ", ".join(map(str, declared.seeds))
    corpus = f"Corpus {declared.dataset}, test split, standard protocol, seeds {seeds}. Made by "
    parts: list[Part] = [Paragraph((corpus, Code(f"bench reproduce {NAME}"), ".")), Paragraph(WHAT)]
    if (home.results / STUDIES).is_dir():
        later = "Later studies train to the end, on more clips and with a rule by which a comparison ends: "
        parts.append(Paragraph((later, Link("effects", f"../{EFFECTS}", page=True), ".")))
    parts.append(Folded("How to read the tables", (Paragraph(HOW_TO_READ),)))
    parts += [Heading(2, SHOWN[RANKED_BY]), _outcomes(compared), Heading(2, "Other metrics, cost, records")]
    seconds = "Under “seconds” is the mean time of one cell in training, idea / control."
    parts += [_others(compared, home), Paragraph(seconds)]
    notes: list[Line] = [f"{one.name}, {side}: {what}" for one in compared for side, what in _troubles(one)]
    notes += [f"{name}: not run" for name in missing]
    notes += _signatures(compared)
    return Document("Ideas against their controls", (*parts, *([Bullets(tuple(notes))] if notes else [])))


def _compared(name: str, pair: Pair, home: Home) -> Compared:
    answers = asked.read(home, f"{NAME}/{name}").sections["study"].cells
    idea, control = (
        Side(arm.label, tuple(asked.records(home, answers, side)), len(answers.get(side, [])))
        for side, arm in zip(SIDES, (pair.idea, pair.control), strict=True)
    )
    return Compared(name, pair, idea, control)


def _outcomes(compared: Sequence[Compared]) -> Table:
    """The comparisons by the metric that decides them."""
    short = SHOWN[RANKED_BY]
    columns = (
        Column("question"),
        Column("outcome"),
        Column(f"{short} difference", True, "idea minus control, paired by seed: mean (95 % interval)"),
        Column("idea"),
        Column(f"{short}, idea", True),
        Column("control"),
        Column(f"{short}, control", True),
    )
    rows: list[tuple[Field, ...]] = []
    for one in compared:
        found = one.differences(RANKED_BY)
        result = outcome(*interval(found)) if len(found) > 1 else "too few seeds"
        cells: list[Field] = [f"{one.pair.paper}: {one.pair.question}", result, _difference(one, RANKED_BY)]
        for side in (one.idea, one.control):
            values = list(side.scores(RANKED_BY).values())
            cells += [side.label, Cell(spread(values, len(values) == side.asked), fmean(values) if values else None)]
        rows.append(tuple(cells))
    return Table(f"{short} of ideas and controls", columns, tuple(rows))


def _others(compared: Sequence[Compared], home: Home) -> Table:
    """The other metrics, what the cells cost, and the way to their records."""
    others = [metric for metric in SHOWN if metric != RANKED_BY]
    columns = (
        Column("comparison"),
        *(Column(f"{SHOWN[metric]} difference", True) for metric in others),
        Column("seconds", True),
        Column("streams"),
        Column("records, idea", help="one for each seed"),
        Column("records, control", help="one for each seed"),
    )
    rows: list[tuple[Field, ...]] = [
        (
            one.name,
            *(_difference(one, metric) for metric in others),
            " / ".join(_seconds(side) for side in (one.idea, one.control)),
            ", ".join(one.pair.streams),
            *(record_links(side.records, home, PAGE) for side in (one.idea, one.control)),
        )
        for one in compared
    ]
    return Table("Other metrics, cost and records", columns, tuple(rows))


def _difference(one: Compared, metric: str) -> Cell:
    found = one.differences(metric)
    if len(found) < 2:
        return Cell(NOTHING)
    mean, reach = interval(found)
    return Cell(f"{mean:+.2f} ({mean - reach:+.2f} .. {mean + reach:+.2f})", mean)


def _seconds(side: Side) -> str:
    spent = [seconds for record in side.records if (seconds := record.spent("fit_seconds"))]
    return f"{fmean(spent):.0f}" if spent else NOTHING


def _troubles(one: Compared) -> Iterator[tuple[str, str]]:
    """Cells without scores, in words."""
    for name, side in zip(SIDES, (one.idea, one.control), strict=True):
        for record in side.records:
            if record.failure is not None:
                yield name, f"FAILED seed {record.seed}: {clean(record.failure.message)[:120]}"
            elif record.state != "done":
                yield name, f"{record.state} seed {record.seed}"
        if len(side.records) < side.asked:
            yield name, f"{side.asked - len(side.records)} of {side.asked} seeds not run"


def _signatures(compared: Sequence[Compared]) -> list[Line]:
    """The signature of each metric, once; more than one says that rows were scored in different ways."""
    records = [record for one in compared for side in (one.idea, one.control) for record in side.records]
    lines: list[Line] = []
    for metric, short in SHOWN.items():
        found = sorted(
            {one.signatures[one.split][metric] for one in records if metric in one.scores.get(one.split, {})}
        )
        pieces = [piece for one in found for piece in (" and ", Code(one))][1:]
        lines += [(f"{short}: ", *pieces)] if pieces else []
    return lines
