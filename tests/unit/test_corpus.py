"""Corpora as users have them: every published layout, written here from its public description, and what can be wrong.

Layouts: MSVD table and names as in Chen and Dolan (ACL 2011) and its release at the Microsoft Download Center;
AllVideoDescriptions.txt as offered by UT Austin; `vidN<TAB>caption` as in the NAACL 2015 release of Venugopalan et al.;
MSR-VTT as its readme describes the JSON (Xu et al., CVPR 2016); ActivityNet Captions as captions.zip of Krishna et al.
(ICCV 2017); COCO captions as in "Microsoft COCO Captions: Data Collection and Evaluation Server" (Chen et al. 2015).
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from bench import BenchError
from bench.data.check import check_dataset
from bench.data.corpus import load_corpus
from bench.data.source import Corpus, clean
from bench.data.splits import expand, read_list
from bench.declare.dataset import DatasetDefinition
from bench.declare.registry import dataset, read_definition
from bench.features.names import natural
from bench.home import Home, data_folder

LISTS = {"train": "train.txt", "val": "val.txt", "test": "test.txt"}


def define(folder: Path, captions: list[dict[str, Any]], **keys: Any) -> DatasetDefinition:
    """A definition as a user would write it, read from a file in `folder`."""
    path = folder / "dataset.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "captions": captions, **keys}), encoding="utf-8")
    return read_definition(path)


def lists(folder: Path, **ids: str) -> dict[str, str]:
    for split, text in ids.items():
        (folder / f"{split}.txt").write_text(text.replace(" ", "\n"), encoding="utf-8")
    return {split: f"{split}.txt" for split in ids}


def load(definition: DatasetDefinition, **keys: Any) -> Corpus:
    return load_corpus(definition, Home(definition.path.parent), **keys)


def texts(corpus: Corpus, clip: str) -> list[str]:
    return [caption.text for caption in corpus.captions[clip]]


def jsonl(folder: Path, *entries: dict[str, Any]) -> list[dict[str, Any]]:
    (folder / "c.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return [{"format": "jsonl", "files": {"captions": "c.jsonl"}}]


def ten(folder: Path) -> list[dict[str, Any]]:
    return jsonl(folder, *({"clip": f"c{n}", "captions": [f"clip {n}", f"number {n}"]} for n in range(1, 11)))


# --- MSVD


def msvd_table(folder: Path, *, first_column: str | None = "") -> list[dict[str, Any]]:
    """The corpus table: row numbers in a first column (named, unnamed or absent), quoted descriptions, CRLF inside."""
    head = "" if first_column is None else f"{first_column},"
    number = "" if first_column is None else "7,"
    rows = [
        f"{head}VideoID,Start,End,WorkerID,Source,AnnotationTime,Language,Description",
        f'{number}aaaaaaaaaaa,1,9,3,clean,12,English,"A man, and a dog."',
        f"{number}bbbbbbbbbbb,2,12,3,clean,12,English,A cat sleeps.",
        f"{number}bbbbbbbbbbb,2,12,3,clean,12,German,Eine Katze.",
        f'{number}aaaaaaaaaaa,1,9,4,unverified,9,English,"Two\r\nlines\ufeff."',
        f"{number}ccccccccccc,0,5,3,clean,12,English,A bird.",
        f"{number}ddddddddddd,0,5,3,clean,12,English,Nobody kept this video.",
    ]
    (folder / "corpus.csv").write_text("\n".join(rows) + "\n", encoding="utf-8", newline="")
    (folder / "map.txt").write_text("aaaaaaaaaaa_1_9 vid1\r\nbbbbbbbbbbb_2_12 vid2\r\nccccccccccc_0_5 vid3")
    return [{"format": "msvd_csv", "files": {"captions": "corpus.csv", "mapping": "map.txt"}}]


@pytest.mark.parametrize("first_column", ["", "row", None])
def test_msvd_table_gives_english_rows_under_numbered_ids(tmp_path: Path, first_column: str | None) -> None:
    definition = define(
        tmp_path,
        msvd_table(tmp_path, first_column=first_column),
        splits=lists(tmp_path, train="vid1", val="vid2", test="vid3"),
    )
    corpus = load(definition)
    assert texts(corpus, "vid1") == ["A man, and a dog.", "Two lines."]
    assert [caption.id for caption in corpus.captions["vid1"]] == ["vid1#0", "vid1#1"]
    assert texts(corpus, "vid2") == ["A cat sleeps."]
    assert corpus.find("bbbbbbbbbbb_2_12") == "vid2"
    assert corpus.clips["vid2"].video == "bbbbbbbbbbb_2_12"
    assert any("other languages: 1 row" in note for note in corpus.notes)
    assert any("clips outside the mapping: 1 clip" in note for note in corpus.notes)
    assert any("control characters: cleaned in 1 caption" in note for note in corpus.notes)


def test_msvd_lists_may_use_youtube_names(tmp_path: Path) -> None:
    splits = lists(tmp_path, train="aaaaaaaaaaa_1_9", val="bbbbbbbbbbb_2_12", test="vid3")
    corpus = load(define(tmp_path, msvd_table(tmp_path), splits=splits))
    assert corpus.splits == {"train": ("vid1",), "val": ("vid2",), "test": ("vid3",)}


def test_msvd_a_clip_under_both_of_its_names_is_in_the_list_twice(tmp_path: Path) -> None:
    splits = lists(tmp_path, train="vid1 aaaaaaaaaaa_1_9", val="vid2", test="vid3")
    with pytest.raises(BenchError, match=r"train\.txt names 1 clip twice, under two names"):
        load(define(tmp_path, msvd_table(tmp_path), splits=splits))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("aaaaaaaaaaa_1_9 vid4", r"map\.txt line 4 names aaaaaaaaaaa_1_9 a second time"),
        ("eeeeeeeeeee_1_9 vid3", r"map\.txt gives one vidN to several clips: 4 lines, 3 ids"),
        ("eeeeeeeeeee_1_9", r"map\.txt line 4 reads 'eeeeeeeeeee_1_9': expected `<YouTube id>_<start>_<end> vidN`"),
    ],
)
def test_msvd_a_mapping_that_joins_no_two_names(tmp_path: Path, line: str, said: str) -> None:
    captions = msvd_table(tmp_path)
    with (tmp_path / "map.txt").open("a") as file:
        file.write(f"\n{line}\n")
    with pytest.raises(BenchError, match=said):
        load(define(tmp_path, captions, splits={"first": [1, 1, 1]}))


def test_msvd_table_cut_off_inside_a_row(tmp_path: Path) -> None:
    captions = msvd_table(tmp_path)
    whole = (tmp_path / "corpus.csv").read_text(encoding="utf-8")
    (tmp_path / "corpus.csv").write_text(whole[: whole.index('"Two') + 4], encoding="utf-8")
    with pytest.raises(BenchError, match=r"corpus\.csv line \d+"):
        load(define(tmp_path, captions, splits={"first": [1, 1, 1]}))


def split_files(folder: Path, train: str, val: str, test: str) -> list[dict[str, Any]]:
    for name, text in (("train", train), ("val", val), ("test", test)):
        (folder / f"sents_{name}.txt").write_text(text, encoding="utf-8")
    return [{"format": "msvd_split", "files": {part: f"sents_{part}.txt" for part in LISTS}}]


def test_msvd_split_files_need_no_lists(tmp_path: Path) -> None:
    captions = split_files(tmp_path, "vid1\ta man\nvid1\ta  dog \nvid2\ta cat\n", "vid3\ta bird\n", "vid4\tan ant\n")
    corpus = load(define(tmp_path, captions))
    assert corpus.splits == {"train": ("vid1", "vid2"), "val": ("vid3",), "test": ("vid4",)}
    assert texts(corpus, "vid1") == ["a man", "a  dog "], "spaces stay as published"
    assert corpus.notes == ()


def test_msvd_files_that_count_from_zero_are_shifted(tmp_path: Path) -> None:
    captions = split_files(tmp_path, "vid0\ta man\n", "vid1\ta bird\n", "vid2\tan ant\n")
    corpus = load(define(tmp_path, captions))
    assert corpus.splits == {"train": ("vid1",), "val": ("vid2",), "test": ("vid3",)}
    assert texts(corpus, "vid1") == ["a man"]
    assert corpus.find("vid1") == "vid1" and corpus.aliases == {"vid0": "vid1"}, "no name is of two clips"


def test_a_clip_in_two_msvd_split_files_is_named(tmp_path: Path) -> None:
    captions = split_files(tmp_path, "vid1\ta man\nvid2\ta man\n", "vid2\ta bird\n", "vid4\tan ant\n")
    with pytest.raises(BenchError, match="vid2"):
        load(define(tmp_path, captions))


def test_msvd_descriptions_of_all_clips_need_no_mapping(tmp_path: Path) -> None:
    names = [f"{chr(97 + n % 26)}{n:010d}_{n % 7}_{n % 7 + 9}" for n in range(1970)]
    lines = ["# a header of the file", "", *(f"{name} caption of {name}" for name in names)]
    (tmp_path / "all.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    corpus = load(
        define(tmp_path, [{"format": "msvd_txt", "files": {"captions": "all.txt"}}], splits={"first": [1200, 100, 670]})
    )
    first = min(names)  # vidN is the rank of the name in byte order
    assert corpus.find(first) == "vid1"
    assert texts(corpus, "vid1") == [f"caption of {first}"]
    assert corpus.splits["test"][-1] == "vid1970"


# --- MSR-VTT


def msrvtt(parts: dict[str, str], sentences: list[tuple[str, str]], first: int = 0) -> dict[str, Any]:
    videos = [
        {"video_id": video, "split": part, "category": 1, "url": "u", "start time": 1.0, "end time": 9.0, "id": number}
        for number, (video, part) in enumerate(parts.items())
    ]
    captions = [{"sen_id": first + n, "video_id": video, "caption": text} for n, (video, text) in enumerate(sentences)]
    return {"info": {}, "videos": videos, "sentences": captions}


TRAIN_VAL = msrvtt({"video0": "train", "video1": "validate"}, [("video1", "b"), ("video0", "a"), ("video0", "c")])
TEST = msrvtt({"video2": "test"}, [("video2", "d")], first=3)


def write_pair(folder: Path, zipped: bool) -> list[dict[str, Any]]:
    files = {}
    for role, content in (("train_val", TRAIN_VAL), ("test", TEST)):
        path = folder / f"{role}_videodatainfo.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        files[role] = path.name
        if zipped:
            archive = path.with_suffix(".json.zip")
            with zipfile.ZipFile(archive, "w") as packed:
                packed.write(path, f"inner/{path.name}")
                packed.writestr(f"__MACOSX/inner/._{path.name}", b"\0")
                packed.writestr("readme.txt", "hello")
            files[role] = archive.name
    return [{"format": "msrvtt", "files": files}]


@pytest.mark.parametrize("zipped", [False, True])
def test_msrvtt_pair(tmp_path: Path, zipped: bool) -> None:
    corpus = load(define(tmp_path, write_pair(tmp_path, zipped)))
    assert corpus.splits == {"train": ("video0",), "val": ("video1",), "test": ("video2",)}
    assert texts(corpus, "video0") == ["a", "c"]
    assert [caption.id for caption in corpus.captions["video0"]] == ["sen1", "sen2"]


def test_msrvtt_in_one_file_is_split_by_lists_whatever_its_split_field_says(tmp_path: Path) -> None:
    content = msrvtt(dict.fromkeys(["video0", "video1", "video2"], "train"), [(f"video{n}", "x") for n in (2, 1, 0)])
    (tmp_path / "MSRVTT_data.json").write_text(json.dumps(content))
    splits = lists(tmp_path, train="video0", val="video1", test="video2")
    corpus = load(define(tmp_path, [{"format": "msrvtt", "files": {"data": "MSRVTT_data.json"}}], splits=splits))
    assert corpus.splits == {"train": ("video0",), "val": ("video1",), "test": ("video2",)}


def test_msrvtt_damage_is_named(tmp_path: Path) -> None:
    captions = write_pair(tmp_path, zipped=False)
    test = tmp_path / "test_videodatainfo.json"
    whole = test.read_text()
    test.write_text(whole[:-20])
    with pytest.raises(BenchError, match=r"test_videodatainfo\.json line 1 is not JSON.*cut off"):
        load(define(tmp_path, captions))
    test.write_text(json.dumps(TEST | {"videos": []}))
    with pytest.raises(BenchError, match="captions of 1 clip that its videos do not name: video2"):
        load(define(tmp_path, captions))
    test.write_text(json.dumps(TRAIN_VAL))
    with pytest.raises(BenchError, match="5 ids more than once: video0, video1, sen0"):
        load(define(tmp_path, captions))
    for name in (None, "", "v\ud800", ["v"]):
        for where in ("videos", "sentences"):
            odd = [{**TEST[where][0], "video_id": name}, *TEST[where][1:]]
            test.write_text(json.dumps(TEST | {where: odd}))
            with pytest.raises(BenchError, match=r"(test_videodatainfo.json, .* clip id|not in the layout of MSR-VTT)"):
                load(define(tmp_path, captions))
    test.write_text("[]")
    with pytest.raises(BenchError, match="not in the layout of MSR-VTT"):
        load(define(tmp_path, captions))


def test_an_archive_that_is_cut_off_is_named(tmp_path: Path) -> None:
    captions = write_pair(tmp_path, zipped=True)
    archive = tmp_path / "test_videodatainfo.json.zip"
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(BenchError, match=r"test_videodatainfo\.json\.zip is a zip archive that is cut off"):
        load(define(tmp_path, captions))


# --- ActivityNet Captions


def activitynet(folder: Path, with_second: bool = False) -> list[dict[str, Any]]:
    train = {
        "v_a": {
            "duration": 10.0,
            "timestamps": [[0, 4], [6, 3], [8, 12], [5, 5], [9.5, 10.004]],
            "sentences": ["One.", " Two.", "Three\nlines.", "Nothing.", " "],
        },
        "v_b": {"duration": 20.0, "timestamps": [[0, 20]], "sentences": ["All."]},
    }
    val = {"v_c": {"duration": 5.0, "timestamps": [[0, 5]], "sentences": ["Val."]}}
    second = {"v_c": {"duration": 5.0, "timestamps": [[1, 2]], "sentences": ["Other words."]}}
    contents = {"train": train, "val_1": val} | ({"val_2": second} if with_second else {})
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return [{"format": "activitynet", "files": {name: f"{name}.json" for name in contents}}]


def test_activitynet_events_are_clips_and_odd_ones_follow_named_rules(tmp_path: Path) -> None:
    captions = activitynet(tmp_path)
    # The empty caption leaves v_a#4 without any, so the test lists events.
    splits = lists(tmp_path, train="v_a#0 v_a#1 v_a#2", val="v_b", test="official:val_1")
    corpus = load(define(tmp_path, captions, splits=splits))
    times = {clip.id: (clip.start, clip.end) for clip in corpus.clips.values()}
    assert times == {"v_a#0": (0, 4), "v_a#1": (3, 6), "v_a#2": (8, 10), "v_b#0": (0, 20), "v_c#0": (0, 5)}
    assert texts(corpus, "v_a#2") == ["Three lines."]
    notes = "\n".join(corpus.notes)
    for rule in ("events (swap): 1 event ", "events (clip): 1 event ", "events (drop): 1 event ", "empty captions: 1 "):
        assert rule in notes
    dropped = next(finding for finding in corpus.findings if "(drop)" in finding.message)
    assert dropped.clips == ("v_a#3",)


@pytest.mark.parametrize("name", ["", "v\ud800"])
def test_activitynet_a_video_that_no_file_could_be_named_after(tmp_path: Path, name: str) -> None:
    captions = activitynet(tmp_path)
    content = json.loads((tmp_path / "train.json").read_text())
    (tmp_path / "train.json").write_text(json.dumps({name: content["v_a"]}))
    with pytest.raises(BenchError, match=r"train.json, videos: has (an empty|the) clip id"):
        load(define(tmp_path, captions))


def test_activitynet_clips_left_without_a_caption_are_an_error_with_their_ids(tmp_path: Path) -> None:
    splits = lists(tmp_path, train="v_a", val="v_b", test="official:val_1")
    with pytest.raises(BenchError, match="no captions for 1 clip: v_a#4"):
        load(define(tmp_path, activitynet(tmp_path), splits=splits))


def test_activitynet_lists_may_name_what_a_rule_dropped(tmp_path: Path) -> None:
    """An event without length goes, and so does the name of a video that had no other; a list may still hold both."""
    captions = activitynet(tmp_path)
    content = json.loads((tmp_path / "train.json").read_text())
    content["v_d"] = {"duration": 9.0, "timestamps": [[4, 4]], "sentences": ["Nothing."]}
    (tmp_path / "train.json").write_text(json.dumps(content))
    splits = lists(tmp_path, train="v_a#0 v_a#3 v_d", val="v_b", test="official:val_1")
    corpus = load(define(tmp_path, captions, splits=splits))
    assert corpus.splits == {"train": ("v_a#0",), "val": ("v_b#0",), "test": ("v_c#0",)}


def test_activitynet_listed_validation_videos_leave_train(tmp_path: Path) -> None:
    splits = lists(tmp_path, train="official:train", val="v_a#0", test="official:val_1")
    content = json.loads((tmp_path / "train.json").read_text()) if activitynet(tmp_path) else {}
    content["v_a"]["sentences"][4] = "Five."
    (tmp_path / "train.json").write_text(json.dumps(content))
    captions = [{"format": "activitynet", "files": {"train": "train.json", "val_1": "val_1.json"}}]
    corpus = load(define(tmp_path, captions, splits=splits))
    assert corpus.splits["val"] == ("v_a#0",)
    assert corpus.splits["train"] == ("v_a#1", "v_a#2", "v_a#4", "v_b#0")
    assert any("shared videos: 1 clip" in note for note in corpus.notes), "events of one video on both sides are said"


def test_activitynet_second_validation_file_is_a_part_of_its_own(tmp_path: Path) -> None:
    captions = activitynet(tmp_path, with_second=True)
    splits = lists(tmp_path, train="v_b", val="official:val_1", test="official:val_2")
    corpus = load(define(tmp_path, captions, splits=splits))
    assert corpus.splits["val"] == ("v_c#0",)
    assert corpus.splits["test"] == ("v_c#val_2.0",)
    assert texts(corpus, "v_c#val_2.0") == ["Other words."]


def test_activitynet_a_video_that_comes_twice_is_not_lost_silently(tmp_path: Path) -> None:
    captions = activitynet(tmp_path)
    entry = '{"duration": 5, "timestamps": [[0, 1]], "sentences": ["x"]}'
    (tmp_path / "val_1.json").write_text(f'{{"v_c": {entry}, "v_c": {entry}}}')
    with pytest.raises(BenchError, match="more than once: v_c"):
        load(define(tmp_path, captions, splits={"first": [1, 1, 1]}))


# --- one's own captions


def test_coco_captions_with_ids_of_numbers_and_file_names_as_aliases(tmp_path: Path) -> None:
    for part, number in (("train", 1), ("val", 2), ("test", 3)):
        content = {
            "images": [{"id": number, "file_name": f"movie{number}.mp4"}],
            "annotations": [{"id": 10 + number, "image_id": number, "caption": f"caption {number}"}],
        }
        (tmp_path / f"{part}.json").write_text(json.dumps(content))
    files = {part: f"{part}.json" for part in LISTS}
    corpus = load(define(tmp_path, [{"format": "coco", "files": files}]))
    assert corpus.splits == {"train": ("1",), "val": ("2",), "test": ("3",)}
    assert corpus.captions["1"][0].id == "11"
    assert corpus.find("movie3") == "3"


def test_coco_files_that_could_be_of_two_images_are_refused(tmp_path: Path) -> None:
    def said(*files: str) -> str:
        images = [{"id": number, "file_name": file} for number, file in enumerate(files, 1)]
        sentences = [{"id": number, "image_id": number, "caption": "a dog"} for number in range(1, len(files) + 1)]
        (tmp_path / "c.json").write_text(json.dumps({"images": images, "annotations": sentences}))
        with pytest.raises(BenchError) as error:
            load(define(tmp_path, [{"format": "coco", "files": {"captions": "c.json"}}], splits={"first": [1, 0, 1]}))
        return str(error.value)

    assert "names a file x for the images 1 and 2" in said("a/x.jpg", "b/x.jpg")
    assert "names a file 1 for the images 1 and 2" in said("1.jpg", "b/1.jpg")
    assert "2 clips with an id that is another name of another clip (2 of 1, 1 of 2)" in said("2.mp4", "1.mp4")


def test_jsonl_takes_one_caption_or_a_list_and_an_own_split(tmp_path: Path) -> None:
    captions = jsonl(
        tmp_path,
        {"clip": "a", "caption": "one", "split": "train", "video": "film", "start": 1, "end": 2.5},
        {"clip": "a", "caption": "two", "split": "training"},
        {"clip": "b", "captions": ["x", "y"], "split": "valid"},
        {"clip": "c", "captions": ["z"], "split": "test", "id": "own"},
    )
    corpus = load(define(tmp_path, captions))
    assert corpus.splits == {"train": ("a",), "val": ("b",), "test": ("c",)}
    assert texts(corpus, "a") == ["one", "two"]
    assert (corpus.clips["a"].video, corpus.clips["a"].start, corpus.clips["a"].end) == ("film", 1.0, 2.5)
    assert corpus.captions["c"][0].id == "own#0"


def test_csv_with_quotes_and_a_split_column(tmp_path: Path) -> None:
    table = 'clip,caption,split\na,"one, two",train\na,three\u2028four,train\nb,x,val\nc,y,test\n'
    (tmp_path / "c.csv").write_text("\ufeff" + table, encoding="utf-8")
    corpus = load(define(tmp_path, [{"format": "csv", "files": {"captions": "c.csv"}}]))
    assert texts(corpus, "a") == ["one, two", "three four"]
    assert corpus.splits["test"] == ("c",)


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        (
            [{"clip": "a", "caption": "x"}, {"clip": "a"}],
            r"c\.jsonl line 2 needs `clip` and either `caption` or `captions`",
        ),
        ([{"clip": "a", "caption": 3}], "a caption of clip a in .* is 3: a caption must be text"),
        ([{"clip": "a", "captions": 5}], "a caption of clip a in .* is 5: a caption must be text"),
        ([{"clip": "a", "caption": "x", "id": 1}, {"clip": "b", "caption": "x", "id": 1}], "1 id more than once: 1"),
        (
            [{"clip": "a", "caption": "x", "split": "train"}, {"clip": "a", "caption": "x", "split": "val"}],
            "line 2 puts clip a",
        ),
        ([{"clip": "a", "caption": "x", "split": "later"}], "names a split 'later'"),
        ([{"clip": "a", "caption": "x"}], "declare no split 'train'.*lists.*fractions"),
    ],
)
def test_own_captions_that_are_wrong_say_where(tmp_path: Path, entries: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        load(define(tmp_path, jsonl(tmp_path, *entries)))


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b"clip,caption\na,caf\xe9\n")
    with pytest.raises(BenchError, match=r"c\.csv is not UTF-8 text \(byte 18\)"):
        load(define(tmp_path, [{"format": "csv", "files": {"captions": "c.csv"}}]))


def test_roles_of_a_format_are_checked(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("clip,caption\n")
    with pytest.raises(BenchError, match="format csv has files table; it takes captions"):
        load(define(tmp_path, [{"format": "csv", "files": {"table": "c.csv"}}]))


def test_control_characters_are_cleaned_and_everything_else_stays() -> None:
    assert clean("a\r\nb\tc\u2028d\x00e") == "a b c d e"
    assert clean("\ufeffa\u200b b\u200e") == "a b"
    assert clean("a\ud800b").encode() == b"a b"
    assert clean("  two  spaces, Café — ok. ") == "  two  spaces, Café — ok. "
    assert clean("می\u200cخواهم") == "می\u200cخواهم", "joiners belong to the spelling"


def test_empty_captions_go_and_are_counted_with_their_clips(tmp_path: Path) -> None:
    captions = jsonl(
        tmp_path, {"clip": "a", "captions": ["x", " ", "\n", "y"]}, *({"clip": c, "caption": c} for c in "bc")
    )
    corpus = load(define(tmp_path, captions, splits={"first": [1, 1, 1]}))
    assert [(caption.id, caption.text) for caption in corpus.captions["a"]] == [("a#0", "x"), ("a#3", "y")]
    assert [f.clips for f in corpus.findings if f.message.startswith("empty captions: 2 captions")] == [("a",)]


# --- splits, subsets, counts


def test_first_goes_by_number_not_by_spelling(tmp_path: Path) -> None:
    corpus = load(define(tmp_path, ten(tmp_path), splits={"first": [6, 1, 2]}))
    assert corpus.splits == {"train": tuple(f"c{n}" for n in range(1, 7)), "val": ("c7",), "test": ("c8", "c9")}
    assert "c10" not in corpus.clips
    with pytest.raises(BenchError, match=r"first asks for 12 clips .* have 10 clips"):
        load(define(tmp_path, ten(tmp_path), splits={"first": [6, 3, 3]}))


def test_fractions_depend_on_the_seed_and_never_on_the_order_of_the_file(tmp_path: Path) -> None:
    rule = {"fractions": [0.6, 0.2, 0.2], "seed": 3}
    one = load(define(tmp_path, ten(tmp_path), splits=rule)).splits
    assert {split: len(ids) for split, ids in one.items()} == {"train": 6, "val": 2, "test": 2}
    lines = (tmp_path / "c.jsonl").read_text().splitlines(keepends=True)
    captions = [{"format": "jsonl", "files": {"captions": "c.jsonl"}}]
    (tmp_path / "c.jsonl").write_text("".join(reversed(lines)))
    assert load(define(tmp_path, captions, splits=rule)).splits == one
    assert load(define(tmp_path, captions, splits=rule | {"seed": 4})).splits != one
    # Written down once: what moves them moves the splits of every data set that has fractions.
    assert (one["val"], one["test"]) == (("c1", "c10"), ("c3", "c4"))


@pytest.mark.parametrize(
    ("fractions", "sizes"),
    [
        ([0.64, 0.16, 0.2], (6, 2, 2)),  # 1.6 clips are 2
        ([0.66, 0.14, 0.2], (7, 1, 2)),  # 1.4 clips are 1
        ([0.6, 0.23, 0.17], (6, 2, 2)),  # 2.3 and 1.7
        ([0.8, 0.0, 0.2], (8, 0, 2)),  # none at all, where none are asked for
        ([1.0, 0.0, 0.0], (10, 0, 0)),
    ],
)
def test_fractions_go_to_the_nearest_number_of_clips(
    tmp_path: Path, fractions: list[float], sizes: tuple[int, ...]
) -> None:
    splits = load(define(tmp_path, ten(tmp_path), splits={"fractions": fractions})).splits
    assert tuple(len(splits[split]) for split in LISTS) == sizes


def test_fractions_keep_the_clips_of_a_video_together(tmp_path: Path) -> None:
    captions = jsonl(tmp_path, *({"clip": f"c{n}", "video": f"v{n % 6}", "caption": "x"} for n in range(30)))
    corpus = load(define(tmp_path, captions, splits={"fractions": [0.5, 0.2, 0.3]}))
    of = {split: {corpus.clips[clip].video for clip in ids} for split, ids in corpus.splits.items()}
    assert of["train"] | of["val"] | of["test"] == {f"v{n}" for n in range(6)}
    assert sum(map(len, of.values())) == 6


def test_fractions_of_too_few_clips(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"too few .*: val would be empty"):
        load(define(tmp_path, ten(tmp_path), splits={"fractions": [0.97, 0.01, 0.02]}))


def test_lists_with_runs_comments_and_what_is_wrong_with_them(tmp_path: Path) -> None:
    splits = lists(tmp_path, train="c1..c6", val="c7 c8", test="c9..c10")
    corpus = load(define(tmp_path, ten(tmp_path), splits=splits))
    assert corpus.splits["train"] == tuple(f"c{n}" for n in range(1, 7))
    (tmp_path / "val.txt").write_text("# two\n\n  # and behind blanks\nc6\n c7 \n")
    with pytest.raises(BenchError, match="train and val share 1 clip: c6"):
        load(define(tmp_path, ten(tmp_path), splits=splits))
    (tmp_path / "val.txt").write_text("c7\n")
    (tmp_path / "test.txt").write_text("c1..c3\n")
    with pytest.raises(BenchError, match="train and test share 3 clips: c1, c2, c3"):
        load(define(tmp_path, ten(tmp_path), splits=splits))
    (tmp_path / "val.txt").write_text("c8..c7\n")
    with pytest.raises(BenchError, match=r"the range c8\.\.c7 ends before it begins"):
        load(define(tmp_path, ten(tmp_path), splits=splits))
    (tmp_path / "test.txt").write_text("c9..c10\n")
    (tmp_path / "val.txt").write_text("c7\nc11..c20\n")
    with pytest.raises(BenchError, match=r"no captions for 10 clips of split val \(val\.txt\): c11, .* 5 more"):
        load(define(tmp_path, ten(tmp_path), splits=splits))
    (tmp_path / "val.txt").write_text("c7\nc7\n")
    with pytest.raises(BenchError, match=r"val\.txt lists 1 id more than once: c7"):
        load(define(tmp_path, ten(tmp_path), splits=splits))
    (tmp_path / "val.txt").unlink()
    with pytest.raises(BenchError, match=r"val\.txt does not exist"):
        load(define(tmp_path, ten(tmp_path), splits=splits))


def test_only_one_and_the_same_list_may_stand_for_val_and_test(tmp_path: Path) -> None:
    lists(tmp_path, train="c1..c6", val="c7..c9", test="c9..c10")
    same = {"train": "train.txt", "val": "val.txt", "test": "val.txt"}
    corpus = load(define(tmp_path, ten(tmp_path), splits=same))
    assert any("selection on the reported split" in note for note in corpus.notes)
    with pytest.raises(BenchError, match="val and test share 1 clip: c9"):
        load(define(tmp_path, ten(tmp_path), splits=LISTS))
    (tmp_path / "val.txt").write_text("c6\nc7\n")  # one list for both, and a clip of it trains
    with pytest.raises(BenchError, match="train and val share 1 clip: c6"):
        load(define(tmp_path, ten(tmp_path), splits=same))


def test_split_variants_by_name(tmp_path: Path) -> None:
    keys = {"splits": {"first": [6, 2, 2]}, "split_variants": {"small": {"first": [1, 1, 1]}}}
    definition = define(tmp_path, ten(tmp_path), **keys)
    assert load(definition, splits="small").splits == {"train": ("c1",), "val": ("c2",), "test": ("c3",)}
    with pytest.raises(BenchError, match="smal"):
        load(definition, splits="smal")


def test_subset_of_the_definition_and_of_the_command(tmp_path: Path) -> None:
    definition = define(tmp_path, ten(tmp_path), subset={"ids": ["c2..c5", "c9"]}, splits={"first": [3, 1, 1]})
    assert load(definition).splits == {"train": ("c2", "c3", "c4"), "val": ("c5",), "test": ("c9",)}
    assert load(definition, subset=(2, 1, 1)).splits["train"] == ("c2", "c3")
    with pytest.raises(BenchError, match="subset asks for 4 clips of train, it has 3"):
        load(definition, subset=(4, 1, 1))
    with pytest.raises(BenchError, match="no captions for 2 clips of its subset: c11, c12"):
        load(define(tmp_path, ten(tmp_path), subset={"ids": ["c11", "c12"]}, splits={"first": [3, 1, 1]}))


def test_subset_of_the_clips_that_have_features(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for name in ("c2", "c4", "c8", "elsewhere"):
            file[name] = np.ones((3, 2), dtype=np.float32)
    keys = {"streams": {"frames": {"source": "f.h5"}}, "splits": {"first": [1, 1, 1]}}
    definition = define(tmp_path, ten(tmp_path), subset={"from_stream": "frames"}, **keys)
    assert load(definition).splits == {"train": ("c2",), "val": ("c4",), "test": ("c8",)}
    with pytest.raises(BenchError, match="from_stream names 'motion'; its streams are frames"):
        load(define(tmp_path, ten(tmp_path), subset={"from_stream": "motion"}, **keys))


def test_wrong_counts_say_which_split_and_how_many(tmp_path: Path) -> None:
    captions = write_pair(tmp_path, zipped=False)
    right = {
        "train": {"clips": 1, "captions": 2},
        "val": {"clips": 1, "captions": 1},
        "all": {"clips": 3, "captions": 4},
    }
    load(define(tmp_path, [captions[0] | {"counts": right}]))
    wrong = {"train": {"clips": 1, "captions": 20}, "test": {"clips": 3}, "val": {"captions": 0}}
    with pytest.raises(BenchError) as caught:
        load(define(tmp_path, [captions[0] | {"counts": wrong}], published_at="the library"))
    sentence = str(caught.value)
    assert "train has 2 captions, 20 were published: 18 missing" in sentence
    assert "test has 1 clip, 3 were published: 2 missing" in sentence
    assert "val has 1 caption, 0 were published: 1 too many" in sentence
    assert "test_videodatainfo.json" in sentence
    assert "Published at: the library" in sentence
    assert f"bench data check dataset={tmp_path}/dataset.yaml" in sentence


def test_absent_files_say_which_where_from_and_what_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "nowhere"))
    for name in ("msvd", "msrvtt", "activitynet", "msrvtt1000", "msrvtt_glrg"):
        with pytest.raises(BenchError) as caught:
            load_corpus(dataset(name), Home(tmp_path))
        sentence = str(caught.value)
        assert str(tmp_path / "nowhere") in sentence
        assert "Published at" in sentence
        assert f"bench data check dataset={name}" in sentence


# --- the committed data sets


@pytest.mark.parametrize(
    ("name", "rule", "sizes"),
    [
        ("msvd", "default", (1200, 100, 670)),
        ("msrvtt", "default", (6513, 497, 2990)),
        ("msrvtt", "vre", (6512, 498, 2990)),
    ],
)
def test_committed_lists_have_the_printed_sizes_and_share_nothing(name: str, rule: str, sizes: tuple[int, ...]) -> None:
    files = dataset(name).split_rule(rule).lists
    ids = [read_list(data_folder("datasets") / name / files[split]) for split in LISTS]
    assert tuple(map(len, ids)) == sizes
    assert len(set().union(*ids)) == sum(sizes)


def test_committed_data_sets_are_data_with_a_page_each() -> None:
    for name in ("msvd", "msrvtt", "activitynet", "msrvtt1000", "msrvtt_glrg"):
        folder = data_folder("datasets") / name
        assert (folder / "README.md").is_file()
        assert not list(folder.rglob("*.py"))
        assert dataset(name).name == name


def test_ids_in_natural_order() -> None:
    assert sorted(["v10#2", "v9#10", "v9#2", "a"], key=natural) == ["a", "v9#2", "v9#10", "v10#2"]
    odd = ["10m²1", "10m1", "9m²1", "²", "v٣", "v3", "va"]
    assert sorted(odd, key=natural) == ["9m²1", "10m1", "10m²1", "v3", "va", "v٣", "²"]
    assert expand("video9..video11") == ["video9", "video10", "video11"]
    assert expand("a..b") == ["a..b"]
    with pytest.raises(BenchError, match=r"has a number of 5,000 digits: at most 18 are read"):
        expand(f"video{'1' * 5000}..video2")


# --- bench data check


def test_a_clean_data_set_has_no_findings(tmp_path: Path) -> None:
    checked = check_dataset(define(tmp_path, ten(tmp_path), splits={"first": [6, 2, 2]}), Home(tmp_path))
    assert checked.findings == []
    assert checked.facts[1:] == [
        "splits: train 6, val 2, test 2 clips",
        "0.00 % of the reference tokens cannot be written with text.tokenizer=strip",
    ]
    assert re.fullmatch(r"10 clips, \d+ captions", checked.facts[0])


def test_check_reads_every_value_of_a_source(tmp_path: Path) -> None:
    """NaN, another width, a file that is none, clips without features, a shape that no method reads: each is an error."""
    captions, folder = ten(tmp_path), tmp_path / "features"
    folder.mkdir()
    definition = define(tmp_path, captions, splits={"first": [6, 2, 2]}, streams={"frames": {"source": "features"}})
    ids = sorted(load_corpus(definition, Home(tmp_path)).clips)

    def checked(spoil: Callable[[Path], object], shape: tuple[int, ...] = (4, 3)) -> tuple[list[str], list[str]]:
        for clip in ids:
            np.save(folder / f"{clip}.npy", np.ones(shape, np.float32))
        spoil(folder / f"{ids[0]}.npy")
        found = check_dataset(definition, Home(tmp_path))
        assert {finding.severity for finding in found.findings} <= {"error"}
        return found.facts[3:], [finding.message for finding in found.findings]

    assert checked(lambda path: None) == ([f"stream frames: 4x3 in {folder}"], [])
    for spoil, words in (
        (lambda path: np.save(path, np.full((4, 3), np.nan, np.float32)), "12 of 12 values are NaN"),
        (lambda path: np.save(path, np.ones((4, 5), np.float32)), "1 clip of another shape"),
        (lambda path: path.write_bytes(b"no array"), "cannot be read"),
        (lambda path: path.unlink(), "1 of 10 clips have no features"),
    ):
        _, (message,) = checked(spoil)
        assert words in message and ids[0] in message
    facts, (message,) = checked(lambda path: None, (3,))
    assert facts == [f"stream frames: 3 in {folder}"]
    assert (
        "read as [frames, width], and this one has the shape [3]; one vector for a clip can be given as one frame"
        in message
    )


def test_words_that_a_model_cannot_write_are_counted(tmp_path: Path) -> None:
    entries = [{"clip": f"c{n}", "captions": ["a red_car stops", "cars stop"]} for n in range(10)]
    checked = check_dataset(define(tmp_path, jsonl(tmp_path, *entries), splits={"first": [6, 2, 2]}), Home(tmp_path))
    assert "20.00 % of the reference tokens cannot be written with text.tokenizer=strip" in checked.facts
    (warning,) = [finding.message for finding in checked.findings if finding.message.startswith("20.0 %")]
    assert "(red_car) can never be written" in warning and "text.tokenizer=ptb leaves 0.0 %" in warning
    entries = [{"clip": f"c{n}", "captions": [f"一个男人在跑步{n}"]} for n in range(10)]
    checked = check_dataset(define(tmp_path, jsonl(tmp_path, *entries), splits={"first": [6, 2, 2]}), Home(tmp_path))
    assert any("no blanks between words" in finding.message for finding in checked.findings)


def test_check_finds_what_a_run_would_stumble_over(tmp_path: Path) -> None:
    entries = [{"clip": f"c{n}", "captions": [f"clip {n}", f"number {n}"]} for n in range(1, 9)]
    entries += [
        {"clip": "c9", "captions": ["clip 1", "number 1"]},
        {"clip": "c10", "captions": ["?!", "tab\there", ""]},
    ]
    definition = define(
        tmp_path,
        jsonl(tmp_path, *entries),
        splits={"first": [6, 2, 2]},
        split_variants={"wide": {"first": [9, 9, 9]}},
        streams={"frames": {"source": "gone.h5"}},
    )
    found = {finding.message.split(":")[0]: finding for finding in check_dataset(definition, Home(tmp_path)).findings}
    assert found["captions without words"].clips == ("c10",)
    assert found["control characters"].clips == ("c10",)
    assert found["empty captions"].clips == ("c10",)
    assert (found["test clips in train"].clips, found["test clips in train"].severity) == (("c9",), "warning")
    assert "gone.h5" in found["stream frames"].message
    assert found["data set mine"].severity == "error", "the variant that asks for too many clips"


def test_check_of_damaged_files_is_one_finding_under_all_rules(tmp_path: Path) -> None:
    captions = ten(tmp_path)
    (tmp_path / "c.jsonl").write_text('{"clip": ')
    definition = define(tmp_path, captions, splits={"first": [6, 2, 2]}, split_variants={"b": {"first": [1, 1, 1]}})
    findings = check_dataset(definition, Home(tmp_path)).findings
    assert [finding.severity for finding in findings] == ["error"]
    assert "line 1 is not JSON" in findings[0].message


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ('{"clip": "c1", "captions": ["a"], "caption": "b"}', "needs `clip` and either `caption` or `captions`"),
        ('{"clip": null, "caption": "x"}', "clip id None: a clip id must be text or a whole number"),
        ('{"clip": ["a"], "caption": "x"}', "clip id \\['a'\\]: a clip id must be text"),
        ('{"clip": "a\\ud800", "caption": "x"}', "control characters are not allowed"),
        ('{"clip": "new", "caption": "x", "start": NaN, "end": 1}', "start and end of clip new must be seconds"),
        ("[" * 100_000, "nests too deeply"),
    ],
)
def test_an_odd_line_is_named(tmp_path: Path, entry: str, words: str) -> None:
    captions = ten(tmp_path)
    with (tmp_path / "c.jsonl").open("a", encoding="utf-8") as file:
        file.write(entry + "\n")
    with pytest.raises(BenchError, match=f"line 11.*{words}"):
        load(define(tmp_path, captions, splits={"first": [6, 2, 2]}))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('clip,"caption"x\n', "line 1 is not the header of a table"),
        ("clip,caption\nc1,a man, running\n", "line 2 has too many columns: text with commas needs quotes"),
    ],
)
def test_a_table_with_loose_quotes_is_refused(tmp_path: Path, table: str, words: str) -> None:
    (tmp_path / "c.csv").write_text(table, encoding="utf-8")
    captions = [{"format": "csv", "files": {"captions": "c.csv"}}]
    with pytest.raises(BenchError, match=words):
        load(define(tmp_path, captions, splits={"first": [1, 0, 0]}))


def test_a_coco_image_may_have_no_split(tmp_path: Path) -> None:
    content = {"images": [{"id": 1, "split": None}], "annotations": [{"id": 1, "image_id": 1, "caption": "a dog"}]}
    (tmp_path / "c.json").write_text(json.dumps(content), encoding="utf-8")
    captions = [{"format": "coco", "files": {"captions": "c.json"}}]
    assert load(define(tmp_path, captions, splits={"first": [1, 0, 0]})).splits["train"] == ("1",)


def test_activitynet_needs_an_object(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]", encoding="utf-8")
    captions = [{"format": "activitynet", "files": dict.fromkeys(("train", "val_1", "val_2"), "a.json")}]
    with pytest.raises(BenchError, match=r"a\.json is not in the layout of ActivityNet Captions"):
        load(define(tmp_path, captions, splits={"first": [1, 0, 0]}))


def test_a_range_that_would_fill_the_memory_is_refused() -> None:
    with pytest.raises(BenchError, match=r"names 100,000,000 ids: at most 1,000,000"):
        expand("video0..video99999999")
    with pytest.raises(BenchError, match=r"names 1,000,001 ids: at most 1,000,000"):
        expand("v0..v1000000")


def test_the_next_command_names_the_file_of_ones_own_data_set(tmp_path: Path) -> None:
    definition = define(tmp_path, [{"format": "jsonl", "files": {"captions": "gone.jsonl"}}])
    with pytest.raises(BenchError, match=rf"then: bench data check dataset={tmp_path}/dataset\.yaml$"):
        load(definition)
    assert dataset("msvd").called == "msvd"
    blank = tmp_path / "with a blank"
    blank.mkdir()
    assert define(blank, [{"format": "jsonl"}]).called == f"'{blank}/dataset.yaml'"
