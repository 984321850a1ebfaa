"""What is there, as facts and as rows: methods, data sets, feature caches, runs. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.declare.dataset import DatasetDefinition
from bench.declare.plugins import import_error, is_plugin
from bench.declare.registry import dataset, find_datasets, find_methods
from bench.disk.limits import own_json, own_text
from bench.disk.locks import lock_holder
from bench.errors import listing, sizes
from bench.home import Home
from bench.records.store import RECORD, BadRecord, all_records

PROGRESS = Path("work") / "progress.json"
UNUSABLE = "cannot be used: {}"


@dataclass(frozen=True)
class Listing:
    """`facts` are plain JSON; `rows` the same for a table with `head`, whose columns in `right` are set flush right."""

    facts: list[dict[str, Any]]
    head: Sequence[str]
    rows: list[Sequence[object]]
    right: Sequence[str] = ()


def methods(home: Home) -> Listing:
    """One row per method; the default variant comes first. A broken method's row is its error.

    A method of another package is imported in a process of its own, once for each version of its code.
    """
    facts: list[dict[str, Any]] = []
    for entry in find_methods().values():
        card, error = entry.card, entry.error or import_error(entry, home)
        found: dict[str, Any] = {
            "name": entry.name,
            "package": entry.source if is_plugin(entry) else None,
            "error": error,
        }
        if card is not None and not error:
            found |= {
                "variants": [card.default, *(name for name in card.variants if name != card.default)],
                "needs": card.streams.needs,
                "uses": card.streams.uses,
                "paper": f"{card.paper.venue or ''} {card.paper.year or ''}".strip() if card.paper else None,
                "summary": card.summary,
                "provides_loss": card.provides.loss,
            }
        facts.append(found)
    head = ("method", "variants", "streams (optional)", "paper", "summary")
    return Listing(facts, head, [_method(one) for one in facts])


def _method(found: Mapping[str, Any]) -> Sequence[object]:
    package = f" (from the package {found['package']})" if found["package"] else ""
    if "variants" not in found:
        return (found["name"], "-", "-", "-", UNUSABLE.format(found["error"]) + package)
    streams = [*found["needs"], *(f"({stream})" for stream in found["uses"])]
    lends = f" (provides loss={found['provides_loss']})" if found["provides_loss"] else ""
    summary = found["summary"] + lends + package
    return (found["name"], listing(found["variants"]), " ".join(streams), found["paper"] or "-", summary)


def datasets(home: Home) -> Listing:
    """One row per data set: whether its captions are here, and the state of its streams."""
    facts: list[dict[str, Any]] = []
    for entry in find_datasets().values():
        found: dict[str, Any] = {"name": entry.name, "error": entry.error}
        if entry.definition is not None:
            found |= {
                "captions": "here" if _captions_here(entry.definition, home) else "absent",
                "streams": _streams(entry.definition, home),
                "title": entry.definition.title,
            }
        facts.append(found)
    rows: list[Sequence[object]] = [
        (one["name"], one["captions"], _in_a_table(one["streams"]), one["title"])
        if "captions" in one
        else (one["name"], "-", "-", UNUSABLE.format(one["error"]))
        for one in facts
    ]
    return Listing(facts, ("data set", "captions", "streams", "title"), rows)


def _captions_here(definition: DatasetDefinition, home: Home) -> bool:
    try:
        definition.caption_source(home)
    except BenchError:
        return False
    return True


def _streams(definition: DatasetDefinition, home: Home) -> dict[str, str]:
    """Each stream with its state: cached, to import or to extract (its source is here), absent."""
    from bench.features.sidecar import cache_path, sidecar_path

    states = {}
    for name, stream in definition.streams.items():
        if sidecar_path(cache_path(home, definition.name, name)).is_file():
            states[name] = "cached"
        elif definition.generated or (stream.place and _exists(definition, stream.place, home)):
            states[name] = "to import" if stream.videos is None else "to extract"
        else:
            states[name] = "absent"
    return states


def _in_a_table(states: Mapping[str, str]) -> str:
    """The streams in a table, or their number if all are alike."""
    if len(states) > 1 and len(set(states.values())) == 1:
        return f"{len(states)} {next(iter(states.values()))}"
    return listing([f"{name}: {state}" for name, state in states.items()])


def _exists(definition: DatasetDefinition, source: str, home: Home) -> bool:
    try:
        return definition.resolve(source, home).exists()
    except BenchError:
        return False


def features(home: Home, dataset: str | None = None) -> Listing:
    """One row per feature cache of this home (of one data set)."""
    from bench.features.sidecar import list_caches

    names = ("dataset", "stream", "shape", "clips", "bytes", "dtype", "fingerprint", "error")
    facts: list[dict[str, Any]] = []
    rows: list[Sequence[object]] = []
    for cache in list_caches(home):
        if dataset not in (None, cache["dataset"]):
            continue
        cache = dict(cache) | {"error": cache.get("error") or cache.get("unfinished")}
        facts.append({name: cache.get(name) for name in names})
        if cache["error"]:
            rows.append((cache["dataset"], cache["stream"], "-", "-", "-", cache["error"]))
            continue
        shape = sizes(cache["shape"])
        mark = f"{cache['dtype']}, fingerprint {cache['fingerprint'][:12]}"
        rows.append((cache["dataset"], cache["stream"], shape, cache["clips"], f"{cache['bytes'] / 2**20:.1f}", mark))
    return Listing(facts, ("data set", "stream", "shape", "clips", "MiB", "remarks"), rows, ("clips", "MiB"))


def runs(home: Home, dataset: str | None = None) -> Listing:
    """One row per cell (of one data set) by data set, method, variant, seed and key.

    Its state is that of its record: done, unscored or failed; running or interrupted without one; refused where the record
    cannot be trusted. `note` says why a cell failed or was refused, or how far it is.
    """
    bad: list[BadRecord] = []
    facts: list[dict[str, Any]] = []
    for record in all_records(home.results, dataset, bad):
        failure, loss = record.failure, record.config.get("loss")
        facts.append(
            {
                "dataset": record.dataset,
                "method": record.method,
                "key": record.key,
                "state": record.state,
                "variant": record.variant,
                "loss": loss["name"] if loss else None,
                "seed": record.seed,
                "protocol": record.config["protocol"],
                "scores": dict(record.scores.get(record.split, {})),
                "finished": record.provenance.finished if record.provenance else None,
                "note": f"{failure.stage}: {failure.type}: {failure.message}" if failure else "",
            }
        )
    facts += [{**_place(item.path.parent), "state": "refused", "note": item.reason} for item in bad]
    facts += _under_way(home, dataset)
    facts.sort(
        key=lambda one: (one["dataset"], one["method"], one.get("variant") or "", one.get("seed") or 0, one["key"])
    )
    head = ("data set", "method", "seed", "protocol", "state", "CIDEr", "key", "remarks")
    return Listing(facts, head, [_run(one) for one in facts], ("seed", "CIDEr"))


def _run(found: Mapping[str, Any]) -> Sequence[object]:
    cider = found.get("scores", {}).get("cider")
    name = f"{found['method']}:{found['variant']}" if found.get("variant") else found["method"]
    return (
        found["dataset"],
        f"{name} loss={found['loss']}" if found.get("loss") else name,
        found.get("seed", "-"),
        found.get("protocol", "-"),
        found["state"],
        "-" if cider is None else f"{cider:.1f}",
        found["key"],
        found["note"],
    )


def _place(folder: Path) -> dict[str, str]:
    """Data set, method and key from the folder `results/<dataset>/<method>/<key>`."""
    return {"dataset": folder.parents[1].name, "method": folder.parent.name, "key": folder.name}


def _under_way(home: Home, dataset: str | None) -> list[dict[str, Any]]:
    """Cells that have no record yet."""
    found = []
    for path in sorted(home.results.glob(f"{dataset or '*'}/*/*/{PROGRESS.as_posix()}")):
        folder = path.parents[1]
        if (folder / RECORD).exists():
            continue
        try:
            progress = own_json(own_text(path))
            note = f"{progress['phase']}, epoch {progress['epoch']}, {progress['captions']} of {progress['budget']} captions"
            state = "running" if lock_holder(home, folder.name) is not None else "interrupted"
        except (OSError, ValueError, KeyError, TypeError):  # cut short, or written by something else
            note, state = "its progress cannot be read", "interrupted"
        found.append({**_place(folder), "state": state, "note": note})
    return found


LISTINGS: dict[str, Callable[[Home], Listing]] = {
    "methods": methods,
    "datasets": datasets,
    "features": features,
    "runs": runs,
}
OF_A_DATASET: dict[str, Callable[[Home, str | None], Listing]] = {"features": features, "runs": runs}


def named_dataset(name: str, home: Home) -> str:
    """The name of a data set that is defined, or has records here. Raises BenchError for one that neither knows."""
    return name if name in {path.name for path in home.results.glob("*/")} else dataset(name).name
