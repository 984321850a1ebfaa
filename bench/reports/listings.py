"""What is there, as rows: methods, data sets, feature caches, runs. Nothing heavy is imported here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError
from bench.declare.dataset import DatasetDefinition
from bench.declare.plugins import import_error, is_plugin
from bench.declare.registry import MethodEntry, find_datasets, find_methods
from bench.disk.locks import alive
from bench.errors import listing
from bench.home import Home
from bench.records.store import RECORD, BadRecord, all_records

Listing = tuple[Sequence[str], list[Sequence[object]], Sequence[str]]  # head, rows, heads of right-set columns


def methods(home: Home) -> Listing:
    """One row per method; the default variant comes first. A broken method's row is its error.

    A method of another package is imported in a process of its own, once for each version of its code.
    """
    rows: list[Sequence[object]] = []
    for entry in find_methods().values():
        card = entry.card
        error = entry.error or import_error(entry, home)
        if card is None or error:
            rows.append((entry.name, "-", "-", "-", f"cannot be used: {error}{_brought(entry)}"))
            continue
        variants = [card.default, *(name for name in card.variants if name != card.default)]
        streams = [*card.streams.needs, *(f"({stream})" for stream in card.streams.uses)]
        paper = f"{card.paper.venue or ''} {card.paper.year or ''}".strip() if card.paper else "-"
        lends = f" (provides loss={card.provides.loss})" if card.provides.loss else ""
        rows.append(
            (entry.name, listing(variants), " ".join(streams), paper or "-", card.summary + lends + _brought(entry))
        )
    return ("method", "variants", "streams (optional)", "paper", "summary"), rows, ()


def _brought(entry: MethodEntry) -> str:
    return f" (from the package {entry.source})" if is_plugin(entry) else ""


def datasets(home: Home) -> Listing:
    """One row per data set: whether its captions are here, and the state of its streams."""
    rows: list[Sequence[object]] = []
    for entry in find_datasets().values():
        if entry.definition is None:
            rows.append((entry.name, "-", "-", f"cannot be used: {entry.error}"))
        else:
            captions = "here" if _captions_here(entry.definition, home) else "absent"
            rows.append((entry.name, captions, _streams(entry.definition, home), entry.definition.title))
    return ("data set", "captions", "streams", "title"), rows, ()


def _captions_here(definition: DatasetDefinition, home: Home) -> bool:
    try:
        definition.caption_source(home)
    except BenchError:
        return False
    return True


def _streams(definition: DatasetDefinition, home: Home) -> str:
    """Each stream with its state: cached, to import or to extract (its source is here), absent; or their number if all are
    alike."""
    from bench.features.sidecar import cache_path, sidecar_path

    words = []
    for name, stream in definition.streams.items():
        if sidecar_path(cache_path(home, definition.name, name)).is_file():
            words.append(f"{name}: cached")
        elif definition.generated or (stream.place and _exists(definition, stream.place, home)):
            words.append(f"{name}: to {'import' if stream.videos is None else 'extract'}")
        else:
            words.append(f"{name}: absent")
    states = dict.fromkeys(word.partition(": ")[2] for word in words)
    if len(states) == 1 and len(words) > 1:
        return f"{len(words)} {next(iter(states))}"
    return listing(words)


def _exists(definition: DatasetDefinition, source: str, home: Home) -> bool:
    try:
        return definition.resolve(source, home).exists()
    except BenchError:
        return False


def features(home: Home) -> Listing:
    """One row per feature cache of this home."""
    from bench.features.sidecar import list_caches

    rows: list[Sequence[object]] = []
    for cache in list_caches(home):
        trouble = cache.get("error") or cache.get("unfinished")
        if trouble:
            rows.append((cache["dataset"], cache["stream"], "-", "-", "-", trouble))
        else:
            shape = "x".join(str(size) for size in cache["shape"])
            size = f"{cache['bytes'] / 2**20:.1f}"
            mark = f"{cache['dtype']}, fingerprint {cache['fingerprint'][:12]}"
            rows.append((cache["dataset"], cache["stream"], shape, cache["clips"], size, mark))
    return ("data set", "stream", "shape", "clips", "MiB", "remarks"), rows, ("clips", "MiB")


def runs(home: Home) -> Listing:
    """One row per record; those that cannot be trusted come last with the reason."""
    from bench.records.store import all_records

    bad: list[BadRecord] = []
    rows: list[Sequence[object]] = []
    for record in all_records(home.results, bad=bad):
        cider = record.scores.get(record.split, {}).get("cider")
        what = record.failure.message if record.failure else ""
        name = f"{record.method}:{record.variant}" if record.variant else record.method
        loss = record.config.get("loss")
        rows.append(
            (
                record.dataset,
                f"{name} loss={loss['name']}" if loss else name,
                record.seed,
                record.config["protocol"],
                record.state,
                "-" if cider is None else f"{cider:.1f}",
                record.key,
                what,
            )
        )
    rows += [(error.path.parents[2].name, "-", "-", "-", "refused", "-", "-", error.reason) for error in bad]
    return ("data set", "method", "seed", "protocol", "state", "CIDEr", "key", "remarks"), rows, ("seed", "CIDEr")


PROGRESS = Path("work") / "progress.json"


@dataclass(frozen=True)
class RunRow:
    """One cell. `state` is a record's done, unscored or failed; running or interrupted without a record; or refused.

    `scores` are those of its split, on the papers' scale; `note` says why a cell failed or was refused.
    """

    dataset: str
    method: str
    key: str
    state: str
    variant: str | None = None
    seed: int | None = None
    protocol: str | None = None
    scores: tuple[tuple[str, float], ...] = ()
    finished: str | None = None
    note: str = ""


def list_runs(home: Home, dataset: str | None = None) -> list[RunRow]:
    """All cells (of one data set) by data set, method, variant, seed and key."""
    bad: list[BadRecord] = []
    rows = []
    for record in all_records(home.results, dataset, bad):
        failure = record.failure
        rows.append(
            RunRow(
                record.dataset,
                record.method,
                record.key,
                record.state,
                record.variant,
                record.seed,
                record.config["protocol"],
                tuple(record.scores.get(record.split, {}).items()),
                record.provenance.finished if record.provenance else None,
                f"{failure.stage}: {failure.type}: {failure.message}" if failure else "",
            )
        )
    rows += [RunRow(*_place(item.path.parent), "refused", note=item.reason) for item in bad]
    rows += _under_way(home, dataset)
    return sorted(rows, key=lambda row: (row.dataset, row.method, row.variant or "", row.seed or 0, row.key))


def _place(folder: Path) -> tuple[str, str, str]:
    """Data set, method and key from the folder `results/<dataset>/<method>/<key>`."""
    return folder.parents[1].name, folder.parent.name, folder.name


def _under_way(home: Home, dataset: str | None) -> list[RunRow]:
    rows = []
    for path in sorted(home.results.glob(f"{dataset or '*'}/*/*/{PROGRESS.as_posix()}")):
        folder = path.parents[1]
        if (folder / RECORD).exists():
            continue
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            note = f"{told['phase']}, epoch {told['epoch']}, {told['captions']} of {told['budget']} captions"
            state = "running" if alive(int(told["pid"])) else "interrupted"
        except (OSError, ValueError, KeyError, TypeError):  # cut short, or written by something else
            note, state = "its progress cannot be read", "interrupted"
        rows.append(RunRow(*_place(folder), state, note=note))
    return rows


LISTINGS: dict[str, Callable[[Home], Listing]] = {
    "methods": methods,
    "datasets": datasets,
    "features": features,
    "runs": runs,
}
