"""What is asked for, as a list of cells: their configurations, their keys, and what would happen to each."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench import BenchError
from bench.card import MethodCard, Printed, Variant
from bench.data.text import TOKENIZER_VERSIONS
from bench.definition import DatasetDefinition
from bench.digests import FileDigests, captions_digest
from bench.evaluation.versions import outdated
from bench.home import Home
from bench.losses import LentLoss, lend
from bench.records.keys import NOT_KEYED, cell_key
from bench.records.schema import Record
from bench.records.store import RECORD, BadRecord, read_record
from bench.registry import MethodEntry, dataset, find_methods, method_digest, method_entry
from bench.request import RunSpec, parse
from bench.sentences import listing, unknown
from bench.settings import GROUPS, Search, Strict, Text, Train, given
from bench.streams import stream_fingerprints

SCHEMA = 1
# Raised by hand when shared code changes the numbers of a cell; a golden-loss test fails when that was forgotten.
ENGINE = 2
# Shared settings that are younger than the first records. A configuration names them only where they differ from their
# defaults, so that a cell keeps the key that it had before they came.
ADDED = {"train": ("decay", "decay_every", "precision")}

State = Literal["missing", "running", "done", "unscored", "failed", "stale"]


@dataclass(frozen=True)
class Cell:
    """One (method, variant, data set, split, protocol, streams, settings, seed). `config` is plain JSON.

    `pending` names streams that are not in the cache yet; such a cell has no key of its own until they are.
    """

    config: dict[str, Any]
    pending: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What names its folder: a digest of all that decides the result."""
        return cell_key(self.config)

    @property
    def method(self) -> str:
        return str(self.config["method"])

    @property
    def label(self) -> str:
        more = [stream for stream in self.config["streams"] if stream != "frames"]
        streams = f" with {'+'.join(more)}" if more else ""
        loss = [f"loss={self.config['loss']['name']}"] if "loss" in self.config else []
        changed = "".join(f" {one}" for one in [*loss, *self.config.get("changed", [])])
        return f"{self.method}:{self.config['variant']}{streams}{changed} seed {self.config['seed']}"

    def folder(self, home: Home) -> Path:
        """Where the cell's record lies; the trial of a search has no record, and its files may be thrown away."""
        if "tuning" in self.config:
            return home.work / "tune" / str(self.config["tuning"]) / self.key
        return home.results / str(self.config["dataset"]) / self.method / self.key


def cells(spec: RunSpec, home: Home, entries: dict[str, MethodEntry] | None = None) -> list[Cell]:
    """The cells of a request, in its order, each once. `entries` are all methods, for callers that have found them already.

    Raises BenchError for what cannot run: an unknown name, absent captions, a stream that is missing, of a shape that
    the paper does not have, or not in the cache yet.
    """
    found = requested(spec, home, entries)
    for cell in found:
        if cell.pending:
            name = cell.config["dataset"]
            raise BenchError(
                f"{_not_cached(cell.pending, f' of {name}')} in the cache yet; next: "
                f"bench features import dataset={spec.dataset}"
            )
    return found


def _not_cached(streams: Sequence[str], of: str = "") -> str:
    return f"stream {streams[0]}{of} is not" if len(streams) == 1 else f"streams {listing(streams)}{of} are not"


def requested(spec: RunSpec, home: Home, entries: dict[str, MethodEntry] | None = None) -> list[Cell]:
    """As `cells`, but streams that can still be imported are `pending` and their fingerprints null."""
    definition = dataset(spec.dataset)
    entries = find_methods() if entries is None else entries
    chosen = [pair for word in spec.methods for pair in variants(word, entries)]
    _check_shared(spec, [card for card, _ in chosen])
    splits = _splits(spec, definition)
    files = FileDigests(home)
    loss = lend(spec.loss, entries, spec.overrides, spec.protocol)
    common = {
        "schema": SCHEMA,
        "dataset": definition.name,
        "dataset_path": str(definition.path),
        "splits": splits,
        "subset": list(spec.subset) if spec.subset else None,
        "split": spec.split,
        "protocol": spec.protocol,
        "captions_digest": captions_digest(definition, splits, home, files),
        "engine": ENGINE,
        "threads": spec.threads,
        "device": spec.device,
        **({"loss": loss.declared} if loss else {}),  # without the key it is cross-entropy
    }
    digests = {card.name: method_digest(_folder(entries[card.name])) for card, _ in chosen}
    unique: dict[str, Cell] = {}
    for card, name in chosen:
        narrow = card.reading(name)
        for reading in _readings(narrow, spec, definition):
            streams, absent = stream_fingerprints(f"{card.name}:{name}", narrow, definition, reading, home)
            row = _row(card, name, spec, definition, absent, loss)
            row |= _files(card, row["settings"], files)
            for seed in spec.seeds:
                config = {
                    **common,
                    **row,
                    "tokenizer_version": TOKENIZER_VERSIONS[row["text"]["tokenizer"]],
                    "streams": streams,
                    "absent_streams": absent,
                    "seed": seed,
                    "method_digest": digests[card.name],
                }
                cell = Cell(config, tuple(stream for stream, known in streams.items() if known is None))
                unique.setdefault(cell.key, cell)
    return list(unique.values())


def _splits(spec: RunSpec, definition: DatasetDefinition) -> str:
    """The split rule of a request: the one that it names; else, under protocol=paper, the data set's rule `paper` where it
    has one, for a printed number belongs to its paper's lists; else `default`.

    Raises BenchError for split=test of a rule whose val and test are one list: what it reports is validation.
    """
    unnamed = "splits" not in spec.model_fields_set
    name = "paper" if unnamed and spec.protocol == "paper" and "paper" in definition.split_variants else spec.splits
    lists = definition.split_rule(name).lists
    if lists and lists["val"] == lists["test"] and spec.split == "test":
        raise BenchError(
            f"data set {definition.name} under splits={name} chooses the epoch on the clips that it reports: val and test are "
            "one list; ask for split=val, and the page says so"
        )
    return name


def _readings(card: MethodCard, spec: RunSpec, definition: DatasetDefinition) -> list[RunSpec]:
    """The request, and under the standard protocol its frames-only twin where a method reads more than `frames`.

    Rows are ranked per stream set: without the twin such a method would stand in no table with the others.
    """
    wanted = {*card.streams.needs, *card.streams.uses} & definition.streams.keys()
    alone = "frames" in wanted and len(wanted) > 1 and set(card.streams.needs) <= {"frames"}
    if spec.protocol != "standard" or spec.streams is not None or not alone:
        return [spec]
    return [spec, spec.model_copy(update={"streams": ["frames"]})]


def _folder(entry: MethodEntry) -> Path:
    assert entry.folder is not None
    return entry.folder


def variants(word: str, entries: dict[str, MethodEntry]) -> list[tuple[MethodCard, str]]:
    """`recnet` is the default variant, `recnet:global` that one, `recnet:*` all of them."""
    name, colon, variant = word.partition(":")
    card = method_entry(name, entries).card
    assert card is not None
    if not colon:
        return [(card, card.default)]
    if variant == "*":
        return [(card, one) for one in card.variants]
    if variant not in card.variants:
        raise unknown("variant", variant, [*card.variants, "*"], f"method {name}")
    return [(card, variant)]


def _row(
    card: MethodCard,
    name: str,
    spec: RunSpec,
    definition: DatasetDefinition,
    absent: Sequence[str],
    loss: LentLoss | None,
) -> dict[str, Any]:
    """The part of a configuration that is the same for all seeds of one variant."""
    variant = card.variants[name]
    settings, changed = _settings(card, variant, spec, definition)
    card.refuse_impossible(settings, name)
    if loss:
        loss.check_taken(card, name, settings)
    lost = [card.name_without[stream] for stream in absent if stream in card.name_without]
    notes = [*lost, *(loss.notes if loss else []), *changed]
    printed = variant.printed if spec.protocol == "paper" else Printed()
    return {
        "method": card.name,
        "variant": name,
        "title": f"{variant.title} ({', '.join(notes)})" if notes else variant.title,
        "changed": changed,
        "settings": settings,
        "phases": dict(printed.phases or variant.phases or card.phases),
        "train": _group(Train, "train", card, spec, definition.train, printed.epochs),
        "search": _group(Search, "search", card, spec, None),
        "text": _group(Text, "text", card, spec, definition.text),
    }


def _group(
    model: type[Strict],
    name: str,
    card: MethodCard,
    spec: RunSpec,
    of_dataset: Strict | None,
    epochs: int | None = None,
) -> dict[str, Any]:
    """A group of shared settings: engine, then data set, then the paper (protocol=paper), then the request.

    Under protocol=paper the paper's word is stronger than the data set's, or it would not be the paper's setting; `epochs`
    is its word on the row alone.
    """
    merged = (of_dataset or model()).model_dump()
    if spec.protocol == "paper":
        assert card.protocol_paper is not None
        merged |= given(getattr(card.protocol_paper, name))
    if epochs is not None:
        merged["epochs"] = epochs
    merged |= given(getattr(spec, name))
    return {
        key: value
        for key, value in merged.items()
        if key not in ADDED.get(name, ()) or value != model.model_fields[key].default
    }


def _settings(
    card: MethodCard, variant: Variant, spec: RunSpec, definition: DatasetDefinition
) -> tuple[dict[str, Any], list[str]]:
    """The settings of one variant, and the ones that the request changed, as `lambda=0.2`, for the row's name."""
    settings = {name: setting.default for name, setting in card.settings.items()}
    settings |= _shared(card, given(definition.model), f"{definition.path}: model")
    if spec.protocol == "paper":
        if card.protocol_paper is None:
            raise BenchError(f"the card of {card.name} has no protocol_paper; use protocol=standard")
        settings |= card.protocol_paper.settings
    settings |= variant.settings
    settings |= _shared(card, given(spec.model), "model")
    own = card.checked(spec.overrides.get(card.name, {}), card.name)
    changed = [card.told(name, value) for name, value in own.items() if value != settings[name]]
    return settings | own, changed


def _files(card: MethodCard, settings: dict[str, Any], digests: FileDigests) -> dict[str, Any]:
    """The `settings` with each file as `sha256:DIGEST` of its content, and `files`: where those lie on this machine."""
    named = {name: value for name, value in settings.items() if card.settings[name].names_file(value)}
    if not named:
        return {}
    paths = {name: Path(value).expanduser().resolve() for name, value in named.items()}
    contents = {name: f"sha256:{digests.of(path)}" for name, path in paths.items()}
    digests.save()
    return {"settings": settings | contents, "files": {contents[name]: str(path) for name, path in paths.items()}}


def _shared(card: MethodCard, values: dict[str, Any], where: str) -> dict[str, Any]:
    """Those of `values` that the card marks as shared, checked against the card's own ranges."""
    mine = {name: value for name, value in values.items() if name in card.settings and card.settings[name].shared}
    return card.checked({name: value for name, value in mine.items() if value is not None}, where)


def _check_shared(spec: RunSpec, cards: list[MethodCard]) -> None:
    """A shared setting that no method of the request has would be ignored; it is an error."""
    for name in given(spec.model):
        if not any(name in card.settings and card.settings[name].shared for card in cards):
            names = dict.fromkeys(card.name for card in cards)
            raise BenchError(f"model.{name} is set, but none of the methods {listing(names)} has such a setting")


def defaults(card: MethodCard) -> dict[str, Any]:
    """The groups of a cell's configuration as card and engine have them, when neither data set nor request says anything."""
    return {
        "settings": {name: setting.default for name, setting in card.settings.items()},
        "phases": dict(card.phases),
        **{name: GROUPS[name]().model_dump() for name in ("train", "search", "text")},
    }


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
        return "missing", f"{_not_cached(cell.pending)} in the cache yet: bench run imports first"
    folder = cell.folder(home)
    holder = lock_holder(home, cell.key)
    if holder is not None:
        return "running", f"process {holder or 'unknown'} is working on it{_position(folder)}"
    if (folder / RECORD).is_file():
        try:
            return _recorded(read_record(folder / RECORD))
        except BadRecord as error:
            return "missing", f"its record cannot be read: {error.reason}; bench run makes it again"
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
    cider = record.scores.get(record.split, {}).get("cider")
    return "done", f"CIDEr {cider:.1f}" if cider is not None else "recorded"


def _position(folder: Path) -> str:
    """Where an unfinished cell stands, from its `work/progress.json`; empty where that does not tell."""
    try:
        told = json.loads((folder / "work" / "progress.json").read_text(encoding="utf-8"))
        return f" in phase {told['phase']}, epoch {told['epoch']}"
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
        changed = _differences(config, cell.config)
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


def _differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted names of the keyed values in which two configurations differ."""
    names = []
    for name in sorted(one.keys() | other.keys()):
        if not prefix and name in NOT_KEYED:
            continue
        mine, theirs = one.get(name), other.get(name)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            names += _differences(mine, theirs, f"{prefix}{name}.")
        elif mine != theirs:
            names.append(prefix + name)
    return names


def lock_holder(home: Home, key: str) -> str | None:
    """The process that works on a cell, as text, empty where it left no number; None when nobody does.

    The lock of `bench.execution.locks` is the kernel's, so it is free as soon as its holder ends, however it ended.
    """
    path = home.work / "locks" / f"{key}.lock"
    try:
        with path.open("r", encoding="ascii") as file:
            try:
                fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip()
    except OSError:
        return None
    return None


def _budget(cell: Cell, definition: DatasetDefinition, spec: RunSpec, home: Home) -> int | None:
    """Training captions times epochs, where the definition tells how many captions the training split has."""
    if spec.subset or cell.config["splits"] != "default" or definition.subset:
        return None
    source, _ = definition.caption_source(home)
    counts = source.counts.get("train")
    if counts is None or counts.captions is None:
        return None
    train = cell.config["train"]
    return round(counts.captions * train["data_fraction"]) * int(train["epochs"])


__all__ = ["ENGINE", "Cell", "Planned", "RunSpec", "cells", "defaults", "parse", "plan", "requested"]
