"""`shapes`, the embedded corpus: clips of coloured moving shapes, rendered from a seed, with nothing to download.

`planted_captions` makes the captions of a clip without painting a pixel, `render_clip` its frames. `truth` tells what
really happens in a clip: it is there for tests, and nothing that a method sees leads to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.shapes.chance import Dice
from bench.shapes.language import PlantedCaption, canonical, write_captions
from bench.shapes.options import GENERATOR_VERSION, Options, clip_number, corpus_digest
from bench.shapes.scene import FRAMES, Scene, draw_scene

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


NAME = "shapes"


__all__ = [
    "GENERATOR_VERSION",
    "Options",
    "PlantedCaption",
    "Scene",
    "Truth",
    "corpus_digest",
    "planted_captions",
    "render_clip",
    "truth",
]


@dataclass(frozen=True)
class Truth:
    """What really happens in a clip. For tests only.

    `captions` are those of the corpus, in order, with their planted kind; `unrelated` marks the frames that do not
    belong to the clip's event; `canonical` is the plain caption that the scene asks for.
    """

    clip: str
    scene: Scene
    captions: tuple[PlantedCaption, ...]
    unrelated: tuple[bool, ...]
    canonical: str


def truth(clip: str, options: Mapping[str, Any] | Options | None = None) -> Truth:
    """The ground truth of one clip, made alone. Raises BenchError for what is no clip id."""
    chosen = Options.read(options)
    scene = _scene(chosen, clip)
    unrelated = tuple(number not in scene.event for number in range(FRAMES))
    return Truth(clip, scene, tuple(planted_captions(chosen, clip)), unrelated, canonical(scene))


def render_clip(clip: str, options: Mapping[str, Any] | Options | None = None) -> NDArray[np.uint8]:
    """Frames of one clip, [20, 64, 64, 3] uint8."""
    from bench.shapes.render import render

    return render(_scene(Options.read(options), clip))


def _scene(options: Options, clip: str) -> Scene:
    number = clip_number(clip)
    return draw_scene(Dice(options.seed, number, "scene"), f"{options.seed}/{number}")


def planted_captions(options: Options, clip: str) -> list[PlantedCaption]:
    """The captions of a clip, in order, each with the kind of its annotator. Raises BenchError for what is no clip id."""
    written = write_captions(_scene(options, clip), Dice(options.seed, clip_number(clip), "captions"))
    return written[: options.captions]
