"""Short names of cells for legends and columns: what is compared, with the paper's letters, and what all its seeds share."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from typing import Any

from bench import BenchError
from bench.declare.card import MethodCard
from bench.declare.losses import lend
from bench.declare.registry import dataset, find_methods
from bench.declare.settings import GROUPS, whole
from bench.plan.cells import defaults, settings_of, shared_groups
from bench.plan.request import RunSpec
from bench.records.schema import canonical

SIZES = ("width", "embedding", "attention")  # usually changed together, and then said once
REWARDS = "train.rewards"  # an idea or its control: said first, for names are cut where room is short
DIGEST = 15  # letters that are shown of a file's digest


@functools.cache
def card_of(method: str) -> MethodCard | None:
    """The card of a method; None where it is not here, as for captions made elsewhere."""
    entry = find_methods().get(method)
    return entry.card if entry is not None else None


def symbol(method: str, name: str) -> str:
    """The paper's letter for a setting where it has one, else its name without its group."""
    card = card_of(method)
    setting = card.settings.get(name) if card is not None else None
    return (setting.letter if setting is not None else None) or name.rpartition(".")[2]


def word(method: str, name: str, value: Any) -> str:
    """A setting in a name: `λ=0.2`, `learning_rate=0.001`."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{symbol(method, name)}={text[:DIGEST] if text.startswith('sha256:') else text}"


def row(config: Mapping[str, Any]) -> str:
    """What is compared: `recnet` (its default variant), `recnet:global`, `hail +regions+motion` (beside frames)."""
    method, variant, streams = config["method"], config.get("variant"), list(config.get("streams") or {})
    card = card_of(method)
    others = "+".join(stream for stream in streams if stream != "frames")
    read = ["+" * ("frames" in streams) + others] if others else []
    return " ".join([method if not variant or (card and variant == card.default) else f"{method}:{variant}", *read])


def label(config: Mapping[str, Any]) -> str:
    """What all seeds of a cell share and other settings do not: its row and what its request changed, `recnet λ=0.2 epochs=5`.

    Cells of one label have read the same number of captions at the end of every epoch.
    """
    method, usual = config["method"], _usual(config)
    changed = {name: value for name, value in _settings(config).items() if usual.get(name, value) != value}
    alike = [name for name in SIZES[1:] if name in changed and changed[name] == changed.get(SIZES[0])]
    words = [row(config), *_loss(config)]
    told = sorted((name for name in changed if name not in alike), key=lambda name: name != REWARDS)
    words += [word(method, name, changed[name]) for name in told]
    words += ["paper"] if config["protocol"] == "paper" else []
    usual_splits = ("default", "paper") if config["protocol"] == "paper" else ("default",)
    words += [f"splits={config['splits']}"] if config.get("splits", "default") not in usual_splits else []
    words += ["/".join(map(str, config["subset"]))] if config.get("subset") else []
    words += [f"on {config['split']}"] if config["split"] != "test" else []
    changes = config.get("schedule")  # which they are no short name can say
    words += [f"schedule {hashlib.sha256(canonical(changes).encode()).hexdigest()[:6]}"] if changes else []
    return " ".join(words)


def _loss(config: Mapping[str, Any]) -> list[str]:
    """`loss=information`, and the settings of it that the request changed, `hail.λ=0.2`."""
    loss = config.get("loss")
    if loss is None:
        return []
    changed = lent_changes(loss, config["protocol"])
    return [f"loss={loss['name']}", *(f"{loss['provider']}.{word(loss['provider'], *one)}" for one in changed.items())]


def lent_changes(loss: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    """The settings of a loss on loan that its request changed; none where its provider is not here any more."""
    card = card_of(loss["provider"])
    if card is None:
        return {}
    try:
        usual = lend(loss["name"], find_methods(), {}, protocol)
    except BenchError:
        return {}
    assert usual is not None
    before, own = (card.whole(one["settings"], of_loss=True) for one in (usual.declared, loss))
    return {name: value for name, value in own.items() if before.get(name, value) != value}


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a cell by the names of the command line, those of its method without the method's name; with what its
    configuration leaves out, which comes first in its group."""
    groups = {group: whole(group, config[group]) for group in GROUPS if config.get(group)}
    shared = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
    own, card = config.get("settings") or {}, card_of(config["method"])
    return {**(card.whole(own) if own and card is not None else own), **shared}


def _usual(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a request without any would give the row of a cell; none where its method is not here any more.

    Those of data sets that are not called by their name are not known from a record: all that they set is a change.
    """
    return _asked_for_nothing(config["dataset"], config["method"], str(config.get("variant")), config["protocol"])


@functools.cache
def _asked_for_nothing(name: str, method: str, variant: str, protocol: str) -> dict[str, Any]:
    card = card_of(method)
    if card is None or variant not in card.variants:
        return {}
    its = card.variants[variant]
    try:
        definition = dataset(name)
        spec = RunSpec.model_validate({"methods": [f"{method}:{variant}"], "dataset": name, "protocol": protocol})
        settings, _ = settings_of(card, its, spec, definition)
        epochs = its.printed.epochs if protocol == "paper" else None
        return _settings({"method": method, "settings": settings, **shared_groups(card, spec, definition, epochs)})
    except BenchError:
        usual = defaults(card)
        return _settings({**usual, "method": method, "settings": {**usual["settings"], **its.settings}})
