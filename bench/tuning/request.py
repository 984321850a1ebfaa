"""The request of `bench tune`: what `bench run` takes, and how to search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, ValidationError

from bench.declare.card import Choices
from bench.declare.grammar import Value
from bench.declare.registry import find_methods, method_entry
from bench.declare.settings import Strict
from bench.declare.validation import from_pydantic
from bench.errors import listing, unknown
from bench.plan.request import KEYS, RunSpec, read, written


class How(Strict):
    """How to search. `trials` points for each method (null: the whole grid); trial `seed` trains and draws.

    `asha` stops trials at a quarter, a half and all of the way through the last phase of training when they are in the
    worse half of those that came so far.
    """

    search: Literal["grid", "random", "optuna"] = "grid"
    scheduler: Literal["fifo", "asha"] = "fifo"
    trials: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class TuneSpec:
    """`run` is the request of the last stage: its seeds, its budget. `spaces` holds what was named for a method in place of
    its card's own space, `storage` where the state of the search goes."""

    run: RunSpec
    how: How
    spaces: dict[str, dict[str, Choices]] = field(default_factory=dict)
    storage: str | None = None


HOW = {"search": "search", "scheduler": "scheduler", "trials": "trials", "tune_seed": "seed"}
"""Keys of the command by the field of `How`. `search=` names the way to search; `search.beam=` stays decoding's."""
STORAGE = "storage"


def parse(argv: Sequence[str]) -> TuneSpec:
    """The request in `argv`: the keys of `bench run`, those of `HOW`, `storage=`, and `space.METHOD.SETTING=[..]` or
    `={min: .., max: ..}`.

    Raises BenchError for what is not understood, for a space of a method that is not asked for, and for `split=`: points
    are chosen on validation clips and reported on test clips.
    """
    layers, flags = written(argv)
    entries = find_methods()
    asked: dict[str, Value] = {}
    spaces: dict[str, dict[str, Any]] = {}
    rest: list[dict[str, Value]] = []
    storage: str | None = None
    for layer in layers:
        rest.append({})
        for key, value in layer.items():
            head, _, below = key.partition(".")
            if key in HOW:
                asked[key] = value
            elif key == STORAGE:
                storage = value.read(text=True)
            elif head == "space":
                _space(spaces, below, value)
            else:
                rest[-1][key] = value
    run = read(rest, flags, entries, [*(key for key in HOW if key not in KEYS), STORAGE, "space"])
    methods = [word.partition(":")[0] for word in run.methods]
    checked = {}
    for name, space in spaces.items():
        if name not in methods:
            raise unknown("method", name, methods, f"space.{name}: methods={listing(run.methods)}")
        card = method_entry(name, entries).card
        assert card is not None
        checked[name] = card.space(space, f"space.{name}")
    return TuneSpec(run, _how(asked), checked, storage)


def _how(asked: dict[str, Value]) -> How:
    try:
        return How.model_validate({HOW[key]: value.read() for key, value in asked.items()})
    except ValidationError as error:
        names = {name: key for key, name in HOW.items()}
        raise from_pydantic(error, How, lambda name: asked[names[name]].where if name in names else "") from None


def _space(spaces: dict[str, dict[str, Any]], below: str, value: Value) -> None:
    """`space.recnet.lambda=[..]`, also in parts: `space.recnet.lambda.min=0.01`."""
    method, _, name = below.partition(".")
    space = spaces.setdefault(method, {})
    end = name.rpartition(".")[2]
    if end in ("min", "max", "log"):
        space.setdefault(name.rpartition(".")[0], {})[end] = value.read()
    else:
        space[name] = value.listed()
