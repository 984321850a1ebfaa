"""`bench study NAME`: the cells of a study that are still needed, pair by pair and look by look, until each pair has ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench import BenchError
from bench.cell.job import state_of
from bench.cell.provenance import processor_name
from bench.declare.registry import MethodEntry, dataset
from bench.errors import listing, many
from bench.home import Home
from bench.plan.cells import Cell, cells
from bench.plan.request import Running
from bench.plan.states import differences
from bench.records.folds import row_config
from bench.records.schema import Record
from bench.run import prepare, runner
from bench.run.greeting import check_places
from bench.study import answers
from bench.study.declaration import SIDES, Study, chosen, commit_of, requests
from bench.study.findings import check

WELL, FAILED = 0, 1


def run(
    study: Study,
    path: Path,
    base: Running,
    home: Home,
    entries: dict[str, MethodEntry],
    most: int | None,
    only: Sequence[str] | None = None,
) -> int:
    """Bring a study on by at most `most` cells, all that it or its pairs `only` need unless given; returns the exit status.

    Raises BenchError before anything runs: a declaration that is not committed or was changed after the first cell, a pair with
    an undeclared difference, a claim that is not printed, a study that was given up, a pair that is not declared, settings,
    code or features that changed after the first cell.
    """
    if study.given_up:
        raise BenchError(
            f"study {study.name} was given up: {study.given_up} What it found: bench study {study.name} --dry"
        )
    names = chosen(study, only)
    for name in only or ():
        if why := study.pairs[name].withdrawn:
            raise BenchError(
                f"study {study.name}: {name} was withdrawn: {why} What it found: bench study {study.name} --dry"
            )
    begun = answers.of_study(home, study) is not None
    asked = answers.begin(home, study, commit_of(study, path))
    names = [name for name in names if not study.pairs[name].withdrawn and not _ended(study, asked, name, home)]
    check(study, base, home, entries, names if begun else None)
    if not names:
        return WELL
    check_places(base, home)
    streams = {stream for name in names for stream in study.pairs[name].streams}
    prepare.prepare(dataset(study.dataset), home, None, streams)
    for name in names:
        for side, one in zip(SIDES, requests(study, name, base, entries, 1), strict=True):
            _refuse_others(study, name, getattr(asked.pairs.get(name), side, []), cells(one, home, entries), home)
    status = WELL
    for name in names:
        for seeds in study.seeds():
            sides = [cells(spec, home, entries) for spec in requests(study, name, base, entries, seeds)]
            asked = answers.note(home, study.name, asked, name, _keys(study, sides))
            wanted = [cell for pair in zip(*sides, strict=True) for cell in pair]
            wanted = list({cell.key: cell for cell in wanted}.values())
            settled = ("done",) if base.retry_failed else ("done", "failed")
            missing = [cell for cell in wanted if state_of(cell.folder(home)) not in settled]
            if failed := sum(state_of(cell.folder(home)) == "failed" for cell in wanted if cell not in missing):
                print(f"{many(failed, 'cell')} of {name} failed before, for which the pair waits; add --retry-failed")
                status = max(status, FAILED)
            now = missing if most is None else missing[:most]
            # Both sides of a seed share phases, and the second would wait for the first to train them: seeds side by side.
            firsts = {cell.key for cell in sides[0]}
            now.sort(key=lambda cell: cell.key not in firsts)
            # A row of folds is scored in a run of its cells. Those that are done cost nothing, and a stop may have left no row.
            rows = [home.results / getattr(asked.pairs[name], side)[0] for side in SIDES] if study.folds else []
            lacking = any(state_of(row) != "done" for row in rows)
            ready = [cell for cell in wanted if cell not in missing] if lacking else []
            if now:
                _tell_processors(name, answers.records(home, [_place(cell) for cell in wanted]))
            if now or ready:
                spec = base.model_copy(update={"seeds": list(range(seeds))})
                status = max(status, runner.run([*now, *ready], home, spec))
            if most is not None:
                most -= len(now)
            if status not in (WELL, FAILED) or (most is not None and most <= 0):
                return status
            found = answers.answer(study, asked.pairs[name], home).decision
            # A seed that failed, or that is still to come, leaves this look out: those behind it wait for it.
            if found is None or found.ended or found.seeds < seeds or len(now) < len(missing):
                break
    return status


def _tell_processors(name: str, made: Sequence[Record]) -> None:
    """Say where cells of a pair were trained on another processor: no reason to stop, and the page says what came of it.

    Older records have but its name, and one of this name may be this one.
    """
    here = processor_name()
    known = {here, here.partition(" (family")[0]}
    others = sorted({one.provenance.cpu for one in made if one.provenance and one.provenance.cpu} - known)
    if others:
        print(
            f"note: cells of {name} were trained on {listing(others)}, and this is {here}, which rounds otherwise: what they "
            "share is trained again and not the same, and the interval will be the wider for it"
        )


def _ended(study: Study, asked: answers.Asked, name: str, home: Home) -> bool:
    """Whether a pair needs no more cells, whatever has become of code and data since."""
    decision = answers.answer(study, asked.pairs.get(name, answers.Keys()), home).decision
    return decision is not None and decision.ended


def _refuse_others(study: Study, name: str, before: Sequence[str], first: Sequence[Cell], home: Home) -> None:
    """Raise BenchError where a pair would go on with cells of another kind: its declaration is the same, and what that leaves to
    the data set, the cards or the code is not."""
    for cell in first:
        if not before or _place(cell) in before:
            continue
        records = answers.records(home, before)
        seed = next((one for one in records if one.seed == cell.config["seed"] and "cells" not in one.config), None)
        what = listing(differences(seed.config, cell.config)) if seed else "something that no record here tells"
        raise BenchError(
            f"study {study.name}: the cells of {name} are others now than those that it has run; changed since: {what}. Give the "
            "study a new name, or put back what was changed"
        )


def _keys(study: Study, sides: Sequence[Sequence[Cell]]) -> answers.Keys:
    """The places of a pair's records: its cells, and for folds the rows that they make, first."""
    places = []
    for its in sides:
        own = [_place(cell) for cell in its]
        if study.folds:
            own.insert(0, _place(Cell(row_config(its[0].config, [cell.key for cell in its]))))
        places.append(own)
    return answers.Keys(**dict(zip(SIDES, places, strict=True)))


def _place(cell: Cell) -> str:
    return f"{cell.config['dataset']}/{cell.method}/{cell.key}"
