"""The page of ideas against their controls: paired differences over seeds, whichever way they fall."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

from bench.evaluation.metrics import RANKED_BY, SHOWN
from bench.evaluation.statistics import student
from bench.pages.markdown import clean, code, escape, link, table
from bench.records.schema import Record
from bench.records.store import RECORD, cell_folder
from bench.reports.verdicts import NOTHING, spread

OTHERS = {name: short for name, short in SHOWN.items() if name != RANKED_BY}


@dataclass(frozen=True)
class Side:
    """The idea or the control: what was run, the records by seed, and how many seeds were asked for."""

    label: str
    records: tuple[Record, ...]
    asked: int


@dataclass(frozen=True)
class Compared:
    """One comparison of the study."""

    name: str
    paper: str
    question: str
    streams: tuple[str, ...]
    idea: Side
    control: Side


HOW_TO_READ = (
    "Each line is one idea of one paper beside its own control: the same corpus, streams, widths, decoding and number of "
    "training captions, one thing changed. Seeds were named beforehand; a difference is that of two cells with the same seed, "
    "and *mean [interval]* is the mean of these differences with the interval that holds the expected difference in 95 of 100 "
    "such studies (Student's t over the seeds). *helps* and *hurts* mean that the interval of CIDEr leaves zero out, "
    "*undecided* that it does not; with several lines some interval leaves zero out by chance, and the page does not correct "
    "for it. What is found here is found on small rendered clips and says nothing about other data."
)


def paired(idea: Sequence[float], control: Sequence[float]) -> tuple[float, float]:
    """Mean of the paired differences and half the width of its 95 % interval. Needs two pairs or more."""
    differences = [one - other for one, other in zip(idea, control, strict=True)]
    count = len(differences)
    reach = student(count - 1) * stdev(differences) / sqrt(count)
    return fmean(differences), reach


def outcome(mean: float, reach: float) -> str:
    """`helps`, `hurts` or `undecided`."""
    if abs(mean) <= reach:
        return "undecided"
    return "helps" if mean > 0 else "hurts"


def render(
    compared: Sequence[Compared], missing: Sequence[str], dataset: str, seeds: Sequence[int], path: Path, results: Path
) -> str:
    """The generated part of the page at `path`; records lie below `results`."""
    parts = [
        "# Ideas against their controls",
        f"Corpus {escape(dataset)}, test split, standard protocol, seeds {', '.join(map(str, seeds))}. Made by "
        f"{code('bench reproduce ideas')}.",
        HOW_TO_READ,
        "## CIDEr",
        table(
            ("question", "idea", "CIDEr", "control", "CIDEr ", "difference", "outcome"),
            [_row(one) for one in compared],
            right=("CIDEr", "CIDEr ", "difference"),
        ),
        "## Other metrics, cost, records",
        table(
            (
                "comparison",
                *(f"{short} difference" for short in OTHERS.values()),
                "seconds",
                "streams",
                "records",
            ),
            [_more(one, path, results) for one in compared],
            right=[*(f"{short} difference" for short in OTHERS.values()), "seconds"],
        ),
        "*seconds* is the mean time of one cell, idea / control, in training; cells shared two cores.",
    ]
    notes = [f"- {escape(one.name)}, {which}: {told}" for one in compared for which, told in _troubles(one)]
    notes += [f"- {escape(name)}: not run" for name in missing]
    notes += _signatures(compared)
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])])


def _scores(side: Side, metric: str) -> dict[int, float]:
    return {
        record.seed: record.scores[record.split][metric]
        for record in side.records
        if record.state == "done" and metric in record.scores[record.split]
    }


def _both(one: Compared, metric: str) -> tuple[list[float], list[float]]:
    """Scores of the seeds that both sides have, in order."""
    idea, control = _scores(one.idea, metric), _scores(one.control, metric)
    seeds = sorted(idea.keys() & control.keys())
    return [idea[seed] for seed in seeds], [control[seed] for seed in seeds]


def _difference(one: Compared, metric: str) -> str:
    idea, control = _both(one, metric)
    if len(idea) < 2:
        return NOTHING
    mean, reach = paired(idea, control)
    return f"{mean:+.2f} [{mean - reach:+.2f}, {mean + reach:+.2f}]"


def _row(one: Compared) -> list[str]:
    cells = [f"{escape(one.paper)}: {escape(one.question)}"]
    for side in (one.idea, one.control):
        values = list(_scores(side, "cider").values())
        cells += [escape(side.label), spread(values, len(values) == side.asked)]
    idea, control = _both(one, "cider")
    told = outcome(*paired(idea, control)) if len(idea) > 1 else "too few seeds"
    return [*cells, _difference(one, "cider"), told]


def _more(one: Compared, path: Path, results: Path) -> list[str]:
    seconds = " / ".join(_seconds(side) for side in (one.idea, one.control))
    links = "; ".join(_links(side, path, results) for side in (one.idea, one.control))
    differences = [_difference(one, metric) for metric in OTHERS]
    return [escape(one.name), *differences, seconds, escape(", ".join(one.streams)), links]


def _seconds(side: Side) -> str:
    spent = [seconds for record in side.records if (seconds := record.spent("fit_seconds"))]
    return f"{fmean(spent):.0f}" if spent else NOTHING


def _links(side: Side, path: Path, results: Path) -> str:
    links = [
        link(str(record.seed), Path(os.path.relpath(cell_folder(results, record) / RECORD, path.parent)).as_posix())
        for record in side.records
    ]
    return ", ".join(links) or NOTHING


def _troubles(one: Compared) -> list[tuple[str, str]]:
    """Cells without scores, in words."""
    found = []
    for which, side in (("idea", one.idea), ("control", one.control)):
        for record in side.records:
            if record.failure is not None:
                found.append((which, f"FAILED seed {record.seed}: {escape(clean(record.failure.message)[:120])}"))
            elif record.state != "done":
                found.append((which, f"{record.state} seed {record.seed}"))
        if len(side.records) < side.asked:
            found.append((which, f"{side.asked - len(side.records)} of {side.asked} seeds not run"))
    return found


def _signatures(compared: Sequence[Compared]) -> list[str]:
    """The signature of each metric, once; more than one says that lines were scored in different ways."""
    records = [record for one in compared for side in (one.idea, one.control) for record in side.records]
    lines = []
    for metric, short in SHOWN.items():
        found = {
            record.signatures[record.split][metric]
            for record in records
            if metric in record.scores.get(record.split, {})
        }
        lines += [f"- {short}: {' and '.join(code(signature) for signature in sorted(found))}"] if found else []
    return lines
