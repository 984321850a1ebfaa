"""Commands that make records: plan, run, tune, evaluate; and what is done with a method: caption, test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench import BenchError
from bench.cli.pages import write_pages
from bench.cli.words import FAILED, WELL, take
from bench.declare.grammar import take_apart
from bench.errors import unknown
from bench.home import find_home
from bench.pages.terminal import columns, room


def plan(words: Sequence[str]) -> int:
    """`bench plan`: the cells of a request with their state and the reason; changes nothing."""
    from bench.plan.request import parse
    from bench.plan.states import plan as planned

    found = planned(parse(words), find_home())
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
    print(columns(head, rows, right=("seed", "captions"), most=room()))
    counts = {
        state: sum(item.state == state for item in found) for state in dict.fromkeys(item.state for item in found)
    }
    totals = ", ".join(f"{count} {state}" for state, count in counts.items())
    print(f"\n{len(found)} cell{'s' if len(found) != 1 else ''}: {totals}. Data set {found[0].cell.config['dataset']}.")
    return WELL


def run(words: Sequence[str]) -> int:
    """`bench run`: bring every cell of a request to a scored record, then the page up to date."""
    from bench.declare.plugins import check_imports
    from bench.declare.registry import dataset, find_methods
    from bench.plan.cells import cells, requested
    from bench.plan.request import parse

    spec, home = parse(words), find_home()
    asked = requested(spec, home)
    check_imports(spec.methods, find_methods(), home)
    needed = {stream for cell in asked for stream in cell.config["streams"]}
    definition = dataset(spec.dataset)
    from bench.run.prepare import prepare, refuse_empty_splits
    from bench.run.runner import run as run_cells

    refuse_empty_splits(definition, home, asked[0].config["splits"], spec.subset, spec.split)
    prepare(definition, home, spec.subset, needed)
    status = run_cells(cells(spec, home), home, spec)
    if status not in (WELL, FAILED):
        return status
    if status == FAILED and not any((home.results / definition.name).glob("*/*/record.json")):
        return status  # not even a record of the failure could be written: there is nothing to show on a page
    return max(status, write_pages(home, definition.name, check=False))


def tune(words: Sequence[str]) -> int:
    """`bench tune`: search on validation clips, then the chosen points over the seeds, then the pages."""
    from bench.declare.plugins import check_imports
    from bench.declare.registry import dataset, find_methods
    from bench.tuning.request import parse

    spec, home = parse(words), find_home()
    check_imports(spec.run.methods, find_methods(), home)
    from bench.tuning.tune import tune as tune_methods

    status = tune_methods(spec, home, find_methods())
    if status not in (WELL, FAILED):
        return status
    return max(status, write_pages(home, dataset(spec.run.dataset).name, check=False))


def evaluate(words: Sequence[str]) -> int:
    """`bench evaluate`: score captions made anywhere; the record is marked external and enters the page."""
    values, arguments = take(words, ("dataset", "split", "splits", "as"), files=1, required=("dataset",))
    if not arguments.files:
        raise BenchError(
            "command line: name the file of captions, such as bench evaluate predictions.jsonl dataset=msvd"
        )
    path = Path(arguments.files[0])
    if not path.is_file():
        raise BenchError(f"there is no file {path}")
    split = values.get("split", "test")
    if split not in ("train", "val", "test"):
        raise unknown("split", split, ("train", "val", "test"), "command line")
    from bench.cell.external import evaluate as score
    from bench.declare.registry import dataset

    name, splits = values.get("as", path.stem), values.get("splits", "default")
    home = find_home()
    record = score(path, dataset(values["dataset"]), split, name, home, splits=splits)
    for metric, value in record.scores[split].items():
        print(f"{metric:8} {value:7.2f}   {record.signatures[split].get(metric, '')}")
    return write_pages(home, record.dataset, check=False)


def caption(words: Sequence[str]) -> int:
    """`bench caption`: captions of videos by a trained method; status 1 if some could not be read."""
    from bench.cli.caption import parse
    from bench.cli.caption import run as caption_videos

    return FAILED if caption_videos(parse(words), find_home()) else WELL


def test(words: Sequence[str]) -> int:
    """`bench test`: the conformance suite for methods, a line for each check; status 1 if one failed."""
    from bench.cli.conformance import test as test_methods

    arguments = take_apart(words, ())
    if arguments.values:
        raise BenchError(
            "command line: bench test takes names of methods alone, such as bench test salstm recnet:global"
        )
    return FAILED if test_methods(arguments.files) else WELL
