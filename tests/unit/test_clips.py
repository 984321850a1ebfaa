"""Batches from a slow source: the next one is read while this one is used, and nothing else changes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from support import make_clips

from bench.data import batches
from bench.data.batches import CorpusClips
from bench.method import Batch
from bench.nn.host import on_host
from tests.pretended import GPU, is_there, pretended_gpu, with_the_cpus_torch

ROOT = Path(__file__).resolve().parents[2]


def clips(slow: bool) -> CorpusClips:
    found = make_clips((4, 2, 3, 4, 1, 2), ((3, 1), (2, 4), (1, 3), (2, 2), (5,), (1, 1, 1)), seed=5)
    found._sources["frames"].slow = slow
    return found


def same(one: Batch, other: Batch) -> bool:
    tensors = ((one.streams["frames"], other.streams["frames"]), (one.words_BW, other.words_BW))
    return one.caption_ids == other.caption_ids and all(torch.equal(*pair) for pair in tensors)


def test_batches_read_ahead_are_the_batches() -> None:
    ahead, plain = clips(slow=True), clips(slow=False)
    for order, start in ((0, 0), (1, 0), (1, 2)):
        pairs = zip(ahead.epoch(order, 4, 2, start), plain.epoch(order, 4, 2, start), strict=True)
        assert all(same(*pair) for pair in pairs)
    assert len(list(ahead.epoch(0, 4, 2, 99))) == 0


def parts(batch: Batch) -> tuple[torch.Tensor, ...]:
    return (*batch.streams.values(), *batch.masks.values(), batch.clip_of_B, batch.words_BW, batch.lengths_B)


@with_the_cpus_torch
@pytest.mark.parametrize("stay", [False, True])
def test_batches_of_an_epoch_are_pinned_by_the_thread_that_reads_them_and_copied_at_once(
    stay: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned, threads = [], set()

    def pin(size: int) -> torch.Tensor:
        threads.add(threading.current_thread())
        pinned.append(torch.zeros(size, dtype=torch.uint8))
        return pinned[-1]

    monkeypatch.setattr(batches, "pinned_memory", pin)
    plain, ahead = clips(slow=False), clips(slow=False)
    ahead._pinned = True
    with pretended_gpu() as seen:
        if stay:
            ahead = ahead.on(GPU)
        for here, read in zip(plain.epoch(0, 4, 2), ahead.reading(["frames"]).epoch(0, 4, 2), strict=True):
            there = read.to(GPU)
            assert not seen.waits and not seen.mixed
            assert all(map(is_there, parts(there))) and all(map(torch.equal, parts(here), parts(there)))
            pieces = {value.untyped_storage().data_ptr() for value in parts(there)}
            assert len(pieces) == 1 + stay and all(map(torch.equal, parts(here)[2:], map(on_host, parts(there)[2:])))
            seen.forget()  # to compare is to wait
        assert threading.main_thread() not in threads
        count = len(pinned)
        assert len(list(ahead.in_order(2))) == 3 and len(pinned) == count, "in order they are read once and not ahead"


def test_the_next_batch_is_read_before_it_is_asked_for() -> None:
    found = clips(slow=True)
    source = found._sources["frames"]
    original, begun = source.read, [threading.Event() for _ in range(9)]
    threads = []

    def read(ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        begun[len(threads)].set()
        threads.append(threading.current_thread())
        return original(ids)

    source.read = read
    epoch = found.epoch(0, 4, 2)
    next(epoch)
    assert begun[1].wait(20), "nobody has asked for the second batch"
    epoch.close()
    assert not begun[3].is_set(), "one ahead, no more"
    assert threading.main_thread() not in threads
    assert not any(thread.is_alive() for thread in threads), "the reader ends with the epoch"


def test_captions_are_counted_when_they_are_handed_out() -> None:
    counted: list[int] = []
    waited: list[float] = []
    found = clips(slow=True)
    found._spend, found._wait = counted.append, waited.append
    epoch = found.reading(["frames"]).only(["c0", "c1"]).epoch(0, 2, 2)
    first = next(epoch)
    epoch.close()
    assert counted == [len(first.caption_ids)] == [2]
    assert len(waited) == 1
    assert waited[0] > 0


def test_what_goes_wrong_while_reading_is_raised_where_the_batch_is_asked_for() -> None:
    found = clips(slow=True)
    source = found._sources["frames"]
    original = source.read

    def read(ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        if "c4" in ids:
            raise OSError("damaged at clip c4")
        return original(ids)

    source.read = read
    with pytest.raises(OSError, match="damaged at clip c4"):
        list(found.epoch(0, 4, 2))


PROGRAM = """
import resource, sys, tempfile
from pathlib import Path
import numpy as np
from bench.data.batches import CorpusClips
from bench.cell.inputs import _source
from bench.features.cache import Cache, CacheWriter
from bench.method import Reference, SPECIAL, Vocabulary

SHAPE = (16, 3, 299, 299)  # EtENet's: 4.3 MB a clip
ids = [f"clip{number}" for number in range(160)]
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "pixels.h5"
    with CacheWriter(path, "pixels", SHAPE, True, "uint8", ids, {"encoder": {"name": "inception_resnet_v2"}}) as cache:
        for number, clip in enumerate(ids):
            cache.write(clip, np.full(SHAPE, number, np.uint8))
    references = {clip: tuple(Reference(f"{clip}#{k}", clip, "", (), (4,)) for k in range(4)) for clip in ids}
    for some in (ids[:70], ids):
        with Cache(path) as cache:
            source = _source("pixels", cache, some)
            train = CorpusClips(some, references, {"pixels": source}, Vocabulary((*SPECIAL, "a")))
            seen = set()
            for batch in train.epoch(0, 16, 4):
                for clip, values in zip(batch.clip_ids, batch.streams["pixels"]):
                    assert int(values[3, 1, 200, 7]) == int(clip[4:])
                seen |= set(batch.clip_ids)
        assert seen == set(some)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_of_pixels_does_not_grow_with_the_clips() -> None:
    """An epoch over 70 clips of 16x3x299x299, then over 160: the peak of the process stays, where the clips grow by 386 MB."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    few, many = map(int, done.stdout.split())
    assert many - few < 40, f"{few} MB for 70 clips, {many} MB for 160"
