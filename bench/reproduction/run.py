"""Bring targets to their pages: which cells they need, run what is missing, leave the traces that figures draw."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench import BenchError
from bench.declare.registry import MethodEntry, dataset
from bench.errors import listing
from bench.home import Home
from bench.plan.cells import Cell, cells, requested
from bench.plan.request import Running, RunSpec
from bench.reproduction import answers as asked
from bench.reproduction.declaration import DeclaredCell, Part, Reproduction
from bench.reproduction.edition import Edition, edition, request
from bench.reproduction.targets import drawings_of
from bench.run import greeting, prepare, runner

WELL, FAILED, USAGE = 0, 1, 2


@dataclass(frozen=True)
class Wanted:
    """One declared cell of a target, and the request that runs it."""

    reproduction: Reproduction
    part: Part
    cell: DeclaredCell
    spec: RunSpec


@dataclass
class Plan:
    """What a command runs, and in sentences what it cannot, each once, with the targets that lack it."""

    wanted: list[Wanted]
    cannot: dict[str, list[str]]

    def lacks(self, sentence: str, target: str) -> None:
        names = self.cannot.setdefault(sentence, [])
        if target not in names:
            names.append(target)


def plan(
    found: Sequence[Reproduction], how: Edition, base: Running, home: Home, entries: dict[str, MethodEntry]
) -> Plan:
    """The requests of all cells of some targets. What cannot run is written down, and the others still run."""
    made = Plan([], {})
    for one in found:
        for part, cell in one.cells():
            try:
                spec = request(part, cell, how, base, entries)
                requested(spec, home, entries)
            except BenchError as error:
                made.lacks(str(error), one.full)
            else:
                made.wanted.append(Wanted(one, part, cell, spec))
    return made


def run(
    found: Sequence[Reproduction], how: Edition, base: Running, home: Home, entries: dict[str, MethodEntry]
) -> tuple[int, list[str]]:
    """Run what is missing of some targets, and write down what answers them; returns the exit status (USAGE where nothing
    could be run) and the sentences that say what could not."""
    greeting.check_places(base, home)
    made = plan(found, how, base, home, entries)
    status, keys = _run(made, home, base, entries)
    if status not in (WELL, FAILED):
        return status, []
    drawable = [one for one in found if _drawable(one, keys, how, home, made)]
    if not drawable:
        return USAGE, [*_sentences(made), *([] if how.small else [_in_small(found)])]
    for one in drawable:
        cells_asked = {wanted.part.place(wanted.cell): k for wanted, k in keys if wanted.reproduction is one}
        place = dataset(how.dataset).name if how.dataset else None
        section = asked.Section(small=how.small, dataset=place, protocol=how.protocol, cells=cells_asked)
        asked.note(home, one.full, how.slug, section)
        _trace(one, how.slug, home, made)
    return (FAILED if made.cannot else status), _sentences(made)


def _sentences(made: Plan) -> list[str]:
    """What cannot run, in sentences: the targets that a reason concerns, and the reason."""
    return [f"{listing(names)}: {sentence}" for sentence, names in made.cannot.items()]


def _run(
    made: Plan, home: Home, base: Running, entries: dict[str, MethodEntry]
) -> tuple[int, list[tuple[Wanted, list[str]]]]:
    """Run the cells of a plan, one data set after the other; returns the exit status and the keys that answer each."""
    status = WELL
    keys: list[tuple[Wanted, list[str]]] = []
    for name in dict.fromkeys(one.spec.dataset for one in made.wanted):
        wanted = [one for one in made.wanted if one.spec.dataset == name]
        begun = time.monotonic()
        try:
            its = prepared([one.spec for one in wanted], home, entries)
        except BenchError as error:
            for one in wanted:
                made.lacks(str(error), one.reproduction.full)
            continue
        ended = run_cells(its, home, base, begun)
        if ended not in (WELL, FAILED):
            return ended, []
        status = max(status, ended)
        keys += [(one, [asked.place_of(cell) for cell in some]) for one, some in zip(wanted, its, strict=True)]
    return status, keys


def _drawable(
    one: Reproduction, keys: Sequence[tuple[Wanted, list[str]]], how: Edition, home: Home, made: Plan
) -> bool:
    """Whether there is something to show of a target: a cell that ran, or its captions where it needs none."""
    if one.target.cells:
        return any(wanted.reproduction is one for wanted, _ in keys)
    try:
        for part in one.parts:
            dataset(how.dataset or part.dataset).caption_source(home)
    except BenchError as error:
        made.lacks(str(error), one.full)
        return False
    return True


def prepared(specs: Sequence[RunSpec], home: Home, entries: dict[str, MethodEntry]) -> list[list[Cell]]:
    """The cells of each request, all on the same clips of one data set, once its streams are in the cache."""
    definition, subset = dataset(specs[0].dataset), specs[0].subset
    configs = [cell.config for spec in specs for cell in requested(spec, home, entries)]
    for splits, split in dict.fromkeys((config["splits"], config["split"]) for config in configs):
        prepare.refuse_empty_splits(definition, home, splits, subset, split)
    prepare.prepare(definition, home, subset, {stream for config in configs for stream in config["streams"]})
    return [cells(spec, home, entries) for spec in specs]


def run_cells(its: Sequence[Sequence[Cell]], home: Home, base: Running, begun: float | None = None) -> int:
    """Run what is missing of the cells of several requests, each once; returns the exit status."""
    unique = {cell.key: cell for some in its for cell in some}
    return runner.run(list(unique.values()), home, base, begun=begun)


def _trace(one: Reproduction, slug: str, home: Home, made: Plan) -> None:
    """Leave what the figures of a section draw and the records do not hold."""
    if not any(drawn.figure for drawn in one.target.draw):
        return
    from bench.reproduction.tracing import TRACES  # imported late: torch takes long

    section = asked.read(home, one.full).sections[slug]
    for figure, drawing in drawings_of(one, slug, section, home):
        if figure in TRACES:
            try:
                TRACES[figure](drawing, home)
            except BenchError as error:
                made.lacks(f"figure {figure}: {error}", one.full)


def _in_small(found: Sequence[Reproduction]) -> str:
    name = found[0].full if len(found) == 1 else found[0].paper.paper.name
    corpus = edition(small=True).dataset
    return f"no data is needed for: bench reproduce {name} scale=small, which makes the same in small on {corpus}"
