"""Commands that show what is there and change nothing but MLflow's view of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench import BenchError, __version__
from bench.cli.words import FAILED, WELL, name_of, say, take
from bench.errors import unknown
from bench.home import find_home
from bench.pages.terminal import columns, room


def version(words: Sequence[str]) -> int:
    take(words, ())
    print(f"bench {__version__}")
    return WELL


def list_all(words: Sequence[str]) -> int:
    """`bench list`: methods, data sets, feature caches and runs, each a table."""
    from bench.reports import listings

    names = {
        "methods": listings.methods,
        "datasets": listings.datasets,
        "features": listings.features,
        "runs": listings.runs,
    }
    _, arguments = take(words, (), files=1)
    for name in arguments.files:
        if name not in names:
            raise unknown("list", name, names)
    chosen = arguments.files or tuple(names)
    home = find_home()
    blocks = []
    for name in chosen:
        head, rows, right = names[name](home)
        body = columns(head, rows, right, most=room()) if rows else f"no {name} yet"
        blocks.append(body if len(chosen) == 1 else f"{name.upper()}\n{body}")
    print("\n\n".join(blocks))
    return WELL


def compare(words: Sequence[str]) -> int:
    """`bench compare`: two rows or records on the same clips, with what chance makes of their difference."""
    keys = ("dataset", "split", "protocol")
    values, arguments = take(words, keys, files=2, flags=("--seeds",))
    if len(arguments.files) != 2:
        raise BenchError(
            "command line: name two rows or records, such as bench compare recnet:local salstm dataset=msvd"
        )
    from bench.cell.scored import gather
    from bench.reports.compare import Side, check, render
    from bench.reports.lookup import find_row

    home = find_home()
    name, seeds = name_of(values.get("dataset")), "--seeds" in arguments.flags
    first, second = (
        find_row(word, home, name, values.get("split"), values.get("protocol"), seeds) for word in arguments.files
    )
    check(first, second)
    found = gather([*first.records, *second.records], home, values.get("dataset"))
    a, b = (Side(row, tuple(found.cells[record.key] for record in row.records)) for row in (first, second))
    print(render(a, b, found.references, found.notes))
    return WELL


def show(words: Sequence[str]) -> int:
    """`bench show`: one record as a page."""
    values, arguments = take(words, ("dataset",), files=1)
    if not arguments.files:
        raise BenchError("command line: name a record, such as bench show 402034cc (bench list runs has the keys)")
    from bench.cell.scored import gather
    from bench.declare.registry import find_methods
    from bench.plan.cells import defaults
    from bench.reports.lookup import find_record
    from bench.reports.show import render

    home = find_home()
    record = find_record(arguments.files[0], home, name_of(values.get("dataset")))
    entry = find_methods().get(record.method)
    usual = defaults(entry.card) if entry and entry.card else None
    if record.state != "done":
        print(render(record, home, usual, None, {}, ()))
        return WELL
    found = gather([record], home, values.get("dataset"), counted=False)
    print(render(record, home, usual, found.cells[record.key], found.references, found.notes))
    return WELL


def export_csv(words: Sequence[str]) -> int:
    """`bench export csv`: one line for each cell; status 1 if a record was refused and is not in the table."""
    values, _ = take(words, ("dataset", "path"))
    from bench.disk.whole import write_atomically
    from bench.records.store import BadRecord
    from bench.reports.export import cells, table

    bad: list[BadRecord] = []
    records = cells(find_home(), name_of(values.get("dataset")), bad)
    text = table(records)
    for error in bad:
        say(str(error), FAILED)
    if "path" in values:
        path = Path(values["path"]).expanduser()
        write_atomically(path, text)
        print(f"{path} written: {len(records)} cell{'s' if len(records) != 1 else ''}")
    else:
        print(text, end="")
    return FAILED if bad else WELL


def mlflow_sync(words: Sequence[str]) -> int:
    """`bench mlflow sync`: write into MLflow what the results folder has and MLflow lacks; status 1 if a record was refused."""
    values, _ = take(words, ("dataset", "mlflow"))
    from bench.records.store import BadRecord
    from bench.tracking.sync import records, sync
    from bench.tuning.tracked_trials import trials

    home, given, bad = find_home(), values.get("dataset"), list[BadRecord]()
    name = name_of(given)
    entries = [*records(home, name, given if given != name else None, bad), *trials(home, name)]
    for error in bad:
        say(str(error), FAILED)
    uri = values.get("mlflow")
    done = sync(entries, uri, home, "bench mlflow sync", name, print)
    told = [f"{done.written} written", f"{done.kept} up to date"]
    told += [f"{done.busy} of commands that are at work"] if done.busy else []
    told += [f"{done.closed} of killed commands closed"] if done.closed else []
    print(f"MLflow runs: {', '.join(told)}; bench ui{f' mlflow={uri}' if uri else ''} shows them")
    return FAILED if bad else WELL


def ui(words: Sequence[str]) -> int:
    """`bench ui`: MLflow's pages on this machine, until Ctrl-C."""
    values, _ = take(words, ("port", "mlflow"))
    port = values.get("port", "5000")
    if not port.isdecimal():
        raise BenchError(f"command line: port is {port!r}, but must be a whole number")
    from bench.tracking.ui import serve

    serve(find_home(), int(port), values.get("mlflow"))
    return WELL
