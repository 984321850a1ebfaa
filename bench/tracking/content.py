"""What trackers show of a cell: its label, parameters, tags, curves, scores and captions, from its configuration and record.

The whole configuration is a file of the run; a parameter is a column of a comparison, so only what runs are told apart by is
one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.cell.pixels import Pixels
from bench.cell.traces import TRACES
from bench.declare.registry import dataset
from bench.declare.settings import GROUPS, Model
from bench.evaluation.metrics import RANKED_BY
from bench.home import Home
from bench.plan.labels import card_of, label, lent_changes, row, symbol
from bench.records.curves import SELECTION, Row, read_curves
from bench.records.figure_data import spread
from bench.records.schema import Record
from bench.records.store import (
    PREDICTIONS,
    RECORD,
    BadRecord,
    all_records,
    cell_folder,
    prediction_ids,
    read_predictions,
)
from bench.tracking.base import Ending, Entry, Point, Run

LAYOUT = "flat-3"  # before every mark: runs of another layout are written anew
CHECKPOINT = "checkpoint.safetensors"
SHARED = {SELECTION: "val/cider", "loss": "train/loss", "cross_entropy": "train/xent"}
BEST = "best/val_"  # and the metric by which a search chooses
NAMES = ("method", "variant", "protocol", "dataset", "seed")
# What has its default is left out of the parameters, but for these.
ALWAYS = ("train.epochs", "train.captions", "train.learning_rate", "search.beam", "model.width")
USUAL: dict[str, Any] = {"split": "test", "splits": "default", "subset": None, "absent_streams": []}
LONGEST_VALUE = 500  # the limit of MLflow servers before 2.x; longer values are in the record
DIGEST = 8  # digits of a data set's digest, which stands in the head of every column of captions
LISTED = 100  # clips in the table of captions
COSTS = {  # by what each is divided, and which entries of the ledger it sums up
    "minutes": (60, "fit_seconds", "decode_seconds"),
    "GB": (1024, "peak_memory_mb"),
    "params": (1e6, "parameters"),
    "captions": (1, "captions"),
}
MADE_BY = ("dirty", "torch", "cpu", "device", "gpu_share")  # the rest of the provenance is in the record


def run_of(key: str, config: Mapping[str, Any], began: int | None = None) -> Run:
    """The run of a cell, or of a row of folds: of another kind, or it would be one more of its cells in their mean."""
    name = label(config)[:LONGEST_VALUE]
    kind, which = ("folds", "all folds") if "cells" in config else ("cell", f"s{config['seed']}")
    tags = {"bench.kind": kind, "bench.key": key, "bench.state": "running"}
    tags["bench.title"] = str(config.get("title") or row(config))
    its = parameters(config) | {"label": name}
    return Run(key, str(config["dataset"]), name, f"{name} {which}", its, tags, inputs(config), began)


def parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """Parameters under the names that the command line gives them, `train.epochs`, `model.width`, `glrg.mode`; settings for
    which the paper has a letter under that letter, `λ`.

    A setting that is null is left out. Two runs of one key have the same ones: MLflow lets no parameter change.
    """
    found: dict[str, Any] = {name: config[name] for name in NAMES if name in config}
    found |= {name: config[name] for name, usual in USUAL.items() if config.get(name, usual) != usual}
    found["streams"] = "+".join(config.get("streams") or {})
    if "loss" in config:
        found["loss"] = config["loss"]["name"]
        provider, changes = config["loss"]["provider"], lent_changes(config["loss"], config["protocol"])
        found |= {f"{provider}.{symbol(provider, name)}": value for name, value in changes.items()}
    for group, model in GROUPS.items():
        for name, value in (config.get(group) or {}).items():
            usual = model.model_fields[name].default if name in model.model_fields else None
            if f"{group}.{name}" in ALWAYS or value != usual:
                found[f"{group}.{name}"] = value
    card = card_of(config["method"])
    settings = config.get("settings") or {}
    for name, value in (card.whole(settings) if card is not None and settings else settings).items():
        declared = card.settings.get(name) if card is not None else None
        if name in Model.model_fields:
            if f"model.{name}" in ALWAYS:
                found[f"model.{name}"] = value
        elif declared is not None and declared.letter:
            found[declared.letter] = value
        elif name in settings:
            found[f"{config['method']}.{name}"] = value
    return {name: _text(value) for name, value in found.items() if value is not None}


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:LONGEST_VALUE]


def inputs(config: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What a run read, the captions and each feature stream, as name, digest and context.

    A part of the clips is another data set than all of them, and is named so.
    """
    name, splits = str(config["dataset"]), config.get("splits") or "default"
    words = [name, "" if splits == "default" else splits, "/".join(map(str, config.get("subset") or ()))]
    read = [(" ".join(filter(None, words)), config.get("captions_digest") or "", str(config["split"]))]
    read += [(f"{name} {stream}", str(mark), "features") for stream, mark in (config.get("streams") or {}).items()]
    return [(what, digest[:DIGEST], context) for what, digest, context in read if digest]


def points(rows: Iterable[Row]) -> list[Point]:
    """Rows of curves as points: each under its phase at its epoch, and what all methods have under one name at the captions
    that were read by then in all phases. Values that are not finite are left out."""
    found = []
    for one in rows:
        if math.isfinite(one["value"]):
            found.append(Point(f"{one['phase']}/{one['name']}", one["value"], one["epoch"], one["seconds"]))
            if (shared := shared_name(one["name"])) is not None:
                found.append(Point(shared, one["value"], one["captions"], one["seconds"]))
    return found


def shared_name(curve: str) -> str | None:
    """What a curve of all methods is called, `val/cider` or `val/bleu4`; None for those of one method."""
    metric = curve.removeprefix("val_").removesuffix("_tokens")
    return SHARED.get(curve, f"val/{metric}" if curve == f"val_{metric}_tokens" else None)


def records(home: Home, dataset: str | None = None, bad: list[BadRecord] | None = None) -> list[Entry]:
    """The records of the results folder (of one data set) as runs; unreadable ones are appended to `bad`."""
    return [of_record(record, home) for record in all_records(home.results, dataset, [] if bad is None else bad)]


def of_record(record: Record, home: Home) -> Entry:
    """The run of a cell that has a record."""
    digest = hashlib.sha256(record.model_dump_json(by_alias=True).encode()).hexdigest()[:16]
    folder = cell_folder(home.results, record)

    def ending() -> Ending:
        logs = [folder / record.failure.log] if record.failure is not None and record.failure.log else []
        return Ending(
            "failed" if record.state == "failed" else "finished",
            points(read_curves(folder)),
            values(record),
            outcome(record, folder),
            [path for path in (folder / RECORD, folder / PREDICTIONS, *logs) if path.is_file()],
            captions(record, folder),
            pictures(record, folder, home),
            _moment(record, "finished"),
        )

    return Entry(run_of(record.key, record.config, _moment(record, "started")), f"{LAYOUT} {digest}", ending)


def captions(record: Record, folder: Path) -> dict[str, list[str]] | None:
    """Columns `clip` and `caption` of at most `LISTED` clips, the same for all cells of a split; None without captions."""
    if record.state != "done":
        return None
    try:
        ids = prediction_ids(folder / PREDICTIONS)
        said = read_predictions(folder / PREDICTIONS, ids)
    except BenchError:
        return None
    chosen = [ids[place] for place in spread(len(ids), LISTED)]
    return {"clip": chosen, "caption": [said[clip] for clip in chosen]}


def pictures(record: Record, folder: Path, home: Home) -> dict[str, list[Path]]:
    """`clips`: pictures of clips with what a cell attended to, as far as its decoding left that in its work folder.

    Frames of films are among them: what trackers of this machine hold is not published.
    """
    traces = folder / "work" / TRACES
    if record.weights_sha256 is None or not traces.is_file():
        return {}
    from bench.figures.attended import pictures_of  # matplotlib: the tracker's thread waits for it, training does not

    try:
        pixels = Pixels(dataset(record.config.get("dataset_path") or record.dataset), home, real=True)
    except BenchError:
        pixels = None
    found = pictures_of(traces, pixels)
    return {"clips": found} if found else {}


def values(record: Record) -> dict[str, float]:
    """Scores as `test/cider`, costs as `cost/..`, and the validation score by which the epoch was chosen; to three digits."""
    sections = {split if split != "val" else "scored_val": scores for split, scores in record.scores.items()}  # a curve
    found = {f"{split}/{name}": value for split, scores in sections.items() for name, value in scores.items()}
    for name, units in COSTS.items():
        spent = [value for part in units[1:] if (value := record.spent(str(part))) is not None]
        found |= {f"cost/{name}": sum(spent) / float(units[0])} if spent else {}
    if record.selection is not None:
        name = "val_cider" if record.selection.metric == SELECTION else record.selection.metric
        found[f"best/{name}"] = record.selection.value
    return {name: round(value, 3) for name, value in found.items()}


def outcome(record: Record, folder: Path) -> dict[str, str]:
    """Tags of a run whose record is there; `bench.checkpoint` is the path that `bench.load` takes."""
    failure, facts, signatures = record.failure, record.provenance, record.signatures.get(record.split, {})
    made = {f"bench.{name}": getattr(facts, name, None) for name in MADE_BY}
    found: dict[str, Any] = {"bench.state": record.state, **made, "mlflow.source.git.commit": facts and facts.git}
    # Signatures of one split differ in the metric's name alone.
    found["bench.signature"] = signatures.get(RANKED_BY) or next(iter(signatures.values()), None)
    found["bench.source"] = record.external and record.external.source
    found["bench.failure"] = failure and f"{failure.stage}: {failure.type}: {failure.message}"
    note = [f"{row(record.config)} on {record.dataset}. Its record: `bench show {record.key[:8]}`"]
    if (folder / CHECKPOINT).is_file():
        found["bench.checkpoint"] = (folder / CHECKPOINT).resolve()
        note.append(f'In Python: `bench.load("{found["bench.checkpoint"]}")`')
    tags = {name: str(value)[:LONGEST_VALUE] for name, value in found.items() if value is not None}
    return {**tags, "mlflow.note.content": "\n\n".join(note)}


def _moment(record: Record, name: str) -> int | None:
    """When the cell `started` or `finished`, in milliseconds since 1970; None where its record does not say."""
    moment = getattr(record.provenance, name, None)
    return None if moment is None else round(1000 * datetime.fromisoformat(moment).timestamp())
