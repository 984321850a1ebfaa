"""A metric is a row of `bench/evaluation/metrics.py` and a file beside it: nothing else is touched, and it is everywhere."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from meteor_jar import small_jar

from bench.evaluation import metrics
from bench.evaluation.metrics import METRICS, PARTS, TOP, made_of
from bench.evaluation.statistics import clip_scores, corpus_scores, counting

ROWS = """
    Metric("overlap", "OV", "Overlap", Part("overlap", "bench.evaluation.overlap"), version="toy-1", shown=True),
    Metric("fullness", "FUL", "Fullness", Part("fullness", "bench.evaluation.fullness", ("said", "meant")), version="toy-1"),
)

METRICS = {"""
OVERLAP = '''
"""The share of a caption's words that some reference of its clip has; of a corpus the mean."""
import numpy as np
from bench.evaluation.statistics import Counting

def read(references):
    known = {clip: set(" ".join(lines).split()) for clip, lines in references.lines.items()}
    return lambda ids, lines: np.array(
        [np.mean([word in known[clip] for word in line.split()]) for clip, line in zip(ids, lines)]
    )

COUNTING = Counting(read)
'''
FULLNESS = '''
"""Words of the captions over those of their first references, of a corpus by the sums of both; at most 1."""
import numpy as np
from bench.evaluation.statistics import Counting

def read(references):
    return lambda ids, lines: np.array(
        [[len(line.split()), len(references.lines[clip][0].split())] for clip, line in zip(ids, lines)], float
    )

COUNTING = Counting(read, lambda sums: np.minimum(sums[..., :1] / sums[..., 1:], 1.0))
'''
COMMANDS = """
import sys
import bench.evaluation
bench.evaluation.__path__.insert(0, sys.argv[1])
from pathlib import Path
from bench.cli.main import main
from bench.evaluation import meteor
meteor.find_jar = lambda *_: Path(sys.argv[2])
dataset = f"dataset={sys.argv[3]}"
for words in (["evaluate", "one.json", dataset], ["evaluate", "other.json", dataset], ["export", "csv"],
              ["compare", "external:one", "external:other", dataset]):
    print("$", *words[:2])
    assert main(words) == 0, words
"""
REFERENCES = {"a": "a dog runs", "b": "a cat sleeps here", "c": "two birds fly", "d": "a man"}
ONE = {"a": "a dog", "b": "a cow sleeps", "c": "two birds", "d": "a man"}
OTHER = {"a": "a dog runs", "b": "the cow", "c": "one fish", "d": "a man"}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """(folder, output) of commands on captions of four clips, by a bench whose table has two rows more."""
    folder = tmp_path_factory.mktemp("metric")
    (folder / "new").mkdir()
    table = Path(metrics.__file__).read_text(encoding="utf-8")
    assert table.count(")\n\nMETRICS = {") == 1
    (folder / "new" / "metrics.py").write_text(table.replace(")\n\nMETRICS = {", ROWS.lstrip("\n")))
    (folder / "new" / "overlap.py").write_text(OVERLAP)
    (folder / "new" / "fullness.py").write_text(FULLNESS)
    captions = [{"clip": clip, "caption": text} for clip, text in (REFERENCES | {"t": "x y", "v": "z"}).items()]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, captions)))
    for part, ids in (("train", "t"), ("val", "v"), ("test", "a\nb\nc\nd")):
        (folder / f"{part}.txt").write_text(ids)
    (folder / "toy.yaml").write_text(
        "name: toy\ncaptions: [{format: jsonl, files: {captions: captions.jsonl}}]\n"
        "splits: {train: train.txt, val: val.txt, test: test.txt}\n"
    )
    for name, said in (("one", ONE), ("other", OTHER)):
        (folder / f"{name}.json").write_text(json.dumps(said))
    jar = small_jar(folder / "jar")
    environment = {name: value for name, value in os.environ.items() if name not in ("BENCH_DATA", "BENCH_CACHE")}
    ended = subprocess.run(
        [sys.executable, "-c", COMMANDS, folder / "new", jar, folder / "toy.yaml"],
        cwd=folder,
        env=environment | {"BENCH_HOME": str(folder), "COLUMNS": "140"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout


def test_a_new_metric_is_scored_and_recorded(scored: tuple[Path, str]) -> None:
    records = [json.loads(path.read_text()) for path in scored[0].glob("results/toy/external/*/record.json")]
    scores = {record["config"]["variant"]: record["scores"]["test"] for record in records}
    assert scores["one"]["overlap"] == pytest.approx(100 * (1 + 2 / 3 + 1 + 1) / 4)
    assert scores["one"]["fullness"] == pytest.approx(100 * (2 + 3 + 2 + 2) / (3 + 4 + 3 + 2))
    assert scores["other"]["overlap"] == pytest.approx(100 * (1 + 0 + 0 + 1) / 4)
    assert all(record["signatures"]["test"]["fullness"].startswith("Fullness|impl:toy-1|") for record in records)
    assert set(scores["one"]) == {*METRICS, "overlap", "fullness"}


def test_a_new_metric_is_written_clip_by_clip(scored: tuple[Path, str]) -> None:
    for path in scored[0].glob("results/toy/external/*"):
        name = json.loads((path / "record.json").read_text())["config"]["variant"]
        with (path / "clip_scores.csv").open(newline="") as file:
            shares = {row["clip"]: float(row["overlap"]) for row in csv.DictReader(file)}
        wanted = {"one": [1, 2 / 3, 1, 1], "other": [1, 0, 0, 1]}[name]
        assert list(shares.values()) == pytest.approx([100 * share for share in wanted], abs=1e-6)


def test_a_new_metric_is_exported_compared_and_stands_on_the_page(scored: tuple[Path, str]) -> None:
    exported, compared = scored[1].split("$ export csv\n")[1].split("$ compare external:one\n")
    rows = {row["variant"]: row for row in csv.DictReader(exported.splitlines())}
    assert float(rows["other"]["overlap"]) == 50.0 and float(rows["one"]["fullness"]) == 75.0
    for name, difference in (("Overlap", "+41.67"), ("Fullness", "+0.00")):
        (line,) = [line for line in compared.splitlines() if line.startswith(name)]
        assert difference in line and " .. " in line, "the clips are drawn again for it"
    page = (scored[0] / "leaderboards" / "toy.md").read_text()
    (head,) = [line.replace("|", " ").split() for line in page.splitlines() if " B@4 " in line]
    assert "OV" in head and "FUL" not in head and "91.67 (1)" in page


def test_the_table_agrees_with_what_the_files_count() -> None:
    random_ = np.random.default_rng(0)
    for part, row in PARTS.items():
        rows = random_.integers(1, 9, (5, len(row.columns) or 1)).astype(float)
        rows = rows if row.columns else rows[:, 0]
        assert clip_scores(part, rows).shape == (5, len(made_of(part)))
        assert corpus_scores(part, rows).shape == (len(made_of(part)),)
        assert (counting(part).score is None) == (not row.columns)
    assert [metric for part in PARTS for metric in made_of(part)] == list(METRICS)
    names = [*METRICS, *(column for part in PARTS.values() for column in part.columns)]
    assert len(set(names)) == len(names), "they are columns of one file"
    assert list(TOP) == [*METRICS, *(f"densevid_{name}" for name in METRICS)]
