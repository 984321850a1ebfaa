"""Which records answer a target: `results/reproductions/<paper>/<target>.json`, written when `bench reproduce` has run.

A page is made from this file and the records it names, so that it can be made again without data, caches or checkpoints,
and so that no record of another experiment strays onto it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from bench import BenchError
from bench.declare.settings import Strict
from bench.declare.validation import from_pydantic
from bench.disk.limits import own_json, own_text
from bench.disk.whole import write_atomically
from bench.home import Home
from bench.plan.cells import Cell
from bench.records.schema import Record
from bench.records.store import RECORD, BadRecord, read_record
from bench.reports.blocks import UNKEYED

SCHEMA = 1
PLACE = r"^[A-Za-z0-9_.+-]+/[A-Za-z0-9_.+-]+/[0-9a-f]{16}$"


class Section(Strict):
    """One edition of a target. `cells` holds, by the place of a cell within its target, `dataset/method/key` of its seeds."""

    small: bool
    dataset: str | None
    protocol: Literal["standard", "paper"]
    cells: dict[str, list[Annotated[str, Field(pattern=PLACE)]]]


class Asked(Strict):
    """One target, its sections by name."""

    version: Literal[1] = Field(alias="schema")
    sections: dict[str, Section] = Field(default_factory=dict)


def folder(home: Home) -> Path:
    return home.results / "reproductions"


def path_of(home: Home, target: str) -> Path:
    """The file of `recnet/table7`."""
    return folder(home) / f"{target}.json"


def targets(home: Home) -> list[str]:
    """The targets that were asked for in this home, by name."""
    return [path.relative_to(folder(home)).with_suffix("").as_posix() for path in sorted(folder(home).glob("*/*.json"))]


def read(home: Home, target: str) -> Asked:
    """What was asked for of one target; nothing yet where there is no file. Raises BenchError for a damaged one."""
    path = path_of(home, target)
    try:
        return Asked.model_validate(own_json(own_text(path)))
    except FileNotFoundError:
        return Asked.model_validate({"schema": SCHEMA})
    except ValidationError as error:
        raise from_pydantic(error, Asked, f"{path} (remove it and run bench reproduce {target} again)") from None
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be read ({error}): remove it and run bench reproduce {target} again") from None


def note(home: Home, target: str, name: str, section: Section) -> None:
    """Write down that `section` answers a target, together with the earlier seeds of the same rows."""
    asked = read(home, target)
    before = asked.sections[name].cells if name in asked.sections else {}
    cells = {place: _with_earlier(home, keys, before.get(place, [])) for place, keys in section.cells.items()}
    asked.sections[name] = section.model_copy(update={"cells": cells})
    text = json.dumps(asked.model_dump(by_alias=True), indent=1, sort_keys=True)
    write_atomically(path_of(home, target), text + "\n")


def _with_earlier(home: Home, keys: list[str], earlier: list[str]) -> list[str]:
    """`keys`, and after them those of `earlier` whose records differ from theirs in the seed alone."""
    new = [record for record in (record_of(home, key) for key in keys) if record]
    rows, seeds = {_row(record) for record in new}, {record.seed for record in new}
    kept = []
    for key in earlier:
        record = record_of(home, key)
        if record and record.seed not in seeds and _row(record) in rows:
            kept.append(key)
    return [*keys, *kept]


def _row(record: Record) -> str:
    return json.dumps({name: value for name, value in record.config.items() if name not in UNKEYED}, sort_keys=True)


def place_of(cell: Cell) -> str:
    """How a section names a cell: `dataset/method/key`."""
    return f"{cell.config['dataset']}/{cell.method}/{cell.key}"


def record_of(home: Home, key: str) -> Record | None:
    """The record called `dataset/method/key`; None where it is gone or not sound (`bench list runs` says which)."""
    try:
        return read_record(home.results / key / RECORD)
    except BadRecord:
        return None


def records(home: Home, keys: Mapping[str, list[str]], place: str) -> list[Record]:
    """The records of one cell that are there, by seed."""
    found = [record_of(home, key) for key in keys.get(place, [])]
    return sorted((record for record in found if record), key=lambda record: record.seed)
