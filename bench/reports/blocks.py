"""Which results may stand in one table: records become rows, rows become blocks, and ranks are given within a block.

A row is one cell but for its seed. A block holds rows that were made and scored alike: protocol, split, clips, streams
with their fingerprints, text, search, epochs, and the signatures of the scores.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from statistics import fmean
from typing import Any

from bench import BenchError
from bench.declare.registry import method
from bench.declare.settings import GROUPS, whole
from bench.evaluation.metrics import RANKED_BY
from bench.records.folds import is_fold
from bench.records.schema import NOT_KEYED, Record

FRAMES = ("frames",)
DIGEST = 64  # hexadecimal digits of a SHA-256
UNKEYED = ("seed", "cells", *NOT_KEYED)  # do not tell one row from another
NO_SIGNATURES = "{}"
ENDING = ("budget", "patience", "average", "validations", "reward_epochs", "decay", "decay_every")
TERMS = ("protocol", "split", "splits", "subset", "captions_digest")


@dataclass(frozen=True)
class Row:
    """The cells of one method, variant and settings, by seed. `settings` are what it does not share with its namesakes in its
    block; `difference` is that too, but for the row with the usual settings beside tries of others."""

    records: tuple[Record, ...]
    settings: str = ""
    difference: str = ""

    @property
    def first(self) -> Record:
        return self.records[0]

    @property
    def name(self) -> str:
        """`recnet:local`, or `salstm` for a method without variants."""
        variant = self.first.variant
        return self.first.method if variant in (None, "") else f"{self.first.method}:{variant}"

    @property
    def label(self) -> str:
        """The name, and what tells it from its namesakes."""
        return f"{self.name} ({self.difference})" if self.difference else self.name

    @property
    def title(self) -> str:
        return str(self.first.config.get("title") or self.name) + ("" if self.rewarded else ", without rewards")

    @property
    def rewarded(self) -> bool:
        """Not a control whose phases with rewards went on without them: no paper's system."""
        return bool((self.first.config.get("train") or {}).get("rewards", True))

    @property
    def external(self) -> bool:
        return self.first.external is not None

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(record.seed for record in self.records)

    def shared_seeds(self, other: Row) -> frozenset[int]:
        """The seeds that both rows have, on which they are compared; none beside captions made elsewhere, which have no seeds."""
        return frozenset() if self.external or other.external else frozenset(self.seeds) & frozenset(other.seeds)

    def in_state(self, state: str) -> tuple[Record, ...]:
        return tuple(record for record in self.records if record.state == state)

    @property
    def complete(self) -> bool:
        """Every cell that was run has its scores: only then is there a mean."""
        return len(self.in_state("done")) == len(self.records)

    def values(self, metric: str, seeds: Iterable[int] | None = None) -> list[float]:
        """Scores of the done cells (of `seeds` only), in the order of the seeds."""
        return [
            record.scores[record.split][metric]
            for record in self.in_state("done")
            if metric in record.scores[record.split] and (seeds is None or record.seed in seeds)
        ]


@dataclass(frozen=True)
class Block:
    """Rows that may be compared. `terms` are what they share, `ranks` the place of each ranked row (by position),
    `ranked_on` the seeds that every ranked row has."""

    terms: Mapping[str, Any]
    signatures: Mapping[str, str]
    rows: tuple[Row, ...]
    ranks: tuple[int | None, ...] = ()
    ranked_on: tuple[int, ...] = field(default=())

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self.terms["streams"])

    @property
    def protocol(self) -> str:
        return str(self.terms["protocol"])

    @cached_property
    def seeds(self) -> frozenset[int]:
        """All seeds that a row of this block was run with."""
        return frozenset(seed for row in self.rows if not row.external for seed in row.seeds)

    @cached_property
    def sweeps(self) -> frozenset[int]:
        """The rows, by position, that are tries of a setting."""
        return _sweeps(self.rows)

    def missing(self, row: Row) -> tuple[int, ...]:
        """Seeds that other rows of this block were run with and `row` was not."""
        return () if row.external else tuple(sorted(self.seeds - set(row.seeds)))


def blocks(records: Sequence[Record]) -> list[Block]:
    """Sort the records of one data set into blocks: frames-only and the standard protocol first, then by name; those of a part
    of the training clips come last. Folds stand in them as the row that they make together."""
    whole = [record for record in records if not (is_fold(record) and record.state == "done")]
    made = [
        _block(json.loads(terms), json.loads(signatures), group)
        for (terms, signatures), group in _grouped(whole).items()
    ]
    return sorted(made, key=_place)


def distinctions(tables: Sequence[Block]) -> list[str]:
    """What tells each block from those of the same protocol, split and streams: `epochs 20, tok:strip`; empty for one alone."""
    alike: dict[tuple[Any, ...], list[Block]] = {}
    for block in tables:
        alike.setdefault((block.protocol, block.terms["split"], block.streams), []).append(block)
    found = []
    for block in tables:
        others = [_facts(one) for one in alike[block.protocol, block.terms["split"], block.streams]]
        own = _facts(block)
        found.append(", ".join(fact for fact in own if not all(fact in other for other in others)))
    return found


def _facts(block: Block) -> list[str]:
    """Terms and fields of the ranked metric's signature, one by one, digests by their first digits."""
    flat = _flat({name: value for name, value in block.terms.items() if name not in ("protocol", "split")})
    facts = [
        f"{name.rpartition('.')[2].replace('_', ' ')} {_short(value)}"
        for name, value in flat.items()
        if value is not None
    ]
    return [*facts, *(field for field in block.signatures.get(RANKED_BY, "").split("|") if ":" in field)]


def _short(value: Any) -> str:
    text = "/".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[:8] if len(text) == DIGEST else text


def _place(block: Block) -> tuple[Any, ...]:
    protocols = {"standard": 0, "paper": 1}
    return (
        (block.terms.get("train") or {}).get("data_fraction", 1.0) != 1.0,  # a side experiment
        block.streams != FRAMES,
        protocols.get(block.protocol, 2),
        len(block.streams),
        block.streams,
        _canonical(block.terms),
        _canonical(block.signatures),
    )


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _terms(config: Mapping[str, Any]) -> dict[str, Any]:
    """What rows of a block share. The paper protocol lets every paper have its own features, text, search and schedule,
    so there the block shares the clips and the names of the streams alone."""
    terms: dict[str, Any] = {name: config.get(name) for name in TERMS}
    streams = config.get("streams") or {}
    terms["streams"] = dict(sorted(streams.items()))
    if config["protocol"] == "paper":
        terms["streams"] = dict.fromkeys(terms["streams"])
        return terms
    train, search = config.get("train") or {}, config.get("search") or {}
    terms["text"] = config.get("text") or {}
    terms["search"] = {name: value for name, value in search.items() if name != "clips"}  # clips at a time, not which
    terms["train"] = {name: train[name] for name in ("epochs", "data_fraction") if name in train}
    if "budget" in train:  # the rule by which training ends, and what makes its end no luck: one for all rows
        terms["train"] |= {name: train[name] for name in ENDING if name in train}
    return terms


def _grouped(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """Records by terms and signatures. Cells without scores have no signature: they join their row, or else the
    largest block of their terms, so that a failure stands where its success would have stood."""
    groups: dict[tuple[str, str], list[Record]] = {}
    waiting = []
    for record in records:
        if record.state == "done":
            signatures = _canonical(record.signatures[record.split])
            groups.setdefault((_canonical(_terms(record.config)), signatures), []).append(record)
        else:
            waiting.append(record)
    homes = {place: {_row_key(record) for record in group} for place, group in groups.items()}
    sizes = {place: len(group) for place, group in groups.items()}
    for record in waiting:
        terms = _canonical(_terms(record.config))
        places = sorted(place for place in homes if place[0] == terms and place[1] != NO_SIGNATURES)
        place = max(
            places,
            key=lambda place: (_row_key(record) in homes[place], sizes[place]),
            default=(terms, NO_SIGNATURES),
        )
        groups.setdefault(place, []).append(record)
    return groups


def _row_key(record: Record) -> str:
    config = {name: value for name, value in record.config.items() if name not in UNKEYED}
    return _canonical([config, record.external.source if record.external else None])


def _block(terms: dict[str, Any], signatures: dict[str, str], records: Sequence[Record]) -> Block:
    by_row: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: (record.seed, record.key)):
        by_row.setdefault(_row_key(record), []).append(record)
    rows = _with_settings([Row(tuple(group)) for _, group in sorted(by_row.items())])
    sweeps = _sweeps(rows)
    names = Counter(row.name for number, row in enumerate(rows) if number not in sweeps)
    rows = [
        replace(row, difference="" if number not in sweeps and names[row.name] == 1 else row.settings)
        for number, row in enumerate(rows)
    ]
    candidates = [number for number, row in enumerate(rows) if _may_rank(row) and number not in sweeps]
    ranked_on = () if terms["protocol"] == "paper" else _common_seeds([rows[number] for number in candidates])
    score = {
        number: fmean(rows[number].values(RANKED_BY, ranked_on))
        for number in candidates
        if ranked_on and set(ranked_on) <= set(rows[number].seeds)
    }

    def place(number: int) -> tuple[Any, ...]:
        row = rows[number]
        return number in sweeps, number not in score, -score.get(number, 0.0), row.name, row.difference

    order = sorted(range(len(rows)), key=place)
    return Block(
        terms,
        signatures,
        tuple(rows[number] for number in order),
        tuple(
            1 + sum(score[number] < other for other in score.values()) if number in score else None for number in order
        ),
        ranked_on,
    )


def _sweeps(rows: Sequence[Row]) -> frozenset[int]:
    """The rows, by position, that are tries of a setting: two or more of one name whose settings were changed, beside the row
    of that name with its usual settings. The usual row alone is ranked, for the best of many tries is no fair one."""
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        if not row.external:
            loss = (row.first.config.get("loss") or {}).get("name")
            groups.setdefault(f"{row.name} {loss}", []).append(number)
    found: set[int] = set()
    for group in groups.values():
        changed = [number for number in group if rows[number].first.config.get("changed")]
        if 1 < len(changed) < len(group):
            found.update(changed)
    return frozenset(found)


def _may_rank(row: Row) -> bool:
    return row.complete and not row.external and len(row.values(RANKED_BY)) == len(row.records)


def _common_seeds(rows: Sequence[Row]) -> tuple[int, ...]:
    """The seeds to rank complete rows on: those that all have; where they share none, the set that most have."""
    sets = [frozenset(row.seeds) for row in rows]
    if not sets:
        return ()
    common = reduce(frozenset.intersection, sets)
    if not common:
        counts = Counter(sets)
        common = max(counts, key=lambda seeds: (counts[seeds], len(seeds), [-seed for seed in sorted(seeds)]))
    return tuple(sorted(common))


def _with_settings(rows: Sequence[Row]) -> list[Row]:
    """The rows, each with the settings that tell it from those of the same name, as `key=value` parts."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    flats = [flat_config(row.first.config) for row in rows]
    for row, flat in zip(rows, flats, strict=True):
        by_name.setdefault(row.name, []).append(flat)
    differing = {
        name: [key for key in sorted(set().union(*group)) if len(_values(key, group)) > 1]
        for name, group in by_name.items()
    }
    return [
        Row(
            row.records,
            ", ".join(_parts(row.first, flat, [key for key in differing[row.name] if _speaks_of(flat, key)])),
        )
        for row, flat in zip(rows, flats, strict=True)
    ]


def _values(key: str, group: Sequence[Mapping[str, Any]]) -> set[str]:
    return {_canonical(flat.get(key)) for flat in group if _speaks_of(flat, key)}


def _speaks_of(flat: Mapping[str, Any], key: str) -> bool:
    """Whether `key` can tell this row from others: what is said of a borrowed loss is said of the rows that have it."""
    return key in flat or not key.startswith("loss.")


def _parts(record: Record, flat: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """`key=value` of each of `keys`. A key that the configuration leaves out stands at its default, which it is told with."""
    told = flat if all(key in flat for key in keys) else whole_config(record)
    return [_part(key, told.get(key, "default")) for key in keys]


def _part(key: str, value: Any) -> str:
    text = str(value)[:8] if key.endswith("digest") else str(value)
    return f"{key.removeprefix('settings.')}={text}"


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if not prefix and name in UNKEYED:
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def flat_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with its keys joined by dots; `loss` is its name, and what belongs to it stands below that name."""
    loss = config.get("loss")
    flat = _flat({name: value for name, value in config.items() if name != "loss"})
    if loss is None:
        return {**flat, "loss": "cross_entropy"}
    below = {**loss["settings"], "provider_digest": loss["provider_digest"]}
    return {**flat, "loss": loss["name"], **_flat(below, f"loss.{loss['name']}.")}


def whole_config(record: Record) -> dict[str, Any]:
    """The flat configuration of a record with what it leaves out because that is younger than the first records. Of groups that
    it does not have, as that of captions made elsewhere, nothing is known."""
    config = record.config
    found = {name: whole(name, config[name]) for name in GROUPS if config.get(name)}
    if settings := config.get("settings"):
        with contextlib.suppress(BenchError):  # records outlive plugins
            found["settings"] = method(record.method).whole(settings)
    return {**_flat(found), **flat_config(config)}
