"""Painted clips into feature caches: one pass over the clips fills every cache that is wanted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.features.cache import CacheWriter
from bench.features.sidecar import cache_path, read_sidecar, sidecar_path
from bench.home import Home
from bench.shapes import NAME
from bench.shapes.chance import Dice
from bench.shapes.options import GENERATOR_VERSION, Options, clip_number
from bench.shapes.render import render
from bench.shapes.scene import draw_scene
from bench.shapes.streams import STREAM_SHAPES, STREAMS, TIMED, Array, constants, dtype_of, extract


def write_streams(
    home: Home,
    options: Mapping[str, Any] | Options | None = None,
    subset: Sequence[int] | None = None,
    *,
    name: str = NAME,
    streams: Collection[str] | None = None,
    tell: Callable[[int, int], None] = lambda left, failed: None,
) -> None:
    """Fill the caches `<home.cache>/<name>/<stream>.h5` of `streams` (default: all), unless they are up to date.

    Always all clips, so that one fingerprint serves every subset; `subset` is only checked. `tell` hears after each clip how
    many are left and how many failed (none do). Raises BenchError.
    """
    # needs h5py, which reading captions does not

    chosen = Options.read(options)
    chosen.splits(subset)
    fill_caches(home, chosen, name, streams, tell)


def fill_caches(
    home: Home,
    options: Options,
    name: str,
    streams: Collection[str] | None = None,
    tell: Callable[[int, int], None] = lambda left, failed: None,
) -> None:
    """Write the caches of `streams` (default: all) that are absent or were made with other options.

    A writer that was killed is taken up where it stopped. `tell` hears after each clip that was made how many are
    left and how many failed (none do). Raises BenchError for unknown streams and unwritable folders.
    """
    unknown = sorted(set(streams or ()) - set(STREAMS))
    if unknown:
        raise BenchError(f"shapes has no stream {', '.join(unknown)}; its streams are {', '.join(STREAMS)}.")
    made_by = encoder(options)
    paths = {stream: cache_path(home, name, stream) for stream in STREAMS if streams is None or stream in streams}
    wanted = {stream: path for stream, path in paths.items() if not _up_to_date(path, made_by)}
    if not wanted:
        return
    ids = [clip for split in options.splits().values() for clip in split]
    with ExitStack() as stack:
        writers = {
            stream: stack.enter_context(
                CacheWriter(
                    path, stream, STREAM_SHAPES[stream], stream in TIMED, dtype_of(stream), ids, {"encoder": made_by}
                )
            )
            for stream, path in wanted.items()
        }
        for number, clip in enumerate(ids, 1):
            lacking = [stream for stream, writer in writers.items() if not writer.done(clip)]
            if lacking:
                features = features_of(clip, options)
                for stream in lacking:
                    writers[stream].write(clip, features[stream])
                tell(len(ids) - number, 0)


def features_of(clip: str, options: Options) -> dict[str, Array]:
    """Every stream of one clip, made alone."""
    number = clip_number(clip)
    scene = draw_scene(Dice(options.seed, number, "scene"), f"{options.seed}/{number}")
    return extract(render(scene), constants())


def encoder(options: Options) -> dict[str, Any]:
    """What makes the features: part of the caches' fingerprints."""
    return {
        "name": "shapes",
        "version": GENERATOR_VERSION,
        "weights": "fixed whole numbers from SHAKE-128",
        "seed": options.seed,
        "size": list(options.size),
    }


def _up_to_date(path: Path, made_by: dict[str, Any]) -> bool:
    if not path.is_file() or not sidecar_path(path).is_file():
        return False
    try:
        return bool(read_sidecar(path)["encoder"] == made_by)
    except BenchError:
        return False  # a damaged sidecar: the cache is made again
