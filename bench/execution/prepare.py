"""Before any cell: the clips that were asked for and the feature caches of a data set are there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bench import BenchError
from bench.definition import DatasetDefinition
from bench.home import Home

if TYPE_CHECKING:
    from bench.data.source import Clip

PROGRESS = 50  # clips between two lines of progress


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
        from bench.execution.countdown import Countdown

        print(f"{definition.name}: streams {', '.join(streams)} are rendered unless they are in the cache", flush=True)
        with Countdown(definition.name) as countdown:
            write_streams(home, definition.options, subset, name=definition.name, streams=streams, tell=countdown.tell)
        return
    from bench.features.importers import import_stream
    from bench.features.sidecar import cache_path

    clips, _ = all_clips(definition, home)
    for name in streams:
        source = definition.streams[name]
        path = cache_path(home, definition.name, name)
        if source.source is None and path.is_file():
            pass  # `bench features extract` has made it, perhaps with other words than the definition's: used as it is
        elif source.videos is not None:
            path, failed = extract(definition, name, home)
            if failed:
                raise BenchError(failed)
        else:
            path = import_stream(definition, name, home, list(clips))
        print(f"{definition.name}: stream {name} is in {path}", flush=True)


def extract(
    definition: DatasetDefinition, stream: str, home: Home, told: Mapping[str, str] | None = None
) -> tuple[Path, str]:
    """Make the cache of a stream that comes from videos; `told` (videos, frames, encoder) is laid over its definition.

    Returns its path, and a sentence on the clips that could not be read, empty if there are none. Raises BenchError where
    nothing can be extracted at all.
    """
    from bench.features.extract import Extraction, extract_pixels, told_failures

    extraction = Extraction.of(definition, stream, home, told)
    clips, aliases = all_clips(definition, home)

    def tell(left: int) -> None:
        if left % PROGRESS == 0:
            print(f"{definition.name}: stream {stream}: {left} clips left", flush=True)

    path, failures = extract_pixels(extraction, clips, aliases, home, tell)
    return path, told_failures(definition.name, failures, len(clips)) if failures else ""


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


def all_clips(definition: DatasetDefinition, home: Home) -> tuple[dict[str, Clip], dict[str, str]]:
    """Clips of the data set under every split rule, and their other names: one cache, and with it one fingerprint, serves
    all rules."""
    from bench.data.corpus import load_corpus

    clips: dict[str, Clip] = {}
    aliases: dict[str, str] = {}
    for rule in ("default", *definition.split_variants):
        corpus = load_corpus(definition, home, splits=rule)
        clips |= {clip: one for clip, one in corpus.clips.items() if clip not in clips}
        aliases |= corpus.aliases
    return clips, aliases
