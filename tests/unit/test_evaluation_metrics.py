"""The numpy metrics against pycocoevalcap's Python, on random captions with every oddity that real ones have."""

from __future__ import annotations

import random

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from bench import BenchError
from bench.evaluation import ngrams
from bench.evaluation.bleu import TokenBleu
from bench.evaluation.caption_weights import leave_one_out
from bench.evaluation.cider import TokenCider
from bench.evaluation.meteor import meteor
from bench.evaluation.ngrams import ClipTable, VocabularyTooLargeError
from bench.evaluation.rouge import TokenRouge, split
from bench.evaluation.statistics import corpus_mean, corpus_scores

WORDS = [f"w{number}" for number in range(12)]


def caption(random_: random.Random, most: int = 12) -> str:
    return " ".join(random_.choices(WORDS, weights=range(12, 0, -1), k=random_.randint(1, most)))


@pytest.fixture(params=[0, 1, 2])
def corpus(request: pytest.FixtureRequest) -> tuple[dict[str, list[str]], dict[str, str]]:
    random_ = random.Random(request.param)
    references = {f"clip{n}": [caption(random_) for _ in range(random_.randint(1, 7))] for n in range(20)}
    hypotheses = {clip: random_.choice([caption(random_), captions[0]]) for clip, captions in references.items()}
    hypotheses |= {
        "clip1": "",
        "clip2": "unseen words of unseen",
        "clip3": "w0 " * 90 + "w1",
        "clip4": "w0  w1 ",
        "clip5": "w0",
    }
    references["clip3"] += [" ".join(random_.choices(WORDS, k=80)), " ".join(random_.choices(WORDS, k=64))]
    references["clip6"] += ["", "w1  w2", references["clip6"][0]]
    return references, hypotheses


def official(
    scorer: object, references: dict[str, list[str]], hypotheses: dict[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    lists = {clip: [hypotheses[clip]] for clip in references}
    options = {"verbose": 0} if isinstance(scorer, Bleu) else {}
    score, scores = scorer.compute_score(references, lists, **options)  # type: ignore[attr-defined]
    return np.asarray(score), np.asarray(scores)


def words(references: dict[str, list[str]]) -> dict[str, list[tuple[str, ...]]]:
    return {clip: [tuple(text.split()) for text in captions] for clip, captions in references.items()}


def test_cider_equals_pycocoevalcap(corpus: tuple[dict[str, list[str]], dict[str, str]]) -> None:
    references, hypotheses = corpus
    score, scores = official(Cider(), references, hypotheses)
    mean, per_clip = TokenCider(words(references)).score({clip: tuple(hypotheses[clip].split()) for clip in references})
    assert abs(mean - score) < 1e-12
    np.testing.assert_allclose(list(per_clip.values()), scores, rtol=0, atol=1e-12)


def test_bleu_equals_pycocoevalcap(corpus: tuple[dict[str, list[str]], dict[str, str]]) -> None:
    references, hypotheses = corpus
    score, scores = official(Bleu(4), references, hypotheses)
    mean, per_clip = TokenBleu(words(references)).score({clip: tuple(hypotheses[clip].split()) for clip in references})
    np.testing.assert_allclose(mean, score, rtol=0, atol=1e-12)
    np.testing.assert_allclose(per_clip.T, scores, rtol=0, atol=1e-12)


def test_rouge_equals_pycocoevalcap_with_blanks_doubled_and_captions_of_90_words(
    corpus: tuple[dict[str, list[str]], dict[str, str]],
) -> None:
    references, hypotheses = corpus
    score, scores = official(Rouge(), references, hypotheses)
    table = TokenRouge({clip: [split(text) for text in captions] for clip, captions in references.items()})
    mean, per_clip = table.score({clip: split(hypotheses[clip]) for clip in references})
    assert abs(mean - score) < 1e-15
    np.testing.assert_array_equal(list(per_clip.values()), scores)


@pytest.mark.parametrize("length", [63, 64, 65, 66, 72, 73])
def test_rouge_equals_pycocoevalcap_where_a_machine_word_of_64_bits_is_full(length: int) -> None:
    """The shorter caption of a pair has one bit for each of its words; both sides are the shorter one here."""
    random_ = random.Random(length)

    def said(count: int) -> str:
        return " ".join(random_.choices(WORDS, k=count))

    whole = said(length)
    references = {"shorter": [said(length)], "longer": [said(length + 9)], "same": [whole], "last": [f"x {whole}"]}
    hypotheses = {"shorter": said(length + 9), "longer": said(length), "same": whole, "last": whole}
    _, scores = official(Rouge(), references, hypotheses)
    table = TokenRouge({clip: [split(text) for text in captions] for clip, captions in references.items()})
    _, per_clip = table.score({clip: split(text) for clip, text in hypotheses.items()})
    np.testing.assert_array_equal(list(per_clip.values()), scores)
    assert per_clip["same"] == 1.0 and 0 < per_clip["shorter"] < 1


@pytest.mark.parametrize("metric", ["cider", "bleu4", "rouge_l"])
def test_leave_one_out_equals_pycocoevalcap_column_by_column(metric: str) -> None:
    random_ = random.Random(7)
    captions = {f"clip{n}": [caption(random_) for _ in range(random_.randint(2, 6))] for n in range(12)}
    captions["clip0"].append(captions["clip0"][0])  # a twin stays among the references
    captions["clip1"].append("w0  w1 W0. ")
    scorer = {"cider": Cider(), "bleu4": Bleu(4), "rouge_l": Rouge()}[metric]
    weights = leave_one_out(captions, metric)
    for column in range(max(map(len, captions.values()))):
        references = {clip: texts[:column] + texts[column + 1 :] for clip, texts in captions.items()}
        held = [clip for clip, texts in captions.items() if column < len(texts)]
        hypotheses = {clip: captions[clip][column] if clip in held else "" for clip in captions}
        scores = official(scorer, references, hypotheses)[1]
        for clip, score in zip(captions, scores[3] if metric == "bleu4" else scores, strict=True):
            if clip in held:
                assert abs(weights[clip][column] - score) < 1e-12, (clip, column)


def test_leave_one_out_names_lonely_clips_and_unknown_metrics() -> None:
    with pytest.raises(BenchError, match="b"):
        leave_one_out({"a": ["x", "y"], "b": ["x"]}, "cider")
    with pytest.raises(BenchError, match=r"spice.*cider, bleu4, rouge_l, meteor"):
        leave_one_out({"a": ["x", "y"]}, "spice")
    assert leave_one_out({}, "cider") == {}


def test_rewards_of_repeated_clips_equal_single_scores_and_take_ids_for_words() -> None:
    random_ = random.Random(3)
    references = {f"clip{n}": [tuple(random_.choices(range(9), k=8)) for _ in range(4)] for n in range(6)}
    cider = TokenCider(references)
    clips = random_.choices(list(references), k=30)
    samples = [tuple(random_.choices(range(12), k=random_.randint(0, 9))) for _ in clips]
    rewards = cider.score_many(clips, samples)
    assert rewards.shape == (30,) and rewards.max() > 0
    for clip, sample, reward in zip(clips, samples, rewards, strict=True):
        assert cider.score({clip: sample})[0] == pytest.approx(reward, abs=1e-12)


def test_scoring_adds_no_word_to_the_table() -> None:
    cider = TokenCider({"a": [("x", "y")], "b": [("z",)]})
    before = cider.score({"a": ("x", "y")})
    for number in range(50):
        cider.score({"a": (f"new{number}", "x")})
    assert cider.score({"a": ("x", "y")}) == before
    assert len(cider.table.lexicon._numbers) == 3


def test_a_clip_without_references_and_an_unknown_clip_are_named() -> None:
    with pytest.raises(BenchError, match="bare"):
        TokenCider({"a": [("x",)], "bare": []})
    with pytest.raises(BenchError, match="stranger"):
        TokenCider({"a": [("x",)]}).score({"stranger": ("x",)})
    with pytest.raises(BenchError, match="no clips"):
        TokenCider({})


def test_no_tokens_at_all_score_zero() -> None:
    references: dict[str, list[tuple[str, ...]]] = {"a": [()], "b": [()]}
    assert TokenCider(references).score({"a": (), "b": ("x",)})[0] == 0.0
    assert TokenBleu(references).score({"a": (), "b": ("x",)})[0].max() < 1e-6
    assert TokenRouge(references).score({"a": (), "b": ("x",)})[0] == 0.0
    assert TokenCider(references).score({}) == (0.0, {})
    assert TokenRouge(references).score({}) == (0.0, {})


def test_packed_ngrams_are_exact_up_to_the_largest_id() -> None:
    top = ngrams.LIMIT - 2
    sentences = ngrams.Sentences(np.array([top, 0, top, top - 1, 5]), np.array([4, 1]))
    owner, key = ngrams.pack(sentences)
    seen = {}
    for sentence, packed in zip(owner.tolist(), key.tolist(), strict=True):
        ids = [(packed >> 16 * n & 0xFFFF) - 1 for n in range(4)]
        seen[(sentence, tuple(number for number in ids if number >= 0))] = True
    assert set(seen) == {
        (0, gram) for n in range(1, 5) for gram in zip(*[[top, 0, top, top - 1][k:] for k in range(n)], strict=False)
    } | {(1, (5,))}


def test_a_vocabulary_beyond_the_packing_is_a_named_error() -> None:
    ClipTable({"a": [range(ngrams.LIMIT - 1)]})
    with pytest.raises(VocabularyTooLargeError, match="65,535 distinct words"):
        ClipTable({"a": [range(ngrams.LIMIT)]})
    table = TokenCider({"a": [range(ngrams.LIMIT - 1)]})
    with pytest.raises(VocabularyTooLargeError):
        table.score({"a": ("one more",)})


def test_weighted_corpus_scores_equal_those_of_a_corpus_with_clips_repeated(
    corpus: tuple[dict[str, list[str]], dict[str, str]],
) -> None:
    references, hypotheses = corpus
    random_ = np.random.default_rng(0)
    weights = random_.multinomial(len(references), [1 / len(references)] * len(references), size=2)
    tokens = {clip: tuple(hypotheses[clip].split()) for clip in references}
    rows = TokenBleu(words(references)).statistics(list(tokens), list(tokens.values()))
    repeated = [f"{clip}/{n}" for clip, times in zip(references, weights[1], strict=True) for n in range(times)]
    drawn = {name: references[name.split("/")[0]] for name in repeated}
    score, _ = official(Bleu(4), drawn, {name: hypotheses[name.split("/")[0]] for name in repeated})
    np.testing.assert_allclose(corpus_scores("bleu", rows, weights)[1], score, rtol=0, atol=1e-12)

    scores = random_.random(len(references))
    assert corpus_mean(scores, weights)[1] == pytest.approx(np.repeat(scores, weights[1]).mean())
    assert corpus_mean(scores) == pytest.approx(scores.mean())


def test_corpus_meteor_counts_no_chunk_of_a_perfect_segment() -> None:
    # "a man rides a horse" against itself, and against "a man": replies of the jar.
    perfect = [5, 5, 2, 2, 3, 3, 2, 2, *[0] * 12, 1, 5, 5]
    partial = [2, 5, 1, 2, 1, 1, 1, 1, *[0] * 12, 1, 2, 2]
    rows = np.array([perfect, partial], float)
    assert meteor(rows)[0] == 1.0
    total = rows.sum(axis=0)
    assert corpus_scores("meteor", rows)[0] > meteor(total)
    total[20] = 1
    assert corpus_scores("meteor", rows)[0] == pytest.approx(meteor(total), abs=0)
    assert corpus_scores("meteor", rows, [[2, 0], [1, 1]])[:, 0].tolist() == [1.0, float(meteor(total))]
    assert meteor(np.zeros(23)) == 0.0


def test_the_sentence_on_a_vocabulary_names_a_way_out() -> None:
    with pytest.raises(VocabularyTooLargeError, match=r"of CIDEr and BLEU at most 65,534: .* subset="):
        ClipTable({"a": [range(ngrams.LIMIT)]})
