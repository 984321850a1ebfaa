"""`from bench import api`: the commands from Python; the notebook that shows it is executed, cell by cell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import BenchError, api

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "python.ipynb"


def test_import_bench_stays_light() -> None:
    code = "import sys, bench; print({'torch', 'pandas', 'pydantic', 'yaml', 'numpy'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr


def test_the_notebook_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells in their order in one process, the last line of each printed as Jupyter would show it."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(sources) >= 5
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code"), "outputs are not kept"
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    (tmp_path / "cells.json").write_text(json.dumps(sources))
    runner = """
import ast, json, pandas, sys
pandas.set_option("display.max_columns", None, "display.width", None)
space = {"__name__": "__main__"}
for number, source in enumerate(json.load(open(sys.argv[1]))):
    tree = ast.parse(source)
    last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, f"cell {number}", "exec"), space)
    if last is not None:
        print(f"[{number}]", eval(compile(last, f"cell {number}", "eval"), space))
"""
    done = subprocess.run(
        [sys.executable, "-c", runner, str(tmp_path / "cells.json")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout
    assert "salstm" in said and "missing" in said
    assert "'cider': (" in said
    assert 'did you mean "train.epochs"?' in said
    table = api.records("shapes")
    assert sorted(zip(table["method"], table["state"], strict=True)) == [("mplstm", "done"), ("salstm", "done")]
    assert set(table["config.train.epochs"]) == {1}
    assert table["cider"].notna().all()


def test_arguments_are_the_words_of_the_command_line() -> None:
    asked = {
        "methods": ["salstm", "recnet:local"],
        "subset": (3, 1, 1),
        "recnet": {"lambda": 0.2},
        "train": {"budget": "converged"},
    }
    assert api.words(asked | {"mlflow": None, "dataset": Path("my/set.yaml"), "reuse": False}) == [
        'methods=["salstm", "recnet:local"]',
        "subset=[3, 1, 1]",
        "recnet.lambda=0.2",
        "train.budget=converged",
        "dataset=my/set.yaml",
        "reuse=false",
    ]
    with pytest.raises(BenchError, match=r"methods is .*: give text, numbers, lists"):
        api.words({"methods": object()})


def test_mistakes_are_the_sentences_of_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    with pytest.raises(BenchError, match=r'unknown method "salstn".*did you mean "salstm"'):
        api.plan(methods="salstn", dataset="shapes")
    with pytest.raises(BenchError, match=r"no row or record|there are no records"):
        api.compare("salstm", "recnet", dataset="shapes")
    assert api.records().empty
