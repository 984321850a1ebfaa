"""Commands that make records: plan, run, tune, evaluate; and test, which tries out a method."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bench import BenchError
from bench.cli.answers import FAILED, WELL
from bench.cli.pages import write_pages
from bench.cli.show import Split
from bench.declare.options import DataSet, Json, Options, Written, parse
from bench.errors import many
from bench.home import find_home
from bench.pages.terminal import columns, wrapped
from bench.plan.request import RunSpec
from bench.plan.request import parse as parse_request


class Plan(RunSpec):
    as_json: Json = False


def plan(argv: Sequence[str]) -> int:
    """Show the cells of a request, their state (missing, running, done, unscored, failed, stale) and why. Changes nothing.

    Example: bench plan methods=[recnet,etenet,glrg] dataset=msvd seeds=[0,1,2]
    """
    from bench.plan.states import plan as planned

    found = planned(parse_request(argv, Plan), find_home())
    rows = [
        (
            item.cell.config["title"],
            f"{item.cell.method}:{item.cell.config['variant']}",
            "+".join(item.cell.config["streams"]),
            item.cell.config["seed"],
            item.state,
            f"{item.budget:,}" if item.budget else "-",
            item.why,
        )
        for item in found
    ]
    head = ("method", "variant", "streams", "seed", "state", "captions", "why")
    print(columns(head, rows, right=("seed", "captions")))
    counts = {
        state: sum(item.state == state for item in found) for state in dict.fromkeys(item.state for item in found)
    }
    totals = ", ".join(f"{count} {state}" for state, count in counts.items())
    print(wrapped(f"\n{many(len(found), 'cell')}: {totals}. Data set {found[0].cell.config['dataset']}."))
    return WELL


def run(argv: Sequence[str]) -> int:
    """Train, decode and score the cells of a request, then bring the leaderboard up to date. PLAN.yaml is a file with the
    same keys; the command line is stronger. What is done is skipped, what was interrupted goes on. Exit status: 0 all well,
    1 some cells failed, 2 the request was not understood.

    Example: bench run methods=[salstm,recnet:global] dataset=msvd seeds=[0,1,2] recnet.lambda=0.2 train.epochs=5
    """
    begun = time.monotonic()
    from bench.declare.plugins import check_imports
    from bench.declare.registry import dataset, find_methods
    from bench.plan.cells import cells, requested

    spec, home = parse_request(argv), find_home()
    asked = requested(spec, home)
    check_imports(spec.methods, find_methods(), home)
    needed = {stream for cell in asked for stream in cell.config["streams"]}
    definition = dataset(spec.dataset)
    from bench.run.prepare import prepare, refuse_empty_splits
    from bench.run.runner import run as run_cells

    refuse_empty_splits(definition, home, asked[0].config["splits"], spec.subset, spec.split)
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
    ] = Field(description='one line for each clip: {"clip": "vid1301", "caption": "a man is singing"}')
    dataset: DataSet
    split: Split = Field("test", description="the clips that the captions are of")
    splits: str = Field("default", description="a split variant of the data set")
    name: str | None = Field(None, alias="as", description="what the row is called; without it, as the file")


def evaluate(argv: Sequence[str]) -> int:
    """Score captions made anywhere, record them as an external row and bring the leaderboard up to date.

    Example: bench evaluate predictions.jsonl dataset=msvd split=test as=my_model
    """
    asked = parse(Evaluate, argv)
    path, home = Path(asked.captions), find_home()
    if not path.is_file():
        raise BenchError(f"there is no file {path}")
    from bench.cell.external import evaluate as score
    from bench.declare.registry import dataset

    record = score(path, dataset(asked.dataset), asked.split, asked.name or path.stem, home, splits=asked.splits)
    for metric, value in record.scores[asked.split].items():
        print(f"{metric:8} {value:7.2f}   {record.signatures[asked.split].get(metric, '')}")
    return write_pages(home, record.dataset, check=False)


class Test(Options):
    methods: Annotated[
        list[str],
        Written(word="METHOD", missing="name a method, such as bench test salstm (bench list methods has them)"),
    ] = Field(min_length=1, description="a method: its default variant, METHOD:VARIANT, or METHOD:* for all of them")


def test(argv: Sequence[str]) -> int:
    """Make the checks that every method must pass, each on a tiny corpus made for it: one line per check, with the reason
    where one fails. Checks that a fault of another one hides are not made. Writes nothing into this project. For methods of
    this project, or of any installed package with an entry point in the group bench.methods (docs/method.md). Exit status 1
    if a check failed.

    Example: bench test salstm
    """
    asked = parse(Test, argv)
    from bench.cli.conformance import test as test_methods

    return FAILED if test_methods(asked.methods) else WELL
