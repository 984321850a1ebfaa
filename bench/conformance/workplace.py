"""Where the checks try a method: a tiny corpus, cells that are run once and remembered, the trained method in memory."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml

from bench.cell.checkpoint import build as build_method
from bench.cell.fit import Trainer, run_cell
from bench.cell.inputs import Inputs
from bench.data.batches import CorpusClips
from bench.declare.registry import dataset, method_entry
from bench.features.encoders import load_encoder
from bench.home import Home
from bench.method import Caption, Method, Search
from bench.plan.cells import Cell, cells
from bench.plan.request import parse
from bench.records.schema import Record
from bench.records.store import read_record
from bench.run.prepare import prepare

SMALL = {"width": 16, "embedding": 12, "attention": 8, "dropout": 0.3}


class NotChecked(Exception):  # noqa: N818 - no fault of the method
    """A check could not be made, because of a fault that another check reports."""


class CellFailed(NotChecked):
    """The cell that a check wants to look at did not come to its end."""

    def __init__(self, stage: str, kind: str, message: str) -> None:
        super().__init__(f"{stage} ended in {kind}: {message}")
        self.stage, self.kind = stage, kind


class Bench:
    """One method, or one variant of it (`etenet:step2`), a tiny corpus, and the cells run on it so far (each runs once).

    All of them are asked for with the words `more`, such as `train.epochs=2`, besides the usual ones.
    """

    def __init__(self, method: str, place: Path, more: Sequence[str] = ()) -> None:
        self.method, self._more = method, tuple(more)
        self.home = Home(place)
        name, _, variant = method.partition(":")
        entry = method_entry(name)
        assert entry.card is not None
        self.card, self.module = entry.card, entry.module
        more = self.card.variants[variant or self.card.default].needs
        streams = list(dict.fromkeys(["frames", *self.card.streams.needs, *self.card.streams.uses, *more]))
        self.definition = write_corpus(place, streams)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where the caches lie
            prepare(dataset(str(self.definition)), self.home)
        self._cells: dict[tuple[int, tuple[str, ...]], Cell] = {}
        self._records: dict[str, Record | CellFailed] = {}
        self._made: tuple[Method, Inputs] | None = None
        self._repeats: bool | None = None
        self._steady: bool | None = None
        self._watched: list[tuple[str, bool, bool]] | None = None

    def cell(self, seed: int = 0, *more: str) -> Cell:
        """The cell of this seed and these arguments of the command line."""
        if (seed, more) not in self._cells:
            self._cells[(seed, more)] = self._cell(seed, more)
        return self._cells[(seed, more)]

    def _cell(self, seed: int, more: Sequence[str]) -> Cell:
        shared = [f"model.{name}={value}" for name, value in SMALL.items() if name in self.card.settings]
        argv = [f"methods={self.method}", f"dataset={self.definition}", f"seeds=[{seed}]", *shared, *self._more, *more]
        return cells(parse(argv), self.home)[0]  # a frames-only twin, if there is one, comes second

    def run(self, seed: int = 0, *more: str) -> tuple[Cell, Record]:
        """The cell of this seed, run at most once. Raises CellFailed where it did not come to its end."""
        cell = self.cell(seed, *more)
        if cell.key not in self._records:
            with self._keeping() if cell.key == self.cell().key else contextlib.nullcontext():
                self._records[cell.key] = self._run(cell)
        found = self._records[cell.key]
        if isinstance(found, CellFailed):
            raise found
        return cell, found

    def _run(self, cell: Cell) -> Record | CellFailed:
        path = cell.folder(self.home) / "record.json"
        try:
            run_cell({**cell.config, "reuse": False}, str(self.home.root))  # what the method does, not what it finds
        except Exception:
            failure = read_record(path).failure
            assert failure is not None
            return CellFailed(failure.stage, failure.type, failure.message)
        return read_record(path)

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Keep the method that a cell builds and its clips: later checks decode with it."""
        original = Trainer.build

        def build(trainer: Trainer) -> Method:
            made = original(trainer)
            self._made = (made, trainer.inputs)
            return made

        with mock.patch.object(Trainer, "build", build):
            yield

    def again(self, cell: Cell) -> Record:
        """Run `cell` once more from nothing; leaves the new record in place. Raises CellFailed."""
        (cell.folder(self.home) / "record.json").unlink(missing_ok=True)
        with self._keeping() if cell.key == self.cell().key else contextlib.nullcontext():
            found = self._run(cell)
        if isinstance(found, CellFailed):
            raise found
        return found

    def repeats(self) -> bool:
        """Whether the same seed gives the same weights twice."""
        cell, first = self.run()
        if self._repeats is None:
            self._repeats = self.again(cell).weights_sha256 == first.weights_sha256
        return self._repeats

    def trained(self) -> tuple[Method, Inputs]:
        """The method of seed 0 as its training left it, and its clips."""
        self.run()
        assert self._made is not None
        return self._made

    def decode(self, clips: CorpusClips | None = None, **search: Any) -> list[Caption]:
        """What the trained method says of `clips` (the test clips), by the search of its cell but for `search`."""
        method, inputs = self.trained()
        usual = Search(**self.cell().config["search"])
        return method.decode(inputs.target if clips is None else clips, replace(usual, **search))

    def steady(self) -> bool:
        """Whether decoding the same clips twice gives the same captions."""
        if self._steady is None:
            first, second = self.decode(), self.decode()
            self._steady = [(one.words, one.log_probability) for one in first] == [
                (one.words, one.log_probability) for one in second
            ]
        return self._steady

    def need_steady(self) -> None:
        """Raise NotChecked where captions of one clip differ from one time to the next."""
        if not self.steady():
            raise NotChecked("decoding the same clips twice gives two answers, see decodes_the_same_again")

    def untrained(self) -> Method:
        """The method of seed 0 as it is built, ready to take weights."""
        _, inputs = self.trained()
        config = self.cell().config
        made = build_method(config, inputs.target.streams, inputs.vocabulary)
        if lend := getattr(made, "prepare", None):
            lend(lambda name, weights: load_encoder(name, weights, config.get("files", {})))
        return made

    def watched(self) -> list[tuple[str, bool, bool]]:
        """Files that a cell of another seed opened: (path, for writing, by `fit` or `decode`)."""
        if self._watched is None:
            inside = {"method": False}
            fit, decode = Trainer.fit, Trainer.decode

            def within(call: Callable[..., Any]) -> Callable[..., Any]:
                def watched(*given: Any) -> Any:
                    inside["method"] = True
                    try:
                        return call(*given)
                    finally:
                        inside["method"] = False

                return watched

            with (
                _opened(inside) as seen,
                mock.patch.object(Trainer, "fit", within(fit)),
                mock.patch.object(Trainer, "decode", within(decode)),
            ):
                self.run(2)
            self._watched = seen
        return self._watched


_RECORDINGS: list[tuple[dict[str, bool], list[tuple[str, bool, bool]]]] = []


def _record_open(event: str, arguments: tuple[Any, ...]) -> None:
    if _RECORDINGS and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        inside, seen = _RECORDINGS[-1]
        flags = arguments[2]
        writes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        seen.append((os.path.realpath(os.fsdecode(arguments[0])), writes, inside["method"]))


@contextmanager
def _opened(inside: dict[str, bool]) -> Iterator[list[tuple[str, bool, bool]]]:
    """Files that Python code of this process opens. An audit hook cannot be taken off, so it is set once."""
    if not getattr(sys, "_bench_listens", False):
        sys.addaudithook(_record_open)
        sys._bench_listens = True  # type: ignore[attr-defined]
    seen: list[tuple[str, bool, bool]] = []
    _RECORDINGS.append((inside, seen))
    try:
        yield seen
    finally:
        _RECORDINGS.pop()


SECRET = "zyxwvunplanted"  # nosec B105  # a word to look for, it opens nothing
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
    """`pixels` of every clip, six frames of 64 x 64 with a square on noise: its colour shows the noun, its path the verb; and
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
