"""One trial inside the worker that Ray Tune gave it: a cell that is trained and watched, and not decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.cell.job import Job, sentence, settle
from bench.cell.repeatable import same_every_time
from bench.home import Home
from bench.records.curves import SELECTION, read_curves
from bench.tuning.storage import ResumeStates

Report = Callable[[dict[str, Any]], None]
RESUME, REASON = "resume.pt", "reason.txt"  # in a cell's work folder

VALUE, CAPTIONS, ENDED = "value", "captions", "ended"
"""What a trial reports: validation CIDEr of an epoch, captions read until then, and at last that it came to its end."""


def run_trial(job: Job, send: Report, copies: ResumeStates | None = None) -> None:
    """Train a cell and report every validated epoch; goes on from where an earlier try of the same trial stopped.

    With `copies` the resume state of every epoch is copied there, and taken from there where the home has none.
    """
    from bench.cell.fit import Trainer
    from bench.cell.workbench import Workbench

    class Watched(Workbench):
        """A workbench that reports its epochs to Ray Tune as well."""

        def report(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
            super().report(phase, epoch, values)
            if SELECTION in values:
                send({VALUE: float(values[SELECTION]), CAPTIONS: self.captions, ENDED: False})

        def save_state(self, state: Mapping[str, Any]) -> None:
            super().save_state(state)
            if copies is not None:
                try:
                    copies.save(job.key, self.work / RESUME)
                except OSError as error:  # the home's own state stands: no reason to lose the trial
                    print(f"no copy of the resume state in {copies.storage}: {error}", flush=True)

    settle(job)
    same_every_time(job.config["train"].get("precision", "float32"))
    folder = Path(job.folder)
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    if copies is not None and not (work / RESUME).is_file():
        copies.fetch(job.key, work / RESUME)
    (work / REASON).unlink(missing_ok=True)
    try:
        trainer = Trainer(job.config, work, Home(Path(job.root)), Watched)
        trainer.fit(trainer.build())
    except Exception as error:
        # Ray hands an error on as a file of its own, which is not always there yet when Tune says that the trial has failed.
        (work / REASON).write_text(sentence(error, job), encoding="utf-8")
        raise
    curve = curve_of(folder)
    last = curve[-1] if curve else (trainer.run.captions, float("nan"))
    send({VALUE: last[1], CAPTIONS: last[0], ENDED: True})


def reason_of(folder: Path) -> str | None:
    """Why the last try of a trial failed, in a sentence; None where it could not say so."""
    path = folder / "work" / REASON
    return path.read_text(encoding="utf-8") if path.is_file() else None


def curve_of(folder: Path) -> list[tuple[int, float]]:
    """(captions read, validation CIDEr) of the epochs of a trial, from its curves."""
    return [(int(row["captions"]), float(row["value"])) for row in read_curves(folder) if row["name"] == SELECTION]
