"""A tiny corpus written as files, with whatever streams a method asks for, and a marked secret in its test captions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml

from bench.features.encoders import load_encoder

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
    "pixels": (6, 3, 64, 64),
}
COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40), (40, 200, 200))
ENCODER = "shapes"  # makes the frames of a corpus with pixels: a method may go on from the ones to the others


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
    seen = _paint(scenes) if "pixels" in streams else {}
    for name in streams:
        (folder / name).mkdir()
        shape = SHAPES.get(name, (6, 8))
        for clip, (noun, verb) in scenes.items():
            values = random.normal(0, 0.1, shape)
            values[..., noun] += 1.0
            values[..., len(NOUNS) + verb if shape[-1] > len(NOUNS) + len(VERBS) else verb] += 1.0
            np.save(folder / name / f"{clip}.npy", seen[name][clip] if name in seen else values.astype(np.float32))
    for split in SIZES:
        own = [clip for clip in clips if clip.startswith(split)]
        (folder / f"{split}.txt").write_text("\n".join(own) + "\n", encoding="utf-8")
    definition = {
        "name": "tiny",
        "captions": [{"format": "jsonl", "files": {"captions": "captions.jsonl"}}],
        "splits": {split: f"{split}.txt" for split in SIZES},
        "streams": {name: {"source": name, **({"encoder": ENCODER} if name in seen else {})} for name in streams},
        "train": {"epochs": 4, "captions": 8, "captions_per_clip": 2, "learning_rate": 0.01},
    }
    path = folder / "dataset.yaml"
    path.write_text(yaml.safe_dump(definition), encoding="utf-8")
    return path


def _paint(scenes: Mapping[str, tuple[int, int]]) -> dict[str, dict[str, np.ndarray]]:
    """`pixels` of every clip, six frames of 64 x 64 with a square on noise: its colour tells the noun, its path the verb; and
    `frames`, what the encoder makes of them."""
    random = np.random.default_rng(8)
    encoder = load_encoder(ENCODER)
    seen: dict[str, dict[str, np.ndarray]] = {"pixels": {}, "frames": {}}
    for clip, (noun, verb) in scenes.items():
        pixels = random.integers(90, 110, (6, 3, 64, 64), dtype=np.uint8)
        for time in range(6):
            row, column = 6 + 12 * verb, 6 + 8 * time
            pixels[time, :, row : row + 10, column : column + 10] = np.array(COLOURS[noun])[:, None, None]
        seen["pixels"][clip] = pixels
        seen["frames"][clip] = encoder(torch.from_numpy(pixels)).detach().numpy()
    return seen
