"""One trial inside the worker that Ray Tune gave it: a cell that is trained and watched, and not decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.cell.job import Job, sentence, settle
from bench.records.curves import SELECTION, read_curves
from bench.tuning.storage import Shelf

Tell = Callable[[dict[str, Any]], None]
RESUME, REASON = "resume.pt", "reason.txt"  # in a cell's work folder

VALUE, CAPTIONS, ENDED = "value", "captions", "ended"
"""What a trial reports: validation CIDEr of an epoch, captions read until then, and at last that it came to its end."""


def run_trial(job: Job, tell: Tell, shelf: Shelf | None = None) -> None:
    """Train a cell, telling of every validated epoch; goes on from where an earlier try of the same trial stopped.

    With a `shelf` the resume state of every epoch is copied there, and taken from there where the home has none.
    """
    import torch

    from bench.cell.fit import Trainer
    from bench.cell.workbench import Workbench
    from bench.home import Home

    class Watched(Workbench):
        """A workbench that tells of its epochs."""

        def report(self, phase: str, epoch: int, values: Mapping[str, float]) -> None:
            super().report(phase, epoch, values)
            if SELECTION in values:
                tell({VALUE: float(values[SELECTION]), CAPTIONS: self.captions, ENDED: False})

        def save_state(self, state: Mapping[str, Any]) -> None:
            super().save_state(state)
            if shelf is not None:
                try:
                    shelf.put(job.key, self.work / RESUME)
                except OSError as error:  # the home's own state stands: no reason to lose the trial
                    print(f"no copy of the resume state in {shelf.storage}: {error}", flush=True)

    settle(job)
    torch.use_deterministic_algorithms(True, warn_only=True)
    folder = Path(job.folder)
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    if shelf is not None and not (work / RESUME).is_file():
        shelf.fetch(job.key, work / RESUME)
    (work / REASON).unlink(missing_ok=True)
    try:
        trainer = Trainer(job.config, work, Home(Path(job.root)), Watched)
        trainer.fit(trainer.build())
    except Exception as error:
        # Ray hands an error on as a file of its own, which is not always there yet when the trial is told to have failed.
        (work / REASON).write_text(sentence(error), encoding="utf-8")
        raise
    curve = curve_of(folder)
    last = curve[-1] if curve else (trainer.run.captions, float("nan"))
    tell({VALUE: last[1], CAPTIONS: last[0], ENDED: True})


def reason_of(folder: Path) -> str | None:
    """Why the last try of a trial failed, in a sentence; None where it could not say so."""
    path = folder / "work" / REASON
    return path.read_text(encoding="utf-8") if path.is_file() else None


def curve_of(folder: Path) -> list[tuple[int, float]]:
    """(captions read, validation CIDEr) of the epochs of a trial, from its curves."""
    return [(int(row["captions"]), float(row["value"])) for row in read_curves(folder) if row["name"] == SELECTION]
