"""One cell: fit and decode. Runs in whatever process the runner placed it in.

The folder of a cell holds `work/` (curves so far, progress, resume state, log) while it trains. When captions are decoded,
predictions, curves and checkpoint are moved into place and an `unscored` record is written, which `bench.cell.scores` fills.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from bench import BenchError
from bench.cell import checkpoint
from bench.cell.checkpoint import CHECKPOINT, method_code
from bench.cell.inputs import check_planned, gather
from bench.cell.provenance import now, provenance
from bench.cell.repeatable import same_every_time
from bench.cell.schedule import PartOver, in_force, next_change
from bench.cell.shared_phases import weights_digest
from bench.cell.traces import keep_alternatives, keep_traces
from bench.cell.workbench import Workbench
from bench.declare.registry import method as card_of
from bench.declare.settings import Train
from bench.errors import ChangedError, named
from bench.features.device import choose_device
from bench.home import Home
from bench.method import Caption, Clips, Method, Vocabulary, WordLoss
from bench.plan.cells import Cell
from bench.records.curves import CURVES
from bench.records.schema import Record, impersonal, public
from bench.records.store import PREDICTIONS, Prediction, write_predictions, write_record
from bench.training import plain_loss


def run_cell(config: dict[str, Any], root: str) -> None:
    """Fit and decode the cell `config` in this process; leaves an `unscored` record. Resumes where an earlier try stopped.

    What goes wrong is written as a `failed` record with its stage, and raised again; but for inputs or code that are no longer
    those that the key names.
    """
    home = Home(Path(root))
    cell = Cell(config)
    folder = cell.folder(home)
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    started = now()
    stage = {"name": "fit"}
    with _failures(folder, cell.key, config, stage):
        precision = config["train"].get("precision", "float32")
        same_every_time(precision)
        _forget_unfinished(folder)
        trainer = Trainer(config, work, home)
        facts = provenance(config["threads"], str(trainer.run.device), precision) | {"started": started}  # as it begins
        method = trainer.train()
        assert method is not None
        fit_seconds = trainer.run.seconds
        stage["name"] = "decode"
        captions, decode_seconds = trainer.decode(method)
        _finish(folder, cell.key, trainer, method, captions, facts, fit_seconds, decode_seconds)


class Trainer:
    """Inputs and workbench of one cell: what its training clips hand out, and how long they take, counts into the run."""

    def __init__(
        self, config: Mapping[str, Any], work: Path, home: Home, workbench: type[Workbench] = Workbench
    ) -> None:
        check_planned(config, home)
        self.config = self.now = config
        self.inputs = gather(
            config,
            home,
            lambda captions: self.run.spend(captions),
            lambda seconds: self.run.wait(seconds),
            choose_device(config["device"]),
        )
        self.run = workbench(config, work, self.inputs.train.n_captions)
        self.run.lend_validation(self.inputs.val, self.inputs.val_references)
        self.run.loss = word_loss(config, self.inputs.train)
        if config.get("reuse", True):
            self.run.store = home

    def train(self, until: int | None = None) -> Method | None:
        """Build and fit, anew wherever the schedule of the declaration changes a letter.

        With `until` no further than the first epoch that ends with so many captions read; None says that it was reached.
        """
        run = self.run
        while until is None or run.since < until:
            self.now = in_force(self.config, run.since)
            marks = [mark for mark in (next_change(self.config, run.since), until) if mark is not None]
            run.until, run.train = min(marks, default=None), Train().model_dump() | self.now["train"]
            method = self.build()
            with suppress(PartOver):
                self.fit(method)
                return method
        return None

    def build(self) -> Method:
        torch.manual_seed(self.config["seed"])
        return checkpoint.build(self.now, self.inputs.target.streams, self.inputs.vocabulary)

    def fit(self, method: Method) -> None:
        """Train; goes on from the resume state where an earlier try left one."""
        with closing(self.run):
            method.fit(self.inputs.train, self.run)

    def decode(self, method: Method) -> tuple[list[Caption], float]:
        """Captions of the target split, one for each id, and the seconds it took."""
        started = time.monotonic()
        captions = method.decode(self.inputs.target, self.run.search)
        seconds = time.monotonic() - started
        asked, given = list(self.inputs.target.ids), [caption.clip for caption in captions]
        if given != asked:
            wrong = named(sorted(set(asked) ^ set(given))) or "the order"
            raise BenchError(f"decode must return one caption for each clip asked, in order; wrong: {wrong}")
        return captions, seconds


def word_loss(config: Mapping[str, Any], train: Clips) -> WordLoss:
    """The loss that a cell's declaration names, made on its training clips by the method that provides it."""
    loss = config.get("loss")
    if loss is None:
        return plain_loss
    settings = card_of(loss["provider"]).whole(loss["settings"], of_loss=True)
    made: WordLoss = method_code(loss["provider"]).build_loss(settings, train)
    return made


@contextmanager
def _failures(folder: Path, key: str, config: dict[str, Any], stage: Mapping[str, str]) -> Iterator[None]:
    try:
        yield
    except ChangedError:
        raise
    except Exception as error:
        message = impersonal(" ".join(str(error).split()))[:500]
        failure = {"stage": stage["name"], "type": type(error).__name__, "message": message, "log": "work/log.txt"}
        content = {"schema": 1, "key": key, "state": "failed", "config": public(config), "failure": failure}
        write_record(folder, Record.model_validate(content))
        raise


def _forget_unfinished(folder: Path) -> None:
    """Files of a try that ended between decoding and its record: without a record they count for nothing."""
    for name in (PREDICTIONS, CURVES, CHECKPOINT):
        (folder / name).unlink(missing_ok=True)


def _finish(
    folder: Path,
    key: str,
    trainer: Trainer,
    method: Method,
    captions: list[Caption],
    facts: dict[str, Any],
    fit_seconds: float,
    decode_seconds: float,
) -> None:
    config, run, vocabulary = trainer.config, trainer.run, trainer.inputs.vocabulary
    state = {name: value.detach().cpu().contiguous() for name, value in method.state_dict().items()}
    checkpoint.save(folder / CHECKPOINT, state, config, vocabulary, trainer.inputs.target.streams)
    write_predictions(folder / PREDICTIONS, [Prediction(c.clip, c.text, c.log_probability) for c in captions])
    run.keep_curves(folder)
    keep_traces(run.work, captions)
    keep_alternatives(run.work, captions)
    if run.device.type == "cuda":
        facts["features_on_gpu"] = trainer.inputs.on_gpu
    record = {
        "schema": 1,
        "key": key,
        "state": "unscored",
        "config": public(config),
        "selection": run.selection,
        **({"endings": run.endings} if run.endings else {}),
        "ledger": {
            "captions": run.captions,
            "budget": run.budget,
            "epochs": run.epochs,
            "fit_seconds": round(fit_seconds, 3),
            "wait_seconds": round(run.waited, 3),
            "decode_seconds": round(decode_seconds, 3),
            "peak_memory_mb": round(_peak_memory(run.device), 1),
            "parameters": sum(value.numel() for value in state.values()),
            "captions_per_second": round(run.captions / max(fit_seconds, 1e-9), 1),
            **_reused(run),
        },
        "vocabulary": _vocabulary_facts(vocabulary, config),
        "weights_sha256": weights_digest(state),
        "provenance": {**facts, "reused": run.reused and run.reused["phases"], "finished": now()},
    }
    write_record(folder, Record.model_validate(record))
    run.state.unlink(missing_ok=True)


def _reused(run: Workbench) -> dict[str, Any]:
    if run.reused is None:
        return {}
    return {"reused_captions": run.reused["captions"], "reused_seconds": round(run.reused["seconds"], 3)}


def _vocabulary_facts(vocabulary: Vocabulary, config: Mapping[str, Any]) -> dict[str, Any]:
    text = config["text"]
    return {
        "size": len(vocabulary),
        "sha256": vocabulary.digest,
        "tokenizer": text["tokenizer"],
        "min_count": text["min_count"],
    }


def _peak_memory(device: torch.device) -> float:
    """Peak of this process in MB where the cell was trained, since `job.settle`: memory of that GPU, or resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with suppress(OSError, StopIteration):  # elsewhere than on Linux it is the peak of the whole process
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in status if line.startswith("VmHWM:")).split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**10 if sys.platform != "darwin" else peak / 2**20
