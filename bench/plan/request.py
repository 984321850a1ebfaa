"""The request of `bench run` and `bench plan`: command line and plan file as one checked RunSpec."""

from __future__ import annotations

import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from bench import BenchError
from bench.declare.card import PLAIN_LOSS, MethodCard, Resources
from bench.declare.grammar import Value, plan_file, scalar, take_apart
from bench.declare.losses import lent_settings
from bench.declare.registry import MethodEntry, find_methods, method_entry
from bench.declare.settings import GROUPS, Model, Search, Strict, Text, Train
from bench.declare.validation import from_pydantic
from bench.errors import listing, unknown

FLAGS = ("--retry-failed",)
ADDRESS = re.compile(r"local|auto|[A-Za-z0-9_.-]+:[0-9]+")
DEVICE = re.compile(r"auto|cpu|cuda(:[0-9]+)?")
LARGEST_SEED = 2**32 - 1  # what every generator of random numbers takes


class RunSpec(Strict):
    """What was asked for. The groups hold only what was named (see `bench.declare.settings.given`); defaults are laid under
    them per method. `overrides` holds the methods' own settings by their canonical names."""

    methods: list[str] = Field(min_length=1)
    dataset: str
    split: Literal["val", "test"] = "test"
    splits: str = "default"
    subset: tuple[int, int, int] | None = None
    streams: list[str] | None = None
    protocol: Literal["standard", "paper"] = "standard"
    loss: str = PLAIN_LOSS
    seeds: list[int] = Field(default=[0], min_length=1)
    train: Train = Train()
    model: Model = Model()
    search: Search = Search()
    text: Text = Text()
    executor: Literal["ray", "inline"] = "ray"
    address: str = "local"
    max_concurrent: int | None = Field(default=None, ge=1)
    resources: Resources = Resources()
    threads: int = Field(default=1, ge=1)
    device: str = "auto"
    mlflow: str | None = None
    retry_failed: bool = False
    overrides: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @field_validator("methods", "seeds", "streams")
    @classmethod
    def _no_repeats(cls, value: list[Any] | None) -> list[Any] | None:
        twice = [item for item in dict.fromkeys(value or []) if value and value.count(item) > 1]
        if twice:
            raise ValueError(f"names {listing(twice)} twice")
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds_from_zero(cls, value: list[int]) -> list[int]:
        if min(value) < 0:
            raise ValueError(f"holds {min(value)}, but a seed must be at least 0")
        if max(value) > LARGEST_SEED:
            raise ValueError(f"holds {max(value)}, but a seed must be at most {LARGEST_SEED}")
        return value

    @field_validator("address")
    @classmethod
    def _address_has_a_port(cls, value: str) -> str:
        if not ADDRESS.fullmatch(value):
            raise ValueError(f"(executor.address) is {value!r}, but must be local, auto or HOST:PORT")
        return value

    @field_validator("device")
    @classmethod
    def _device_is_one(cls, value: str) -> str:
        if not DEVICE.fullmatch(value):
            raise ValueError(f"is {value!r}, but must be auto, cpu, cuda or cuda:NUMBER")
        return value

    @field_validator("subset")
    @classmethod
    def _subset_has_clips(cls, value: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        if value and min(value) < 1:
            raise ValueError(f"is {'/'.join(map(str, value))}, but each part must be at least 1")
        return value


KEYS = [name for name in RunSpec.model_fields if name != "overrides"]
LISTS = ("methods", "seeds", "streams")
OTHER_NAMES = {"executor.address": "address", "executor.max_concurrent": "max_concurrent"}


def parse(argv: Sequence[str]) -> RunSpec:
    """The request in `argv`: at most one plan file, `key=value` pairs (stronger than the file), `--retry-failed`.

    Raises BenchError, one sentence, for anything that is not understood; nothing is ignored.
    """
    layers, flags = written(argv)
    return read(layers, flags, find_methods())


def written(argv: Sequence[str]) -> tuple[list[dict[str, Value]], frozenset[str]]:
    """The values of a plan file and of the command line as they were written, the weaker first, and the flags."""
    arguments = take_apart(argv, FLAGS)
    if len(arguments.files) > 1:
        raise BenchError(f"one plan file at a time: {listing(arguments.files)}; keys are written key=value")
    layers = [arguments.values]
    if arguments.files:
        if not arguments.files[0].endswith((".yaml", ".yml")):
            raise BenchError(f"{arguments.files[0]!r} is neither key=value nor a plan file (.yaml)")
        layers.insert(0, plan_file(Path(arguments.files[0])))
    return layers, arguments.flags


def read(
    layers: Sequence[dict[str, Value]],
    flags: frozenset[str],
    entries: dict[str, MethodEntry],
    others: Sequence[str] = (),
) -> RunSpec:
    """The request in `layers`, later ones being stronger. `others` are keys of the command that were read apart."""
    values: dict[str, Value] = {}
    overrides: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for written_key, value in layer.items():
            key = OTHER_NAMES.get(written_key, written_key)
            head, _, rest = key.partition(".")
            if head in KEYS:
                values[key] = value
            elif head in entries:
                _override(overrides.setdefault(head, {}), entries, head, rest, value, layer)
            else:
                _refuse_bare(head, value, [card for entry in entries.values() if (card := entry.card)])
                allowed = [*KEYS, *others, *(name for name, entry in entries.items() if entry.card)]
                raise unknown("key", head, allowed, value.where)
    spec = _checked(values, overrides, flags)
    _check_names(spec, entries)
    return spec


def _refuse_bare(name: str, value: Value, cards: Sequence[MethodCard]) -> None:
    """Raise BenchError for a setting written without its group or method (`epochs=3`), with its whole names."""
    whole = [f"{group}.{name}" for group, model in GROUPS.items() if name in model.model_fields]
    whole += [
        f"{card.name}.{name}"
        for card in cards
        for setting, declared in card.settings.items()
        if name in (setting, declared.alias) and not declared.shared
    ]
    if whole:
        ways = " or ".join(f"{one}=" for one in whole)
        raise BenchError(f"{value.where}: {name} belongs to a group or a method: write {ways}")


def _override(
    into: dict[str, Any], entries: dict[str, MethodEntry], name: str, rest: str, value: Value, layer: dict[str, Value]
) -> None:
    card = method_entry(name, entries).card
    assert card is not None
    if not rest:
        raise BenchError(f"{value.where}: {name} is a method; write methods={name}, or {name}.setting=value")
    setting = card.canonical(rest, f"{value.where}: method {name}")
    alias = card.settings[setting].alias
    if alias and f"{name}.{setting}" in layer and f"{name}.{alias}" in layer:
        raise BenchError(f"{value.where}: {name}.{setting} is given twice, also as {name}.{alias}")
    read = value.read(text=card.settings[setting].reads_text)
    if read == "null" and card.settings[setting].default is None:
        read = None  # text is taken as written, but for the one word that stands for nothing
    into[setting] = card.settings[setting].check(f"{value.where}: {name}.{rest}", read)


def _checked(values: dict[str, Value], overrides: dict[str, dict[str, Any]], flags: frozenset[str]) -> RunSpec:
    content: dict[str, Any] = {"overrides": overrides}
    for key, value in values.items():
        head, _, rest = key.partition(".")
        if not rest:
            content[head] = _read(head, value)
        elif isinstance(content.setdefault(head, {}), dict):
            _put(content[head], rest.split("."), value.read(text=_is_text(GROUPS.get(head), rest)))
        else:
            raise BenchError(f"{value.where}: {head} is given both as {content[head]!r} and as {key}")
    if "--retry-failed" in flags:
        content["retry_failed"] = True

    def where(key: str) -> str:
        near = [value.where for name, value in values.items() if name == key or name.split(".")[0] == key.split(".")[0]]
        return near[0] if near else "command line"

    try:
        return RunSpec.model_validate(content)
    except ValidationError as error:
        raise from_pydantic(error, RunSpec, where, hidden=("overrides",)) from None


def _put(group: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        group = group.setdefault(part, {})
    group[path[-1]] = value


def _read(key: str, value: Value) -> Any:
    """The value of a key without dots, as text where a name is expected."""
    if key in LISTS:
        return value.listed(text=_is_text(RunSpec, key))
    if key == "subset":
        read = value.read()
        parts = [scalar(part) for part in read.split("/")] if isinstance(read, str) and "/" in read else read
        parts = value.listed() if isinstance(parts, str) else parts
        if parts is not None and not (isinstance(parts, list) and len(parts) == 3):
            raise BenchError(f"{value.where}: subset is {read!r}, but must be train/val/test clips, such as 300/50/150")
        return tuple(parts) if parts else None
    return value.read(text=_is_text(RunSpec, key))


def _is_text(model: type[Strict] | None, key: str) -> bool:
    """Whether a key of `model` expects a name: then `on`, `010` and `1e3` are taken as written."""
    field = model.model_fields.get(key) if model else None
    return field is not None and _has_text(field.annotation)


def _has_text(annotation: Any) -> bool:
    if typing.get_origin(annotation) is Literal:
        return all(isinstance(choice, str) for choice in typing.get_args(annotation))
    return annotation is str or any(_has_text(part) for part in typing.get_args(annotation))


def _check_names(spec: RunSpec, entries: dict[str, MethodEntry]) -> None:
    asked = {word.partition(":")[0] for word in spec.methods}
    for name in asked:
        method_entry(name, entries)
    lent = lent_settings(spec.loss, entries)
    for name, settings in spec.overrides.items():
        idle = [setting for setting in settings if name not in asked and setting not in lent.get(name, ())]
        if idle:
            allowed = f"; loss={spec.loss} reads {listing(lent[name])} of it" if name in lent else ""
            card = method_entry(name, entries).card
            alias = card.settings[idle[0]].alias if card else None
            also = f" ({name}.{alias})" if alias else ""
            raise BenchError(
                f"{name}.{idle[0]}{also} is set, but {name} is not among methods: {listing(spec.methods)}{allowed}"
            )
