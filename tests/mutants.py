"""`python -m tests.mutants --minutes 20`: small changes to the code of some rooms, one at a time, and whether their tests notice.

Mutants are drawn by a seed. One that survives is printed as file, line and change: either a test is lacking, or the change makes
no difference that anybody could see. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.home import CHECKOUT

# Rooms and the tests that hold them, quick ones first.
ROOMS = {
    "evaluation": (
        "metrics_table",
        "evaluation_metrics",
        "sequential",
        "resampling",
        "evaluation_scorer",
        "densevid",
        "further",
    ),
    "records": ("records", "folds", "figures", "further", "compare"),
    "data": ("text", "corpus", "layouts", "data_fraction", "folds", "draft"),
    "training": ("training", "reinforce", "converged", "data_fraction", "borrowed_loss"),
}
PATIENCE = 400.0  # seconds for the tests of one mutant: one that never ends is noticed, too
COMPARED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
COMPARED |= {ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is}
COMPUTED = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}


@dataclass(frozen=True)
class Mutant:
    """The `number`-th change that can be made to a file."""

    path: Path
    number: int

    @property
    def name(self) -> str:
        return f"{self.path.relative_to(CHECKOUT)}/{self.number}"


def changes(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Nodes that can be changed, each time with a word for how; what only a reader sees is left out."""
    unseen = {id(part) for node in ast.walk(tree) for part in _unseen(node) for part in ast.walk(part)}
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
            yield node, "compare"
        elif isinstance(node, ast.BinOp) and type(node.op) in COMPUTED and not _is_text(node):
            yield node, "compute"
        elif isinstance(node, ast.BoolOp):
            yield node, "and/or"
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node, "not"
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            yield node, "constant"
        elif isinstance(node, ast.Return) and node.value is not None:
            yield node, "return"
        elif isinstance(node, ast.If | ast.IfExp):
            yield node, "if"


def _unseen(node: ast.AST) -> Iterator[ast.AST]:
    """Parts of a node that are annotations, or words of a sentence."""
    annotation = getattr(node, "annotation", None) or getattr(node, "returns", None)
    if annotation is not None:
        yield annotation
    for_checkers = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    if for_checkers or isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert):
        yield node


def _is_text(node: ast.BinOp) -> bool:
    return any(isinstance(part, ast.JoinedStr | ast.List) for part in (node.left, node.right)) or any(
        isinstance(part, ast.Constant) and isinstance(part.value, str) for part in ast.walk(node)
    )


def mutate(source: str, number: int) -> tuple[ast.Module, int, str]:
    """The tree with its `number`-th change, the line, and what it was and is."""
    tree = ast.parse(source)
    node, kind = list(changes(tree))[number]
    before: Any = copy.deepcopy(node)
    changed: Any = node
    if kind == "compare":
        changed.ops[0] = COMPARED[type(changed.ops[0])]()
    elif kind == "compute":
        changed.op = COMPUTED[type(changed.op)]()
    elif kind == "and/or":
        changed.op = ast.Or() if isinstance(changed.op, ast.And) else ast.And()
    elif kind == "not":
        changed.op, changed.operand = ast.Not(), ast.UnaryOp(ast.Not(), changed.operand)
    elif kind == "constant":
        changed.value = not changed.value if isinstance(changed.value, bool) else changed.value + 1
    elif kind == "return":
        changed.value = ast.Constant(None)
    else:
        changed.test = ast.UnaryOp(ast.Not(), changed.test)
    said = [ast.unparse(part).split("\n")[0][:70] for part in (before, changed)]
    return ast.fix_missing_locations(tree), before.lineno, " -> ".join(said)


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name, self._path, self._tree = name, path, tree

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        return importlib.util.spec_from_file_location(name, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self._tree, str(self._path), "exec"), module.__dict__)


def survives(mutant: Mutant, tests: list[str]) -> bool:
    """Whether all tests pass with the mutant in place of its file, in a process of their own."""
    tree, _, _ = mutate(mutant.path.read_text(encoding="utf-8"), mutant.number)
    if (child := os.fork()) == 0:
        os.setsid()
        os.environ.pop("PYTEST_CURRENT_TEST", None)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        name = ".".join(mutant.path.relative_to(CHECKOUT).with_suffix("").parts)
        sys.meta_path.insert(0, Finder(name, mutant.path, tree))
        for loaded in [one for one in sys.modules if one.split(".")[0] in ("bench", "tests", "methods")]:
            del sys.modules[loaded]
        import pytest

        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])))
    began = time.monotonic()
    while time.monotonic() - began < PATIENCE:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def main() -> int:
    """Try mutants until the time is over; prints the survivors and the share that was noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=str(__doc__).splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--room", choices=sorted(ROOMS), action="append")
    parser.add_argument("--note", type=Path, default=CHECKOUT / ".bench" / "mutants.json")
    given = parser.parse_args()
    for name in (
        "torch._inductor",
        "scipy.stats",
        "pandas",
        "h5py",
        "hdf5plugin",
        "pydantic",
        "pytest",
        "mlflow.tracking",
    ):
        importlib.import_module(name)  # what every child would import again
    every: dict[str, list[Mutant]] = {}
    for room in given.room or ROOMS:
        for path in sorted((CHECKOUT / "bench" / room).rglob("*.py")):
            count = len(list(changes(ast.parse(path.read_text(encoding="utf-8")))))
            every.setdefault(room, []).extend(Mutant(path, number) for number in range(count))
    given.note.parent.mkdir(parents=True, exist_ok=True)
    done: dict[str, Any] = json.loads(given.note.read_text()) if given.note.is_file() else {}
    began, draw = time.monotonic(), random.Random("mutants")
    orders = {room: draw.sample(found, len(found)) for room, found in every.items()}
    turn = 0
    while time.monotonic() - began < 60 * given.minutes:
        room = list(orders)[turn % len(orders)]
        turn += 1
        mutant = next(one for one in orders[room] if one.name not in done)
        _, line, what = mutate(mutant.path.read_text(encoding="utf-8"), mutant.number)
        tests = [
            f"tests/unit/test_{name}.py" for name in ROOMS[room] if (CHECKOUT / f"tests/unit/test_{name}.py").is_file()
        ]
        lives = survives(mutant, tests)
        done[mutant.name] = {"room": room, "line": line, "what": what, "survives": lives}
        given.note.write_text(json.dumps(done, indent=1))
        print(f"{'SURVIVES' if lives else 'noticed '} {mutant.name} line {line}: {what}", flush=True)
    for room in ROOMS:
        own = [one for one in done.values() if one["room"] == room]
        print(f"{room}: {sum(not one['survives'] for one in own)} of {len(own)} noticed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
