"""The scorer as a whole, through both Java programs, against pycocoevalcap on a small corpus.

METEOR runs on the beginning of its paraphrase table on both sides here; the whole table is used in tests/real.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from meteor_jar import small_jar
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor import meteor as official_meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from bench import BenchError
from bench.evaluation import meteor, ptb
from bench.evaluation.caption_weights import leave_one_out
from bench.evaluation.metrics import METRICS
from bench.evaluation.scorer import Scorer

REFERENCES = {
    "v1": ["A man is riding a horse.", "a person rides (slowly) on a horse", "Someone can't stop riding!"],
    "v2": ["two dogs are playing in the snow", "dogs play", 'a dog says "woof" -- twice; then leaves...', "a dog"],
    "v3": ["a woman is slicing an onion", "She's cutting onions: quickly", "U.S. chef, Mr. Bean, cooks"],
    "v4": ["a man", "A child's toy", "the kid gonna play 3 1/2 games"],
}
HYPOTHESES = {"v1": "A man is riding a horse.", "v2": "dogs are running", "v3": "", "v4": "a boy plays with the toys"}


@pytest.fixture(scope="module")
def jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_jar(tmp_path_factory.mktemp("meteor") / "jar")


@pytest.fixture(scope="module")
def scorer(jar: Path) -> Iterator[Scorer]:
    with pytest.MonkeyPatch.context() as patch, Scorer() as scorer:
        patch.setattr(meteor, "find_jar", lambda *_: jar)
        yield scorer


def test_scores_equal_pycocoevalcap(scorer: Scorer, jar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(official_meteor, "__file__", str(jar.with_name("meteor.py")))
    tokens = PTBTokenizer().tokenize({clip: [{"caption": text} for text in refs] for clip, refs in REFERENCES.items()})
    said = PTBTokenizer().tokenize({clip: [{"caption": text}] for clip, text in HYPOTHESES.items()})
    scores = scorer.score(REFERENCES, HYPOTHESES)
    assert tuple(scores.corpus) == tuple(METRICS)
    expected = {"rouge_l": Rouge(), "cider": Cider(), "meteor": official_meteor.Meteor()}
    for metric, official in expected.items():
        corpus, clips = official.compute_score(tokens, said)
        assert scores.corpus[metric] == pytest.approx(corpus, abs=1e-12), metric
        np.testing.assert_allclose([scores.clips[metric][clip] for clip in tokens], clips, rtol=0, atol=1e-12)
    corpus, clips = Bleu(4).compute_score(tokens, said, verbose=0)
    for n in range(4):
        assert scores.corpus[f"bleu{n + 1}"] == pytest.approx(corpus[n], abs=1e-12)
        np.testing.assert_allclose(list(scores.clips[f"bleu{n + 1}"].values()), clips[n], rtol=0, atol=1e-12)


def test_meteor_weights_are_scores_against_the_others_of_the_clip(
    scorer: Scorer, jar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(official_meteor, "__file__", str(jar.with_name("meteor.py")))
    weights = leave_one_out(REFERENCES, "meteor")
    official = official_meteor.Meteor()
    for column in range(3):
        others = {clip: texts[:column] + texts[column + 1 :] for clip, texts in REFERENCES.items()}
        left_out = {clip: [texts[column]] for clip, texts in REFERENCES.items()}
        expected = official.compute_score(others, left_out)[1]
        np.testing.assert_allclose([weights[clip][column] for clip in REFERENCES], expected, rtol=0, atol=1e-12)


def test_the_order_of_hypotheses_and_a_second_call_change_nothing(scorer: Scorer) -> None:
    first = scorer.score(REFERENCES, HYPOTHESES)
    second = scorer.score(REFERENCES, dict(reversed(HYPOTHESES.items())))
    assert second.corpus == first.corpus and second.clips == first.clips
    turned = scorer.score(dict(reversed(REFERENCES.items())), HYPOTHESES)
    assert turned.references == first.references
    assert turned.corpus == pytest.approx(first.corpus, abs=1e-12)


def test_empty_captions_are_scored_counted_and_named(scorer: Scorer) -> None:
    scores = scorer.score(REFERENCES, {**HYPOTHESES, "v2": " ... "})
    assert scores.empty == ("v2", "v3")
    assert any("2 of 4" in warning and "v3" in warning for warning in scores.warnings)
    assert scores.clips["cider"]["v3"] == scores.clips["meteor"]["v3"] == scores.clips["rouge_l"]["v3"] == 0.0
    # As in pycocoevalcap: nothing said where nothing was to be said is a full match for ROUGE.
    assert scorer.score({"a": [""], "b": ["x"]}, {"a": "", "b": "x"}).clips["rouge_l"]["a"] == 1.0


@pytest.mark.parametrize("clips", [["v1"], ["v1", "copy"]])
def test_document_frequencies_of_one_clip_are_warned_of(scorer: Scorer, clips: list[str]) -> None:
    scores = scorer.score(dict.fromkeys(clips, REFERENCES["v1"]), dict.fromkeys(clips, "a man is riding"))
    assert scores.corpus["cider"] == 0.0
    assert any("several clips" in warning for warning in scores.warnings)
    assert scorer.score(REFERENCES, {**HYPOTHESES, "v3": "x"}).warnings == ()


@pytest.mark.parametrize(
    ("references", "hypotheses", "said"),
    [
        ({}, {}, "no clips"),
        ({"a": ["x"], "bare": []}, {"a": "x", "bare": "y"}, "bare"),
        ({"a": ["x"], "b": ["x"]}, {"a": "x"}, "1 of 2 clips have no caption to score: b"),
        ({"a": ["x"]}, {"a": "x", "stranger": "y"}, "stranger"),
        ({"a": "x y"}, {"a": "x"}, "list of texts"),
        ({"a": ["x"]}, {"a": ["x"]}, "one text"),
    ],
)
def test_ids_that_do_not_fit_are_named(references: dict, hypotheses: dict, said: str) -> None:
    with Scorer(java="/never/started") as scorer, pytest.raises(BenchError, match=said):
        scorer.score(references, hypotheses)


def test_signatures_say_what_a_number_is(scorer: Scorer) -> None:
    signatures = scorer.score(REFERENCES, HYPOTHESES).signatures("test")
    assert set(signatures) == set(METRICS)
    assert signatures["cider"].startswith("CIDEr-D|impl:bench-1|tok:ptb-3.4.1|split:test|refs:")
    assert signatures["meteor"].endswith("|n:4|scale:100")
    other = scorer.score({**REFERENCES, "v1": ["a man"]}, HYPOTHESES).signatures("test")
    assert other["cider"] != signatures["cider"]


def test_tokens_of_references_are_kept_on_disk_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for refs in REFERENCES.values() for text in refs]
    tokens = ptb.PtbCache(tmp_path).tokenize(texts)
    assert len(list(tmp_path.iterdir())) == 1
    calls = []
    monkeypatch.setattr(ptb, "tokenize", lambda texts, *_: calls.append(1) or list(tokens))
    assert ptb.PtbCache(tmp_path).tokenize(texts) == tokens and not calls
    file = next(tmp_path.iterdir())
    file.write_text(file.read_text().replace("horse", "house"))
    assert ptb.PtbCache(tmp_path).tokenize(texts) == tokens and calls
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.warns(UserWarning, match="could not be kept"):
        assert ptb.PtbCache(blocked / "folder").tokenize(texts) == tokens


def test_captions_that_are_all_alike_are_told() -> None:
    references = {"a": ["a man runs"], "b": ["a dog sits"]}
    with Scorer() as scorer:
        assert scorer.score(references, {"a": "a man runs", "b": "a dog sits"}).warnings == ()
        assert scorer.score(references, {"a": "A man.", "b": "a man"}).warnings == (
            "all 2 captions are alike, whatever the clip: 'a man'",
        )
