"""Everything that reads what others wrote: sound files, and the reader to which they are given damaged."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from films import film

from bench import BenchError
from bench.cell.checkpoint import load as load_checkpoint
from bench.conformance.workplace import Bench
from bench.data.draft import draft
from bench.data.readers import FORMATS
from bench.data.readers import read as read_files
from bench.data.readers.predictions import read_captions
from bench.data.splits import read_list
from bench.declare.card import MethodCard
from bench.declare.dataset import DatasetDefinition
from bench.declare.grammar import plan_file
from bench.declare.registry import methods_folder, read_definition, read_model
from bench.disk.digests import FileDigests
from bench.disk.locks import Note
from bench.features.cache import Cache, CacheWriter
from bench.features.check import check_cache
from bench.features.formats import open_source
from bench.features.names import read_ids
from bench.features.sidecar import read_sidecar, sidecar_path
from bench.features.specs import Preprocessing
from bench.features.video import UnreadableVideoError, read_frames
from bench.home import CHECKOUT, Home, data_folder
from bench.pages.files import BEGIN, END, between_markers
from bench.records.clip_scores import read_columns, read_scores, read_statistics, write_scores
from bench.records.curves import finished_curves, read_curves
from bench.records.figure_data import Shown, Trace, read_trace, write_trace
from bench.records.folds import read_folds
from bench.records.further import add_further, read_further
from bench.records.store import prediction_ids, read_predictions, read_record
from bench.reports.published import load_paper
from bench.reproduction.declaration import Declarations
from bench.study.declaration import Study
from bench.study.declaration import studies as declared_studies
from bench.tuning.study import read as read_report


@dataclass(frozen=True)
class Target:
    """A reader: it gets the path of a file called `file`, made of a damaged one of `seeds`. It may return anything, or raise
    BenchError or one of `refusals`."""

    name: str
    file: str
    seeds: tuple[bytes, ...]
    read: Callable[[Path], object]
    refusals: tuple[type[Exception], ...] = ()


def targets(folder: Path) -> Iterator[Target]:
    """All readers; `folder` takes what sound files are made in."""
    yield from _captions()
    yield from _declarations()
    yield from _records(folder)
    yield from _features(folder)
    yield from _others(folder)


def _lines(*rows: Mapping[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _table(*rows: Mapping[str, Any]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _zipped(content: bytes, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("data.json", content)
    return file.getvalue()


def _captions() -> Iterator[Target]:
    """Caption files of data sets and of others' systems."""
    rows = [
        {"clip": "a", "caption": "a cat sleeps", "split": "train", "start": 0.5, "end": 2, "id": 7},
        {"clip": "b", "caption": "a dog, running", "split": "val", "start": 1, "end": 3, "id": 8},
        {"clip": "c", "caption": "eine Katze schläft", "split": "test", "start": 0, "end": 1e3, "id": 9},
    ]
    many = [{"clip": "a", "captions": ["a cat", "the cat sleeps"]}, {"clip": "b", "captions": ["a dog"], "video": "v"}]
    coco = {
        "images": [{"id": n, "file_name": f"{n}.mp4", "split": "train"} for n in range(3)],
        "annotations": [{"id": n, "image_id": n % 3, "caption": "a man sings"} for n in range(5)],
    }
    msrvtt = {
        "videos": [{"video_id": f"video{n}", "split": "train", "url": "u", "start time": 1.0} for n in range(3)],
        "sentences": [{"video_id": f"video{n % 3}", "sen_id": n, "caption": "a man sings"} for n in range(4)],
    }
    events = {
        f"v_{n}": {"duration": 9.5, "timestamps": [[0, 3.5], [2, 9]], "sentences": ["He runs.", " She sings."]}
        for n in range(3)
    }
    corpus = [
        {"VideoID": "xx", "Start": 1, "End": 9, "WorkerID": 3, "Language": "English", "Description": "A man, singing."},
        {"VideoID": "yy", "Start": 2, "End": 5, "WorkerID": 4, "Language": "German", "Description": "Ein Mann."},
    ]

    def of(form: str, role: str) -> Callable[[Path], object]:
        return lambda path: FORMATS[form].read({role: path})

    coco_bytes, msrvtt_bytes = json.dumps(coco).encode(), json.dumps(msrvtt, indent=1).encode()
    yield Target("captions.jsonl", "c.jsonl", (_lines(*rows), _lines(*many)), of("jsonl", "captions"))
    yield Target("captions.csv", "c.csv", (_table(*rows),), of("csv", "captions"))
    yield Target("captions.coco", "c.json", (coco_bytes, _zipped(coco_bytes)), of("coco", "captions"))
    yield Target("captions.msrvtt", "m.json", (msrvtt_bytes, _zipped(msrvtt_bytes, 0)), of("msrvtt", "data"))
    yield Target("captions.msvd_csv", "m.csv", (_table(*corpus),), of("msvd_csv", "captions"))
    yield Target(
        "captions.msvd_txt", "m.txt", (b"# c\nxx_1_9 a man sings\nyy_2_5 a dog\n",), of("msvd_txt", "captions")
    )
    three = b"vid1\ta man sings\nvid2\ta dog\nvid2\tdogs run\n"
    yield Target("captions.msvd_split", "train.txt", (three,), lambda path: _split_files(path, {}))
    names = b"xx_1_9 vid1\nyy_2_5 vid2\nzz_1_2 vid3\nab_3_4 vid4\n"
    yield Target(
        "captions.msvd_mapping", "map.txt", (names,), lambda path: _split_files(_beside(path, three), {"mapping": path})
    )
    plain = json.dumps(events).encode()
    yield Target(
        "captions.activitynet",
        "a.json",
        (plain, _zipped(plain)),
        lambda path: FORMATS["activitynet"].read({"train": path, "val_1": _beside(path, b"{}")}),
    )
    lists = [
        {"a": ["a cat", "the cat"], "b": ["a dog"]},
        {"a": {"captions": ["a cat"], "split": "train"}, "b": {"captions": ["a dog"]}},
        [{"video": "a.mp4", "caption": ["a cat", "cats"]}, {"video": "b.mp4", "caption": "a dog"}],
        [{"videoID": "a", "enCap": ["a cat"], "chCap": ["猫"]}],
        rows,
    ]
    jsons = (*(json.dumps(one).encode() for one in lists), coco_bytes, msrvtt_bytes, plain)
    yield Target("captions recognised.json", "c.json", jsons, _recognised)
    yield Target("captions recognised.jsonl", "c.jsonl", tuple(map(_lines_of, (rows, many, lists[2]))), _recognised)
    tables = (_table(*rows), _table(*corpus), b"name\tdescription\nv1\ta cat\nv2\ta dog\n")
    yield Target("captions recognised.csv", "c.csv", tables, _recognised)
    long = json.dumps({f"v{number}": [f"a cat {number}"] for number in range(12)}).encode()
    yield Target("draft", "c.json", (long,), lambda path: draft("mine", {"captions": path}, {}, path.parent))
    yield Target("split list", "list.txt", (b"# train\nvideo0..video9\nclip_7\nofficial:val_1\n",), read_list)
    said = [{"clip": row["clip"], "caption": row["caption"]} for row in rows]
    yield Target("made.jsonl", "p.jsonl", (_lines(*said),), read_captions)
    yield Target(
        "made.json",
        "p.json",
        (json.dumps(said).encode(), json.dumps({row["clip"]: row["caption"] for row in said}).encode()),
        read_captions,
    )
    yield Target("made.csv", "p.csv", (_table(*said),), read_captions)


def _lines_of(rows: Any) -> bytes:
    return _lines(*rows)


def _recognised(path: Path) -> None:
    for read in (
        lambda: read_files("auto", {"captions": path}, {"clip": "clip", "caption": "caption"}),
        lambda: read_captions(path),
    ):
        with suppress(BenchError):  # of many layouts these are not for all
            read()
    read_files("auto", {"captions": path}, {})


def _beside(path: Path, content: bytes) -> Path:
    """A sound file beside a damaged one."""
    other = path.with_name(f"sound-{path.name}")
    other.write_bytes(content)
    return other


def _split_files(train: Path, others: dict[str, Path]) -> object:
    files = {"train": train, "val": train.with_name("val.txt"), "test": train.with_name("test.txt")}
    files["val"].write_bytes(b"vid3\ta cat\n")
    files["test"].write_bytes(b"vid4\ta cow\n")
    return FORMATS["msvd_split"].read({**files, **others})


def _declarations() -> Iterator[Target]:
    """What is declared in YAML."""
    sets = tuple(path.read_bytes() for path in sorted(data_folder("datasets").glob("*/dataset.yaml")))
    methods = methods_folder()
    assert methods is not None
    cards = tuple(path.read_bytes() for path in sorted(methods.glob("*/card.yaml")))
    declared = tuple(path.read_bytes() for path in sorted(methods.glob("*/reproduce.yaml")))
    plans = (
        b"methods: [salstm, recnet:global]\ndataset: msvd\nseeds: [0, 1]\nrecnet.lambda: 0.2\ntrain: {epochs: 5}\n",
    )
    studies = tuple(path.read_bytes() for _, path in declared_studies().values())
    printed = tuple(path.read_bytes() for path in sorted(data_folder("published").glob("*.yaml")))[:2]
    yield Target("dataset.yaml", "dataset.yaml", sets, _definition)
    yield Target("card.yaml", "card.yaml", cards, lambda path: read_model(path, MethodCard))
    yield Target("reproduce.yaml", "reproduce.yaml", declared, lambda path: read_model(path, Declarations))
    yield Target("study.yaml", "study.yaml", studies, lambda path: read_model(path, Study))
    yield Target("published.yaml", "paper.yaml", printed, load_paper)
    yield Target("plan.yaml", "plan.yaml", plans, lambda path: [value.read() for value in plan_file(path).values()])


def _definition(path: Path) -> DatasetDefinition:
    definition = read_definition(path)
    for name in definition.streams:
        if source := definition.streams[name].source:
            definition.resolve(source, Home(path.parent))
    return definition


def _records(folder: Path) -> Iterator[Target]:
    """What a cell leaves."""
    record = sorted((CHECKOUT / "results").glob("*/*/*/record.json"))[0]
    clips = ["a", "b", "c"]
    said = _lines(*({"clip": clip, "caption": "a cat", "log_probability": -1.5} for clip in clips))
    statistics = {"bleu": np.ones((3, 10)), "meteor": np.ones((3, 23))}
    write_scores(folder / "s.csv", clips, {"cider": dict.fromkeys(clips, 0.5)}, statistics)
    curves = b"phase,epoch,captions,seconds,name,value\nbase,0,64,1.5,loss,2.25\nbase,0,64,1.5,val_cider_tokens,12.5\n"
    rows = [{"clip": clip, "fold": number, "film": number} for number, clip in enumerate(clips)]
    boxes = (((1.0, 2.0, 3.0, 4.0),), ())
    shown = Shown("a", "a cat", (0, 3), boxes, {"one": {"caption": "a cat"}}, np.zeros((2, 4, 5, 3), np.uint8))
    write_trace(folder, Trace("figure", {"one": "k"}, {"split": "test"}, clips=(shown,)))
    trial = {"number": 0, "key": "k", "point": {"lambda": 0.1}, "value": 12.5, "state": "completed"}
    report = {
        "row": "recnet:local",
        "how": {},
        "space": {"lambda": [0.1]},
        "config": {"method": "recnet"},
        "budget": 64,
    }
    report |= {"trials": [{**trial, "captions": 64, "seconds": 1.5, "curve": [[64, 12.5]]}], "chosen": 0}
    yield Target("record.json", f"{record.parent.name}/record.json", (record.read_bytes(),), read_record)
    yield Target("predictions.jsonl", "predictions.jsonl", (said,), lambda path: _both(path, clips))
    yield Target("clip_scores.csv", "clip_scores.csv", ((folder / "s.csv").read_bytes(),), _all_scores)
    yield Target(
        "curves.csv",
        "curves.csv",
        (curves,),
        lambda path: _each(lambda: finished_curves(path.parent), lambda: read_curves(path.parent)),
    )
    yield Target("folds.csv", "folds.csv", (_table(*rows),), lambda path: read_folds(path.parent))
    predictions = folder / "predictions.jsonl"
    predictions.write_bytes(said)
    further = {"clip_score": {"value": 0.5, "signature": "CLIPScore|n:3"}}
    add_further(folder, further)  # type: ignore[arg-type]

    def scored(path: Path) -> object:
        path.with_name("predictions.jsonl").write_bytes(said)
        return read_further(path.parent)

    yield Target("further.json", "further.json", ((folder / "further.json").read_bytes(),), scored)
    yield Target("tuning report", "r.json", (json.dumps(report).encode(),), read_report)
    parts = {name: (folder / name).read_bytes() for name in ("figure.json", "figure.npz")}

    def traced(path: Path) -> object:
        (other,) = parts.keys() - {path.name}
        path.with_name(other).write_bytes(parts[other])
        return read_trace(path.parent, "figure")

    for name, content in parts.items():
        yield Target(name, name, (content,), traced)


def _each(*calls: Callable[[], object]) -> None:
    """All of the calls; what one refuses, another may take."""
    refused = None
    for call in calls:
        try:
            call()
        except Exception as error:  # judged by the caller
            refused = error
    if refused is not None:
        raise refused


def _both(path: Path, clips: list[str]) -> None:
    _each(lambda: read_predictions(path, clips), lambda: prediction_ids(path))


def _all_scores(path: Path) -> None:
    _each(lambda: read_scores(path), lambda: read_statistics(path), lambda: read_columns(path, ["cider"]))


def _features(folder: Path) -> Iterator[Target]:
    """Features as others published them, and the caches that are made of them."""
    rng = np.random.default_rng(0)
    clips = [f"vid{number}" for number in range(6)]
    values = {clip: rng.random((4, 3)).astype(np.float32) for clip in clips}

    def npy() -> bytes:
        file = io.BytesIO()
        np.save(file, values["vid0"])
        return file.getvalue()

    def npz(save: Callable[..., None]) -> bytes:
        file = io.BytesIO()
        save(file, **{clip: values[clip] for clip in clips[:1]})
        return file.getvalue()

    def h5(write: Callable[[h5py.File], object]) -> bytes:
        path = folder / "made.h5"
        with h5py.File(path, "w") as file:
            write(file)
        return path.read_bytes()

    def matrix(file: h5py.File) -> None:
        file["features"] = np.stack([*values.values()])
        file["ids"] = [clip.encode() for clip in clips]

    def per_clip(file: h5py.File) -> None:
        for clip, array in values.items():
            file.create_dataset(clip, data=array, compression="gzip")

    rows = "".join(
        f"{clip}_{t}," + ",".join(f"{value:.3f}" for value in row) + "\n"
        for clip in clips
        for t, row in enumerate(values[clip])
    )
    yield Target("feature.npy", "vid0.npy", (npy(),), lambda path: _opened(path.parent))
    yield Target(
        "feature.npz", "vid0.npz", (npz(np.savez), npz(np.savez_compressed)), lambda path: _opened(path.parent)
    )
    yield Target("features.h5", "features.h5", (h5(matrix), h5(per_clip)), _opened)
    yield Target("features.csv", "features.csv", (rows.encode(),), _opened)
    yield Target("ids of features", "ids.txt", (b"vid0 a\nvid1 b\n", b"vid0\nvid1\n"), read_ids)
    cache = folder / "little" / "frames.h5"
    with CacheWriter(cache, "frames", (4, 3), True, "float16", clips, {"encoder": {"name": "x"}}) as writer:
        for clip in clips:
            writer.write(clip, values[clip].astype(np.float16))
    sidecar = sidecar_path(cache).read_bytes()

    def cached(path: Path) -> None:
        sidecar_path(path).write_bytes(sidecar)
        with Cache(path) as found:
            _each(lambda: check_cache(path, clips), lambda: found.load(clips))

    yield Target("cache.h5", "frames.h5", (cache.read_bytes(),), cached)
    yield Target("sidecar.json", "frames.json", (sidecar,), read_sidecar)


def _opened(path: Path) -> None:
    source = open_source(path, "auto", None, len)
    try:
        for number in range(min(len(source.names), 4)):
            try:
                source.shape(number)
                source.read(number)
            except (OSError, RuntimeError, ValueError):  # what importers turn into a sentence about the clip
                continue
    finally:
        source.close()


def _others(folder: Path) -> Iterator[Target]:
    """Checkpoints, resume states, what processes note for each other, pages, videos."""
    (folder / "bench").mkdir()
    bench = Bench("mplstm", folder / "bench", ("train.epochs=1",))
    cell, _ = bench.run()
    checkpoint = (cell.folder(bench.home) / "checkpoint.safetensors").read_bytes()
    yield Target("checkpoint", "checkpoint.safetensors", (checkpoint,), load_checkpoint)
    yield Target("digests.json", ".bench/digests.json", (b'{"/a/b": [3, 4, "ff"]}\n',), _digests)
    yield Target("note", "12", (b"host 12 3456\nshapes sqlite:///x.db",), lambda path: Note(path.parent, "x").left())
    page = f"# A title\n\n{BEGIN}\n| a | b |\n{END}\n\nwords of ours\n".encode()
    yield Target("page.md", "page.md", (page,), lambda path: between_markers(path, "new"))
    scale = Preprocessing((16, 16), None, "BILINEAR", mean=0.0, deviation=1.0)
    films = (film(folder / "a.mkv", 5).read_bytes(), film(folder / "b.avi", 4, codec="mpeg4").read_bytes())
    yield Target("video", "v.mkv", films, lambda path: read_frames(path, 4, scale), (UnreadableVideoError,))


def _digests(path: Path) -> None:
    home = Home(path.parent.parent)
    digests = FileDigests(home)
    digests.of(path)
    digests.save()
