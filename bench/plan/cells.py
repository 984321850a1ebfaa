"""What is asked for, as a list of cells: their configurations, their keys, and what would happen to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.data.folds import check_fold
from bench.data.text import TOKENIZER_VERSIONS
from bench.declare.card import MethodCard, Printed, Variant
from bench.declare.dataset import VALIDATION, DatasetDefinition
from bench.declare.losses import LentLoss, lend
from bench.declare.registry import MethodEntry, dataset, find_methods, method_digest, variants
from bench.declare.settings import ADDED_GROUPS, CONVERGED, GROUPS, given, keyed
from bench.disk.digests import FileDigests
from bench.errors import listing
from bench.home import Home, written_path
from bench.plan.request import RunSpec
from bench.plan.streams import captions_digest, not_cached, stream_fingerprints
from bench.records.schema import cell_key

SCHEMA = 1
# Raised by hand when shared code changes the numbers of a cell; a golden-loss test fails when that was forgotten.
ENGINE = 2


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
                f"{not_cached(cell.pending, f' of {name}')} in the cache yet; next: "
                f"bench features import dataset={spec.dataset}"
            )
    return found


def requested(spec: RunSpec, home: Home, entries: dict[str, MethodEntry] | None = None) -> list[Cell]:
    """As `cells`, but streams that can still be imported are `pending` and their fingerprints null."""
    definition = dataset(spec.dataset)
    entries = find_methods() if entries is None else entries
    chosen = [pair for word in spec.methods for pair in variants(word, entries)]
    _check_shared(spec, [card for card, _ in chosen])
    splits = splits_of(spec, definition)
    if _converged(spec, definition):
        _check_converged(spec, definition, splits, home)
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
        **({} if spec.reuse else {"reuse": False}),
        **_folds(spec, definition, splits),
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


def splits_of(spec: RunSpec, definition: DatasetDefinition) -> str:
    """The split rule of a request: the one that it names; else, under protocol=paper, the data set's rule that is called `paper`
    or like the one method that is asked for, since a printed number belongs to its paper's lists; else `default`.

    Raises BenchError for split=test of a rule whose val and test are one list: what it reports is validation.
    """
    name = spec.splits
    if spec.protocol == "paper" and "splits" not in spec.model_fields_set:
        methods = {word.partition(":")[0] for word in spec.methods}
        own = ["paper", *(methods if len(methods) == 1 else ())]  # rows of several papers share one rule
        name = next((one for one in own if one in definition.split_variants), name)
    lists = definition.split_rule(name).lists
    if lists and lists["val"] == lists["test"] and spec.split == "test":
        raise BenchError(
            f"data set {definition.name} under splits={name} chooses the epoch on the clips that it reports: val and test are "
            "one list; ask for split=val, and the page says so"
        )
    return name


def _folds(spec: RunSpec, definition: DatasetDefinition, splits: str) -> dict[str, int]:
    """How many folds the split rule deals, empty for a rule without; fold k is that of seed k."""
    folds = definition.split_rule(splits).folds
    if folds is None:
        return {}
    check_fold(definition, folds, max(spec.seeds))
    if spec.split != "test":
        raise BenchError(
            f"data set {definition.name} under splits={splits} reports on its folds: leave split={spec.split} out"
        )
    return {"folds": folds}


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
    settings, changed = settings_of(card, variant, spec, definition)
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
        "settings": card.keyed(settings),
        "phases": dict(printed.phases or variant.phases or card.phases),
        **shared_groups(card, spec, definition, printed.epochs),
    }


def shared_groups(
    card: MethodCard, spec: RunSpec, definition: DatasetDefinition, epochs: int | None = None
) -> dict[str, dict[str, Any]]:
    """The groups of shared settings by name: engine, then data set, then the paper (protocol=paper), then the request.

    Under protocol=paper the paper is stronger than the data set, or it would not be the paper's setting; `epochs` is what it
    prints for the row alone. The sizes of `model` are not among them: they go into the settings of each method.
    """
    groups = {}
    for name, model in GROUPS.items():
        if name == "model":
            continue
        merged = model().model_dump() | given(getattr(definition, name, None))
        if name == "train" and _converged(spec, definition):
            merged = model().model_dump() | CONVERGED | given(definition.train)
        if spec.protocol == "paper":
            merged |= given(getattr(card.protocol_paper, name, None))
        if name == "train" and epochs is not None:
            merged["epochs"] = epochs
        merged = keyed(name, merged | given(getattr(spec, name)))
        if merged or name not in ADDED_GROUPS:
            groups[name] = merged
    return groups


def _converged(spec: RunSpec, definition: DatasetDefinition) -> bool:
    """Whether the request, or else the data set, asks for budget=converged."""
    return bool((given(definition.train) | given(spec.train)).get("budget") == "converged")


def _check_converged(spec: RunSpec, definition: DatasetDefinition, splits: str, home: Home) -> None:
    """Raise BenchError where budget=converged could not tell when training has come to its end."""
    if spec.protocol == "paper":
        raise BenchError("train.budget=converged is no paper's schedule: use protocol=standard, or leave it out")
    patience = (CONVERGED | given(definition.train) | given(spec.train))["patience"]
    if patience is None or patience < CONVERGED["patience"]:
        raise BenchError(
            f"train.budget=converged waits for {CONVERGED['patience']} validations without a better score or more, and "
            f"train.patience is {patience}: raise it, or leave it out"
        )
    from bench.data.corpus import load_corpus  # it needs numpy, which plans of other budgets do without

    rule = definition.split_rule(splits)
    count = len(load_corpus(definition, home, splits=splits, subset=spec.subset, fold=spec.seeds[0]).splits["val"])
    if rule.folds:  # each of which has at least so many
        count = min(count, rule.validation)
    if count < VALIDATION:
        raise BenchError(
            f"train.budget=converged chooses by the validation clips when to stop, and data set {definition.name} has {count} of "
            f"them (splits={splits}{', subset=' + '/'.join(map(str, spec.subset)) if spec.subset else ''}): it takes "
            f"{VALIDATION} or more; use another split rule, or leave it out"
        )


def settings_of(
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
    changed = [card.label(name, value) for name, value in own.items() if value != settings[name]]
    return settings | own, changed


def _files(card: MethodCard, settings: dict[str, Any], digests: FileDigests) -> dict[str, Any]:
    """The `settings` with each file as `sha256:DIGEST` of its content, and `files`: where those lie on this machine."""
    named = {name: value for name, value in settings.items() if card.settings[name].names_file(value)}
    if not named:
        return {}
    paths = {name: written_path(value).resolve() for name, value in named.items()}
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
        **{name: model().model_dump() for name, model in GROUPS.items() if name != "model"},
    }
