"""One table of a leaderboard with all that belongs to it: notes, controls, printed results, costs, clips, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bench import BenchError
from bench.evaluation.metrics import PREFIX, RANKED_BY, SHOWN
from bench.figures.board import Cost, Standing, cost, forest
from bench.figures.canvas import kept
from bench.figures.drawing import VALIDATION, epochs
from bench.home import Home
from bench.pages.document import (
    NOTHING,
    Alarm,
    Bullets,
    Cell,
    Code,
    Column,
    Field,
    Folded,
    Heading,
    Image,
    Line,
    Link,
    Paragraph,
    Part,
    Quote,
    Span,
    Table,
    amount,
    p_value,
)
from bench.records.curves import CURVES
from bench.records.folds import trained_in
from bench.records.further import read_further
from bench.records.store import cell_folder
from bench.reports.blocks import Block, Row
from bench.reports.clips import Clips, choose_examples
from bench.reports.costs import known, ledger, record_link
from bench.reports.intervals import MOST_TIED, Chance
from bench.reports.reproduced import beside_printed, study_given_up
from bench.reports.verdicts import (
    spread,
)

EFFECTS = "effects"  # the page of the studies
STUDIES = "studies"  # what has come of them, below results
LONGEST_MESSAGE = 120  # characters of a failure's message on a page; the record has all of it
RANKED = SHOWN[RANKED_BY]
OTHERS = tuple(name for name in SHOWN if name != RANKED_BY)

BY_EVENTS = (
    "The captions of the table above, scored as densevid_eval, the public code of the ActivityNet Captions challenge, "
    "scores captions of annotated events: each against every reference event of its video that overlaps with its own by "
    "at least 0.3, 0.5, 0.7 or 0.9, a video's pairs as one corpus, then the mean over videos and over these thresholds. "
    "These numbers are not ranked, and not to be compared with those above."
)


@dataclass(frozen=True)
class Setting:
    """What all sections of a page need: where records lie, scores of clips by key, the folder of its pictures, relative to the
    page, and the studies that were given up by their records (`dataset/method/key`)."""

    home: Home
    clips: Mapping[str, Clips]
    pictures: str
    given_up: Mapping[str, str]


def section(number: int, block: Block, chance: Chance, dataset: str, setting: Setting, apart: str = "") -> list[Part]:
    """The parts of table `number`; `apart` tells it from others of the same protocol, split and streams."""
    terms = block.terms
    streams = " + ".join(block.streams) or "streams unknown"
    heading = f"{number}. {block.protocol.capitalize()} protocol, {terms['split']} split, {streams}"
    if all(row.external for row in block.rows):
        heading = f"{number}. Captions made elsewhere, {terms['split']} split"
    heading += f" ({apart})" if apart else ""
    parts: list[Part] = [Heading(2, heading), _scores(block, chance, heading)]
    if notes := [
        *_notes(block, chance),
        *_studied(block, setting.home),
        *_given_up(block, setting),
        *_troubles(block, setting.home),
    ]:
        parts.append(Bullets(tuple(notes)))
    parts += _pictures(number, block, chance, dataset, setting)
    parts += _controls(number, block, chance)
    parts += _sweep(number, block, chance)
    parts += beside_printed(number, block, dataset, setting.given_up)
    if any(name.startswith(PREFIX) for name in block.signatures):
        parts += _events(number, block, dataset, setting)
    parts += _further(number, block, setting.home)
    parts += [Heading(3, f"Cost and records of table {number}"), ledger(number, block, setting.home)]
    parts += _examples(number, block, setting)
    shared: list[Line] = [_shared(terms), *_signatures(block)]
    return [
        *parts,
        Folded(f"What the rows of table {number} share, and the signatures of its scores", (Bullets(tuple(shared)),)),
    ]


_SCORED = (
    Column(RANKED, True, "the metric that rows are ranked by"),
    Column("95 % interval", True, f"of {RANKED}, over the choice of clips"),
    Column("tied", True, f"rows of one number cannot be told apart by {RANKED} on these clips"),
    Column("state", help="done, or what of the row is failed, unscored or missing"),
    *(Column(SHOWN[name], True) for name in OTHERS),
)


def _scored(n: int, block: Block, chance: Chance) -> list[Field]:
    """Score, interval, state and other scores of the row at position `n`."""
    row, span = block.rows[n], chance.intervals[n]
    interval = Cell(f"{span[0]:.2f} .. {span[1]:.2f}", span[0]) if span else Cell(NOTHING)
    return [_score(row, RANKED_BY), interval, _state(row, block), *(_score(row, metric) for metric in OTHERS)]


def _scores(block: Block, chance: Chance, heading: str) -> Table:
    base = None if chance.base is None else block.rows[chance.base].label
    columns = (
        Column("#", True, "rank by the mean over the seeds that all ranked rows have"),
        Column("method"),
        *_SCORED,
        *((Column(f"over {base}", True, f"difference in {RANKED} on the same clips, 95 % interval"),) if base else ()),
        Column("mean rank", True, "over the metrics of this table"),
        Column("variant"),
    )
    rows = []
    for n, row in enumerate(block.rows):
        if n in block.sweeps:
            continue
        place = chance.mean_ranks[n]
        ours, interval, *rest = _scored(n, block, chance)
        front = (amount(block.ranks[n]), _title(row), ours, interval, amount(chance.groups[n]))
        gained = () if base is None else (_gained(chance, n),)
        rows.append((*front, *rest, *gained, amount(place, ".2f"), row.label))
    return Table(heading, columns, tuple(rows))


def _gained(chance: Chance, n: int) -> Cell:
    """What the row at position `n` gains over the base of its table."""
    gain = chance.gains[n]
    if gain is None:
        return Cell("base" if n == chance.base else NOTHING)
    return Cell("{:+.2f} ({:+.2f} .. {:+.2f})".format(*gain), gain[0])


def _title(row: Row) -> str:
    return f"{row.title} (external: {row.first.external.source})" if row.first.external else row.title


def _score(row: Row, metric: str) -> Cell:
    values = row.values(metric)
    whole = row.complete and len(values) == len(row.records)
    return Cell(spread(values, whole), fmean(values) if values and whole else None)


def _state(row: Row, block: Block) -> Line:
    parts: list[Span] = []
    if failed := [record.seed for record in row.in_state("failed")]:
        parts.append(Alarm(f"FAILED {_seeds(failed)}"))
    if unscored := [record.seed for record in row.in_state("unscored")]:
        parts.append(Alarm(f"unscored {_seeds(unscored)}"))
    if capped := [record.seed for record in row.records if record.capped]:
        parts.append(Alarm("capped in a fold or more" if _folds(row) else f"capped {_seeds(capped)}"))
    if missing := block.missing(row):
        parts.append(f"missing {_seeds(missing)}")
    spaced = [piece for part in parts for piece in ("; ", part)][1:]
    return tuple(spaced) or "done"


def _folds(row: Row) -> int | None:
    """How many folds make the row together; None for a row of seeds."""
    return row.first.config.get("folds")


def _seeds(seeds: Sequence[int]) -> str:
    return ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(str(seed) for seed in seeds)


def _notes(block: Block, chance: Chance) -> list[Line]:
    """How the table was ranked and its rows were tied, and how its epochs were chosen."""
    notes: list[Line] = []
    if block.protocol == "paper":
        notes.append("Not ranked: under the paper protocol every row has its paper's own features, text and schedule.")
    elif block.ranked_on:
        folds = next((_folds(row) for row in block.rows if not row.external), None)
        notes.append(
            f"Ranked by {RANKED} of the clips of all {folds} folds."
            if folds
            else f"Ranked by mean {RANKED} over {_seeds(block.ranked_on)}, which all ranked rows have."
        )
        longer = [
            f"{row.label} {fmean(row.values(RANKED_BY, block.ranked_on)):.2f}"
            for row, rank in zip(block.rows, block.ranks, strict=True)
            if rank and len(row.seeds) > len(block.ranked_on)
        ]
        if longer:
            notes.append(f"Rows with more seeds, on those of the ranking alone: {', '.join(longer)}.")
        notes += _ties(block, chance)
    if chance.base is not None and len({row.seeds for row in block.rows if not row.external}) > 1:
        notes.append("A difference between two rows is over the seeds that both have.")
    if any(rank for rank in block.ranks) and all(span is None for span in chance.intervals):
        notes.append("No intervals and ties: the clip scores of these cells are not beside their records.")
    lacking: dict[str, list[str]] = {}
    for row in block.rows:
        lacking.setdefault(", ".join(row.first.config.get("absent_streams") or ()), []).append(row.label)
    for absent, labels in lacking.items():
        if absent:
            rows = "All rows" if len(labels) == len(block.rows) > 1 else ", ".join(labels)
            notes.append(f"{rows} ran without {absent}.")
    selections = {record.selection.metric for row in block.rows for record in row.records if record.selection}
    if selections:
        notes.append(f"The epoch of every cell was chosen {_chosen_on(block)} by {', '.join(sorted(selections))}.")
    return notes


def _ties(block: Block, chance: Chance) -> list[Line]:
    """What the tie groups come to, in words."""
    if not any(chance.groups):
        return []
    first = sum(group == 1 for group in chance.groups)
    ranked = sum(rank is not None for rank in block.ranks)
    tied = "all rows are" if first == ranked else f"{first} rows are" if first > 1 else "one row is"
    words = f"{tied} in the first tie group: the clips cannot tell {'them' if first > 1 else 'others'} from the best."
    limited = f" Groups are found among the best {MOST_TIED} rows." if ranked > MOST_TIED else ""
    return [
        f"{words[0].upper()}{words[1:]}{limited}"
        if first > 1
        else f"The best row stands alone in its tie group.{limited}"
    ]


def _chosen_on(block: Block) -> str:
    """Where epochs were chosen; a table of validation scores says that it is biased."""
    if block.terms["split"] != "val":
        return "on the validation clips"
    return "on the split that is reported here (the scores are those of the best epoch on it, and so above fresh clips)"


def _studied(block: Block, home: Home) -> list[Line]:
    """Where ideas are decided that were trained to the end, and why rows have other numbers of seeds."""
    if (block.terms.get("train") or {}).get("budget") != "converged" or not (home.results / STUDIES).is_dir():
        return []
    seeds = " A pair has as many seeds as its study needed." if any(map(block.missing, block.rows)) else ""
    return [
        (
            "Whether an idea helps is decided by studies (",
            Link("effects", EFFECTS, page=True),
            f"), pair by pair: ranks, intervals and differences here are of the choice of clips alone.{seeds}",
        )
    ]


def _given_up(block: Block, setting: Setting) -> list[Line]:
    """Rows of studies that were given up, of which the page of effects says why."""
    found: dict[str, list[str]] = {}
    for row in block.rows:
        if study := study_given_up(row, setting.given_up):
            found.setdefault(study, []).append(row.label)
    return [
        (
            f"Of study {study}, which was given up (",
            Link("why", EFFECTS, page=True),
            f"; what a gain over them is worth is said there): {', '.join(labels)}.",
        )
        for study, labels in found.items()
    ]


def _troubles(block: Block, home: Home) -> list[Line]:
    """Failed cells, each with where and why; and warnings of rows, each once."""
    notes: list[Line] = []
    for row in block.rows:
        for warning in dict.fromkeys(sentence for record in row.records for sentence in record.warnings):
            notes.append((Alarm("WARNING"), f" {row.label}: {warning}."))
        for record in row.in_state("failed"):
            failure = record.failure
            assert failure is not None  # the schema ties the state to it
            message = " ".join(failure.message.split())
            if len(message) > LONGEST_MESSAGE:
                message = message[:LONGEST_MESSAGE] + "..."
            notes.append(
                (
                    Alarm("FAILED"),
                    f" {row.label}, ",
                    record_link(record, home, f"seed {record.seed}"),
                    f", in {failure.stage}: {failure.type}: {message}",
                )
            )
    return notes


def _controls(number: int, block: Block, chance: Chance) -> list[Part]:
    """Ideas beside their controls, where the table has both."""
    rows: list[tuple[Field, ...]] = []
    for (idea, control), apart in chance.pairs.items():
        rows.append(
            (
                apart.question,
                block.rows[idea].label,
                _score(block.rows[idea], RANKED_BY),
                block.rows[control].label,
                _score(block.rows[control], RANKED_BY),
                amount(apart.difference, "+.2f"),
                f"{apart.low:+.2f} .. {apart.high:+.2f}",
                Cell(p_value(apart.p), apart.p),
            )
        )
    if not rows:
        return []
    columns = (
        Column("question"),
        Column("idea"),
        Column(RANKED, True),
        Column("control"),
        Column(f"{RANKED} of the control", True),
        Column("difference", True),
        Column("95 % interval", True, "paired bootstrap of the clips"),
        Column("p (Holm)", True, "approximate randomisation, corrected for the pairs of this table"),
    )
    caption = f"Ideas of table {number} beside their controls"
    words = (
        "The control differs from the idea in one thing. Interval and p speak of the choice of clips alone: what other seeds "
        "would have given is not in them, so a difference of one or two seeds is no finding."
    )
    return [Heading(3, caption), Paragraph(words), Table(caption, columns, tuple(rows))]


def _sweep(number: int, block: Block, chance: Chance) -> list[Part]:
    """The tries of settings, which are not ranked, each group after the row that has its usual settings."""
    if not block.sweeps:
        return []
    caption = f"Tries of settings, table {number}"
    names = {block.rows[n].name for n in block.sweeps}
    usual = [n for n, row in enumerate(block.rows) if row.name in names and n not in block.sweeps]
    order = sorted([*usual, *block.sweeps], key=lambda n: (block.rows[n].name, n in block.sweeps, block.rows[n].label))
    columns = (Column("method"), Column("settings"), *_SCORED[:2], *_SCORED[3:], Column("variant"))
    rows = []
    for n in order:
        row = block.rows[n]
        ours, interval, state, *others = _scored(n, block, chance)
        rows.append((_title(row), row.settings, ours, interval, state, *others, row.label))
    words = (
        "Rows of the table above with other settings, below those with the usual ones. They are not ranked: the best of many "
        "tries is no fair one."
    )
    return [Heading(3, caption), Paragraph(words), Table(caption, columns, tuple(rows))]


def _events(number: int, block: Block, dataset: str, setting: Setting) -> list[Part]:
    """The second table of a section, with the scores by densevid's rules."""
    caption = f"Table {number} by the rules of densevid_eval"
    columns = (Column("method"), Column("variant"), *(Column(short, True) for short in SHOWN.values()))
    rows: tuple[tuple[Field, ...], ...] = tuple(
        (_title(row), row.label, *(_score(row, PREFIX + metric) for metric in SHOWN)) for row in block.rows
    )
    parts: list[Part] = [Heading(3, caption), Paragraph(BY_EVENTS), Table(caption, columns, rows)]
    parts.append(Bullets(tuple(_signatures(block, PREFIX))))
    return [*parts, *beside_printed(number, block, dataset, setting.given_up, "densevid")]


def _further(number: int, block: Block, home: Home) -> list[Part]:
    """The table of metrics that `bench metrics` has put beside the records: their means over seeds, and their signatures."""
    found = {
        record.key: read_further(cell_folder(home.results, record))
        for row in block.rows
        for record in row.in_state("done")
    }
    names = sorted({name for scores in found.values() for name in scores})
    if not names:
        return []
    rows: list[tuple[Field, ...]] = []
    for row in block.rows:
        own = [found[record.key] for record in row.in_state("done")]
        values = {name: [scores[name]["value"] for scores in own if name in scores] for name in names}
        cells = (
            Cell(spread(some, len(some) == len(row.records)), fmean(some) if some else None) for some in values.values()
        )
        rows.append((_title(row), row.label, *cells))
    caption = f"Further metrics of table {number}"
    signatures = dict.fromkeys(
        (name, one[name]["signature"]) for name in names for one in found.values() if name in one
    )
    return [
        Heading(3, caption),
        Paragraph("On scales of their own. They are not ranked, and only numbers of one signature may be compared."),
        Table(caption, (Column("method"), Column("variant"), *(Column(name, True) for name in names)), tuple(rows)),
        Bullets(tuple((f"{name}: ", Code(signature)) for name, signature in signatures)),
    ]


def _examples(number: int, block: Block, setting: Setting) -> list[Part]:
    try:
        chosen = choose_examples(block, setting.clips, setting.home)
    except BenchError as error:
        return [_not_shown("clips", number, error, setting.home)]
    if not chosen:
        return []
    caption = f"Clips on which the rows of table {number} disagree most"
    rows = tuple(
        (Code(one.clip), label, (Quote(caption_ or "(empty)"),), Cell(f"{score:.1f}", score))
        for one in chosen
        for label, caption_, score in one.rows
    )
    columns = (Column("clip"), Column("variant"), Column("caption"), Column(RANKED, True, "of this clip alone"))
    table = Table(caption, columns, tuple(((clip,), label, said, score) for clip, label, said, score in rows))
    return [Folded(f"{caption} (seed {block.ranked_on[0]})", (table,))]


def _pictures(number: int, block: Block, chance: Chance, dataset: str, setting: Setting) -> list[Part]:
    """Scores with intervals, and cost with learning curves, of a ranked table of two rows or more."""
    ranked = [n for n, rank in enumerate(block.ranks) if rank and chance.places[n]]
    if len(ranked) < 2:
        return []
    where = f"{dataset}, {block.terms['split']} split"
    standings = []
    for n in ranked:
        rank, span, places = block.ranks[n], chance.intervals[n], chance.places[n]
        assert rank is not None and span is not None and places is not None  # as `ranked` says
        row = block.rows[n]
        standings.append(Standing(row.label, fmean(row.values(RANKED_BY)), span, rank, chance.groups[n], places))
    drawn = setting.home.work / "pictures"
    parts: list[Part] = [
        Image(kept(drawn, forest, standings, RANKED, where), f"{setting.pictures}/{number}-scores.svg")
    ]
    try:
        costs = [_cost(block.rows[n], setting.home) for n in ranked]
    except BenchError as error:
        return [*parts, _not_shown("learning curves", number, error, setting.home)]
    return [*parts, Image(kept(drawn, cost, costs, RANKED, where), f"{setting.pictures}/{number}-cost.svg")]


def _not_shown(what: str, number: int, error: BenchError, home: Home) -> Paragraph:
    """Why a part of a table is left out, with the file named from the home on."""
    return Paragraph((Alarm(f"No {what}"), f" of table {number}: {str(error).replace(f'{home.root}/', '')}"))


def _cost(row: Row, home: Home) -> Cost:
    seconds = known(row, "fit_seconds")
    curves: list[dict[int, float]] = []
    for folder in (folder for record in row.records for folder in trained_in(home.results, record)):
        if (folder / CURVES).is_file():
            found = {one.captions: one.values[VALIDATION] for one in epochs(folder) if VALIDATION in one.values}
            curves.append(found)
    # Folds have passes of other lengths, and what converges ends at its own time: the mean as far as all of them go.
    steps = zip(*(sorted(one.items()) for one in curves), strict=False)
    curve = tuple((fmean(at for at, _ in step), fmean(score for _, score in step)) for step in steps)
    return Cost(row.label, fmean(seconds) if seconds else None, fmean(row.values(RANKED_BY)), curve)


def _shared(terms: Mapping[str, Any]) -> str:
    """One line on what the rows of a table share."""
    parts = [f"Split lists: {terms['splits'] or 'default'}"]
    if terms["subset"]:
        subset = terms["subset"]
        parts.append(f"first {'/'.join(map(str, subset)) if isinstance(subset, list) else subset} clips of each split")
    for name, fingerprint in terms["streams"].items():
        parts.append(f"stream {name} {fingerprint[:8]}" if fingerprint else f"stream {name} as each row has it")
    if terms["captions_digest"]:
        parts.append(f"captions {terms['captions_digest'][:8]}")
    for group in ("text", "search", "train"):
        settings = ", ".join(f"{name} {value}" for name, value in sorted(terms.get(group, {}).items()))
        if settings:
            parts.append(f"{group}: {settings}")
    return "; ".join(parts) + "."


def _signatures(block: Block, prefix: str = "") -> list[Line]:
    signed = {short: block.signatures.get(prefix + name) for name, short in SHOWN.items()}
    return [(f"{short}: ", Code(signature)) for short, signature in signed.items() if signature]
