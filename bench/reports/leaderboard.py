"""Leaderboards in Markdown: `leaderboards/<dataset>.md`, a function of the records and the published numbers alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from bench import BenchError
from bench.home import Home
from bench.records.schema import DENSEVID, Record
from bench.records.store import RECORD, BadRecord, all_records, cell_folder, record_paths
from bench.reports.blocks import RANKED_BY, Block, Row, blocks
from bench.reports.markdown import (
    between_markers,
    bring_up_to_date,
    clean,
    code,
    escape,
    has_markers,
    link,
    read_page,
    table,
)
from bench.reports.published import Published, Scorer, family, published_value

INDEX = "README.md"
METRICS = {"bleu4": "B@4", "meteor": "M", "rouge_l": "R-L", "cider": "CIDEr"}
LONGEST_MESSAGE = 120  # characters of a failure's message in a table; the record has all of it
NOTHING = "—"
HEAD = (
    "#",
    "method",
    "variant",
    "protocol",
    "streams",
    *METRICS.values(),
    "seeds",
    "budget",
    "published CIDEr",
    "state",
)
NUMBERS = ("#", *METRICS.values(), "budget")
EVENT_HEAD = ("method", "variant", *METRICS.values(), "published CIDEr")

HOW_TO_READ = (
    "Scores are in percent (CIDEr-D x 100), higher is better: mean ± standard deviation (n) over the seeds of a row, "
    "with n - 1 in the deviation and no ± for a single seed; what tuning adds to the variance is not in it. Only rows "
    "of one table may be compared: its rows share protocol, split, clips, streams and metric signatures, and under the "
    "standard protocol text, search and epochs as well. A row is ranked once every seed it was run with has scores; a "
    "failed or unscored cell leaves the row without mean and rank, and its scores are listed one by one. The seeds "
    "link to their records. Budget counts the training captions that a cell may read or sample. Rows marked external "
    "hold captions made elsewhere and are never ranked."
)

BY_EVENTS = (
    "The captions of the table above, scored as densevid_eval, the public code of the ActivityNet Captions challenge, "
    "scores captions of annotated events: each against every reference event of its video that overlaps with its own by "
    "at least 0.3, 0.5, 0.7 or 0.9, a video's pairs as one corpus, then the mean over videos and over these thresholds. "
    "These numbers are not ranked, and not to be compared with those above."
)


def write(
    home: Home, dataset: str | None = None, check: bool = False, bad: list[BadRecord] | None = None
) -> list[Path]:
    """Bring the pages up to date (of one data set, and the index) and return those that changed.

    With `check` nothing is written, and what would change is returned. Records that are refused are named on the page
    and appended to `bad`. Raises BenchError: a data set without records or page, a page that lost its markers.
    """
    refused: list[BadRecord] = []
    records = all_records(home.results, bad=refused)
    if bad is not None:
        bad += refused
    names = _datasets(home)
    if dataset is not None and dataset not in names:
        known = ", ".join(names) or "none"
        raise BenchError(
            f"no records of data set {dataset!r} under {home.results}; there are records of: {known}. "
            f"Run bench run dataset={dataset} methods=[...] first."
        )
    by_name = {name: [record for record in records if record.dataset == name] for name in names}
    bad_by_name = {name: [item for item in refused if _dataset_of(item.path) == name] for name in names}
    tables = {name: blocks(records) for name, records in by_name.items()}
    pages = {
        home.leaderboards / f"{name}.md": _page(name, tables[name], bad_by_name[name], home)
        for name in names
        if dataset in (None, name)
    }
    pages[home.leaderboards / INDEX] = _index(tables, bad_by_name)
    return bring_up_to_date({path: between_markers(path, body) for path, body in pages.items()}, check)


def _dataset_of(path: Path) -> str:
    return path.parents[2].name


def _datasets(home: Home) -> list[str]:
    """Data sets with records, sound or not, and those whose page stands although their records are gone."""
    names = {_dataset_of(path) for path in record_paths(home.results)}
    for page in home.leaderboards.glob("*.md"):
        if page.name != INDEX and has_markers(read_page(page)):
            names.add(page.stem)
    return sorted(names)


def _page(name: str, tables: Sequence[Block], refused: Sequence[BadRecord], home: Home) -> str:
    """The generated part of one data set's page."""
    parts = [f"# Leaderboard: {escape(name)}", HOW_TO_READ]
    if not tables:
        parts.append("There are no records of this data set.")
    for number, block in enumerate(tables, start=1):
        parts += _section(number, block, name, home)
    if refused:
        lines = [f"- {code(_relative(item.path, home))}: {escape(item.reason)}" for item in refused]
        parts += ["## Refused records", "These files are no sound records and stand in no table.", "\n".join(lines)]
    return "\n\n".join(parts)


def _section(number: int, block: Block, dataset: str, home: Home) -> list[str]:
    streams = " + ".join(block.streams) or "streams unknown"
    terms = block.terms
    heading = f"## {number}. {block.protocol.capitalize()} protocol, {terms['split']} split, {streams}"
    published = [_published(row, dataset) for row in block.rows]
    rows = [
        _cells(row, rank, block, printed, home)
        for row, rank, printed in zip(block.rows, block.ranks, published, strict=True)
    ]
    parts = [escape(heading), escape(_shared(terms)), table(HEAD, rows, right=NUMBERS)]
    parts.append(_bullets([*_notes(block), *_citations(block, published)]))
    if any(name.startswith(DENSEVID) for name in block.signatures):
        parts += _events(number, block, dataset)
    return parts


def _events(number: int, block: Block, dataset: str) -> list[str]:
    """The second table of a section, with the scores by densevid's rules."""
    published = [_published(row, dataset, "densevid") for row in block.rows]
    rows = [
        [
            escape(row.title),
            escape(row.label),
            *(_score(row, DENSEVID + metric) for metric in METRICS),
            _printed(row, printed),
        ]
        for row, printed in zip(block.rows, published, strict=True)
    ]
    notes = [*_signatures(block, DENSEVID), *_citations(block, published)]
    heading = f"### Table {number} by the rules of densevid\\_eval"
    return [heading, BY_EVENTS, table(EVENT_HEAD, rows, right=list(METRICS.values())), _bullets(notes)]


def _bullets(notes: Iterable[str]) -> str:
    return "\n".join(f"- {note}" for note in notes)


def _shared(terms: Any) -> str:
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


def _cells(row: Row, rank: int | None, block: Block, published: Published | None, home: Home) -> list[str]:
    title = escape(row.title)
    if row.first.external:
        title += f" (external: {escape(row.first.external.source)})"
    streams = " + ".join(block.streams) or NOTHING
    absent = row.first.config.get("absent_streams") or []
    if absent:
        streams += f" (without {', '.join(absent)})"
    seeds = ", ".join(link(str(record.seed), _record_path(record, home)) for record in row.records)
    return [
        str(rank) if rank else NOTHING,
        title,
        escape(row.label),
        escape(block.protocol),
        escape(streams),
        *(_score(row, metric) for metric in METRICS),
        seeds,
        _budget(row),
        _printed(row, published),
        escape(_state(row, block)),
    ]


def _score(row: Row, metric: str) -> str:
    values = row.values(metric)
    return spread(values, whole=row.complete and len(values) == len(row.records))


def spread(values: Sequence[float], whole: bool) -> str:
    """`24.10 ± 0.61 (3)` of a whole row; the scores one by one of a row with failed or unscored cells; or a dash."""
    if not values:
        return NOTHING
    if not whole:
        return " / ".join(f"{value:.2f}" for value in values)
    if len(values) == 1:
        return f"{values[0]:.2f} (1)"
    return f"{fmean(values):.2f} ± {stdev(values):.2f} ({len(values)})"


def _budget(row: Row) -> str:
    """Captions of the budget, and those used where a cell stopped early."""
    ledgers = [record.ledger for record in row.records if record.ledger]
    budgets = [ledger.budget for ledger in ledgers if ledger.budget is not None]
    if not budgets:
        return NOTHING
    used = [ledger.captions for ledger in ledgers]
    whole = _range(budgets)
    return whole if _range(used) == whole else f"{_range(used)} of {whole}"


def _range(counts: Iterable[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _state(row: Row, block: Block) -> str:
    parts = []
    for record in row.in_state("failed"):
        failure = record.failure
        assert failure is not None  # the schema ties the state to it
        message = clean(failure.message)
        if len(message) > LONGEST_MESSAGE:
            message = message[:LONGEST_MESSAGE] + "..."
        parts.append(f"FAILED seed {record.seed} ({failure.stage}): {failure.type}: {message}")
    unscored = [record.seed for record in row.in_state("unscored")]
    if unscored:
        parts.append(f"unscored {_seeds(unscored)}")
    missing = block.missing(row)
    if missing:
        parts.append(f"missing {_seeds(missing)}")
    return "; ".join(parts) or "done"


def _seeds(seeds: Sequence[int]) -> str:
    return ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(str(seed) for seed in seeds)


def _published(row: Row, dataset: str, scorer: Scorer = "coco") -> Published | None:
    base = family(dataset)
    if base is None or row.external:
        return None
    config = row.first.config
    loss, train = config.get("loss") or {}, config.get("train") or {}
    return published_value(
        row.first.method,
        row.first.variant,
        base,
        row.first.split,
        loss=loss.get("name"),
        data_fraction=train.get("data_fraction", 1.0),
        scorer=scorer,
    )


def _printed(row: Row, published: Published | None) -> str:
    value = published.row.metrics.get(RANKED_BY) if published else None
    if published is None or value is None:
        return NOTHING
    note = "not comparable" if _differences(row, published) else "see note"
    return f"{value} ({escape(published.citation)}, {note})"


def _differences(row: Row, published: Published) -> list[str]:
    """Why a printed number does not answer to the row."""
    config = row.first.config
    found = []
    if row.first.dataset != published.table.dataset:
        found.append(f"another data set ({row.first.dataset})")
    if config.get("subset"):
        found.append("a subset of the clips")
    if (config.get("splits") or "default") not in (published.table.splits, "official"):
        found.append(f"other split lists ({config['splits']})")
    if config["protocol"] != "paper":
        found.append(f"the {config['protocol']} protocol")
    return found


def _citations(block: Block, published: Sequence[Published | None]) -> list[str]:
    """One note for each printed result in the table: all its scores, its features, and what differs."""
    notes = []
    for row, item in zip(block.rows, published, strict=True):
        if item is None:
            continue
        printed = item.row.metrics
        scores = ", ".join(f"{short} {printed[name]}" for name, short in METRICS.items() if name in printed)
        features = ", ".join(item.row.variant.get("features") or ["features not stated"])
        differences = _differences(row, item)
        verdict = (
            f"not comparable: {', '.join(differences)}, and the features where they differ"
            if differences
            else "comparable only with the same features and settings"
        )
        notes.append(
            f"{escape(row.label)}, {escape(item.citation)} ({escape(item.row.system)}, {item.table.dataset} "
            f"{item.table.split}, {escape(features)}): {scores}; {escape(verdict)}."
        )
    return list(dict.fromkeys(notes))


def _notes(block: Block) -> list[str]:
    """How the table was ranked, how its epochs were chosen, how its scores were made."""
    notes = []
    if block.protocol == "paper":
        notes.append("Not ranked: under the paper protocol every row has its paper's own features, text and schedule.")
    elif block.ranked_on:
        notes.append(f"Ranked by mean {METRICS[RANKED_BY]} over {_seeds(block.ranked_on)}, which all ranked rows have.")
        longer = [
            f"{escape(row.label)} {fmean(row.values(RANKED_BY, block.ranked_on)):.2f}"
            for row, rank in zip(block.rows, block.ranks, strict=True)
            if rank and len(row.seeds) > len(block.ranked_on)
        ]
        if longer:
            notes.append(f"Rows with more seeds, on those of the ranking alone: {', '.join(longer)}.")
    selections = {record.selection.metric for row in block.rows for record in row.records if record.selection}
    if selections:
        chosen = ", ".join(escape(metric) for metric in sorted(selections))
        notes.append(f"The epoch of every cell was chosen {_chosen_on(block)} by {chosen}.")
    return notes + _signatures(block)


def _chosen_on(block: Block) -> str:
    """Where epochs were chosen; a table of validation scores says that it is biased."""
    if block.terms["split"] != "val":
        return "on the validation clips"
    return "on the split that is reported here (the scores are those of the best epoch on it, and so above fresh clips)"


def _signatures(block: Block, prefix: str = "") -> list[str]:
    signed = {short: block.signatures.get(prefix + name) for name, short in METRICS.items()}
    return [f"{short}: {code(signature)}" for short, signature in signed.items() if signature]


def _record_path(record: Record, home: Home) -> str:
    return Path(os.path.relpath(cell_folder(home.results, record) / RECORD, home.leaderboards)).as_posix()


def _relative(path: Path, home: Home) -> str:
    return Path(os.path.relpath(path, home.root)).as_posix()


def _index(tables: dict[str, list[Block]], refused: dict[str, list[BadRecord]]) -> str:
    """The generated part of `leaderboards/README.md`."""
    head = ("data set", "rows", "done", "unscored", "failed", "refused")
    lines = []
    for name, found in tables.items():
        rows = [row for block in found for row in block.rows]
        cells = [sum(len(row.in_state(state)) for row in rows) for state in ("done", "unscored", "failed")]
        numbers = (len(rows), *cells, len(refused[name]))
        lines.append([link(name, f"{name}.md"), *(str(number) for number in numbers)])
    text = (
        "One page for each data set. A row is a method with its settings; the other columns count cells, one per seed."
    )
    return "\n\n".join(["# Leaderboards", text, table(head, lines, right=head[1:])])
