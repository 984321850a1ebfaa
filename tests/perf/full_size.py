"""A corpus at its full size, as a user types it: import, plan, one epoch of three papers, captions, scores and page.

Takes half an hour and more on two processors.

The captions are the data set's own (`BENCH_DATA`); the features are random numbers of the declared shape, which take as long as
real ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import psutil
import yaml

from bench.data.corpus import load_corpus
from bench.declare.registry import dataset
from bench.home import Home
from bench.records.store import all_records
from tests.perf.rows import Row

CORPUS = "msrvtt"
METHODS = "[recnet,etenet,glrg]"
SHAPE = (28, 1536)
PAUSE = 0.5  # seconds between two looks at the memory of the command and all that it starts


def rows(threads: int) -> list[Row]:
    """Seconds and memory of every stage; nothing has a bar but that all cells are done."""
    definition = dataset(CORPUS)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        corpus = load_corpus(definition, Home(folder))
        found, named = [], {"clips": len(corpus.clips), "captions": sum(map(len, corpus.captions.values()))}
        begun = time.monotonic()
        own = _own_features(folder, list(corpus.clips))
        size = sum(path.stat().st_size for path in folder.glob("*.h5"))
        named |= {"seconds to write the features": time.monotonic() - begun, "gigabytes": size / 1e9}
        words = (f"dataset={own}", "streams=[frames]")
        for what, command in (
            ("import", ["features", "import", words[0]]),
            ("data check", ["data", "check", words[0]]),
            ("plan", ["plan", f"methods={METHODS}", *words, "train.epochs=1"]),
            ("run", ["run", f"methods={METHODS}", *words, "train.epochs=1", f"max_concurrent={threads}"]),
        ):
            spent, peak, largest = _watched(command, folder)
            memory = {"GB of one process": largest / 1e9, "GB of all": peak / 1e9}
            found.append(Row(f"{CORPUS} whole: {what}", "as typed", spent, unit="s", details={**named, **memory}))
            named = {}
        cache = sum(path.stat().st_size for path in (folder / ".bench" / "cache").rglob("*.h5"))
        found.append(Row(f"{CORPUS} whole: cache", f"{'x'.join(map(str, SHAPE))} a clip", cache / 1e9, unit="GB"))
        for record in all_records(folder / "results"):
            ledger = record.ledger
            assert record.state == "done" and ledger is not None, record.failure
            parts = {name: float(value) for name, value in ledger.model_dump().items() if value is not None}
            found.append(
                Row(f"{CORPUS} whole: {record.method}", "one epoch", parts["fit_seconds"], unit="s", details=parts)
            )
    return found


def _own_features(folder: Path, clips: list[str]) -> Path:
    """The data set's definition with frames of random numbers."""
    random = np.random.default_rng(0)
    with h5py.File(folder / "frames.h5", "w") as file:
        for clip in clips:
            file.create_dataset(clip, data=random.standard_normal(SHAPE, np.float32).astype(np.float16))
    original = dataset(CORPUS).path
    content = yaml.safe_load(original.read_text(encoding="utf-8"))
    content["streams"] = {"frames": {"source": str(folder / "frames.h5"), "layout": "auto", "frames": SHAPE[0]}}
    content["splits"] = {name: str(original.parent / path) for name, path in content["splits"].items()}
    content.pop("split_variants", None)
    path = folder / "dataset.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def _watched(words: list[str], home: Path) -> tuple[float, int, int]:
    """Seconds of a command, the most bytes that all its processes held at one moment, and the most that one of them did.

    Pages that processes share (torch, the cache) are counted once in the first: proportional set size where the system tells it.
    """
    environment = {**os.environ, "BENCH_HOME": str(home), "PYTHONUNBUFFERED": "1"}
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "bench", *words], env=environment)
    peaks = [0, 0]
    done = threading.Event()

    def look() -> None:
        pause = PAUSE / 10  # a short command is seen too
        while not done.wait(pause):
            sizes = []
            for one in _family(process.pid):
                try:
                    sizes.append(one.memory_full_info().pss)
                except (psutil.Error, AttributeError):
                    continue
            peaks[:] = max(peaks[0], sum(sizes)), max([peaks[1], *sizes])
            pause = min(PAUSE, 2 * pause)

    watcher = threading.Thread(target=look)
    watcher.start()
    status = process.wait()
    done.set()
    watcher.join()
    assert status == 0, f"bench {' '.join(words)} ended with {status}"
    return time.monotonic() - begun, peaks[0], peaks[1]


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []
