"""The embedded corpus `shapes` as a source of clips and captions: generated, nothing is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.data.source import Corpus, RawCaption
from bench.declare.dataset import Clip
from bench.shapes import NAME, planted_captions
from bench.shapes.options import GENERATOR_VERSION, Options


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
        planted = planted_captions(chosen, clip)
        captions[clip] = tuple(
            RawCaption(f"{clip}#{place}", clip, caption.text) for place, caption in enumerate(planted)
        )
    return Corpus(
        name=name,
        clips={clip: Clip(clip, clip) for clip in captions},
        captions=captions,
        splits=splits,
        notes=(f"generated: version {GENERATOR_VERSION}, seed {chosen.seed}",),
    )
