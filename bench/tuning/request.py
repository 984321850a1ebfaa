"""The request of `bench tune`: what `bench run` takes, and how to search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from bench.declare.card import Searched
from bench.declare.grammar import Value
from bench.declare.options import Options, Written, keys
from bench.declare.options import read as read_options
from bench.declare.registry import find_methods, method_entry
from bench.declare.settings import option
from bench.errors import listing, unknown
from bench.plan.request import RunSpec, read, written


class How(Options):
    """How to search; searches that differ in it, but for what is excluded, are different ones. The bare key `search` is the way
    to search, and `search.beam` stays decoding's."""

    search: Literal["grid", "random", "optuna"] = option(
        "grid",
        'where points come from, the first always the card\'s own; optuna needs pip install "captionbench[optuna]"',
    )
    scheduler: Literal["fifo", "asha", "hyperband", "pbt"] = option(
        "fifo",
        "fifo: every trial has its whole budget; asha, hyperband: the worse half of those that came so far is stopped at a "
        "quarter, a half and all of the way since the searched settings act; pbt: at each quarter the worse take over state and "
        "settings of the better, and change them",
    )
    trials: int | None = option(
        None, "points for each row, or members of a population; without it, the whole grid", ge=1
    )
    metric: Literal["bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "cider"] = option(
        "cider",
        "validation score by which points are chosen, on tokens of training; epochs are chosen by CIDEr as ever",
    )
    seeds_per_trial: int = option(1, "trainings of each point, whose mean counts: from tune_seed on", ge=1)
    seed: int = option(0, "draws the points, and trains the trials", ge=0, alias="tune_seed")
    time_limit: float | None = option(
        None,
        "minutes for each search; what has run until then counts, and the same command goes on",
        gt=0,
        exclude=True,
    )
    storage: Annotated[str | None, Written("FOLDER|URL")] = option(
        None,
        "where the state of the search goes, with copies of its trials' resume states: an absolute path that all "
        "nodes share, file:// or s3://bucket/folder; without it, below .bench",
        exclude=True,
    )
    space: Annotated[dict[str, Any], Written(apart=True)] = Field(
        default_factory=dict,
        exclude=True,
        title="space.METHOD.SETTING=[..]",
        description="other values than the card's, or {min: .., max: .., log: true}; also of train.SETTING, such as "
        "space.salstm.train.learning_rate={min: 1e-4, max: 1e-3, log: true}; {values: [..], when: {SETTING: [..]}} where others "
        "decide whether it matters",
    )


@dataclass(frozen=True)
class TuneSpec:
    """`run` is the request of the last stage: its seeds, its budget. `spaces` holds what was named for a method in place of
    its card's own space."""

    run: RunSpec
    how: How
    spaces: dict[str, dict[str, Searched]] = field(default_factory=dict)


def parse(argv: Sequence[str]) -> TuneSpec:
    """The request in `argv`: the keys of `bench run`, those of `How`, and `space.METHOD.SETTING=[..]` or `={min: .., max: ..}`.

    Raises BenchError for what is not understood, for a space of a method that is not asked for, and for `split=`: points
    are chosen on validation clips and reported on test clips.
    """
    layers, flags = written(argv)
    entries = find_methods()
    asked: dict[str, Value] = {}
    spaces: dict[str, dict[str, Any]] = {}
    rest: list[dict[str, Value]] = []
    own = keys(How)
    for layer in layers:
        asked |= {key: value for key, value in layer.items() if key in own}
        for key, value in layer.items():
            if key.startswith("space."):
                _space(spaces, key.removeprefix("space."), value)
        rest.append({key: value for key, value in layer.items() if key not in own and not key.startswith("space.")})
    run: RunSpec = read(rest, flags, entries, [*(key for key in own if key not in RunSpec.model_fields), "space"])
    methods = [word.partition(":")[0] for word in run.methods]
    checked = {}
    for name, space in spaces.items():
        if name not in methods:
            raise unknown("method", name, methods, f"space.{name}: methods={listing(run.methods)}")
        card = method_entry(name, entries).card
        assert card is not None
        checked[name] = card.space(space, f"space.{name}")
    return TuneSpec(run, read_options(How, asked), checked)


def _space(spaces: dict[str, dict[str, Any]], below: str, value: Value) -> None:
    """`space.recnet.lambda=[..]`, also in parts: `space.recnet.lambda.min=0.01`, `space.glrg.Q.when.baseline=b2`."""
    method, _, name = below.partition(".")
    space = spaces.setdefault(method, {})
    name, conditional, other = name.partition(".when.")
    if conditional:
        space.setdefault(name, {}).setdefault("when", {})[other] = value.listed()
        return
    rest, _, end = name.rpartition(".")
    if end in ("min", "max", "log", "values"):
        space.setdefault(rest, {})[end] = value.listed() if end == "values" else value.read()
    else:
        space[name] = value.listed()
