"""From feature files as they were published to the cache, once; later calls find the cache up to date."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import BenchError
from bench.declare.dataset import DatasetDefinition
from bench.errors import first_line, many, named
from bench.features.cache import Cache, CacheWriter
from bench.features.contents import complete, unfit
from bench.features.formats import Source, open_source
from bench.features.names import SHIFTS, Rename, by_name, by_shift, by_table, hint, match, natural, read_ids
from bench.features.sidecar import (
    cache_path,
    canonical,
    named_by_command,
    read_sidecar,
)
from bench.features.video import choose_frames
from bench.home import Home

UNTIMED = ("spatial",)  # [places, channels]: two axes, none of them time


@dataclass
class Recipe:
    """One stream of a data set definition, its paths resolved.

    `where` and `again` begin and end its sentences; `rows` are the ids of a matrix's rows, `pairs` two names of each
    clip, `id_array` the list of ids inside the source. What a definition says of a stream in words of its own is
    explained there (`StreamSource`).
    """

    stream: str
    where: str
    again: str
    path: Path
    layout: str = "auto"
    frames: int | None = None
    columns: tuple[int, int] | None = None
    dtype: str | None = None
    l2: bool = False
    shift: str | None = None
    id_array: str | None = None
    rows: list[str] = field(default_factory=list)
    pairs: list[tuple[str, str]] = field(default_factory=list)
    encoder: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, definition: DatasetDefinition, stream: str, home: Home) -> Recipe:
        """Read the stream's entry. Raises BenchError where there is none, or it names no source."""
        if stream not in definition.streams:
            known = ", ".join(definition.streams) or "none"
            raise BenchError(f"data set {definition.name} has no stream {stream!r}; its streams: {known}")
        entry = definition.streams[stream]
        where = f"stream {stream} of data set {definition.name}"
        if entry.source is None:
            raise BenchError(f"{where} names no source: say streams: {{{stream}: {{source: FILE}}}} in its definition")
        recipe = cls(
            stream,
            where,
            f"then `bench features import dataset={definition.called} stream={stream}`",
            definition.resolve(entry.source, home),
            layout=entry.layout,
            frames=entry.frames,
            columns=entry.columns,
            dtype=entry.dtype,
            l2=entry.l2,
            encoder={"name": entry.encoder} if entry.encoder else {},
        )
        recipe._read_ids(entry.ids, definition, home)
        return recipe

    def _read_ids(self, ids: str | Sequence[str] | None, definition: DatasetDefinition, home: Home) -> None:
        if ids is None:
            return
        if not isinstance(ids, str):
            self.rows = [str(clip) for clip in ids]
        elif ids in SHIFTS:
            self.shift = ids
        elif definition.resolve(ids, home).is_file():
            lines = read_ids(definition.resolve(ids, home))
            if len(lines[0]) == 1:
                self.rows = [line[0] for line in lines]
            else:
                self.pairs = [(line[0], line[1]) for line in lines]
        elif "/" in ids or "." in ids:
            raise BenchError(f"{self.where}: the list of clip ids {definition.resolve(ids, home)} is not there")
        else:
            self.id_array = ids

    def options(self) -> dict[str, Any]:
        """All that decides how the values are read."""
        listed = hashlib.sha256(canonical([self.rows, self.pairs]).encode()).hexdigest()
        simple = ("layout", "frames", "columns", "dtype", "l2", "shift", "id_array", "encoder")
        # `timed` could once be declared; it stands in the requests of caches that were made then.
        return {name: getattr(self, name) for name in simple} | {"timed": None, "listed": listed}

    def open(self, corpus: Collection[str]) -> Source:
        """Open the source; the ids of `corpus` decide between several lists of ids in a file."""

        def known(names: Sequence[str]) -> int:
            return len(match(names, self.rename(names, corpus), corpus))

        if not self.path.exists():
            raise BenchError(
                f"the features of {self.where} are not there ({self.path}): put them there, set BENCH_DATA, or correct "
                f"streams.{self.stream}.source in its definition, {self.again}"
            )
        return open_source(self.path, self.layout, self.id_array, known)

    def rename(self, names: Sequence[str], corpus: Collection[str]) -> Rename:
        """The rule from names of the source to clip ids."""
        if self.pairs:
            return by_table(self.pairs, names)
        return by_shift(self.shift, corpus) if self.shift else by_name(corpus)

    def names(self, source: Source, corpus: Sequence[str] | None) -> list[str]:
        """Names of the source's clips; where it has none, those listed, else the ids of the corpus in their order."""
        if all(name is not None for name in source.names):
            if self.rows:
                raise BenchError(f"{self.where}: ids lists {len(self.rows)} rows, but {source.description}")
            return [str(name) for name in source.names]
        rows = self.rows or sorted(corpus or (), key=natural)
        if len(rows) != len(source.names):
            whose = "ids of the definition lists" if self.rows else "the corpus has"
            raise BenchError(
                f"{self.where}: {source.description}; it has {len(source.names)} rows and {whose} {len(rows)} clips, so "
                f"that no row can be told from another: say ids: FILE with the clip id of each row, one to a line"
            )
        return rows


def source_ids(definition: DatasetDefinition, stream: str, home: Home, known: Collection[str] = ()) -> tuple[str, ...]:
    """Ids of all clips that a stream's source holds, renamed as its `ids` says and as an import finds them among the `known`
    clips: for `subset: {from_stream: ..}`.

    Of a stream that was extracted, or imported by a command that named its source, those in its cache. Raises BenchError where
    the source has no ids and none are listed.
    """
    path = cache_path(home, definition.name, stream)
    if named_by_command(path):
        with Cache(path) as cache:
            return cache.ids
    recipe = Recipe.of(definition, stream, home)
    source = recipe.open(known)
    try:
        names = recipe.names(source, None)
    finally:
        source.close()
    rename = recipe.rename(names, known)
    return tuple(next((name for name in found if name in known), found[-1]) for found in map(rename, names) if found)


def import_stream(
    definition: DatasetDefinition,
    stream_name: str,
    home: Home,
    corpus_ids: Sequence[str],
    *,
    by_command: bool = False,
) -> Path:
    """Make the cache of one stream, unless it is up to date, and return its path.

    `corpus_ids` are all clips of the data set: each must have features; features of other clips are counted in the
    sidecar and left out. What the source looked like stands in the sidecar under `source.seen`. A cache is up to date
    when sources (path, size, time) and options are those of the sidecar and it holds all clips; a cache whose source
    is gone is used as it is. `by_command`: a command named the source, not the definition. Raises BenchError naming clips
    and the next command.
    """
    recipe = Recipe.of(definition, stream_name, home)
    target = cache_path(home, definition.name, stream_name)
    request = json.loads(canonical({"options": recipe.options(), "files": _facts(recipe.path)}))
    if up_to_date(target, request, corpus_ids):
        return target
    source = recipe.open(corpus_ids)
    try:
        places, unused = _places(recipe, source, corpus_ids)
        shape, timed = _shape(recipe, source, places)
        about = {"request": request, "seen": source.description, "without_captions": unused}
        about |= {"told": True} if by_command else {}
        _write(recipe, source, places, shape, timed, target, about)
    finally:
        source.close()
    return target


def _facts(path: Path) -> list[dict[str, Any]] | None:
    """Path, size and time of the source; of a folder, their sum and a digest of those of every file in it. None where it is
    absent."""
    if not path.exists():
        return None
    if not path.is_dir():
        stat = path.stat()
        return [{"path": str(path), "n": 1, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}]
    files = (file for file in path.rglob("*") if file.is_file())  # a link may lead nowhere
    stats = sorted((str(file.relative_to(path)), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files)
    digest = hashlib.sha256(canonical(stats).encode(errors="surrogateescape")).hexdigest()
    return [{"path": str(path), "n": len(stats), "size": sum(size for _, size, _ in stats), "digest": digest}]


def up_to_date(target: Path, request: dict[str, Any], corpus_ids: Sequence[str]) -> bool:
    """Whether the cache was made by this request, `options` and `files`, and holds all clips; where the files are gone, a
    cache made with the same options is."""
    if not target.is_file():
        return False
    try:
        complete(target)
        said = read_sidecar(target)
        before = said["source"].get("request", {})
        same = before.get("options") == request["options"] and request["files"] in (None, before.get("files"))
        if not same or said["bytes"] != target.stat().st_size:
            return False
        with Cache(target) as cache:
            return all(clip in cache for clip in corpus_ids)
    except (BenchError, OSError, KeyError, ValueError):
        return False


def _places(recipe: Recipe, source: Source, corpus_ids: Sequence[str]) -> tuple[dict[str, int], int]:
    """Number in the source of each clip of the corpus, and how many clips of the source are not used."""
    names = recipe.names(source, corpus_ids)
    found = match(names, recipe.rename(names, corpus_ids), corpus_ids)
    twice = [clip for clip, numbers in found.items() if len(numbers) > 1]
    if twice:
        shown = named([f"{clip} as {', '.join(names[number] for number in found[clip])}" for clip in twice])
        raise BenchError(
            f"{recipe.where}: {len(twice)} clips occur more than once ({shown}): keep one of each, {recipe.again}"
        )
    absent = [clip for clip in corpus_ids if clip not in found]
    if absent:
        renamed = recipe.pairs or recipe.shift
        advice = "complete the source, or correct ids in the definition" if renamed else hint(names, corpus_ids)
        few = f"{len(absent)} of {len(corpus_ids)} clips have no features ({named(absent)})"
        raise BenchError(f"{recipe.where}: {few} in {source.description}; {advice}, {recipe.again}")
    return {clip: found[clip][0] for clip in corpus_ids}, len(names) - len(found)


def _shape(recipe: Recipe, source: Source, places: dict[str, int]) -> tuple[tuple[int, ...], bool]:
    """Shape of one clip in the cache, and whether its first axis is time."""
    shapes, faults = {}, {}
    for clip, number in places.items():
        try:
            shapes[clip] = source.shape(number)
        except (OSError, ValueError) as error:
            faults[clip] = f"cannot be read: {first_line(error)}"
    if faults:
        raise _faulty(recipe, faults)
    axes = Counter(len(shape) for shape in shapes.values()).most_common(1)[0][0]
    timed = axes >= 2 and recipe.stream not in UNTIMED
    if axes == 0 or (recipe.frames and not timed):
        what = "one number per clip" if axes == 0 else f"frames: {recipe.frames}, but no time axis"
        raise BenchError(f"{recipe.where}: {source.description} has {what}; give features of shape [D] or [T, D]")
    fixed = 1 if timed else 0
    usual = Counter(shape[fixed:] for shape in shapes.values() if len(shape) == axes).most_common(1)[0][0]
    odd = [clip for clip, shape in shapes.items() if shape[fixed:] != usual or len(shape) != axes or 0 in shape]
    if odd:
        shown = named([f"{clip} {list(shapes[clip])}" for clip in odd])
        most = ["T", *usual] if timed else list(usual)
        expected = "[" + ", ".join(map(str, most)) + "]"
        raise BenchError(
            f"{recipe.where}: {many(len(odd), 'clip')} of another shape than {expected} ({shown}): make them alike"
        )
    shape = usual
    if recipe.columns is not None:
        start, stop = recipe.columns
        if not 0 <= start < stop <= (usual[-1] if usual else 0):
            width = usual[-1] if usual else 0
            raise BenchError(
                f"{recipe.where}: columns [{start}, {stop}] must lie within [0, {width}], the stop excluded"
            )
        shape = (*usual[:-1], stop - start)
    longest = max(shape[0] for shape in shapes.values())
    return ((recipe.frames or longest, *shape) if timed else shape), timed


def _write(
    recipe: Recipe,
    source: Source,
    places: dict[str, int],
    shape: tuple[int, ...],
    timed: bool,
    target: Path,
    about: dict[str, Any],
) -> None:
    """All clips into the cache; those that cannot be stored are gathered and named together."""
    dtype = recipe.dtype or _stored_type(source, next(iter(places.values())))
    attributes = {"encoder": recipe.encoder, "source": about}
    faults: dict[str, str] = {}
    with CacheWriter(target, recipe.stream, shape, timed, dtype, list(places), attributes) as writer:
        wanted = {clip: places[clip] for clip in writer.missing}
        for clip, values in _readable(recipe, source, wanted, shape[0] if timed else None, dtype, faults):
            if not faults:
                writer.write(clip, values)
        if faults:
            writer.discard()
            raise _faulty(recipe, faults)


def _readable(
    recipe: Recipe, source: Source, places: dict[str, int], frames: int | None, dtype: str, faults: dict[str, str]
) -> Iterator[tuple[str, np.ndarray]]:
    """Clips with their values, in the order of the file; those that cannot be stored go into `faults` instead, with why."""
    for clip in sorted(places, key=places.__getitem__):
        try:
            values, length = source.read(places[clip])
            values = as_cached(values, length, recipe, frames)
        except (OSError, RuntimeError, ValueError) as error:
            faults[clip] = f"cannot be read: {first_line(error)}"
            continue
        if reason := unfit(values, dtype):
            faults[clip] = reason
        else:
            yield clip, values


def check_source(definition: DatasetDefinition, stream: str, home: Home, corpus_ids: Sequence[str]) -> tuple[int, ...]:
    """Read the source of a stream as an import would, without writing; returns the shape that its cache would have.

    Raises BenchError for what the import would stop at.
    """
    recipe = Recipe.of(definition, stream, home)
    source = recipe.open(corpus_ids)
    try:
        places, _ = _places(recipe, source, corpus_ids)
        shape, timed = _shape(recipe, source, places)
        faults: dict[str, str] = {}
        dtype = recipe.dtype or _stored_type(source, next(iter(places.values())))
        for _ in _readable(recipe, source, places, shape[0] if timed else None, dtype, faults):
            pass
        if faults:
            raise _faulty(recipe, faults)
    finally:
        source.close()
    return shape


def first_shape(definition: DatasetDefinition, stream: str, home: Home) -> tuple[int, ...] | None:
    """Shape of one clip as a stream's source has it; None where that takes reading the whole source, or where an import would
    find something else to say."""
    recipe = Recipe.of(definition, stream, home)
    if not recipe.path.is_dir() and recipe.path.suffix not in (".h5", ".hdf5"):
        return None
    try:
        source = recipe.open(())
    except BenchError:
        return None
    try:
        return source.shape(0)
    except (OSError, ValueError):
        return None
    finally:
        source.close()


def _faulty(recipe: Recipe, faults: dict[str, str]) -> BenchError:
    shown = named([f"{clip}: {reason}" for clip, reason in faults.items()])
    return BenchError(
        f"{recipe.where}: {many(len(faults), 'clip')} of {recipe.path} cannot be taken ({shown}); "
        f"mend them or leave them out with subset: {{ids: ...}}, {recipe.again}"
    )


def _stored_type(source: Source, number: int) -> str:
    """Pixels stay bytes; features are halved: float16 was at most 4.9e-4 off, relatively."""
    try:
        return "uint8" if source.read(number)[0].dtype == np.uint8 else "float16"
    except (OSError, RuntimeError, ValueError):
        return "float16"  # the clip will be named with all others that cannot be read


def as_cached(values: np.ndarray, length: int | None, recipe: Recipe, frames: int | None) -> np.ndarray:
    """One clip as it is cached: real frames only, the chosen columns, at most `frames` equally spaced frames (None: untimed).

    Raises ValueError for a `length` that the values cannot have.
    """
    if frames is not None:
        if length is not None and not 1 <= length <= len(values):
            raise ValueError(f"its source gives it {many(length, 'frame')} of {len(values)}")
        values = values[: real_frames(values) if length is None else length]
    if recipe.columns is not None:
        values = values[..., slice(*recipe.columns)]
    if frames is not None and len(values) > frames:
        values = values[choose_frames(len(values), frames)]
    return unit(values) if recipe.l2 else values


def unit(values: np.ndarray) -> np.ndarray:
    """Each vector scaled to length 1; one of zeros stays."""
    wide = values.astype(np.float32)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    return np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0)


def real_frames(values: np.ndarray) -> int:
    """Frames before the zero rows at the end, with which short clips were padded when the features were made.

    Of pixels, black frames are real; of a clip that is zero throughout, all frames count.
    """
    if values.dtype.kind != "f":
        return len(values)
    used = np.flatnonzero(values.any(axis=tuple(range(1, values.ndim))))
    return int(used[-1]) + 1 if len(used) else len(values)
