"""The settings that every method shares: how it trains, how wide it is, how captions are decoded and tokenized.

A plan, a card or a data set definition names only some keys of a group: `given` returns those, without the defaults, so
that layers can be laid over one another. Names, types, ranges and defaults of the engine stand here only.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

ADDED = "added"
"""Marks a setting, or in `ADDED_GROUPS` a group, that is younger than the first records: a configuration names it only where
it differs from its default, so that cells keep the keys that they had before it came. Such a default stays what it is."""


class Strict(BaseModel):
    """A model that refuses unknown keys, infinite numbers and silent conversions from text to numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Train(Strict):
    """How a method trains. `captions` is the batch; `epochs` sets the budget of all phases together.

    `accumulate`: step the optimizer once this many captions have added their gradients. `decay`: multiply the learning rates
    of a phase by this factor every `decay_every` of its epochs. `precision`: in which numbers the products of a training step
    are made; weights, losses and decoding are float32 with either.
    """

    epochs: int = Field(default=10, ge=1)
    captions: int = Field(default=64, ge=1)
    captions_per_clip: int = Field(default=4, ge=1)
    accumulate: int | None = Field(default=None, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    optimizer: Literal["adam", "adamw", "adadelta", "sgd"] = "adam"
    clip: float | None = Field(default=5.0, gt=0)
    clip_by: Literal["norm", "value"] = "norm"
    patience: int | None = Field(default=None, ge=1)
    weight_decay: float = Field(default=0.0, ge=0)
    scheduled_sampling: float = Field(default=0.0, ge=0, le=1)
    data_fraction: float = Field(default=1.0, gt=0, le=1)
    decay: Annotated[float | None, ADDED] = Field(default=None, gt=0, le=1)
    decay_every: Annotated[int, ADDED] = Field(default=1, ge=1)
    precision: Annotated[Literal["float32", "bfloat16"], ADDED] = "float32"


class Model(Strict):
    """Sizes shared by all methods whose cards mark them `shared`; their defaults stand in the cards."""

    width: int | None = Field(default=None, ge=1)
    embedding: int | None = Field(default=None, ge=1)
    attention: int | None = Field(default=None, ge=1)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    normalise: bool | None = None


class Search(Strict):
    """How captions are decoded: the fields of `bench.method.Search`."""

    beam: int = Field(default=5, ge=1)
    max_words: int = Field(default=30, ge=1)
    length_rule: Literal["none", "mean", "gnmt"] = "none"
    clips: int = Field(default=64, ge=1)


class Text(Strict):
    """How captions become training tokens."""

    tokenizer: Literal["strip", "ptb", "treebank"] = "strip"
    min_count: int = Field(default=1, ge=1)
    max_words: int = Field(default=30, ge=1)


GROUPS: dict[str, type[Strict]] = {"train": Train, "model": Model, "search": Search, "text": Text}
ADDED_GROUPS: set[str] = set()


def keyed(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """The values of a group as a configuration holds them, without what is younger than the first records and at its default;
    empty for a whole group of that kind."""
    fields = GROUPS[name].model_fields
    return {
        key: value
        for key, value in values.items()
        if (name not in ADDED_GROUPS and ADDED not in fields[key].metadata) or value != fields[key].default
    }


def given(group: Strict | None) -> dict[str, Any]:
    """The keys that were named when `group` was read, without the defaults; none of a group that is not there."""
    return {} if group is None else group.model_dump(exclude_unset=True)
