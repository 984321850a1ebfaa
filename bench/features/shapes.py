"""Painted clips into feature caches: one pass over the clips fills every cache that is wanted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bench import BenchError
from bench.features.cache import Cache, CacheWriter
from bench.features.processes import ProcessEndedError, Processes, cores
from bench.features.sidecar import cache_path, fingerprint, read_sidecar
from bench.home import Home
from bench.shapes import NAME
from bench.shapes.chance import Dice
from bench.shapes.options import GENERATOR_VERSION, Options, clip_number
from bench.shapes.render import render
from bench.shapes.scene import draw_scene
from bench.shapes.streams import STREAM_SHAPES, STREAMS, TIMED, Array, constants, dtype_of, extract

CLIPS_EACH = 48  # a further process computes the constants for itself, as much work as painting so many clips

# By generator's version, seed and sizes, what the streams of published records are called: the fingerprints of all their
# clips, computed from the features. Streams of any other corpus are called by their declaration, from which all follows.
# Regenerate: empty the table, bench features import dataset=shapes, and take `content` from the sidecars in the cache.
NAMED: dict[tuple[str, int, tuple[int, int, int]], dict[str, str]] = {
    ("1", 0, (1000, 100, 300)): {  # shapes
        "frames": "74fd5e595eeb7edc374b5b4baac3744c19d273644389780f962d96b07a30f66d",
        "spatial": "b5d78121d3942a742de115f7f6ea8c5d4dfb220150911dd30a8808965ade9f09",
        "motion": "832abfca090b5475618d76988e05067cb1cbd3c652e6e1c8f59a7e2772d15ea1",
        "regions": "6dff365150ac1ec46de9232119afb8b03f8213db0b7ec4d7feaea22029c0a664",
        "audio": "0f69ae0e4707098a5d5cd3dcd0c85d91381a501fa7b1445f1cde783b8c856911",
        "actions": "53299b76193e0e2dc653f4ec0e938715860fdb84545ba16fa579eb654d51a372",
        "objects": "21837dbe83897e57eb6cce4d6f5dffcd260b30ff12e10232c42c1a206fe3dfa1",
        "pixels": "c62d1c2b84c32fc957840985d46b42e076ca67490402bd77d3aad51274f6090e",
    },
    ("1", 7, (300, 50, 150)): {  # ideas
        "frames": "ecc9fc2f2c012692d8aabd36cd079552af53282a255750e30b47fe178a25ba07",
        "spatial": "530972f68d2b796893358a2933030efc2c346376842f2fe56982bd755b50f82c",
        "motion": "b27f9629eb56c80e8d5a718903cf7d793974e30b1a21c40a36a38d103fe3fb75",
        "regions": "d09628bb9f2ea80ecb3ff57fd073c3c96969ad64026d8c25f7b316c426965aff",
        "audio": "6597eb6159c3517c969c35b98ef25cfb006a93afbe61d1a468b84d621a1febc5",
        "actions": "f9b9176b5618a3abb2789c36860dc67d87a596201ac53fba82d5b233b3e09335",
        "objects": "a057231870ad2975489a10921fdffc4059f617764fe49767a461614bfb3f1a60",
        "pixels": "5aae370df152e147f992940242f8bd0960d385d3c585f84e2b8b7cbbb695679a",
    },
}


def write_streams(
    home: Home,
    options: Mapping[str, Any] | Options | None = None,
    subset: Sequence[int] | None = None,
    *,
    name: str = NAME,
    streams: Collection[str] | None = None,
    processes: int | None = None,
    tell: Callable[[int, int], None] = lambda left, failed: None,
) -> None:
    """See to it that the caches `<home.cache>/<name>/<stream>.h5` of `streams` (default: all) have the clips of `subset`.

    Without a subset these are all clips. Only clips that a cache lacks are painted, in `processes` (default: one for each
    processor, if there is enough to do); a cache that was made with other options is made anew. Files do not depend on the
    number of processes, nor on whether a cache was filled at once or grew. A writer that was killed is taken up where it
    stopped. `tell` is called after each clip that was painted, with how many are left and how many failed (none do). Raises
    BenchError for unknown streams, impossible options and unwritable folders.
    """
    chosen = Options.read(options)
    asked = {clip for ids in chosen.splits(subset).values() for clip in ids}
    unknown = sorted(set(streams or ()) - set(STREAMS))
    if unknown:
        raise BenchError(f"shapes has no stream {', '.join(unknown)}; its streams are {', '.join(STREAMS)}.")
    paths = [cache_path(home, name, stream) for stream in STREAMS if streams is None or stream in streams]
    with ExitStack() as stack:
        filled = [
            stack.enter_context(_Filled(path, chosen, asked)) for path in paths if not asked <= _held(path, chosen)
        ]
        wanted = sorted({clip for one in filled for clip in one.todo})
        to_paint = [clip for clip in wanted if any(one.lacks(clip) for one in filled)]
        painted = stack.enter_context(closing(_painted(to_paint, chosen, processes)))
        left = len(to_paint)
        for clip in wanted:
            new = next(painted) if any(one.lacks(clip) for one in filled) else {}
            for one in filled:
                one.put(clip, new)
            if new:
                left -= 1
                tell(left, 0)


def features_of(clip: str, options: Options) -> dict[str, Array]:
    """Every stream of one clip, made alone."""
    number = clip_number(clip)
    scene = draw_scene(Dice(options.seed, number, "scene"), f"{options.seed}/{number}")
    return extract(render(scene), constants())


def _painted(clips: Sequence[str], options: Options, processes: int | None) -> Generator[dict[str, Array]]:
    """Every stream of each clip, in order."""
    count = min(cores(), len(clips) // CLIPS_EACH) if processes is None else processes
    if count < 2:
        yield from (features_of(clip, options) for clip in clips)
        return
    one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    with Processes(partial(features_of, options=options), count, one_thread) as painters:
        under_way: deque[Future[dict[str, Array]]] = deque()
        for clip in clips:
            under_way.append(painters.submit(clip))
            if len(under_way) > 2 * count:  # enough that no process waits for this one to write
                yield _answer(under_way.popleft())
        while under_way:
            yield _answer(under_way.popleft())


def _answer(painted: Future[dict[str, Array]]) -> dict[str, Array]:
    try:
        return painted.result()
    except ProcessEndedError as ended:
        raise BenchError(
            f"a process that paints clips of shapes ended with status {ended.status}, as one does that the system has no memory "
            "for: the same command goes on with the clips that are left"
        ) from None


def encoder(options: Options) -> dict[str, Any]:
    """What makes the features: part of the caches' fingerprints."""
    return {
        "name": "shapes",
        "version": GENERATOR_VERSION,
        "weights": "fixed whole numbers from SHAKE-128",
        "seed": options.seed,
        "size": list(options.size),
    }


class _Filled:
    """A cache on its way: what the one before it held is taken over, and the other clips are painted."""

    def __init__(self, path: Path, options: Options, asked: Collection[str]) -> None:
        self._path, self._options, self._asked = path, options, asked

    def __enter__(self) -> Self:
        while True:
            self._held = _held(self._path, self._options)
            self.writer = _writer(self._path, self._options, sorted(self._held.union(self._asked)))
            self.writer.__enter__()
            if _held(self._path, self._options) <= set(self.writer.ids):
                self._before = Cache(self._path)
                self.todo = set(self.writer.missing)
                return self
            self.writer.discard()  # another process has put more into the cache before the writer had its lock

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.writer.__exit__(kind, value, trace)
        finally:
            self._before.close()

    def lacks(self, clip: str) -> bool:
        """Whether the clip is to be painted for this cache."""
        return clip in self.todo and clip not in self._held

    def put(self, clip: str, painted: Mapping[str, Array]) -> None:
        """Write the clip, unless it is none of this cache's or was written before."""
        if clip not in self.todo:
            return
        self.todo.remove(clip)
        try:
            values = self._before.read(clip)[0] if clip in self._held else painted[self.writer.stream]
        except BenchError:  # damaged since it was written
            values = features_of(clip, self._options)[self.writer.stream]
        self.writer.write(clip, values)


def _writer(path: Path, options: Options, ids: Sequence[str]) -> CacheWriter:
    stream, made_by = path.stem, encoder(options)
    shape, timed, dtype = STREAM_SHAPES[stream], path.stem in TIMED, dtype_of(stream)
    known = NAMED.get((GENERATOR_VERSION, options.seed, options.size), {}).get(stream)
    named = known or fingerprint(stream, shape, timed, dtype, {"encoder": made_by}, ())
    return CacheWriter(path, stream, shape, timed, dtype, ids, {"encoder": made_by}, named=named)


def _held(path: Path, options: Options) -> frozenset[str]:
    """Clips of the cache at `path`; none where it was made with other options, is damaged or is not there."""
    try:
        if read_sidecar(path)["encoder"] != encoder(options):
            return frozenset()
        with Cache(path) as cache:
            return frozenset(cache.ids)
    except BenchError:
        return frozenset()
