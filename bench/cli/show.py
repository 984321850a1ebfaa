"""Commands that show what is there and change nothing but MLflow's view of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from bench import BenchError, __version__
from bench.cli.answers import FAILED, WELL, name_of, print_json, print_text, say
from bench.declare.options import AnyDataSet, Json, Options, Written, parse
from bench.declare.settings import option
from bench.errors import listing, many, masked, unknown
from bench.home import Home, find_home, written_path
from bench.pages.terminal import columns, wrapped

Split = Literal["train", "val", "test"]


class Nothing(Options):
    """A command without options."""


def version(argv: Sequence[str]) -> int:
    """Show the version.

    Example: bench version
    """
    parse(Nothing, argv)
    print(f"bench {__version__}")
    return WELL


class List(Options):
    what: Annotated[list[Literal["methods", "datasets", "features", "runs"]], Written(word="list")] = option(
        [], "methods, datasets, features or runs; all four without a word"
    )
    dataset: AnyDataSet = option(None, "features and runs of one data set alone")
    as_json: Json = False


def list_all(argv: Sequence[str]) -> int:
    """Show what is there. The methods of other packages are imported once, each in a process of its own: one whose import
    fails is listed with its error. Of a cell that is running, `runs` says how far it is.

    Example: bench list methods
    """
    asked = parse(List, argv)
    from bench.reports.listings import LISTINGS, OF_A_DATASET, named_dataset

    chosen, home = [*(asked.what or (OF_A_DATASET if asked.dataset else LISTINGS))], find_home()
    if asked.dataset and (whole := [name for name in chosen if name not in OF_A_DATASET]):
        raise BenchError(
            f"dataset={asked.dataset} chooses among {' and '.join(OF_A_DATASET)}, not among {listing(whole)}"
        )
    only = asked.dataset and named_dataset(asked.dataset, home)
    found = {name: OF_A_DATASET[name](home, only) if only else LISTINGS[name](home) for name in chosen}
    if asked.as_json:
        return print_json({name: one.facts for name, one in found.items()})
    bodies = {
        name: columns(one.head, one.rows, one.right) if one.rows else f"no {name} yet" for name, one in found.items()
    }
    print("\n\n".join(body if len(chosen) == 1 else f"{name.upper()}\n{body}" for name, body in bodies.items()))
    return WELL


class Compare(Options):
    rows: Annotated[
        list[str],
        Written(word="A B", missing="name two rows or records, such as bench compare recnet:local salstm dataset=msvd"),
    ] = Field(
        min_length=2,
        max_length=2,
        description="rows (recnet:local, external:my_model) or records (the first digits of a key, the folder of a cell)",
    )
    dataset: AnyDataSet = None
    split: Split | None = option(None, "tells rows of one name apart")
    protocol: Literal["standard", "paper"] | None = option(None, "tells rows of one name apart")
    splits: str | None = option(
        None, "tells rows of one name apart: a split variant of the data set, such as default or folds"
    )
    clips: int = option(5, "clips shown that A wins most, and that A loses most", ge=0)
    seeds: Annotated[bool, Written(flag="--seeds")] = option(False, "a record stands for all seeds of its settings")
    as_json: Json = False


def compare(argv: Sequence[str]) -> int:
    """Put two rows or records beside each other: the means of each metric, their difference with its 95 % interval and p
    value, what differs in the configurations, and the clips that A wins and loses most, with captions and references.

    A row stands for all its seeds that the other has too; of the rows of a name it is the one in the main table, not a try of
    other settings. The two must share data set, split and metric signatures. References are shown where the captions of the data
    set are on this machine; cells scored by earlier versions need them, and Java, for the intervals of BLEU and METEOR.

    Example: bench compare recnet:local salstm dataset=msrvtt1000
    """
    asked = parse(Compare, argv)
    from bench.reports.compare import comparison_text

    compared = compared_facts(asked, find_home())
    return print_json(compared) if asked.as_json else print_text(comparison_text(compared))


def compared_facts(asked: Compare, home: Home) -> dict[str, Any]:
    """Two rows or records beside each other as `bench compare json=true` prints it."""
    from bench.cell.scores import gather
    from bench.reports.compare import Side, check, facts, of_both
    from bench.reports.lookup import find_row

    options = ("dataset", "split", "protocol", "splits", "--seeds")
    terms = (home, name_of(asked.dataset), asked.split, asked.protocol, asked.splits, asked.seeds, options)
    first, second = (find_row(word, *terms) for word in asked.rows)
    check(first, second)
    first, second, left_out = of_both(first, second)
    found = gather([*first.records, *second.records], home, asked.dataset)
    a, b = (Side(row, tuple(found.cells[record.key] for record in row.records)) for row in (first, second))
    return facts(a, b, found.references, [*left_out, *found.notes], asked.clips)


class Show(Options):
    record: Annotated[
        str, Written(word="RUN", missing="name a record, such as bench show 402034cc (bench list runs has the keys)")
    ] = Field(description="the first digits of a key, the folder of a cell, or a row of a single seed, as recnet:local")
    dataset: AnyDataSet = None
    as_json: Json = False


def show(argv: Sequence[str]) -> int:
    """Show one record: scores and signatures, settings that are not the defaults, budget and cost, files, how to load the
    checkpoint, its best and worst clips.

    Example: bench show 402034cc
    """
    asked = parse(Show, argv)
    from bench.cell.scores import gather
    from bench.declare.registry import find_methods
    from bench.plan.cells import defaults
    from bench.reports.lookup import find_record
    from bench.reports.show import facts, record_text

    home = find_home()
    record = find_record(asked.record, home, name_of(asked.dataset))
    entry = find_methods().get(record.method)
    usual = defaults(entry.card) if entry and entry.card else None
    if record.state == "done":
        scored = gather([record], home, asked.dataset, counted=False)
        found = facts(record, home, usual, scored.cells[record.key], scored.references, scored.notes)
    else:
        found = facts(record, home, usual, None, {}, ())
    return print_json(found) if asked.as_json else print_text(record_text(record, found))


class Export(Options):
    dataset: AnyDataSet = None
    path: Annotated[str | None, Written("FILE.csv")] = option(None, "where to write it; else the terminal")


def export_csv(argv: Sequence[str]) -> int:
    """Write one line for each cell, in the order of their folders: key, state, scores, cost, provenance, and every setting as
    a column of its own. Exit status 1 if a record was refused and is not in the table.

    Example: bench export csv dataset=msvd path=msvd.csv
    """
    asked = parse(Export, argv)
    from bench.disk.whole import write_atomically
    from bench.records.store import BadRecord
    from bench.reports.export import cells, table

    bad: list[BadRecord] = []
    records = cells(find_home(), name_of(asked.dataset), bad)
    text = table(records)
    for error in bad:
        say(str(error), FAILED)
    if asked.path:
        path = written_path(asked.path)
        write_atomically(path, text)
        print(f"{path} written: {many(len(records), 'cell')}")
    else:
        print(text, end="")
    return FAILED if bad else WELL


MLFLOW = option(None, "http://HOST:5000, sqlite:///FILE.db or another database; without it, this folder's own")


class Sync(Options):
    dataset: AnyDataSet = None
    mlflow: Annotated[str | None, Written("URI")] = MLFLOW


def mlflow_sync(argv: Sequence[str]) -> int:
    """Write into MLflow the cells and trials that the results folder has and MLflow lacks, or shows as they were: after a
    server was gone, into a new database, on a machine that only has the records. What is up to date stays, runs of killed
    commands are closed. Exit status 1 if a record is damaged.

    Example: bench mlflow sync mlflow=http://127.0.0.1:5000
    """
    asked = parse(Sync, argv)
    from bench.records.store import BadRecord
    from bench.reports.listings import named_dataset
    from bench.tracking.content import records
    from bench.tracking.sync import sync
    from bench.tuning.tracked_trials import trials

    home, bad = find_home(), list[BadRecord]()
    uri, name = asked.mlflow, name_of(asked.dataset)
    name = None if name is None else named_dataset(name, home)
    entries = [*records(home, name, bad), *trials(home, name)]
    for error in bad:
        say(str(error), FAILED)
    done, _ = sync(entries, uri, home, name, print)
    parts = [f"{done['written']} written", f"{done['kept']} up to date"]
    parts += [f"{done['busy']} of commands that are at work"] if done["busy"] else []
    which = "".join(f" {word}={value}" for word, value in (("dataset", asked.dataset), ("mlflow", uri)) if value)
    where = f"MLflow at {uri} shows them" if uri and uri.startswith("http") else f"bench ui{which} shows them"
    print(wrapped(masked(f"MLflow runs: {listing(parts)}; {where}")))
    return FAILED if bad else WELL


class Ui(Options):
    dataset: AnyDataSet = None
    port: int = option(5000, "of 127.0.0.1", ge=0, le=65535)
    mlflow: Annotated[str | None, Written("URI")] = option(None, "a database in place of this folder's own")
    browse: bool = option(False, "true opens the first of the printed addresses", alias="open")


def ui(argv: Sequence[str]) -> int:
    """Show the runs in MLflow's own pages on 127.0.0.1, until Ctrl-C, and print the addresses of its views: papers by their
    means over seeds, every run, captions side by side, the table. This folder's own database is brought up to date first;
    of another one only what killed commands left behind is closed.

    Example: bench ui dataset=msrvtt1000 open=true
    """
    asked = parse(Ui, argv)
    from bench.tracking.ui import serve

    home, name = find_home(), name_of(asked.dataset)

    def prepare() -> Mapping[str, str]:
        from bench.records.store import BadRecord
        from bench.tracking.content import records
        from bench.tracking.mlflow_views import pages
        from bench.tracking.sync import sync
        from bench.tuning.tracked_trials import trials

        bad = list[BadRecord]()
        mine = [*records(home, None, bad), *trials(home)] if asked.mlflow is None else []
        _, experiments = sync(mine, asked.mlflow, home, None, print)
        if name is not None and name not in experiments:
            raise unknown("data set with runs", name, experiments, "dataset")
        return pages(experiments, name)

    serve(home, prepare, asked.port, asked.mlflow, asked.browse)
    return WELL
