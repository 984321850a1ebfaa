"""Commands that make records: plan, run, tune, evaluate; and test, which tries out a method."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from bench import BenchError
from bench.cli.answers import FAILED, WELL, print_json
from bench.cli.pages import write_pages
from bench.cli.show import Split
from bench.declare.options import DataSet, Json, Options, Written, parse
from bench.declare.settings import option
from bench.errors import listing, many, together
from bench.home import Home, find_home, written_path
from bench.pages.terminal import columns, room, wrapped
from bench.plan.request import RunSpec
from bench.plan.request import parse as parse_request

KEPT = ("done", "unscored")  # states of cells that would not be trained
WIDE = 120  # columns of a terminal with room for the titles of rows

if TYPE_CHECKING:
    from bench.plan.estimates import Estimate
    from bench.plan.states import Planned


class Plan(RunSpec):
    as_json: Json = False


def plan(argv: Sequence[str]) -> int:
    """Show the cells of a request, their state (missing, running, done, unscored, failed, stale, unreadable) and why. Changes
    nothing.
    PLAN.yaml is a file with the same keys; the command line is stronger. For cells that would run: seconds of training,
    decoding and scoring, and MiB at the peak, by the records of like cells (method, variant, streams, sizes, batch, kind of
    machine) with a near budget; - where there are none.

    Example: bench plan methods=[recnet,etenet,glrg] dataset=msvd seeds=[0,1,2]
    """
    asked, home = parse_request(argv, Plan), find_home()
    facts, shares = planned_facts(asked, home)
    cells: list[dict[str, Any]] = facts["cells"]
    if asked.as_json:
        return print_json(facts)
    print(_table(cells))
    states = Counter(cell["state"] for cell in cells)
    totals = listing(f"{count} {state}" for state, count in states.items())
    print(wrapped(f"\n{many(len(cells), 'cell')}: {totals}. Data set {facts['dataset']}."))
    if to_run := sum(count for state, count in states.items() if state not in KEPT):
        print(wrapped(_total(to_run, [cell["seconds"] for cell in cells if cell["seconds"] is not None])))
    for count in sorted({count for count in shares.values() if count > 1}):
        rows = dict.fromkeys(f"{one['method']}:{one['variant']}" for one in cells if one["gpu_cells"] == count)
        print(wrapped(f"Up to {count} cells of {listing(rows)} share a GPU like this machine's."))
    for told in _edited(asked, cells, home):
        print(wrapped(told))
    return WELL


def _edited(asked: RunSpec, cells: Sequence[dict[str, Any]], home: Home) -> list[str]:
    """Sentences on streams of the cells that were made from videos otherwise than their definition says by now."""
    from bench.declare.registry import dataset

    definition = dataset(asked.dataset)
    read = dict.fromkeys(stream for cell in cells for stream in cell["streams"])
    films = [stream for stream in read if (own := definition.streams.get(stream)) and own.videos is not None]
    if not films:
        return []
    from bench.features.extraction import made_otherwise  # it imports torch, which takes seconds

    return [told for stream in films if (told := made_otherwise(definition, stream, home))]


def planned_facts(asked: RunSpec, home: Home) -> tuple[dict[str, Any], dict[str, int]]:
    """The cells of a request as `bench plan json=true` prints them, and by key how many of each would share a GPU."""
    from bench.plan.estimates import estimates
    from bench.plan.states import plan as planned
    from bench.run.greeting import check_places

    found: list[Planned] = []
    together(
        [
            lambda: found.extend(planned(asked, home)),
            partial(check_places, asked, home),
            partial(_check_subset, asked, home),
        ]
    )
    to_run = [item for item in found if item.state not in KEPT]
    costs = dict(
        zip(
            (item.cell.key for item in to_run),
            estimates([(item.cell, item.budget) for item in to_run], home),
            strict=True,
        )
    )
    shares = _shares(asked, to_run, home)
    cells = [_facts(item, costs.get(item.cell.key)) | {"gpu_cells": shares.get(item.cell.key)} for item in found]
    known = [cell["seconds"] for cell in cells if cell["seconds"] is not None]
    return {
        "dataset": found[0].cell.config["dataset"],
        "cells": cells,
        "seconds": sum(known),
        "estimated": len(known),
    }, shares


def _check_subset(asked: RunSpec, home: Home) -> None:
    """Whether the data set has as many clips as are asked for; without `subset` nothing is read."""
    if asked.subset is None:
        return
    from bench.declare.registry import dataset
    from bench.plan.cells import splits_of
    from bench.run.prepare import refuse_empty_splits

    definition = dataset(asked.dataset)
    refuse_empty_splits(definition, home, splits_of(asked, definition), asked.subset, asked.split)


def _shares(asked: RunSpec, to_run: Sequence[Planned], home: Home) -> dict[str, int]:
    """By key, how many cells like each would share a GPU; of those that a Ray with this machine's GPUs would give one."""
    from bench.cell.provenance import gpu_memory

    whole = gpu_memory() if asked.executor == "ray" and asked.device != "cpu" else None
    if whole is None:
        return {}
    from bench.plan.sharing import gpu_share, recorded_room
    from bench.run.runner import resources_of  # imports numpy

    cells = [item.cell for item in to_run]
    recorded = recorded_room({cell.key: cell.config for cell in cells}, home)
    shares = {
        cell.key: gpu_share(cell.label, resources_of(cell.method, asked), whole, recorded.get(cell.key))
        for cell in cells
    }
    return {key: round(1 / share) for key, share in shares.items() if share <= 1}


def _table(cells: Sequence[dict[str, Any]]) -> str:
    """The cells for people. On a terminal a reason that several have is said once, below, and the title of a row goes where
    there is no room for it."""
    reasons = [f"{cell['why']}; {cell['unknown']}" if cell["unknown"] else cell["why"] for cell in cells]
    shared = [reason for reason, count in Counter(reasons).items() if count > 1] if room() else []
    entries = {
        "method": [cell["title"] for cell in cells],
        "variant": [f"{cell['method']}:{cell['variant']}" for cell in cells],
        "streams": ["+".join(cell["streams"]) for cell in cells],
        "seed": [cell["seed"] for cell in cells],
        "state": [cell["state"] for cell in cells],
        **{
            head: ["-" if cell[name] is None else f"{cell[name]:,}" for cell in cells]
            for head, name in (("captions", "captions"), ("seconds", "seconds"), ("MiB", "memory_mb"))
        },
        "why": [f"[{shared.index(reason) + 1}]" if reason in shared else reason for reason in reasons],
    }
    if (room() or WIDE) < WIDE:
        del entries["method"]
    table = columns(
        list(entries), list(zip(*entries.values(), strict=True)), right=("seed", "captions", "seconds", "MiB")
    )
    notes = [f"[{number}] {reason}" for number, reason in enumerate(shared, start=1)]
    return "\n".join([table, *([""] if notes else []), *map(wrapped, notes)])


def _facts(item: Planned, cost: Estimate | None) -> dict[str, Any]:
    """One cell of a plan as JSON; seconds and MiB are those of like cells, to two digits."""
    config = item.cell.config
    return {
        "key": None if item.cell.pending else item.cell.key,
        **{name: config[name] for name in ("method", "variant", "title", "seed")},
        "streams": list(config["streams"]),
        "state": item.state,
        "why": item.why,
        "captions": item.budget or (cost.captions if cost else None),
        "seconds": _rounded(cost.seconds if cost else None),
        "memory_mb": _rounded(cost.memory_mb if cost else None),
        "unknown": cost.why if cost else "",
    }


def _rounded(value: float | None) -> int | None:
    return None if value is None else int(float(f"{value:.2g}"))


def _total(cells: int, known: Sequence[int]) -> str:
    """What the cells that are to run will cost, one after another, and of how many that is not known."""
    if not known:
        return "How long they take is not known: there are no records of like cells that were run on such a machine."
    rest = f"; of {cells - len(known)} more it is not known" if len(known) < cells else ""
    return f"One after another, {many(len(known), 'cell')} would take about {sum(known):,} s, as like cells did{rest}."


def run(argv: Sequence[str]) -> int:
    """Train, decode and score the cells of a request, then bring the leaderboard up to date. PLAN.yaml is a file with the
    same keys; the command line is stronger. What is done is skipped, what was interrupted goes on. Exit status: 0 all well,
    1 some cells failed, 2 the request was not understood.

    Example: bench run methods=[salstm,recnet:global] dataset=msvd seeds=[0,1,2] recnet.lambda=0.2 train.epochs=5
    """
    return run_request(parse_request(argv, RunSpec), find_home())


def run_request(spec: RunSpec, home: Home) -> int:
    """Train, decode and score the cells of a request and write its pages; the exit status of `bench run`."""
    begun = time.monotonic()
    from bench.declare.plugins import check_imports
    from bench.declare.registry import dataset, find_methods
    from bench.plan.cells import Cell, cells, requested, splits_of
    from bench.run.greeting import check_places
    from bench.run.prepare import prepare, refuse_empty_splits

    asked, definition = list[Cell](), dataset(spec.dataset)
    together(
        [
            lambda: asked.extend(requested(spec, home)),
            partial(check_imports, spec.methods, find_methods(), home),
            partial(check_places, spec, home),
            lambda: refuse_empty_splits(definition, home, splits_of(spec, definition), spec.subset, spec.split),
        ]
    )
    needed = {stream for cell in asked for stream in cell.config["streams"]}
    from bench.run.runner import run as run_cells

    prepare(definition, home, spec.subset, needed)
    status = run_cells(cells(spec, home), home, spec, begun=begun)
    if status not in (WELL, FAILED):
        return status
    if status == FAILED and not any((home.results / definition.name).glob("*/*/record.json")):
        return status  # not even a record of the failure could be written: there is nothing to show on a page
    return max(status, write_pages(home, definition.name, check=False))


def tune(argv: Sequence[str]) -> int:
    """Search the settings that the cards name (lambda, gamma, beta, ..) by Ray Tune, one search for each row and as many
    trials for each, on validation clips alone; then train the chosen settings anew over the seeds, which is what the
    leaderboard shows. PLAN.yaml is a file with the same keys; the command line is stronger. Trials and cells that are done
    are kept, what was interrupted goes on.

    Example: bench tune methods=[recnet,vre] dataset=msvd trials=6 seeds=[0,1,2]
    """
    from bench.declare.plugins import check_imports
    from bench.declare.registry import dataset, find_methods
    from bench.tuning.request import parse as parse_search

    spec, home = parse_search(argv), find_home()
    check_imports(spec.run.methods, find_methods(), home)
    from bench.tuning.tune import tune as tune_methods

    status = tune_methods(spec, home, find_methods())
    if status not in (WELL, FAILED):
        return status
    return max(status, write_pages(home, dataset(spec.run.dataset).name, check=False))


class Evaluate(Options):
    captions: Annotated[
        str,
        Written(
            word="CAPTIONS.jsonl",
            missing="name the file of captions, such as bench evaluate predictions.jsonl dataset=msvd",
        ),
    ] = Field(
        description='one line for each clip: {"clip": "vid1301", "caption": "a man is singing"}; also other JSON, and tables'
    )
    dataset: DataSet
    split: Split = option("test", "the clips that the captions are of")
    splits: str = option("default", "a split variant of the data set")
    name: str | None = option(None, "what the row is called; without it, as the file", alias="as")
    fields: Annotated[dict[str, str], Written("NAME")] = option(
        {}, "fields of records with unusual names: fields.clip=, fields.caption="
    )


def evaluate(argv: Sequence[str]) -> int:
    """Score captions made anywhere, record them as an external row and bring the leaderboard up to date.

    Example: bench evaluate predictions.jsonl dataset=msvd split=test as=my_model
    """
    asked = parse(Evaluate, argv)
    path, home = written_path(asked.captions), find_home()
    if not path.is_file():
        raise BenchError(f"there is no file {path}")
    from bench.cell.external import evaluate as score
    from bench.declare.registry import dataset

    record = score(
        path,
        dataset(asked.dataset),
        asked.split,
        asked.name or path.stem,
        home,
        splits=asked.splits,
        fields=asked.fields,
    )
    for metric, value in record.scores[asked.split].items():
        print(f"{metric:8} {value:7.2f}   {record.signatures[asked.split].get(metric, '')}")
    for warning in record.warnings:
        print(wrapped(f"warning: {warning}"))
    return write_pages(home, record.dataset, check=False)
