"""Before any cell: the clips that were asked for and the feature caches of a data set are there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import BenchError
from bench.cell.job import keep_freed
from bench.data.corpus import all_clips, load_corpus
from bench.declare.dataset import DatasetDefinition, StreamSource
from bench.features.cache import Cache
from bench.features.contents import complete
from bench.features.shapes import write_streams
from bench.features.sidecar import cache_path, named_by_command, read_sidecar
from bench.features.unfinished import BeingWrittenError
from bench.home import Home, written_path
from bench.pages.terminal import wrapped
from bench.run.backend import LOCAL
from bench.run.display import Countdown

if TYPE_CHECKING:
    from bench.features.extraction import Work


def prepare(
    definition: DatasetDefinition,
    home: Home,
    subset: tuple[int, int, int] | None = None,
    needed: Collection[str] | None = None,
    *,
    again: bool = False,
) -> None:
    """Make the caches of the data set's streams, or of those among them that are `needed`.

    What `bench features extract`, or an import that named its source, has made stays, unless `again`. Streams that are up to
    date are left as they are; `shapes` renders those clips of `subset` that its caches lack. A stream that a method wants and
    the data set does not declare is not made here. What another process is just making is waited for, as of the
    other jobs of an array. Raises BenchError for sources that are absent or bad.
    """
    while True:
        try:
            return _prepare(definition, home, subset, needed, again)
        except BeingWrittenError as busy:
            print(wrapped(f"{definition.name}: waiting for another process, which writes {busy.aside}"), flush=True)
            busy.wait()


def _prepare(
    definition: DatasetDefinition,
    home: Home,
    subset: tuple[int, int, int] | None,
    needed: Collection[str] | None,
    again: bool,
) -> None:
    streams = [name for name in definition.streams if needed is None or name in needed]
    if not streams:
        return
    for name in streams:
        complete(cache_path(home, definition.name, name))
    if definition.generated:
        print(
            wrapped(f"{definition.name}: streams {', '.join(streams)} are rendered unless they are in the cache"),
            flush=True,
        )
        with Countdown(definition.name) as countdown:
            write_streams(home, definition.options, subset, name=definition.name, streams=streams, tell=countdown.tell)
        return
    from bench.features.extraction import made_otherwise  # they import torch, which takes seconds
    from bench.features.importers import import_stream

    clips, _ = all_clips(definition, home)
    for name in streams:
        source = definition.streams[name]
        path = cache_path(home, definition.name, name)
        if source.videos is not None:
            if not path.is_file() or _lacking(path, clips):
                path, failed = extract(definition, name, home)
                if failed:
                    raise BenchError(failed)
            elif told := made_otherwise(definition, name, home):
                print(wrapped(f"{definition.name}: {told}"), flush=True)
        elif path.is_file() and (source.source is None or (named_by_command(path) and not again)):
            pass  # made by a command, perhaps from another place than the definition's: used as it is
        else:
            path = import_stream(definition, name, home, list(clips))
        print(wrapped(f"{definition.name}: stream {name} is in {path}"), flush=True)


def _lacking(path: Path, clips: Collection[str]) -> bool:
    """Whether a cache has not all clips, but for those that it was finished without: the data set grew."""
    with Cache(path) as cache:
        return not set(clips) <= {*cache.ids, *cache.left_out}


def extract(
    definition: DatasetDefinition,
    stream: str,
    home: Home,
    asked: Mapping[str, Any] | None = None,
    work: Work | None = None,
    address: str = LOCAL,
) -> tuple[Path, str]:
    """Make the cache of a stream that comes from videos; `asked`, fields of a command, are laid over its definition's. The
    GPUs of a cluster at `address` share the clips.

    Returns its path, and a sentence on the clips that could not be read, empty if there are none. Raises BenchError where
    nothing can be extracted at all.
    """
    from bench.features.extract import extract_stream, failure_sentence  # these import torch
    from bench.features.extraction import Extraction, Work

    extraction, work = Extraction.of(definition, stream, home, asked), work or Work()
    clips, aliases = all_clips(definition, home)
    if extraction.weights == "random":
        print(
            wrapped(f"{definition.name}: stream {stream}: the weights are random, which is for tests only"), flush=True
        )
    keep_freed()  # an encoder's layers are freed and made anew at every batch
    with ExitStack() as stack:
        elsewhere = None
        if address != LOCAL:
            from bench.run.spreading import cluster  # it imports Ray

            elsewhere = stack.enter_context(cluster(address, extraction, work))
            print(wrapped(f"{definition.name}: stream {stream}: {elsewhere.told}"), flush=True)
        countdown = stack.enter_context(Countdown(f"{definition.name}: stream {stream}"))
        path, failures = extract_stream(extraction, clips, aliases, home, countdown.tell, work, elsewhere)
    return path, failure_sentence(
        definition.name, failures, len(clips), stream if work.skip else ""
    ) if failures else ""


def refuse_replacing(definition: DatasetDefinition, streams: Collection[str], home: Home) -> None:
    """Raise BenchError where a cache that a command has made would have to make room for what the definition names."""
    for name in streams:
        source, path = definition.streams[name].source, cache_path(home, definition.name, name)
        if source is not None and named_by_command(path) and definition.resolve(source, home).exists():
            made = read_sidecar(path)["encoder"].get("name", "an encoder that is not known")
            raise BenchError(
                f"{path} holds features by {made} that a command has made, and {definition.path} names others ({source}): "
                f"say replace=true to take these"
            )


def import_from(
    definition: DatasetDefinition, stream: str, home: Home, entry: Mapping[str, Any], replace: bool = False
) -> str:
    """Import a stream from the place that a command names: `entry` is written as in a definition (source, layout, ..), with
    paths relative to the current folder.

    Returns a sentence on what was recognised there. Raises BenchError for what cannot be taken, and where a cache of other
    features is not to be replaced.
    """
    from bench.features.importers import import_stream  # it imports torch

    own = {**entry, "source": str(written_path(entry["source"]).resolve())}
    if "ids" in own and written_path(own["ids"]).is_file():
        own["ids"] = str(written_path(own["ids"]).resolve())
    path = cache_path(home, definition.name, stream)
    if path.is_file() and not replace:
        before = read_sidecar(path)["source"].get("request") or {}
        files = before.get("files") or [{}]
        if files[0].get("path") != own["source"]:
            raise BenchError(
                f"{path} holds features from {files[0].get('path', 'another place')}: say replace=true to take those of "
                f"{own['source']} instead"
            )
    streams = {**definition.streams, stream: StreamSource(**own)}
    clips, _ = all_clips(definition, home)
    path = import_stream(definition.model_copy(update={"streams": streams}), stream, home, list(clips), by_command=True)
    seen = read_sidecar(path)["source"]["seen"]
    return f"{definition.name}: {seen}\n{definition.name}: stream {stream} is in {path}{undeclared(definition, stream)}"


def undeclared(definition: DatasetDefinition, stream: str) -> str:
    """What to say after a cache was made of a stream that the definition does not name; empty where it does."""
    if stream in definition.streams:
        return ""
    return f"; declare it under streams: in {definition.path} to let methods read it"


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
    found = load_corpus(definition, home, splits=splits, subset=subset, fold=0).splits
    empty = [split for split in dict.fromkeys(("train", "val", target)) if not found[split]]
    if empty:
        why = {"train": "to learn from", "val": "to choose the best epoch by"}
        raise BenchError(
            f"data set {definition.name}: split {empty[0]} has no clips, but `bench run` needs some "
            f"{why.get(empty[0], 'to score')}; change splits in {definition.path}, "
            f"then: bench data check dataset={definition.called}"
        )
