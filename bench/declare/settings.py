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
    """How a method trains. Weights, losses and decoding are float32 with either `precision`."""

    epochs: int = Field(
        default=10, ge=1, description="passes over the training captions: the budget of all phases together"
    )
    captions: int = Field(default=64, ge=1, description="captions of a batch")
    captions_per_clip: int = Field(default=4, ge=1, description="captions of one clip that stand in a batch together")
    accumulate: int | None = Field(
        default=None, ge=1, description="step the optimizer once so many captions have added gradients"
    )
    learning_rate: float = Field(default=5e-4, gt=0, description="of all phases, unless a card says otherwise")
    optimizer: Literal["adam", "adamw", "adadelta", "sgd"] = Field(default="adam", description="what steps the weights")
    clip: float | None = Field(default=5.0, gt=0, description="the most that gradients may be")
    clip_by: Literal["norm", "value"] = Field(
        default="norm", description="whether `clip` bounds their norm or each of them"
    )
    patience: int | None = Field(
        default=None, ge=1, description="end a phase after so many epochs without a better one"
    )
    weight_decay: float = Field(default=0.0, ge=0, description="of the optimizer")
    scheduled_sampling: float = Field(
        default=0.0, ge=0, le=1, description="share of words read from the method's own output"
    )
    data_fraction: float = Field(default=1.0, gt=0, le=1, description="share of the training clips that is used")
    decay: Annotated[float | None, ADDED] = Field(
        default=None,
        gt=0,
        le=1,
        description="multiply the learning rates of a phase by this every `decay_every` of its epochs",
    )
    decay_every: Annotated[int, ADDED] = Field(default=1, ge=1, description="epochs between two steps of `decay`")
    precision: Annotated[Literal["float32", "bfloat16"], ADDED] = Field(
        default="float32", description="numbers in which the products of a training step are made"
    )


class Model(Strict):
    """Sizes shared by all methods whose cards mark them `shared`; their defaults stand in the cards."""

    width: int | None = Field(default=None, ge=1, description="hidden units")
    embedding: int | None = Field(default=None, ge=1, description="numbers of a word's vector")
    attention: int | None = Field(default=None, ge=1, description="units of attention")
    dropout: float | None = Field(default=None, ge=0, lt=1, description="share of units left out in training")
    normalise: bool | None = Field(default=None, description="whether features are normalised first")


class Decoding(Strict):
    """How a clip is decoded."""

    beam: int = Field(default=5, ge=1, description="captions that are followed at once")
    max_words: int = Field(default=30, ge=1, description="the longest caption")
    length_rule: Literal["none", "mean", "gnmt"] = Field(
        default="none", description="how captions of other lengths are ranked"
    )


class Search(Decoding):
    """How captions are decoded: the fields of `bench.method.Search`."""

    clips: int = Field(default=64, ge=1, description="clips that are decoded at once")


class Text(Strict):
    """How captions become training tokens."""

    tokenizer: Literal["strip", "ptb", "treebank"] = Field(
        default="strip", description="how captions are cut into words"
    )
    min_count: int = Field(default=1, ge=1, description="words that are rarer become unknown")
    max_words: int = Field(default=30, ge=1, description="the longest caption that is learned from")


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
