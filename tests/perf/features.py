"""From videos to features, and features from the cache: beside what the work itself costs.

Videos are made here, 320 x 240 in H.264 as MSVD's are, so that the row can be measured anywhere; the encoder is mobilenetv2_100
with random weights, which take as long as trained ones.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (the filter of the cache)
import numpy as np
import torch

from bench.data.source import Clip
from bench.features.cache import Cache, CacheWriter
from bench.features.decoders import Footage
from bench.features.extract import Extractor, extract_stream
from bench.features.extraction import Extraction, Work
from bench.features.specs import spec_of
from bench.features.video import Sampling
from bench.home import Home
from tests.perf.rows import Row
from tests.perf.timing import seconds

VIDEOS, LENGTH, FRAMES = 64, 240, 28
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


def extraction(folder: Path, threads: int) -> Row:
    """The whole command's wall time against its share of decoding and encoding, each measured alone on one thread.

    Alone they are measured before the command and after it, and the smaller figure counts: a slow moment of the machine would
    make the command look better than the work in it. A thread does it, as in the command: on a program's first thread the
    same work takes more processor time, as memory that was given back has to be cleared again.
    """
    clips = {f"v{number}": Clip(f"v{number}", f"v{number}") for number in range(VIDEOS)}
    files = [make_video(folder / f"{clip}.mp4", number) for number, clip in enumerate(clips)]
    asked = Extraction("perf", "frames", folder, Sampling(FRAMES), spec_of("mobilenetv2_100"), "random")
    extractor = Extractor(asked)
    some = files[: VIDEOS // 4]
    read = [extractor.reader(Footage(file)) for file in some]

    def alone() -> tuple[float, float]:
        """Processor seconds of decoding and of encoding all videos, from a part of them."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        works = (
            lambda: [extractor.reader(Footage(file)) for file in some],
            lambda: [extractor.encode(one) for one in read],
        )
        spent = tuple(processor_seconds(work) * VIDEOS / len(some) for work in works)
        torch.set_num_threads(before)
        return spent[0], spent[1]

    extractor.encode(read[0])  # warm up
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(alone).result()
    begun = time.perf_counter()
    _, failed = extract_stream(asked, clips, {}, Home(folder), work=Work(workers=threads))
    wall = time.perf_counter() - begun
    with ThreadPoolExecutor(1) as thread:
        last = thread.submit(alone).result()
    decoding, encoding = (min(pair) for pair in zip(first, last, strict=True))
    assert not failed
    cores = min(threads, len(os.sched_getaffinity(0)))
    behind = {"wall s": wall, "decoding s": decoding, "encoding s": encoding, "clips/s": VIDEOS / wall}
    against = f"decoding and encoding over {cores} cores"
    return Row(
        "extraction, mobilenetv2_100", against, wall * cores / (decoding + encoding), 1.15, at_most=True, details=behind
    )


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
        return [extraction(folder / "videos", threads), *reading(folder), opening(folder)]
