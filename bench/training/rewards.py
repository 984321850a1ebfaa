"""What a caption is worth: metric scores of training captions by caption id, and of captions that the model drew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from bench.evaluation.bleu import TokenBleu
from bench.evaluation.cider import TokenCider
from bench.evaluation.ngrams import Floats, Tokens
from bench.evaluation.rouge import TokenRouge
from bench.evaluation.weights import leave_one_out
from bench.method import EOS, SPECIAL, Clips, Vocabulary
from bench.nn.sampling import Sampled


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
