"""A wheel, outside any checkout: the data sets and the published numbers lie inside it, results go to the current folder."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked into a folder of its own; packages it depends on come from this environment."""
    place = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (wheel,) = place.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(place / "site")
    return place / "site"


def bench(site: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BENCH_")}
    environment["PYTHONPATH"] = str(site)
    code = "import sys, bench.cli.main; print(bench.__file__, file=sys.stderr); sys.exit(bench.cli.main.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_lists_methods_and_data_sets(site: Path, tmp_path: Path) -> None:
    done = bench(site, tmp_path, "list")
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stderr, "the wheel must be what was run"
    for name in ("recnet", "etenet", "glrg", "shapes", "msvd", "activitynet"):
        assert name in done.stdout


def test_plans_and_leads_the_home_to_the_current_folder(site: Path, tmp_path: Path) -> None:
    (tmp_path / "bench.toml").touch()
    below = tmp_path / "below"
    below.mkdir()
    done = bench(site, below, "plan", "methods=salstm", "dataset=shapes")
    assert done.returncode == 0, done.stderr
    assert "missing" in done.stdout
    assert not (site / "results").exists() and not (site / ".bench").exists(), "nothing is written beside the package"


def test_published_numbers_are_inside(site: Path) -> None:
    assert len(list((site / "bench" / "_data" / "published").glob("*.yaml"))) == 5
    assert not (site / "datasets").exists(), "`datasets` is data, never an importable package"
