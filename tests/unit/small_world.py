"""A throw-away world for tests of the front: methods and a data set written as strings, a home of its own."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from bench.declare.dataset import DatasetDefinition
from bench.home import Home
from bench.plan.cells import Cell

TOY = """
name: toy
summary: a toy
paper: {title: Toys, authors: [A. Nyone], year: 2020, venue: TOY, arxiv: null}
streams: {needs: [frames], uses: [words]}
without: {words: words are guessed}
name_without: {words: "words from frames"}
settings:
  weight: {type: float, min: 0, max: 1, default: 0.1, alias: lambda, help: of the second loss}
  mode: {type: choice, choices: ["on", "010", local], default: local}
  depth: {type: int, min: 1, default: 2}
  note: {type: str, default: null}
  width: {type: int, min: 1, default: 512, shared: true}
variants:
  one: {title: Toy-one, settings: {weight: 0.2}}
  two: {title: Toy-two, settings: {}, phases: {base: 0.25, more: 0.75}}
default: two
phases: {base: 1.0}
search_space: {weight: [0.0, 0.5]}
protocol_paper:
  settings: {width: 486, weight: 0.3}
  train: {epochs: 300, captions: 200}
  text: {tokenizer: treebank}
  frames: 28
  stream_shapes: {frames: [28, 6]}
open_points:
  - {point: everything, choice: something, source: inferred}
"""

PLAIN = """
name: plain
summary: a method without a printed setting
settings: {width: {type: int, default: 512, shared: true}}
variants: {xe: {title: Plain}}
default: xe
"""

DATASET = """
name: little
title: three clips
captions:
  - format: jsonl
    files: {captions: captions.jsonl}
    counts: {train: {clips: 2, captions: 1000}}
splits: {train: train.txt, val: val.txt, test: test.txt}
split_variants: {other: {first: [1, 1, 1]}}
streams:
  frames: {source: frames.h5}
text: {tokenizer: strip, min_count: 2}
train: {epochs: 7}
"""


class World:
    """Folders below `root`: `methods`, `data` (one data set) and `home`."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.home = root, Home(root / "home")
        self.methods, self.data = root / "methods", root / "data"
        self.add_method("toy", TOY)
        self.add_method("plain", PLAIN)
        self.dataset = self.write("data/dataset.yaml", DATASET)
        self.write("data/captions.jsonl", '{"clip": "a", "caption": "a cat"}\n')
        for part, clip in (("train", "a"), ("val", "b"), ("test", "c")):
            self.write(f"data/{part}.txt", clip)
        self.write("data/frames.h5", "")
        (root / "home").mkdir(exist_ok=True)
        monkeypatch.setattr("bench.declare.registry.methods_folder", lambda: self.methods)
        monkeypatch.setenv("BENCH_HOME", str(self.home.root))
        for name in ("BENCH_DATA", "BENCH_CACHE"):
            monkeypatch.delenv(name, raising=False)

    def write(self, path: str, text: str) -> Path:
        """A file below the root, its text dedented."""
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(dedent(text), encoding="utf-8")
        return place

    def add_method(self, name: str, card: str, code: str = "x = 1\n") -> None:
        self.write(f"methods/{name}/card.yaml", card)
        self.write(f"methods/{name}/__init__.py", code)

    def add_stream(self, name: str, fingerprint: str = "f" * 64, shape: tuple[int, ...] = (28, 6)) -> None:
        """A stream that planning takes for cached: its sidecar."""
        facts = {"schema": 1, "stream": name, "shape": shape, "timed": True, "dtype": "float16", "clips": 3}
        facts |= {"fingerprint": fingerprint, "bytes": 1, "source": {}, "encoder": {}}
        self.write(f"home/.bench/cache/little/{name}.json", json.dumps(facts))

    def add_record(self, cell: Cell, state: str = "done", **more: Any) -> Path:
        """A sound record of a cell."""
        record: dict[str, Any] = {"schema": 1, "key": cell.key, "state": state, "config": cell.config}
        if state == "done":
            record |= {"scores": {"test": {"cider": 31.25}}, "signatures": {"test": {"cider": "CIDEr-D"}}}
        if state == "failed":
            record |= {"failure": {"stage": "fit", "type": "RuntimeError", "message": "boom"}}
        path = cell.folder(self.home) / "record.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record | more), encoding="utf-8")
        return path


def definition_at(folder: Path, stream: str = "frames", **entry: Any) -> DatasetDefinition:
    """The definition of a data set `own` with one stream, as if read from a file in `folder`."""
    definition = DatasetDefinition.model_validate(
        {"name": "own", "captions": [{"format": "jsonl"}], "streams": {stream: entry}}
    )
    definition._path = folder / "dataset.yaml"
    return definition
