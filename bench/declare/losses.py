"""`loss=NAME`: a loss that one method provides and others train by. Cards only: no method is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench import BenchError
from bench.declare.card import PLAIN_LOSS, MethodCard
from bench.declare.registry import MethodEntry, method_digest
from bench.errors import listing, unknown


@dataclass(frozen=True)
class LentLoss:
    """A loss on loan. `declared` is the `loss` of a cell's configuration: its name, who provides it, its settings and the
    digest of the provider's code. `notes` tell it in the name of a row; `takers` are the methods that take it."""

    declared: dict[str, Any]
    notes: list[str]
    takers: list[str]

    def check_taken(self, card: MethodCard, variant: str, settings: Mapping[str, Any]) -> None:
        """Raise BenchError where `variant` of a method, with `settings`, does not train by a loss on loan."""
        name, owner = self.declared["name"], self.declared["provider"]
        if card.name == owner:
            why = f"{owner} provides the loss {name} and has it by its own variants and settings, not by loss={name}"
        elif card.takes.loss is None:
            why = f"{card.name} takes no loss of another method, so not loss={name}"
        elif not card.takes_loss(settings):
            needs = " and ".join(f"{card.name}.{one}={' or '.join(map(str, v))}" for one, v in card.takes.loss.items())
            why = f"{card.name}:{variant} has a loss of its own; loss={name} needs {needs}"
        else:
            return
        raise BenchError(f"{why}; methods that take loss={name}: {listing(self.takers)}")


def provider(name: str, entries: Mapping[str, MethodEntry]) -> MethodEntry:
    """The method that provides the loss called `name`. Raises BenchError where there is none, or more than one."""
    offered = {entry.name: entry.card.provides.loss for entry in entries.values() if entry.card}
    found = [method for method, loss in offered.items() if loss == name]
    if not found:
        raise unknown("loss", name, [PLAIN_LOSS, *sorted({loss for loss in offered.values() if loss})])
    if len(found) > 1:
        raise BenchError(f"the loss {name} is provided by {listing(found)}: one of their cards must call it otherwise")
    return entries[found[0]]


def lent_settings(name: str, entries: Mapping[str, MethodEntry]) -> dict[str, dict[str, Any]]:
    """The settings of the loss called `name` and their defaults, by the method that provides it; none of cross-entropy."""
    if name == PLAIN_LOSS:
        return {}
    card = provider(name, entries).card
    assert card is not None
    return {card.name: {one: setting.default for one, setting in card.settings.items() if setting.of_loss}}


def lend(
    name: str, entries: Mapping[str, MethodEntry], overrides: Mapping[str, Mapping[str, Any]], protocol: str
) -> LentLoss | None:
    """The loss called `name` with the settings of its provider's card, the printed ones over them under protocol=paper, and
    `overrides` (by method) over both. None for plain cross-entropy, which no configuration mentions.

    Raises BenchError for a loss that nobody provides, and for settings under which its provider has none.
    """
    if name == PLAIN_LOSS:
        return None
    entry = provider(name, entries)
    card, folder = entry.card, entry.folder
    assert card is not None and folder is not None
    settings = lent_settings(name, entries)[card.name]
    if protocol == "paper" and card.protocol_paper:
        settings |= {one: value for one, value in card.protocol_paper.settings.items() if one in settings}
    own = {one: value for one, value in overrides.get(card.name, {}).items() if one in settings}
    notes = [card.label(one, value) for one, value in own.items() if value != settings[one]]
    settings |= own
    for one, values in (card.takes.loss or {}).items():  # with these values it has no loss of its own, so none to lend
        if one in settings and settings[one] in values:
            raise BenchError(f"with {card.name}.{one}={settings[one]} {card.name} has no loss {name}: leave loss= out")
    return LentLoss(
        {
            "name": name,
            "provider": card.name,
            "settings": card.keyed(settings),
            "provider_digest": method_digest(folder),
        },
        [f"{name.replace('_', ' ').title()} Loss", *notes],
        [
            one.name
            for one in entries.values()
            if one.card and one.card.takes.loss is not None and one.name != card.name
        ],
    )
