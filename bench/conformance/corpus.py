"""A tiny corpus written as files, with whatever streams a method asks for, and a marked secret in its test captions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

SECRET = "zyxwvunplanted"
"""A word that only test captions hold. Whoever can find it in what `fit` gets has seen the answers."""

SIZES = {"train": 10, "val": 3, "test": 4}
NOUNS, VERBS = ("man", "woman", "dog", "cat", "child"), ("runs", "sings", "cooks", "swims")
SHAPES = {
    "frames": (6, 12),
    "motion": (4, 10),
    "spatial": (9, 8),
    "regions": (6, 3, 8),
    "audio": (16,),
    "words": (30,),
    "actions": (20,),
    "objects": (25,),
}


def write_corpus(folder: Path, streams: Sequence[str]) -> Path:
    """Write captions and streams into `folder`; returns the path of the data set definition. A function of nothing else."""
    random = np.random.default_rng(7)
    clips = [f"{split}{number}" for split, count in SIZES.items() for number in range(count)]
    lines, scenes = [], {}
    for place, clip in enumerate(clips):
        scenes[clip] = (place % len(NOUNS), place % len(VERBS))
        who, does = NOUNS[scenes[clip][0]], VERBS[scenes[clip][1]]
        texts = [f"a {who} {does}", f"the {who} {does} outside", f"there is a {who} who {does} alone"]
        if clip.startswith("test"):
            texts = [f"{text} {SECRET}" for text in texts]
        lines += [json.dumps({"clip": clip, "caption": text}) for text in texts]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in streams:
        (folder / name).mkdir()
        shape = SHAPES.get(name, (6, 8))
        for clip, (noun, verb) in scenes.items():
            values = random.normal(0, 0.1, shape)
            values[..., noun] += 1.0
            values[..., len(NOUNS) + verb if shape[-1] > len(NOUNS) + len(VERBS) else verb] += 1.0
            np.save(folder / name / f"{clip}.npy", values.astype(np.float32))
    for split in SIZES:
        own = [clip for clip in clips if clip.startswith(split)]
        (folder / f"{split}.txt").write_text("\n".join(own) + "\n", encoding="utf-8")
    definition = {
        "name": "tiny",
        "captions": [{"format": "jsonl", "files": {"captions": "captions.jsonl"}}],
        "splits": {split: f"{split}.txt" for split in SIZES},
        "streams": {name: {"source": name} for name in streams},
        "train": {"epochs": 4, "captions": 8, "captions_per_clip": 2, "learning_rate": 0.01},
    }
    path = folder / "dataset.yaml"
    path.write_text(yaml.safe_dump(definition), encoding="utf-8")
    return path
