"""Rows and records as they are named on a command line: `recnet:local`, the first digits of a key, or a cell's folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import BenchError
from bench.declare.registry import find_methods
from bench.errors import did_you_mean
from bench.home import Home, written_path
from bench.records.schema import Record
from bench.records.store import RECORD, BadRecord, all_records, cell_folder, read_record, record_paths
from bench.reports.blocks import Row, blocks

KEY = re.compile(r"[0-9a-f]{1,16}")  # a whole key has 16 digits
MOST_NAMED = 8  # rows or records spelled out in an error


def find_row(
    word: str,
    home: Home,
    dataset: str | None = None,
    split: str | None = None,
    protocol: str | None = None,
    splits: str | None = None,
    seeds: bool = False,
    options: Sequence[str] = ("dataset",),
) -> Row:
    """The row that `word` names: all seeds of `method:variant`, or the one record of a key or folder.

    `dataset`, `split`, `protocol` and `splits` narrow what a method's name may mean; `options` are those of them that the
    command takes. Of the rows of a name the one of the main table is meant: before tries of a setting, trainings with a part of
    the clips, controls without rewards, borrowed losses, and other splits than the default. With `seeds` a record stands for its
    row: all seeds of its settings. Raises BenchError for a word that names nothing or several rows, and for an unsound record.
    """
    record = _record(word, home, dataset)
    if record is None:
        return _by_name(
            word, home, {"dataset": dataset, "split": split, "protocol": protocol, "splits": splits}, options
        )
    if not seeds:
        return Row((record,))
    bad: list[BadRecord] = []
    rows = _rows(all_records(home.results, record.dataset, bad))
    (row,) = [row for row in rows if record.key in [one.key for one in row.records]]
    _refuse_unsound([row], record.method, bad)
    return row


def find_record(word: str, home: Home, dataset: str | None = None) -> Record:
    """The one record that `word` names, in any state. Raises BenchError as `find_row`, and for a row of several seeds."""
    row = find_row(word, home, dataset)
    if len(row.records) > 1:
        raise BenchError(
            f"{word} has {len(row.records)} records; name one by its key: "
            + ", ".join(f"{record.key[:8]} (seed {record.seed})" for record in row.records)
        )
    return row.first


def _record(word: str, home: Home, dataset: str | None) -> Record | None:
    """The record of a folder, of a path to its record.json, or of the first digits of a key; None for any other word."""
    path = written_path(word)
    if "/" in word or path.name == RECORD or (path / RECORD).is_file():
        place = path if path.name == RECORD else path / RECORD
        if not place.is_file():
            raise BenchError(f"there is no record {place}; a cell's folder is results/DATASET/METHOD/KEY")
        return _in_place(place, home)
    if not KEY.fullmatch(word) or any(home.results.glob(f"*/{word}")):  # such as a method called `fade`
        return None
    found = sorted(home.results.glob(f"{dataset or '*'}/*/{word}*/{RECORD}"))
    if len(found) > 1:
        raise BenchError(
            f"several keys begin with {word}: {_some([str(path.parent.relative_to(home.root)) for path in found])}; "
            "give more of its digits"
        )
    return _in_place(found[0], home) if found else None


def _in_place(path: Path, home: Home) -> Record:
    """The record at `path`, which must lie where cells of its home lie: its other files are looked for there."""
    record = read_record(path)
    if cell_folder(home.results, record).resolve() != path.parent.resolve():
        raise BenchError(
            f"{path} does not lie in {cell_folder(home.results, record)}: move its folder there, or set BENCH_HOME to the "
            "folder that holds its results"
        )
    return record


def _by_name(word: str, home: Home, asked: Mapping[str, str | None], options: Sequence[str]) -> Row:
    bad: list[BadRecord] = []
    records = all_records(home.results, asked["dataset"], bad=bad)
    name = word if ":" in word else _default(word)
    fitting = [record for record in records if all(_has(record, *one) for one in asked.items())]
    rows = [row for row in _rows(fitting) if name in (row.name, row.first.method)]
    alike: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        alike.setdefault((row.first.dataset, row.first.split, row.first.config["protocol"]), []).append(row)
    rows = [row for some in alike.values() for row in _meant(some)]
    _refuse_unsound(rows, name.partition(":")[0], bad)
    if not rows:
        raise _nothing(word, name, home, asked, fitting)
    if len(rows) > 1:
        described = _some(sorted(map(_described, rows)))
        raise BenchError(f"{word} names {len(rows)} rows: {described}; {_narrowed(rows, options)}")
    return rows[0]


def _meant(rows: Sequence[Row]) -> Sequence[Row]:
    """Those of some rows of one name that the name alone means."""
    for preferred in PREFERRED:
        rows = [row for row in rows if preferred(row)] or rows
    return rows


def _narrowed(rows: Sequence[Row], options: Sequence[str]) -> str:
    """What one does who meant one of the rows: the options that tell them apart, or a key in brackets."""
    owns = [_own(row.first) for row in rows]
    telling = [f"{what}=" for what in owns[0] if what in options and len({own[what] for own in owns}) > 1]
    narrowed = f"narrow it with {' or '.join(telling)}, or " if telling else ""
    all_seeds = " (with --seeds it stands for all seeds of its settings)" if "--seeds" in options else ""
    return f"{narrowed}give a key in brackets instead of the name{all_seeds}"


def _own(record: Record) -> dict[str, str]:
    """What the options of a command that takes rows would say of a record."""
    splits = record.config.get("splits") or "default"  # the first records do not say
    return {"dataset": record.dataset, "split": record.split, "protocol": record.config["protocol"], "splits": splits}


def _has(record: Record, what: str, wanted: str | None) -> bool:
    return wanted is None or _own(record)[what] == wanted


PREFERRED: tuple[Callable[[Row], bool], ...] = (
    lambda row: row.first.config.get("train", {}).get("data_fraction", 1.0) == 1.0,
    lambda row: (row.first.config.get("splits") or "default") == "default",
    lambda row: not row.first.config.get("subset"),
    lambda row: row.rewarded,
    lambda row: not row.first.config.get("loss"),
    lambda row: not row.first.config.get("changed"),
    lambda row: not row.difference,
)
"""What the row that a name means has and its namesakes have not, the first that tells them apart before the others."""


def _refuse_unsound(rows: Sequence[Row], method: str, bad: Sequence[BadRecord]) -> None:
    """Raise the first of `bad` that may be a seed of the rows, for a mean over the others would be of another set; without
    rows, the first of the method."""
    datasets = {row.first.dataset for row in rows}
    for error in bad:
        dataset, folder = error.path.parents[2].name, error.path.parents[1].name
        if folder == method and (dataset in datasets or not rows):
            raise error


def _default(word: str) -> str:
    """`recnet` is the card's default variant, as everywhere; a method whose card is not here is taken by its name alone."""
    entry = find_methods().get(word)
    return f"{word}:{entry.card.default}" if entry and entry.card else word


def _rows(records: Sequence[Record]) -> list[Row]:
    """All rows of the records, data set by data set."""
    names = dict.fromkeys(record.dataset for record in records)
    return [
        row
        for name in names
        for block in blocks([record for record in records if record.dataset == name])
        for row in block.rows
    ]


def _described(row: Row) -> str:
    first = row.first
    streams = "+".join(first.config.get("streams") or {}) or "no streams"
    seeds = "seed" if len(row.records) == 1 else "seeds"
    cells = first.config.get("cells")
    trained = f"{len(cells)} folds" if cells else f"{seeds} {', '.join(map(str, row.seeds))}"
    splits, subset = first.config.get("splits") or "default", first.config.get("subset")
    facts = [
        f"{first.dataset} {first.split}",
        "" if splits == "default" else f"splits={splits}",
        f"a subset of {'/'.join(map(str, subset))}" if subset else "",
        str(first.config["protocol"]),
        streams,
        trained,
    ]
    return f"{row.label} of {', '.join(filter(None, facts))} ({first.key[:8]})"


def _nothing(
    word: str,
    name: str,
    home: Home,
    asked: Mapping[str, str | None],
    fitting: Sequence[Record],
) -> BenchError:
    """The error for a word that names no row, with the rows that there are."""
    dataset = asked["dataset"]
    if dataset and not record_paths(home.results, dataset):
        known = sorted({path.parents[2].name for path in record_paths(home.results)})
        there = f"there are of: {', '.join(known)}" if known else "bench run makes them"
        return BenchError(
            f"there are no records of data set {dataset} under {home.results}; {there}{did_you_mean(dataset, known)}"
        )
    names = sorted({row.name for row in _rows(fitting)})
    where = " ".join(value if what == "dataset" else f"{what}={value}" for what, value in asked.items() if value)
    return BenchError(
        f'no row or record is called "{word}"{f" in {where}" if where else ""}; rows: {_some(names) or "none"}'
        f"{did_you_mean(word, [*names, *(name.partition(':')[0] for name in names)])}"
    )


def _some(parts: Sequence[str]) -> str:
    rest = len(parts) - MOST_NAMED
    return "; ".join(parts[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
