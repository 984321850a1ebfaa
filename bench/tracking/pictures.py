"""Pictures of clips with what a cell attended to, drawn once, beside the traces that its decoding left in its work folder."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.cell.pixels import Pixels
from bench.cell.traces import TRACES
from bench.declare.registry import dataset
from bench.figures.attended import attended, attention
from bench.figures.canvas import style
from bench.home import Home
from bench.records.figure_data import spread
from bench.records.schema import Record

FRAMES = 8  # of a clip
DPI = 100


def pictures(record: Record, folder: Path, home: Home) -> dict[str, list[Path]]:
    """`clips`: a PNG file for each clip of which more is known than its caption; empty where no traces were left."""
    traces = folder / "work" / TRACES
    try:
        shown = json.loads(traces.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if record.weights_sha256 is None or not isinstance(shown, list):
        return {}
    pixels = _pixels(record.config.get("dataset_path") or record.dataset, home)
    paths = [_drawn(one, traces.with_suffix(f".{number}.png"), pixels) for number, one in enumerate(shown)]
    found = [path for path in paths if path is not None]
    return {"clips": found} if found else {}


@functools.lru_cache(1)
def _pixels(place: str, home: Home) -> Pixels | None:
    """Frames of a data set, those of films too: what they are drawn into is not published."""
    try:
        return Pixels(dataset(place), home, real=True)
    except BenchError:
        return None


def _drawn(shown: Mapping[str, Any], path: Path, pixels: Pixels | None) -> Path | None:
    """The picture of a clip at `path`, drawn unless it is there and newer than what it shows; None for none."""
    if path.is_file() and path.stat().st_mtime_ns >= path.with_name(TRACES).stat().st_mtime_ns:
        return path
    rows = attention(shown)
    try:
        length = pixels.length(shown["clip"]) if pixels is not None else 0
    except BenchError:
        length = 0
    if not length and rows is None:
        return None
    count = rows[1].shape[1] if rows is not None else length
    places = spread(count, FRAMES)
    frames = pixels.of(shown["clip"], places, count) if pixels is not None and length else None
    with style():
        attended(shown, rows, places, frames).savefig(path, format="png", dpi=DPI)
    return path
