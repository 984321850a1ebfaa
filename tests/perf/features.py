"""From videos to features, and features from the cache: beside what the work itself costs.

Videos are made here, 320 x 240 in H.264 as MSVD's are, so that the rows can be measured anywhere; the encoder is mobilenetv2_100
with random weights, which take as long as trained ones. Regions are measured where the weights of msvd_videos are.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import h5py
import hdf5plugin  # noqa: F401  (the filter of the cache)
import numpy as np
import torch

from bench.cell.job import keep_freed
from bench.declare.dataset import Clip
from bench.declare.registry import dataset
from bench.features.cache import Cache, CacheWriter
from bench.features.decoders import Values
from bench.features.extract import Extractor, extract_stream
from bench.features.extraction import Extraction, Work
from bench.features.footage import Footage
from bench.features.regions import DeclaredDetector
from bench.features.specs import spec_of
from bench.features.video import Sampling
from bench.home import Home
from tests.perf.rows import Row
from tests.perf.timing import at_once, seconds

ENCODER = "mobilenetv2_100"
DETECTOR = "nanodet_g_416_coco.onnx"  # below BENCH_DATA
VIDEOS, LENGTH, FRAMES = 64, 240, 28
ROUNDS = 3  # of the command, between measures of its parts
PART = 16  # videos that each program decodes and encodes apart from the command
BATCH, STORED = 64, 512  # clips of a batch, clips of the cache that batches are read from
SHAPE = (28, 1536)
MANY = 10_000


def make_video(path: Path, seed: int) -> Path:
    """A moving texture of 8 seconds: as much for a decoder to do as a real clip."""
    import av

    random = np.random.default_rng(seed)
    field = np.kron(random.integers(0, 256, (40, 60, 3)), np.ones((12, 12, 1))).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for at in range(LENGTH):
            picture = field[at % 200 : at % 200 + 240, at % 300 : at % 300 + 320]
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def processor_seconds(work: Callable[[], object]) -> float:
    """Processor time of this process for `work`, all threads together."""
    begun = resource.getrusage(resource.RUSAGE_SELF)
    work()
    ended = resource.getrusage(resource.RUSAGE_SELF)
    return ended.ru_utime + ended.ru_stime - begun.ru_utime - begun.ru_stime


def asked_of(folder: Path, encoder: str) -> Extraction:
    """Frames by an encoder with random weights, or `regions` as the data set msvd_videos declares them."""
    if encoder == "regions":
        return Extraction.of(dataset("msvd_videos"), "regions", Home(folder), {"videos": folder, "frames": FRAMES})
    return Extraction("perf", "frames", folder, Sampling(FRAMES), spec_of(encoder), "random")


def networks(extractor: Extractor, read: Values) -> None:
    """What the networks alone make of a clip: of regions the boxes, and the maps that are pooled under them."""
    detector = extractor.encoder
    if not isinstance(detector, DeclaredDetector):
        extractor.encode(read)
        return
    with torch.inference_mode():
        for frames, whole in zip(*(torch.from_numpy(view).split(extractor.batch) for view in read), strict=True):
            detector.found(frames)
            detector.encoder(whole)


def parts(folder: str, encoder: str) -> None:
    """Processor seconds of decoding and of encoding a part of the videos, by one thread: see `at_once`."""
    keep_freed()
    torch.set_num_threads(1)
    extractor = Extractor(asked_of(Path(folder), encoder))
    files = sorted(Path(folder).glob("*.mp4"))[:PART]
    read = [extractor.reader(Footage(file)) for file in files]
    for one in read[:2]:
        extractor.encode(one)
    print("ready", flush=True)
    sys.stdin.readline()
    spent = [0.0, 0.0]
    for file, one in zip(files, read, strict=True):  # one after the other, so that each meets both of the neighbour's
        spent[0] += processor_seconds(lambda file=file: extractor.reader(Footage(file)))
        spent[1] += processor_seconds(lambda one=one: networks(extractor, one))
    print(*spent, flush=True)


def extraction(folder: Path, threads: int, encoder: str, bar: float) -> Row:
    """The whole command's wall time against its share of decoding and encoding; the median of three rounds.

    These are measured before each command and after it by programs of one thread that share nothing, one for each core. All
    cores are busy with them, as the command keeps them: convolutions that run side by side take more processor time than alone.
    """
    clips = {f"v{number}": Clip(f"v{number}", f"v{number}") for number in range(VIDEOS)}
    for number, clip in enumerate(clips):
        if not (folder / f"{clip}.mp4").is_file():
            make_video(folder / f"{clip}.mp4", number)
    cores = min(threads, len(os.sched_getaffinity(0)))
    Extractor(asked_of(folder, encoder))  # what it imports takes longer than several clips

    def apart() -> list[float]:
        """Processor seconds of decoding and of encoding all videos."""
        found = at_once(f"from tests.perf.features import parts; parts({str(folder)!r}, {encoder!r})", cores)
        return [fmean(spent) * VIDEOS / PART for spent in zip(*found, strict=True)]

    def whole(number: int) -> float:
        """Seconds of the command."""
        begun = time.perf_counter()
        _, failed = extract_stream(
            asked_of(folder, encoder), clips, {}, Home(folder / f"{encoder}{number}"), work=Work(workers=threads)
        )
        assert not failed
        return time.perf_counter() - begun

    before, rounds = apart(), []
    for number in range(ROUNDS):
        wall, after = whole(number), apart()
        decoding, encoding = (fmean(pair) for pair in zip(before, after, strict=True))
        rounds.append((wall * cores / (decoding + encoding), wall, decoding, encoding))
        before = after
    ratio, wall, decoding, encoding = sorted(rounds)[ROUNDS // 2]
    behind = {"wall s": wall, "decoding s": decoding, "encoding s": encoding, "clips/s": VIDEOS / wall}
    behind |= {"least": min(rounds)[0], "most": max(rounds)[0]}
    against = f"decoding and encoding over {cores} cores"
    return Row(f"extraction, {encoder}", against, ratio, bar, at_most=True, details=behind)


def fill(path: Path, clips: int, shape: tuple[int, ...]) -> list[str]:
    """A cache of so many clips of rectified noise; returns their ids."""
    random = np.random.default_rng(0)
    ids = [f"clip{number}" for number in range(clips)]
    some = [np.maximum(random.normal(size=shape), 0).astype(np.float16) for _ in range(16)]
    with CacheWriter(path, "frames", shape, True, "float16", ids) as writer:
        for number, clip in enumerate(ids):
            writer.write(clip, some[number % 16])
    return ids


def reading(folder: Path) -> list[Row]:
    """Batches of 64 clips: from the cache file against plain h5py, and from memory against the same."""
    path = folder / "frames.h5"
    ids = fill(path, STORED, SHAPE)
    random = np.random.default_rng(1)
    batches = [random.permutation(STORED)[:BATCH] for _ in range(8)]
    with Cache(path) as cache, h5py.File(path, "r", locking=False) as bare:
        data, (memory, _) = bare["features"], cache.load(ids)
        ways = {
            "plain": lambda: [np.stack([data[row] for row in batch]) for batch in batches],
            "cache": lambda: [cache.load([ids[row] for row in batch]) for batch in batches],
            "memory": lambda: [memory[batch] for batch in batches],
        }
        taken = {way: spent / len(batches) for way, spent in seconds(ways).items()}
    behind = {f"{way} ms": 1000 * spent for way, spent in taken.items()}
    plain, cached, held = taken["plain"], taken["cache"], taken["memory"]
    against = "h5py, the same chunks"
    return [
        Row("batch of 64 from the cache", against, cached / plain, 1.3, at_most=True, details=behind),
        Row("batch of 64 from memory", against, plain / held, 10),
    ]


def opening(folder: Path) -> Row:
    """The first read of a cache of 10,000 clips."""
    path = folder / "many" / "frames.h5"
    ids = fill(path, MANY, (2, 8))

    def first() -> None:
        with Cache(path) as cache:
            cache.read(ids[-1])

    return Row(
        f"a cache of {MANY:,} clips opens", "the clock", seconds({"open": first})["open"], 1.0, "s", at_most=True
    )


def rows(threads: int) -> list[Row]:
    """Extraction, reading in batches, opening."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "videos").mkdir()
        streams = [extraction(folder / "videos", threads, ENCODER, 1.15)]
        if (Home(folder).data / "weights" / DETECTOR).is_file():
            streams.append(extraction(folder / "videos", threads, "regions", 1.25))
        return [*streams, *reading(folder), opening(folder)]
