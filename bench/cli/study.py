"""The command that runs declared studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from bench import BenchError
from bench.cli.answers import FAILED, WELL, say
from bench.cli.pages import write_pages
from bench.declare.options import Options, Written, parse
from bench.declare.settings import option
from bench.errors import listing
from bench.home import find_home
from bench.pages.terminal import columns
from bench.plan.request import Running
from bench.records.store import BadRecord


class Named(Options):
    name: Annotated[list[str], Written(word="NAME")] = Field(
        [], max_length=1, description="a study that a datasets/*/study*.yaml declares; without it, which there are"
    )
    cells: int | None = option(None, "run at most so many cells now; the same command goes on", ge=1)
    pairs: list[str] | None = option(None, "only these of its pairs, in the order of its file", min_length=1)
    dry: Annotated[bool, Written(flag="--dry")] = option(False, "run nothing: say how far the pairs are")


class Study(Running, Named):
    """A study, and how its cells are run."""

    seeds: Annotated[list[int], Written(apart=True)] = Field([0])  # declared, so no option here


def study(argv: Sequence[str]) -> int:
    """Run what a declared study still needs, cell by cell, and write leaderboards/effects.md: each paper's idea against its
    control, with corpus, seeds or folds, settings, margin and stopping rule as datasets/*/study*.yaml declares them. What is
    done is skipped, what was interrupted goes on, a pair that has ended is left alone. A declaration must be committed before its
    first cell and stays as it is: a changed study gets a new name. Without NAME it says which studies there are, and how far.

    Example: bench study shapes1 cells=4
    """
    if any(word.partition("=")[0] == "seeds" for word in argv):
        raise BenchError("command line: the seeds of a study are declared: leave seeds= out")
    asked = parse(Study, argv)
    from bench.declare.registry import find_methods
    from bench.study.answers import of_study
    from bench.study.declaration import named, studies
    from bench.study.findings import check, overview, progress
    from bench.study.run import run

    home = find_home()
    if not asked.name:
        if asked.model_fields_set:
            raise BenchError(f"command line: name the study that is meant, one of {listing(studies())}")
        head, rows = overview(home)
        print(columns(head, rows, right=head[2:4]))
        return WELL
    declared, path = named(asked.name[0])
    status = WELL
    if asked.dry and of_study(home, declared) is None and not declared.given_up:
        check(declared, asked, home, find_methods())  # before it is committed and can no longer be mended
    if not asked.dry:
        status = run(declared, path, asked, home, find_methods(), asked.cells, asked.pairs)
    bad: list[BadRecord] = []
    head, rows = progress(declared, home, asked.pairs, bad)
    print(columns(head, rows, right=head[2:4]))
    if not asked.dry and status in (WELL, FAILED):
        return max(status, write_pages(home, None, check=False))  # which says what was refused
    for error in bad:
        say(str(error), FAILED)
    return max(status, FAILED) if bad else status
