"""The papers' printed numbers: complete, in percent, and found for the variants they belong to."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import BenchError
from bench.home import data_folder
from bench.reports.published import family, load_paper, load_papers, published_value

MINIMAL: dict[str, Any] = {
    "paper": {"name": "p", "title": "T", "authors": ["A"], "year": 2020, "venue": "V", "arxiv": None},
    "tables": [
        {
            "id": "table1",
            "about": "comparison",
            "dataset": "toy",
            "split": "test",
            "rows": [
                {
                    "system": "S",
                    "own": True,
                    "role": "proposed",
                    "method": "m",
                    "variant_name": "m:v",
                    "variant": {},
                    "metrics": {"bleu4": 40.0, "cider": 120.5},
                }
            ],
        }
    ],
}


def changed(**row: Any) -> dict[str, Any]:
    paper = copy.deepcopy(MINIMAL)
    paper["tables"][0]["rows"][0] |= row
    return paper


def saved(folder: Path, paper: Any, name: str = "p.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(paper))
    return path


def test_the_five_papers_are_here_with_all_their_tables() -> None:
    papers = {item.paper.name: item for item in load_papers()}
    assert {name: (item.paper.year, len(item.tables)) for name, item in papers.items()} == {
        "etenet": (2019, 2),
        "glrg": (2022, 6),
        "hail": (2018, 6),
        "recnet": (2019, 9),
        "vre": (2019, 4),
    }
    assert {path.stem for path in data_folder("published").glob("*.yaml")} == set(papers)
    rows = [row for item in papers.values() for table in item.tables for row in table.rows]
    assert len(rows) == 189
    assert sum(len(row.metrics) for row in rows) == 607


@pytest.mark.parametrize(
    ("method", "variant", "dataset", "split", "citation", "cider"),
    [
        ("salstm", "xe", "msrvtt", "test", "recnet table1", 39.9),
        ("salstm", "xe", "msvd", "test", "recnet table3", 76.2),
        ("s2vt", "xe", "msvd", "test", "recnet table3", 66.7),
        ("recnet", "global", "msrvtt", "test", "recnet table1", 41.7),
        ("recnet", "local", "msrvtt", "test", "recnet table1", 42.7),
        ("recnet", "local", "msvd", "test", "recnet table3", 80.3),  # not the 78.9 of half the data
        ("recnet", "joint", "msvd", "test", "recnet table7", 81.8),
        ("salstm", "xe", "msrvtt", "val", "recnet table2", 41.5),
        ("recnet", "global", "msrvtt", "val", "recnet table2", 42.7),
        ("etenet", "step1", "msvd", "test", "etenet table1", 83.5),
        ("etenet", "step1", "msrvtt", "test", "etenet table2", 46.8),
        ("etenet", "step2", "msvd", "test", "etenet table1", 86.6),
        ("etenet", "step2", "msrvtt", "test", "etenet table2", 47.6),
        ("glrg", "xe", "msvd", "test", "glrg table1", 94.3),
        ("glrg", "dxe", "msrvtt", "test", "glrg table1", 55.0),
        ("hail", "ta_b1", "msrvtt", "test", "hail table1", 44.9),
        ("hail", "ha", "msvd", "test", "hail table1", 82.9),
        ("hail", "ha_il", "msvd", "test", "hail table2", 87.5),
        ("hail", "ha_il", "msrvtt", "test", "hail table5", 47.7),
    ],
)
def test_a_variant_finds_its_printed_result(
    method: str, variant: str, dataset: str, split: str, citation: str, cider: float
) -> None:
    found = published_value(method, variant, dataset, split)
    assert found is not None
    assert (found.citation, found.row.metrics["cider"]) == (citation, cider)
    assert found.row.role != "cited"


@pytest.mark.parametrize(
    ("name", "how", "citation", "cider"),
    [
        ("s2vt:xe", {"loss": "information"}, "hail table2", 73.2),
        ("salstm:xe", {"data_fraction": 0.5}, "recnet table4", 72.2),
        ("recnet:local", {"data_fraction": 0.5}, "recnet table4", 78.9),
    ],
)
def test_another_loss_or_half_of_the_clips_has_its_own_printed_result(
    name: str, how: dict[str, Any], citation: str, cider: float
) -> None:
    method, _, variant = name.partition(":")
    found = published_value(method, variant, "msvd", "test", **how)
    assert found is not None
    assert (found.citation, found.row.metrics["cider"]) == (citation, cider)


def test_events_were_scored_by_the_rules_of_densevid() -> None:
    found = published_value("recnet", "local", "activitynet", "val", scorer="densevid")
    assert found is not None
    assert (found.citation, found.row.metrics["cider"], found.table.splits) == ("recnet table5", 35.52, "paper")
    assert published_value("recnet", "local", "activitynet", "val") is None


def test_what_no_paper_prints_is_not_found() -> None:
    assert published_value("salstm", "xe", "msvd", "test", loss="information") is None
    assert published_value("salstm", "xe", "msvd", "test", data_fraction=0.25) is None
    assert published_value("mplstm", "xe", "msrvtt", "test") is None
    assert published_value("recnet", "local", "shapes", "test") is None
    assert published_value("recnet", "local", "msrvtt", "val") is None
    assert published_value("recnet", "local", "activitynet", "test", scorer="densevid") is None
    assert published_value("recnet", None, "msrvtt", "test") is None


def test_one_variant_is_printed_with_one_value_but_for_the_known_slip() -> None:
    printed: dict[tuple[object, ...], set[float]] = {}
    for paper in load_papers():
        for table in paper.tables:
            for row in table.rows:
                if row.variant_name:
                    made = (row.variant_name, row.loss, row.data_fraction, table.dataset, table.split)
                    if row.variant_name == "s2vt:xe":  # RecNet and HAIL each ran it again, on features of their own
                        made = (paper.paper.name, *made)
                    for metric, value in row.metrics.items():
                        printed.setdefault((*made, metric), set()).add(value)
    assert {place: values for place, values in printed.items() if len(values) > 1} == {
        ("recnet:local", None, 1.0, "msrvtt", "test", "cider"): {42.3, 42.7}
    }


def test_the_data_set_that_another_is_cut_from() -> None:
    """A definition says so: a data set of one's own that is called msvd2 is no part of MSVD."""
    names = ("msrvtt", "msrvtt1000", "msvd_glrg", "activitynet", "msvd2", "msvd_40", "shapes")
    assert [family(name) for name in names] == ["msrvtt", "msrvtt", "msvd", "activitynet", None, None, None]


def test_gains_are_counted_over_rows_that_were_run_on_the_same_metrics() -> None:
    pairs = [(table, row) for paper in load_papers() for table in paper.tables for row in table.rows if row.base]
    assert len(pairs) == 63
    for table, row in pairs:
        base = table.base_of(row)
        assert base is not None and base is not row
        assert base.own and row.own and base.metrics.keys() >= row.metrics.keys()


def test_a_sound_file_loads(tmp_path: Path) -> None:
    assert load_paper(saved(tmp_path, MINIMAL)).tables[0].rows[0].metrics["cider"] == 120.5


@pytest.mark.parametrize(
    ("paper", "words"),
    [
        (changed(metrics={"bleu4": 0.391}), "looks like the scale 0..1"),
        (changed(metrics={"cider": 0.427}), "looks like the scale 0..1"),
        (changed(metrics={"bleu4": 391.0}), "outside 0..100"),
        (changed(metrics={"cider": 4270.0}), "outside 0..1000"),
        (changed(metrics={"bleu4": -1.0}), "outside 0..100"),
        (changed(metrics={"bleu4": float("nan")}), "valid number"),
        (changed(metrics={"spice": 5.0}), "unknown metric"),
        (changed(role="ours"), "role"),
        (changed(variant_name="other:v"), "no variant of method 'm'"),
        (changed(remark="x"), "remark"),
        ({**MINIMAL, "tables": MINIMAL["tables"] * 2}, "same id: table1"),
        ({"tables": []}, "paper"),
        ("text", "p.yaml"),
    ],
)
def test_an_unsound_file_is_refused_by_name(tmp_path: Path, paper: Any, words: str) -> None:
    with pytest.raises(BenchError) as caught:
        load_paper(saved(tmp_path, paper))
    assert words in str(caught.value)
    assert "p.yaml" in str(caught.value)


def test_the_paper_that_proposes_comes_before_one_that_reruns(tmp_path: Path) -> None:
    saved(tmp_path, changed(role="baseline_rerun", metrics={"cider": 1.5}), "a.yaml")
    saved(tmp_path, MINIMAL, "b.yaml")
    found = published_value("m", "v", "toy", "test", tmp_path)
    assert found is not None
    assert found.row.metrics["cider"] == 120.5


def test_yaml_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("a: [")
    with pytest.raises(BenchError, match=r"p\.yaml: not YAML in line 1"):
        load_paper(tmp_path / "p.yaml")
