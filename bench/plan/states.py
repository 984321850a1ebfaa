"""What `bench run` would find for each cell of a request, and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.declare.dataset import DatasetDefinition
from bench.declare.registry import MethodEntry, dataset
from bench.declare.settings import most_captions
from bench.disk.limits import own_json, own_text
from bench.disk.locks import lock_holder
from bench.errors import listing
from bench.evaluation.metrics import RANKED_BY, outdated
from bench.home import Home
from bench.plan.cells import Cell, requested
from bench.plan.request import RunSpec
from bench.plan.streams import not_cached
from bench.records.schema import NOT_KEYED, Record
from bench.records.store import RECORD, BadRecord, read_record

State = Literal["missing", "running", "done", "unscored", "failed", "stale", "unreadable"]


RESUME = "resume.pt"  # in the work folder of a cell: the state from which its training goes on
DAMAGED = "resume.damaged"  # in a cell's work folder: a resume state that could not be read, kept for whoever wants it
UNREADABLE = "mend it or move the cell's folder away, and bench run makes it anew"


@dataclass(frozen=True)
class Planned:
    """What a cell's state is and why. `budget` counts the training captions it will read, None where unknown."""

    cell: Cell
    state: State
    why: str
    budget: int | None


def plan(spec: RunSpec, home: Home, entries: dict[str, MethodEntry] | None = None) -> list[Planned]:
    """What `bench run` would find for each cell of the request. Reads records and sidecars, changes nothing."""
    definition = dataset(spec.dataset)
    planned = []
    for cell in requested(spec, home, entries):
        state, why = _state(cell, home)
        planned.append(Planned(cell, state, why, _budget(cell, definition, spec, home)))
    return planned


def _state(cell: Cell, home: Home) -> tuple[State, str]:
    if cell.pending:
        return "missing", f"{not_cached(cell.pending)} in the cache yet: bench run imports first"
    folder = cell.folder(home)
    holder = lock_holder(home, cell.key)
    if holder is not None:
        return "running", f"process {holder or 'unknown'} is working on it{_position(folder)}"
    try:
        return _recorded(read_record(folder / RECORD))
    except BadRecord as error:
        if not error.absent:
            return "unreadable", f"its record is left alone, for it is no valid one: {error.reason}; {UNREADABLE}"
    if (folder / "work").is_dir():
        return "missing", f"interrupted{_position(folder)}: bench run goes on from its last checkpoint"
    return _compared(cell, home)


def _recorded(record: Record) -> tuple[State, str]:
    if record.failure is not None:
        failure = record.failure
        return "failed", f"{failure.stage}: {failure.type}: {failure.message}; --retry-failed runs it again"
    if record.state == "unscored":
        return "unscored", "trained and decoded: bench run scores it"
    if old := outdated(record.signatures.get(record.split, {})):
        return "unscored", f"scored by another version of {listing(old)}: bench run scores it again, without training"
    cider = record.scores.get(record.split, {}).get(RANKED_BY)
    return "done", f"CIDEr {cider:.1f}" if cider is not None else "recorded"


def _position(folder: Path) -> str:
    """Where an unfinished cell stands, from its `work/progress.json`; empty where that cannot be read."""
    try:
        progress = own_json(own_text(folder / "work" / "progress.json"))
        return f" in phase {progress['phase']}, epoch {progress['epoch']}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


# A record that differs from a cell in these alone answered the same question about what has changed since.
_CHANGES = {
    "captions_digest": "the captions or the split lists changed",
    "method_digest": "the code of the method changed",
    "loss.provider_digest": "the code of the loss changed",
    "engine": "the engine changed",
    "schema": "the form of a cell changed",
    "tokenizer_version": "the tokenizer changed",
}


_IDENTITY = ("method", "variant", "dataset", "splits", "subset", "split", "protocol", "seed")


def _compared(cell: Cell, home: Home) -> tuple[State, str]:
    """Stale if a record answers the same request for other files or code; else missing, with the nearest record."""
    nearest: list[str] | None = None
    for path in sorted(cell.folder(home).parent.glob(f"*/{RECORD}")):
        try:
            config = read_record(path).config
        except BadRecord:
            continue  # the page of records names it; here it only cannot be compared
        if any(config.get(name) != cell.config[name] for name in _IDENTITY):
            continue
        changed = differences(config, cell.config)
        streams = [name.partition(".")[2] for name in changed if name.startswith("streams.")]
        others = [name for name in changed if name not in _CHANGES and not name.startswith("streams.")]
        if not others and config.get("streams", {}).keys() == cell.config["streams"].keys():
            reasons = [_CHANGES[name] for name in changed if name in _CHANGES]
            reasons += [f"the features of stream {listing(streams)} changed"] if streams else []
            return "stale", f"{' and '.join(reasons)} since record {path.parent.name}"
        nearest = min(nearest or others, others or changed, key=len)
    if nearest is None:
        return "missing", "not run yet"
    return "missing", f"not run yet; a record with other {listing(nearest[:4])}{' ...' if nearest[4:] else ''} exists"


def differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the keyed values in which two configurations differ."""
    names = []
    for name in sorted(one.keys() | other.keys()):
        if not prefix and name in NOT_KEYED:
            continue
        mine, theirs = one.get(name), other.get(name)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            names += differences(mine, theirs, f"{prefix}{name}.")
        elif mine != theirs:
            names.append(prefix + name)
    return names


def _budget(cell: Cell, definition: DatasetDefinition, spec: RunSpec, home: Home) -> int | None:
    """Training captions times epochs, where the definition tells how many captions the training split has."""
    if spec.subset or cell.config["splits"] != "default" or definition.subset:
        return None
    source, _ = definition.caption_source(home)
    counts = source.counts.get("train")
    if counts is None or counts.captions is None:
        return None
    train = cell.config["train"]
    return most_captions(train, cell.config["phases"], round(counts.captions * train["data_fraction"]))
