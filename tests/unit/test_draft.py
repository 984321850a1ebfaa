"""`bench init dataset`: a stranger's captions and features become a data set, and what was guessed is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from bench import BenchError
from bench.cli.main import main
from bench.data.corpus import load_corpus
from bench.data.draft import draft
from bench.declare.registry import read_definition
from bench.features.cache import Cache
from bench.features.importers import import_stream
from bench.home import Home


def corpus(folder: Path, clips: int = 30, **more: Any) -> Path:
    path = folder / "people.json"
    words = ("dog", "cat", "man")
    path.write_text(
        json.dumps([{"video": f"v{n}.mp4", "caption": [f"a {words[n % 3]} runs"], **more} for n in range(clips)])
    )
    return path


def features(folder: Path, *shape: int, first: int = 0, clips: int = 30) -> Path:
    folder.mkdir(parents=True)
    for number in range(first, first + clips):
        np.save(folder / f"v{number}.npy", np.full(shape, number + 1, "float32"))
    return folder


def drafted(tmp_path: Path, captions: dict[str, Path], where: dict[str, Path]) -> Any:
    found = draft("people", captions, where, tmp_path)
    (tmp_path / "people.yaml").write_text(found.text)
    for split, text in found.lists.items():
        (tmp_path / f"people_{split}.txt").write_text(text)
    return read_definition(tmp_path / "people.yaml"), found


def test_files_become_a_definition_that_says_what_was_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    corpus(tmp_path)
    features(tmp_path / "feats" / "frames", 4, 6)
    features(tmp_path / "feats" / "motion", 2, 3)
    assert main(["init", "dataset", "captions=people.json", "features=feats"]) == 0
    said = capsys.readouterr().out
    assert "clip from `video`, caption from `caption`" in said
    assert "no split is declared: 80, 10 and 10 %" in said
    assert main(["init", "dataset", "captions=people.json", "features=feats"]) == 2
    assert "people.yaml is there already" in capsys.readouterr().err
    found = load_corpus(read_definition(tmp_path / "people.yaml"), Home(tmp_path))
    assert {split: len(ids) for split, ids in found.splits.items()} == {"train": 24, "val": 3, "test": 3}


def test_the_split_of_the_captions_is_kept_and_val_cut_from_train_where_there_is_none(tmp_path: Path) -> None:
    clips = [{"clip": f"v{n}", "caption": "a dog runs", "split": "test" if n >= 24 else "train"} for n in range(30)]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, clips)))
    definition, found = drafted(tmp_path, {"": tmp_path / "c.jsonl"}, {"": features(tmp_path / "frames", 3, 4)})
    splits = load_corpus(definition, Home(tmp_path)).splits
    assert {split: len(ids) for split, ids in splits.items()} == {"train": 22, "val": 2, "test": 6}
    assert splits["test"] == tuple(f"v{n}" for n in range(24, 30))
    assert any("2 clips of train are put aside" in sentence for sentence in found.said)


def test_a_declared_split_of_which_features_leave_nothing_is_not_kept(tmp_path: Path) -> None:
    clips = [{"clip": f"v{n}", "caption": "a dog runs", "split": "test" if n >= 24 else "train"} for n in range(30)]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, clips)))
    definition, found = drafted(
        tmp_path, {"": tmp_path / "c.jsonl"}, {"": features(tmp_path / "frames", 3, 4, clips=20)}
    )
    assert {split: len(ids) for split, ids in load_corpus(definition, Home(tmp_path)).splits.items()} == {
        "train": 16,
        "val": 2,
        "test": 2,
    }
    assert any("of the declared split too little is left" in sentence for sentence in found.said)


def test_files_of_splits_and_streams_may_be_named(tmp_path: Path) -> None:
    files = {}
    for part, numbers in (("train", range(8)), ("val", range(8, 10)), ("test", range(10, 12))):
        files[part] = tmp_path / f"{part}.json"
        files[part].write_text(json.dumps({f"v{n}": ["a dog runs"] for n in numbers}))
    where = {"motion": features(tmp_path / "i3d", 40, 4, clips=12)}
    definition, _ = drafted(tmp_path, files, where)
    assert (definition.streams["motion"].source, definition.streams["motion"].frames) == ("i3d", 28)
    corpus = load_corpus(definition, Home(tmp_path))
    assert {split: len(ids) for split, ids in corpus.splits.items()} == {"train": 8, "val": 2, "test": 2}


def test_clips_without_features_are_left_out_and_counting_from_one_is_seen(tmp_path: Path) -> None:
    definition, _ = drafted(tmp_path, {"": corpus(tmp_path)}, {"": features(tmp_path / "frames", 3, 4, clips=25)})
    assert len(load_corpus(definition, Home(tmp_path)).clips) == 25
    definition, _ = drafted(tmp_path, {"": corpus(tmp_path)}, {"": features(tmp_path / "later", 3, 4, first=1)})
    assert definition.streams["frames"].ids == "one_based"
    assert definition.subset is None


def test_features_called_by_numbers_are_those_of_the_clips_whose_word_is_left_out(tmp_path: Path) -> None:
    where = features(tmp_path / "frames", 4, 6, clips=29)
    for number in range(29):
        (where / f"v{number}.npy").rename(where / f"{number}.npy")
    definition, found = drafted(tmp_path, {"": corpus(tmp_path)}, {"": where})
    assert "29 of 30 clips have frames" in found.text
    clips = load_corpus(definition, Home(tmp_path)).clips
    assert sorted(clips) == sorted(f"v{number}" for number in range(29))
    assert import_stream(definition, "frames", Home(tmp_path), list(clips)).is_file()


@pytest.mark.parametrize("left", [0, 60, 130])
def test_a_damaged_file_of_features_is_named(tmp_path: Path, left: int) -> None:
    where = features(tmp_path / "frames", 4, 6)
    (where / "v7.npy").write_bytes((where / "v7.npy").read_bytes()[:left])
    with pytest.raises(BenchError, match=r"frames: v7 cannot be read \(.*\): mend it or take it out, then `bench init"):
        draft("people", {"": corpus(tmp_path)}, {"": where}, tmp_path)


def test_rows_without_ids_are_those_of_the_clips_where_there_are_as_many(tmp_path: Path) -> None:
    captions = {"captions": corpus(tmp_path)}
    for rows in (30, 29):
        (tmp_path / f"{rows}").mkdir()
        with h5py.File(path := tmp_path / f"{rows}" / "frames.h5", "w") as file:
            file["feats"] = np.ones((rows, 4, 6), np.float32)
        if rows == 30:
            definition, _ = drafted(tmp_path, captions, {"frames": path})
            assert len(load_corpus(definition, Home(tmp_path)).clips) == 30
        else:
            with pytest.raises(BenchError, match="29 rows without ids, the captions 30 clips: no row can be told"):
                draft("people", captions, {"frames": path}, tmp_path)


def test_what_cannot_be_guessed_is_refused_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCH_HOME", str(tmp_path))
    captions = {"": corpus(tmp_path)}
    (tmp_path / "odd").mkdir()
    np.save(tmp_path / "odd" / "x.npy", np.ones((2, 3)))
    with pytest.raises(BenchError, match="of no clip of the captions: its names are like x"):
        draft("a", captions, {"": tmp_path / "odd"}, tmp_path)
    with pytest.raises(BenchError, match=r"read as \[frames, width\].*features\.motion="):
        draft("a", captions, {"": features(tmp_path / "flat", 5)}, tmp_path)
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "w0.mp4").touch()
    with pytest.raises(BenchError, match=r"a video of no clip of the captions: its videos are called like w0\.mp4"):
        draft("a", captions, {"": tmp_path / "films"}, tmp_path)
    with pytest.raises(BenchError, match=r"holds videos.*declare motion in the definition"):
        draft("a", captions, {"motion": tmp_path / "films"}, tmp_path)
    assert main(["init", "dataset", "captions=people.json", "features=films"]) == 2
    assert main(["init", "dataset", "captions.mapping=people.json", "features=films"]) == 2
    assert "captions= is missing" in capsys.readouterr().err
    assert main(["init", "dataset", "captions=gone.json", "features=flat"]) == 2
    assert "there is no file or folder gone.json" in capsys.readouterr().err
    with pytest.raises(BenchError, match="5 clips with captions and features are too few"):
        draft("a", captions, {"": features(tmp_path / "few", 3, 4, clips=5)}, tmp_path)
    assert not list(tmp_path.glob("*.yaml"))


def test_videos_are_declared_as_what_frames_are_made_of(tmp_path: Path) -> None:
    """Those of some clips: the others are left out by a list, as no stream is there yet that tells which."""
    (tmp_path / "films").mkdir()
    for number in range(12):
        (tmp_path / "films" / f"v{number}.mp4").touch()
    definition, found = drafted(tmp_path, {"": corpus(tmp_path)}, {"": tmp_path / "films"})
    frames = definition.streams["frames"]
    assert (frames.videos, frames.frames, frames.encoder) == ("films", 28, "clip:ViT-B-32")
    assert len(load_corpus(definition, Home(tmp_path)).clips) == 12
    assert any("12 of 30 clips have frames" in sentence for sentence in found.said)


CUTS = [f"Abcde_-{n:04}_{n}_{n + 8}" for n in range(12)]  # as MSVD's videos are called: eleven letters, start, end


def msvd(folder: Path, mapping: str, first: int = 1) -> dict[str, Path]:
    """MSVD's files of splits, whose clips are vid1, vid2, .., and the file that names them like their videos too."""
    folder.mkdir()
    files = {}
    for part, numbers in (("train", range(8)), ("val", range(8, 10)), ("test", range(10, 12))):
        files[part] = folder / f"sents_{part}_lc_nopunc.txt"
        files[part].write_text("".join(f"vid{n + first}\ta dog runs\nvid{n + first}\ta dog\n" for n in numbers))
    (folder / mapping).write_text("".join(f"{cut} vid{n + first}\n" for n, cut in enumerate(CUTS)))
    return files


@pytest.mark.parametrize("first", [0, 1])
def test_msvds_two_namings_are_joined_by_its_mapping(tmp_path: Path, first: int) -> None:
    """Beside the captions, or named; also where both files count from 0. Features that are called like the clips need none."""
    (tmp_path / "feats").mkdir()
    for number, cut in enumerate(CUTS):
        np.save(tmp_path / "feats" / f"{cut}.npy", np.full((2, 3), number + 1, "float32"))
    near = msvd(tmp_path / "near", "youtube_mapping.txt", first)
    apart = msvd(tmp_path / "apart", "names.txt", first)
    for captions in (near, {**apart, "mapping": tmp_path / "apart" / "names.txt"}):
        definition, found = drafted(tmp_path, captions, {"": tmp_path / "feats"})
        loaded = load_corpus(definition, Home(tmp_path))
        assert definition.captions[0].format == "msvd_split" and loaded.find(CUTS[11]) == "vid12"
        cache = import_stream(definition, "frames", Home(tmp_path), list(loaded.clips))
        with Cache(cache) as cached:
            assert [cached.read(f"vid{n}")[0][0, 0] for n in (1, 7, 12)] == [1, 7, 12]
        assert any("feats goes by other names than the captions" in sentence for sentence in found.said)
        cache.unlink()
    with pytest.raises(BenchError, match=r"of no clip of the captions.*captions\.mapping=FILE"):
        draft("people", apart, {"": tmp_path / "feats"}, tmp_path)
    by_cut = {"": tmp_path / "by_cut.json"}
    by_cut[""].write_text(json.dumps({cut: ["a dog runs"] for cut in CUTS}))
    definition, _ = drafted(tmp_path, by_cut, {"": tmp_path / "feats"})
    assert definition.streams["frames"].ids is None
