"""`shapes`, the embedded corpus: clips of coloured moving shapes, rendered from a seed, with nothing to download.

`shapes_corpus` makes the captions without painting a pixel; `write_streams` paints the clips and fills the feature
caches; `render_clip` gives one clip's frames. `truth` tells what really happens in a clip: it is there for tests, and
nothing that a method sees leads to it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.data.corpus import Clip, Corpus, RawCaption
from bench.data.shapes.chance import Dice
from bench.data.shapes.language import PlantedCaption, canonical, write_captions
from bench.data.shapes.options import GENERATOR_VERSION, Options, clip_number, corpus_digest
from bench.data.shapes.scene import FRAMES, Scene, draw_scene

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bench.home import Home

__all__ = [
    "GENERATOR_VERSION",
    "Options",
    "PlantedCaption",
    "Scene",
    "Truth",
    "corpus_digest",
    "render_clip",
    "shapes_corpus",
    "truth",
    "write_streams",
]

NAME = "shapes"


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


def shapes_corpus(
    options: Mapping[str, Any] | Options | None = None, subset: Sequence[int] | None = None, *, name: str = NAME
) -> Corpus:
    """Clips, captions and splits; `subset` = (train, val, test) keeps the first n clips of each split.

    Caption ids are `shape0000#0` .. `#19`, fewer with the option `captions`. Raises BenchError for unknown options and
    impossible values.
    """
    chosen = Options.read(options)
    splits = chosen.splits(subset)
    captions = {}
    for clip in (clip for ids in splits.values() for clip in ids):
        planted = _captions(chosen, clip, _scene(chosen, clip))
        captions[clip] = tuple(
            RawCaption(f"{clip}#{place}", clip, caption.text) for place, caption in enumerate(planted)
        )
    return Corpus(
        name=name,
        clips={clip: Clip(clip, clip) for clip in captions},
        captions=captions,
        splits=splits,
        notes=(f"generated: version {GENERATOR_VERSION}, seed {chosen.seed}",),
        lower_cased=True,
    )


def truth(clip: str, options: Mapping[str, Any] | Options | None = None) -> Truth:
    """The ground truth of one clip, made alone. Raises BenchError for what is no clip id."""
    chosen = Options.read(options)
    scene = _scene(chosen, clip)
    unrelated = tuple(number not in scene.event for number in range(FRAMES))
    return Truth(clip, scene, tuple(_captions(chosen, clip, scene)), unrelated, canonical(scene))


def render_clip(clip: str, options: Mapping[str, Any] | Options | None = None) -> NDArray[np.uint8]:
    """Frames of one clip, [20, 64, 64, 3] uint8."""
    from bench.data.shapes.render import render

    return render(_scene(Options.read(options), clip))


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
    from bench.data.shapes.store import fill_caches  # needs h5py, which reading captions does not

    chosen = Options.read(options)
    chosen.splits(subset)
    fill_caches(home, chosen, name, streams, tell)


def _scene(options: Options, clip: str) -> Scene:
    number = clip_number(clip)
    return draw_scene(Dice(options.seed, number, "scene"), f"{options.seed}/{number}")


def _captions(options: Options, clip: str, scene: Scene) -> list[PlantedCaption]:
    return write_captions(scene, Dice(options.seed, clip_number(clip), "captions"))[: options.captions]
