"""Frames of a scene: [20, 64, 64, 3] uint8, in whole-number arithmetic, so that every machine paints the same bytes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bench.shapes.chance import Dice, noise_bytes
from bench.shapes.scene import (
    COLOURS,
    FRAMES,
    OPAQUE,
    SIDE,
    SINE,
    TURN,
    Filler,
    Ground,
    Pose,
    Scene,
    Trinket,
    corner_centre,
    path,
)

Pixels = NDArray[np.uint8]
Whole = NDArray[np.int64]

UNIT = 1000  # a shape of radius 1 in the coordinates of `_inside`
FINE = 4  # sub-pixels per pixel and axis: 16 levels of opacity
RGB = dict(COLOURS)
TONES = ((118, 112, 104), (92, 100, 112), (140, 134, 118), (100, 92, 84), (84, 104, 96), (126, 118, 132), (150, 146, 140),
         (72, 76, 80))  # fmt: skip

# Trinkets, 9 by 9 pixels.
BITMAPS = {
    "key": ".###...../#...#..../#...#..../#...#..../.###...../..#....../..###..../..#....../..###....",
    "arrow": "......#../......##./#########/#########/#########/#########/......##./......#../.........",
    "bolt": "....####./...####../..####.../.#######./....###../...###.../..###..../.##....../.#.......",
    "house": "....#..../...###.../..#####../.#######./#########/.##...##./.##.#.##./.##.#.##./.##.#.##.",
    "flower": "..##.##../.#######./.###.###./..#...#../.###.###./.#######./..##.##../....#..../....#....",
    "fish": "........./..####..#/.######.#/##.######/#########/.######.#/..####..#/........./.........",
    "anchor": "....#..../...#.#.../....#..../..#####../....#..../#...#...#/##..#..##/.#######./...###...",
    "umbrella": "...###.../.#######./#########/#.##.##.#/....#..../....#..../....#..../..#.#..../..###....",
    "mushroom": "...###.../.###.###./##.#####./######.##/#########/...###.../...###.../...###.../..#####..",
    "crown": "#...#...#/#..###..#/##.###.##/#########/#########/#.#.#.#.#/#########/#########/.........",
}


def render(scene: Scene) -> Pixels:
    """Paint all frames of a scene: the event, and unrelated frames before and after it where it has a filler."""
    canvas = _paint_ground(scene.ground)
    if scene.trinket is not None:
        _paint_trinket(canvas, scene.trinket)
    frames = np.repeat(canvas[None], FRAMES, axis=0)
    for frame, poses in zip(frames[scene.event.start : scene.event.stop], path(scene), strict=True):
        for pose in poses:
            _paint(frame, pose)
    lit = np.clip(frames * scene.light >> 7, 0, 255).astype(np.uint8)
    if scene.filler is not None:
        outside = [number for number in range(FRAMES) if number not in scene.event]
        lit[outside] = _fill(scene.filler, len(outside), scene.ground.key)
    return lit


def _paint(frame: NDArray[np.int32], pose: Pose) -> None:
    """Blend a thing into a frame, in place; what lies outside the picture is cut off."""
    mask = sprite(pose.thing.shape, pose.radius, pose.angle % TURN) * pose.opacity // OPAQUE
    reach = mask.shape[0] // 2
    top, left = pose.y - reach, pose.x - reach
    rows = slice(max(top, 0), min(top + mask.shape[0], SIDE))
    columns = slice(max(left, 0), min(left + mask.shape[1], SIDE))
    part = mask[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left, None]
    colour = np.clip(np.array(RGB[pose.thing.colour], np.int32) + pose.thing.shade, 0, 255)
    frame[rows, columns] += (colour - frame[rows, columns]) * part // OPAQUE


@lru_cache(maxsize=8192)
def sprite(shape: str, radius: int, angle: int) -> NDArray[np.int32]:
    """Opacity 0 .. 16 of a shape, [2r + 3, 2r + 3], turned clockwise by `angle` 64ths of a turn."""
    width = 2 * radius + 3
    # centres of the sub-pixels, in eighths of a pixel from the middle of the sprite
    steps = 2 * np.arange(width * FINE, dtype=np.int64) + 1 - width * FINE
    across, down = steps[None, :], steps[:, None]
    cosine, sine = SINE[(angle + TURN // 4) % TURN], SINE[angle]
    scale = 1024 * 2 * FINE * radius
    u = (across * cosine + down * sine) * UNIT // scale
    v = (down * cosine - across * sine) * UNIT // scale
    inside = _inside(shape, u, v)
    return inside.reshape(width, FINE, width, FINE).sum(axis=(1, 3), dtype=np.int32)


def _inside(shape: str, u: Whole, v: Whole) -> NDArray[np.bool_]:
    """Which points (u to the right, v down, a thousandth of the radius) belong to a shape."""
    squared = u * u + v * v
    if shape == "circle":
        return squared <= UNIT**2
    if shape == "ring":
        return (squared <= UNIT**2) & (squared >= 560**2)
    if shape == "crescent":
        return (squared <= UNIT**2) & ((u - 480) ** 2 + v * v >= 800**2)
    if shape == "square":
        return np.maximum(abs(u), abs(v)) <= 820
    if shape == "diamond":
        return abs(u) * UNIT + abs(v) * 560 <= 560 * UNIT
    if shape == "cross":
        return (np.minimum(abs(u), abs(v)) <= 300) & (np.maximum(abs(u), abs(v)) <= 960)
    if shape == "heart":
        lobes = (abs(u) - 430) ** 2 + (v + 330) ** 2 <= 500**2
        return lobes | _polygon([(-860, -80), (0, 960), (860, -80), (0, -400)], u, v)
    if shape == "star":
        inner = [(247, -340), (399, 130), (0, 420), (-399, 130), (-247, -340)]
        outer = [(951, -309), (588, 809), (-588, 809), (-951, -309), (0, -1000)]
        return _polygon([point for pair in zip(inner, outer, strict=True) for point in pair], u, v)
    corners = {
        "triangle": [(0, -1000), (866, 500), (-866, 500)],
        "hexagon": [(1000, 0), (500, 866), (-500, 866), (-1000, 0), (-500, -866), (500, -866)],
    }
    return _polygon(corners[shape], u, v)


def _polygon(corners: list[tuple[int, int]], u: Whole, v: Whole) -> NDArray[np.bool_]:
    """Even-odd rule: a point is inside if a ray to its right crosses the outline an odd number of times."""
    inside = np.zeros(np.broadcast(u, v).shape, bool)
    for (u1, v1), (u2, v2) in zip(corners, corners[1:] + corners[:1], strict=True):
        if v1 == v2:
            continue
        crosses = (v1 > v) != (v2 > v)
        before = (u - u1) * (v2 - v1) < (v - v1) * (u2 - u1)
        inside ^= crosses & (before if v2 > v1 else ~before)
    return inside


def _paint_ground(ground: Ground) -> NDArray[np.int32]:
    """A texture in two tones with film grain, [64, 64, 3]."""
    dice = Dice(ground.key, "ground")
    pattern = _pattern(ground.texture, dice.between(6, 11), dice.below(12), dice.below(3))
    tone = np.array(TONES[ground.tone], np.int32)
    grain = np.frombuffer(noise_bytes(SIDE * SIDE, ground.key, "grain"), np.uint8).reshape(SIDE, SIDE, 1)
    return tone + (pattern[..., None] * ground.contrast // 64).astype(np.int32) + (grain % 16).astype(np.int32) - 8


def _pattern(texture: str, period: int, phase: int, kind: int) -> Whole:
    """Strength 0 .. 64 of the second tone at every pixel."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.int64) + phase
    if texture == "plain":
        return (x, y, (x + y) // 2)[kind]
    if texture == "striped":
        return ((x, y, (x + y) * 3 // 4)[kind] // (period - 2)) % 2 * 64
    if texture == "checked":
        return (x // period + y // period) % 2 * 64
    if texture == "dotted":
        return ((x % period - period // 2) ** 2 + (y % period - period // 2) ** 2 <= period * period // 10) * 64
    if texture == "wavy":
        return (y + np.array(SINE)[x * (kind + 2) % TURN] * 4 // 1024) // (period - 2) % 2 * 64
    joints = (y % period == 0) | ((x + (y // period % 2) * period) % (2 * period) == 0)
    return joints * 64


def _paint_trinket(canvas: NDArray[np.int32], trinket: Trinket) -> None:
    rows = BITMAPS[trinket.name].split("/")
    mask = np.array([[mark == "#" for mark in row] for row in rows])
    x, y = corner_centre(trinket.corner)
    canvas[y - 4 : y + 5, x - 4 : x + 5][mask] = RGB[trinket.colour]


def _fill(filler: Filler, count: int, key: str) -> Pixels:
    """`count` unrelated frames."""
    if filler.kind == "still":
        assert filler.still is not None
        return np.repeat(render(filler.still)[FRAMES // 2][None], count, axis=0)
    if filler.kind == "bars":
        bars = [RGB[Dice(key, "bars", number).pick(list(RGB))] for number in range(8)]
        frame = np.repeat(np.array(bars, np.uint8), SIDE // 8, axis=0)[None].repeat(SIDE, axis=0)
        return np.repeat(frame[None], count, axis=0)
    cells = SIDE // 2
    snow = np.frombuffer(noise_bytes(count * cells * cells, key, "snow"), np.uint8).reshape(count, cells, cells)
    return np.repeat(snow.repeat(2, axis=1).repeat(2, axis=2)[..., None], 3, axis=3)
