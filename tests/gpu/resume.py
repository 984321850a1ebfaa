"""Whether a training that is killed goes on exactly: the same weights, to the bit, as one that was left alone.

`python3 -m tests.gpu.resume ROW DEVICE FOLDER [DIE]` trains in a process of its own, saves after every batch and kills itself in
batch DIE; its last line tells the digest of the weights.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from bench.method import Search
from bench.training import phases
from tests.cards import card_rows
from tests.gpu.worlds import Run, as_cells_do, build, corpus, msvd_lengths
from tests.support import digest

ROWS = ("recnet:local_rl", "vre:full", "s2vt:xe", "hail:ha_il")
SHAPES = {
    "frames": (28, 256),
    "spatial": (49, 128),
    "audio": (64,),
    "motion": (28, 128),
    "regions": (28, 6, 128),
}
SIZES = {"width": 256, "embedding": 256, "attention": 256, "dropout": 0.5}
SMALL = {"width": 16, "embedding": 12, "attention": 8, "dropout": 0.5}
CLIPS, CAPTIONS, EPOCHS = 32, 8, 6
LATE = 124  # the exit status of a process whose time was up, as of `timeout`


class SavingRun(Run):
    """A run that saves into a file, as a cell does, and may kill its process in the middle."""

    def __init__(self, path: Path, die: int | None, *words: Any) -> None:
        super().__init__(*words)
        self.path, self.die = path, die
        self.search = Search(max_words=12)
        self.saves = 0

    def save_state(self, state: Mapping[str, Any]) -> None:
        aside = self.path.with_suffix(".tmp")
        torch.save(dict(state), aside)
        aside.replace(self.path)
        self.saves += 1
        if self.saves == self.die:
            os.kill(os.getpid(), signal.SIGKILL)

    def load_state(self) -> dict[str, Any] | None:
        return torch.load(self.path, map_location="cpu", weights_only=True) if self.path.is_file() else None


def train(name: str, device: str, folder: Path, die: int | None, quick: bool) -> str:
    """Train a row; the digest of its last weights."""
    as_cells_do()
    phases.SAVE_SECONDS = 0.0
    row = card_rows()[name]
    clips = corpus({stream: SHAPES[stream] for stream in row.streams}, CLIPS, CAPTIONS, 400, msvd_lengths)
    epochs = 3 if quick else EPOCHS
    train = {"captions": 64, "captions_per_clip": 4, "accumulate": 96, "learning_rate": 1e-3}
    run = SavingRun(folder / "state.pt", die, row, torch.device(device), epochs * clips.n_captions, train)
    method = build(row, clips, **(SMALL if quick else SIZES))
    method.fit(clips, run)
    return digest({name: value.cpu() for name, value in method.state_dict().items()})


def compare(name: str, device: str, quick: bool, deadline: float) -> dict[str, Any]:
    """A training left alone, and one that is killed in its third batch and once more (once, if `quick`), side by side."""
    began = time.monotonic()
    deaths = (3,) if quick else (3, 5)
    told: dict[str, Any] = {"row": name, "right": False}
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as pool:

        def tried(folder: str, *deaths: int | None) -> list[tuple[int, str]]:
            (Path(place) / folder).mkdir()
            return [_process(name, device, Path(place) / folder, die, quick, deadline) for die in deaths]

        whole, pieces = pool.submit(tried, "whole", None), pool.submit(tried, "pieces", *deaths, None)
        ended = [*whole.result(), *pieces.result()]
    codes = [code for code, _ in ended]
    told["exit codes"] = codes
    if LATE in codes:
        return told | {"left out": "the time was up"}
    if codes != [0, *(-signal.SIGKILL for _ in deaths), 0]:
        told["error"] = " | ".join(text[-600:] for code, text in ended if code not in (0, -signal.SIGKILL))
        return told
    digests = [json.loads(text.splitlines()[-1])["digest"] for code, text in ended if code == 0]
    return told | {"right": digests[0] == digests[1], "digests": digests, "seconds": time.monotonic() - began}


def _process(name: str, device: str, folder: Path, die: int | None, quick: bool, deadline: float) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.gpu.resume", name, device, str(folder), str(die or 0), str(int(quick))]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=max(deadline - time.monotonic(), 1.0), check=False
        )
    except subprocess.TimeoutExpired:
        return LATE, ""
    return done.returncode, done.stdout + done.stderr if done.returncode else done.stdout


if __name__ == "__main__":
    name, device, folder, die, quick = sys.argv[1:]
    print(json.dumps({"digest": train(name, device, Path(folder), int(die) or None, quick == "1")}))
