"""Two rows or records beside each other: scores with what chance makes of them, what differs, clips won and lost."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from statistics import fmean, stdev
from typing import Any

import numpy as np

from bench import BenchError
from bench.errors import listing
from bench.evaluation.metrics import MEANS, RANKED_BY, TOP, long_name
from bench.evaluation.ngrams import Floats
from bench.evaluation.resampling import DRAWS, Difference, Rows, compare, holm, metrics_of
from bench.evaluation.statistics import seeds_for
from bench.pages.document import clean, p_value
from bench.pages.terminal import columns
from bench.records.clip_scores import CellClips
from bench.records.schema import Record
from bench.reports.blocks import Row, whole_config
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


def of_both(first: Row, second: Row) -> tuple[Row, Row, list[str]]:
    """The rows with the seeds that both have, and sentences on those that are left out; whole where they share none, and beside
    captions made elsewhere, which have none."""
    shared = first.shared_seeds(second)
    if not shared:
        return first, second, []
    rows, notes = [], []
    for row in (first, second):
        rows.append(replace(row, records=tuple(record for record in row.records if record.seed in shared)))
        if left := [str(seed) for seed in row.seeds if seed not in shared]:
            notes.append(
                f"{'Seed' if len(left) == 1 else 'Seeds'} {listing(left)} of {row.label} {'is' if len(left) == 1 else 'are'} "
                "left out: rows are compared on the seeds that both have."
            )
    return rows[0], rows[1], notes


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


def facts(
    first: Side, second: Side, references: Mapping[str, Sequence[str]], notes: Sequence[str], most: int = FEW
) -> dict[str, Any]:
    """The whole comparison as JSON, with at most `most` clips won and lost. Both sides have passed `check`."""
    cells, record = [*first.cells, *second.cells], first.row.first
    if any(set(cell.ids) != set(cells[0].ids) for cell in cells):
        raise BenchError("the cells have other clips in their clip_scores.csv: copy their folders again")
    rows, drawn = differences(first.row, second.row), _compared(first, second)
    return {
        "dataset": record.dataset,
        "split": record.split,
        "clips": len(cells[0].ids),
        "a": _side(first.row),
        "b": _side(second.row),
        "metrics": _metrics(first, second, drawn),
        "draws": DRAWS,
        "needed": _needed(first, second, drawn),
        "differences": [dict(zip(("part", "setting", "a", "b"), row, strict=True)) for row in rows],
        "cider_by_clip": _clips(first, second, references, most),
        "notes": list(notes),
    }


def _side(row: Row) -> dict[str, Any]:
    return {
        "row": row.label,
        "title": row.title,
        "external": row.first.external.source if row.first.external else None,
        "seeds": list(row.seeds),
        "keys": [record.key for record in row.records],
    }


def _metrics(first: Side, second: Side, drawn: Mapping[str, Difference]) -> list[dict[str, Any]]:
    """The scores of both by seed, and what chance makes of the difference of their means."""
    corrected = dict(zip(drawn, holm([found.p for found in drawn.values()]).tolist(), strict=True))
    rows = []
    for metric in common(first.row, second.row):
        one, other = first.row.values(metric), second.row.values(metric)
        found = drawn.get(metric)
        rows.append(
            {
                "metric": metric,
                "a": one,
                "b": other,
                "difference": fmean(one) - fmean(other),
                "interval": None if found is None or np.isnan(found.low) else [100 * found.low, 100 * found.high],
                "p": found.p if found else None,
                "p_holm": corrected.get(metric),
            }
        )
    return rows


def _needed(first: Side, second: Side, drawn: Mapping[str, Difference]) -> dict[str, int | None]:
    """How many seeds, or clips of the same kind, bring half of the 95 % interval down to one CIDEr: a true difference of one is
    then found about every other time. Seeds by their paired differences, None with fewer than two; clips by the bootstrap."""
    scores = [
        {one.seed: own[RANKED_BY] for one in side.row.records if RANKED_BY in (own := one.scores[one.split])}
        for side in (first, second)
    ]
    shared = [scores[0][seed] - scores[1][seed] for seed in scores[0].keys() & scores[1].keys()]
    found = drawn.get(RANKED_BY)
    clips = None
    if found is not None and not np.isnan(found.low):
        clips = max(2, ceil(len(first.cells[0].ids) * (50 * (found.high - found.low)) ** 2))
    if len(shared) < 2:
        return {"seeds": None, "clips": clips}
    deviation = stdev(shared)
    return {"seeds": seeds_for(deviation, 1.0), "clips": clips}


def comparison_text(found: Mapping[str, Any]) -> str:
    """Facts of a comparison as text for a terminal."""
    sides = "\n".join(f"{letter}  {_described(found[letter.lower()])}" for letter in "AB")
    legend = f"{sides}\nData set {found['dataset']}, split {found['split']}, {found['clips']:,} clips."
    parts = [legend, *_scores(found), *found["notes"], _differences(found), *_shown_clips(found["cider_by_clip"])]
    return "\n\n".join(parts)


def _described(side: Mapping[str, Any]) -> str:
    seeds, keys = side["seeds"], [key[:8] for key in side["keys"]]
    external = f", external: {side['external']}" if side["external"] else ""
    return clean(
        f"{side['row']}, {side['title']}{external}, {'seed' if len(seeds) == 1 else 'seeds'} {listing(map(str, seeds))} "
        f"({'key' if len(keys) == 1 else 'keys'} {listing(keys)})"
    )


def _scores(found: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            long_name(one["metric"]),
            spread(one["a"], whole=True),
            spread(one["b"], whole=True),
            f"{one['difference']:+.2f}",
            "{:+.2f} .. {:+.2f}".format(*one["interval"]) if one["interval"] else NOTHING,
            _p(one["p"]),
            _p(one["p_holm"]),
        )
        for one in found["metrics"]
    ]
    head = ("metric", "A", "B", "A - B", "95 % interval", "p", "p (Holm)")
    table, drawn = columns(head, rows, right=head[1:]), sum(one["p"] is not None for one in found["metrics"])
    if not drawn:
        return [table]
    words = (
        "Scores: mean ± standard deviation (number of seeds). Interval: paired bootstrap of the clips, "
        f"{found['draws']:,} draws. p: approximate randomisation, two-sided: how often a difference as large comes about when "
        f"A and B exchange their captions of random clips, {found['draws']:,} draws. p (Holm): corrected for {drawn} metrics. "
        "CIDEr keeps the document frequencies of the whole set. What other seeds would have given is not in interval or p."
    )
    needed = [f"{number:,} {kind}" for kind, number in found["needed"].items() if number is not None]
    return (
        [
            table,
            words,
            f"An interval of ± 1 CIDEr takes some {' or '.join(needed)}; a true difference of 1 is then found every other time.",
        ]
        if needed
        else [table, words]
    )


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


def _p(value: float | None) -> str:
    return NOTHING if value is None else p_value(value)


def _differences(found: Mapping[str, Any]) -> str:
    """What the two configurations differ in, part by part."""
    rows = [tuple(row.values()) for row in found["differences"]]
    lone = [letter for letter in "AB" if found[letter.lower()]["external"]]
    known = f" (of {' and '.join(lone)} only the captions are known)" if lone else ""
    table = columns(("part", "setting", "A", "B"), rows) if rows else "nothing in the configurations"
    return f"WHAT DIFFERS{known}\n{table}"


def differences(first: Row, second: Row) -> list[tuple[str, str, str, str]]:
    """(part, setting, A, B) of all settings and costs that are not the same, in the order of `ORDER`."""
    left, right = whole_config(first.first), whole_config(second.first)
    names = [*left, *(name for name in right if name not in left)]
    hidden = {"method", "variant", "predictions_digest"}  # the legend shows it
    if first.external or second.external:
        names = [name for name in names if name in left and name in right]
        hidden |= {"loss"}  # that of captions made elsewhere is not known
    if first.first.method != second.first.method:
        hidden |= {"method_digest"}
    found = [
        (
            PART.get(name.partition(".")[0], "settings"),
            name.removeprefix("settings."),
            as_written(left[name]) if name in left else NOTHING,
            as_written(right[name]) if name in right else NOTHING,
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


def as_written(value: Any) -> str:
    """A value of a configuration as the command line writes it; digests by their first digits."""
    if isinstance(value, str):
        return value[:12] if DIGEST.fullmatch(value) else clean(value)
    return clean(json.dumps(value, ensure_ascii=False))


def _clips(first: Side, second: Side, references: Mapping[str, Sequence[str]], most: int) -> dict[str, Any] | None:
    """On how many clips A is above and below B, and those that it wins and loses by most; None without CIDEr by clip."""
    if any("cider" not in cell.scores for cell in (*first.cells, *second.cells)):
        return None
    order = first.cells[0].ids
    one, other = (
        100 * np.mean([_rows(cell, order)["cider"] for cell in side.cells], axis=0) for side in (first, second)
    )
    gains: Floats = one - other
    won = sorted(np.flatnonzero(gains > 0).tolist(), key=lambda clip: (-gains[clip], order[clip]))
    lost = sorted(np.flatnonzero(gains < 0).tolist(), key=lambda clip: (gains[clip], order[clip]))

    def described(clip: int) -> dict[str, Any]:
        name = order[clip]
        said = {
            letter: [
                {"seed": seed, "caption": cell.captions[name]}
                for seed, cell in zip(side.row.seeds, side.cells, strict=True)
            ]
            for letter, side in (("a", first), ("b", second))
        }
        scores = {"a_score": float(one[clip]), "b_score": float(other[clip]), "difference": float(gains[clip])}
        return {"clip": name, **scores, **said, "references": list(dict.fromkeys(references.get(name, ())))}

    return {
        "above": len(won),
        "below": len(lost),
        "equal": len(order) - len(won) - len(lost),
        "won_most": [described(clip) for clip in won[:most]],
        "lost_most": [described(clip) for clip in lost[:most]],
    }


def _shown_clips(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return ["The clips have no CIDEr by which they could be ordered."]
    parts = [
        f"CLIPS, by CIDEr-D: A is above B on {found['above']:,}, below on {found['below']:,}, equal on {found['equal']:,}."
    ]
    for title, clips in (("A WINS MOST", found["won_most"]), ("A LOSES MOST", found["lost_most"])):
        blocks = [
            "\n".join(
                [
                    f"{one['clip']}  A {one['a_score']:.1f}  B {one['b_score']:.1f}  {one['difference']:+.1f}",
                    *captions("A", one["a"]),
                    *captions("B", one["b"]),
                    *quoted(one["references"]),
                ]
            )
            for one in clips
        ]
        parts += ["\n\n".join([title, *blocks])] if blocks else []
    return parts


def captions(letter: str, said: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of one side: each caption once, with its seeds where they do not all say the same."""
    by_text: dict[str, list[int]] = {}
    for one in said:
        by_text.setdefault(clean(one["caption"]) or "(empty)", []).append(one["seed"])
    lines = []
    for number, (text, seeds) in enumerate(by_text.items()):
        which = f"   [seed {listing(map(str, seeds))}]" if len(by_text) > 1 else ""
        lines.append(f"    {' ' if number else letter}  {text}{which}")
    return lines


def quoted(references: Sequence[str]) -> list[str]:
    """The first few references of a clip, and how many more there are."""
    texts = list(dict.fromkeys(clean(text) for text in references))
    lines = [f"    {'R' if not number else ' '}  {text}" for number, text in enumerate(texts[:REFERENCES])]
    rest = len(texts) - REFERENCES
    return [*lines, f"       and {rest} more"] if rest > 0 else lines
