"""Rewards, caption weights and evaluation against pycocoevalcap, on captions of the embedded corpus.

    python -m tests.perf.metrics

Rewards: 64 clips x 5 drawn captions against all references of their clips. Caption weights: leave-one-out scores of 1,200 clips
with 17 captions each; pycocoevalcap is timed on `COLUMNS` of the 17 columns and the rest is reckoned. Evaluation: 670 clips, all
metrics; ours with the references' tokens kept and METEOR running, pycocoevalcap afresh.
"""

from __future__ import annotations

import argparse
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

from bench.data.shapes import shapes_corpus
from bench.evaluation.bleu import TokenBleu
from bench.evaluation.cider import TokenCider
from bench.evaluation.rouge import TokenRouge
from bench.evaluation.scorer import Scorer
from bench.evaluation.weights import leave_one_out
from tests.perf.training import seconds

CLIPS, CAPTIONS = 1200, 17
REWARDED, DRAWN = 64, 5
COLUMNS = 3


def captions(clips: int, each: int) -> dict[str, list[str]]:
    """Captions of the embedded corpus, by clip."""
    corpus = shapes_corpus({"size": [clips, 1, 1]})
    return {clip: [one.text for one in corpus.captions[clip][:each]] for clip in corpus.splits["train"]}


def quietly(call: Callable[[], object]) -> object:
    """pycocoevalcap prints as it goes."""
    with contextlib.redirect_stdout(io.StringIO()):
        return call()


def rewards() -> dict[str, float]:
    """Ratios of the three metrics over one step's captions."""
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
    ways: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "cider": (lambda: cider.score_many(clips, tokens), lambda: Cider().compute_score(given, told)),
        "bleu4": (lambda: bleu.score_many(clips, tokens), lambda: Bleu(4).compute_score(given, told, verbose=0)),
        "rouge_l": (lambda: rouge.score_many(clips, tokens), lambda: Rouge().compute_score(given, told)),
    }
    found = {}
    for name, (own, theirs) in ways.items():
        taken = seconds({"own": own, "theirs": lambda theirs=theirs: quietly(theirs)})  # type: ignore[misc]
        found[name] = taken["theirs"] / taken["own"]
    return found


def weights() -> float:
    """Ratio over CIDEr, BLEU-4 and ROUGE-L weights of all captions."""
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
    print(f"weights: ours {own:.2f} s, pycocoevalcap {theirs:.1f} s (reckoned from {COLUMNS} of {CAPTIONS} columns)")
    return theirs / own


def evaluation(clips: int = 670, each: int = 20) -> float:
    """Ratio of a full evaluation, references known and METEOR warm, against pycocoevalcap afresh."""
    every = captions(clips, each)
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
    ]  # type: ignore[misc]
    fours = quietly(lambda: Bleu(4).compute_score(given, told, verbose=0))
    fresh = time.perf_counter() - begun
    for metric, (score, _) in zip(("cider", "rouge_l", "meteor"), scores, strict=True):  # type: ignore[misc]
        assert abs(own.corpus[metric] - score) < 1e-9, metric
    assert abs(own.corpus["bleu4"] - fours[0][3]) < 1e-9  # type: ignore[index]
    print(f"evaluation of {clips} clips: ours warm {warm:.2f} s, pycocoevalcap {fresh:.1f} s")
    return fresh / warm


def main() -> None:
    """Print the ratios beside the bars."""
    argparse.ArgumentParser(description="rewards, caption weights and evaluation against pycocoevalcap").parse_args()
    for (name, ratio), bar in zip(rewards().items(), (50, 20, 10), strict=True):
        print(f"reward {name}: {ratio:.0f}x (bar {bar}x)")
    print(f"caption weights: {weights():.0f}x (bar 20x)")
    print(f"full evaluation: {evaluation():.1f}x (bar 3x)")


if __name__ == "__main__":
    main()
