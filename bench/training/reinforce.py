"""Policy gradient on captions that the model draws itself (Williams 1992; self-critical: Rennie et al., CVPR 2017).

The gradient of -E[r(S)] is estimated by -(r(S) - b) grad log p(S) over samples S. The reward and its baseline b are
constants. Dropout is off while drawing and while differentiating: the policy that learns is the one that writes captions.
A batch's caption slots say how many captions are drawn for each clip, so a drawn caption costs as much of the budget as a
read one; the greedy caption of the self-critical baseline comes on top.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.evaluation.ngrams import Floats
from bench.method import Batch, Clips, Run
from bench.nn.beam import NEVER
from bench.nn.decoding import Forced, teacher_forcing, word_losses
from bench.nn.sampling import Sampled, greedy, sample
from bench.training.phases import Losses, Phase
from bench.training.rewards import CaptionReward


@dataclass(frozen=True)
class Draw:
    """Captions drawn for one batch and what they earned: all that a baseline may look at. `rewards` is [B]."""

    captioner: Any
    batch: Batch
    sampled: Sampled
    rewards: Floats
    reward: CaptionReward
    max_words: int


Baseline = Callable[[Draw], Floats]
"""b for each drawn caption, [B]. The estimate stays unbiased as long as b does not depend on the caption itself."""


def no_baseline(draw: Draw) -> Floats:
    """b = 0: unbiased, and the noisiest."""
    return np.zeros(len(draw.rewards))


def greedy_baseline(draw: Draw) -> Floats:
    """Self-critical: b = reward of the model's greedy caption of the clip (RecNet eq. 21)."""
    captions = greedy(draw.captioner, draw.batch, draw.max_words)
    of_clip = np.zeros(len(draw.batch.clip_ids))
    of_clip[captions.batch.clip_of_B.cpu().numpy()] = draw.reward(captions)
    return of_clip[draw.sampled.batch.clip_of_B.cpu().numpy()]


def others_baseline(draw: Draw) -> Floats:
    """b = mean reward of the clip's other drawn captions; of all other captions of the batch where there are none."""
    clip = draw.sampled.batch.clip_of_B.cpu().numpy()
    sums, counts = np.bincount(clip, draw.rewards), np.bincount(clip)
    own = draw.rewards
    same = np.divide(sums[clip] - own, counts[clip] - 1, out=np.zeros(len(own)), where=counts[clip] > 1)
    rest = (own.sum() - own) / max(len(own) - 1, 1)
    return np.where(counts[clip] > 1, same, rest)


BASELINES: dict[str, Baseline] = {"none": no_baseline, "greedy": greedy_baseline, "others": others_baseline}


def policy_loss(losses_BW: Tensor, advantage_B: Tensor) -> Tensor:
    """-(r(S) - b) log p(S), mean over captions; `losses_BW` is -log p of every drawn word, zero on padding."""
    return (losses_BW.sum(1) * advantage_B).mean()


def reinforce_phase(
    captioner: Any,
    run: Run,
    reward: CaptionReward,
    baseline: Baseline,
    name: str = "reinforce",
    module: nn.Module | None = None,
    train: Mapping[str, Any] | None = None,
    beside: Callable[[Batch, Forced], Losses] | None = None,
) -> Phase:
    """A phase that raises the expected reward of `captioner`'s own captions (only `module` of it learns, if given).

    `beside(batch, forced)` gives further losses of the same pass over the drawn captions; its `loss` is added
    (RecNet eq. 22). `train` overrides training settings: papers print rates of their own for this stage.
    """
    max_words = run.search.max_words

    def loss(batch: Batch) -> Losses:
        captioner.eval()
        sampled = sample(captioner, batch, max_words)
        rewards = reward(sampled)
        draw = Draw(captioner, batch, sampled, rewards, reward, max_words)
        bases = baseline(draw)
        forced = teacher_forcing(captioner, sampled.batch)
        losses_BW = word_losses(captioner, forced, NEVER)
        advantage_B = torch.as_tensor(rewards - bases, dtype=losses_BW.dtype, device=losses_BW.device)
        value = policy_loss(losses_BW, advantage_B)
        told = {"reward": _mean(rewards), "baseline": _mean(bases)}
        if beside is None:
            return {"loss": value, **told}
        more = beside(sampled.batch, forced)
        extra = more.pop("loss")
        return {"loss": value + extra, **told, **more}

    return Phase(name, loss, module if module is not None else captioner, run.shares[name], train or {})


def self_critical_phase(
    captioner: Any,
    settings: Mapping[str, Any],
    clips: Clips,
    run: Run,
    module: nn.Module | None = None,
    beside: Callable[[Batch, Forced], Losses] | None = None,
) -> Phase:
    """CIDEr-D as reward, the greedy caption as baseline, Adam: how RecNet and the bases are reinforced.

    Reads the settings `reinforce_rate` (learning rate) and `reward_end` (whether the end mark counts as a word).
    """
    reward = CaptionReward.of_clips(clips, end_mark=settings["reward_end"])
    train = {"optimizer": "adam", "learning_rate": settings["reinforce_rate"]}
    return reinforce_phase(captioner, run, reward, greedy_baseline, module=module, train=train, beside=beside)


def _mean(values: Floats) -> Tensor:
    return torch.tensor(float(values.mean()))
