"""One record as a page for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.evaluation.metrics import TOP, long_name
from bench.home import Home
from bench.pages.markdown import clean
from bench.pages.terminal import columns, wrapped
from bench.records.clip_scores import CellClips
from bench.records.schema import Record
from bench.records.store import RECORD, cell_folder
from bench.reports.blocks import Row, flat_config
from bench.reports.compare import LEDGER, NOTHING, captions, quoted, told

FEW = 5  # best clips, and worst clips
CHECKPOINT = "checkpoint.safetensors"
FILES = {
    RECORD: "all that is said here",
    "predictions.jsonl": "captions, log-probabilities",
    "clip_scores.csv": "scores of each clip, and what corpus BLEU and METEOR are made of",
    "curves.csv": "losses and validation scores by epoch",
    CHECKPOINT: "the trained method",
}


def render(
    record: Record,
    home: Home,
    defaults: Mapping[str, Any] | None,
    clips: CellClips | None,
    references: Mapping[str, Sequence[str]],
    notes: Sequence[str],
) -> str:
    """The page. `defaults` are the groups of a configuration when nobody says anything, None where its card is not here."""
    parts = [_head(record), _scores(record), _settings(record, defaults), _cost(record), _files(record, home)]
    if clips is not None:
        parts += _clips(record, clips, references)
    parts += [wrapped(note) for note in notes]
    return "\n\n".join(part for part in parts if part)


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


def _settings(record: Record, defaults: Mapping[str, Any] | None) -> str:
    """The settings that are not the defaults of card and engine."""
    if record.external is not None:
        return ""
    groups = ("settings", "loss", "phases", "train", "search", "text")
    mine = flat_config({name: record.config[name] for name in groups if name in record.config})
    if defaults is None:
        values = [(name.removeprefix("settings."), told(value)) for name, value in mine.items()]
        title = f"SETTINGS (the card of {record.method} is not here to tell the defaults)"
        return f"{title}\n{columns(('setting', 'value'), values)}"
    usual = flat_config(defaults)
    rows = [
        (name.removeprefix("settings."), told(value), told(usual[name]) if name in usual else NOTHING)
        for name, value in mine.items()
        if name not in usual or usual[name] != value
    ]
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
    if record.selection is not None:
        selection = record.selection
        phase = f" of phase {selection.phase}" if selection.phase else ""
        chosen += f"\nEpoch {selection.epoch}{phase} was chosen: {selection.metric} {selection.value:.2f}"
    return f"BUDGET AND COST\n{columns(('what', 'amount'), rows, right=('amount',))}{chosen}"


def _files(record: Record, home: Home) -> str:
    folder = cell_folder(home.results, record)
    rows = [
        (name, f"{(folder / name).stat().st_size:,}", what) for name, what in FILES.items() if (folder / name).is_file()
    ]
    lines = [f"FILES in {_short(folder)}", columns(("file", "bytes", "what"), rows, right=("bytes",))]
    if (folder / CHECKPOINT).is_file():
        lines += ["", "In Python:", f'    trained = bench.load("{_short(folder / CHECKPOINT)}")']
        lines += ["    trained.method, trained.vocabulary, trained.search, trained.streams"]
    elif record.state != "failed" and record.external is None:
        lines += [
            "",
            wrapped(
                f"{CHECKPOINT} is not here, for checkpoints are not published: move the folder away and give the bench run "
                "command that made it again; it then trains the cell anew, and bench.load(path) reads what it leaves."
            ),
        ]
    return "\n".join(lines)


def _short(path: Path) -> str:
    """The path relative to the current folder where it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here) if here in path.parents else path)


def _clips(record: Record, clips: CellClips, references: Mapping[str, Sequence[str]]) -> list[str]:
    """The best and the worst clips by CIDEr-D."""
    if "cider" not in clips.scores:
        return []
    score = dict(zip(clips.ids, clips.scores["cider"].tolist(), strict=True))
    best = sorted(score, key=lambda clip: (-score[clip], clip))
    worst = [clip for clip in sorted(score, key=lambda clip: (score[clip], clip))[:FEW] if clip not in best[:FEW]]
    return [
        "\n\n".join(
            [
                title,
                *(
                    "\n".join(
                        [
                            f"{clip}  CIDEr-D {score[clip]:.1f}",
                            *captions("C", [clips], [record.seed], clip),
                            *quoted(references.get(clip, ())),
                        ]
                    )
                    for clip in chosen
                ),
            ]
        )
        for title, chosen in (("BEST CLIPS", best[:FEW]), ("WORST CLIPS", worst))
        if chosen
    ]
