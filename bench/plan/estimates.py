"""What a cell will cost, from the records of like cells: same method, variant, streams, sizes, batch and kind of machine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.declare.settings import Model, most_captions
from bench.home import Home
from bench.plan.cells import Cell
from bench.records.schema import Record
from bench.records.store import BadRecord, read_record, record_paths

NEAREST = 3  # records asked, those of the nearest budgets
FARTHEST = 10  # a record of a budget that is so many times as large, or as small, tells nothing
NO_LIKE_CELL = "no like cell recorded"
NO_BUDGET = "its training captions are not counted yet"
SAME_CAPTIONS = ("dataset", "splits", "subset", "captions_digest")


@dataclass(frozen=True)
class Estimate:
    """`captions` that are read in training, `seconds` of training, decoding and scoring, `memory_mb` at the peak; None where
    no record tells. `like` counts the records that were asked, `why` says what is not known, and why."""

    captions: int | None
    seconds: float | None
    memory_mb: float | None
    like: int
    why: str = ""


def estimates(cells: Sequence[tuple[Cell, int | None]], home: Home) -> list[Estimate]:
    """The cost of each cell, whose training captions are given where they are known. Reads records, changes nothing."""
    known: dict[tuple[str, str], list[Record]] = {}
    found = []
    for cell, captions in cells:
        place = str(cell.config["dataset"]), cell.method
        if place not in known:
            known[place] = list(records_of(home, *place))
        found.append(_estimate(cell.config, captions, known[place]))
    return found


def records_of(home: Home, dataset: str, method: str) -> Iterator[Record]:
    """The records of a method on a data set that came to their end; those that cannot be read are named on the pages."""
    for path in record_paths(home.results, dataset):
        if path.parent.parent.name != method:
            continue
        try:
            record = read_record(path)
        except BadRecord:
            continue
        if record.failure is None and record.ledger is not None and record.external is None:
            yield record


def peak_on_gpu(config: Mapping[str, Any], records: Sequence[Record]) -> float | None:
    """MiB of a GPU that cells like this one have taken at most; None where none has run on a GPU."""
    on_gpu = [record for record in records if _kind(_device(record)) == "cuda"]
    own = _likeness(config, "cuda") if on_gpu else ()
    like = [record for record in on_gpu if _likeness(record.config, "cuda") == own]
    return max((used for record in like if (used := record.spent("peak_memory_mb")) is not None), default=None)


def _estimate(config: dict[str, Any], captions: int | None, records: Sequence[Record]) -> Estimate:
    own = _likeness(config, config["device"])
    like = [record for record in records if _likeness(record.config, _device(record)) == own]
    budget = captions or next((found for record in records if (found := _budget(config, record))), None)
    if not like:
        return Estimate(budget, None, None, 0, NO_LIKE_CELL)
    memory = [used for record in like if (used := record.spent("peak_memory_mb")) is not None]
    peak = max(memory) if memory else None
    if budget is None:
        return Estimate(None, None, peak, len(like), NO_BUDGET)
    timed = [
        (distance, seconds)
        for record in like
        if (seconds := _seconds(record, budget)) is not None
        and (distance := _distance(record, budget)) <= math.log(FARTHEST)
    ]
    nearest = sorted(timed)[:NEAREST]
    if not nearest:
        return Estimate(budget, None, peak, len(like), f"{NO_LIKE_CELL} of a near budget")
    return Estimate(budget, median(seconds for _, seconds in nearest), peak, len(like))


def _likeness(config: Mapping[str, Any], device: str) -> tuple[Any, ...]:
    """What cells have in common that cost alike."""
    train, settings = config["train"], config["settings"]
    return (
        config["variant"],
        sorted(config["streams"]),
        {name: settings[name] for name in Model.model_fields if name in settings},
        [train.get(name) for name in ("captions", "captions_per_clip", "accumulate", "precision")],
        config.get("threads"),
        _kind(device),
    )


def _device(record: Record) -> str:
    """What a recorded cell computed on."""
    return (record.provenance.device if record.provenance else None) or str(record.config["device"])


def _kind(device: str) -> str:
    """`cpu`, or `cuda` for any GPU; `auto` is what this machine has, without asking torch."""
    if device == "auto":
        return "cuda" if Path("/dev/nvidia0").exists() else "cpu"
    return "cpu" if device.startswith("cpu") else "cuda"


def _budget(config: dict[str, Any], record: Record) -> int | None:
    """The training captions of a cell by those of a record that was trained on the same ones."""
    theirs = record.config
    if record.ledger is None or not record.ledger.budget or any(theirs[name] != config[name] for name in SAME_CAPTIONS):
        return None
    if theirs["train"]["data_fraction"] != config["train"]["data_fraction"]:
        return None
    once = record.ledger.budget / most_captions(theirs["train"], theirs["phases"], 1)
    return most_captions(config["train"], config["phases"], round(once))


def _distance(record: Record, budget: int) -> float:
    return abs(math.log(budget / (record.spent("captions") or budget * FARTHEST**2)))


def _seconds(record: Record, budget: int) -> float | None:
    """Seconds for `budget` captions at the pace of a record, and those of its decoding and scoring."""
    fit, captions = record.spent("fit_seconds"), record.spent("captions")
    if fit is None or not captions:
        return None
    return fit / captions * budget + (record.spent("decode_seconds") or 0) + (record.spent("score_seconds") or 0)
