"""How many operations a training step starts on a GPU, and how often the host waits for it: counted on a pretended one.

python -m tests.launches [CASE ..] [--low]     prints them for a batch of MSR-VTT's shape, with every operation if CASE is named
python -m tests.launches --write               writes the table that `tests/unit/test_pretended_gpu.py` holds the code to
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from bench.method import Clips, Search
from bench.training import tally
from tests.gpu import agreement
from tests.gpu.worlds import Run, build, msrvtt_lengths
from tests.pretended import GPU, Seen, pretended_gpu
from tests.support import TinyEncoder, make_clips

TABLE = Path(__file__).parent / "golden" / "launches.json"
SIZES = {"width": 8, "embedding": 12, "attention": 8}  # no count depends on widths


@dataclass(frozen=True)
class Shape:
    """Batches that are counted: captions, captions of a clip, words of the longest, frames, words that are drawn or searched."""

    captions: int
    per_clip: int
    longest: int
    frames: int
    search: int

    def clips(self, case: agreement.Case, captions: bool = True) -> Clips:
        """An epoch of two batches, each with captions of the longest kind; without captions, four clips."""
        random = np.random.default_rng(0)
        count = 2 * self.captions // self.per_clip if captions else 4
        sizes: list[list[int]] = []
        for _ in range(count):
            own = np.minimum(msrvtt_lengths(random, self.per_clip), self.longest)
            own[0] = self.longest
            sizes.append(own.tolist() if captions else [])
        lengths = [self.frames - clip % 3 for clip in range(count)]
        # Frames are as wide as the gates of a cell, and places: that decides whether they are multiplied beforehand.
        own_shapes = agreement.SHAPES | {
            "frames": (self.frames, 32),
            "spatial": (9, 32),
            "pixels": (self.frames, 3, 8, 8),
        }
        own_shapes |= {"motion": (self.frames, 32), "regions": (self.frames, 5, 32)}
        shapes = {name: own_shapes[name] for name in case.row.streams}
        return make_clips(lengths, sizes, shapes, 60, seed=1)


SMALL = Shape(captions=16, per_clip=4, longest=6, frames=6, search=8)
MSRVTT = Shape(captions=64, per_clip=4, longest=24, frames=28, search=20)


class _Watched(Run):
    """A run that takes the meter's readings at every step."""

    seen: Seen
    marks: dict[str, list[Seen]]

    def tick(self, phase: str, epoch: int, losses: Mapping[str, float]) -> None:
        super().tick(phase, epoch, losses)
        self.marks.setdefault(phase, []).append(self.seen.copy())


def count(case: agreement.Case, shape: Shape, low: bool = False) -> tuple[dict[str, Seen], Counter[str]]:
    """What the second step of every phase did, and the decoding of four clips (`decode`); all that mixed sides."""
    with pretended_gpu() as seen, mock.patch.object(tally, "READ_SECONDS", float("inf")):
        clips = shape.clips(case)
        method = build(case.row, clips, **SIZES)
        train = {"captions": shape.captions, "captions_per_clip": shape.per_clip, "learning_rate": 5e-4}
        run = _Watched(case.row, GPU, 2 * shape.captions * len(case.row.phases), train)
        run.seen, run.marks = seen, {}
        run.train = {**run.train, "precision": "bfloat16" if low else "float32"}
        run.shares, run.search = dict.fromkeys(case.row.phases, 1.0), Search(max_words=shape.search)
        run.encoder = lambda name, weights="pretrained": TinyEncoder(32).to(run.device)  # type: ignore[method-assign]
        method.fit(clips, run)
        steps = {phase: marks[1].since(marks[0]) for phase, marks in run.marks.items()}
        some, before = shape.clips(case, captions=False), seen.copy()
        method.decode(some, Search(3, shape.search, clips=4))
        steps["decode"] = seen.since(before)
    return steps, seen.mixed


def rows() -> dict[str, dict[str, list[int]]]:
    """Launches and waits of every case and phase."""
    return {case.name: numbers(count(case, SMALL)[0]) for case in agreement.cases()}


def numbers(steps: Mapping[str, Seen]) -> dict[str, list[int]]:
    return {name: [step.launches, sum(step.waits.values())] for name, step in steps.items()}


def written() -> dict[str, Any]:
    """The committed table."""
    table: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def version() -> str:
    """Of torch, without what it was built for."""
    return torch.__version__.partition("+")[0]


def main(words: list[str]) -> int:
    torch.set_num_threads(1)
    if words == ["--write"]:
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows().items())
        TABLE.write_text(f'{{\n "torch": "{version()}",\n "rows": {{\n{lines}\n }}\n}}\n', encoding="utf-8")
        return 0
    names = [word for word in words if word != "--low"]
    for case in agreement.cases():
        if not names or case.name in names:
            steps, mixed = count(case, MSRVTT, "--low" in words)
            print(case.name, numbers(steps), flush=True)
            for name, step in steps.items() if names else ():
                print(" ", name, step.operations.most_common(), dict(step.waits), dict(mixed))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
