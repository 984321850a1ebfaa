"""What a study declares before its first cell, in `datasets/<corpus>/study.yaml`: pairs, what they differ in, margin and rule."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from bench import BenchError
from bench.cell.provenance import committed
from bench.declare.registry import MethodEntry, dataset, method_entry, read_model
from bench.declare.settings import Model, Strict, Train, given
from bench.errors import listing, unknown
from bench.home import data_folder
from bench.plan.cells import Cell
from bench.plan.request import Running, RunSpec, request
from bench.plan.states import differences
from bench.records.schema import canonical
from bench.reports.study import Arm as Bare
from bench.reports.study import declaration as first_study

SIDES = ("idea", "control")
MOST_SEEDS = 1000  # of one pair
NAMES = ("variant", "method_digest", "seed")  # what a side is called is no difference in what it does


class Arm(Bare):
    """One side; `train` holds for it alone."""

    train: Train = Train()

    @property
    def label(self) -> str:
        """`salstm:rl train.rewards=False`."""
        return " ".join([super().label, *(f"train.{name}={value}" for name, value in given(self.train).items())])


class Claimed(Strict):
    """What the paper prints: rows, counted from 1, of one of its tables."""

    table: str
    idea: int = Field(ge=1)
    control: int = Field(ge=1)

    @model_validator(mode="after")
    def _is_a_difference(self) -> Claimed:
        if self.idea == self.control:
            raise ValueError(f"names row {self.idea} as idea and as control: a gain is the difference of two rows")
        return self


class Pair(Strict):
    """An idea and its control on the same streams. `differs` names the settings and phases in which they differ, by their dotted
    names in a configuration or a group of them (`phases`); `unclaimed` says why there is no printed gain. Two may come later:
    `reworded`, the question that was asked in truth, where `question` put it wrongly, and `withdrawn`, why a pair turned out to
    ask nothing: its answer stays with its study and counts nowhere."""

    paper: str
    question: str
    idea: Arm
    control: Arm
    streams: list[str] = Field(min_length=1)
    differs: list[str] = Field(min_length=1)
    train: Train = Train()
    claimed: Claimed | None = None
    unclaimed: str = ""
    reworded: str = ""
    withdrawn: str = ""

    @field_validator("streams")
    @classmethod
    def _each_stream_once(cls, value: list[str]) -> list[str]:
        if len({*value}) < len(value):
            raise ValueError(f"is {value}, but names a stream once")
        return value

    @field_validator("reworded", "withdrawn")
    @classmethod
    def _without_spaces(cls, value: str) -> str:
        return value.strip()

    @model_validator(mode="after")
    def _says_what_is_claimed(self) -> Pair:
        if (self.claimed is None) != bool(self.unclaimed):
            raise ValueError("needs either claimed, or unclaimed: the reason why the paper prints no such gain")
        return self


class Study(Strict):
    """Pairs on one corpus. With `looks`, numbers of seeds, a pair may stop early, or undecided where half of its interval is at
    most `half_width`; a split rule of folds is looked at once, and a half-width says nothing there. `remarks` are for readers of
    the page and may come later: what was given up before, what the sizes rest on. So may `given_up`, why no more of its cells are
    to be run; what has run stays on the page."""

    name: str = Field(pattern=r"^[a-z0-9_]{1,100}$")
    dataset: str
    splits: str = "default"
    looks: list[int] = Field(default_factory=list)
    margin: float = Field(gt=0)
    half_width: float | None = Field(default=None, gt=0)
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    train: Train = Train()
    model: Model = Model()
    pairs: dict[str, Pair] = Field(min_length=1)
    remarks: str = ""
    given_up: str = ""

    @field_validator("looks")
    @classmethod
    def _looks_rise(cls, value: list[int]) -> list[int]:
        if value != sorted(set(value)) or (value and (value[0] < 2 or value[-1] > MOST_SEEDS)):
            raise ValueError(f"is {value}, but looks are rising numbers of seeds from 2 to {MOST_SEEDS:,}")
        return value

    @field_validator("pairs")
    @classmethod
    def _pairs_have_names(cls, value: dict[str, Pair]) -> dict[str, Pair]:
        if strange := [name for name in value if not re.fullmatch("[a-z0-9_]{1,100}", name)]:
            raise ValueError(
                f"calls a pair {strange[0]!r}: a name has small letters, digits and _, of which pages make files"
            )
        return value

    @field_validator("remarks", "given_up")
    @classmethod
    def _without_spaces(cls, value: str) -> str:
        return value.strip()

    @model_validator(mode="after")
    def _looks_may_end_a_pair(self) -> Study:
        if self.looks and self.half_width is None:
            raise ValueError("needs half_width with its looks: an interval so narrow ends a pair")
        return self

    @model_validator(mode="after")
    def _precision_is_one_for_all(self) -> Study:
        arms = {f"pairs.{name}.{side}": getattr(pair, side) for name, pair in self.pairs.items() for side in SIDES}
        for where, one in {"": self, **{f"pairs.{name}": pair for name, pair in self.pairs.items()}, **arms}.items():
            if "precision" in given(one.train):
                raise ValueError(
                    f"has {f'{where}.train.precision'.lstrip('.')}, but precision is one for all cells of a study: write "
                    "precision: beside margin:"
                )
        return self

    @property
    def digest(self) -> str:
        """Of all that the declaration says but what may come later: what is changed after the first cell is another study. What
        it leaves out stays out, so that a setting that is invented later changes no study."""
        later = {"remarks": True, "given_up": True, "pairs": {"__all__": {"reworded", "withdrawn"}}}
        declared = self.model_dump(mode="json", exclude=later, exclude_unset=True)  # type: ignore[arg-type]
        return hashlib.sha256(canonical(declared).encode()).hexdigest()

    @property
    def corpus(self) -> str:
        """The name of the data set."""
        return dataset(self.dataset).name

    @property
    def folds(self) -> int | None:
        return dataset(self.dataset).split_rule(self.splits).folds

    def seeds(self) -> tuple[int, ...]:
        """The numbers of seeds, or of folds, after which the pairs are looked at."""
        folds = self.folds
        if bool(folds) == bool(self.looks):
            raise BenchError(
                f"study {self.name}: needs looks, or splits= with folds, which are looked at once, and not both of them"
            )
        return (folds,) if folds else tuple(self.looks)


def studies() -> dict[str, tuple[Study, Path]]:
    """All declared studies by name, each with its file. Raises BenchError for a declaration that is not sound."""
    found: dict[str, tuple[Study, Path]] = {}
    for path in sorted(data_folder("datasets").glob("*/study*.yaml")):
        if path == first_study():  # which is of another kind: bench reproduce ideas
            continue
        study = read_model(path, Study)
        if study.name in found:
            raise BenchError(f"{path} and {found[study.name][1]} are both called {study.name}: name one otherwise")
        found[study.name] = (study, path)
    return found


def chosen(study: Study, only: Sequence[str] | None) -> list[str]:
    """The pairs of a study, or those that were asked for, in the order of its file. Raises BenchError for one that it has not."""
    if strange := [name for name in only or () if name not in study.pairs]:
        raise unknown("pair", strange[0], study.pairs, f"study {study.name}")
    return [name for name in study.pairs if only is None or name in only]


def named(name: str) -> tuple[Study, Path]:
    """The study called `name`. Raises BenchError with what was probably meant."""
    found = studies()
    if name not in found:
        raise unknown("study", name, found)
    return found[name]


def commit_of(study: Study, path: Path) -> str | None:
    """The commit in which a study was declared; None outside a checkout. Raises BenchError where it is not committed."""
    commit, clean = committed(path)
    if not clean:
        raise BenchError(
            f"study {study.name}: {path} is not committed as it stands; a study is declared before its first cell: commit it"
        )
    return commit


def requests(study: Study, name: str, base: Running, entries: dict[str, MethodEntry], seeds: int) -> Iterator[RunSpec]:
    """The requests of the idea and of its control over the first `seeds` seeds; executor and the like are those of `base`."""
    pair = study.pairs[name]
    for arm in (pair.idea, pair.control):
        card = method_entry(arm.run.partition(":")[0], entries).card
        assert card is not None
        own = card.checked(arm.settings, f"study {study.name}, {name}: {card.name}")
        train = given(study.train) | given(pair.train) | given(arm.train)
        if study.precision != "float32":
            train["precision"] = study.precision
        yield request(
            base.model_copy(update={"seeds": list(range(seeds))}),
            methods=[arm.run],
            dataset=study.dataset,
            splits=study.splits,
            streams=list(pair.streams),
            loss=arm.loss,
            train=Train(**train),
            model=Model(**{field: value for field, value in given(study.model).items() if field in card.settings}),
            overrides={card.name: own} if own else {},
        )


def check_differences(study: Study, name: str, idea: Cell, control: Cell) -> None:
    """Raise BenchError where the sides of a pair differ in what `differs` does not name, or agree in what it names."""
    declared = study.pairs[name].differs
    found = [one for one in differences(idea.config, control.config) if one not in NAMES]
    undeclared = [one for one in found if not any(one == name or one.startswith(f"{name}.") for name in declared)]
    if undeclared:
        raise BenchError(
            f"study {study.name}: idea and control of {name} also differ in {listing(undeclared)}, which its differs: "
            f"({listing(declared)}) does not name"
        )
    idle = [name for name in declared if not any(one == name or one.startswith(f"{name}.") for one in found)]
    if idle:
        raise BenchError(f"study {study.name}: idea and control of {name} do not differ in {listing(idle)}")
