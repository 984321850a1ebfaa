"""The settings that every method shares: how it trains, how wide it is, how captions are decoded and tokenized.

A plan, a card or a data set definition names only some keys of a group: `given` returns those, without the defaults, so
that layers can be laid over one another. Names, types, ranges and defaults of the engine stand here only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

LARGEST_SIZE, LONGEST, WIDEST_BEAM = 2**16, 1000, 1000  # far beyond any paper: what is larger is a slip of the hand
DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]+)?")

ADDED = "added"
"""Marks a setting, or in `ADDED_GROUPS` a group, that is younger than the first records: a configuration names it only where
it differs from its default, so that cells keep the keys that they had before it came. Such a default stays what it is."""


def option(default: Any, description: str, **limits: Any) -> Any:
    """A field of a model with its default, what help says of it, and its limits as pydantic names them."""
    return Field(default=default, description=description, **limits)


class Strict(BaseModel):
    """A model that refuses unknown keys, infinite numbers and silent conversions from text to numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Train(Strict):
    """How a method trains. Weights and losses are float32 with each `precision`; decoding too, but for tf32 on a GPU."""

    epochs: int = option(10, "passes over the training captions: the budget of all phases together", ge=1)
    captions: int = option(64, "captions of a batch", ge=1)
    captions_per_clip: int = option(4, "captions of one clip that stand in a batch together", ge=1)
    accumulate: int | None = option(None, "step the optimizer once so many captions have added gradients", ge=1)
    learning_rate: float = option(5e-4, "of all phases, unless a card says otherwise", gt=0)
    optimizer: Literal["adam", "adamw", "adadelta", "sgd"] = option("adam", "what steps the weights")
    clip: float | None = option(5.0, "the most that gradients may be", gt=0)
    clip_by: Literal["norm", "value"] = option("norm", "whether `clip` bounds their norm or each of them")
    patience: int | None = option(None, "end a phase after so many epochs without a better one", ge=1)
    weight_decay: float = option(0.0, "of the optimizer", ge=0)
    scheduled_sampling: float = option(0.0, "share of words read from the method's own output", ge=0, le=1)
    data_fraction: float = option(1.0, "share of the training clips that is used", gt=0, le=1)
    decay: Annotated[float | None, ADDED] = option(
        None, "multiply the learning rates of a phase by this every `decay_every` of its epochs", gt=0, le=1
    )
    decay_every: Annotated[int, ADDED] = option(1, "epochs between two steps of `decay`", ge=1)
    precision: Annotated[Literal["float32", "tf32", "bfloat16"], ADDED] = option(
        "float32", "numbers in which the products of a training step are made; tf32 is float32 on a CPU"
    )
    budget: Annotated[Literal["captions", "converged"], ADDED] = option(
        "captions",
        "captions: the same number for every row, over all its phases. converged: each phase ends once `patience` validations "
        "(5 unless named, never fewer) brought no better score, `epochs` being the cap of each; weights are averaged",
    )
    average: Annotated[float, ADDED] = option(
        0.0, "validate and keep a running average of the weights, of which each step leaves this share", ge=0, lt=1
    )
    validations: Annotated[int, ADDED] = option(
        1, "in so many equal parts of a pass over the captions, each an epoch to `patience`, `decay` and curves", ge=1
    )
    reward_epochs: Annotated[int, ADDED] = option(
        5,
        "passes of a phase that is trained by rewards under budget=converged: they are declared, whatever comes of them",
        ge=1,
    )
    rewards: Annotated[bool, ADDED] = option(
        True,
        "false: phases with rewards go on with the loss of the phase before instead: the control of policy gradient",
    )


CONVERGED = {"patience": 5, "average": 0.995}
"""What budget=converged means unless it is named. At a constant rate the score jumps by several points from epoch to epoch; an
average over the last two hundred steps does not, and costs less than lowering the rate and waiting again."""


def most_captions(train: Mapping[str, Any], phases: Mapping[str, float], captions: int) -> int:
    """The most captions that a cell may read or sample, of `captions` in its training clips."""
    if train.get("budget") != "converged":
        return int(train["epochs"]) * captions
    return max(train["epochs"], train.get("reward_epochs", Train().reward_epochs)) * captions * len(phases)


class Model(Strict):
    """Sizes shared by all methods whose cards mark them `shared`; their defaults stand in the cards."""

    width: int | None = option(None, "hidden units", ge=1, le=LARGEST_SIZE)
    embedding: int | None = option(None, "numbers of a word's vector", ge=1, le=LARGEST_SIZE)
    attention: int | None = option(None, "units of attention", ge=1, le=LARGEST_SIZE)
    dropout: float | None = option(None, "share of units left out in training", ge=0, lt=1)
    normalise: bool | None = option(None, "whether features are normalised first")


class Decoding(Strict):
    """How a clip is decoded."""

    beam: int = option(5, "captions that are followed at once", ge=1, le=WIDEST_BEAM)
    max_words: int = option(30, "the longest caption", ge=1, le=LONGEST)
    length_rule: Literal["none", "mean", "gnmt"] = option("none", "how captions of other lengths are ranked")


class Search(Decoding):
    """How captions are decoded: the fields of `bench.method.Search`."""

    clips: int = option(64, "clips that are decoded at once", ge=1)


class Text(Strict):
    """How captions become training tokens."""

    tokenizer: Literal["strip", "ptb", "treebank"] = option("strip", "how captions are cut into words")
    min_count: int = option(1, "words that are rarer become unknown", ge=1)
    max_words: int = option(30, "the longest caption that is learned from", ge=1, le=LONGEST)


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


def whole(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `keyed`: the values of a group in a configuration with what it leaves out."""
    fields = GROUPS[name].model_fields
    return {**{key: field.default for key, field in fields.items() if ADDED in field.metadata}, **values}


def given(group: Strict | None) -> dict[str, Any]:
    """The keys that were named when `group` was read, without the defaults; none of a group that is not there."""
    return {} if group is None else group.model_dump(exclude_unset=True)
