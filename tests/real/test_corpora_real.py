"""The committed data sets over the real annotation files: counts, splits and words as published."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from bench import BenchError
from bench.data.check import check_dataset
from bench.data.corpus import corpus_of, films_in, load_corpus
from bench.data.source import Corpus
from bench.data.text import build_vocabulary, tokenize_all
from bench.declare.dataset import DatasetDefinition
from bench.declare.registry import dataset, read_definition
from bench.home import Home

pytestmark = pytest.mark.real


@pytest.fixture
def home(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("BENCH_DATA", str(real_data))
    return Home(tmp_path)


def sizes(corpus: Corpus) -> dict[str, tuple[int, int]]:
    """Clips and captions of each split."""
    return {split: (len(ids), sum(len(corpus.captions[clip]) for clip in ids)) for split, ids in corpus.splits.items()}


def words(corpus: Corpus, tokenizer: str, min_count: int) -> int:
    """Words of the training vocabulary, without the special marks."""
    texts = [caption.text for clip in corpus.splits["train"] for caption in corpus.captions[clip]]
    return len(build_vocabulary(tokenize_all(texts, tokenizer), min_count)) - 4


def test_msvd_split_files(home: Home) -> None:
    corpus = load_corpus(dataset("msvd"), home)
    assert sizes(corpus) == {"train": (1200, 48774), "val": (100, 4290), "test": (670, 27763)}
    assert corpus.notes == ()
    assert corpus.find("bQJQGoJF7_k_162_169") == "vid1201"
    assert [words(corpus, "strip", count) for count in range(1, 6)] == [9462, 5292, 4061, 3414, 2969]


def test_msvd_names_are_numbered_by_their_rank(home: Home, real_data: Path) -> None:
    # This is what lets a complete file be read without the mapping.
    lines = (real_data / "msvd" / "youtube_mapping.txt").read_text().split()
    names, ids = lines[::2], lines[1::2]
    assert [ids[names.index(name)] for name in sorted(names)[:50]] == [f"vid{rank}" for rank in range(1, 51)]
    assert sorted(names) == names


def test_msvd_table_of_the_validation_clips(home: Home, real_data: Path, tmp_path: Path) -> None:
    definition = _table(real_data, tmp_path, {"all": {"clips": 100, "captions": 4291}})
    corpus = load_corpus(definition, home)
    every = [caption for captions in corpus.captions.values() for caption in captions]
    assert len(every) == 4291, "one more than the split file: rows with line breaks stay one caption"
    assert all("\n" not in caption.text and "\r" not in caption.text for caption in every)
    by_file = load_corpus(dataset("msvd"), home)
    more = [clip for clip in corpus.clips if len(corpus.captions[clip]) != len(by_file.captions[clip])]
    assert more == ["vid1212"]


def test_msvd_table_of_the_whole_corpus_is_missed_by_number(home: Home, real_data: Path, tmp_path: Path) -> None:
    definition = _table(real_data, tmp_path, {"all": {"clips": 1970, "captions": 80838}})
    with pytest.raises(BenchError, match=r"all has 100 clips, 1,970 were published: 1,870 missing"):
        load_corpus(definition, home)


def _table(real_data: Path, folder: Path, counts: dict[str, dict[str, int]]) -> DatasetDefinition:
    files = {"captions": "corpus_val_original_case.csv", "mapping": "youtube_mapping.txt"}
    source = {
        "format": "msvd_csv",
        "files": {role: str(real_data / "msvd" / name) for role, name in files.items()},
        "counts": counts,
    }
    content = {"name": "table", "captions": [source], "splits": {"first": [80, 10, 10]}}
    (folder / "table.yaml").write_text(yaml.safe_dump(content))
    return read_definition(folder / "table.yaml")


def test_msrvtt(home: Home) -> None:
    started = time.process_time()
    corpus = load_corpus(dataset("msrvtt"), home)
    assert time.process_time() - started < 6, "one or two seconds on an idle core"
    assert sizes(corpus) == {"train": (6513, 130260), "val": (497, 9940), "test": (2990, 59800)}
    assert corpus.captions["video2960"][0].id == "sen0"
    vre = load_corpus(dataset("msrvtt"), home, splits="vre")
    assert sizes(vre) == {"train": (6512, 130240), "val": (498, 9960), "test": (2990, 59800)}


def test_activitynet(home: Home) -> None:
    corpus = load_corpus(dataset("activitynet"), home)
    # 37,421 training events were published; two of them have no length.
    assert sizes(corpus) == {"train": (33728, 33728), "val": (3691, 3691), "test": (17505, 17505)}
    videos = {split: {corpus.clips[clip].video for clip in ids} for split, ids in corpus.splits.items()}
    assert {split: len(names) for split, names in videos.items()} == {"train": 9008, "val": 1001, "test": 4917}
    assert not videos["train"] & videos["val"]
    notes = "\n".join(corpus.notes)
    for rule in ("swap): 2 events of train", "clip): 29 events of train", "drop): 2 events of train", "in 10 captions"):
        assert rule in notes
    assert all(0 <= clip.start < clip.end for clip in corpus.clips.values() if clip.start is not None and clip.end)
    paper = load_corpus(dataset("activitynet"), home, splits="paper")
    assert sizes(paper) == {"train": (37419, 37419), "val": (17505, 17505), "test": (17505, 17505)}
    assert any("selection on the reported split" in note for note in paper.notes)


def test_the_small_real_sets(home: Home) -> None:
    small = load_corpus(dataset("msrvtt1000"), home)
    assert sizes(small) == {"train": (800, 16000), "val": (50, 1000), "test": (150, 3000)}
    assert (small.splits["train"][0], small.splits["test"][-1]) == ("video0", "video999")
    glrg = load_corpus(dataset("msrvtt_glrg"), home)
    assert sizes(glrg) == {"train": (357, 7140), "val": (40, 800), "test": (100, 2000)}
    assert (glrg.splits["train"][0], glrg.splits["test"][-1]) == ("video6513", "video7009")


@pytest.mark.parametrize("name", ["msvd", "msrvtt1000", "msrvtt_glrg"])
def test_check_finds_no_errors_in_published_files(home: Home, name: str) -> None:
    errors = [finding for finding in check_dataset(dataset(name), home).findings if finding.severity == "error"]
    assert errors == []


@pytest.mark.parametrize(
    ("name", "clips", "sharing", "train"),
    [("msrvtt_glrg", 497, 249, 346), ("msvd_glrg", 770, 234, 587), ("msrvtt1000", 1000, None, 800)],
)
def test_folds_of_real_clips_part_no_film(home: Home, name: str, clips: int, sharing: int | None, train: int) -> None:
    config = {"dataset": name, "splits": "folds"}
    films = films_in(config, home)
    folds = [corpus_of({**config, "seed": seed}, home).splits for seed in range(10)]
    tested = [clip for fold in folds for clip in fold["test"]]
    assert len(tested) == len(set(tested)) == clips
    together = Counter(films[clip] for clip in tested)
    if sharing is not None:
        assert sum(count for count in together.values() if count > 1) == sharing
    for fold in folds:
        sides = [{films[clip] for clip in fold[part]} for part in ("train", "val", "test")]
        assert (
            sum(map(len, sides)) == len(set.union(*sides)) and len(fold["val"]) >= 100 and len(fold["train"]) >= train
        )
