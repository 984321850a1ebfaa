"""Caption files in the layouts that people have: each is told by its shape, and an unknown one is answered with what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import BenchError
from bench.cell.external import evaluate
from bench.data.check import check_dataset
from bench.data.corpus import load_corpus, read_source
from bench.data.readers.predictions import read_captions
from bench.data.source import Source
from bench.declare.dataset import CaptionSource
from bench.declare.registry import dataset, read_definition
from bench.home import Home
from bench.records.store import read_predictions

TWO = {"v0": ["a dog runs", "the dog is fast"], "v1": ["a cat sleeps", "one cat, asleep"]}
RECORDS = [(clip, text) for clip, sentences in TWO.items() for text in sentences]


def source(path: Path, content: Any, **choice: Any) -> Source:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_source(CaptionSource(files={"captions": path.name}, **choice), {"captions": path}, "mine")


def captions(found: Source) -> dict[str, list[str]]:
    return {clip: [caption.text for caption in sentences] for clip, sentences in found.captions.items()}


def table(mark: str, *head: str) -> str:
    return "\n".join(mark.join(row) for row in ([head] if head else []) + [(c, t.replace(",", "")) for c, t in RECORDS])


CLIPS = {
    "by clip": (TWO, "from `key`, caption from `value`"),
    "objects by clip": ({clip: {"captions": texts} for clip, texts in TWO.items()}, "caption from `captions`"),
    "a caption a record": ([{"video": f"{c}.mp4", "caption": t} for c, t in RECORDS], "clip from `video`"),
    "captions a record": ([{"video": f"all/{c}.mp4", "caption": t} for c, t in TWO.items()], "(2 x text)"),
    "vatex": ([{"videoID": c, "enCap": t, "chCap": ["狗"]} for c, t in TWO.items()], "holds VATEX"),
    "karpathy": (
        {
            "dataset": "videos",
            "images": [
                {
                    "filename": f"{c}.mp4",
                    "split": "train",
                    "sentences": [{"raw": one, "tokens": one.split()} for one in t],
                }
                for c, t in TWO.items()
            ],
        },
        "Karpathy",
    ),
    "tokens": (
        {"videos": [{"video_id": c, "sentences": [{"raw": one} for one in t]} for c, t in TWO.items()]},
        "caption from `sentences.raw`",
    ),
    "wrapped": ({"version": 1, "annotations": [{"image_id": c, "caption": t} for c, t in RECORDS]}, "`annotations`"),
    "lines without their ending": (
        "\n".join(json.dumps({"video_id": c, "sentence": t}) for c, t in RECORDS),
        "4 lines of JSON",
    ),
}
TABLES = {
    "retrieval.csv": (
        "key,vid_key,video_id,sentence\n" + "\n".join(f'ret{n},msr{c},{c},"{t}"' for n, (c, t) in enumerate(RECORDS)),
        "MSR-VTT's retrieval split",
    ),
    "semicolons.csv": (table(";", "video", "description"), "parted by semicolons"),
    "tabs.tsv": (table("\t", "video_id", "caption"), "parted by tabs"),
    "bare.txt": (table("\t"), "clip from `first`"),
    "bare.csv": ("\n".join(f'{c},"{t}"' for c, t in RECORDS), "clip from `first`"),
}


@pytest.mark.parametrize(("content", "said"), CLIPS.values(), ids=CLIPS)
def test_json_is_told_by_its_shape(tmp_path: Path, content: Any, said: str) -> None:
    found = source(tmp_path / "c.json", content)
    assert captions(found) == TWO
    (sentence,) = found.seen
    assert said in sentence


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_told_by_their_header_or_their_two_columns(tmp_path: Path, name: str) -> None:
    content, said = TABLES[name]
    found = source(tmp_path / name, content)
    plain = {clip: [text.replace(",", "") for text in texts] for clip, texts in captions(found).items()}
    assert plain == {clip: [text.replace(",", "") for text in texts] for clip, texts in TWO.items()}
    assert said in found.seen[0]


EVENTS = [("v0", 1.0, 2.5, "a dog runs"), ("v0", 3.0, 9.0, "the dog is fast"), ("v1", 0.0, 4.0, "a cat sleeps")]
CUT = {
    "youcook": {
        "database": {
            video: {
                "subset": "training",
                "annotations": [{"id": 0, "segment": [s, e], "sentence": t} for v, s, e, t in EVENTS if v == video],
            }
            for video in ("v0", "v1")
        }
    },
    "activitynet": {
        video: {
            "duration": 9.0,
            "timestamps": [[s, e] for v, s, e, _ in EVENTS if v == video],
            "sentences": [t for v, _, _, t in EVENTS if v == video],
        }
        for video in ("v0", "v1")
    },
    "rows": [{"video_id": v, "start": s, "end": e, "sentence": t} for v, s, e, t in EVENTS],
    "table": "video_id,start,end,sentence\n" + "\n".join(f"{v},{s},{e},{t}" for v, s, e, t in EVENTS),
}


@pytest.mark.parametrize("content", CUT.values(), ids=CUT)
def test_events_become_clips_with_their_times(tmp_path: Path, content: Any) -> None:
    found = source(tmp_path / "events.txt", content)
    clips = [(clip.video, clip.start, clip.end, captions(found)[clip.id][0]) for clip in found.clips.values()]
    assert clips == EVENTS
    assert list(found.clips) == ["v0#0", "v0#1", "v1#0"]


def test_tvc_has_clips_of_its_own(tmp_path: Path) -> None:
    line = {"vid_name": "friends_1", "duration": 60.0, "ts": [10.2, 18.5], "clip_id": 87604}
    line["descs"] = [
        {"desc": "a man laughs", "desc_id": 7, "type": "v"},
        {"desc": "he laughs", "desc_id": 8, "type": "t"},
    ]
    found = source(tmp_path / "tvc.jsonl", json.dumps(line))
    clip = found.clips["87604"]
    assert (clip.video, clip.start, clip.end) == ("friends_1", 10.2, 18.5)
    assert [caption.id for caption in found.captions["87604"]] == ["7", "8"]
    assert "holds TVC" in found.seen[0]


def test_published_layouts_need_no_format_either(tmp_path: Path) -> None:
    coco = {"images": [{"id": 1, "file_name": "v0.mp4"}], "annotations": [{"id": 3, "image_id": 1, "caption": "a dog"}]}
    assert captions(source(tmp_path / "a.json", coco)) == {"1": ["a dog"]}
    msrvtt = {"videos": [{"video_id": "video0"}], "sentences": [{"video_id": "video0", "caption": "a dog"}]}
    assert captions(source(tmp_path / "b.json", msrvtt)) == {"video0": ["a dog"]}
    lines = "# a comment\n-4wsuPCjDBc_5_15 a squirrel eats\n-4wsuPCjDBc_5_15 an animal eats\n"
    assert list(source(tmp_path / "c.txt", lines).clips) == ["-4wsuPCjDBc_5_15"]
    corpus = "VideoID,Start,End,Language,Description\nabcdefghijk,1,4,English,a dog runs\nabcdefghijk,1,4,German,Hund\n"
    assert captions(source(tmp_path / "d.csv", corpus)) == {"abcdefghijk_1_4": ["a dog runs"]}


def test_the_split_of_retrieval_is_read_from_its_tables(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({f"video{n}": ["a dog runs"] for n in range(5)}))
    (tmp_path / "train.csv").write_text("video_id\nvideo4\nvideo1\n")
    (tmp_path / "test.csv").write_text('key,vid_key,video_id,sentence\nret0,msr2,video2,"a, b"\nret1,msr2,video2,c\n')
    (tmp_path / "val.txt").write_text("video0\n")
    lists = "{train: train.csv, val: val.txt, test: test.csv}"
    (tmp_path / "d.yaml").write_text(f"name: d\ncaptions: [{{files: {{captions: c.json}}}}]\nsplits: {lists}\n")
    corpus = load_corpus(read_definition(tmp_path / "d.yaml"), Home(tmp_path))
    assert corpus.splits == {"train": ("video1", "video4"), "val": ("video0",), "test": ("video2",)}


def test_vatex_as_its_page_describes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of its layout, written here: the released ones are not at hand."""
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    definition = dataset("vatex")
    (choice,) = definition.captions
    (tmp_path / "vatex").mkdir()
    for number, text in enumerate(choice.files.values()):
        clip = {"videoID": f"Ptf_2VRj-V{number}_000122_000132", "enCap": [f"caption {n}" for n in range(10)]}
        chinese = {} if "english" in text else {"chCap": ["狗在跑"] * 10}
        definition.resolve(text, Home(tmp_path)).write_text(json.dumps([clip | chinese]))
    with pytest.raises(BenchError, match="train has 1 clip, 25,991 were published"):
        load_corpus(definition, Home(tmp_path))
    uncounted = choice.model_copy(update={"counts": {}})
    corpus = load_corpus(definition.model_copy(update={"captions": [uncounted]}), Home(tmp_path))
    assert corpus.splits["val"] == ("Ptf_2VRj-V1_000122_000132",)
    assert corpus.clips[corpus.splits["val"][0]].film == "Ptf_2VRj-V1"
    assert {len(sentences) for sentences in corpus.captions.values()} == {10}


UNKNOWN = [
    ([{"vid_nr": "a1", "utterances": ["a dog runs fast"]}], "{clip: vid_nr, caption: utterances}"),
    ([{"who": "a1", "inside": [{"said": "a dog runs fast", "by": 3}]}], "{clip: who, caption: inside.said}"),
    ({"a1": {"said": "a dog runs fast"}, "a2": {"said": "a cat sleeps"}}, "{clip: key, caption: said}"),
    ("nr;was\na1;ein Hund rennt\na2;eine Katze\n", "{clip: nr, caption: was}"),
    ("video,caption text\na1,a dog runs fast\n", "{clip: video, caption: caption text}"),
    ("video_id\tcaption in english\na1\ta dog runs fast\n", "{clip: video_id, caption: caption in english}"),
]


@pytest.mark.parametrize(("content", "map_"), UNKNOWN)
def test_an_unknown_layout_is_answered_with_the_fields_that_read_it(tmp_path: Path, content: Any, map_: str) -> None:
    with pytest.raises(BenchError) as refused:
        source(tmp_path / "c.dat", content)
    assert f"fields: {map_}" in str(refused.value)
    found = source(tmp_path / "c.dat", content, fields=yaml.safe_load(map_))
    assert next(iter(found.clips)) == "a1"
    assert len(found.captions["a1"][0].text.split()) > 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (["a dog", "a cat"], "it is 2 x text"),
        (3, "it is a number"),
        ([{"video": "a", "caption": "a dog"}, {"video": "b"}], "item 2 needs `video` and `caption`, as"),
        (
            [{"video": f"v{n}", "caption": "a dog"} for n in range(60)] + [{"video": "b"}],
            "item 61 needs `video` and `cap",
        ),
        ('{"v0": ["a"], "v0": ["b"]}', "v0"),
        ([{"video": "a", "caption": "x"}, {"video": "a", "caption": 3}], "is 3: a caption must be text"),
        (
            [{"clip": "a", "caption": "x", "start": 1}],
            "item 1: clip a has a start and not an end, so that it would be the whole",
        ),
        ([{"clip": "a", "caption": "x", "end": 1, "video": "v"}], "clip a has an end and not a start"),
    ],
)
def test_what_is_no_captions_is_refused_with_what_it_is(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(BenchError, match=words):
        source(tmp_path / "c.json", content)


def test_a_table_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"c\.csv has several columns caption: give each column a name of its own"):
        source(tmp_path / "c.csv", "clip,caption,caption\na,a dog,a cat\n")


def test_a_declared_format_of_another_shape_is_answered_with_the_right_one(tmp_path: Path) -> None:
    vatex = [{"videoID": "a", "enCap": ["a dog"]}]
    for name in ("coco", "msrvtt"):
        files = {"captions" if name == "coco" else "data": tmp_path / "v.json"}
        (tmp_path / "v.json").write_text(json.dumps(vatex))
        with pytest.raises(BenchError, match=r"looks like VATEX .*: say `format: vatex`"):
            read_source(CaptionSource(format=name, files=dict.fromkeys(files, "v.json")), files, "mine")


def test_two_files_of_one_name_are_not_made_one_clip_and_lists_may_name_files(tmp_path: Path) -> None:
    found = source(tmp_path / "c.json", [{"video": "a/v0.mp4", "caption": "x"}, {"video": "a/v0.mp4", "caption": "y"}])
    assert (list(found.clips), found.aliases) == (["v0"], {"a/v0.mp4": "v0"})
    with pytest.raises(
        BenchError, match=r"item 2 is of b/v0\.mp4, and an earlier one of a/v0\.mp4: both would be the clip v0"
    ):
        source(tmp_path / "c.json", [{"video": "a/v0.mp4", "caption": "x"}, {"video": "b/v0.mp4", "caption": "y"}])


def test_a_damaged_file_of_a_known_layout_is_named_with_what_it_lacks(tmp_path: Path) -> None:
    damaged = {"images": [{"id": 1}], "annotations": [{"image_id": 1}]}
    for choice in ({}, {"format": "coco"}):
        with pytest.raises(BenchError, match=r"not in the layout of COCO captions.*: `caption` is missing$"):
            source(tmp_path / "c.json", damaged, **choice)


def test_data_check_says_what_was_taken_for_what(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps({f"v{n}": ["a dog runs"] for n in range(4)}))
    (tmp_path / "d.yaml").write_text("name: d\ncaptions: [{files: {captions: c.json}}]\nsplits: {first: [2, 1, 1]}\n")
    checked = check_dataset(read_definition(tmp_path / "d.yaml"), Home(tmp_path))
    assert any("c.json holds records, an object of 4 keys (v0, v1, ..)" in fact for fact in checked.facts)


# --- predictions

WRITTEN = {"v1": "a dog, running", "v2": "a cat"}
PREDICTIONS = {
    "a.json": [{"image_id": f"{clip}.mp4", "caption": text} for clip, text in WRITTEN.items()],
    "b.json": [{"video_id": clip, "caption": text} for clip, text in WRITTEN.items()],
    "c.json": {clip: [text] for clip, text in WRITTEN.items()},
    "d.json": {clip: [{"image_id": 1, "caption": text}] for clip, text in WRITTEN.items()},
    "e.json": {"predictions": [{"id": clip, "text": text} for clip, text in WRITTEN.items()], "model": "mine"},
    "f.txt": "".join(f"{clip}\t{text}\n" for clip, text in WRITTEN.items()),
    "g.csv": "video;prediction\n" + "".join(f"{clip};{text}\n" for clip, text in WRITTEN.items()),
    "h.jsonl": "".join(json.dumps({"vid": clip, "hypothesis": text}) + "\n" for clip, text in WRITTEN.items()),
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_predictions_in_the_layouts_of_others(tmp_path: Path, name: str) -> None:
    content = PREDICTIONS[name]
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    assert {entry.clip: entry.texts[0] for entry in read_captions(tmp_path / name)} == WRITTEN


def test_predictions_of_events_are_matched_by_their_times(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(CUT["activitynet"]))
    (tmp_path / "d.yaml").write_text("name: d\ncaptions: [{files: {captions: c.json}}]\nsplits: {first: [1, 0, 2]}\n")
    definition, home = read_definition(tmp_path / "d.yaml"), Home(tmp_path / "home")
    assert load_corpus(definition, home).splits["test"] == ("v0#1", "v1#0")
    results = {
        "v0": [{"sentence": "fast", "timestamp": [3.0, 9.004]}],
        "v_v1": [{"sentence": "cat", "timestamp": [0, 4]}],
    }
    path = tmp_path / "r.json"
    path.write_text(json.dumps({"version": "VERSION 1.0", "results": results, "external_data": {"used": False}}))

    def no_java(config: dict[str, Any], root: str, scorer: Any) -> None:
        raise BenchError("there is no Java")

    with pytest.raises(BenchError, match="read and its captions fit"):
        evaluate(path, definition, "test", "mine", home, score=no_java)
    (written,) = home.results.rglob("predictions.jsonl")
    assert read_predictions(written, ["v0#1", "v1#0"]) == {"v0#1": "fast", "v1#0": "cat"}
    results["v0"][0]["timestamp"] = [3.2, 9]
    path.write_text(json.dumps({"results": results}))
    with pytest.raises(BenchError, match=r"1 missing \(v0#1\).*1 not in the split \(v0 3\.2 to 9\.0 s\)"):
        evaluate(path, definition, "test", "mine", home, score=no_java)


def test_predictions_with_unusual_fields_are_answered_with_the_command(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"nr": "v1", "wrote": "a dog runs"}\n')
    with pytest.raises(BenchError, match=r"say so with fields\.clip=nr fields\.caption=wrote"):
        read_captions(path)
    assert read_captions(path, {"clip": "nr", "caption": "wrote"})[0].texts == ["a dog runs"]
    with pytest.raises(BenchError, match='unknown field "split"'):
        read_captions(path, {"split": "nr"})
    path.write_text('{"vid": "v1", "captions": ["a", "b"]}\n')
    with pytest.raises(BenchError, match="line 1 has 2 captions: give one"):
        read_captions(path)
