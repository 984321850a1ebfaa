"""Captions of annotated events, scored by densevid's rules beside the scores of their clips."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench import BenchError
from bench.data.corpus import read_source
from bench.data.source import Source
from bench.data.splits import source_part
from bench.declare.dataset import Clip
from bench.declare.registry import dataset
from bench.evaluation.densevid import Event, EventScores
from bench.evaluation.metrics import PREFIX
from bench.home import Home


def score_events(
    config: Mapping[str, Any], captions: Mapping[str, str], home: Home, scorer: Any
) -> tuple[dict[str, float], dict[str, str]]:
    """(scores, signatures) by `densevid_` and the metric, in pycocoevalcap's units; both empty where the rules do not apply.

    They apply under protocol=paper to a data set whose definition names `densevid` parts, where all clips of `captions`
    are events of the first part. References are all events that the parts annotate in the videos of these clips.
    Raises BenchError for a first part that the caption files do not declare, and for clips without times.
    """
    definition = dataset(config["dataset_path"] or config["dataset"])
    if config["protocol"] != "paper" or not definition.densevid:
        return {}, {}
    choice, files = definition.caption_source(home)
    source = read_source(choice, files, definition.name)
    if not captions.keys() <= set(source_part(definition, source, definition.densevid[0])):
        return {}, {}
    parts = [part for part in definition.densevid if part in source.parts]  # val_2 is a file that may be absent
    said = [_event(source.clips[clip], text) for clip, text in captions.items()]
    videos = {event.video for event in said}
    found: EventScores = scorer.score_events(said, list(_annotated(source, parts, videos)))
    scores = {PREFIX + metric: value for metric, value in found.corpus.items()}
    return scores, found.signatures(config["split"], parts)


def _annotated(source: Source, parts: Sequence[str], videos: set[str]) -> Iterator[Event]:
    """The events of `parts` that lie in `videos`, in file order. Dropped ones have no length and overlap with nothing."""
    for part in parts:
        for clip in source.parts[part]:
            if clip in source.clips and source.clips[clip].video in videos:
                yield from (_event(source.clips[clip], caption.text) for caption in source.captions[clip])


def _event(clip: Clip, text: str) -> Event:
    if clip.start is None or clip.end is None:
        raise BenchError(f"densevid's rules compare times, and clip {clip.id} has none: leave `densevid` out")
    return Event(clip.video, clip.start, clip.end, text)
