"""`bench reproduce` as a user meets it without data: a printed table made in small, by real training on rendered clips."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import bench.declare.registry
from bench.cli.main import main
from bench.home import Home, data_folder
from bench.records.store import all_records
from bench.reproduction import edition as request

TINY = request.Scale(
    "shapes", (8, 3, 4), {"epochs": 2, "captions": 32}, {"width": 12, "embedding": 12, "attention": 12}
)

Bench = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    """Run a command here, where `shapes` has fifteen clips and `scale=small` takes them all."""
    shelf = home / "shelf"
    (shelf / "shapes").mkdir(parents=True, exist_ok=True)
    shapes = (data_folder("datasets") / "shapes" / "dataset.yaml").read_text(encoding="utf-8")
    (shelf / "shapes" / "dataset.yaml").write_text(
        re.sub(r"size: \[.*?\]", "size: [8, 3, 4]", shapes), encoding="utf-8"
    )
    monkeypatch.setattr(
        bench.declare.registry, "data_folder", lambda kind: shelf if kind == "datasets" else data_folder(kind)
    )
    monkeypatch.setattr(request, "SMALL", TINY)
    monkeypatch.setenv("BENCH_HOME", str(home))

    def command(*words: str) -> tuple[int, str]:
        status = main(words)
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return command


SMALL = ("scale=small", "executor=inline", "mlflow=off")


def test_a_table_is_made_in_small(run: Bench, home: Path) -> None:
    status, out = run("reproduce", "recnet/table6", *SMALL)
    assert status == 0, out
    records = {record.variant: record for record in all_records(Home(home).results)}
    assert set(records) == {"xe", "local", "local_transposed"}
    page = (home / "leaderboards/reproductions/recnet/table6.md").read_text(encoding="utf-8")
    assert page.index("Made in small.") < page.index("## 1. In small: shapes")
    for variant, printed in (("xe", "39.9"), ("local", "42.7"), ("local_transposed", "40.4")):
        record = records[variant]
        assert record.ledger is not None and record.ledger.captions >= 300, "it did train"
        assert record.config["subset"] == [8, 3, 4]
        (line,) = [line for line in page.splitlines() if record.key in line]
        ours = record.scores["test"]["cider"]
        cells = [cell.strip() for cell in line.split("|")]
        assert cells[4] == f"{ours:.2f} (1)"
        assert printed not in cells, "scores of other clips do not stand beside printed ones"
        assert f"{ours - float(printed):+.2f}" not in cells, "numbers of other clips are not subtracted"
    base, local = (records[name].scores["test"]["cider"] for name in ("xe", "local"))
    (line,) = [line for line in page.splitlines() if records["local"].key in line]
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[3:7] == ["salstm:xe", f"{local:.2f} (1)", "+2.80", f"{local - base:+.2f}"]


def test_a_second_time_nothing_is_trained_and_other_targets_use_what_is_there(run: Bench, home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in home.glob("results/*/*/*/record.json")}
    assert len(before) == 3
    status, out = run("reproduce", "recnet/table6", *SMALL)
    assert status == 0
    assert out.count("done before") == 4  # three rows and their sum
    status, out = run("reproduce", "recnet/fig7", *SMALL)
    assert status == 0, out
    assert {path: path.stat().st_mtime_ns for path in home.glob("results/*/*/*/record.json")} == before
    pictures = list((home / "leaderboards/reproductions/recnet/figures/fig7/small").glob("*.svg"))
    assert pictures
    page = (home / "leaderboards/reproductions/recnet/fig7.md").read_text(encoding="utf-8")
    assert all(f"(figures/fig7/small/{picture.name})" in page for picture in pictures)
    assert re.search(r"^recnet/table6 .* 3 done$", run("reproduce", "list")[1], re.M)


def test_pages_are_made_again_from_what_is_committed(run: Bench, home: Path) -> None:
    """Caches, checkpoints and work folders may be gone, as in a fresh checkout: pages and pictures come out byte by byte."""
    place = home / "leaderboards"
    before = {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert len(before) >= 6
    for path in (home / ".bench", place, *home.glob("results/*/*/*/work")):
        shutil.rmtree(path)
    for path in home.glob("results/**/checkpoint.safetensors"):
        path.unlink()
    assert run("leaderboard", "--check")[0] == 1
    assert not place.exists(), "--check writes nothing"
    assert run("leaderboard")[0] == 0
    assert {path.relative_to(place): path.read_bytes() for path in place.rglob("*") if path.is_file()} == before
    assert run("leaderboard", "--check")[0] == 0
    picture = next(place.rglob("*.svg"))
    picture.write_text(picture.read_text(encoding="utf-8") + "<!-- another library -->\n", encoding="utf-8")
    assert run("leaderboard", "--check")[0] == 0
    picture.unlink()
    status, out = run("leaderboard", "--check")
    assert (status, f"{picture.name} is not" in out) == (1, True)
    path = next(home.glob("results/shapes/recnet/*/record.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"state": "unscored", "scores": {}, "signatures": {}}))
    status, out = run("leaderboard", "--check")
    assert status == 1
    assert "table6.md is not what the records say" in out
