"""Printed results beside the rows of ours that are to reproduce them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from bench.evaluation.metrics import RANKED_BY, SHOWN
from bench.pages.document import NOTHING, Bullets, Cell, Column, Field, Heading, Part, Table, amount
from bench.reports.blocks import Block, Row
from bench.reports.published import Published, Scorer
from bench.reports.verdicts import Answer, answer, base_answer, features, printed_result, why_not


def study_given_up(row: Row, given_up: Mapping[str, str]) -> str | None:
    """The study of a row that was given up; `given_up` are such studies by their records (`dataset/method/key`)."""
    records = (given_up.get(f"{one.dataset}/{one.method}/{one.key}") for one in row.records)
    return next((study for study in records if study), None)


def beside_printed(
    number: int, block: Block, dataset: str, given_up: Mapping[str, str], scorer: Scorer = "coco"
) -> list[Part]:
    """The printed results of the rows of a table with ours: the difference and the verdict where anything may be compared,
    else what both gain over the base of the paper; nothing but gains where ours are of other clips. `given_up` is that of
    `study_given_up`."""
    found = [
        (row, printed, answer(row, printed))
        for n, row in enumerate(block.rows)
        if n not in block.sweeps and (printed := printed_result(row, dataset, scorer)) is not None
    ]
    compared = any(one.difference(one.metric) is not None for _, _, one in found)
    idle = {row.label for row in block.rows if study_given_up(row, given_up)}
    gains = (
        {}
        if compared
        else {row.label: gain for row, printed, one in found if (gain := _gain(printed, one, block, idle))}
    )
    apart = all(one.other_clips for _, _, one in found)
    if apart:
        found = [(row, printed, one) for row, printed, one in found if row.label in gains]
    if not found:
        return []
    columns = [Column("variant"), Column("printed in"), Column("features there")]
    columns += [] if apart else [Column("published", True), Column("reproduced", True)]
    columns += [Column("difference", True), Column("verdict")] if compared else []
    columns += [Column("base"), Column("gain, published", True), Column("gain, reproduced", True)] if gains else []
    rows: list[tuple[Field, ...]] = []
    for row, printed, one in found:
        where = f"{printed.citation}: {printed.row.system}"
        cells: list[Field] = [row.label, where, features(printed)]
        cells += [] if apart else [as_printed(one), as_reproduced(one)]
        cells += [amount(one.difference(one.metric), "+.2f"), one.verdict(one.metric)] if compared else []
        cells += gains.get(row.label, [NOTHING, Cell(NOTHING), Cell(NOTHING)]) if gains else []
        rows.append(tuple(cells))
    notes = why_not([(row.label, one) for row, _, one in found])
    if gains:
        left_out = " Where the study of that row was given up, the gain here is left out." if idle else ""
        notes.append(f"A gain is that over the row of the paper that is named as the base, there and here.{left_out}")
    caption = f"Published and reproduced, table {number}"
    below = [Bullets(tuple(notes))] if notes else []
    return [Heading(3, caption), Table(caption, tuple(columns), tuple(rows)), *below]


def _gain(printed: Published, one: Answer, block: Block, idle: Collection[str]) -> list[Field] | None:
    """The base of a printed row, and what is gained over it there and here; nothing here over a base of `idle`."""
    base = base_answer(printed, block.rows)
    gain = one.gain(base[1], one.metric) if base else None
    if not base or not gain:
        return None
    return [base[0], amount(gain[0], "+.2f"), amount(None if base[0] in idle else gain[1], "+.2f")]


def as_printed(one: Answer) -> Cell:
    """The printed score by which an answer is compared."""
    other = "" if one.metric == RANKED_BY else f" {SHOWN[one.metric]}"
    return Cell(f"{one.printed[one.metric]}{other}", one.printed[one.metric])


def as_reproduced(one: Answer) -> Cell:
    """Our score by which an answer is compared; nothing where it is of other clips than the printed one."""
    return Cell(NOTHING) if one.other_clips else Cell(one.here(one.metric), one.mean(one.metric))
