"""How many operations a training step starts on a GPU, and how often the host waits for it: counted on a pretended one.

Batches have the shape of MSR-VTT's: 64 captions of up to 24 words, 16 clips of 28 frames. Widths are small: no count
depends on them.

    python -m tests.launches [CASE ..]     prints them
    python -m tests.launches --write       writes the table that `tests/unit/test_launches.py` holds the code to
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from bench.method import Search
from bench.training import tally
from tests.gpu import agreement
from tests.gpu.worlds import Run, build, msrvtt_lengths
from tests.pretended import GPU, Seen, pretended_gpu
from tests.support import TinyEncoder, make_clips

TABLE = Path(__file__).parent / "golden" / "launches.json"
SHAPES = {
    "frames": (28, 32),
    "spatial": (9, 32),
    "audio": (8,),
    "motion": (28, 32),
    "regions": (28, 5, 32),
    "words": (300,),
    "actions": (20,),
    "objects": (30,),
    "pixels": (28, 3, 8, 8),
}
SIZES = {"width": 8, "embedding": 12, "attention": 8}  # frames as wide as the gates, which decides what pays beforehand
CAPTIONS, PER_CLIP, LONGEST = 64, 4, 24
CLIPS = 2 * CAPTIONS // PER_CLIP  # an epoch of two steps: the first one makes what is made once
SEARCH = Search(3, 20, clips=4)


@dataclass
class Counts:
    """Of one training step of each phase, and of one decoded batch of clips: launches and waits; what mixed sides."""

    launches: dict[str, int]
    waits: dict[str, int]
    mixed: Counter[str]
    operations: dict[str, Counter[str]]
    places: dict[str, Counter[str]]


def clips_of(case: agreement.Case, captions: bool = True, clips: int = CLIPS) -> Any:
    """Every batch of an epoch has captions of the longest kind."""
    random = np.random.default_rng(0)
    sizes = []
    for _ in range(clips):
        own = np.minimum(msrvtt_lengths(random, PER_CLIP), LONGEST)
        own[0] = LONGEST
        sizes.append(own.tolist() if captions else [])
    lengths = [28 - clip % 3 * 4 for clip in range(clips)]
    return make_clips(lengths, sizes, {name: SHAPES[name] for name in case.row.streams}, 60, seed=1)


class _Watched(Run):
    """A run that takes the meter's readings at every step."""

    seen: Seen
    marks: dict[str, list[Seen]]

    def tick(self, phase: str, epoch: int, losses: Any) -> None:
        super().tick(phase, epoch, losses)
        self.marks.setdefault(phase, []).append(self.seen.copy())


def count(case: agreement.Case, low: bool = False) -> Counts:
    """Train two steps of every phase and decode four clips."""
    clips = clips_of(case)
    with pretended_gpu() as seen, mock.patch.object(tally, "READ_SECONDS", float("inf")):
        method = build(case.row, clips, **SIZES)
        train = {"captions": CAPTIONS, "captions_per_clip": PER_CLIP, "learning_rate": 5e-4}
        run = _Watched(case.row, GPU, 2 * CAPTIONS * len(case.row.phases), train)
        run.seen, run.marks = seen, {}
        run.train = {**run.train, "precision": "bfloat16" if low else "float32"}
        run.shares, run.search = dict.fromkeys(case.row.phases, 1.0), Search(max_words=20)
        run.encoder = lambda name, weights="pretrained": TinyEncoder(SHAPES["frames"][-1]).to(run.device)  # type: ignore[method-assign]
        method.fit(clips, run)
        steps = {phase: marks[1].since(marks[0]) for phase, marks in run.marks.items()}
        some, before = clips_of(case, captions=False, clips=SEARCH.clips), seen.copy()
        method.decode(some, SEARCH)
        steps["decode"] = seen.since(before)
    return Counts(
        {name: step.launches for name, step in steps.items()},
        {name: sum(step.waits.values()) for name, step in steps.items()},
        seen.mixed,
        {name: step.operations for name, step in steps.items()},
        {name: step.waits for name, step in steps.items()},
    )


def table() -> dict[str, Any]:
    """What the code does now."""
    rows = {}
    for case in agreement.cases():
        found = count(case)
        rows[case.name] = {name: [found.launches[name], found.waits[name]] for name in found.launches}
    return {"torch": torch.__version__.partition("+")[0], "launches and waits": rows}


def main(words: list[str]) -> int:
    torch.set_num_threads(1)
    if words == ["--write"]:
        TABLE.write_text(json.dumps(table(), indent=1) + "\n", encoding="utf-8")
        return 0
    low = "--low" in words
    words = [word for word in words if word != "--low"]
    for case in agreement.cases():
        if not words or case.name in words:
            found = count(case, low)
            print(case.name, {name: (found.launches[name], found.waits[name]) for name in found.launches}, flush=True)
            if words:
                for name, operations in found.operations.items():
                    print("  ", name, operations.most_common(60))
                    print("     waits", dict(found.places[name]), "mixed", dict(found.mixed))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
