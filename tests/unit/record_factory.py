"""Records as `bench run` leaves them, with as little said as a test needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.records.clip_scores import write_scores
from bench.records.schema import Record, cell_key
from bench.records.store import Prediction, cell_folder, write_predictions, write_record

SIGNATURES = {name: f"{name}|refs:abc|n:100|tok:ptb|scale:100" for name in ("bleu4", "meteor", "rouge_l", "cider")}
SCORES = {"bleu4": 30.0, "meteor": 20.0, "rouge_l": 50.0, "cider": 25.0}


def config(method: str = "salstm", variant: str = "xe", seed: int = 0, **changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "method": method,
        "variant": variant,
        "title": f"{method} {variant}",
        "dataset": "toy",
        "splits": "default",
        "subset": None,
        "split": "test",
        "protocol": "standard",
        "streams": {"frames": "f" * 64},
        "absent_streams": [],
        "settings": {"width": 512},
        "phases": {"base": 1.0},
        "train": {"epochs": 10, "captions": 64, "data_fraction": 1.0},
        "search": {"beam": 5, "max_words": 30, "length_rule": "none", "clips": 64},
        "text": {"tokenizer": "strip", "min_count": 1, "max_words": 30},
        "seed": seed,
        "captions_digest": "c" * 64,
        "method_digest": "d" * 64,
        "engine": 1,
        "threads": 1,
        "device": "auto",
        **changes,
    }


def content(cfg: dict[str, Any], state: str = "done", **changes: Any) -> dict[str, Any]:
    """The fields of a record; `cider` sets that score, anything else replaces a field."""
    key = cell_key(cfg)
    cider = changes.pop("cider", SCORES["cider"])
    split = cfg["split"]
    fields: dict[str, Any] = {"schema": 1, "key": key, "state": state, "config": cfg}
    if state == "done":
        fields["scores"] = {split: {**SCORES, "cider": cider}}
        fields["signatures"] = {split: dict(SIGNATURES)}
    if state == "failed":
        fields["failure"] = {"stage": "fit", "type": "RuntimeError", "message": "boom", "log": "work/log.txt"}
    else:
        fields["ledger"] = {"captions": 20000, "budget": 20000, "epochs": 10, "fit_seconds": 12.5}
        fields["selection"] = {"metric": "val_cider_tokens", "value": 31.2, "phase": "base", "epoch": 7}
    return {**fields, **changes}


def record(state: str = "done", *, made: dict[str, Any] | None = None, **cfg: Any) -> Record:
    return Record.model_validate(content(config(**cfg), state, **(made or {})))


def put(results: Path, *records: Record) -> list[Path]:
    """Write records where they belong."""
    return [write_record(cell_folder(results, item), item) for item in records]


def put_scored(
    results: Path,
    cider: Sequence[float],
    captions: Sequence[str] | None = None,
    made: dict[str, Any] | None = None,
    **cfg: Any,
) -> Record:
    """A done cell with its files: clip scores `cider` in percent, a caption of each clip, a curve. Its scores are their means."""
    ids = [f"clip{number}" for number in range(len(cider))]
    rouge = [50.0 + number % 7 for number in range(len(cider))]
    clips = {
        name: dict(zip(ids, np.round(values, 6) / 100, strict=True))
        for name, values in (("rouge_l", rouge), ("cider", cider))
    }
    means = {name: float(np.mean(np.round([100 * value for value in own.values()], 6))) for name, own in clips.items()}
    settings = config(**cfg)
    scores = {settings["split"]: {**SCORES, **means}}
    item = Record.model_validate(content(settings, **{"scores": scores, **(made or {})}))
    folder = cell_folder(results, item)
    write_record(folder, item)
    write_scores(folder / "clip_scores.csv", ids, clips)
    said = captions or [f"caption {number % 3}" for number in range(len(ids))]
    write_predictions(folder / "predictions.jsonl", [Prediction(*pair) for pair in zip(ids, said, strict=True)])
    curve = [f"base,{epoch},{2000 * epoch + 2000},1.0,val_cider_tokens,{20 + epoch}" for epoch in range(5)]
    (folder / "curves.csv").write_text("\n".join(["phase,epoch,captions,seconds,name,value", *curve, ""]))
    return item
