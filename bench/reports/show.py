"""One record as a page for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.errors import listing
from bench.evaluation.metrics import TOP, long_name
from bench.home import Home
from bench.pages.document import clean
from bench.pages.terminal import columns
from bench.records.clip_scores import CellClips
from bench.records.schema import Record
from bench.records.store import RECORD, cell_folder
from bench.reports.blocks import Row, flat_config
from bench.reports.compare import LEDGER, NOTHING, as_written, captions, quoted

FEW = 5  # best clips, and worst clips
CHECKPOINT = "checkpoint.safetensors"
FILES = {
    RECORD: "all that is said here",
    "predictions.jsonl": "captions, log-probabilities",
    "clip_scores.csv": "scores of each clip, and what corpus BLEU and METEOR are made of",
    "curves.csv": "losses and validation scores by epoch",
    CHECKPOINT: "the trained method",
}


def facts(
    record: Record,
    home: Home,
    defaults: Mapping[str, Any] | None,
    clips: CellClips | None,
    references: Mapping[str, Sequence[str]],
    notes: Sequence[str],
) -> dict[str, Any]:
    """All that is shown, as JSON: the record as its file has it, and what is worked out of it and of its folder. `defaults` are
    the groups of a configuration when nothing else is asked for, None where its card is not here."""
    folder = cell_folder(home.results, record)
    return {
        "name": Row((record,)).name,
        "record": record.model_dump(mode="json", by_alias=True, exclude_none=True),
        "settings": _settings(record, defaults),
        "defaults_known": defaults is not None,
        "folder": _short(folder),
        "files": {name: (folder / name).stat().st_size for name in FILES if (folder / name).is_file()},
        **_clips(record, clips, references),
        "notes": list(notes),
    }


def _settings(record: Record, defaults: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The settings that are not the defaults of card and engine, as the command line writes them."""
    if record.external is not None:
        return []
    groups = ("settings", "loss", "phases", "train", "search", "text")
    mine = flat_config({name: record.config[name] for name in groups if name in record.config})
    usual = flat_config(defaults or {})
    return [
        {
            "setting": name.removeprefix("settings."),
            "value": as_written(value),
            "default": as_written(usual[name]) if name in usual else None,
        }
        for name, value in mine.items()
        if defaults is None or name not in usual or usual[name] != value
    ]


def _clips(record: Record, clips: CellClips | None, references: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The best and the worst clips by CIDEr-D."""
    if clips is None or "cider" not in clips.scores:
        return {"best": [], "worst": []}
    score = dict(zip(clips.ids, clips.scores["cider"].tolist(), strict=True))
    best = sorted(score, key=lambda clip: (-score[clip], clip))[:FEW]
    worst = [clip for clip in sorted(score, key=lambda clip: (score[clip], clip))[:FEW] if clip not in best]
    return {
        name: [
            {
                "clip": clip,
                "score": score[clip],
                "caption": clips.captions[clip],
                "references": list(dict.fromkeys(references.get(clip, ()))),
            }
            for clip in chosen
        ]
        for name, chosen in (("best", best), ("worst", worst))
    }


def record_text(record: Record, found: Mapping[str, Any]) -> str:
    """The page of a record, of its facts."""
    parts = [_head(record), _scores(record), _shown_settings(record, found), _cost(record), _files(record, found)]
    for title, chosen in (("BEST CLIPS", found["best"]), ("WORST CLIPS", found["worst"])):
        blocks = [
            "\n".join(
                [
                    f"{one['clip']}  CIDEr-D {one['score']:.1f}",
                    *captions("C", [{"seed": record.seed, "caption": one["caption"]}]),
                    *quoted(one["references"]),
                ]
            )
            for one in chosen
        ]
        parts += ["\n\n".join([title, *blocks])] if blocks else []
    warnings = [f"WARNING: {warning}." for warning in record.warnings]
    return "\n\n".join(part for part in [*parts, *warnings, *found["notes"]] if part)


def _head(record: Record) -> str:
    config, facts = record.config, record.provenance
    lines = [f"{config.get('title') or record.method} ({Row((record,)).name}), seed {record.seed}, key {record.key}"]
    streams = " + ".join(config.get("streams") or {}) or "none"
    lines.append(
        f"Data set {record.dataset}, split {record.split}, {config['protocol']} protocol, streams {streams}"
        + (f", without {', '.join(config['absent_streams'])}" if config.get("absent_streams") else "")
    )
    when = f", finished {facts.finished}" if facts and facts.finished else ""
    code = f", code {facts.git[:12]}{' with changes' if facts.dirty else ''}" if facts and facts.git else ""
    lines.append(f"State {record.state}{when}{code}")
    if record.failure is not None:
        failure = record.failure
        lines.append(f"FAILED in {failure.stage}: {failure.type}: {failure.message}; log: {failure.log or 'none'}")
    if record.external is not None:
        lines.append(f"External: captions from {record.external.source}, made outside the harness")
    return "\n".join(clean(line) for line in lines)


def _scores(record: Record) -> str:
    """Scores of every split with the signatures they are comparable under."""
    blocks = []
    for split, scores in record.scores.items():
        rows = [
            (long_name(name), f"{scores[name]:.2f}", clean(record.signatures[split][name]))
            for name in TOP
            if name in scores
        ]
        blocks.append(f"SCORES, {split}\n{columns(('metric', 'score', 'signature'), rows, right=('score',))}")
    return "\n\n".join(blocks)


def _shown_settings(record: Record, found: Mapping[str, Any]) -> str:
    if record.external is not None:
        return ""
    rows = [(one["setting"], one["value"], one["default"] or NOTHING) for one in found["settings"]]
    if not found["defaults_known"]:
        values = [row[:2] for row in rows]
        return f"SETTINGS (the card of {record.method} is not here to tell the defaults)\n{columns(('setting', 'value'), values)}"
    if not rows:
        return "SETTINGS\nall are the defaults"
    return f"SETTINGS that are not the defaults\n{columns(('setting', 'value', 'default'), rows)}"


def _cost(record: Record) -> str:
    if record.ledger is None:
        return ""
    ledger = record.ledger
    rows = [(name, f"{value:,.0f}") for name in LEDGER if (value := getattr(ledger, name)) is not None]
    chosen = ""
    if ledger.wait_seconds is not None and ledger.fit_seconds:
        chosen += f"\nTraining waited for its next batch in {ledger.wait_seconds / ledger.fit_seconds:.1%} of its time"
        if record.provenance is not None and record.provenance.features_on_gpu is not None:
            chosen += "; features " + (
                "lay on the GPU" if record.provenance.features_on_gpu else "were copied batch by batch"
            )
    if record.selection is not None:
        selection = record.selection
        phase = f" of phase {selection.phase}" if selection.phase else ""
        chosen += f"\nEpoch {selection.epoch}{phase} was chosen: {selection.metric} {selection.value:.2f}"
    if record.endings:
        chosen += f"\nPhases ended: {listing(f'{phase} {how}' for phase, how in record.endings.items())}"
    return f"BUDGET AND COST\n{columns(('what', 'amount'), rows, right=('amount',))}{chosen}"


def _files(record: Record, found: Mapping[str, Any]) -> str:
    files, folder = found["files"], found["folder"]
    rows = [(name, f"{size:,}", FILES[name]) for name, size in files.items()]
    lines = [f"FILES in {folder}", columns(("file", "bytes", "what"), rows, right=("bytes",))]
    if CHECKPOINT in files:
        lines += ["", "In Python:", f'    trained = bench.load("{folder}/{CHECKPOINT}")']
        lines += ["    trained.method, trained.vocabulary, trained.search, trained.streams"]
    elif record.state != "failed" and record.external is None:
        lines += [
            "",
            f"{CHECKPOINT} is not here, for checkpoints are not published: move the folder away and give the bench run "
            "command that made it again; it then trains the cell anew, and bench.load(path) reads what it leaves.",
        ]
    return "\n".join(lines)


def _short(path: Path) -> str:
    """The path relative to the current folder where it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here) if here in path.parents else path)
