"""Before any cell: the clips that were asked for and the feature caches of a data set are there."""

from __future__ import annotations

from collections.abc import Collection

from bench import BenchError
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


def refuse_empty_splits(
    definition: DatasetDefinition,
    home: Home,
    splits: str = "default",
    subset: tuple[int, int, int] | None = None,
    target: str = "test",
) -> None:
    """Raise BenchError where no cell could come to an end: train, val or `target` has no clips, `subset` wants too many.

    Whatever else is wrong with the captions or with the split rule `splits` is said as well, before any stream is read.
    """
    from bench.data.corpus import load_corpus

    found = load_corpus(definition, home, splits=splits, subset=subset).splits
    empty = [split for split in dict.fromkeys(("train", "val", target)) if not found[split]]
    if empty:
        why = {"train": "to learn from", "val": "to choose the best epoch by"}
        raise BenchError(
            f"data set {definition.name}: split {empty[0]} has no clips, but `bench run` needs some "
            f"{why.get(empty[0], 'to score')}; change splits in {definition.path}, "
            f"then: bench data check dataset={definition.called}"
        )


def _all_clips(definition: DatasetDefinition, home: Home) -> list[str]:
    """Clips of the data set under every split rule: one cache, and with it one fingerprint, serves all of them."""
    from bench.data.corpus import load_corpus

    rules = ["default", *definition.split_variants]
    return list(dict.fromkeys(clip for rule in rules for clip in load_corpus(definition, home, splits=rule).clips))
