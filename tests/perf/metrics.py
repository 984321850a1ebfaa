"""Rewards, caption weights and evaluation against pycocoevalcap, on captions of the embedded corpus.

Rewards: 64 clips x 5 drawn captions against all references of their clips. Caption weights: leave-one-out scores of 1,200 clips
with 17 captions each; pycocoevalcap is timed on `COLUMNS` of the 17 columns and the rest is reckoned. Evaluation: all metrics;
ours with the references' tokens kept and METEOR running, pycocoevalcap afresh. Resamples: all metrics of 1,000 bootstrap samples
of the clips from the statistics of one scoring, against scoring a sample again (one is timed, and the rest is reckoned).
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from bench.data.readers.shapes import shapes_corpus
from bench.evaluation import statistics
from bench.evaluation.bleu import TokenBleu
from bench.evaluation.caption_weights import leave_one_out
from bench.evaluation.cider import TokenCider
from bench.evaluation.rouge import TokenRouge
from bench.evaluation.scorer import Scorer, Scores
from tests.perf.rows import Row
from tests.perf.timing import seconds

CLIPS, CAPTIONS = 1200, 17
REWARDED, DRAWN = 64, 5
COLUMNS = 3
RESAMPLES = 1000
MSRVTT = 2990  # test clips


def captions(clips: int, each: int) -> dict[str, list[str]]:
    """Captions of the embedded corpus, by clip."""
    corpus = shapes_corpus({"size": [clips, 1, 1]})
    return {clip: [one.text for one in corpus.captions[clip][:each]] for clip in corpus.splits["train"]}


def quietly(call: Callable[[], object]) -> object:
    """pycocoevalcap prints as it goes."""
    with contextlib.redirect_stdout(io.StringIO()):
        return call()


def rewards() -> list[Row]:
    """The three metrics over one step's captions."""
    references = captions(CLIPS, CAPTIONS)
    random = np.random.default_rng(0)
    names = list(references)
    clips = [clip for clip in names[:REWARDED] for _ in range(DRAWN)]
    drawn = [references[names[random.integers(CLIPS)]][0] for _ in clips]
    tokens = [tuple(text.split()) for text in drawn]
    tables = {clip: [tuple(text.split()) for text in own] for clip, own in references.items()}
    given = {number: references[clip] for number, clip in enumerate(clips)}
    told = {number: [text] for number, text in enumerate(drawn)}
    cider, bleu, rouge = TokenCider(tables), TokenBleu(tables), TokenRouge(tables)
    ways: dict[str, tuple[float, Callable[[], object], Callable[[], object]]] = {
        "CIDEr-D": (50, lambda: cider.score_many(clips, tokens), lambda: Cider().compute_score(given, told)),
        "BLEU-4": (20, lambda: bleu.score_many(clips, tokens), lambda: Bleu(4).compute_score(given, told, verbose=0)),
        "ROUGE-L": (10, lambda: rouge.score_many(clips, tokens), lambda: Rouge().compute_score(given, told)),
    }
    found = []
    for name, (bar, own, theirs) in ways.items():
        taken = seconds({"own": own, "theirs": lambda theirs=theirs: quietly(theirs)})  # type: ignore[misc]
        behind = {"own ms": taken["own"] * 1e3, "theirs ms": taken["theirs"] * 1e3}
        what = f"{name} reward, {REWARDED} clips x {DRAWN}"
        found.append(Row(what, "pycocoevalcap", taken["theirs"] / taken["own"], bar, details=behind))
    return found


def weights() -> list[Row]:
    """CIDEr, BLEU-4 and ROUGE-L weights of all captions."""
    references = captions(CLIPS, CAPTIONS)
    begun = time.perf_counter()
    for metric in ("cider", "bleu4", "rouge_l"):
        leave_one_out(references, metric)
    own = time.perf_counter() - begun
    begun = time.perf_counter()
    for column in range(COLUMNS):
        told = {clip: [own_[column]] for clip, own_ in references.items()}
        given = {clip: own_[:column] + own_[column + 1 :] for clip, own_ in references.items()}
        for scorer in (Cider(), Rouge()):
            quietly(lambda scorer=scorer, given=given, told=told: scorer.compute_score(given, told))  # type: ignore[misc]
        quietly(lambda given=given, told=told: Bleu(4).compute_score(given, told, verbose=0))  # type: ignore[misc]
    theirs = (time.perf_counter() - begun) * CAPTIONS / COLUMNS
    behind = {"own s": own, "theirs s": theirs}
    return [Row(f"caption weights, {CLIPS} clips x {CAPTIONS}", "pycocoevalcap", theirs / own, 20, details=behind)]


def evaluation(clips: int, each: int, bar: float) -> list[Row]:
    """A full evaluation, references known and METEOR warm, against pycocoevalcap afresh, with equal scores; then resamples."""
    every = captions(clips, each + 1)
    references = {clip: texts[1:] for clip, texts in every.items()}
    hypotheses = {clip: texts[0] for clip, texts in every.items()}
    with Scorer() as scorer:
        scorer.score(references, hypotheses)
        begun = time.perf_counter()
        own = scorer.score(references, hypotheses)
        warm = time.perf_counter() - begun
    begun = time.perf_counter()
    tokenizer = PTBTokenizer()
    given = tokenizer.tokenize({clip: [{"caption": text} for text in texts] for clip, texts in references.items()})
    told = tokenizer.tokenize({clip: [{"caption": text}] for clip, text in hypotheses.items()})
    scores = [
        quietly(lambda scorer=scorer: scorer.compute_score(given, told)) for scorer in (Cider(), Rouge(), Meteor())
    ]
    fours = quietly(lambda: Bleu(4).compute_score(given, told, verbose=0))
    fresh = time.perf_counter() - begun
    for metric, (score, _) in zip(("cider", "rouge_l", "meteor"), scores, strict=True):  # type: ignore[misc]
        assert abs(own.corpus[metric] - score) < 1e-9, metric
    assert abs(own.corpus["bleu4"] - fours[0][3]) < 1e-9  # type: ignore[index]
    behind = {"own s": warm, "theirs s": fresh}
    return [
        Row(f"full evaluation, {clips} clips x {each}", "pycocoevalcap afresh", fresh / warm, bar, details=behind),
        *(resamples(own, warm) if clips == MSRVTT else []),
    ]


def resamples(scores: Scores, rescoring: float) -> list[Row]:
    """All metrics of 1,000 bootstrap samples of the clips; `rescoring` is the seconds of one evaluation."""
    random = np.random.default_rng(0)
    means = [np.array([scores.clips[metric][clip] for clip in scores.ids]) for metric in ("cider", "rouge_l")]

    def draw() -> None:
        clips = len(scores.ids)
        drawn = random.multinomial(clips, np.full(clips, 1 / clips), size=RESAMPLES).astype(np.float64)
        statistics.corpus_scores("bleu", scores.statistics["bleu"], drawn)
        statistics.corpus_scores("meteor", scores.statistics["meteor"], drawn)
        for clip_scores in means:
            statistics.corpus_mean(clip_scores, drawn)

    own = seconds({"own": draw})["own"]
    what = f"{RESAMPLES:,} resamples of {len(scores.ids):,} clips"
    behind = {"own s": own, "rescoring s": rescoring * RESAMPLES}
    return [
        Row(what, "rescoring", rescoring * RESAMPLES / own, 30, details=behind),
        Row(what, "the clock", own, 1.0, "s", at_most=True),
    ]


def rows(threads: int) -> list[Row]:
    """Everything but training and decoding."""
    return [*rewards(), *weights(), *evaluation(670, 20, bar=3), *evaluation(MSRVTT, 20, bar=2)]
