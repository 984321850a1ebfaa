"""`bench metrics`: scores beside those that are reported and ranked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

from bench import BenchError
from bench.cli.answers import WELL, name_of, print_json
from bench.cli.pages import write_pages
from bench.declare.options import AnyDataSet, Json, Options, Written, parse
from bench.declare.settings import option
from bench.errors import listing
from bench.home import Home, find_home
from bench.pages.terminal import columns, wrapped

if TYPE_CHECKING:
    from bench.records.schema import Record


class Metrics(Options):
    runs: Annotated[list[str], Written(word="RUN")] = option(
        [], "rows or records, as `bench show` takes them; without any, all done cells of the data set"
    )
    dataset: AnyDataSet = None
    metrics: Annotated[list[str], Written("NAME,..")] = option([], "what is counted; without any, what there is")
    as_json: Json = False


def metrics(argv: Sequence[str]) -> int:
    """Count further metrics of captions that are scored already: how varied they are, and what packages bring by the entry
    point bench.metrics (docs/metrics.md). They are kept beside the records, stand below the tables of the pages, and never
    decide a rank. Without metrics= it says which there are.

    Example: bench metrics dataset=shapes metrics=distinct2,vocabulary
    """
    asked = parse(Metrics, argv)
    from bench.cell.further import add_metrics, find, places

    if not asked.metrics:
        if asked.runs or asked.dataset:
            raise BenchError(f"command line: say what is to be counted, metrics=NAME,..; there are {listing(places())}")
        there = [(metric, source, place) for metric, (place, source) in places().items()]
        found = [{"metric": metric, "package": source, "place": place} for metric, source, place in there]
        return print_json(found) if asked.as_json else _print(("metric", "package", "place"), there)
    for metric in asked.metrics:
        find(metric)
    from bench.records.store import all_records
    from bench.reports.listings import named_dataset
    from bench.reports.lookup import find_row

    home, name = find_home(), name_of(asked.dataset)
    if asked.runs:
        named = [record for word in asked.runs for record in find_row(word, home, name).records]
    elif name is None:
        raise BenchError("command line: name a data set, such as dataset=shapes, or rows and records")
    else:
        named = all_records(home.results, named_dataset(name, home), [])
    records = [record for record in named if record.state == "done"]
    if not records:
        raise BenchError(
            f"there are no scored cells of {listing(asked.runs) if asked.runs else name}: bench run makes them"
        )
    say = partial(print, file=sys.stderr)
    scores = add_metrics(records, asked.metrics, home, asked.dataset, lambda note: say(wrapped(note)), not asked.runs)
    records = [record for record in records if record.key in scores]
    label = _labels(records, home)
    facts = [{"key": one.key, "row": label(one), "seed": one.seed, "scores": scores[one.key]} for one in records]
    if asked.as_json:
        return print_json(facts)
    rows = [
        (one.key, label(one), one.seed, *(f"{scores[one.key][metric]['value']:.2f}" for metric in asked.metrics))
        for one in records
    ]
    _print(("key", "row", "seed", *asked.metrics), rows)
    return max(write_pages(home, dataset, check=False) for dataset in dict.fromkeys(one.dataset for one in records))


def _labels(records: Sequence[Record], home: Home) -> Callable[[Record], str]:
    """What the tables of their data sets call records: a name with what tells it from namesakes. A fold stands in no table."""
    from bench.records.store import all_records
    from bench.reports.blocks import Row, blocks

    every = [all_records(home.results, dataset, []) for dataset in dict.fromkeys(one.dataset for one in records)]
    rows = [row for some in every for block in blocks(some) for row in block.rows]
    labels = {record.key: row.label for row in rows for record in row.records}
    return lambda record: labels.get(record.key, Row((record,)).name)


def _print(head: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
    print(columns(head, rows, right=head[2:] if "seed" in head else ()))
    return WELL
