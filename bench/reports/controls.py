"""Claims beside their controls: which rows of a table are an idea and the same system without it.

The pairs are those of `datasets/ideas/study.yaml`, which names for each paper's idea the control that has the same phases,
budget and streams and differs in one thing. They hold on every data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from bench.declare.registry import find_methods
from bench.home import data_folder
from bench.reports.blocks import Row


@dataclass(frozen=True)
class Pair:
    """The names of an idea's and its control's rows; where both are one, `control_settings` tell the control from the idea."""

    question: str
    idea: str
    control: str
    control_settings: tuple[tuple[str, Any], ...]


def declared() -> tuple[Pair, ...]:
    """All pairs, in the order of the file."""
    study = yaml.safe_load((data_folder("datasets") / "ideas" / "study.yaml").read_text(encoding="utf-8"))
    found = []
    for pair in study["pairs"].values():
        idea, control = pair["idea"], pair["control"]
        changed = control.get("settings", {}) if idea["run"] == control["run"] else {}
        names = _names(control["run"].partition(":")[0]) if changed else {}
        settings = tuple((names.get(name, name), value) for name, value in sorted(changed.items()))
        found.append(Pair(pair["question"], idea["run"], control["run"], settings))
    return tuple(found)


def _names(method: str) -> dict[str, str]:
    """A method's settings by alias: `lambda` is reconstruction_weight."""
    entry = find_methods().get(method)
    settings = entry.card.settings if entry and entry.card else {}
    return {setting.alias: name for name, setting in settings.items() if setting.alias}


def pairs(rows: Sequence[Row], claims: Sequence[Pair]) -> list[tuple[int, int, str]]:
    """(row of the idea, row of the control, question) of every one of `claims` that the rows of a table hold."""
    plain = [n for n, row in enumerate(rows) if not row.external and not row.first.config.get("loss")]
    found = []
    for pair in claims:
        controls = [n for n in plain if rows[n].name == pair.control and _is_control(rows[n], pair)]
        ideas = [n for n in plain if rows[n].name == pair.idea and n not in controls]
        found += [(idea, control, pair.question) for idea in ideas for control in controls]
    return found


def _is_control(row: Row, pair: Pair) -> bool:
    settings = row.first.config.get("settings") or {}
    return all(settings.get(name) == value for name, value in pair.control_settings)
