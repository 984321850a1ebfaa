"""bench from Python: what the commands do, with their keys as arguments and tables as answers.

    from bench import api
    api.plan(methods="salstm,recnet", dataset="shapes", train={"epochs": 2})
    api.run(methods=["salstm"], dataset="shapes", subset=(60, 20, 20), recnet={"lambda": 0.2})

A key of the command line is an argument of the same name, a group or a method's settings a dictionary; the sentences about
mistakes are those of the commands, raised as `BenchError`. `api.load` is `bench.load`: a trained method from its checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import BenchError, load
from bench.cli.answers import STOPPED, name_of
from bench.cli.run import planned_facts, run_request
from bench.cli.show import Compare, compared_facts
from bench.declare.options import parse as parse_options
from bench.home import find_home
from bench.plan.cells import cells
from bench.plan.request import RunSpec, parse
from bench.records.schema import Record
from bench.records.store import RECORD, all_records, read_record
from bench.reports.export import columns_and_rows
from bench.reports.listings import named_dataset

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["BenchError", "compare", "load", "plan", "records", "run"]


def run(*, retry_failed: bool = False, **request: Any) -> DataFrame:
    """Train, decode and score the cells of a request, as `bench run`; returns their records, a row for each, as `records` does.

    What is done is taken from its record, what was interrupted goes on. A failed cell is a row with state `failed` and what
    happened. Raises BenchError for a request that is not understood or cannot be met, KeyboardInterrupt when stopped.
    """
    spec, home = _spec(request, retry_failed), find_home()
    if run_request(spec, home) == STOPPED:
        raise KeyboardInterrupt
    paths = [cell.folder(home) / RECORD for cell in cells(spec, home)]
    return _frame([read_record(path) for path in paths if path.is_file()])


def plan(**request: Any) -> DataFrame:
    """The cells of a request, their state, why, and what they will cost, as `bench plan`: a row for each. Changes nothing."""
    import pandas

    return pandas.DataFrame(planned_facts(_spec(request), find_home())[0]["cells"])


def compare(a: str, b: str, dataset: str | None = None, **options: Any) -> dict[str, Any]:
    """Two rows or records beside each other as `bench compare` prints with json=true (docs/json.md): differences with interval
    and p, what differs in the configurations, clips won and lost. `seeds=True` is the flag --seeds."""
    flags = ["--seeds"] if options.pop("seeds", False) else []
    asked = parse_options(Compare, [str(a), str(b), *flags, *words({"dataset": dataset, **options})])
    return compared_facts(asked, find_home())


def records(dataset: str | None = None) -> DataFrame:
    """All records of this home (of one data set), a row for each cell: key, state, scores of the reported split on the papers'
    scale, cost, provenance, and every setting as a column of its own. Raises BenchError for a record that is damaged, and for a
    data set that is neither defined nor has records."""
    home, name = find_home(), name_of(dataset)
    return _frame(all_records(home.results, None if name is None else named_dataset(name, home)))


def words(request: Mapping[str, Any]) -> list[str]:
    """A request as the words of a command line: `{"train": {"epochs": 2}}` is `train.epochs=2`. What is None is left out."""
    found = []
    for key, value in request.items():
        if isinstance(value, Mapping):
            found += words({f"{key}.{name}": one for name, one in value.items()})
        elif isinstance(value, str | Path):
            found.append(f"{key}={value}")
        elif value is not None:
            plain = list(value) if isinstance(value, Sequence) else value
            try:
                found.append(f"{key}={json.dumps(plain)}")
            except TypeError:
                raise BenchError(f"{key} is {value!r}: give text, numbers, lists and dictionaries of them") from None
    return found


def _spec(request: Mapping[str, Any], retry_failed: bool = False) -> RunSpec:
    flags = ["--retry-failed"] if retry_failed else []
    return parse([*flags, *words(request)])


def _frame(found: Sequence[Record]) -> DataFrame:
    import pandas

    head, rows = columns_and_rows(found)
    return pandas.DataFrame(rows, columns=head)
