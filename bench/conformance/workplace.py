"""Where the checks try a method: a tiny corpus, cells that are run once and remembered, the trained method in memory."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from bench.conformance.corpus import write_corpus
from bench.data.clips import CorpusClips
from bench.execution.cell import Fitting, run_cell
from bench.execution.checkpoint import method_code
from bench.execution.inputs import Inputs
from bench.execution.prepare import prepare
from bench.features.encoders import load_encoder
from bench.home import Home
from bench.method import Caption, Method, Search
from bench.records.schema import Record
from bench.records.store import read_record
from bench.registry import dataset, method_entry
from bench.spec import Cell, cells, parse

SMALL = {"width": 16, "embedding": 12, "attention": 8, "dropout": 0.3}


class NotChecked(Exception):  # noqa: N818 - no fault of the method
    """A check could not be made, because of a fault that another check tells."""


class CellFailed(NotChecked):
    """The cell that a check wants to look at did not come to its end."""

    def __init__(self, stage: str, kind: str, message: str) -> None:
        super().__init__(f"{stage} ended in {kind}: {message}")
        self.stage, self.kind = stage, kind


class Bench:
    """One method, or one variant of it (`etenet:step2`), a tiny corpus, and the cells run on it so far (each runs once)."""

    def __init__(self, method: str, place: Path) -> None:
        self.method = method
        self.home = Home(place)
        name, _, variant = method.partition(":")
        entry = method_entry(name)
        assert entry.card is not None
        self.card, self.module = entry.card, entry.module
        more = self.card.variants[variant or self.card.default].needs
        streams = list(dict.fromkeys(["frames", *self.card.streams.needs, *self.card.streams.uses, *more]))
        self.definition = write_corpus(place, streams)
        with contextlib.redirect_stdout(io.StringIO()):  # where the caches lie is no news here
            prepare(dataset(str(self.definition)), self.home)
        self._cells: dict[tuple[int, tuple[str, ...]], Cell] = {}
        self._records: dict[str, Record | CellFailed] = {}
        self._made: tuple[Method, Inputs] | None = None
        self._repeats: bool | None = None
        self._steady: bool | None = None
        self._watched: list[tuple[str, bool, bool]] | None = None

    def cell(self, seed: int = 0, *more: str) -> Cell:
        """The cell of this seed and these words of the command line."""
        if (seed, more) not in self._cells:
            self._cells[(seed, more)] = self._cell(seed, more)
        return self._cells[(seed, more)]

    def _cell(self, seed: int, more: Sequence[str]) -> Cell:
        shared = [f"model.{name}={value}" for name, value in SMALL.items() if name in self.card.settings]
        words = [f"methods={self.method}", f"dataset={self.definition}", f"seeds=[{seed}]", *shared, *more]
        return cells(parse(words), self.home)[0]  # a frames-only twin, if there is one, comes second

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
            run_cell(cell.config, str(self.home.root))
        except Exception:
            failure = read_record(path).failure
            assert failure is not None
            return CellFailed(failure.stage, failure.type, failure.message)
        return read_record(path)

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Keep the method that a cell builds and its clips: later checks decode with it."""
        original = Fitting.build

        def build(fitting: Fitting) -> Method:
            made = original(fitting)
            self._made = (made, fitting.inputs)
            return made

        with mock.patch.object(Fitting, "build", build):
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
        made: Method = method_code(config["method"]).build(config["settings"], inputs.target.streams, inputs.vocabulary)
        if lend := getattr(made, "prepare", None):
            lend(lambda name, weights: load_encoder(name, weights, config.get("files", {})))
        return made

    def watched(self) -> list[tuple[str, bool, bool]]:
        """Files that a cell of another seed opened: (path, for writing, by `fit` or `decode`)."""
        if self._watched is None:
            inside = {"method": False}
            fit, decode = Fitting.fit, Fitting.decode

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
                mock.patch.object(Fitting, "fit", within(fit)),
                mock.patch.object(Fitting, "decode", within(decode)),
            ):
                self.run(2)
            self._watched = seen
        return self._watched


_LISTENERS: list[tuple[dict[str, bool], list[tuple[str, bool, bool]]]] = []


def _listen(event: str, arguments: tuple[Any, ...]) -> None:
    if _LISTENERS and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        inside, seen = _LISTENERS[-1]
        flags = arguments[2]
        writes = isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        seen.append((os.path.realpath(os.fsdecode(arguments[0])), writes, inside["method"]))


@contextmanager
def _opened(inside: dict[str, bool]) -> Iterator[list[tuple[str, bool, bool]]]:
    """Files that Python code of this process opens. An audit hook cannot be taken off, so it is set once."""
    if not getattr(sys, "_bench_listens", False):
        sys.addaudithook(_listen)
        sys._bench_listens = True  # type: ignore[attr-defined]
    seen: list[tuple[str, bool, bool]] = []
    _LISTENERS.append((inside, seen))
    try:
        yield seen
    finally:
        _LISTENERS.pop()
