"""The rules of densevid_eval as plain loops over the layout of the published files, with pycocoevalcap's own scorers.

A caption without a match is compared with a random word here, as the public code does, so that agreement also shows that
the choice of the word is no matter.
"""

from __future__ import annotations

import random
import string
from collections.abc import Mapping, Sequence
from typing import Any

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

THRESHOLDS = (0.3, 0.5, 0.7, 0.9)
NAMES = ("bleu1", "bleu2", "bleu3", "bleu4", "meteor", "rouge_l", "cider")

Timed = tuple[float, float, str]  # start, end, text
Videos = Mapping[str, Sequence[Timed]]


def intersection_over_union(first: Timed, second: Timed) -> float:
    left = max(first[0], second[0])
    right = min(first[1], second[1])
    intersection = right - left if right > left else 0.0
    hull = max(first[1], second[1]) - min(first[0], second[0])
    both = (first[1] - first[0]) + (second[1] - second[0])
    union = hull if hull < both else both
    return intersection / (union + 1e-8)


def plain(text: str) -> str:
    letters = []
    for letter in text:
        letters.append(letter if ord(letter) < 128 else " ")
    return "".join(letters)


def garbage() -> str:
    return "".join(random.choice(string.ascii_lowercase) for _ in range(random.randint(10, 20)))


def pairs_of_video(said: Sequence[Timed], files: Sequence[Videos], video: str, threshold: float) -> list[list[str]]:
    """[caption, reference] of every overlap, or one with garbage."""
    pairs = []
    for caption in said:
        matches = 0
        for file in files:
            for event in file.get(video, ()):
                if intersection_over_union(caption, event) >= threshold:
                    pairs.append([plain(caption[2]), plain(event[2])])
                    matches += 1
        if matches == 0:
            pairs.append([plain(caption[2]), garbage()])
    return pairs


def tokens(texts: Sequence[str]) -> list[str]:
    found = PTBTokenizer().tokenize({number: [{"caption": text}] for number, text in enumerate(texts)})
    return [found[number][0] for number in range(len(texts))]


def scores_of_video(pairs: Sequence[Sequence[str]], meteor: Any) -> list[float]:
    """`pairs` are tokens by now; `meteor` is a pycocoevalcap Meteor, which is slow to start."""
    said = {number: [pair[0]] for number, pair in enumerate(pairs)}
    meant = {number: [pair[1]] for number, pair in enumerate(pairs)}
    bleu, _ = Bleu(4).compute_score(meant, said, verbose=0)
    return [
        *(float(value) for value in bleu),
        float(meteor.compute_score(meant, said)[0]),
        float(Rouge().compute_score(meant, said)[0]),
        float(Cider().compute_score(meant, said)[0]),
    ]


def evaluate(predictions: Videos, files: Sequence[Videos], meteor: Any) -> dict[float, dict[str, float]]:
    """Scores by threshold and name; `files` are the reference files, each {video: events}."""
    videos: list[str] = []
    for file in files:
        for video in file:
            if video not in videos:
                videos.append(video)
    result = {}
    for threshold in THRESHOLDS:
        by_video = {video: pairs_of_video(predictions.get(video, ()), files, video, threshold) for video in videos}
        flat = [text for pairs in by_video.values() for pair in pairs for text in pair]
        tokenized = iter(tokens(flat))
        total = [0.0] * len(NAMES)
        for pairs in by_video.values():
            read = [[next(tokenized), next(tokenized)] for _ in pairs]
            own = scores_of_video(read, meteor) if read else [0.0] * len(NAMES)
            total = [one + other for one, other in zip(total, own, strict=True)]
        result[threshold] = {name: value / len(videos) for name, value in zip(NAMES, total, strict=True)}
    return result


def mean_over_thresholds(scores: Mapping[float, Mapping[str, float]]) -> dict[str, float]:
    return {name: sum(one[name] for one in scores.values()) / len(scores) for name in NAMES}
