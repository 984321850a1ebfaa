"""The pages of `bench tune`: every trial of every search, the response of validation CIDEr, and what was chosen.

Made from `results/tuning` alone. What the chosen points score on test clips stands on the leaderboard of their data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.declare.card import TRAIN, MethodCard
from bench.declare.registry import find_methods, method_entry
from bench.home import Home
from bench.pages.markdown import PICTURE, between_markers, bring_up_to_date, clean, code, escape, table
from bench.tuning.space import told
from bench.tuning.study import FOLDER, Report, Trial, read

HOW_TO_READ = (
    "A search tries settings of one method on the training clips and compares them by CIDEr-D of the validation clips alone; the "
    "test clips have no part in it. *completed* trials had the whole budget, *stopped* ones were given up by the scheduler, and "
    "count with what they had reached. The chosen settings are trained anew over the seeds of the command, and only those cells "
    "stand on the leaderboard. A curve shows one seed: differences of a point or two may be chance."
)


def write(home: Home, check: bool = False) -> list[Path]:
    """Bring the pages of all searches up to date; returns the files that changed, or would with `check`."""
    found: dict[str, list[tuple[Path, Report]]] = {}
    for path in sorted((home.results / FOLDER).glob("*/*/*.json")):
        found.setdefault(path.parents[1].name, []).append((path, read(path)))
    texts: dict[Path, str] = {}
    for name, reports in found.items():
        texts |= files_of(name, reports, home)
    return bring_up_to_date(texts, check)


def files_of(dataset: str, reports: Sequence[tuple[Path, Report]], home: Home) -> dict[Path, str]:
    """The page of one data set and its pictures."""
    page = home.leaderboards / FOLDER / f"{dataset}.md"
    parts = [f"# Searches: {escape(dataset)}", HOW_TO_READ]
    pictures: dict[Path, str] = {}
    entries = find_methods()
    for path, report in reports:
        card = method_entry(report.row.partition(":")[0], entries).card
        assert card is not None
        parts += _section(report, card)
        name = f"{path.parent.name}-{path.stem}{PICTURE}"
        drawn = picture(report, card)
        if drawn is not None:
            pictures[page.with_suffix("") / name] = drawn.svg
            parts.append(f"![{escape(drawn.alt)}]({dataset}/{name})")
        parts.append(_trials(report, card))
    return {page: between_markers(page, "\n\n".join(parts)), **pictures}


def _section(report: Report, card: MethodCard) -> list[str]:
    how, config = report.how, report.config
    streams = " + ".join(config["streams"])
    words = [
        f"search {how['search']}, scheduler {how['scheduler']}, {how['trials']} trials of {report.budget:,} captions each, "
        f"seed {how['seed']}; {config['protocol']} protocol, validation split, {streams}"
    ]
    best = report.best()
    if report.chosen is not None and best is not None:
        marked = printed(card, str(config["variant"]), report.space)
        beside = f"; printed: {code(told(card, marked))}" if marked else ""
        words.append(f"Chosen: {code(told(card, best.point))}, validation CIDEr {best.value:.1f}{beside}.")
    return [f"## {escape(report.row)} with {escape(streams)}", *map(escape, words[:1]), *words[1:]]


def printed(card: MethodCard, variant: str, space: Mapping[str, Any]) -> dict[str, Any]:
    """The searched settings as the paper prints them for the row: those of its variant or of the card's paper protocol."""
    known = {name: setting.default for name, setting in card.settings.items()}
    known |= card.protocol_paper.settings if card.protocol_paper else {}
    known |= card.variants[variant].settings
    return {name: known[name] for name in space if not name.startswith(TRAIN) and known.get(name) is not None}


def _trials(report: Report, card: MethodCard) -> str:
    head = ("trial", "settings", "state", "validation CIDEr", "captions", "seconds")
    rows = [
        [
            f"**{trial.number}**" if trial.number == report.chosen else str(trial.number),
            code(told(card, trial.point)),
            trial.state if trial.message is None else f"{trial.state}: {clean(escape(trial.message))}",
            "–" if trial.value is None else f"{trial.value:.1f}",
            f"{trial.captions:,}",
            f"{trial.seconds:.0f}",
        ]
        for trial in report.trials
    ]
    return table(head, rows, right=("trial", "validation CIDEr", "captions", "seconds"))


def picture(report: Report, card: MethodCard) -> Any:
    """A curve over one number, a heat map over two; None for anything else or with fewer than two scores."""
    scored = [trial for trial in report.trials if trial.value is not None]
    names = list(report.space)
    numbers = all(_number(trial.point[name]) for trial in scored for name in names)
    if len(scored) < 2 or not numbers or len(names) > 2:
        return None
    marked = printed(card, str(report.config["variant"]), report.space)
    titles = [card.settings[name].alias or name if not name.startswith(TRAIN) else name for name in names]
    if len(names) == 1:
        from bench.figures.curves import response

        return response(_pairs(scored, names[0]), marked.get(names[0]), titles[0], _is_log(report, names[0]))
    from bench.figures.grids import heat_maps

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
