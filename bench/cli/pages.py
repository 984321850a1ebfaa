"""Commands that write pages: leaderboard, and reproduce with the cells that its pages lack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from bench import BenchError
from bench.cli.answers import FAILED, WELL, name_of, print_json, say
from bench.cli.show import Nothing
from bench.declare.options import AnyDataSet, Json, Options, Written, parse
from bench.declare.settings import option
from bench.home import Home, find_home
from bench.pages.terminal import columns, wrapped
from bench.plan.request import Running

if TYPE_CHECKING:
    from bench.records.store import BadRecord


class Leaderboard(Options):
    dataset: AnyDataSet = None
    check: Annotated[bool, Written(flag="--check")] = option(
        False, "write nothing; exit status 1 if a page differs from what the records say"
    )
    as_json: Json = False


def leaderboard(argv: Sequence[str]) -> int:
    """Write leaderboards/<dataset>.md and its HTML twin from the records, leaderboards/published.md from the printed numbers,
    and the index. With --check it is for continuous integration.

    Example: bench leaderboard --check
    """
    asked = parse(Leaderboard, argv)
    home, name = find_home(), name_of(asked.dataset)
    if not asked.as_json:
        return write_pages(home, name, check=asked.check)
    from bench.records.store import all_records
    from bench.reports.clips import check
    from bench.reports.export import tables

    changed, bad = _changed(home, name, asked.check)
    records, _ = check(all_records(home.results, name, []), home, [])
    print_json(
        {
            "tables": tables(records),
            "changed": [str(path) for path in changed],
            "refused": [str(error) for error in bad],
        }
    )
    return FAILED if bad or (asked.check and changed) else WELL


def write_pages(home: Home, dataset: str | None, check: bool) -> int:
    """Bring leaderboards, reproductions and searches up to date and say which changed; returns the exit status."""
    changed, bad = _changed(home, dataset, check)
    for error in bad:
        say(str(error), FAILED)
    pages = [path for path in changed if check or path.suffix == ".md"]
    for path in pages:
        print(f"{path} {'is not what the records say: bench leaderboard writes it' if check else 'written'}")
    if len(changed) > len(pages):
        print(f"HTML twins and pictures written: {len(changed) - len(pages)}")
    if not changed and not bad:
        print("leaderboards are up to date")
    return FAILED if bad or (check and changed) else WELL


def _changed(home: Home, dataset: str | None, check: bool) -> tuple[list[Path], list[BadRecord]]:
    """Bring all pages up to date, or with `check` only look: the files that changed, and the records that were refused."""
    from bench.reports import leaderboard
    from bench.reproduction import pages as reproductions
    from bench.study import answers, effects
    from bench.tuning import pages as searches

    bad: list[BadRecord] = []
    makers: Sequence[Callable[..., list[Path]]] = (
        partial(leaderboard.write, dataset=dataset, bad=bad, given_up=answers.given_up(home)),
        reproductions.write,
        searches.write,
        effects.write,
    )
    return [path for write in makers for path in write(home, check=check)], bad


def reproduce_list(argv: Sequence[str]) -> int:
    """Show every table and figure of the papers: data set, cells and their states, on the paper's own data and in small; below
    the table, why cells cannot run here. Cells are told apart by their features: until these are in the cache (bench reproduce
    and bench run put them there) it is not known which are done. Exit status 1 if a declaration names what a card lacks.

    Example: bench reproduce list
    """
    parse(Nothing, argv)
    from bench.reproduction import listing as reproductions

    rows, errors, reasons = reproductions.rows(find_home())
    print(columns(reproductions.HEAD, rows, right=("cells",)))
    for sentence in (*errors, *reasons):
        print(wrapped(sentence))
    return FAILED if errors else WELL


class Target(Options):
    target: Annotated[
        list[str],
        Written(
            word="PAPER/TARGET",
            missing="name one target, such as bench reproduce recnet/table7 (see bench reproduce list)",
        ),
    ] = Field(
        min_length=1,
        max_length=1,
        description="a target, all of a PAPER, all, ideas or ideas/NAME (bench reproduce list)",
    )
    scale: Literal["full", "small"] = option(
        "full", "small: the same cells on the embedded corpus shapes: no data needed, minutes for each target"
    )
    dataset: AnyDataSet = None
    protocol: Literal["standard", "paper"] | None = option(
        None, "paper, unless named: the printed setting; or all else equal"
    )


class Reproduce(Running, Target):
    """A target, and how its cells are run."""


def reproduce(argv: Sequence[str]) -> int:
    """Run the cells of a table or figure that are missing (what is done is skipped, what was interrupted goes on), then write
    leaderboards/reproductions/PAPER/TARGET.md: the printed number beside ours, the difference, what was not comparable, and
    the pictures. Targets are declared in methods/PAPER/reproduce.yaml; a verdict needs two seeds or more. Exit status: 0 all
    well, 1 some cells failed or cannot run here, 2 none can.

    `ideas` (or ideas/NAME) is a study of its own: each paper's idea against its control, with corpus, seeds and settings of
    datasets/ideas/study.yaml, which were fixed before its first run. Its page: leaderboards/reproductions/ideas.md.

    Example: bench reproduce recnet/table7 scale=small
    """
    asked = parse(Reproduce, argv)
    named = asked.model_fields_set
    from bench.declare.registry import find_methods
    from bench.reproduction import ideas
    from bench.reproduction.declaration import chosen, find_reproductions
    from bench.reproduction.edition import edition
    from bench.reproduction.run import run as run_targets

    if asked.scale == "small" and named & {"dataset", "protocol"}:
        raise BenchError(
            "command line: scale=small has its own data set and protocol; leave dataset= and protocol= out"
        )
    (target,), entries, home = asked.target, find_methods(), find_home()
    if ideas.is_asked(target):
        if fixed := sorted(named & {"scale", "seeds", "dataset", "protocol"}):
            raise BenchError(
                f"command line: {fixed[0]} of {target} was fixed before the first comparison (datasets/ideas/study.yaml); "
                f"leave {fixed[0]}= out"
            )
        status = ideas.run(target, asked, home, entries)
    else:
        found = chosen(target, find_reproductions(entries))
        how = edition(asked.scale == "small", asked.dataset, asked.protocol)
        status, sentences = run_targets(found, how, asked, home, entries)
        for sentence in sentences:
            say(sentence, status)
    return status if status not in (WELL, FAILED) else max(status, write_pages(home, None, check=False))
