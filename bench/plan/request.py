"""The request of `bench run` and `bench plan`: command line and plan file as one checked RunSpec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from bench import BenchError
from bench.declare.addresses import check_cluster, check_tracker
from bench.declare.card import PLAIN_LOSS, MethodCard, Resources
from bench.declare.grammar import Value, plan_file, scalar, take_apart
from bench.declare.losses import lent_settings
from bench.declare.options import DataSet, Options, Written, field_of, flagged, flags, key_of, keys
from bench.declare.options import read as read_options
from bench.declare.registry import MethodEntry, dataset, find_methods, method_entry, variants
from bench.declare.settings import DEVICE, GROUPS, Model, Search, Text, Train, option
from bench.declare.validation import MissingKeysError
from bench.errors import all_of, kept, listing, singly, together, unknown
from bench.home import written_path

LARGEST_SEED = 2**32 - 1  # what every generator of random numbers takes


class Running(Options):
    """How cells are run, whatever they are: what `bench run`, `plan`, `tune` and `reproduce` share."""

    seeds: Annotated[list[int], Written("[0,1,2]")] = option([0], "one cell per row and seed", min_length=1)
    executor: Literal["ray", "inline"] = option("ray", "workers of Ray, or inline: in this process, for debugging")
    address: Annotated[str, Written("local|auto|HOST:PORT")] = option(
        "local", "a Ray of this command's own, or a cluster (deploy/README.md)", alias="executor.address"
    )
    max_concurrent: int | None = option(None, "at most so many cells at once", ge=1)
    resources: Resources = Resources()
    threads: int = option(1, "processors of one cell", ge=1)
    device: Annotated[str, Written("auto|cpu|cuda|cuda:N")] = option("auto", "what a cell computes on")
    mlflow: Annotated[str | None, Written("URI")] = option(
        None, "http://HOST:5000, sqlite:///FILE.db or another database in place of this folder's; or off"
    )
    reuse: bool = option(
        True, "take up phases that an equal cell has trained; false trains them again, to the same numbers"
    )
    wandb: Annotated[str | None, Written("PROJECT")] = option(
        None, "a project of Weights & Biases that runs are sent to as well (WANDB_MODE=offline keeps them here)"
    )
    retry_failed: Annotated[bool, Written(flag="--retry-failed")] = option(False, "run failed cells again")

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
    def _address_is_one(cls, value: str) -> str:
        check_cluster(value)
        return value

    @field_validator("mlflow")
    @classmethod
    def _tracker_has_an_address(cls, value: str | None) -> str | None:
        if value is not None:
            check_tracker(value)
        return value

    @field_validator("device")
    @classmethod
    def _device_is_one(cls, value: str) -> str:
        if not DEVICE.fullmatch(value):
            raise ValueError(f"is {value!r}, but must be auto, cpu, cuda or cuda:NUMBER")
        return value

    @model_validator(mode="after")
    def _ray_chooses_the_card(self) -> Running:
        if self.executor == "ray" and ":" in self.device:
            raise ValueError(
                f"device={self.device} names one of this machine's GPUs, and Ray chooses the GPU of each cell: use device=cuda, "
                "or executor=inline, which runs the cells in this process"
            )
        return self

    @model_validator(mode="after")
    def _inline_is_here(self) -> Running:
        if self.executor == "inline" and self.address != type(self).model_fields["address"].default:
            raise ValueError(
                f"executor=inline runs cells in this process: leave executor.address={self.address} out, or executor=inline"
            )
        return self

    @field_validator("methods", "seeds", "streams", check_fields=False)
    @classmethod
    def _no_repeats(cls, value: list[Any] | None) -> list[Any] | None:
        twice = [item for item in dict.fromkeys(value or []) if value and value.count(item) > 1]
        if twice:
            raise ValueError(f"names {listing(twice)} twice")
        return value


class Question(Options):
    """What decides which cells there are and how they are trained."""

    methods: Annotated[list[str], Written("a,b:variant,c:*")] = Field(
        min_length=1, description="methods: their default, a named or all variants", examples=["salstm"]
    )
    dataset: DataSet
    split: Literal["val", "test"] = option("test", "the clips that are reported")
    splits: str = option(
        "default",
        "a split rule of the data set (protocol=paper: its rule `paper`, or the one called like the method, if any)",
    )
    subset: Annotated[tuple[int, int, int] | None, Written("300/50/150")] = option(
        None, "the first clips of train, val and test"
    )
    streams: Annotated[list[str] | None, Written("[frames]")] = option(
        None, "leave out the other streams that a method could use"
    )
    protocol: Literal["standard", "paper"] = option("standard", "all else equal, or the printed setting")
    loss: str = option(
        PLAIN_LOSS,
        "or the loss of a paper, for every method that takes one: information (of hail, with its hail.lambda and "
        "hail.gamma), discrepant (of glrg: glrg.seed_weight, glrg.weight_scale)",
    )
    train: Train = Train()
    model: Model = Model()
    search: Search = Search()
    text: Text = Text()
    overrides: Annotated[dict[str, dict[str, Any]], Written(apart=True)] = Field(
        default_factory=dict,
        title="METHOD.SETTING=VALUE",
        description="a method's own setting or its alias, as its card names it: recnet.lambda=0.2",
    )

    @field_validator("subset", mode="before")
    @classmethod
    def _three_counts(cls, value: Any) -> Any:
        """`300/50/150`, `300,50,150` and `[300,50,150]` are the same."""
        parts: Any = value
        if isinstance(value, str):
            parts = [scalar(part.strip()) for part in value.split("/" if "/" in value else ",")]
        if parts is not None and not (isinstance(parts, list | tuple) and len(parts) == 3):
            raise ValueError(f"is {value!r}, but must be train/val/test clips, such as 300/50/150")
        return tuple(parts) if parts is not None else None

    @field_validator("subset")
    @classmethod
    def _subset_has_clips(cls, value: tuple[int, int, int] | None) -> tuple[int, int, int] | None:
        if value and min(value) < 1:
            raise ValueError(f"is {'/'.join(map(str, value))}, but each part must be at least 1")
        return value


class RunSpec(Running, Question):
    """What was asked for. The groups hold only what was named (see `bench.declare.settings.given`); defaults are laid under
    them per method. `overrides` holds the methods' own settings by their canonical names."""


def request(how: Running, **question: Any) -> RunSpec:
    """The request for `question`, by field, run as `how` says."""
    return RunSpec(**{name: getattr(how, name) for name in Running.model_fields}, **question)


AnyRequest = TypeVar("AnyRequest", bound=RunSpec)
OTHER_NAMES = {"executor.max_concurrent": "max_concurrent", "budget": "train.budget"}


def parse(argv: Sequence[str], model: type[AnyRequest] = RunSpec) -> AnyRequest:  # type: ignore[assignment]
    """The request in `argv`: at most one plan file, `key=value` pairs (stronger than the file), `--retry-failed`.

    Raises BenchError, one sentence, for anything that is not understood; nothing is ignored.
    """
    layers, given = written(argv)
    return read(layers, given, find_methods(), model=model)


def written(argv: Sequence[str]) -> tuple[list[dict[str, Value]], frozenset[str]]:
    """The values of a plan file and of the command line as they were written, the weaker first, and the flags."""
    arguments = take_apart(argv, flags(RunSpec))
    if len(arguments.files) > 1:
        raise BenchError(f"one plan file at a time: {listing(arguments.files)}; keys are written key=value")
    layers = [arguments.values]
    if arguments.files:
        if not arguments.files[0].endswith((".yaml", ".yml")):
            raise BenchError(f"{arguments.files[0]!r} is neither key=value nor a plan file (.yaml)")
        layers.insert(0, plan_file(written_path(arguments.files[0])))
    return layers, arguments.flags


def read(
    layers: Sequence[dict[str, Value]],
    given: frozenset[str],
    entries: dict[str, MethodEntry],
    others: Sequence[str] = (),
    model: type[AnyRequest] = RunSpec,  # type: ignore[assignment]
) -> AnyRequest:
    """The request in `layers`, later ones being stronger, and in the flags that were `given`. `others` are keys of the command
    that were read apart."""
    values: dict[str, Value] = {}
    overrides: dict[str, dict[str, Any]] = {}
    named: dict[tuple[int, str], str] = {}  # by layer and option, as it was written

    def take(layer: dict[str, Value], key: str, value: Value) -> None:
        wrote, key = key, OTHER_NAMES.get(key, key)
        head, _, rest = key.partition(".")
        if found := field_of(model, key):
            own = key_of(*found) if key in (found[0], key_of(*found)) else key
            before = named.setdefault((id(layer), own), wrote)
            if before != wrote:
                raise BenchError(f"{value.where}: {before} and {wrote} are two names of one option: give one of them")
            values.pop(own, None)  # of a weaker layer: what comes last is last in order too
            values[own] = value
        elif head in entries:
            _override(overrides.setdefault(head, {}), entries, head, rest, value, layer)
        else:
            _refuse_bare(head, value, [card for entry in entries.values() if (card := entry.card)])
            allowed = [*keys(model), *others, *(name for name, entry in entries.items() if entry.card)]
            raise unknown("key", key if head in allowed else head, allowed, value.where)

    told: list[BenchError] = []
    with kept(told):
        together(partial(take, layer, key, value) for layer in layers for key, value in layer.items())
    misspelt = bool(told)
    with kept(told):
        spec = read_options(model, values, {"overrides": overrides, **flagged(model, given)})
        _check_names(spec, entries)
        if not told:
            return spec
    # A misspelt key makes its right name missing: the misspelling is what the user wants to hear of.
    heard = [one for one in singly(told) if not (misspelt and isinstance(one, MissingKeysError))]
    raise all_of([*heard, *_unknown_names(values, entries)])


def _unknown_names(values: Mapping[str, Value], entries: dict[str, MethodEntry]) -> list[BenchError]:
    """What is wrong with the methods and the data set of a request that has other mistakes: told with those."""
    told: list[BenchError] = []
    with suppress(KeyError), kept(told):
        together(partial(variants, str(word), entries) for word in values["methods"].listed(text=True))
    with suppress(KeyError), kept(told):
        if isinstance(name := values["dataset"].read(text=True), str):
            dataset(name)
    return told


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


def _check_names(spec: RunSpec, entries: dict[str, MethodEntry]) -> None:
    together(partial(variants, word, entries) for word in spec.methods)
    asked = {word.partition(":")[0] for word in spec.methods}
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
