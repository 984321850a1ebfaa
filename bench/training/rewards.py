"""What a caption is worth: metric scores of training captions, keyed by caption id."""

from __future__ import annotations

from bench.evaluation.weights import leave_one_out
from bench.method import Clips


def caption_weights(clips: Clips, metric: str, scale: str = "none") -> dict[str, float]:
    """Score of every training caption against the other captions of its clip (leave one out), by caption id.

    `metric`: cider, bleu4, rouge_l or meteor, on the captions as published. `scale`: `none` keeps the raw scores (CIDEr up
    to 10), `mean` divides by their mean so that the weighted loss has the scale of the unweighted one.
    """
    references = {clip: clips.references(clip) for clip in clips.ids}
    scores = leave_one_out({clip: [ref.text for ref in refs] for clip, refs in references.items()}, metric)
    weights = {
        ref.id: float(score) for clip, refs in references.items() for ref, score in zip(refs, scores[clip], strict=True)
    }
    mean = sum(weights.values()) / max(len(weights), 1)
    if scale == "mean" and mean > 0:
        weights = {caption: weight / mean for caption, weight in weights.items()}
    return weights
