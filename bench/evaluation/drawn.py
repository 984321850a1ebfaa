"""What a caption is worth that a method draws at random: the quantity of which a policy gradient is the gradient."""

from __future__ import annotations

from statistics import fmean

from bench import BenchError
from bench.errors import AbsentError
from bench.evaluation.further import Captioned, Measured
from bench.evaluation.metrics import METRICS, PTB, RANKED_BY
from bench.evaluation.scorer import digest
from bench.evaluation.token_scores import TOKEN_SCORES

COUNT = 5  # captions of a clip
MOST = 100


def drawn(given: Captioned) -> Measured:
    """CIDEr-D of captions drawn word by word from p(. | words so far, clip), the mean over `drawn:COUNT` (5) for each clip.

    Document frequencies are those of all references, as where decoded captions are scored. Raises BenchError.
    """
    count = _count(given.option)
    if absent := [clip for clip in given.captions if not given.references.get(clip)]:
        raise AbsentError(
            f"drawn scores captions against references, and {len(absent):,} clips have none on this machine"
        )
    clips = list(given.captions)
    texts = [text for clip in clips for text in given.references[clip]]
    words = iter(given.tokenize(texts))
    score = TOKEN_SCORES[RANKED_BY]({clip: [tuple(next(words)) for _ in given.references[clip]] for clip in clips})
    sets = [
        dict(zip(clips, map(tuple, given.tokenize([one[clip] for clip in clips])), strict=True))
        for one in given.draw(count)
    ]
    metric = METRICS[RANKED_BY]
    refs = digest({clip: given.references[clip] for clip in clips})[:12]
    tail = f"tok:{PTB}|drawn:{count}|refs:{refs}|n:{len(clips)}|scale:100"
    return Measured(fmean(map(score, sets)), f"drawn {metric.long}|impl:{metric.version}|{tail}")


def _count(option: str) -> int:
    """How many captions are drawn for each clip."""
    if not option:
        return COUNT
    if not (option.isascii() and option.isdigit() and 1 <= int(option) <= MOST):
        raise BenchError(
            f"drawn:{option}: behind the colon stands how many captions are drawn for each clip, 1 to {MOST}"
        )
    return int(option)
