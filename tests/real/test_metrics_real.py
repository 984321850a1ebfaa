"""The reported metrics against pycocoevalcap on whole real splits: one caption of every clip scored by the others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from bench.evaluation import ptb
from bench.evaluation.caption_weights import leave_one_out
from bench.evaluation.scorer import Scorer, Scores

pytestmark = pytest.mark.real
Captions = dict[str, list[str]]
Tokens = dict[str, list[str]]


def msvd_test(data: Path) -> Captions:
    captions: Captions = {}
    for line in (data / "msvd" / "sents_test_lc_nopunc.txt").read_text().splitlines():
        clip, text = line.split("\t")
        captions.setdefault(clip, []).append(text)
    assert (len(captions), sum(map(len, captions.values()))) == (670, 27_763)
    return captions


def msrvtt_validation(data: Path) -> Captions:
    file = json.loads((data / "msrvtt" / "train_val_videodatainfo.json").read_text())
    captions: Captions = {video["video_id"]: [] for video in file["videos"] if video["split"] == "validate"}
    for sentence in file["sentences"]:
        if sentence["video_id"] in captions:
            captions[sentence["video_id"]].append(sentence["caption"])
    assert (len(captions), sum(map(len, captions.values()))) == (497, 9_940)
    return captions


def leave_out(captions: Captions) -> tuple[Captions, dict[str, str]]:
    """(references, hypotheses): the caption left out varies from clip to clip, and one of them is empty."""
    chosen = {clip: number % len(texts) for number, (clip, texts) in enumerate(captions.items())}
    references = {clip: [*texts[: chosen[clip]], *texts[chosen[clip] + 1 :]] for clip, texts in captions.items()}
    hypotheses = {clip: texts[chosen[clip]] for clip, texts in captions.items()}
    return references, {**hypotheses, next(iter(captions)): ""}


@pytest.fixture(scope="module")
def meteors(whole_meteor: None) -> Iterator[tuple[Scorer, Meteor]]:
    """Both METEORs, started once: each start reads five million paraphrases."""
    with Scorer() as scorer:
        yield scorer, Meteor()


Case = tuple[Scores, Tokens, Tokens, Meteor]


@pytest.fixture(scope="module", params=[msvd_test, msrvtt_validation], ids=["msvd test", "msrvtt validation"])
def case(request: pytest.FixtureRequest, real_data: Path, meteors: tuple[Scorer, Meteor]) -> Case:
    references, hypotheses = leave_out(request.param(real_data))
    tokens = PTBTokenizer().tokenize(
        {clip: [{"caption": text} for text in texts] for clip, texts in references.items()}
    )
    said = PTBTokenizer().tokenize({clip: [{"caption": text}] for clip, text in hypotheses.items()})
    return meteors[0].score(references, hypotheses), tokens, said, meteors[1]


def check_agreement(scores: Scores, metric: str, corpus: float, clips: object, within: float) -> None:
    assert abs(scores.corpus[metric] - corpus) <= within, metric
    np.testing.assert_allclose(
        list(scores.clips[metric].values()), np.asarray(clips), rtol=0, atol=within, err_msg=metric
    )


def test_cider_rouge_and_bleu_agree_per_clip_and_corpus(case: Case) -> None:
    scores, tokens, said, _ = case
    assert scores.ids == tuple(tokens)
    check_agreement(scores, "cider", *Cider().compute_score(tokens, said), within=1e-9)
    check_agreement(scores, "rouge_l", *Rouge().compute_score(tokens, said), within=1e-9)
    corpus, clips = Bleu(4).compute_score(tokens, said, verbose=0)
    for n in range(4):
        check_agreement(scores, f"bleu{n + 1}", corpus[n], clips[n], within=1e-9)


def test_meteor_agrees_per_clip_and_corpus(case: Case) -> None:
    scores, tokens, said, official = case
    check_agreement(scores, "meteor", *official.compute_score(tokens, said), within=1e-12)


def test_tokens_agree(case: Case, real_data: Path) -> None:
    _, tokens, _, _ = case
    captions = msvd_test(real_data) if len(tokens) == 670 else msrvtt_validation(real_data)
    references, _ = leave_out(captions)
    lines = iter(ptb.tokenize([text for texts in references.values() for text in texts]))
    assert {clip: [next(lines) for _ in texts] for clip, texts in references.items()} == tokens


@pytest.mark.parametrize(("metric", "official"), [("cider", Cider()), ("rouge_l", Rouge()), ("bleu4", Bleu(4))])
def test_caption_weights_agree_in_the_first_and_last_column(real_data: Path, metric: str, official: object) -> None:
    captions = msrvtt_validation(real_data)
    weights = leave_one_out(captions, metric)
    options = {"verbose": 0} if metric == "bleu4" else {}
    for column in (0, 19):
        hypotheses = {clip: [texts[column]] for clip, texts in captions.items()}
        references = {clip: texts[:column] + texts[column + 1 :] for clip, texts in captions.items()}
        scores = official.compute_score(references, hypotheses, **options)[1]  # type: ignore[attr-defined]
        expected = scores[3] if metric == "bleu4" else scores
        np.testing.assert_allclose([weights[clip][column] for clip in captions], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("metric", "official"), [("cider", Cider()), ("rouge_l", Rouge()), ("bleu4", Bleu(4))])
def test_caption_weights_agree_for_all_captions_of_clips_of_all_lengths(
    real_data: Path, metric: str, official: object
) -> None:
    """MSVD has 21 to 81 captions a clip: a column that only some clips have is scored with the others left whole."""
    captions = dict(list(msvd_test(real_data).items())[:12])
    weights = leave_one_out(captions, metric)
    options = {"verbose": 0} if metric == "bleu4" else {}
    checked = 0
    for column in range(max(map(len, captions.values()))):
        held = [clip for clip, texts in captions.items() if column < len(texts)]
        hypotheses = {clip: [captions[clip][column] if clip in held else ""] for clip in captions}
        references = {clip: texts[:column] + texts[column + 1 :] for clip, texts in captions.items()}
        scores = official.compute_score(references, hypotheses, **options)[1]  # type: ignore[attr-defined]
        expected = dict(zip(captions, scores[3] if metric == "bleu4" else scores, strict=True))
        for clip in held:
            assert weights[clip][column] == pytest.approx(expected[clip], abs=1e-12), (clip, column)
            checked += 1
    assert checked == sum(map(len, captions.values()))
    assert len({len(texts) for texts in captions.values()}) > 5
