"""What a method says about itself in `card.yaml`: readable without torch, checked before anything runs."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from bench import BenchError
from bench.declare.settings import LARGEST_SIZE, Model, Search, Strict, Text, Train, option
from bench.declare.validation import from_pydantic
from bench.errors import did_you_mean, listing, unknown


class Paper(Strict):
    """Where the idea was published."""

    title: str
    authors: list[str] = Field(default_factory=list)
    year: int | None = None
    venue: str | None = None
    arxiv: str | None = None


AXES: Mapping[str, tuple[str, ...]] = {
    "frames": ("frames", "width"),
    "motion": ("frames", "width"),
    "regions": ("frames", "regions", "width"),
    "spatial": ("places", "width"),
    "audio": ("width",),
    "pixels": ("frames", "3", "height", "width"),
}
"""Axes of the streams that methods share by name, as every method reads them; other streams have those of their source."""


def wrong_axes(stream: str, shape: Sequence[int]) -> str | None:
    """Why no method could read a stream of this name and shape, in words; None where it can."""
    axes = AXES.get(stream)
    if axes is None or len(axes) == len(shape):
        return None
    single = len(shape) == 1 and axes[0] == "frames"
    one = "; one vector for a clip can be given as one frame, as arrays of [1, width]" if single else ""
    return f"the stream {stream} is read as [{listing(axes)}], and this one has the shape {list(shape)}{one}"


class Streams(Strict):
    """Feature streams: `needs` must be there, `uses` are wanted but can be done without."""

    needs: list[str] = Field(default_factory=list)
    uses: list[str] = Field(default_factory=list)


class Resources(Strict):
    """What one cell asks of a node."""

    cpus: float = option(1, "processors that a cell asks for, in place of its card", ge=0)
    gpus: float = option(0, "GPUs: a share that divides one, such as 0.5 or 0.25, or whole ones", ge=0)
    gpu_memory: float | None = option(None, "GiB of GPU memory; its share of the GPU then holds as much", gt=0)
    accelerator_type: str | None = option(None, "the kind of GPU by Ray's name, such as H100")

    @field_validator("gpus")
    @classmethod
    def _shares_divide_one(cls, value: float) -> float:
        parts = 1 / value if 0 < value < 1 else value
        if abs(parts - round(parts)) > 1e-9:
            raise ValueError(
                f"is {value:g}, but a share of a GPU must divide one (0.5, 0.25, 0.2), and more must be whole"
            )
        return value


_TYPES: dict[str, tuple[Any, str]] = {
    "int": (int, "a whole number"),
    "float": (int | float, "a number"),
    "bool": (bool, "true or false"),
    "str": (str, "text"),
    "choice": (str, ""),
    "file": (str, "the path of a file"),
}


class Setting(Strict):
    """One setting of a method: type, range, default, second name. A default of null allows null.

    `shared` settings are also set for all methods at once by `model.<name>=`. `of_loss` settings are those of the loss that
    the card provides: with `loss=` they can be set for the methods that take it. A `file` is given by its path, or by one of
    `choices` in its place; a configuration holds its content's digest instead (`sha256:...`). An `added` setting came after
    the first records of its method: a configuration leaves it out at its default, which must therefore stay what it is.
    `acts` is the first phase in which a setting makes a difference; null is from the start. What is trained before it is shared
    by cells that differ in the setting alone.
    """

    type: Literal["int", "float", "bool", "str", "choice", "file"]
    default: Any = None
    min: float | None = None
    max: float | None = None
    choices: list[str] = Field(default_factory=list)
    alias: str | None = None
    shared: bool = False
    of_loss: bool = False
    added: bool = False
    acts: str | None = None
    help: str = ""

    @property
    def reads_text(self) -> bool:
        """Whether a value is taken as written (`on`, `010`) and not as a number or boolean."""
        return self.type in ("str", "choice", "file")

    @property
    def letter(self) -> str | None:
        """Its second name as the paper writes it: `λ` for lambda, and any other as it is."""
        name = (self.alias or "").upper().replace("LAMBDA", "LAMDA")  # so Unicode spells it
        try:
            return unicodedata.lookup(f"GREEK SMALL LETTER {name}")
        except KeyError:
            return self.alias

    def names_file(self, value: Any) -> bool:
        """Whether `value` is the path of a file."""
        return self.type == "file" and value is not None and value not in self.choices

    def check(self, name: str, value: Any) -> Any:
        """`value` as this setting's type; a sentence with the allowed values otherwise."""
        if value is None and self.default is None:
            return None
        types, words = _TYPES[self.type]
        if not isinstance(value, types) or (isinstance(value, bool) and self.type != "bool"):
            words = words or f"one of {listing(self.choices)}"
            raise BenchError(f"{name} is {value!r}, but must be {words}")
        if self.type == "choice" and value not in self.choices:
            allowed = f"one of {listing(self.choices)}{did_you_mean(value, self.choices)}"
            raise BenchError(f"{name} is {value!r}, but must be {allowed}")
        if self.min is not None and value < self.min:
            raise BenchError(f"{name} is {value!r}, but must be at least {self.min:g}")
        most = LARGEST_SIZE if self.max is None and self.shared and self.type == "int" else self.max
        if most is not None and value > most:
            raise BenchError(f"{name} is {value!r}, but must be at most {most:g}")
        return float(value) if self.type == "float" else value

    @model_validator(mode="after")
    def _default_fits(self) -> Setting:
        if (self.type == "choice") != bool(self.choices) and self.type != "file":
            raise ValueError(f"has type {self.type} and choices {self.choices}: only a choice has choices")
        if self.type not in ("int", "float") and (self.min, self.max) != (None, None):
            raise ValueError(f"has type {self.type} and min or max: only numbers have these")
        if self.default is not None:
            try:
                self.default = self.check("default", self.default)
            except BenchError as error:
                raise ValueError(str(error)) from None
        return self


class Interval(Strict):
    """All numbers from `min` to `max`, evenly or, with `log`, evenly in their logarithm."""

    min: float
    max: float
    log: bool = False

    @model_validator(mode="after")
    def _is_one(self) -> Interval:
        if not self.min < self.max:
            raise ValueError(f"min is {self.min:g} and max {self.max:g}: the first must be less")
        if self.log and self.min <= 0:
            raise ValueError(f"min is {self.min:g}, which has no logarithm")
        return self


Choices = list[Any] | Interval


class Conditional(Strict):
    """A setting that is searched only where others have certain values, each a list of them: elsewhere it changes nothing."""

    choices: Choices
    when: dict[str, list[Any]] = Field(min_length=1)


Searched = Choices | Conditional
TRAIN = "train."


class Printed(Strict):
    """The schedule printed for one row where it is not that of the card's others: `protocol=paper` keeps to it."""

    epochs: int | None = Field(default=None, ge=1)
    phases: dict[str, float] | None = None


class Variant(Strict):
    """One row of the paper: the settings that make it, and its own shares of the budget where they differ.

    `reads` names the streams of a row that leaves some of the card's out; null reads them all. `needs` names streams that
    this row needs beyond those of the card.
    """

    title: str
    settings: dict[str, Any] = Field(default_factory=dict)
    phases: dict[str, float] | None = None
    reads: list[str] | None = None
    needs: list[str] = Field(default_factory=list)
    printed: Printed = Printed()


class Impossible(Strict):
    """Values that cannot go together, each setting with one value or a list of them, and why."""

    settings: dict[str, Any] = Field(min_length=1)
    because: str

    def applies(self, settings: dict[str, Any]) -> bool:
        """Whether `settings` hold all of these values."""
        return all(
            settings[name] in (values if isinstance(values, list) else [values])
            for name, values in self.settings.items()
        )


class PaperProtocol(Strict):
    """The printed setting, used by `protocol=paper`."""

    settings: dict[str, Any] = Field(default_factory=dict)
    train: Train = Train()
    text: Text = Text()
    search: Search = Search()
    frames: int | None = Field(default=None, ge=1)
    stream_shapes: dict[str, list[int] | list[list[int]]] = Field(default_factory=dict)

    def shapes(self, stream: str) -> list[list[int]]:
        """The shapes that a stream may have: where papers print the method on several features there are several."""
        printed = self.stream_shapes.get(stream, [])
        return [one for one in printed if isinstance(one, list)] or ([printed] if printed else [])  # type: ignore[list-item]


PLAIN_LOSS = "cross_entropy"
"""The loss of a request that names none: every method has it, none provides it."""


class Provides(Strict):
    """What other methods may borrow: `loss` is the name of the loss that `build_loss` of this method makes."""

    loss: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")


class Takes(Strict):
    """What a method may borrow. `loss` says that it trains by the loss of its run, and with which of its own settings: the
    values of each that allow it. `{}` is always, null is never."""

    loss: dict[str, list[Any]] | None = None


class OpenPoint(Strict):
    """A point on which the paper is silent or ambiguous, what was chosen, and on whose word."""

    point: str
    choice: str
    source: Literal["paper", "code", "inferred"]


class MethodCard(Strict):
    """The identity of a method, from `methods/<name>/card.yaml`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    summary: str
    paper: Paper | None = None
    streams: Streams = Streams(needs=["frames"])
    without: dict[str, str] = Field(default_factory=dict)
    name_without: dict[str, str] = Field(default_factory=dict)
    resources: Resources = Resources()
    settings: dict[str, Setting] = Field(default_factory=dict)
    impossible: list[Impossible] = Field(default_factory=list)
    variants: dict[str, Variant] = Field(min_length=1)
    default: str
    phases: dict[str, float] = Field(default_factory=lambda: {"train": 1.0})
    search_space: dict[str, Any] = Field(default_factory=dict)
    protocol_paper: PaperProtocol | None = None
    open_points: list[OpenPoint] = Field(default_factory=list)
    provides: Provides = Provides()
    takes: Takes = Takes()

    @field_validator("phases", "variants")
    @classmethod
    def _shares_sum_to_one(cls, value: Any, info: ValidationInfo) -> Any:
        named = {"": value} if info.field_name == "phases" else {name: one.phases for name, one in value.items()}
        if info.field_name == "variants":
            named |= {f"{name}.printed": one.printed.phases for name, one in value.items()}
        for name, phases in named.items():
            if phases is not None and (abs(sum(phases.values()) - 1) > 1e-6 or min(phases.values(), default=0) < 0):
                raise ValueError(f"{name + ': phases ' if name else ''}must share the budget: parts >= 0 that sum to 1")
        return value

    @model_validator(mode="after")
    def _names_agree(self) -> MethodCard:
        try:
            self._check_names()
        except BenchError as error:
            raise ValueError(str(error)) from None
        return self

    def _check_names(self) -> None:
        if self.default not in self.variants:
            raise unknown("variant", self.default, self.variants, "default")
        for name, variant in self.variants.items():
            variant.settings = self.checked(variant.settings, f"variants.{name}.settings")
            self._check_reads(name, variant)
        if self.protocol_paper:
            self.protocol_paper.settings = self.checked(self.protocol_paper.settings, "protocol_paper.settings")
        self.search_space = self.space(self.search_space, "search_space")
        for rule in self.impossible:
            rule.settings = self._by_canonical_name(rule.settings, "impossible")
        if self.takes.loss:
            self.takes.loss = self._by_canonical_name(self.takes.loss, "takes.loss")
        if self.provides.loss == PLAIN_LOSS:
            raise BenchError(f"provides.loss is {PLAIN_LOSS}, which every method has; give this one its own name")
        lent = [name for name, setting in self.settings.items() if setting.of_loss]
        if lent and self.provides.loss is None:
            raise BenchError(f"settings: {listing(lent)} is marked of_loss, but provides.loss names no loss")
        for stream in (*self.without, *self.name_without):
            if stream not in self.streams.uses:
                raise unknown(
                    "stream", stream, self.streams.uses, "without and name_without hold names of streams.uses"
                )
        rows = [self.phases, *(one.phases for one in self.variants.values() if one.phases)]
        for name, setting in self.settings.items():
            if setting.acts is not None and not any(setting.acts in phases for phases in rows):
                known = list(dict.fromkeys(phase for phases in rows for phase in phases))
                raise unknown("phase", setting.acts, known, f"settings.{name}.acts")
        names = [*self.settings, *(setting.alias for setting in self.settings.values() if setting.alias)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BenchError(f"settings: {listing(twice)} names more than one setting")
        for name, setting in self.settings.items():
            if setting.shared and name not in Model.model_fields:
                raise unknown("shared setting", name, Model.model_fields, "settings")

    def _by_canonical_name(self, conditions: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Conditions, each setting with one value or a list of them, by canonical names and checked."""
        result: dict[str, Any] = {}
        for name, values in conditions.items():
            for value in values if isinstance(values, list) else [values]:
                self.checked({name: value}, where)
            canonical = self.canonical(name, where)
            if canonical in result:
                raise BenchError(f"{where}: {canonical} is given twice")
            result[canonical] = values
        return result

    def _check_reads(self, name: str, variant: Variant) -> None:
        known = [*self.streams.needs, *self.streams.uses]
        for stream in variant.reads or []:
            if stream not in known:
                raise unknown("stream", stream, known, f"variants.{name}.reads")
        left = [stream for stream in self.streams.needs if variant.reads is not None and stream not in variant.reads]
        if left:
            raise BenchError(f"variants.{name}.reads leaves out {listing(left)}, which streams.needs names")

    def reading(self, variant: str) -> MethodCard:
        """This card with only the streams that `variant` reads."""
        reads, more = self.variants[variant].reads, self.variants[variant].needs
        if reads is None and not more:
            return self
        uses = [stream for stream in self.streams.uses if (reads is None or stream in reads) and stream not in more]
        needs = list(dict.fromkeys([*self.streams.needs, *more]))
        return self.model_copy(update={"streams": Streams(needs=needs, uses=uses)})

    def canonical(self, name: str, where: str) -> str:
        """The setting called `name`, also by its alias."""
        for setting, declared in self.settings.items():
            if name in (setting, declared.alias):
                return setting
        names = [f"{s} ({d.alias})" if d.alias else s for s, d in self.settings.items()]
        plain = [*self.settings, *(d.alias for d in self.settings.values() if d.alias)]
        raise BenchError(f'{where}: unknown setting "{name}"; allowed: {listing(names)}{did_you_mean(name, plain)}')

    def space(self, given: Mapping[str, Any], where: str) -> dict[str, Searched]:
        """What `bench tune` may search, by canonical name: a setting, or one of training (`train.learning_rate`).

        Each is a list of values or an interval, `{min, max, log}`; with a condition `{values, when: {setting: values}}` or
        `{min, max, log, when}`. Raises BenchError for what the settings refuse.
        """
        space: dict[str, Searched] = {}
        for name, asked in given.items():
            canonical = name if name.startswith(TRAIN) else self.canonical(name, where)
            if canonical in space:
                raise BenchError(f"{where}: {canonical} is given twice")
            place = f"{where}.{name}"
            if isinstance(asked, Mapping) and ("when" in asked or "values" in asked):
                choices = asked.get("values", {key: value for key, value in asked.items() if key != "when"})
                space[canonical] = self._choices(canonical, choices, place)
                if "when" in asked:
                    when = self._when(asked["when"], f"{place}.when")
                    space[canonical] = Conditional.model_construct(choices=space[canonical], when=when)
            else:
                space[canonical] = asked if isinstance(asked, Conditional) else self._choices(canonical, asked, place)
        return space

    def _when(self, given: Any, where: str) -> dict[str, list[Any]]:
        if not isinstance(given, Mapping) or not given:
            raise BenchError(f"{where} is {given!r}, but must name settings and their values: {{SETTING: [VALUE, ..]}}")
        conditions = {}
        for name, values in given.items():
            canonical = self.canonical(name, where)
            listed = values if isinstance(values, list) else [values]
            conditions[canonical] = [self.settings[canonical].check(f"{where}.{name}", value) for value in listed]
        return conditions

    def _choices(self, name: str, choices: Any, where: str) -> Choices:
        if isinstance(choices, Mapping):
            try:
                choices = Interval.model_validate(choices)
            except ValidationError as error:
                raise from_pydantic(error, Interval, where) from None
        if isinstance(choices, Interval):
            if not isinstance(self.parameter(name, choices.min, where), float):
                raise BenchError(f"{where} is an interval, but {name} takes no fractions: give a list of values")
            self.parameter(name, choices.max, where)
            return choices
        if not isinstance(choices, list) or not choices:
            raise BenchError(
                f"{where} is {choices!r}, but must be a list of values, or {{min: .., max: .., log: true}}"
            )
        values = [self.parameter(name, value, where) for value in choices]
        if twice := [value for value in values if values.count(value) > 1]:
            raise BenchError(f"{where} holds {twice[0]!r} twice")
        return values

    def parameter(self, name: str, value: Any, where: str) -> Any:
        """`value` as the type of a setting or of `train.<key>`; a sentence with what is allowed otherwise."""
        if not name.startswith(TRAIN):
            return self.settings[name].check(where, value)
        key = name.removeprefix(TRAIN)
        if key not in Train.model_fields:
            raise unknown("setting", key, Train.model_fields, f"{where}: train")
        try:
            return getattr(Train.model_validate({key: value}), key)
        except ValidationError as error:
            raise from_pydantic(error, Train, where) from None

    def refuse_impossible(self, settings: dict[str, Any], variant: str) -> None:
        """Raise BenchError where `settings` hold values that the card declares impossible together."""
        for rule in self.impossible:
            if rule.applies(settings):
                given = listing([f"{name}={settings[name]}" for name in rule.settings])
                raise BenchError(f"{self.name}:{variant} cannot have {given}: {rule.because}")

    def label(self, name: str, value: Any) -> str:
        """A setting as it stands in the name of a row: `lambda=0.2`; of a file, its name without the folder."""
        if self.settings[name].names_file(value):
            value = Path(value).name
        return f"{self.settings[name].alias or name}={f'{value:g}' if isinstance(value, float) else value}"

    def keyed(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """`settings` as a configuration holds them: those that were added after the first records only where they differ
        from their defaults, so that earlier cells keep their keys."""
        return {
            name: value
            for name, value in settings.items()
            if not self.settings[name].added or value != self.settings[name].default
        }

    def whole(self, settings: Mapping[str, Any], *, of_loss: bool = False) -> dict[str, Any]:
        """The reverse of `keyed`: the settings of a configuration, or those `of_loss`, with what it leaves out."""
        added = {name: one.default for name, one in self.settings.items() if one.added and (one.of_loss or not of_loss)}
        return {**added, **settings}

    def takes_loss(self, settings: Mapping[str, Any]) -> bool:
        """Whether this method, with `settings`, trains by the loss of its run."""
        return self.takes.loss is not None and all(settings[name] in values for name, values in self.takes.loss.items())

    def checked(self, values: dict[str, Any], where: str) -> dict[str, Any]:
        """`values` by their canonical names, each checked against its type and range."""
        result = {}
        for name, value in values.items():
            canonical = self.canonical(name, where)
            if canonical in result:
                raise BenchError(f"{where}: {canonical} is given twice")
            result[canonical] = self.settings[canonical].check(f"{where}.{name}", value)
        return result
