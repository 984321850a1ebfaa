"""Feature streams of a clip, from its pixels alone: colour grids, fixed random convolutions, differences, a tone.

Nothing here knows a scene. The weights of all filters are fixed small whole numbers and every sum of products stays
below 2^24, where float32 is exact in any order of summation: the features before standardisation are the same whole
numbers on every machine, whatever its BLAS. Standardisation and scores are float64, stored as float16.

Letters: T = 20 frames, C channels, Y and X rows and columns of a map.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bench.shapes.chance import Dice, noise_bytes
from bench.shapes.render import render
from bench.shapes.scene import draw_scene

CALIBRATION_CLIPS = 48


@lru_cache(maxsize=1)
def constants() -> dict[str, tuple[Array, Array]]:
    """Means and scales from clips that are in no corpus: their keys are names, those of corpora are numbers."""
    keys = [f"calibration {number}" for number in range(CALIBRATION_CLIPS)]
    return constants_of([render(draw_scene(Dice(key, "scene"), key)) for key in keys])


Floats = NDArray[np.float32]
Array = NDArray[Any]

PARTS = 8  # regions per frame
BANDS = 32  # bands of the tone
STREAM_SHAPES: dict[str, tuple[int, ...]] = {
    "frames": (20, 256),
    "spatial": (16, 64),
    "motion": (19, 128),
    "regions": (20, PARTS, 108),
    "audio": (128,),
    "actions": (400,),
    "objects": (1000,),
    "pixels": (20, 3, 64, 64),
}
TIMED = ("frames", "motion", "regions", "pixels")
STREAMS = tuple(STREAM_SHAPES)
LIMIT = 12.0  # standard deviations: rare answers of sparse filters are cut there
MOST = 255  # activations are cut to one byte, so that the next layer's sums stay exact


def dtype_of(stream: str) -> str:
    return "uint8" if stream == "pixels" else "float16"


def extract(pixels: NDArray[np.uint8], constants: Mapping[str, tuple[Array, Array]]) -> dict[str, Array]:
    """Every stream of one clip, shaped as `STREAM_SHAPES` says; `pixels` is [20, 64, 64, 3].

    `constants` holds mean and scale of the channels of each measured stream (see `constants_of`).
    """
    measured = {}
    for name, values in measure(pixels).items():
        mean, scale = constants[name]
        measured[name] = np.clip((values - mean) / scale, -LIMIT, LIMIT)
    about_motion = np.concatenate([measured["motion"].mean(axis=0), measured["motion"].std(axis=0)])
    about_things = measured["frames"][len(pixels) // 2]
    streams: dict[str, Array] = {name: values.astype(np.float16) for name, values in measured.items()}
    streams["actions"] = _scores(about_motion, "actions").astype(np.float16)
    streams["objects"] = _scores(about_things, "objects").astype(np.float16)
    streams["pixels"] = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return streams


def constants_of(clips: list[NDArray[np.uint8]]) -> dict[str, tuple[Array, Array]]:
    """Mean and scale of every channel over the frames, cells and parts of `clips`, as float64."""
    measured = [measure(pixels) for pixels in clips]
    constants: dict[str, tuple[Array, Array]] = {}
    for name in measured[0]:
        # the tone's bands share one constant: loud and silent bands are what it has to say
        channels = 1 if name == "audio" else measured[0][name].shape[-1]
        rows = np.concatenate([values[name].reshape(-1, channels) for values in measured])
        scale = rows.std(axis=0)
        constants[name] = rows.mean(axis=0), np.where(scale > 0, scale, 1.0)
    return constants


def measure(pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
    """The streams frames, spatial, motion, regions and audio of one clip before standardisation: whole numbers."""
    colours_CTYX = np.ascontiguousarray(pixels.transpose(3, 0, 1, 2)).astype(np.float32)
    cells_CTYX = _pool(colours_CTYX, 4)  # 16 x 16 cells of 4 x 4 pixels, as many as the maps have
    salient_TYX = _salience(colours_CTYX, cells_CTYX)
    coarse_TYX = _pool(salient_TYX, 2).astype(np.int64)  # 0 .. 1020
    edges_CTYX = _layer(colours_CTYX - 128, fixed_filters("edges", 24, 3, 5), 6)
    maps_CTYX = _layer(edges_CTYX, fixed_filters("maps", 64, 24, 3), 6)
    outlines_CTYX = _layer(salient_TYX[None], fixed_filters("outlines", 64, 1, 7), 7)  # 32 x 32
    parts = (
        _pool(colours_CTYX, 16),
        _pool(salient_TYX[None], 16),
        maps_CTYX.max(axis=(2, 3)),
        outlines_CTYX.max(axis=(2, 3)),
        outlines_CTYX.sum(axis=(2, 3)),
    )
    frames = np.concatenate([part.swapaxes(0, 1).reshape(len(pixels), -1) for part in parts], axis=1)
    return {
        "frames": frames.astype(np.int64),
        "spatial": _pool(maps_CTYX, 4).sum(axis=1).reshape(64, 16).T.astype(np.int64),
        "motion": _motion(coarse_TYX),
        "regions": _regions(cells_CTYX, salient_TYX, _pool(outlines_CTYX, 2)),
        "audio": _tone(coarse_TYX),
    }


def _salience(colours_CTYX: Floats, cells_CTYX: Floats) -> Floats:
    """[T, 64, 64], 0 .. 255: how far a pixel's colour is from the median colour of its frame, less the texture's."""
    usual = np.floor(np.median(cells_CTYX, axis=(2, 3), keepdims=True) / 16)
    return np.clip(np.abs(colours_CTYX - usual).sum(axis=0) - 90, 0, MOST)


def _motion(coarse_TYX: NDArray[np.int64]) -> NDArray[np.int64]:
    """[T - 1, 128]: size of the change on an 8 x 8 grid (64), answers of 64 filters that see two frames at once."""
    change = np.diff(coarse_TYX, axis=0)
    pairs_CTYX = np.stack([coarse_TYX[:-1] // 4, coarse_TYX[1:] // 4]).astype(np.float32)
    answers_CTYX = _layer(pairs_CTYX, fixed_filters("pairs", 64, 2, 5), 5)
    size = _pool(np.abs(change)[None].astype(np.float32), 4)[0].reshape(len(change), 64)
    return np.concatenate([size, answers_CTYX.sum(axis=(2, 3)).T], axis=1).astype(np.int64)


def _regions(cells_CTYX: Floats, salient_TYX: Floats, outlines_CTYX: Floats) -> NDArray[np.int64]:
    """[T, 8, 108]: the most salient patches of 12 x 12 pixels, in falling order.

    A patch: answers of the 64 outline maps (64), its salience at 6 x 6 points (36), its mean colour (3), that of its
    middle (3), column, row.
    """
    frames, every = len(salient_TYX), np.arange(len(salient_TYX))
    points_TYX = np.pad(_pool(salient_TYX, 2), ((0, 0), (2, 2), (2, 2)))
    windows = sliding_window_view(points_TYX, (6, 6), axis=(1, 2))[:, ::2, ::2].reshape(frames, 256, 36)
    colours, outlines = (_around(maps).reshape(len(maps), frames, 256) for maps in (cells_CTYX, outlines_CTYX))
    centres = cells_CTYX.reshape(3, frames, 256)
    left_TN = _pool(salient_TYX, 4).reshape(frames, 256)
    near_NN = _neighbours()
    parts = []
    for _ in range(PARTS):
        best_T = left_TN.argmax(axis=1)
        of_maps = (maps[:, every, best_T].T for maps in (outlines, colours, centres))
        answers, mean, middle = of_maps
        place = np.stack([best_T % 16, best_T // 16], axis=1)
        parts.append(np.concatenate([answers, windows[every, best_T], mean, middle, place], axis=1))
        left_TN = np.where(near_NN[best_T], -1, left_TN)
    return np.stack(parts, axis=1).astype(np.int64)


def region_boxes(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where the regions of a clip lie, [T, 8, 4]: left, top, right, bottom in pixels, some over the edge of the frame."""
    cells_TkP = measure(pixels)["regions"][..., -2:] * 4  # a patch reaches one cell of 4 x 4 pixels around its own
    return np.concatenate([cells_TkP - 4, cells_TkP + 8], axis=-1)


def _tone(coarse_TYX: NDArray[np.int64]) -> NDArray[np.int64]:
    """[128]: spectrum of a tone in four quarters of the clip, 32 bands each.

    The tone follows the pixels that change: its pitch is their mean column and row, its strength their number, and
    its first overtone sounds at half the strength.
    """
    change = np.abs(np.diff(coarse_TYX, axis=0))
    row, column = np.mgrid[0:32, 0:32]
    total = change.sum(axis=(1, 2))
    # pitch in sixteenths of a band: columns count twice as much as rows, so that left and right sound different
    pitch = (change * (2 * column + row)).sum(axis=(1, 2)) * 16 * 20 // (93 * np.maximum(total, 1))
    strength = np.minimum(total // 256, 1000)
    bands = 16 * np.arange(BANDS)
    spectrum = np.zeros((4, BANDS), np.int64)
    for step, (at, loud) in enumerate(zip(pitch, strength, strict=True)):
        for centre, share in ((at, 2), (at + 16 * 10, 1)):
            spectrum[4 * step // len(pitch)] += np.maximum(24 - np.abs(bands - centre), 0) * loud * share
    return np.sqrt(spectrum.reshape(-1)).astype(np.int64)  # loudness, not power


def _scores(features: Array, classifier: str) -> Array:
    """Softmax of a fixed random classifier: `actions` or `objects`, float64."""
    classes = STREAM_SHAPES[classifier][0]
    weights = _small_numbers((classes, len(features)), classifier)
    logits = (weights * features).sum(axis=1) * 0.08  # peaked, as classifiers are: the best class at some tenths
    odds = np.exp(logits - logits.max())
    return odds / odds.sum()


def _layer(images_CTYX: Floats, filters: Floats, shift: int) -> Floats:
    """Convolution with stride 2, bounded linear units: 0 .. 255 after division by 2^shift. [C', T, Y / 2, X / 2]."""
    outputs, channels, size, _ = filters.shape
    _, frames, height, width = images_CTYX.shape
    margin = size // 2
    padded = np.pad(images_CTYX, ((0, 0), (0, 0), (margin, margin), (margin, margin)), mode="edge")
    columns = np.empty((channels, size, size, frames, height // 2, width // 2), np.float32)
    for y in range(size):
        for x in range(size):
            columns[:, y, x] = padded[:, :, y : y + height : 2, x : x + width : 2]
    answers = filters.reshape(outputs, -1) @ columns.reshape(channels * size * size, -1)
    answers = np.clip(np.floor(answers * 0.5**shift), 0, MOST)
    return answers.reshape(outputs, frames, height // 2, width // 2)


def _pool(maps: Floats, size: int) -> Floats:
    """Sums over squares of `size` x `size` of the last two axes."""
    # added row by row and column by column: numpy sums short inner axes ten times slower
    rows = sum((maps[..., start::size, :] for start in range(1, size)), maps[..., ::size, :])
    return sum((rows[..., start::size] for start in range(1, size)), rows[..., ::size])


def _around(maps_CTYX: Floats) -> Floats:
    """Sums over the 3 x 3 cells around each cell."""
    padded = np.pad(maps_CTYX, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    rows = padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]
    return rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]


@lru_cache(maxsize=1)
def _neighbours() -> NDArray[np.bool_]:
    """Which of the 256 cells are at most one row and column apart, [256, 256]."""
    y, x = np.divmod(np.arange(256), 16)
    return (abs(y[:, None] - y) <= 1) & (abs(x[:, None] - x) <= 1)


@lru_cache(maxsize=8)
def fixed_filters(name: str, outputs: int, inputs: int, size: int) -> Floats:
    """Fixed random filters [outputs, inputs, size, size], whole numbers -3 .. 3."""
    return _small_numbers((outputs, inputs, size, size), name).astype(np.float32)


@lru_cache(maxsize=8)
def _small_numbers(shape: tuple[int, ...], name: str) -> NDArray[np.int64]:
    """Whole numbers -3 .. 3, the middle ones most frequent: two even draws of 0 .. 3, less 3."""
    draws = np.frombuffer(noise_bytes(int(np.prod(shape)), "shapes", name), np.uint8).astype(np.int64)
    return ((draws & 3) + (draws >> 2 & 3) - 3).reshape(shape)
