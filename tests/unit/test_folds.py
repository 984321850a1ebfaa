"""Folds: whole films, no film on two sides, and a row whose captions of all clips are scored together."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mlflow.tracking import MlflowClient
from pycocoevalcap.cider.cider import Cider

from bench import BenchError
from bench.cell.folds import score_rows
from bench.cell.inputs import gather
from bench.cli.main import main
from bench.data.check import check_dataset
from bench.data.corpus import films_in, load_corpus
from bench.data.source import Corpus
from bench.declare.dataset import DatasetDefinition
from bench.declare.registry import read_definition
from bench.evaluation.ptb import tokenize
from bench.figures.drawing import VALIDATION
from bench.home import Home
from bench.plan.cells import Cell
from bench.records.curves import CURVES
from bench.records.folds import read_folds, trained_in
from bench.records.schema import Record, cell_key
from bench.records.store import PREDICTIONS, RECORD, all_records, cell_folder, prediction_ids, read_predictions
from bench.reports.blocks import Row, blocks
from bench.reports.sections import _cost, _state
from bench.tracking.mlflow_views import VIEW
from bench.training.reinforce import CaptionReward, caption_weights

FOLDS = 3
WORDS = ["cat", "dog", "fox", "owl", "hen", "cow"]


def world(folder: Path, count: int = 12, **rule: Any) -> DatasetDefinition:
    """Two clips of each film, two captions a clip, and small frames."""
    clips = [(f"c{film}_{part}", f"film{film}") for film in range(count) for part in "ab"]
    lines = [
        {"clip": clip, "video": video, "captions": [f"a {WORDS[n % 6]} runs", f"the {WORDS[n % 5]} is here {n}"]}
        for n, (clip, video) in enumerate(clips)
    ]
    (folder / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "frames").mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for clip, _ in clips:
        np.save(folder / "frames" / f"{clip}.npy", random.normal(size=(3, 5)).astype("float32"))
    content = {
        "name": "films",
        "captions": [{"format": "jsonl", "files": {"captions": "captions.jsonl"}}],
        "splits": {"folds": FOLDS, "validation": 3, **rule},
        "streams": {"frames": {"source": "frames"}},
        "train": {"epochs": 1, "captions": 8, "captions_per_clip": 2},
        "model": {"width": 8, "embedding": 8, "attention": 8},
    }
    path = folder / "dataset.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return read_definition(path)


def corpora(definition: DatasetDefinition, **keys: Any) -> list[Corpus]:
    home = Home(definition.path.parent)
    return [load_corpus(definition, home, fold=fold, **keys) for fold in range(FOLDS)]


def test_no_film_is_in_two_folds_or_on_two_sides_of_one(tmp_path: Path) -> None:
    dealt = corpora(world(tmp_path))
    tested = [{corpus.clips[clip].video for clip in corpus.splits["test"]} for corpus in dealt]
    assert sum(map(len, tested)) == len(set.union(*tested)) == 12
    for corpus in dealt:
        train, val, test = ({corpus.clips[clip].video for clip in corpus.splits[part]} for part in corpus.splits)
        assert not train & val and not train & test and not val & test
        assert len(corpus.splits["val"]) == 4  # whole films: at least three clips
        assert sum(len(ids) for ids in corpus.splits.values()) == 24
    assert len({corpus.splits["val"] for corpus in dealt}) == FOLDS


def test_the_deal_hangs_on_the_seed_and_not_on_the_order_of_the_file(tmp_path: Path) -> None:
    definition = world(tmp_path)
    before = [corpus.splits for corpus in corpora(definition)]
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(reversed(path.read_text("utf-8").splitlines(keepends=True))), encoding="utf-8")
    assert [corpus.splits for corpus in corpora(definition)] == before
    assert [corpus.splits for corpus in corpora(world(tmp_path, seed=1))] != before


def test_all_folds_together_are_every_clip_once(tmp_path: Path) -> None:
    definition = world(tmp_path)
    together = load_corpus(definition, Home(tmp_path)).splits
    assert sorted(together["test"]) == sorted(clip for one in corpora(definition) for clip in one.splits["test"])
    assert not together["train"] and not together["val"]
    few = {"subset": (6, 3, 2)}
    first = load_corpus(definition, Home(tmp_path), **few).splits
    dealt = corpora(definition, **few)
    assert sorted(first["test"]) == sorted(clip for one in dealt for clip in one.splits["test"])
    assert len(first["test"]) == 2 * FOLDS and not first["train"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"folds": 13}, "splits.folds is 13, but its 24 clips come from 12 films.*at most 12"),
        ({"validation": 17}, "fold 0 would be without its validation clips.*ask for fewer"),
        ({"validation": 16}, "fold 0 would be without clips to train on.*ask for fewer"),
        ({"films": "nowhere.txt"}, "films of its folds are not at .*nowhere.txt"),
    ],
)
def test_folds_that_cannot_be_dealt(tmp_path: Path, rule: dict[str, Any], words: str) -> None:
    with pytest.raises(BenchError, match=words):
        load_corpus(world(tmp_path, **rule), Home(tmp_path), fold=0)


def test_a_seed_without_a_fold_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world(tmp_path)
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    assert main(["plan", "methods=salstm", f"dataset={tmp_path / 'dataset.yaml'}", "seeds=[0,3]"]) == 2
    assert "seed 3 has no fold" in capsys.readouterr().err


def test_films_are_read_from_msvds_mapping(tmp_path: Path) -> None:
    (tmp_path / "map.txt").write_text("xx_1_5_9 vid1\nxx_1_20_30 vid2\nother_2_3 vid3\nlast_0_1 vid4\n", "utf-8")
    for split, clips in (("train", (1, 2)), ("val", (3,)), ("test", (4,))):
        lines = [f"vid{n}\ta thing number {n}\n" for n in clips]
        (tmp_path / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    files = {split: f"{split}.txt" for split in ("train", "val", "test")}
    content = {"name": "msvd", "captions": [{"format": "msvd_split", "files": files}]}
    content["splits"] = {"folds": 3, "validation": 1, "films": "map.txt"}
    path = tmp_path / "dataset.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    films = films_in({"dataset": "msvd", "dataset_path": str(path), "splits": "default"}, Home(tmp_path))
    assert films == {"vid1": "xx_1", "vid2": "xx_1", "vid3": "other", "vid4": "last"}


@pytest.mark.parametrize("count", ["vid{}", "clip-{}"])
def test_films_of_other_corpora_are_read_as_they_are_written(tmp_path: Path, count: str) -> None:
    """Counted from 0 here and there: renumbered, every film would lose a clip to the next."""
    clips = [count.format(number) for number in range(8)]
    text = "".join(json.dumps({"clip": clip, "caption": f"a thing, {clip}"}) + "\n" for clip in clips)
    (tmp_path / "captions.jsonl").write_text(text, "utf-8")
    lines = [f"film_{number // 2}_{number}.5_{number + 1} {clip}\n" for number, clip in enumerate(clips)]
    films = tmp_path / "films.txt"
    films.write_text("".join(lines), "utf-8")
    content = {"name": "own", "captions": [{"format": "jsonl", "files": {"captions": "captions.jsonl"}}]}
    content["splits"] = {"folds": 3, "validation": 1, "films": "films.txt"}
    path = tmp_path / "dataset.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    found = films_in({"dataset": "own", "dataset_path": str(path), "splits": "default"}, Home(tmp_path))
    assert found == {clip: f"film_{number // 2}" for number, clip in enumerate(clips)}
    for text, words in (
        ("".join(lines[2:]), f"names no film of 2 clips \\({clips[0]}, {clips[1]}\\): add a line"),
        (
            lines[0] + f"other_1_2 {clips[0]}\n",
            f"line 2 says that clip {clips[0]} is of other, an earlier line of film_0",
        ),
        (f"film {clips[0]}\n", "line 1 reads .* expected `<film>_<start>_<end> <clip>`"),
    ):
        films.write_text(text, "utf-8")
        with pytest.raises(BenchError, match=words):
            load_corpus(read_definition(path), Home(tmp_path), fold=0)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> tuple[Home, DatasetDefinition]:
    folder = tmp_path_factory.mktemp("folds")
    (folder / ".bench").mkdir()
    shutil.copyfile(mlflow_database, folder / ".bench" / "mlflow.db")
    definition = world(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_HOME", str(folder))
        words = ["methods=salstm", f"dataset={folder / 'dataset.yaml'}", "executor=inline"]
        for seeds in ("[0,1]", "[2]"):  # the row comes with the last of its cells
            assert not any("cells" in record.config for record in all_records(folder / "results"))
            assert main(["run", *words, f"seeds={seeds}"]) == 0
    return Home(folder), definition


def _row(home: Home) -> tuple[Record, list[Record]]:
    records = all_records(home.results)
    (row,) = [record for record in records if "cells" in record.config]
    return row, sorted((one for one in records if one is not row), key=lambda record: record.seed)


def test_a_row_of_folds_has_the_captions_of_all_its_cells(ran: tuple[Home, DatasetDefinition]) -> None:
    home, definition = ran
    row, cells = _row(home)
    assert row.config["cells"] == [cell.key for cell in cells] and row.key == cell_key(row.config)
    ids = load_corpus(definition, home).splits["test"]
    together = read_predictions(cell_folder(home.results, row) / PREDICTIONS, ids)
    fold_of = read_folds(cell_folder(home.results, row))
    for fold, cell in enumerate(cells):
        own = [clip for clip in ids if fold_of[clip][0] == fold]
        assert read_predictions(cell_folder(home.results, cell) / PREDICTIONS, own) == {c: together[c] for c in own}
        assert {fold_of[clip][1] for clip in own}.isdisjoint(film for f, film in fold_of.values() if f != fold)
        assert cell.signatures["test"]["cider"].endswith(f"|fold:{fold}/{FOLDS}")
    assert row.signatures["test"]["cider"].endswith(f"|n:24|scale:100|folds:{FOLDS}")


def test_checking_a_data_set_tells_its_films(tmp_path: Path) -> None:
    checked = check_dataset(world(tmp_path), Home(tmp_path))
    assert "splits: 3 folds of whole films (12 films), the first with train 12, val 4, test 8 clips" in checked.facts


def test_the_curve_of_a_row_is_the_mean_of_its_cells_as_far_as_all_go(
    ran: tuple[Home, DatasetDefinition], tmp_path: Path
) -> None:
    home, _ = ran
    row, cells = _row(home)
    folders = [cell_folder(home.results, cell) for cell in cells]
    assert trained_in(home.results, row) == folders and trained_in(home.results, cells[1]) == folders[1:2]
    moved = Home(tmp_path)
    shutil.copytree(home.results, moved.results)
    rows = ["phase,epoch,captions,seconds,name,value\n"]
    for number, cell in enumerate(cells):  # folds have passes of other lengths, and end at other times
        epochs_of = [
            f"xe,{n},{(n + 1) * (40 + number)},1.0,{VALIDATION},{10 * n + number}\n" for n in range(3 + number)
        ]
        (cell_folder(moved.results, cell) / CURVES).write_text("".join([*rows, *epochs_of]), encoding="utf-8")
    (drawn,) = [_cost(one, moved) for block in blocks([row, *cells]) for one in block.rows]
    assert drawn.curve == ((41, 1), (82, 11), (123, 21))


def test_trackers_have_the_row_too(ran: tuple[Home, DatasetDefinition]) -> None:
    home, _ = ran
    row, cells = _row(home)
    client = MlflowClient(home.mlflow_uri)
    (experiment,) = client.search_experiments(filter_string="name = 'bench/films'")
    runs = client.search_runs([experiment.experiment_id])
    kinds = {}
    for run in runs:
        label = run.data.params["label"]
        kinds[run.data.tags["bench.key"]] = run.data.tags["bench.kind"], run.info.run_name.removeprefix(f"{label} ")
    assert kinds == {row.key: ("folds", "all folds")} | {
        cell.key: ("cell", f"s{fold}") for fold, cell in enumerate(cells)
    }
    (own,) = [run.info.run_id for run in runs if run.data.tags["bench.key"] == row.key]
    seen = {}
    for name in ("papers", "runs", "folds", "captions"):
        view = json.loads(experiment.tags[VIEW + name])
        seen[name] = json.loads(view["state"])["searchFilter"]
    assert seen == {
        "papers": "tags.`bench.kind` = 'cell'",  # a mean over folds has no row of all folds in it
        "runs": "tags.`bench.kind` = 'cell'",
        "folds": "tags.`bench.kind` = 'folds'",
        "captions": f"attributes.run_id IN ('{own}')",  # of all clips
    }


def test_the_score_of_a_row_is_that_of_the_coco_code_on_all_clips(ran: tuple[Home, DatasetDefinition]) -> None:
    home, definition = ran
    row, _ = _row(home)
    corpus = load_corpus(definition, home)
    ids = corpus.splits["test"]
    said = read_predictions(cell_folder(home.results, row) / PREDICTIONS, ids)
    references = {clip: tokenize([caption.text for caption in corpus.captions[clip]]) for clip in ids}
    spoken = dict(zip(ids, ([line] for line in tokenize([said[clip] for clip in ids])), strict=True))
    score, _ = Cider().compute_score(references, spoken)
    assert row.scores["test"]["cider"] == pytest.approx(100 * score, abs=1e-6)


def test_nothing_that_a_fold_learns_from_knows_of_its_other_clips(
    ran: tuple[Home, DatasetDefinition], tmp_path: Path
) -> None:
    """Vocabulary, references, document frequencies of rewards and weights of captions, where all others say something else."""
    home, definition = ran
    _, cells = _row(home)
    moved = Home(tmp_path)
    shutil.copytree(home.root, tmp_path, dirs_exist_ok=True)
    lines = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text("utf-8").splitlines()]

    def learned(cell: Record, place: Home) -> tuple[Any, ...]:
        config = {**cell.config, "dataset_path": str(place.root / "dataset.yaml")}
        clips = gather(config, place, lambda captions: None).train
        reward = CaptionReward.of_clips(clips)
        said = [reference.tokens for reference in clips.references(clips.ids[0])]
        scores = reward._scorers[0]([clips.ids[0]] * len(said), said)
        words = {clip: [one.words for one in clips.references(clip)] for clip in clips.ids}
        return clips.vocabulary.words, words, caption_weights(clips, "cider"), scores.tolist()

    for cell in cells:
        before = learned(cell, home)
        assert min(before[-1]) > 0
        assert cell.vocabulary is not None and cell.vocabulary.size == len(before[0])
        own = load_corpus(definition, home, fold=cell.seed).splits["train"]
        others = [{**line, "captions": ["a cat runs", "a zebra sleeps"]} for line in lines]
        kept = [line if line["clip"] in own else other for line, other in zip(lines, others, strict=True)]
        (tmp_path / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        assert learned(cell, moved) == before
        (tmp_path / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in others), encoding="utf-8")
        assert learned(cell, moved) != before


def test_a_table_has_the_row_and_not_its_folds(ran: tuple[Home, DatasetDefinition]) -> None:
    home, _ = ran
    row, cells = _row(home)
    (table,) = blocks([row, *cells])
    assert [record.key for one in table.rows for record in one.records] == [row.key]
    capped = row.model_copy(update={"endings": {"xe": "capped"}})
    assert "capped in a fold or more" in str(_state(Row((capped,)), table))
    page = (home.leaderboards / "films.md").read_text(encoding="utf-8")
    assert f"Ranked by CIDEr of the clips of all {FOLDS} folds." in page and "over seed 0" not in page
    failed = cells[1].model_copy(update={"state": "failed", "scores": {}, "signatures": {}})
    tables = blocks([cells[0], failed, cells[2]])
    assert [record.key for table in tables for one in table.rows for record in one.records] == [failed.key]


def test_a_row_of_folds_is_not_compared_with_one_of_other_clips(
    ran: tuple[Home, DatasetDefinition], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home, _ = ran
    row, cells = _row(home)
    monkeypatch.setenv("BENCH_HOME", str(home.root))
    assert main(["compare", row.key, cells[0].key]) == 2
    assert "were not scored alike" in capsys.readouterr().err


def test_a_row_is_made_anew_where_a_cell_was_and_says_what_its_cells_have_in_common(
    ran: tuple[Home, DatasetDefinition], tmp_path: Path
) -> None:
    home = Home(tmp_path)
    shutil.copytree(ran[0].results, home.results)
    for name in ("dataset.yaml", "captions.jsonl", "frames"):
        source = ran[0].root / name
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, tmp_path / name)
    row, records = _row(home)
    its = [Cell({**record.config, "dataset_path": str(tmp_path / "dataset.yaml")}) for record in records]
    assert row.provenance is not None and row.ledger is not None
    assert row.provenance.cpu == records[0].provenance.cpu and row.provenance.device == "cpu"  # type: ignore[union-attr]
    assert row.provenance.started == min(one.provenance.started for one in records)  # type: ignore[union-attr, type-var]
    assert score_rows(its, home) == (False, [])
    path = cell_folder(home.results, records[1]) / PREDICTIONS
    path.write_text(re.sub(r'"caption": "[^"]*"', '"caption": "an owl"', path.read_text()), encoding="utf-8")
    for number, record in enumerate(records):
        made = json.loads((cell_folder(home.results, record) / RECORD).read_text(encoding="utf-8"))
        made["provenance"] |= {"device": "cuda:0", "gpu_share": 0.5, "gpu": "K80" if number else "H100"}
        (cell_folder(home.results, record) / RECORD).write_text(json.dumps(made), encoding="utf-8")

    def no_java(*_: Any) -> None:
        raise RuntimeError("no Java")

    written, told = score_rows(its, home, no_java)
    assert written and "not scored: RuntimeError: no Java" in told[0]
    assert score_rows(its, home) == (True, [])
    again, _ = _row(home)
    ids = [clip for clip, (fold, _) in read_folds(cell_folder(home.results, again)).items() if fold == 1]
    whole = cell_folder(home.results, again) / PREDICTIONS
    captions = read_predictions(whole, prediction_ids(whole))
    assert again.provenance is not None and again.ledger is not None
    assert (again.provenance.device, again.provenance.gpu) == ("cuda:0", None), "not all have one GPU"
    assert again.ledger.captions == row.ledger.captions and again.ledger.fit_seconds is None, "times of half a GPU"
    assert ids and {captions[clip] for clip in ids} == {"an owl"}
    before = whole.read_bytes()
    path.write_text("".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    written, told = score_rows(its, home)
    assert written and f"not scored: {path}: 1 missing (" in told[0] and "remove that folder" in told[0]
    assert whole.read_bytes() == before
