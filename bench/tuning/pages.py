"""The pages of `bench tune`: every trial of every search, the response of validation CIDEr, and what was chosen.

Made from `results/tuning` alone. What the chosen points score on test clips stands on the leaderboard of their data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.declare.card import MethodCard
from bench.declare.registry import MethodEntry, find_methods
from bench.evaluation.metrics import METRICS
from bench.figures.curves import response, schedules
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
from bench.plan.labels import label
from bench.tuning.space import describe, printed, title_of
from bench.tuning.study import FOLDER, Report, Trial, in_words, read

Searches = Sequence[tuple[Path, Report]]
HOW_TO_READ = (
    "A search tries settings of one method on the training clips and compares them on the validation clips alone, by the score "
    "of the epoch that would be kept; test clips have no part in it. Trial 0 has the row's own settings. Completed trials had "
    "the whole budget; stopped ones were given up by the scheduler, interrupted ones by the time limit, and both count with what "
    "they had reached. The chosen settings are trained anew over the seeds of the command, and only those cells stand on the "
    "leaderboard. Differences of a point or two between trials of one seed may be chance. Where settings change while a model "
    "trains (pbt), a trial goes through what its picture draws, and the seeds go through what the chosen one did."
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
        entry = entries.get(report.row.partition(":")[0])
        card = entry.card if entry is not None else None  # a report may outlive a plug-in
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
        names = ", ".join(dict.fromkeys(_called(report) for _, report in searches))
        rows.append(((Link(dataset, dataset, page=True),), amount(len(searches)), amount(trials), names))
    words = "One page for each data set with the searches of settings on it."
    return Document("Searches", (Paragraph(words), Table("Data sets", columns, tuple(rows))))


def _called(report: Report) -> str:
    """What tells the search of a row from others: its streams, loss, subset, splits and what its request changed."""
    return label({**report.config, "split": "test"})


def _section(report: Report, card: MethodCard | None) -> list[Part]:
    how, config = report.how, report.config
    streams = " + ".join(config["streams"])
    count = how.get("seeds_per_trial", 1)
    seeds = (
        f"seed {how['seed']}"
        if count == 1
        else f"seeds {how['seed']} to {how['seed'] + count - 1}, of which the mean counts"
    )
    parts: list[Part] = [
        Heading(2, _called(report)),
        Paragraph(
            f"{report.row}: search {how['search']}, scheduler {how['scheduler']}, {how['trials']} trials of at most "
            f"{report.budget:,} captions each, {seeds}; chosen by {_metric(report)}; {config['protocol']} protocol, validation "
            f"split, {streams}"
        ),
    ]
    best = report.best()
    if report.chosen is not None and best is not None:
        marked = printed(card, str(config["variant"]), report.space)
        beside: tuple[str | Code, ...] = ("; printed: ", Code(describe(card, marked))) if marked else ()
        chosen = (
            "Chosen: ",
            Code(in_words(best, card)),
            f", validation {_metric(report)} {best.value:.1f}",
            *beside,
            ".",
        )
        parts.append(Paragraph(chosen))
    saved = sum(trial.reused_captions for trial in report.trials)
    if saved:
        spent = sum(trial.captions for trial in report.trials)
        parts.append(
            Paragraph(
                f"{saved:,} of the {spent:,} captions were not read again: trials took up phases that another had trained."
            )
        )
    return parts


def _metric(report: Report) -> str:
    return METRICS[report.how.get("metric", "cider")].title


def _trials(report: Report, card: MethodCard | None) -> Table:
    columns = (
        Column("trial", True),
        Column("settings"),
        Column("state"),
        Column(f"validation {_metric(report)}", True),
        Column("captions", True),
        Column("seconds", True),
    )
    rows: list[tuple[Field, ...]] = []
    for trial in report.trials:
        state = f"{trial.state}, chosen" if trial.number == report.chosen else trial.state
        rows.append(
            (
                amount(trial.number),
                (Code(in_words(trial, card)),),
                state if trial.message is None else f"{state}: {trial.message}",
                amount(trial.value, ".1f"),
                amount(trial.captions, ","),
                amount(trial.seconds, ".0f"),
            )
        )
    return Table(f"Trials of {report.row}", columns, tuple(rows))


def picture(report: Report, card: MethodCard | None) -> Picture | None:
    """A curve over one number, a heat map over two; of a population, what became of each setting. None for anything else or with
    fewer than two scores."""
    scored = [trial for trial in report.trials if trial.value is not None]
    names = list(report.space)
    titles = {name: title_of(card, name) for name in names}
    if any(trial.schedule for trial in scored):
        return schedules(
            {titles[name]: {one.number: _steps(one, name, report.budget) for one in scored} for name in names},
            report.chosen,
            {titles[name] for name in names if _is_log(report, name)},
        )
    numbers = all(_number(trial.point.get(name)) for trial in scored for name in names)
    if len(scored) < 2 or not numbers or len(names) > 2:
        return None
    marked, score = printed(card, str(report.config["variant"]), report.space), _metric(report)
    if len(names) == 1:
        (name,) = names
        return response(
            _pairs(scored, name), marked.get(name), titles[name], _is_log(report, name), score, _chosen(report, name)
        )
    values = {(float(t.point[names[0]]), float(t.point[names[1]])): float(t.value or 0.0) for t in scored}
    spot = (float(marked[names[0]]), float(marked[names[1]])) if len(marked) == 2 else None
    return heat_maps({"validation": values}, score, titles[names[0]], titles[names[1]], spot)


def _chosen(report: Report, name: str) -> float | None:
    best = report.best()
    return None if best is None else float(best.point[name])


def _steps(trial: Trial, name: str, budget: int) -> list[tuple[int, float]]:
    """(captions, the value from there on) of a setting, up to the end of the trial."""
    steps = [(captions, float(point[name])) for captions, point in trial.schedule or [(0, trial.point)]]
    return [*steps, (trial.captions or budget, steps[-1][1])]


def _pairs(trials: Sequence[Trial], name: str) -> list[tuple[float, float, bool]]:
    """(setting, score, whether it had the whole budget)."""
    return [(float(t.point[name]), float(t.value or 0.0), t.state == "completed") for t in trials]


def _is_log(report: Report, name: str) -> bool:
    choices = report.space[name]
    return isinstance(choices, Mapping) and bool(choices.get("log"))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
