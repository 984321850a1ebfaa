"""From a declared cell to the request that runs it: as printed, in small, or on another data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bench.declare.registry import MethodEntry, dataset, method_entry
from bench.declare.settings import Model, Search, Text, Train, given
from bench.plan.request import Running, RunSpec
from bench.plan.request import request as request_of
from bench.reproduction.declaration import DeclaredCell, Part

Protocol = Literal["standard", "paper"]


@dataclass(frozen=True)
class Scale:
    """A size at which cells show what they do, not what they can reach."""

    dataset: str
    subset: tuple[int, int, int]
    train: Mapping[str, Any]
    model: Mapping[str, Any]


# The only place for the size of `scale=small`. Twelve cells, the most that a target has, fit into 15 minutes on two cores: an
# epoch has 4,000 captions, and a core reads 280 to 680 of them a second at this width (150 where EtENet trains its encoder).
# Small batches at twice the usual rate: 250 steps of 64 left every method at 3 CIDEr, where no figure shows anything.
SMALL = Scale(
    "shapes",
    (200, 40, 100),
    {"epochs": 4, "captions": 30, "learning_rate": 1e-3},
    {"width": 128, "embedding": 128, "attention": 128},
)


@dataclass(frozen=True)
class Edition:
    """One way to run a target. `dataset` (a name or a file, as on the command line) replaces the data sets of the paper."""

    protocol: Protocol = "paper"
    dataset: str | None = None
    small: bool = False

    @property
    def slug(self) -> str:
        """Its name in files and folders; distinct for what differs."""
        if self.small:
            return "small"
        return "printed" if self.dataset is None else f"{dataset(self.dataset).name}-{self.protocol}"


def edition(small: bool = False, dataset: str | None = None, protocol: Protocol | None = None) -> Edition:
    """The edition that a command asks for. In small the standard protocol rules: no data set has the papers' features."""
    if small:
        return Edition("standard", SMALL.dataset, True)
    return Edition(protocol or "paper", dataset)


def request(part: Part, cell: DeclaredCell, asked: Edition, base: Running, entries: dict[str, MethodEntry]) -> RunSpec:
    """The request that runs one declared cell; seeds, executor and the like are those of `base`.

    Split, lists and habits are the paper's on its own data set; of any other it is the test split. Raises BenchError for
    what the method's card lacks.
    """
    place = asked.dataset or part.dataset
    own = place == part.dataset
    card = method_entry(cell.method, entries).card
    assert card is not None
    settings = card.checked(cell.settings, card.name)
    update: dict[str, Any] = {
        "methods": [cell.run],
        "dataset": place,
        "split": part.split if own else "test",
        "protocol": asked.protocol,
        "loss": cell.loss,
        "train": cell.train,
        "overrides": {card.name: settings} if settings else {},
    }
    if asked.protocol == "standard":
        # By name: with streams unnamed, a method that can do with `frames` alone is run a second time without the rest.
        update["streams"] = list(dataset(place).streams)
    if own and part.splits != "default":  # unnamed, it is the data set's own rule
        update["splits"] = part.splits
    if own and asked.protocol == "paper":
        habit, row = part.habit, cell.printed
        update["text"] = Text.model_validate(given(habit.text) | given(row.text))
        update["search"] = Search.model_validate(given(habit.search) | given(row.search))
        update["train"] = Train.model_validate(given(habit.train) | given(row.train) | given(cell.train))
        if printed := card.checked(habit.settings | row.settings, card.name):
            update["overrides"] = {card.name: printed | settings}
    if asked.small:
        update["subset"] = SMALL.subset
        update["train"] = Train.model_validate({**SMALL.train, **given(cell.train)})
        sizes = {name: size for name, size in SMALL.model.items() if name in card.settings}
        update["model"] = Model.model_validate(sizes)
    return request_of(base, **update)
