"""The pages of `bench tune`: every trial of every search, the response of validation CIDEr, and what was chosen.

Made from `results/tuning` alone. What the chosen points score on test clips stands on the leaderboard of their data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.declare.card import TRAIN, MethodCard
from bench.declare.registry import MethodEntry, find_methods, method_entry
from bench.figures.curves import response
from bench.figures.grids import heat_maps
from bench.home import Home
from bench.pages.document import (
    Code,
    Column,
    Document,
    Field,
    Heading,
    Image,
    Link,
    Paragraph,
    Part,
    Picture,
    Table,
    amount,
)
from bench.pages.files import PICTURE, pictures_of, write_pages
from bench.tuning.space import describe
from bench.tuning.study import FOLDER, Report, Trial, read

Searches = Sequence[tuple[Path, Report]]
HOW_TO_READ = (
    "A search tries settings of one method on the training clips and compares them by CIDEr-D of the validation clips alone; the "
    "test clips have no part in it. Completed trials had the whole budget, stopped ones were given up by the scheduler, and "
    "count with what they had reached. The chosen settings are trained anew over the seeds of the command, and only those cells "
    "stand on the leaderboard. A curve shows one seed: differences of a point or two may be chance."
)


def write(home: Home, check: bool = False) -> list[Path]:
    """Bring the pages of all searches up to date; returns the files that changed, or would with `check`."""
    found: dict[str, list[tuple[Path, Report]]] = {}
    for path in sorted((home.results / FOLDER).glob("*/*/*.json")):
        found.setdefault(path.parents[1].name, []).append((path, read(path)))
    if not found:
        return []
    entries = find_methods()
    documents = {f"{FOLDER}/{dataset}": document(dataset, searches, entries) for dataset, searches in found.items()}
    documents[f"{FOLDER}/README"] = _index(found)
    return write_pages(documents, home.leaderboards, check)


def document(dataset: str, searches: Searches, entries: dict[str, MethodEntry]) -> Document:
    """The page of one data set."""
    parts: list[Part] = [
        Paragraph(HOW_TO_READ),
        Paragraph(("Scores on test clips: ", Link("leaderboard", f"../{dataset}", page=True), ".")),
    ]
    for path, report in searches:
        card = method_entry(report.row.partition(":")[0], entries).card
        assert card is not None
        parts += _section(report, card)
        drawn = picture(report, card)
        if drawn is not None:
            parts.append(Image(drawn, f"{pictures_of(dataset)}/{path.parent.name}-{path.stem}{PICTURE}"))
        parts.append(_trials(report, card))
    return Document(f"Searches: {dataset}", tuple(parts))


def _index(found: Mapping[str, Searches]) -> Document:
    """The list of the pages."""
    columns = (Column("data set"), Column("searches", True), Column("trials", True), Column("rows"))
    rows: list[tuple[Field, ...]] = []
    for dataset, searches in found.items():
        trials = sum(len(report.trials) for _, report in searches)
        names = ", ".join(dict.fromkeys(report.row for _, report in searches))
        rows.append(((Link(dataset, dataset, page=True),), amount(len(searches)), amount(trials), names))
    words = "One page for each data set with the searches of settings on it."
    return Document("Searches", (Paragraph(words), Table("Data sets", columns, tuple(rows))))


def _section(report: Report, card: MethodCard) -> list[Part]:
    how, config = report.how, report.config
    streams = " + ".join(config["streams"])
    parts: list[Part] = [
        Heading(2, f"{report.row} with {streams}"),
        Paragraph(
            f"search {how['search']}, scheduler {how['scheduler']}, {how['trials']} trials of {report.budget:,} captions each, "
            f"seed {how['seed']}; {config['protocol']} protocol, validation split, {streams}"
        ),
    ]
    best = report.best()
    if report.chosen is not None and best is not None:
        marked = printed(card, str(config["variant"]), report.space)
        beside: tuple[str | Code, ...] = ("; printed: ", Code(describe(card, marked))) if marked else ()
        chosen = ("Chosen: ", Code(describe(card, best.point)), f", validation CIDEr {best.value:.1f}", *beside, ".")
        parts.append(Paragraph(chosen))
    return parts


def printed(card: MethodCard, variant: str, space: Mapping[str, Any]) -> dict[str, Any]:
    """The searched settings as the paper prints them for the row: those of its variant or of the card's paper protocol."""
    known = {name: setting.default for name, setting in card.settings.items()}
    known |= card.protocol_paper.settings if card.protocol_paper else {}
    known |= card.variants[variant].settings
    return {name: known[name] for name in space if not name.startswith(TRAIN) and known.get(name) is not None}


def _trials(report: Report, card: MethodCard) -> Table:
    columns = (
        Column("trial", True),
        Column("settings"),
        Column("state"),
        Column("validation CIDEr", True),
        Column("captions", True),
        Column("seconds", True),
    )
    rows: list[tuple[Field, ...]] = []
    for trial in report.trials:
        state = f"{trial.state}, chosen" if trial.number == report.chosen else trial.state
        rows.append(
            (
                amount(trial.number),
                (Code(describe(card, trial.point)),),
                state if trial.message is None else f"{state}: {trial.message}",
                amount(trial.value, ".1f"),
                amount(trial.captions, ","),
                amount(trial.seconds, ".0f"),
            )
        )
    return Table(f"Trials of {report.row}", columns, tuple(rows))


def picture(report: Report, card: MethodCard) -> Picture | None:
    """A curve over one number, a heat map over two; None for anything else or with fewer than two scores."""
    scored = [trial for trial in report.trials if trial.value is not None]
    names = list(report.space)
    numbers = all(_number(trial.point[name]) for trial in scored for name in names)
    if len(scored) < 2 or not numbers or len(names) > 2:
        return None
    marked = printed(card, str(report.config["variant"]), report.space)
    titles = [card.settings[name].alias or name if not name.startswith(TRAIN) else name for name in names]
    if len(names) == 1:
        return response(_pairs(scored, names[0]), marked.get(names[0]), titles[0], _is_log(report, names[0]))
    values = {(float(t.point[names[0]]), float(t.point[names[1]])): float(t.value or 0.0) for t in scored}
    spot = (float(marked[names[0]]), float(marked[names[1]])) if len(marked) == 2 else None
    return heat_maps({"validation": values}, "CIDEr-D", titles[0], titles[1], spot)


def _pairs(trials: Sequence[Trial], name: str) -> list[tuple[float, float, bool]]:
    """(setting, score, whether it had the whole budget)."""
    return [(float(t.point[name]), float(t.value or 0.0), t.state == "completed") for t in trials]


def _is_log(report: Report, name: str) -> bool:
    choices = report.space[name]
    return isinstance(choices, Mapping) and bool(choices.get("log"))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
