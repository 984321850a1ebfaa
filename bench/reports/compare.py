"""Two rows or records beside each other: scores with what chance makes of them, what differs, clips won and lost."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from bench import BenchError
from bench.evaluation.metrics import MEANS, TOP, long_name
from bench.evaluation.ngrams import Floats
from bench.evaluation.resampling import DRAWS, Difference, Rows, compare, holm, metrics_of
from bench.pages.markdown import clean
from bench.pages.terminal import columns, wrapped
from bench.records.clip_scores import CellClips
from bench.records.schema import Record
from bench.reports.blocks import Row, flat_config
from bench.reports.verdicts import spread

FEW = 5  # clips won, and clips lost
REFERENCES = 3  # quoted of a clip
NOTHING = "-"
DIGEST = re.compile(r"[0-9a-f]{64}")
PART = {
    "protocol": "protocol",
    "splits": "protocol",
    "subset": "protocol",
    "captions_digest": "protocol",
    "streams": "streams",
    "absent_streams": "streams",
    "train": "budget",
    "phases": "budget",
    "search": "decoding",
    "text": "text",
    "tokenizer_version": "text",
    "engine": "code",
    "schema": "code",
    "method_digest": "code",
}
"""Part of the table of differences by the first word of a setting; what is not here are the method's own settings."""
ORDER = ("protocol", "streams", "budget", "decoding", "text", "settings", "code", "cost")
LEDGER = {
    "captions": "budget",
    "budget": "budget",
    "epochs": "budget",
    "fit_seconds": "cost",
    "peak_memory_mb": "cost",
    "parameters": "cost",
}


@dataclass(frozen=True)
class Side:
    """One of the two: a row, the clips of its cells in the order of its records."""

    row: Row
    cells: tuple[CellClips, ...]


def check(first: Row, second: Row) -> None:
    """Raise BenchError unless both have scores that may be compared: same data set, split and metric signatures."""
    for row in (first, second):
        for record in row.records:
            _check_scored(record, row)
    a, b = first.first, second.first
    for what, one, other in (("data sets", a.dataset, b.dataset), ("splits", a.split, b.split)):
        if one != other:
            raise BenchError(f"{_called(first)} and {_called(second)} are of different {what}: {one} and {other}")
    shared = common(first, second)
    if not shared:
        raise BenchError(f"{_called(first)} and {_called(second)} have no metric in common")
    for metric in shared:
        one, other = (record.signatures[record.split][metric] for record in (a, b))
        if one != other:
            raise BenchError(
                f"{_called(first)} and {_called(second)} were not scored alike, so their {long_name(metric)} cannot be "
                f"compared: {_apart(one, other)}"
            )


def common(first: Row, second: Row) -> list[str]:
    """The metrics that all records of both have, in the order of tables."""
    names = [set(record.scores[record.split]) for row in (first, second) for record in row.records]
    return [name for name in TOP if all(name in one for one in names)]


def _check_scored(record: Record, row: Row) -> None:
    what = f"{_called(Row((record,)))} of {record.dataset} (key {record.key})"
    partial = "; the other seeds alone would be another set, and can be named one by one, by their keys"
    more = partial if len(row.records) > 1 else ""
    if record.failure is not None:
        failure = record.failure
        raise BenchError(
            f"{what} failed in {failure.stage} and has no scores ({failure.type}: {clean(failure.message)}): the bench run "
            f"command that made it, with --retry-failed, runs it again{more}"
        )
    if record.state != "done":
        raise BenchError(f"{what} has no scores yet: the bench run command that made it scores it{more}")


def _called(row: Row) -> str:
    return f"{row.name} seed {row.first.seed}" if len(row.records) == 1 else row.label


def _apart(one: str, other: str) -> str:
    """The fields in which two signatures differ."""
    left, right = one.split("|"), other.split("|")
    pairs = [(a, b) for a, b in zip(left, right, strict=False) if a != b]
    return ", ".join(f"{a} and {b}" for a, b in pairs) if len(left) == len(right) else f"{one} and {other}"


def render(
    first: Side, second: Side, references: Mapping[str, Sequence[str]], notes: Sequence[str], clips: int = FEW
) -> str:
    """The whole comparison as text for a terminal, with so many `clips` won and lost. Both sides have passed `check`."""
    cells = [*first.cells, *second.cells]
    if any(set(cell.ids) != set(cells[0].ids) for cell in cells):
        raise BenchError("the cells have other clips in their clip_scores.csv: copy their folders again")
    parts = [_legend(first, second), *_scores(first, second), *(wrapped(note) for note in notes)]
    parts.append(_differences(first.row, second.row))
    parts += _clips(first, second, references, clips)
    return "\n\n".join(parts)


def _legend(first: Side, second: Side) -> str:
    record = first.row.first
    lines = [f"{letter}  {_described(side.row)}" for letter, side in (("A", first), ("B", second))]
    return "\n".join([*lines, f"Data set {record.dataset}, split {record.split}, {len(first.cells[0].ids):,} clips."])


def _described(row: Row) -> str:
    seeds = ("seed " if len(row.records) == 1 else "seeds ") + ", ".join(map(str, row.seeds))
    external = f", external: {row.first.external.source}" if row.first.external else ""
    keys = ("key " if len(row.records) == 1 else "keys ") + ", ".join(record.key[:8] for record in row.records)
    return clean(f"{row.label}, {row.title}{external}, {seeds} ({keys})")


def _scores(first: Side, second: Side) -> list[str]:
    shared = common(first.row, second.row)
    drawn = _compared(first, second)
    corrected = dict(zip(drawn, holm([found.p for found in drawn.values()]).tolist(), strict=True))
    rows = []
    for metric in shared:
        one, other = first.row.values(metric), second.row.values(metric)
        found = drawn.get(metric)
        rows.append(
            (
                long_name(metric),
                spread(one, whole=True),
                spread(other, whole=True),
                f"{fmean(one) - fmean(other):+.2f}",
                _interval(found),
                _p(found.p if found else None),
                _p(corrected.get(metric)),
            )
        )
    head = ("metric", "A", "B", "A - B", "95 % interval", "p", "p (Holm)")
    table = columns(head, rows, right=head[1:])
    if not drawn:
        return [table]
    words = (
        "Scores: mean ± standard deviation (number of seeds). Interval: paired bootstrap of the clips, "
        f"{DRAWS:,} draws. p: approximate randomisation, two-sided: how often a difference as large comes about when A and "
        f"B exchange their captions of random clips, {DRAWS:,} draws. p (Holm): corrected for {len(drawn)} metrics. CIDEr "
        "keeps the document frequencies of the whole set. What other seeds would have given is not in interval or p."
    )
    return [table, wrapped(words)]


def _compared(first: Side, second: Side) -> dict[str, Difference]:
    """The metrics that can be drawn anew from what is known of the clips, by name."""
    order = first.cells[0].ids
    known = [[_rows(cell, order) for cell in side.cells] for side in (first, second)]
    parts = set.intersection(*(set(rows) for system in known for rows in system))
    if not parts:
        return {}
    one, other = ([{part: rows[part] for part in parts} for rows in system] for system in known)
    record = first.row.first
    found = compare(one, other, f"{record.dataset} {record.split} {len(order)}")
    return {metric: found[metric] for metric in metrics_of(one[0]) if metric in common(first.row, second.row)}


def _rows(cell: CellClips, order: Sequence[str]) -> Rows:
    """What can be drawn of a cell, its clips in `order`, in units of 0 to 1."""
    place = {clip: number for number, clip in enumerate(cell.ids)}
    chosen = [place[clip] for clip in order]
    means = {metric: cell.scores[metric][chosen] / 100 for metric in MEANS if metric in cell.scores}
    return {**{part: rows[chosen] for part, rows in cell.statistics.items()}, **means}


def _interval(found: Difference | None) -> str:
    if found is None or np.isnan(found.low):
        return NOTHING
    return f"{100 * found.low:+.2f} .. {100 * found.high:+.2f}"


def _p(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _differences(first: Row, second: Row) -> str:
    """What the two configurations differ in, part by part."""
    rows = differences(first, second)
    title = "WHAT DIFFERS"
    lone = [letter for letter, row in (("A", first), ("B", second)) if row.external]
    if lone:
        title += f" (of {' and '.join(lone)} only the captions are known)"
    if not rows:
        return f"{title}\nnothing in the configurations"
    return f"{title}\n{columns(('part', 'setting', 'A', 'B'), rows)}"


def differences(first: Row, second: Row) -> list[tuple[str, str, str, str]]:
    """(part, setting, A, B) of all settings and costs that are not the same, in the order of `ORDER`."""
    left, right = flat_config(first.first.config), flat_config(second.first.config)
    names = [*left, *(name for name in right if name not in left)]
    hidden = {"method", "variant", "predictions_digest"}  # told by the legend
    if first.external or second.external:
        names = [name for name in names if name in left and name in right]
        hidden |= {"loss"}  # that of captions made elsewhere is not known
    if first.first.method != second.first.method:
        hidden |= {"method_digest"}
    found = [
        (
            PART.get(name.partition(".")[0], "settings"),
            name.removeprefix("settings."),
            told(left[name]) if name in left else NOTHING,
            told(right[name]) if name in right else NOTHING,
        )
        for name in names
        if name not in hidden and (name not in left or name not in right or left[name] != right[name])
    ]
    found += [(part, name, *sides) for name, part, sides in _ledgers(first, second) if sides[0] != sides[1]]
    return sorted(found, key=lambda row: ORDER.index(row[0]))


def _ledgers(first: Row, second: Row) -> list[tuple[str, str, tuple[str, str]]]:
    """(name, part, sides) of what the cells used: means over seeds."""
    found = []
    for name, part in LEDGER.items():
        sides = []
        for row in (first, second):
            values = [record.spent(name) for record in row.records]
            known = [value for value in values if value is not None]
            sides.append(f"{fmean(known):,.0f}" if known else NOTHING)
        found.append((f"{name} used" if name in ("captions", "epochs") else name, part, (sides[0], sides[1])))
    return found


def told(value: Any) -> str:
    """A value of a configuration as the command line writes it; digests by their first digits."""
    if isinstance(value, str):
        return value[:12] if DIGEST.fullmatch(value) else clean(value)
    return clean(json.dumps(value, ensure_ascii=False))


def _clips(first: Side, second: Side, references: Mapping[str, Sequence[str]], most: int) -> list[str]:
    """The clips that A wins and loses by most."""
    if any("cider" not in cell.scores for cell in (*first.cells, *second.cells)):
        return ["The clips have no CIDEr by which they could be ordered."]
    order = first.cells[0].ids
    one, other = (
        100 * np.mean([_rows(cell, order)["cider"] for cell in side.cells], axis=0) for side in (first, second)
    )
    gains: Floats = one - other
    won = sorted(np.flatnonzero(gains > 0).tolist(), key=lambda clip: (-gains[clip], order[clip]))
    lost = sorted(np.flatnonzero(gains < 0).tolist(), key=lambda clip: (gains[clip], order[clip]))
    equal = len(order) - len(won) - len(lost)
    parts = [f"CLIPS, by CIDEr-D: A is above B on {len(won):,}, below on {len(lost):,}, equal on {equal:,}."]
    for title, clips in (("A WINS MOST", won[:most]), ("A LOSES MOST", lost[:most])):
        if not clips:
            continue
        told = [
            f"{order[clip]}  A {one[clip]:.1f}  B {other[clip]:.1f}  {gains[clip]:+.1f}\n"
            + "\n".join(
                [
                    *captions("A", first.cells, first.row.seeds, order[clip]),
                    *captions("B", second.cells, second.row.seeds, order[clip]),
                    *quoted(references.get(order[clip], ())),
                ]
            )
            for clip in clips
        ]
        parts.append("\n\n".join([title, *told]))
    return parts


def captions(letter: str, cells: Sequence[CellClips], seeds: Sequence[int], clip: str) -> list[str]:
    """The lines of one side: each caption once, with its seeds where they do not all say the same."""
    by_text: dict[str, list[int]] = {}
    for cell, seed in zip(cells, seeds, strict=True):
        by_text.setdefault(clean(cell.captions[clip]) or "(empty)", []).append(seed)
    lines = []
    for number, (text, said) in enumerate(by_text.items()):
        which = f"   [seed {', '.join(map(str, said))}]" if len(by_text) > 1 else ""
        lines.append(f"    {' ' if number else letter}  {text}{which}")
    return lines


def quoted(references: Sequence[str]) -> list[str]:
    """The first few references of a clip, and how many more there are."""
    texts = list(dict.fromkeys(clean(text) for text in references))
    lines = [f"    {'R' if not number else ' '}  {text}" for number, text in enumerate(texts[:REFERENCES])]
    rest = len(texts) - REFERENCES
    return [*lines, f"       and {rest} more"] if rest > 0 else lines
