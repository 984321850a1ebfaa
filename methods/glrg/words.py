"""The K words of the long-range encoder: the most frequent content words of the training captions (section 3.1)."""

from collections import Counter

import torch
from torch import Tensor

from bench.method import UNK, Clips

FUNCTION_WORDS = frozenset(
    """
    a an the this that these those some any each every all both another other one two three
    is are was were be been being am do does did doing done has have had having
    can could will would shall should may might must
    and or but nor so yet if then than as while when where after before because until
    of in on at by to from for with without into onto over under above below up down out off through across around
    about against between among along near behind beside next inside outside upon toward towards
    he she it they him her them his hers its their theirs i me my we us our you your who whom whose which what
    not no very too also just only there here how s t get gets getting got go goes going
    """.split()
)
"""Words that name no object, action or attribute; the paper leaves out "is, be, do and the like" and prints no list."""


def frequent_words(clips: Clips, count: int) -> list[int]:
    """Ids of the `count` most frequent content words of the training captions, ties in vocabulary order."""
    seen: Counter[int] = Counter()
    for clip in clips.ids:
        for reference in clips.references(clip):
            seen.update(word for word in reference.words if word != UNK)
    vocabulary = clips.vocabulary.words
    content = [word for word in seen if vocabulary[word] not in FUNCTION_WORDS]
    return sorted(content, key=lambda word: (-seen[word], word))[:count]


def clip_labels(clips: Clips, words: list[int], count: int) -> dict[str, Tensor]:
    """For each clip the multi-label target [count]: 1 where any of its captions has the word."""
    place = {word: number for number, word in enumerate(words)}
    labels = {}
    for clip in clips.ids:
        target = torch.zeros(count)
        for reference in clips.references(clip):
            target[[place[word] for word in set(reference.words) if word in place]] = 1.0
        labels[clip] = target
    return labels
