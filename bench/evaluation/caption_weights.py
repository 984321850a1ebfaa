"""What every caption of a training set is worth by the others of its clip: the weights of GL-RG's DXE loss.

Raw captions, not PTB tokens: the published weights were made so (case and punctuation count), and this reproduces them.
CIDEr and BLEU split at white space, ROUGE-L at every single blank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench import BenchError
from bench.errors import named
from bench.evaluation import bleu, cider, meteor, rouge
from bench.evaluation.ngrams import ClipTable, Floats
from bench.evaluation.statistics import Segment

Captions = Mapping[str, Sequence[str]]


def leave_one_out(captions: Captions, metric: str) -> dict[str, Floats]:
    """Score of every caption against all other captions of its clip, in their order: CIDEr 0 to 10, the others 0 to 1.

    `metric`: cider, bleu4, rouge_l (numpy) or meteor (Java). CIDEr's document frequencies follow GL-RG: those of the i-th
    captions are counted with every clip's i-th caption left out. Raises BenchError for another metric or a clip with a
    single caption, and ScoringUnavailable for meteor without Java.
    """
    if metric not in _METRICS:
        raise BenchError(f"captions cannot be weighted by {metric!r}: choose one of {', '.join(_METRICS)}")
    lonely = [clip for clip, texts in captions.items() if len(texts) < 2]
    if lonely:
        raise BenchError(
            f"a caption is weighted by the others of its clip, and {len(lonely)} clips have fewer than two: "
            f"{named(lonely)}; give them a second caption, or train without weights (glrg:xe, or no loss=discrepant)"
        )
    if not captions:
        return {}
    scores = _METRICS[metric](captions)
    weights, start = {}, 0
    for clip, texts in captions.items():
        weights[clip] = scores[start : start + len(texts)]
        start += len(texts)
    return weights


def _words(captions: Captions) -> ClipTable:
    return ClipTable({clip: [tuple(text.split()) for text in texts] for clip, texts in captions.items()})


def _cider(captions: Captions) -> Floats:
    return cider.leave_one_out(_words(captions))


def _bleu4(captions: Captions) -> Floats:
    return bleu.bleu(bleu.leave_one_out(_words(captions)))[:, 3]


def _rouge(captions: Captions) -> Floats:
    return rouge.leave_one_out(
        ClipTable({clip: [rouge.split(text) for text in texts] for clip, texts in captions.items()})
    )


def _meteor(captions: Captions) -> Floats:
    segments = [
        Segment(clip, [*texts[:number], *texts[number + 1 :]], text)
        for clip, texts in captions.items()
        for number, text in enumerate(texts)
    ]
    with meteor.Meteor() as client:
        return meteor.meteor(client.statistics(segments))


_METRICS: dict[str, Callable[[Captions], Floats]] = {
    "cider": _cider,
    "bleu4": _bleu4,
    "rouge_l": _rouge,
    "meteor": _meteor,
}
