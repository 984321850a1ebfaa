"""The record of one cell, schema 1: what is written into `record.json`, checked when written and when read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bench.errors import masked
from bench.evaluation.metrics import METRICS, TOP

SCHEMA = 1
NAMED = ("method", "dataset", "split", "protocol")  # parts of a cell that every record has as plain names
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")

Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]


class Part(BaseModel):
    """A piece of a record: unknown fields, numbers written as text, NaN and infinity are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True, populate_by_name=True)


class Failure(Part):
    """Where and how a cell failed; `log` is a path inside the cell's folder."""

    stage: Literal["fit", "decode", "score"]
    type: Text
    message: str
    log: str | None = None


class Selection(Part):
    """The epoch that was kept: the harness's metric on the validation clips (papers' scale) and its value there."""

    metric: Text
    value: float
    phase: str | None = None
    epoch: Count


class Ledger(Part):
    """What the cell cost. `captions` were read or sampled in training, of `budget`; times are seconds.

    `wait_seconds` are those of `fit_seconds` in which training waited for its next batch. `reused_captions` and
    `reused_seconds` are those of them that other cells spent, on phases that this one took up.
    """

    captions: Count
    budget: Count | None = None
    epochs: Count | None = None
    fit_seconds: Amount | None = None
    wait_seconds: Amount | None = None
    decode_seconds: Amount | None = None
    score_seconds: Amount | None = None
    peak_memory_mb: Amount | None = None
    parameters: Count | None = None
    captions_per_second: Amount | None = None
    reused_captions: Count | None = None
    reused_seconds: Amount | None = None


class VocabularyFacts(Part):
    """The vocabulary of the training captions: size with the special words, digest of the words, how it was made."""

    size: Count
    sha256: Text
    tokenizer: Text
    min_count: Count


TIMES = ("fit_seconds", "wait_seconds", "decode_seconds", "captions_per_second")


class Provenance(Part):
    """Code, packages and machine behind a record. `started` and `finished` are ISO 8601.

    `gpu`, `driver`, `cuda`, `cudnn`, `precision` (of products) and `features_on_gpu` (those of the training clips lay
    there all the time, or were copied batch by batch) stand in records of GPUs only.
    `gpu_share` is the part of a GPU that the cell had: times of less than a whole one are not its own. `memory_ran_out`: it
    had failed on a smaller share before. `reused` names the phases that other cells trained.
    """

    bench: Text
    git: str | None = None
    dirty: bool | None = None
    python: str | None = None
    torch: str | None = None
    platform: str | None = None
    cpu: str | None = None
    device: str | None = None
    host: str | None = None
    started: str | None = None
    finished: str | None = None
    threads: Count | None = None
    gpu: str | None = None
    driver: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    precision: str | None = None
    gpu_share: Amount | None = None
    memory_ran_out: bool | None = None
    features_on_gpu: bool | None = None
    reused: list[str] | None = None

    @field_validator("started", "finished")
    @classmethod
    def _moment(cls, value: str | None) -> str | None:
        if value is not None:
            datetime.fromisoformat(value)
        return value


class External(Part):
    """Captions that were made outside the harness: where they come from, in words."""

    source: Text


class Record(Part):
    """One cell. `scores[split][metric]` is on the papers' scale of 100; every score has its signature. `endings` tells of each
    phase of budget=converged whether it did converge. `warnings` are sentences on what makes its scores less than they seem."""

    version: Literal[1] = Field(alias="schema")
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    state: Literal["done", "unscored", "failed"]
    config: dict[str, Any]
    failure: Failure | None = None
    selection: Selection | None = None
    endings: dict[str, Literal["converged", "capped"]] | None = None
    ledger: Ledger | None = None
    scores: dict[str, dict[str, float]] = {}
    signatures: dict[str, dict[str, str]] = {}
    warnings: list[str] = []
    vocabulary: VocabularyFacts | None = None
    weights_sha256: str | None = None
    provenance: Provenance | None = None
    external: External | None = None

    @field_validator("config")
    @classmethod
    def _config(cls, config: dict[str, Any]) -> dict[str, Any]:
        for name in NAMED:
            value = config.get(name)
            if not isinstance(value, str) or not NAME.fullmatch(value):
                raise ValueError(f"config.{name} must be a name of letters, digits and . _ + -, not {value!r}")
        variant = config.get("variant")
        if variant is not None and not isinstance(variant, str):
            raise ValueError(f"config.variant must be a name or null, not {variant!r}")
        seed = config.get("seed")
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise ValueError(f"config.seed must be a whole number, not {seed!r}")
        json.dumps(config, allow_nan=False)  # a ValueError or TypeError names what JSON cannot hold
        return config

    @field_validator("scores")
    @classmethod
    def _ranges(cls, scores: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
        for split, metrics in scores.items():
            for metric, value in metrics.items():
                check_score(metric, value, f"scores.{split}.{metric}")
        return scores

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        if (self.state == "failed") != (self.failure is not None):
            raise ValueError(f"state {self.state!r} and failure {self.failure!r} contradict each other")
        if self.state != "done" and self.scores:
            raise ValueError(f"a record in state {self.state!r} cannot have scores")
        if self.state == "done" and not self.scores.get(self.split):
            raise ValueError(f"a done record needs scores of its split {self.split!r}")
        for split, metrics in self.scores.items():
            unsigned = sorted(set(metrics) - set(self.signatures.get(split, {})))
            if unsigned:
                raise ValueError(f"scores.{split} without a signature: {', '.join(unsigned)}")
        return self

    @property
    def method(self) -> str:
        return str(self.config["method"])

    @property
    def variant(self) -> str | None:
        return self.config.get("variant")

    @property
    def dataset(self) -> str:
        return str(self.config["dataset"])

    @property
    def split(self) -> str:
        return str(self.config["split"])

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def capped(self) -> bool:
        """Whether a phase that was to converge ended at its cap."""
        return "capped" in (self.endings or {}).values()

    def spent(self, name: str) -> float | None:
        """An entry of the ledger; None where it has none, and for times on a GPU that other cells shared."""
        shared = self.provenance is not None and 0 < (self.provenance.gpu_share or 0) < 1
        if self.ledger is None or (shared and name in TIMES):
            return None
        value: float | None = getattr(self.ledger, name)
        return value


def check_score(metric: str, value: float, where: str) -> None:
    """Raise ValueError unless `metric` is known and `value` lies in its range on the papers' scale."""
    if metric not in TOP:
        raise ValueError(f"{where}: unknown metric, known are {', '.join(METRICS)}")
    if not 0.0 <= value <= TOP[metric]:
        raise ValueError(f"{where} is {value:g}, outside 0..{TOP[metric]:g}")


def reasons(error: ValidationError) -> str:
    """What pydantic found wrong, as one line of `field: reason` parts without its links and type names."""
    found = []
    for item in error.errors(include_url=False, include_context=False):
        where = ".".join(str(step) for step in item["loc"])
        what = "must be 16 hexadecimal digits" if item["type"] == "string_pattern_mismatch" else item["msg"]
        what = what.removeprefix("Value error, ")
        found.append(f"{where}: {what}" if where else what)
    return "; ".join(found)


LOCAL = ("dataset_path", "files")  # parts of a declaration that name places of one machine
ASKED = ("reuse",)  # what a command asked for, and its record answers
NOT_KEYED = (*LOCAL, *ASKED, "title", "changed", "threads", "device")
"""Recorded, but not part of the key: they change where and how fast a cell runs, or how it is called."""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def public(config: Mapping[str, Any]) -> dict[str, Any]:
    """The declaration as it may be published: without the places of this machine."""
    return {name: value for name, value in config.items() if name not in (*LOCAL, *ASKED)}


_PLACE = re.compile(r"""(?<![\w.:/~])(?:~[\w.-]*)?(?:/[^\s/'"`:,;()<>|]+){2,}/?""")


def impersonal(text: str) -> str:
    """A sentence as it may be published: without passwords, and of an absolute path only the last name, for the others tell of
    a machine and a user."""
    return _PLACE.sub(lambda match: f"../{match[0].rstrip('/').rpartition('/')[2]}", masked(text))


def cell_key(config: Mapping[str, Any]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of what decides the result."""
    keyed = {name: value for name, value in config.items() if name not in NOT_KEYED}
    return hashlib.sha256(canonical(keyed).encode()).hexdigest()[:16]
