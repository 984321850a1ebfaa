"""What MLflow shows of a cell: parameters, tags, metrics, data sets and a note, all made from its configuration and its record.

The whole configuration is an artifact; a parameter is a column of a comparison, so only what runs are told apart by is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from bench.declare.settings import GROUPS, Model
from bench.evaluation.metrics import RANKED_BY
from bench.records.schema import Record

CHECKPOINT = "checkpoint.safetensors"
NAMES = ("method", "variant", "protocol", "seed")
# MLflow writes all parameters of a run over each of its pictures: what has its default is left out, but for these.
ALWAYS = ("train.epochs", "train.captions", "train.learning_rate", "search.beam", "model.width")
USUAL: dict[str, Any] = {"split": "test", "splits": "default", "subset": None, "absent_streams": []}
SHARED = {name: group for name, group in GROUPS.items() if name != "model"}  # sizes stand with the settings of a method
LONGEST_VALUE = 500  # the limit of MLflow servers before 2.x; longer values are in the artifacts
DIGEST = 36  # digits of a data set's digest that MLflow takes
CONTEXT = "mlflow.data.context"
MADE_BY = ("dirty", "torch", "cpu", "device", "gpu_share")  # the rest of the provenance is in the record, an artifact


class CellLike(Protocol):
    """What is used of `bench.plan.cells.Cell`."""

    @property
    def key(self) -> str: ...

    @property
    def label(self) -> str: ...

    @property
    def config(self) -> Mapping[str, Any]: ...


def kind_of(config: Mapping[str, Any]) -> str:
    """`trial` of a search, or `cell`."""
    return "trial" if "tuning" in config else "cell"


def parameters(config: Mapping[str, Any]) -> dict[str, str]:
    """Parameters under the names that the command line gives them: `train.epochs`, `model.width`,
    `recnet.reconstruction_weight`.

    A setting that is null is left out. Two runs of one key have the same ones: MLflow lets no parameter change.
    """
    found: dict[str, Any] = {name: config[name] for name in NAMES if name in config}
    found |= {name: config[name] for name, usual in USUAL.items() if config.get(name, usual) != usual}
    found["streams"] = "+".join(config.get("streams") or {})
    if "loss" in config:
        found["loss"] = config["loss"]["name"]
    for group, model in SHARED.items():
        for name, value in (config.get(group) or {}).items():
            usual = model.model_fields[name].default if name in model.model_fields else None
            if f"{group}.{name}" in ALWAYS or value != usual:
                found[f"{group}.{name}"] = value
    for name, value in (config.get("settings") or {}).items():
        if name not in Model.model_fields:
            found[f"{config['method']}.{name}"] = value
        elif f"model.{name}" in ALWAYS:
            found[f"model.{name}"] = value
    return {name: _text(value) for name, value in found.items() if value is not None}


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:LONGEST_VALUE]


def tags(cell: CellLike) -> dict[str, str]:
    """Tags of a run before it has a record. `bench.key` is what a run is found by again; what is a parameter or a data set of the
    run is no tag."""
    config = cell.config
    title = str(config.get("title") or cell.label)
    return {
        "bench.key": cell.key,
        "bench.kind": kind_of(config),
        "bench.method": str(config["method"]),
        "bench.title": title,
    }


def data_sets(config: Mapping[str, Any]) -> list[dict[str, str]]:
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


def metrics(record: Record) -> dict[str, float]:
    """Scores as `test/cider`, costs as `ledger/...`, the value the epoch was chosen by as `selection/...`."""
    numbers = {f"{split}/{name}": value for split, scores in record.scores.items() for name, value in scores.items()}
    if record.ledger is not None:
        costs = record.ledger.model_dump(exclude_none=True)
        numbers |= {f"ledger/{name}": float(value) for name, value in costs.items()}
    if record.selection is not None:
        numbers[f"selection/{record.selection.metric}"] = record.selection.value
        numbers["selection/epoch"] = float(record.selection.epoch)
    return numbers


def outcome(record: Record, folder: Path) -> dict[str, str]:
    """Tags of a run whose record is there; `bench.checkpoint` is the path that `bench.load` takes."""
    found: dict[str, str] = {"bench.state": record.state}
    if record.failure is not None:
        failure = record.failure
        found["bench.failure"] = f"{failure.stage}: {failure.type}: {failure.message}"[:LONGEST_VALUE]
    if record.external is not None:
        found |= {"bench.kind": "external", "bench.source": record.external.source[:LONGEST_VALUE]}
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


def span(record: Record) -> tuple[int | None, int | None]:
    """When the cell began and ended, in milliseconds since 1970; None where its record does not say."""
    facts = record.provenance
    moments = (facts.started, facts.finished) if facts is not None else (None, None)
    began, ended = (
        None if moment is None else round(1000 * datetime.fromisoformat(moment).timestamp()) for moment in moments
    )
    return began, ended
