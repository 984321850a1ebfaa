"""The discrepant reward r(S) - b of the boosting phase (eq. 10): what b is, from the clip's references or its drawn captions."""

from collections.abc import Mapping
from typing import Any

import torch

from bench.method import Clips
from bench.nn.host import on_host
from bench.training import BASELINES, Baseline, Draw, caption_weights

TOP = 5  # Q: no text prints it


def references_baseline(clips: Clips, slots: int | None = None) -> Baseline:
    """b1: the mean leave-one-out CIDEr-D of the clip's references. Unbiased, for it knows nothing of what is drawn.

    `slots` counts the references that are asked, the first in file order; all without it. The end mark is no word here.
    """
    scores = caption_weights(clips, "cider")
    of_clip = {}
    for clip in clips.ids:
        asked = [scores[reference.id] for reference in clips.references(clip)][:slots]
        of_clip[clip] = sum(asked) / max(len(asked), 1)

    def baseline(draw: Draw) -> Any:
        return torch.tensor([of_clip[clip] for clip in draw.sampled.clips()], dtype=torch.float64).numpy()

    return baseline


def samples_baseline(count: int | None, highest: bool = True) -> Baseline:
    """b2: the mean of the `count` highest rewards among the captions drawn for the clip, of all of them without `count`.

    Biased, for the own caption is among them: with all n of a clip, the gradient shrinks to (n - 1) / n of the exact one.
    `highest=False` takes the lowest.
    """

    def baseline(draw: Draw) -> Any:
        clip_B = on_host(draw.sampled.batch.clip_of_B)
        rewards_B = torch.as_tensor(draw.rewards)
        bases_B = torch.zeros_like(rewards_B)
        for clip in clip_B.unique():
            own_B = clip_B == clip
            bases_B[own_B] = rewards_B[own_B].sort(descending=highest).values[:count].mean()
        return bases_B.numpy()

    return baseline


def choose_baseline(settings: Mapping[str, Any], clips: Clips, slots: int) -> Baseline:
    """b by its name in the card. The authors' code asks the first `slots` references for b1 and sorts upwards for b2."""
    official, count = settings["mode"] == "official", settings["top_samples"]
    if settings["baseline"] == "b1":
        return references_baseline(clips, slots if official else None)
    if settings["baseline"] == "b2":
        return samples_baseline(count, highest=False) if official else samples_baseline(count or TOP)
    return BASELINES[{"scst": "greedy"}.get(settings["baseline"], settings["baseline"])]
