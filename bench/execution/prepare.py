"""Before any cell: the feature caches of a data set are there."""

from __future__ import annotations

from collections.abc import Collection

from bench.definition import DatasetDefinition
from bench.home import Home


def prepare(
    definition: DatasetDefinition,
    home: Home,
    subset: tuple[int, int, int] | None = None,
    needed: Collection[str] | None = None,
) -> None:
    """Make the caches of the data set's streams, or of those among them that are `needed`.

    Streams that are up to date are left as they are; `shapes` renders its clips first. A stream that a method wants and
    the data set does not declare is no matter of this function. Raises BenchError for sources that are absent or bad.
    """
    streams = [name for name in definition.streams if needed is None or name in needed]
    if not streams:
        return
    if definition.generated:
        from bench.data.shapes import write_streams

        print(f"{definition.name}: streams {', '.join(streams)} are rendered unless they are in the cache", flush=True)
        write_streams(home, definition.options, subset, name=definition.name, streams=streams)
        return
    from bench.features.importers import import_stream

    ids = _all_clips(definition, home)
    for name in streams:
        path = import_stream(definition, name, home, ids)
        print(f"{definition.name}: stream {name} is in {path}", flush=True)


def _all_clips(definition: DatasetDefinition, home: Home) -> list[str]:
    """Clips of the data set under every split rule: one cache, and with it one fingerprint, serves all of them."""
    from bench.data.corpus import load_corpus

    rules = ["default", *definition.split_variants]
    return list(dict.fromkeys(clip for rule in rules for clip in load_corpus(definition, home, splits=rule).clips))
