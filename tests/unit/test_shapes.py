"""The embedded corpus: frozen, made clip by clip, with the planted troubles that its README promises."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from bench import BenchError
from bench.data.readers.shapes import shapes_corpus
from bench.declare.registry import dataset
from bench.features.cache import Cache, CacheWriter
from bench.features.check import check_cache
from bench.features.shapes import features_of, write_streams
from bench.features.sidecar import read_sidecar
from bench.home import Home
from bench.shapes import render_clip, truth
from bench.shapes.chance import Dice
from bench.shapes.language import PLANTED
from bench.shapes.options import MOST_CAPTIONS, Options, corpus_digest
from bench.shapes.render import render
from bench.shapes.scene import ACTIONS, COLOUR_NAMES, FRAMES, ONE_WAY, SHAPES, TRINKETS, corner_centre, draw_scene
from bench.shapes.streams import STREAM_SHAPES, STREAMS, measure

ROOT = Path(__file__).resolve().parents[2]

# Regenerate: python -m pytest tests/unit/test_shapes.py -k frozen, and copy what the failure prints. A change is a new
# corpus: raise GENERATOR_VERSION as well.
FROZEN = {
    "captions": "fe6bcdd1c398f4e24416cdd5d7bdaa4a0526112bce5d1f866966382c89c23aa6",
    "pixels": "8d554db4f50c040244d2973094dc65a2888ac87ed1104e897e3129add1f1e47d",
    "streams": "fe042f933aafb323709ec0edd887761325e480918be12bf9b0ebfd5e0e5a65e4",
}
FROZEN_CLIPS = ("shape0000", "shape0007", "shape0423", "shape1399")


@pytest.fixture(scope="module")
def corpus():
    return shapes_corpus()


@pytest.fixture(scope="module")
def truths(corpus):
    return [truth(clip) for clip in corpus.clips]


def sha256(parts) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def test_generator_is_frozen(corpus) -> None:
    made = {
        "captions": sha256(
            f"{caption.id}\t{caption.text}\n".encode() for rows in corpus.captions.values() for caption in rows
        ),
        "pixels": sha256(render_clip(clip).tobytes() for clip in FROZEN_CLIPS),
        "streams": sha256(
            features_of(clip, Options())[stream].tobytes() for clip in FROZEN_CLIPS for stream in STREAMS
        ),
    }
    assert made == FROZEN


def test_captions_are_made_without_pixels_and_fast() -> None:
    start = time.process_time()
    shapes_corpus()
    assert time.process_time() - start < 4  # about one second on an idle core
    code = (
        "import sys, bench.data.readers.shapes as s; s.shapes_corpus(subset=(1, 1, 1)); print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr


def test_splits_and_ids(corpus) -> None:
    assert [len(corpus.splits[split]) for split in ("train", "val", "test")] == [1000, 100, 300]
    assert corpus.splits["test"][0] == "shape1100"
    assert list(corpus.clips) == [f"shape{number:04d}" for number in range(1400)]
    captions = [caption for rows in corpus.captions.values() for caption in rows]
    assert len({caption.id for caption in captions}) == len(captions) == 1400 * MOST_CAPTIONS
    assert all(caption.text == " ".join(caption.text.lower().split()) for caption in captions)
    assert max(len(caption.text.split()) for caption in captions) <= 30


def test_a_subset_is_the_first_clips_of_each_split(corpus) -> None:
    part = shapes_corpus(subset=(3, 2, 1))
    assert part.splits == {split: corpus.splits[split][:n] for split, n in (("train", 3), ("val", 2), ("test", 1))}
    assert all(part.captions[clip] == corpus.captions[clip] for clip in part.clips)


def test_a_clip_alone_is_the_clip_of_the_set(corpus, tmp_path) -> None:
    small = {"size": [2, 1, 2]}
    assert shapes_corpus(small).captions["shape0004"] == corpus.captions["shape0004"]
    write_streams(Home(tmp_path), small)
    for stream in STREAMS:
        with Cache(tmp_path / ".bench" / "cache" / "shapes" / f"{stream}.h5") as cache:
            assert cache.ids == tuple(f"shape{number:04d}" for number in range(5))
            stored, length = cache.read("shape0003")
        assert np.array_equal(stored, features_of("shape0003", Options())[stream]), stream
        assert length == STREAM_SHAPES[stream][0]


def test_seeds_give_other_corpora() -> None:
    first, second = (shapes_corpus({"seed": seed}, (2, 1, 1)) for seed in (0, 1))
    assert first.captions["shape0000"] != second.captions["shape0000"]
    assert not np.array_equal(render_clip("shape0000"), render_clip("shape0000", {"seed": 1}))
    assert len({corpus_digest(), corpus_digest({"seed": 1}), corpus_digest({"size": [5, 1, 1]})}) == 3


def test_fewer_captions_are_the_first_ones() -> None:
    """The same clips and pixels, the first captions of each; the corpus has a digest of its own."""
    whole, few = shapes_corpus({}, (3, 1, 1)), shapes_corpus({"captions": 5}, (3, 1, 1))
    assert few.captions == {clip: captions[:5] for clip, captions in whole.captions.items()}
    assert truth("shape0001", {"captions": 5}).captions == truth("shape0001").captions[:5]
    assert len({corpus_digest(), corpus_digest({"captions": 5}), corpus_digest({"captions": 6})}) == 3
    assert corpus_digest({"captions": 20}) == corpus_digest()


@pytest.mark.parametrize(
    ("options", "subset", "says"),
    [
        ({"sede": 1}, None, "unknown key sede"),
        ({"seed": "0"}, None, "options.seed"),
        ({"size": [5, 0, 1]}, None, "options.size"),
        ({"size": 100}, None, r"options.size of shapes is \[100\]; it must be three"),
        ({"size": [20_000, 1, 1]}, None, "at most 10000"),
        ({"captions": 21}, None, "options.captions of shapes is 21; it must be a whole number from 1 to 20"),
        ({}, (1001, 1, 1), "1001 train clips"),
        ({}, (3, 2), "subset of shapes"),
    ],
)
def test_impossible_requests_are_sentences(options, subset, says) -> None:
    with pytest.raises(BenchError, match=says):
        shapes_corpus(options, subset)


def test_a_strange_clip_id_is_a_sentence() -> None:
    with pytest.raises(BenchError, match="no clip of shapes"):
        truth("video7")


def test_lists_are_long_tailed(truths) -> None:
    things = [one.scene.actor for one in truths] + [one.scene.partner for one in truths if one.scene.partner]
    trinkets = Counter(one.scene.trinket.name for one in truths if one.scene.trinket)
    colours, shapes = Counter(thing.colour for thing in things), Counter(thing.shape for thing in things)
    for counts, names in ((colours, COLOUR_NAMES), (shapes, SHAPES), (trinkets, TRINKETS)):
        assert counts.most_common(1)[0][0] == names[0]
        assert 0 < min(counts[name] for name in names) * 4 < counts[names[0]]
    assert 0.2 < trinkets.total() / len(truths) < 0.4
    assert trinkets["crown"] < 0.03 * len(truths)
    assert set(ACTIONS) == {one.scene.action for one in truths}


def test_a_fixed_share_of_captions_is_bad_and_known(corpus, truths) -> None:
    for one in truths:
        kinds = Counter(caption.kind for caption in one.captions)
        assert kinds == {**PLANTED, "good": MOST_CAPTIONS - sum(PLANTED.values())}
        assert [caption.text for caption in one.captions] == [caption.text for caption in corpus.captions[one.clip]]


def test_planted_captions_agree_less_with_the_others(truths) -> None:
    def agreement(one, place: int) -> float:
        own = set(one.captions[place].text.split())
        others = [set(other.text.split()) for number, other in enumerate(one.captions) if number != place]
        return sum(len(own & other) / len(own | other) for other in others) / len(others)

    found: dict[str, list[float]] = {}
    for one in truths[:200]:
        for place, caption in enumerate(one.captions):
            found.setdefault(caption.kind, []).append(agreement(one, place))
    means = {kind: np.mean(values) for kind, values in found.items()}
    assert means["vague"] < means["wrong"] < 0.7 * means["good"]
    assert means["poor"] < means["good"]


def test_opposite_actions_are_one_film_in_two_directions(truths) -> None:
    seen = set()
    for one in truths[:150]:
        scene = replace(one.scene, filler=None)
        if scene.action in ONE_WAY:
            assert not scene.heading
            continue
        other = replace(scene, backward=not scene.backward)
        assert other.heading != scene.heading
        assert np.array_equal(render(other), render(scene)[::-1]), scene
        seen.add(scene.action)
    assert seen == set(ACTIONS) - set(ONE_WAY)
    backward = [one.scene.backward for one in truths if one.scene.heading]
    assert 0.45 < sum(backward) / len(backward) < 0.55


def test_frames_have_no_order_and_motion_has() -> None:
    scene = next(scene for scene in map(scene_of, range(50)) if scene.action == "slide" and scene.filler is None)
    forth, back = (measure(render(replace(scene, backward=backward))) for backward in (False, True))
    assert np.array_equal(forth["frames"], back["frames"][::-1])
    assert np.array_equal(forth["spatial"], back["spatial"])
    assert not np.array_equal(forth["motion"], back["motion"][::-1])
    assert not np.array_equal(forth["audio"], back["audio"])


def scene_of(number: int):
    return draw_scene(Dice(0, number, "scene"), f"0/{number}")


def test_some_clips_begin_or_end_with_unrelated_frames(truths) -> None:
    noisy = [one for one in truths if any(one.unrelated)]
    assert 0.25 < len(noisy) / len(truths) < 0.35
    assert any(one.unrelated[0] for one in noisy)
    assert any(one.unrelated[-1] for one in noisy)
    assert any(one.unrelated[FRAMES // 2] for one in noisy)
    assert max(sum(one.unrelated) for one in noisy) <= 12
    for one in noisy[:20]:
        frames = render(one.scene).astype(int)
        first, last = one.scene.event.start, one.scene.event.stop
        cuts = [frame for frame in (first, last) if 0 < frame < FRAMES]
        within = [abs(frames[frame] - frames[frame - 1]).mean() for frame in range(first + 1, last)]
        assert all(abs(frames[cut] - frames[cut - 1]).mean() > 2 * max(within) for cut in cuts), one.clip


def test_small_rare_objects_are_among_the_regions(truths) -> None:
    rare = [one for one in truths if one.scene.trinket][:30]
    seen = 0
    for one in rare:
        middle = (one.scene.event.start + one.scene.event.stop) // 2
        cells = measure(render(one.scene)[middle - 1 : middle + 1])["regions"][1, :, -2:]
        centre = np.array(corner_centre(one.scene.trinket.corner))
        seen += bool((abs(4 * cells + 2 - centre).max(axis=1) <= 6).any())
    assert seen >= 0.8 * len(rare)


def test_no_ground_truth_in_the_corpus(corpus, tmp_path) -> None:
    assert b"bench.shapes" not in pickle.dumps(corpus)
    write_streams(Home(tmp_path), {"size": [1, 1, 1]}, streams=["audio"])
    sidecar = json.loads((tmp_path / ".bench/cache/shapes/audio.json").read_text())
    assert set(sidecar["encoder"]) == {"name", "version", "weights", "seed", "size"}


def test_streams_are_roughly_standardised() -> None:
    clips = [features_of(f"shape{number:04d}", Options()) for number in range(0, 96, 4)]
    for stream, shape in STREAM_SHAPES.items():
        values = np.stack([clip[stream] for clip in clips])
        assert values.shape[1:] == shape
        assert values.dtype == (np.uint8 if stream == "pixels" else np.float16)
        values = values.astype(np.float64)
        assert np.isfinite(values).all()
        if stream in ("actions", "objects"):
            assert np.allclose(values.sum(axis=1), 1, atol=1e-2)
        elif stream != "pixels":
            assert abs(values.mean()) < 0.25, stream
            assert 0.7 < values.std() < 1.4, stream


def test_caches_are_made_once(tmp_path) -> None:
    home, small = Home(tmp_path), {"size": [1, 1, 1]}
    folder = home.cache / "shapes"
    write_streams(home, small, (1, 1, 1), streams=["frames", "audio"])
    assert sorted(path.name for path in folder.glob("*.h5")) == ["audio.h5", "frames.h5"]
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    write_streams(home, small, streams=["frames", "audio"])
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    (folder / "audio.json").write_text("no sidecar")
    write_streams(home, small, streams=["frames", "audio"])
    assert json.loads((folder / "audio.json").read_text())["clips"] == 3
    assert (folder / "frames.h5").stat().st_mtime_ns == before[folder / "frames.h5"]
    write_streams(home, {**small, "seed": 1}, (1, 1, 1), streams=["frames"])
    assert json.loads((folder / "frames.json").read_text())["encoder"]["seed"] == 1
    with pytest.raises(BenchError, match="no stream words"):
        write_streams(home, small, streams=["words"])


def files(home: Home) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (home.cache / "shapes").iterdir()}


def test_a_subset_paints_its_clips_alone(tmp_path) -> None:
    home, left = Home(tmp_path), []
    write_streams(home, {"size": [30, 20, 10]}, (3, 2, 1), tell=lambda clips, failed: left.append((clips, failed)))
    assert left == [(5, 0), (4, 0), (3, 0), (2, 0), (1, 0), (0, 0)]
    for stream in STREAMS:
        path = home.cache / "shapes" / f"{stream}.h5"
        with Cache(path) as cache:
            assert cache.ids == ("shape0000", "shape0001", "shape0002", "shape0030", "shape0031", "shape0050")
        assert check_cache(path) == []


def test_a_cache_grows_into_the_file_that_is_made_at_once(tmp_path) -> None:
    """Streams are named by all their clips, so the cells of every subset keep their keys; only what is new is painted."""
    size, left = {"size": [30, 20, 10]}, []
    grown, at_once = Home(tmp_path / "grown"), Home(tmp_path / "at once")
    write_streams(grown, size, (2, 1, 3), streams=["frames", "pixels"])
    before = read_sidecar(grown.cache / "shapes" / "frames.h5")
    write_streams(grown, size, (1, 2, 1), streams=["frames", "audio"], tell=lambda clips, failed: left.append(clips))
    # frames lacked one of these four clips, audio all of them
    assert left == [3, 2, 1, 0]
    with Cache(grown.cache / "shapes" / "frames.h5") as cache:
        assert cache.ids == ("shape0000", "shape0001", "shape0030", "shape0031", "shape0050", "shape0051", "shape0052")
    left.clear()
    write_streams(grown, size, (20, 2, 3), streams=["frames"], tell=lambda clips, failed: left.append(clips))
    assert len(left) == 18
    write_streams(at_once, size, (20, 2, 3), streams=["frames"])
    for name in ("frames.h5", "frames.json"):
        assert files(grown)[name] == files(at_once)[name], name
    after = read_sidecar(grown.cache / "shapes" / "frames.h5")
    assert after["fingerprint"] == before["fingerprint"]
    assert after["content"] != before["content"]
    assert check_cache(grown.cache / "shapes" / "frames.h5") == []


def test_a_cache_of_more_clips_is_left_alone(tmp_path) -> None:
    home = Home(tmp_path)
    write_streams(home, {"size": [5, 2, 2]}, streams=["audio"])
    before = files(home)
    write_streams(home, {"size": [5, 2, 2]}, (1, 1, 1), streams=["audio"])
    assert files(home) == before


def test_a_cache_that_another_process_fills_meanwhile_loses_nothing(tmp_path, monkeypatch) -> None:
    home, enter, size = Home(tmp_path), CacheWriter.__enter__, {"size": [5, 2, 2]}

    def late(writer: CacheWriter) -> CacheWriter:
        monkeypatch.setattr(CacheWriter, "__enter__", enter)
        write_streams(home, size, (5, 1, 1), streams=["audio"])
        return enter(writer)

    monkeypatch.setattr(CacheWriter, "__enter__", late)
    write_streams(home, size, (1, 2, 1), streams=["audio"])
    with Cache(home.cache / "shapes" / "audio.h5") as cache:
        assert cache.ids == tuple(f"shape{number:04d}" for number in (0, 1, 2, 3, 4, 5, 6, 7))


def test_a_damaged_clip_is_painted_again_when_the_cache_grows(tmp_path) -> None:
    home, size = Home(tmp_path), {"size": [5, 2, 2]}
    path = home.cache / "shapes" / "pixels.h5"
    write_streams(home, size, (2, 1, 1), streams=["pixels"])
    with h5py.File(path, "r") as file:
        chunk = file["features"].id.get_chunk_info(1)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset + chunk.size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    assert check_cache(path) != []
    write_streams(home, size, (3, 1, 1), streams=["pixels"])
    assert check_cache(path) == []


def test_any_number_of_processes_makes_the_same_files(tmp_path) -> None:
    alone, pair = Home(tmp_path / "alone"), Home(tmp_path / "pair")
    for home, processes in ((alone, 1), (pair, 2)):
        write_streams(home, {"size": [15, 1, 1]}, streams=["frames", "regions"], processes=processes)
    assert files(alone) == files(pair)


def deadly(clip: str, options: Options) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_painter_that_is_killed_is_a_sentence_and_the_next_try_goes_on(tmp_path, monkeypatch) -> None:
    home = Home(tmp_path)
    monkeypatch.setattr("bench.features.shapes.features_of", deadly)
    with pytest.raises(BenchError, match=r"ended with status -9.* the same command goes on"):
        write_streams(home, {"size": [5, 2, 2]}, streams=["audio"], processes=2)
    monkeypatch.undo()
    write_streams(home, {"size": [5, 2, 2]}, streams=["audio"])
    assert check_cache(home.cache / "shapes" / "audio.h5") == []


@pytest.mark.parametrize("name", ["shapes", "ideas"])
def test_records_name_the_streams_as_the_generator_does(name: str, tmp_path) -> None:
    """A cell's key holds the fingerprints of its streams: those of all 145 committed records are the same for every subset."""
    definition = dataset(name)
    write_streams(Home(tmp_path), definition.options, (1, 1, 1), name=name)
    named = {
        stream: read_sidecar(tmp_path / ".bench" / "cache" / name / f"{stream}.h5")["fingerprint"] for stream in STREAMS
    }
    records = [json.loads(path.read_text()) for path in (ROOT / "results" / name).glob("*/*/record.json")]
    assert len(records) >= 70
    for record in records:
        streams = record["config"]["streams"]
        assert streams == {stream: named[stream] for stream in streams}, record["key"]


def test_captions_leave_room_between_a_constant_and_the_truth(corpus, truths) -> None:
    """What a method can reach lies between: at least 3 x the best constant caption and at most 1/2 of the canonical."""
    test = corpus.splits["test"][:150]
    references = {clip: [caption.text for caption in corpus.captions[clip]] for clip in test}
    common = Counter(caption.text for clip in corpus.splits["train"] for caption in corpus.captions[clip])

    def cider(captions: dict[str, str]) -> float:
        return Cider().compute_score(references, {clip: [captions[clip]] for clip in test})[0]

    constant = max(cider(dict.fromkeys(test, text)) for text, _ in common.most_common(4))
    canonical = cider({one.clip: one.canonical for one in truths if one.clip in references})
    assert canonical > 9 * constant
