"""The tracker of Weights & Biases: runs of a project, grouped by their label, online or offline as `WANDB_MODE` says."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

os.environ.setdefault("WANDB_SILENT", "true")  # before it is imported: it talks on the user's terminal

import wandb

from bench.home import Home
from bench.tracking.base import Ending, Point, Run

ACROSS, EPOCH = "captions read", "epoch"  # what curves of all phases, and those of one phase, are drawn against
UNSEEN = ("bench.process", "mlflow.")


class WandbTracker:
    """Sends runs to `project`. Its files lie in the home's work folder; pictures, which may show films, stay here."""

    def __init__(self, project: str, home: Home) -> None:
        self._project, self._folder = project, home.work / "wandb"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._runs: dict[str, Any] = {}
        self._sent: set[tuple[str, str, int]] = set()  # rows: key, phase and step

    def start(self, run: Run) -> bool:
        """A run of the same key is taken up again where the project knows it; others cannot be asked for it."""
        if run.key not in self._runs:
            entity, _, project = self._project.rpartition("/")
            self._runs[run.key] = wandb.init(
                entity=entity or None, project=project, id=run.key, name=run.name, group=run.label,
                job_type=run.tags["bench.kind"], tags=[run.dataset, run.parameters["method"]],
                dir=str(self._folder), resume="allow", reinit="create_new",
                settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
            )  # fmt: skip
        return True

    def parameters(self, run: Run) -> None:
        self._runs[run.key].config.update({**run.parameters, **_seen(run.tags)}, allow_val_change=True)

    def metrics(self, key: str, points: Sequence[Point]) -> None:
        """Points of one step as one row: those of all phases against captions, those of a phase against its epochs."""
        rows: dict[tuple[str, str, int], dict[str, float]] = {}
        for point in points:
            phase = "" if point.name.partition("/")[0] in ("train", "val") else point.name.partition("/")[0]
            rows.setdefault((key, phase, point.step), {})[point.name] = point.value
        for row in sorted(rows.keys() - self._sent, key=lambda row: row[2]):
            across = EPOCH if row[1] else ACROSS
            for name in rows[row]:
                self._runs[key].define_metric(name, step_metric=across)
            self._runs[key].log({**rows[row], across: row[2]})
        self._sent |= rows.keys()

    def artifacts(self, key: str, ending: Ending) -> None:
        for path in ending.files:
            self._runs[key].save(str(path), base_path=str(path.parent), policy="now")
        if ending.captions is not None:
            rows = [list(row) for row in zip(*ending.captions.values(), strict=True)]
            self._runs[key].log({"captions": wandb.Table(columns=list(ending.captions), data=rows)})

    def end(self, run: Run, mark: str, ending: Ending) -> None:
        self.parameters(run)
        self.metrics(run.key, ending.points)
        sent = self._runs.pop(run.key)
        sent.summary.update({**ending.values, **_seen(ending.tags)})
        sent.finish(exit_code=0 if ending.state == "finished" else 1)

    def shown(self, dataset: str, labels: Mapping[str, str]) -> None:
        """It is sent what happens now, and not asked for what it has."""

    def close(self, dataset: str) -> None:
        for run in self._runs.values():
            run.finish(exit_code=255)
        self._runs.clear()
        wandb.teardown()  # waits for its process, which may still write


def _seen(tags: Any) -> dict[str, str]:
    return {name: value for name, value in tags.items() if not name.startswith(UNSEEN)}
