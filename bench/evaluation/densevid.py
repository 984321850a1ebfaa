"""Scores of captioned events by the rules of densevid_eval, the public code of the ActivityNet Captions challenge (2018).

For each threshold of temporal overlap:

- A caption makes a pair with every reference event of its video whose segment overlaps its own by at least the
  threshold; where there is none, with a word that nothing shares: it earns nothing and its length counts.
- The pairs of a video are a corpus of their own, with one reference each: BLEU and METEOR of that corpus, the mean of
  ROUGE-L, CIDEr-D with document frequencies that count these pairs (so a single pair has CIDEr 0).
- The score is the mean over the videos of the references; a video without captions has 0.

What is reported is the mean over the thresholds. Captions of overlapping events meet each other's references, so the
numbers differ from those of `scorer`, where an event is a clip with its own references only.

Two points of the code's history change nothing where captions are made for annotated segments, as here: how a caption
without a match is punished (a fixed text, later a random word), and that until May 2018 it was punished once for each
reference file without a match.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from bench import BenchError
from bench.errors import named
from bench.evaluation.meteor import Meteor
from bench.evaluation.metrics import DENSEVID, METRICS, PARTS, PREFIX, PTB
from bench.evaluation.ngrams import Floats
from bench.evaluation.ptb import tokenize
from bench.evaluation.statistics import References, corpus_scores, counting

THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
UNMATCHED = "qxjzvkwqxjzvkwq"  # fifteen letters that the tokenizer keeps as one word and no table of METEOR knows
_NO_UNION = 1e-8  # added to every union: two instants overlap by 0, and 9 of 10 seconds are less than the threshold 0.9


class Event(NamedTuple):
    """A caption, made or annotated, of the time from `start` to `end` (seconds) of `video`."""

    video: str
    start: float
    end: float
    text: str


@dataclass(frozen=True)
class EventScores:
    """Scores in pycocoevalcap's units (0 to 1, CIDEr 0 to 10), named as in `METRICS`.

    `corpus` holds the means over the thresholds, `at_threshold` what they are means of; `references` is a digest.
    """

    corpus: dict[str, float]
    at_threshold: dict[float, dict[str, float]]
    references: str
    videos: int
    captions: int

    def signatures(self, split: str, parts: Sequence[str]) -> dict[str, str]:
        """What each number is, by metric with its prefix; `parts` names the files that the references are from."""
        thresholds = ",".join(f"{threshold:g}" for threshold in THRESHOLDS)
        tail = (
            f"tok:{PTB}|rules:{DENSEVID}|tiou:{thresholds}|split:{split}|events:{'+'.join(parts)}"
            f"|refs:{self.references[:12]}|videos:{self.videos}|n:{self.captions}|scale:100"
        )
        return {PREFIX + metric: f"densevid {row.long}|impl:{row.version}|{tail}" for metric, row in METRICS.items()}


def score(
    captions: Sequence[Event], references: Sequence[Event], meteor: Meteor, java: str | None = None
) -> EventScores:
    """Score `captions` against annotated events, both sides as published (raw text); a video may have any number of each.

    Raises BenchError where either is empty or naming videos with captions and no reference event, and ScoringUnavailable
    without Java.
    """
    if not captions or not references:
        raise BenchError(f"there are no {'reference events to score against' if captions else 'captions to score'}")
    videos = {event.video for event in references}
    if strangers := sorted({event.video for event in captions} - videos):
        raise BenchError(f"{len(strangers)} videos have captions and no reference events: {named(strangers)}")
    pairs, groups = pair(captions, references)
    lines = tokenize([_ascii(event.text) for event in (*captions, *references)] + [UNMATCHED], java)
    counted = _Pairs(
        [lines[caption] for caption, _ in pairs], [lines[len(captions) + reference] for _, reference in pairs], meteor
    )
    at_threshold = {}
    for threshold, by_video in groups.items():
        total = sum((counted.score(tuple(group)) for group in by_video.values()), np.zeros(len(METRICS)))
        at_threshold[threshold] = dict(zip(METRICS, (total / len(videos)).tolist(), strict=True))
    return EventScores(
        corpus={name: float(np.mean([scores[name] for scores in at_threshold.values()])) for name in METRICS},
        at_threshold=at_threshold,
        references=digest(references),
        videos=len(videos),
        captions=len(captions),
    )


def overlap(one: Event, other: Event) -> float:
    """Temporal intersection over union of two segments of one video."""
    common = max(0.0, min(one.end, other.end) - max(one.start, other.start))
    hull = max(one.end, other.end) - min(one.start, other.start)
    return common / (min(hull, one.end - one.start + other.end - other.start) + _NO_UNION)


def pair(
    captions: Sequence[Event], references: Sequence[Event]
) -> tuple[list[tuple[int, int]], dict[float, dict[str, list[int]]]]:
    """(pairs, groups): `pairs` of a caption's and a reference's number, each once; a reference one past the last stands
    for none. `groups[threshold][video]` are the numbers of the video's pairs, for videos that have captions."""
    events_of: dict[str, list[int]] = {}
    for number, event in enumerate(references):
        events_of.setdefault(event.video, []).append(number)
    numbers: dict[tuple[int, int], int] = {}
    groups: dict[float, dict[str, list[int]]] = {threshold: {} for threshold in THRESHOLDS}
    for number, caption in enumerate(captions):
        near = [(overlap(caption, references[event]), event) for event in events_of[caption.video]]
        for threshold, by_video in groups.items():
            matches = [event for common, event in near if common >= threshold] or [len(references)]
            found = [numbers.setdefault((number, event), len(numbers)) for event in matches]
            by_video.setdefault(caption.video, []).extend(found)
    return list(numbers), groups


class _Pairs:
    """Statistics of all pairs, counted once; `score` makes the corpus scores of any of them."""

    def __init__(self, said: Sequence[str], meant: Sequence[str], meteor: Meteor) -> None:
        self._names = [str(number) for number in range(len(said))]
        self._said = said
        self._meant = References(
            {name: [line] for name, line in zip(self._names, meant, strict=True)}, meteor.statistics
        )
        self._rows = {part: self._count(part, range(len(said))) for part in PARTS if not counting(part).joint}
        self._scored: dict[tuple[int, ...], Floats] = {}

    def score(self, group: tuple[int, ...]) -> Floats:
        """Scores of the corpus of these pairs, in the order of `METRICS`. A video's pairs are often the same at several
        thresholds, and then scored once."""
        if group not in self._scored:
            rows = {
                part: self._rows[part][list(group)] if part in self._rows else self._count(part, group)
                for part in PARTS
            }
            self._scored[group] = np.concatenate([corpus_scores(part, rows[part]) for part in PARTS])
        return self._scored[group]

    def _count(self, part: str, pairs: Sequence[int]) -> Floats:
        """What a part counts of these pairs, as if there were no others."""
        names = [self._names[pair] for pair in pairs]
        meant = replace(self._meant, lines={name: self._meant.lines[name] for name in names})
        return counting(part).read(meant)(names, [self._said[pair] for pair in pairs])


def _ascii(text: str) -> str:
    """`text` with a blank for every character beyond ASCII, as densevid_eval reads it."""
    return "".join(mark if mark.isascii() else " " for mark in text)


def digest(references: Sequence[Event]) -> str:
    """SHA-256 of the reference events; their order does not matter."""
    return hashlib.sha256("\n".join(sorted(json.dumps(event) for event in references)).encode()).hexdigest()
