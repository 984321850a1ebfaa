"""The `Run` that the harness lends to a method: curves, progress, selection, resume state, all in the cell's work folder."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import BenchError
from bench.cell.schedule import PartOver
from bench.cell.shared_phases import SharedPhases, addresses
from bench.declare.settings import Train, most_captions
from bench.disk.whole import replacing, write_atomically, write_whole
from bench.errors import first_line
from bench.evaluation.cider import TokenCider
from bench.evaluation.ngrams import VocabularyTooLargeError
from bench.evaluation.token_scores import TOKEN_SCORES
from bench.features.device import choose_device
from bench.home import Home
from bench.method import Clips, Method, Search, WordLoss
from bench.plan.states import DAMAGED, RESUME
from bench.records.curves import CURVES, SELECTION
from bench.training import plain_loss

BESIDE = {f"val_{metric}_tokens" for metric in TOKEN_SCORES} - {SELECTION}  # curves that searches add
COLUMNS = ("phase", "epoch", "captions", "seconds", "name", "value")


class OverBudgetError(BenchError):
    """A method reads more captions than its budget."""


class Workbench:
    """`bench.method.Run` of one cell. `spend` is called by the training clips for every caption they hand out.

    `loss` is cross-entropy until the cell sets the one that its declaration names. `store` is the home whose cells it shares
    phases with, None to train all of them itself; `reused` then says what it took up.

    Training is done in parts: `since` are the captions read when this one began, and where `until` is set it ends with the first
    epoch that reaches as many, by PartOver. `beside` holds more scores of the validation captions, by the name of their curve.
    """

    store: Home | None = None
    since = 0
    until: int | None = None

    def __init__(self, config: Mapping[str, Any], work: Path, captions: int) -> None:
        self.device = choose_device(config["device"])
        self.seed: int = config["seed"]
        # A configuration leaves out shared settings younger than the first records (see `bench.declare.settings.ADDED`).
        self.train: Mapping[str, Any] = Train().model_dump() | config["train"]
        self.shares: Mapping[str, float] = config["phases"]
        self.budget = most_captions(self.train, self.shares, captions)
        self.slack = max(config["train"]["captions"], config["train"].get("accumulate") or 0) * len(self.shares)
        self.search = Search(**config["search"])
        self.loss: WordLoss = plain_loss
        self.selection: dict[str, Any] | None = None
        self.reused: dict[str, Any] | None = None  # phases, captions and seconds of other cells
        self.endings: dict[str, str] = {}
        self.captions = 0
        self.epochs = 0
        self.waited = 0.0  # seconds of training that went by until a batch was there
        self._earlier = 0.0  # seconds of training before this process
        self._started = time.monotonic()
        self._ticked = 0.0
        self.work = work
        self._rows: list[dict[str, Any]] = []
        self._val: tuple[Clips, TokenCider] | None = None
        self._dataset = config["dataset"]
        self._files: Mapping[str, str] = config.get("files", {})
        self._config = config
        self._part_ends = False
        self.beside: dict[str, Callable[[dict[str, tuple[str, ...]]], float]] = {}
        self._scores: dict[str, float] = {}  # those of `beside` in this epoch
        self._shared: SharedPhases | None = None

    def lend_validation(self, clips: Clips, references: Mapping[str, list[tuple[str, ...]]]) -> None:
        """Give the validation clips and the tokens of their captions; the method sees neither."""
        try:
            self._val = (clips, TokenCider(references))
        except VocabularyTooLargeError as error:
            raise BenchError(f"data set {self._dataset}, split val: {error}") from error

    @property
    def seconds(self) -> float:
        """Seconds of training, over all processes that worked on this cell."""
        return self._earlier + time.monotonic() - self._started

    def encoder(self, name: str, weights: str = "pretrained") -> nn.Module:
        """The encoder called `name`; a file of weights is found by its digest, wherever it lies on this machine."""
        from bench.features.encoders import load_encoder

        return load_encoder(name, weights, self._files).to(self.device)

    def spend(self, captions: int) -> None:
        """Count captions handed out. Raises OverBudgetError where a method reads more than its budget."""
        self.captions += captions
        if self.captions > self.budget + self.slack:
            raise OverBudgetError(
                f"the method read {self.captions} captions of a budget of {self.budget}: every method trains on the same number"
            )

    def wait(self, seconds: float) -> None:
        """Count the time that a batch was waited for."""
        self.waited += seconds

    def tick(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self._ticked >= 1.0:
            self._ticked = now
            self._progress(phase, epoch, values)

    def report(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        self.epochs += 1
        at = {"phase": phase, "epoch": epoch, "captions": self.captions, "seconds": round(self.seconds, 3)}
        values = {**values, **self._scores}
        self._scores = {}
        self._rows += [{**at, "name": name, "value": repr(float(value))} for name, value in values.items()]
        self._part_ends = self.until is not None and self.captions >= self.until
        self._write_curves()
        self._progress(phase, epoch, values)

    def validate(self, method: Method) -> float:
        assert self._val is not None, "lend_validation comes first"
        clips, scorer = self._val
        captions = {caption.clip: caption.words for caption in method.decode(clips, self.search)}
        self._scores = {name: score(captions) for name, score in self.beside.items()}
        mean, _ = scorer.score(captions)
        return 100.0 * float(mean)

    def selected(self, phase: str, epoch: int, score: float) -> None:
        self.selection = {"metric": SELECTION, "value": score, "phase": phase, "epoch": epoch}

    def ended(self, phase: str, how: str) -> None:
        self.endings[phase] = how

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write the method's state and the counts of the harness, whole or not at all. Raises PartOver where a part ends."""
        if self._part_ends:
            self.since = self.captions
        harness = {
            "captions": self.captions,
            "epochs": self.epochs,
            "seconds": self.seconds,
            "waited": self.waited,
            "selection": self.selection,
            "reused": self.reused,
            "endings": self.endings,
            "since": self.since,
            "rows": self._rows,
        }
        write_whole(self.state, lambda aside: torch.save({"method": dict(state), "harness": harness}, aside))
        self.written()
        if self._part_ends:
            self._part_ends = False
            raise PartOver

    def written(self) -> None:
        """Told whenever a resume state was written."""

    def load_state(self) -> dict[str, Any] | None:
        """The method's last state; counts, selection and curves go on from it too."""
        if not self.state.is_file():
            return None
        part = self.since
        try:
            state = self._take(self.state)
        except (OSError, MemoryError):
            raise  # the disk, not the file
        except Exception as error:  # torch, pickle, zip and struct have errors of their own
            aside = self.work / DAMAGED
            self.state.replace(aside)
            print(
                f"{self.state} is damaged ({first_line(error)}): it is kept as {aside}, and training begins anew",
                flush=True,
            )
            return None
        if part != self.since:  # of a part behind this one: its letters may be others
            raise PartOver
        return state

    @property
    def state(self) -> Path:
        """The file of the resume state."""
        return self.work / RESUME

    def _take(self, path: Path) -> dict[str, Any]:
        """The method's part of a state; what the harness counts goes on from its own."""
        # Not to the device: states of generators have to stay on the CPU, and weights are copied into place from there.
        saved = torch.load(path, map_location="cpu", weights_only=True)
        harness, method = saved["harness"], saved["method"]
        _ = [
            harness[name] for name in ("captions", "epochs", "seconds", "selection", "rows")
        ]  # all, before any is taken over
        self.captions, self.epochs, self._earlier = harness["captions"], harness["epochs"], harness["seconds"]
        self.waited, self.endings = harness.get("waited", 0.0), harness.get("endings", {})
        self.selection, self._rows = harness["selection"], harness["rows"]
        self.reused, self.since = harness.get("reused"), harness.get("since", 0)
        self._started = time.monotonic()
        self._write_curves()
        return dict(method)

    def shared(self, phases: Sequence[tuple[str, int]], module: nn.Module) -> SharedPhases | None:
        places = addresses(self._config, phases, module, self.device) if self.store else []
        if self.store is None or not places:
            return None
        names = [name for name, _ in phases]

        def take(path: Path, count: int) -> dict[str, Any]:
            since, state = self.since, self._take(path)
            self.since = since  # the phase may be another's, the part is this cell's
            self._rows = [row for row in self._rows if row["name"] not in BESIDE or row["name"] in self.beside]
            self._write_curves()
            self.reused = {"phases": names[:count], "captions": self.captions, "seconds": self.seconds}
            if self.until is not None and self.captions >= self.until:
                self._part_ends = True
                self.save_state(state)
            return state

        self._shared = SharedPhases(self.store, names, places, self.state, take)
        return self._shared

    def close(self) -> None:
        """Hold up no other cell any more, however the training ended."""
        if self._shared is not None:
            self._shared.release()

    def keep_curves(self, folder: Path) -> None:
        """Put the curves beside the record of the cell; those of a method that reported nothing are a head without rows."""
        if not (self.work / CURVES).is_file():
            self._write_curves()
        shutil.copyfile(self.work / CURVES, folder / CURVES)

    def _write_curves(self) -> None:
        lines = [",".join(COLUMNS)]
        lines += [",".join(str(row[name]) for name in COLUMNS) for row in self._rows]
        write_atomically(self.work / CURVES, "\n".join(lines) + "\n")

    def _progress(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
        told = {
            "phase": phase,
            "epoch": epoch,
            "captions": self.captions,
            "budget": self.budget,
            "values": {name: value for name, value in values.items() if math.isfinite(value)},
            "reused": self.reused["captions"] if self.reused else 0,
            "pid": os.getpid(),
            "time": time.time(),
        }
        with replacing(self.work / "progress.json", durable=False) as aside:  # of no use after a power cut
            aside.write_text(json.dumps(told), encoding="utf-8")
