"""`bench reproduce list`: every target, how far it is, and what stands in the way."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from bench import BenchError
from bench.declare.registry import MethodEntry, dataset, find_methods
from bench.errors import listing, named, unknown
from bench.figures import FIGURES
from bench.home import Home
from bench.plan.request import Running, RunSpec
from bench.plan.states import plan
from bench.reports.study import declaration, study
from bench.reproduction import ideas
from bench.reproduction.declaration import Reproduction, find_reproductions, trouble
from bench.reproduction.edition import Edition, edition, request

HEAD = ("target", "what", "data set", "cells", "state", "scale=small")
FEATURES_FIRST = "not known yet"
"""State of a cell whose features are not in the cache: only with them it can be told from others, done or not."""
NOT_KNOWN = (
    f"{FEATURES_FIRST}: cells whose features are not in the cache; bench reproduce and bench run put them there, and then it "
    "is known which are done"
)
OF_A_ROW = re.compile(r"(\w+:\w+) (?=under )")  # how a sentence begins that differs from row to row in this name alone


class Reasons:
    """Why cells cannot run, each reason once: numbered as it first comes up, with the targets and rows that it stops."""

    def __init__(self) -> None:
        self._stopped: dict[str, tuple[dict[str, None], dict[str, None]]] = {}

    def number(self, sentence: str, target: str) -> str:
        """The number of a reason that stops a target."""
        row = OF_A_ROW.match(sentence)
        reason = sentence[row.end() :] if row else sentence
        targets, rows = self._stopped.setdefault(reason, ({}, {}))
        targets[target] = None
        if row:
            rows[row[1]] = None
        return str(list(self._stopped).index(reason) + 1)

    def sentences(self) -> list[str]:
        """`[2] glrg/table2: glrg:local, as well as glrg:short, under protocol=paper reads ..`."""
        found = []
        for number, (reason, (targets, rows)) in enumerate(self._stopped.items(), start=1):
            first, *others = rows or [""]
            also = f", as well as {named(others)}," if others else ""
            found.append(f"[{number}] {named(targets)}: {f'{first}{also} ' if first else ''}{reason}")
        return found


def rows(home: Home) -> tuple[list[Sequence[object]], list[str], list[str]]:
    """One row per target; then the errors of the declarations, and why cells cannot run, each once and numbered."""
    entries = find_methods()
    found: list[Sequence[object]] = []
    errors: list[str] = []
    reasons = Reasons()
    for one in find_reproductions(entries).values():
        errors += [f"{one.full}: {sentence}" for sentence in problems(one, entries)]
        datasets = dict.fromkeys(part.dataset for part in one.parts)
        states = [_state(one, asked, home, entries, reasons) for asked in (edition(), edition(small=True))]
        found.append((one.full, one.target.title, listing(datasets), len(list(one.cells())), *states))
    if declaration().is_file():
        found += _ideas(home, entries)
    notes = [NOT_KNOWN] if any(FEATURES_FIRST in str(state) for row in found for state in row) else []
    return found, errors, [*notes, *reasons.sentences()]


def _ideas(home: Home, entries: dict[str, MethodEntry]) -> list[Sequence[object]]:
    """The comparisons of the study, which has one size only."""
    declared = study()
    base = Running()
    found: list[Sequence[object]] = []
    for name, pair in declared.pairs.items():
        try:
            specs = [spec for _, spec in ideas.requests(declared, name, base, entries)]
            states, cannot = _planned(specs, home, entries)
        except BenchError as error:  # a method that is not installed
            states, cannot = {}, [str(error)]
        counts = [f"{count} {state}" for state, count in Counter(states.values()).items()]
        cells = len(declared.seeds) * len(ideas.SIDES)
        found.append((f"{ideas.NAME}/{name}", pair.question, declared.dataset, cells, listing([*counts, *cannot]), "-"))
    return found


def problems(one: Reproduction, entries: dict[str, MethodEntry]) -> list[str]:
    """What a target declares and cards or figures lack."""
    found = [sentence for cell in one.target.cells if (sentence := trouble(cell, entries))]
    for drawn in one.target.draw:
        if drawn.figure and drawn.figure not in FIGURES:
            found.append(str(unknown("figure", drawn.figure, FIGURES)))
    return list(dict.fromkeys(found))


def _state(one: Reproduction, asked: Edition, home: Home, entries: dict[str, MethodEntry], reasons: Reasons) -> str:
    """`4 done, 2 cannot run [1]` for one edition of a target; why is noted in `reasons`."""
    base = Running()
    sound = [(part, cell) for part, cell in one.cells() if not trouble(cell, entries)]
    wrong = len(list(one.cells())) - len(sound)
    states, cannot = _planned([request(*pair, asked, base, entries) for pair in sound], home, entries)
    if not one.target.cells:  # a figure of the captions alone
        cannot = [why for part in one.parts if (why := _no_captions(asked.dataset or part.dataset, home))]
    numbers = dict.fromkeys(reasons.number(sentence, one.full) for sentence in cannot)
    counts = [f"{count} {state}" for state, count in Counter(states.values()).items()]
    counts += [f"{len(cannot)} cannot run [{listing(numbers)}]"] if cannot else []
    counts += [f"{wrong} in error"] if wrong else []
    return listing(counts) if counts else "needs no cells"


def _planned(specs: Sequence[RunSpec], home: Home, entries: dict[str, MethodEntry]) -> tuple[dict[str, str], list[str]]:
    """States by key of all cells, and the sentences of those that cannot run. Requests that differ in the method alone are
    planned as one, which is faster; where one of them cannot run, each is planned by itself."""
    groups: dict[str, list[RunSpec]] = {}
    for spec in specs:
        groups.setdefault(spec.model_dump_json(exclude={"methods"}, exclude_unset=True), []).append(spec)
    states: dict[str, str] = {}
    cannot: list[str] = []
    for group in groups.values():
        if absent := _no_captions(group[0].dataset, home):
            cannot += [absent] * len(group)
            continue
        names = dict.fromkeys(name for spec in group for name in spec.methods)
        try:
            together = group[0].model_copy(update={"methods": list(names)})
            found = plan(together, home, entries)
            states |= {item.cell.key: FEATURES_FIRST if item.cell.pending else item.state for item in found}
        except BenchError as error:
            if len(group) == 1:
                cannot.append(str(error))
                continue
            for spec in group:
                alone, why = _planned([spec], home, entries)
                states |= alone
                cannot += why
    return states, cannot


def _no_captions(name: str, home: Home) -> str | None:
    """The sentence that says which files of a data set are not here, or None."""
    try:
        dataset(name).caption_source(home)
    except BenchError as error:
        return str(error)
    return None
