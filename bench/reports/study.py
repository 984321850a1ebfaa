"""The study of ideas: each paper's idea and its own control, as `datasets/ideas/study.yaml` declares them.

A control has the phases, budget and streams of its idea and differs in one thing. The pairs hold on every data set: a table that
has rows of both shows them beside each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from bench.declare.card import PLAIN_LOSS
from bench.declare.registry import find_methods, read_model
from bench.declare.settings import Strict, Train
from bench.home import data_folder
from bench.reports.blocks import Row


class Arm(Strict):
    """One side of a comparison: method:variant, with settings of that method changed."""

    run: str = Field(pattern=r"^[a-z0-9_]+:[a-z0-9_]+$")
    loss: str = PLAIN_LOSS
    settings: dict[str, Any] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        """`vre:no_audio beta=0.0`, `transformer:xe loss=information`."""
        loss = {} if self.loss == PLAIN_LOSS else {"loss": self.loss}
        return " ".join([self.run, *(f"{name}={value}" for name, value in {**loss, **self.settings}.items())])


class Pair(Strict):
    """An idea and its control, which differ in one thing, on the same streams; `train` holds for both."""

    paper: str
    question: str
    idea: Arm
    control: Arm
    streams: list[str] = Field(min_length=1)
    train: Train = Train()


class Study(Strict):
    """Comparisons on one corpus with seeds named beforehand."""

    dataset: str
    seeds: list[int] = Field(min_length=2)
    pairs: dict[str, Pair] = Field(min_length=1)


def declaration() -> Path:
    """The file that declares the study."""
    return data_folder("datasets") / "ideas" / "study.yaml"


def study() -> Study:
    """The declared study. Raises BenchError for a declaration that is not sound."""
    return read_model(declaration(), Study)


@dataclass(frozen=True)
class Claim:
    """The names of an idea's and its control's rows; where both are one, `control_settings` tell the control from the idea."""

    question: str
    idea: str
    control: str
    control_settings: tuple[tuple[str, Any], ...]


def claims() -> tuple[Claim, ...]:
    """The pairs of the study by the names of rows, in the order of the file."""
    found = []
    for pair in study().pairs.values():
        changed = pair.control.settings if pair.idea.run == pair.control.run else {}
        names = _aliases(pair.control.run.partition(":")[0]) if changed else {}
        settings = tuple((names.get(name, name), value) for name, value in sorted(changed.items()))
        found.append(Claim(pair.question, pair.idea.run, pair.control.run, settings))
    return tuple(found)


def _aliases(method: str) -> dict[str, str]:
    """A method's settings by alias: `lambda` is reconstruction_weight."""
    entry = find_methods().get(method)
    settings = entry.card.settings if entry and entry.card else {}
    return {setting.alias: name for name, setting in settings.items() if setting.alias}


def pairs(rows: Sequence[Row], declared: Sequence[Claim]) -> list[tuple[int, int, str]]:
    """(row of the idea, row of the control, question) of every declared claim that the rows of a table hold.

    The claims are of equal captions, with what a method is trained by as its card has it: rows that were trained to the end
    stand on the page of effects.
    """
    plain = [n for n, row in enumerate(rows) if not row.external and not row.first.config.get("loss") and _usual(row)]
    found = []
    for claim in declared:
        controls = [n for n in plain if rows[n].name == claim.control and _is_control(rows[n], claim)]
        ideas = [n for n in plain if rows[n].name == claim.idea and n not in controls]
        found += [(idea, control, claim.question) for idea in ideas for control in controls]
    return found


def _usual(row: Row) -> bool:
    return row.rewarded and (row.first.config.get("train") or {}).get("budget") != "converged"


def _is_control(row: Row, claim: Claim) -> bool:
    settings = row.first.config.get("settings") or {}
    return all(settings.get(name) == value for name, value in claim.control_settings)
