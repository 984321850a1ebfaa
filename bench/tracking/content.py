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
from bench.declare.settings import GROUPS, Model
from bench.evaluation.metrics import RANKED_BY
from bench.home import Home
from bench.plan.labels import card_of, label, row
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
from bench.tracking.base import Ending, Entry, Files, Point, Run, State

LAYOUT = "flat-1"  # before every mark: runs of another layout are written anew
CHECKPOINT = "checkpoint.safetensors"
SHARED = {SELECTION: "val/cider", "loss": "train/loss", "cross_entropy": "train/xent"}
BEST = "best/val_cider"
NAMES = ("method", "variant", "protocol", "dataset", "seed")
# What has its default is left out of the parameters, but for these.
ALWAYS = ("train.epochs", "train.captions", "train.learning_rate", "search.beam", "model.width")
USUAL: dict[str, Any] = {"split": "test", "splits": "default", "subset": None, "absent_streams": []}
LONGEST_VALUE = 500  # the limit of MLflow servers before 2.x; longer values are in the record
DIGEST = 8  # digits of a data set's digest, which stands in the head of every column of captions
LISTED = 100  # clips in the table of captions
MADE_BY = ("dirty", "torch", "cpu", "device", "gpu_share")  # the rest of the provenance is in the record


def run_of(key: str, config: Mapping[str, Any], began: int | None = None) -> Run:
    """The run of a cell."""
    name = label(config)[:LONGEST_VALUE]
    tags = {"bench.kind": "cell", "bench.key": key, "bench.state": "running"}
    tags["bench.title"] = str(config.get("title") or row(config))
    return Run(
        key,
        str(config["dataset"]),
        name,
        f"{name} s{config['seed']}",
        parameters(config) | {"label": name},
        tags,
        inputs(config),
        began,
    )


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


def inputs(config: Mapping[str, Any]) -> list[dict[str, str]]:
    """What a run read: the captions and each feature stream, as name, digest, source and context.

    A part of the clips is another data set than all of them, and is named so.
    """
    name = str(config["dataset"])
    part = "/".join(map(str, config.get("subset") or ()))
    splits = str(config.get("splits") or "default")
    whole = " ".join([name, *([splits] if splits != "default" else []), *([part] if part else [])])
    source = {"dataset": name, "splits": splits, "subset": config.get("subset")}
    captions = {
        "name": whole,
        "digest": str(config.get("captions_digest", ""))[:DIGEST],
        "context": str(config["split"]),
    }
    found = [{**captions, "source": json.dumps(source)}]
    for stream, mark in (config.get("streams") or {}).items():
        source = {"dataset": name, "stream": stream, "fingerprint": mark}
        one = {"name": f"{name} {stream}", "digest": str(mark)[:DIGEST], "context": "features"}
        found.append({**one, "source": json.dumps(source)})
    return [one for one in found if one["digest"]]


def points(rows: Iterable[Row]) -> list[Point]:
    """Rows of curves as points: each under its phase at its epoch, and what all methods have under one name at the captions
    that were read by then in all phases. Values that are not finite are left out."""
    found = []
    for one in rows:
        if math.isfinite(one["value"]):
            found.append(Point(f"{one['phase']}/{one['name']}", one["value"], one["epoch"], one["seconds"]))
            if one["name"] in SHARED:
                found.append(Point(SHARED[one["name"]], one["value"], one["captions"], one["seconds"]))
    return found


def records(home: Home, dataset: str | None = None, bad: list[BadRecord] | None = None) -> list[Entry]:
    """The records of the results folder (of one data set) as runs; unreadable ones are appended to `bad`."""
    return [of_record(record, home) for record in all_records(home.results, dataset, [] if bad is None else bad)]


def of_record(record: Record, home: Home) -> Entry:
    """The run of a cell that has a record."""
    digest = hashlib.sha256(record.model_dump_json(by_alias=True).encode()).hexdigest()[:16]
    began, ended = _span(record)
    folder = cell_folder(home.results, record)

    def ending() -> Ending:
        from bench.tracking.pictures import pictures  # matplotlib: the tracker's thread waits for it, training does not

        logs = [folder / record.failure.log] if record.failure is not None and record.failure.log else []
        paths = [path for path in (folder / RECORD, folder / PREDICTIONS, *logs) if path.is_file()]
        files = Files(paths, captions(record, folder), pictures(record, folder, home))
        state: State = "failed" if record.state == "failed" else "finished"
        return Ending(state, points(read_curves(folder)), values(record), outcome(record, folder), files, ended)

    return Entry(run_of(record.key, record.config, began), f"{LAYOUT} {digest}", ending)


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


def values(record: Record) -> dict[str, float]:
    """Scores as `test/cider`, costs as `cost/..`, and the validation score by which the epoch was chosen; to three digits."""
    found = {
        f"{split if split != 'val' else 'scored_val'}/{name}": value  # val/cider is a curve
        for split, scores in record.scores.items()
        for name, value in scores.items()
    }
    seconds = [record.spent(name) for name in ("fit_seconds", "decode_seconds")]
    memory, size, read = (record.spent(name) for name in ("peak_memory_mb", "parameters", "captions"))
    costs = {
        "minutes": sum(filter(None, seconds)) / 60 if any(seconds) else None,
        "GB": memory and memory / 1024,
        "params": size and size / 1e6,
        "captions": read,
    }
    found |= {f"cost/{name}": float(value) for name, value in costs.items() if value is not None}
    if record.selection is not None:
        found[BEST if record.selection.metric == SELECTION else f"best/{record.selection.metric}"] = (
            record.selection.value
        )
    return {name: round(value, 3) for name, value in found.items()}


def outcome(record: Record, folder: Path) -> dict[str, str]:
    """Tags of a run whose record is there; `bench.checkpoint` is the path that `bench.load` takes."""
    found: dict[str, str] = {"bench.state": record.state}
    if record.failure is not None:
        failure = record.failure
        found["bench.failure"] = f"{failure.stage}: {failure.type}: {failure.message}"[:LONGEST_VALUE]
    if record.external is not None:
        found["bench.source"] = record.external.source[:LONGEST_VALUE]
    facts = record.provenance
    if facts is not None:
        found |= {f"bench.{name}": str(getattr(facts, name)) for name in MADE_BY if getattr(facts, name) is not None}
        if facts.git:
            found["mlflow.source.git.commit"] = facts.git
    signatures = record.signatures.get(record.split, {})
    if signatures:  # those of one split differ in the metric's name alone
        found["bench.signature"] = signatures.get(RANKED_BY) or next(iter(signatures.values()))
    if (folder / CHECKPOINT).is_file():
        found["bench.checkpoint"] = str((folder / CHECKPOINT).resolve())
    return found | {"mlflow.note.content": _note(record, folder)}


def _note(record: Record, folder: Path) -> str:
    """The description at the head of a run's page, in Markdown."""
    config = record.config
    title = str(config.get("title") or f"{record.method}:{record.variant}")
    lines = [f"`{title}` on {record.dataset} ({record.split}), protocol {config['protocol']}, seed {record.seed}."]
    if record.failure is not None:
        lines.append(f"It failed while it was to {record.failure.stage}; the artifact `log.txt` says more.")
    if (folder / CHECKPOINT).is_file():
        lines.append(f'In Python: `bench.load("{(folder / CHECKPOINT).resolve()}")`')
    lines.append(f"Its record: `bench show {record.key[:8]}`")
    return "\n\n".join(lines)


def _span(record: Record) -> tuple[int | None, int | None]:
    """When the cell began and ended, in milliseconds since 1970; None where its record does not say."""
    facts = record.provenance
    moments = (facts.started, facts.finished) if facts is not None else (None, None)
    began, ended = (
        None if moment is None else round(1000 * datetime.fromisoformat(moment).timestamp()) for moment in moments
    )
    return began, ended
