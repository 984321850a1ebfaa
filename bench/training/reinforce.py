"""What a caption is worth: metric scores of training captions by caption id, and of captions that the model drew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.evaluation.bleu import TokenBleu
from bench.evaluation.caption_weights import leave_one_out
from bench.evaluation.cider import TokenCider
from bench.evaluation.ngrams import Floats, Tokens
from bench.evaluation.rouge import TokenRouge
from bench.method import EOS, SPECIAL, Batch, Clips, Run, Vocabulary
from bench.nn.beam import NEVER
from bench.nn.decoding import Forced, teacher_forcing, word_losses
from bench.nn.host import on_host
from bench.nn.sampling import Sampled, greedy, sample, sample_and_greedy
from bench.training.phases import Losses, Phase


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


References = Mapping[str, Sequence[Tokens]]
Scorer = Callable[[Sequence[str], Sequence[Tokens]], Floats]


def _bleu4(references: References) -> Scorer:
    scorer = TokenBleu(references)
    return lambda clips, captions: scorer.score_many(clips, captions)[:, 3]


SCORERS: dict[str, Callable[[References], Scorer]] = {
    "cider": lambda references: TokenCider(references).score_many,
    "rouge_l": lambda references: TokenRouge(references).score_many,
    "bleu4": _bleu4,
}


class CaptionReward:
    """r(S): the sum of metrics of a caption against all references of its clip. No Java.

    CIDEr-D (0 to 10) has the document frequencies of the references given here, the training captions, so a reward never
    depends on its batch; ROUGE-L and BLEU-4 run from 0 to 1. With `end_mark` the end of a caption is a word on both sides:
    without it a caption cut after "a man is playing a" costs nothing, and policies learn to stop there.
    """

    def __init__(
        self, references: References, vocabulary: Vocabulary, metrics: Sequence[str] = ("cider",), end_mark: bool = True
    ) -> None:
        self.vocabulary, self.end_mark = vocabulary, end_mark
        if end_mark:
            references = {clip: [(*tokens, SPECIAL[EOS]) for tokens in own] for clip, own in references.items()}
        self._scorers = [SCORERS[metric](references) for metric in metrics]

    @classmethod
    def of_clips(cls, clips: Clips, metrics: Sequence[str] = ("cider",), end_mark: bool = True) -> CaptionReward:
        """The reward against the training tokens of `clips`, uncut, with the words that the vocabulary leaves out."""
        references = {clip: [reference.tokens for reference in clips.references(clip)] for clip in clips.ids}
        return cls(references, clips.vocabulary, metrics, end_mark)

    def __call__(self, sampled: Sampled) -> Floats:
        """Reward of each caption, in the order of `sampled`. Shape [B]."""
        words = self.vocabulary.words
        captions = [tuple(words[word] for word in caption) for caption in sampled.captions(ended=self.end_mark)]
        clips = sampled.clips()
        total = self._scorers[0](clips, captions)
        for scorer in self._scorers[1:]:
            total = total + scorer(clips, captions)
        return total


@dataclass(frozen=True)
class Draw:
    """Captions drawn for one batch and what they earned: all that a baseline may look at. `rewards` is [B].

    `likeliest` are the greedy captions, one for each clip, where they were written beside the drawn ones.
    """

    captioner: Any
    batch: Batch
    sampled: Sampled
    rewards: Floats
    reward: CaptionReward
    max_words: int
    likeliest: Sampled | None = None


Baseline = Callable[[Draw], Floats]
"""b for each drawn caption, [B]. The estimate stays unbiased as long as b does not depend on the caption itself."""


def no_baseline(draw: Draw) -> Floats:
    """b = 0: unbiased, and the noisiest."""
    return np.zeros(len(draw.rewards))


def greedy_baseline(draw: Draw) -> Floats:
    """Self-critical: b = reward of the model's greedy caption of the clip (RecNet eq. 21)."""
    captions = draw.likeliest or greedy(draw.captioner, draw.batch, draw.max_words)
    of_clip = np.zeros(len(draw.batch.clip_ids))
    of_clip[on_host(captions.batch.clip_of_B).numpy()] = draw.reward(captions)
    return of_clip[on_host(draw.sampled.batch.clip_of_B).numpy()]


def others_baseline(draw: Draw) -> Floats:
    """b = mean reward of the clip's other drawn captions; of all other captions of the batch where there are none."""
    clip = on_host(draw.sampled.batch.clip_of_B).numpy()
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
        likeliest = None
        if baseline is greedy_baseline:
            sampled, likeliest = sample_and_greedy(captioner, batch, max_words)
        else:
            sampled = sample(captioner, batch, max_words)
        # A GPU reads the captions once more while the CPU counts what they earned.
        forced = teacher_forcing(captioner, sampled.batch)
        losses_BW = word_losses(captioner, forced, NEVER)
        rewards = reward(sampled)
        bases = baseline(Draw(captioner, batch, sampled, rewards, reward, max_words, likeliest))
        advantage_B = torch.as_tensor(rewards - bases, dtype=losses_BW.dtype, device=losses_BW.device)
        value = policy_loss(losses_BW, advantage_B)
        means = {"reward": _mean(rewards), "baseline": _mean(bases)}
        if beside is None:
            return {"loss": value, **means}
        more = beside(sampled.batch, forced)
        extra = more.pop("loss")
        return {"loss": value + extra, **means, **more}

    learner = module if module is not None else captioner
    return Phase(name, loss, learner, run.shares[name], train or {}, rewards=True)


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
