"""Intervals, p values, families and ties: against slow rescoring, against sacrebleu, and by simulation."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from pycocoevalcap.bleu.bleu import Bleu
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest
from scipy import stats

from bench.evaluation import resampling
from bench.evaluation.bleu import TokenBleu
from bench.evaluation.metrics import METRICS as TABLE
from bench.evaluation.metrics import PARTS
from bench.evaluation.resampling import (
    DRAWS,
    bootstrap,
    compare,
    enough,
    holm,
    interval,
    mean_ranks,
    metrics_of,
    randomise,
    resamples,
    scores,
    swaps,
    tie_groups,
)
from bench.evaluation.statistics import corpus_mean, corpus_scores

Rows = dict[str, np.ndarray]
Captions = dict[str, str]
RESAMPLED = [[2, 1, 1, 1, 0, 0, 2, 1], [2, 0, 1, 1, 2, 0, 1, 1], [1, 2, 1, 1, 2, 1, 0, 0]]
EXCHANGED = [[0, 0, 0, 0, 0, 1, 0, 0], [1, 1, 0, 1, 1, 1, 1, 0], [1, 1, 1, 0, 1, 1, 1, 1]]
METRICS = tuple(TABLE)


def outputs(random_: np.random.Generator, quality: np.ndarray) -> Rows:
    """Clip statistics as captions of this `quality` [n], 0 to 1, would have them; the best are perfect to METEOR."""
    clips = len(quality)
    words, meant = random_.integers(5, 13, (2, clips))
    correct = [random_.binomial(np.maximum(words - order, 0), quality ** (1 + order / 2)) for order in range(4)]
    guessed = [np.maximum(words - order, 0) for order in range(4)]
    matched = random_.binomial(np.minimum(words, meant), quality)
    perfect = random_.random(clips) < quality / 4
    matched, meant = np.where(perfect, words, matched), np.where(perfect, words, meant)
    function = np.minimum(2, matched)
    meteor = np.zeros((clips, 23))
    meteor[:, :4] = np.column_stack([words, meant, np.full(clips, 2), np.full(clips, 2)])
    meteor[:, 4:8] = np.column_stack([matched - function, matched - function, function, function])
    meteor[:, 20] = np.where(perfect, 1, np.minimum(matched, random_.integers(1, 5, clips)))
    meteor[:, 21:] = matched[:, None]
    return {
        "bleu": np.column_stack([*correct, *guessed, words, meant]).astype(float),
        "meteor": meteor,
        "rouge_l": quality * random_.random(clips),
        "cider": quality * random_.gamma(1.0, 1.0, clips),
    }


def system(seed: int, clips: int = 30, shift: float = 0.0) -> Rows:
    random_ = np.random.default_rng(seed)
    return outputs(random_, np.clip(random_.beta(3, 3, clips) + shift, 0, 1))


def slow_meteor(rows: Sequence[np.ndarray]) -> float:
    """METEOR of a corpus by the formula of its paper in plain numbers; perfect segments bring no chunk."""
    total = [0.0] * 23
    for row in rows:
        whole = row[21] == row[0] and row[22] == row[1] and row[20] == 1
        for number, value in enumerate(row.tolist()):
            total[number] += 0.0 if number == 20 and whole else value
    shares = []
    for side in (0, 1):
        content = sum(weight * total[4 + 4 * stage + side] for stage, weight in enumerate((1, 0.6, 0.8, 0.6)))
        function = sum(weight * total[6 + 4 * stage + side] for stage, weight in enumerate((1, 0.6, 0.8, 0.6)))
        length = 0.75 * (total[side] - total[2 + side]) + 0.25 * total[2 + side]
        shares.append((0.75 * content + 0.25 * function) / length if length else 0.0)
    precision, recall = shares
    if not precision or not recall:
        return 0.0
    mean = 1 / (0.85 / recall + 0.15 / precision)
    fragmentation = total[20] / ((total[21] + total[22]) / 2)
    return mean * (1 - 0.6 * fragmentation**0.2)


def slow(rows: Rows, clips: Sequence[int]) -> list[float]:
    """All metrics of the clips named, one by one, repeated ones counted again."""
    chosen = [rows["bleu"][clip] for clip in clips]
    return [
        *corpus_scores("bleu", np.array(chosen)),
        slow_meteor([rows["meteor"][clip] for clip in clips]),
        sum(rows["rouge_l"][clip] for clip in clips) / len(clips),
        sum(rows["cider"][clip] for clip in clips) / len(clips),
    ]


def drawn(weights: np.ndarray) -> list[int]:
    return [clip for clip, times in enumerate(weights.astype(int).tolist()) for _ in range(times)]


class TestAgainstSlowRescoring:
    def test_resamples_of_two_systems_with_their_seeds(self) -> None:
        first, second = [system(1), system(2)], [system(3), system(4), system(5)]
        found = bootstrap([first, second], "name", 20)
        assert found.shape == (2, 20, 7)
        (weights,) = resamples(30, "name", 20)
        for draw, row in enumerate(weights):
            for number, seeds in enumerate((first, second)):
                expected = np.mean([slow(rows, drawn(row)) for rows in seeds], axis=0)
                np.testing.assert_allclose(found[number, draw], expected, rtol=0, atol=1e-12)

    def test_exchanged_captions(self) -> None:
        """p counts the exchanges, done one clip at a time, that make a difference as large as the observed one."""
        first, second = system(1), system(2, shift=0.1)
        everything = range(30)
        observed = np.subtract(slow(first, everything), slow(second, everything))
        hits = np.zeros(7)
        (exchanged,) = swaps(30, "name", 50)
        for row in exchanged.astype(bool).tolist():
            kept: tuple[Rows, Rows] = ({}, {})
            for part in PARTS:
                one = [(second if swap else first)[part][clip] for clip, swap in enumerate(row)]
                other = [(first if swap else second)[part][clip] for clip, swap in enumerate(row)]
                kept[0][part], kept[1][part] = np.array(one), np.array(other)
            hits += np.abs(np.subtract(*(slow(rows, everything) for rows in kept))) >= np.abs(observed) - 1e-12
        np.testing.assert_allclose(
            randomise([[first], [second]], "name", 50)[0, 1], (hits + 1) / 51, rtol=0, atol=1e-12
        )

    def test_the_p_of_the_bootstrap_counts_resamples_on_both_sides(self) -> None:
        """Those whose difference lies as far from the observed one as this lies from 0, above or below."""
        first, second = system(1), system(2, shift=0.02)
        found = compare([first], [second], "name", 200)
        (weights,) = resamples(30, "name", 200)
        below, above = np.zeros(7), np.zeros(7)
        observed = np.subtract(slow(first, range(30)), slow(second, range(30)))
        for row in weights:
            moved = np.subtract(slow(first, drawn(row)), slow(second, drawn(row))) - observed
            below += moved <= -np.abs(observed) + 1e-12
            above += moved >= np.abs(observed) - 1e-12
        assert [found[metric].p_bootstrap for metric in METRICS] == pytest.approx((below + above + 1) / 201, abs=1e-12)
        assert (below > 0).any() and (above > 0).any()

    @pytest.mark.parametrize("clips", [2, 8, 100])
    def test_the_interval_is_hesterbergs(self, clips: int) -> None:
        """Quantiles at Phi(-sqrt(n / (n - 1)) t), t that of Student with n - 1 degrees of freedom."""
        samples = np.linspace(0.0, 1.0, 10_001)[::-1, None]  # the quantile at q is q
        low, high = interval(samples, clips)
        below = stats.norm.cdf(-math.sqrt(clips / (clips - 1)) * stats.t.ppf(0.975, clips - 1))
        assert (low.item(), high.item()) == pytest.approx((below, 1 - below), abs=1e-12)

    def test_bleu_of_captions_that_were_drawn_again(self) -> None:
        """From captions to resamples: pycocoevalcap scores each resample as a corpus of its own."""
        references, one, _ = captions(25)
        rows = bleu_rows(references, one)
        found = bootstrap([[rows]], "captions", 5)[0]
        (weights,) = resamples(25, "captions", 5)
        for draw, row in enumerate(weights):
            clips = [list(references)[clip] for clip in drawn(row)]
            again = {f"{clip}/{number}": clip for number, clip in enumerate(clips)}
            said = {name: [one[clip]] for name, clip in again.items()}
            meant = {name: references[clip] for name, clip in again.items()}
            expected, _ = Bleu(4).compute_score(meant, said, verbose=0)
            np.testing.assert_allclose(found[draw], expected, rtol=0, atol=1e-12)

    def test_scores_without_draws_are_the_corpus_scores(self) -> None:
        rows = system(7)
        expected = [
            *corpus_scores("bleu", rows["bleu"]),
            *corpus_scores("meteor", rows["meteor"]),
            *(corpus_mean(rows[n]) for n in METRICS[5:]),
        ]
        assert list(scores([rows])) == list(METRICS)
        np.testing.assert_allclose(list(scores([rows]).values()), expected, rtol=0, atol=1e-14)

    def test_a_part_alone_gives_its_metrics(self) -> None:
        first, second = system(1), system(2)
        whole = compare([first], [second], "name", 100)
        alone = compare([{"meteor": first["meteor"]}], [{"meteor": second["meteor"]}], "name", 100)
        assert alone == {"meteor": whole["meteor"]}
        assert metrics_of({"cider": first["cider"], "bleu": first["bleu"]}) == (*METRICS[:4], "cider")


def captions(clips: int, seed: int = 0) -> tuple[dict[str, list[str]], Captions, Captions]:
    """References, and captions of two systems, of words of one letter."""
    random_ = random.Random(seed)

    def text() -> list[str]:
        return random_.choices("abcdef", weights=range(6, 0, -1), k=random_.randint(6, 11))

    references = {f"clip{number}": [" ".join(text()) for _ in range(3)] for number in range(clips)}

    def said(errors: int) -> Captions:
        found = {}
        for clip, texts in references.items():
            words = random_.choice(texts).split()
            for _ in range(errors):
                words[random_.randrange(len(words))] = random_.choice("abcdef")
            found[clip] = " ".join(words)
        return found

    return references, said(2), said(3)


def bleu_rows(references: dict[str, list[str]], said: Captions) -> Rows:
    tokens = {clip: [tuple(text.split()) for text in texts] for clip, texts in references.items()}
    return {"bleu": TokenBleu(tokens).statistics(list(said), [tuple(text.split()) for text in said.values()])}


class TestAgainstSacrebleu:
    """The settings that coincide: tokens as they are, no smoothing, closest references, the same draws."""

    CLIPS, DRAWS = 60, 300

    @pytest.fixture(params=[2, 4], ids=["BLEU-2", "BLEU-4"])
    def order(self, request: pytest.FixtureRequest) -> int:
        return int(request.param)

    def theirs(self, test: str, order: int) -> tuple[list[Rows], list[object]]:
        references, one, other = captions(self.CLIPS)
        metric = BLEU(smooth_method="none", tokenize="none", max_ngram_order=order)
        lists = [[texts[number] for texts in references.values()] for number in range(3)]
        systems = [("one", list(one.values())), ("other", list(other.values()))]
        _, found = PairedTest(systems, {"BLEU": metric}, lists, test_type=test, n_samples=self.DRAWS)()
        (results,) = [value for name, value in found.items() if name != "System"]
        return [bleu_rows(references, one), bleu_rows(references, other)], results

    def test_paired_bootstrap(self, order: int, monkeypatch: pytest.MonkeyPatch) -> None:
        rows, results = self.theirs("bs", order)
        places = np.random.default_rng(12345).choice(self.CLIPS, size=(self.DRAWS, self.CLIPS), replace=True)
        weights = np.stack([np.bincount(row, minlength=self.CLIPS) for row in places]).astype(float)
        monkeypatch.setattr(resampling, "resamples", lambda clips, name, count: [weights])
        samples = 100 * bootstrap([[rows[0]], [rows[1]]], "", self.DRAWS)[..., order - 1]
        for ours, theirs in zip(samples, results, strict=True):
            assert np.mean(ours) == pytest.approx(theirs.mean, abs=1e-4)  # type: ignore[attr-defined]
            ordered, cut = np.sort(ours), self.DRAWS // 40
            assert (ordered[-cut - 1] - ordered[cut]) / 2 == pytest.approx(theirs.ci, abs=1e-4)  # type: ignore[attr-defined]
        for number, theirs in enumerate(results):
            ours = 100 * scores([rows[number]])[f"bleu{order}"]
            assert ours == pytest.approx(theirs.score, abs=1e-5)  # type: ignore[attr-defined]
        # Its p shifts absolute differences by their mean, as Moses does; ours is two-sided about the observed difference.
        apart = np.abs(samples[1] - samples[0])
        observed = abs(results[0].score - results[1].score)  # type: ignore[attr-defined]
        p = ((apart - apart.mean() > observed).sum() + 1) / (self.DRAWS + 1)
        assert p == pytest.approx(results[1].p_value, abs=1e-12)  # type: ignore[attr-defined]

    def test_approximate_randomisation(self, order: int, monkeypatch: pytest.MonkeyPatch) -> None:
        rows, results = self.theirs("ar", order)
        exchanged = np.random.default_rng(12345).integers(2, size=(self.DRAWS, self.CLIPS), dtype=bool)
        monkeypatch.setattr(resampling, "swaps", lambda clips, name, count: [exchanged.astype(float)])
        p = randomise([[rows[0]], [rows[1]]], "", self.DRAWS)[0, 1, order - 1]
        assert p == pytest.approx(results[1].p_value, abs=1e-12)  # type: ignore[attr-defined]
        assert 1 / (self.DRAWS + 1) < p < 1


class TestBySimulation:
    """400 studies; what is counted in them may leave its expectation by what a binomial of 400 leaves it in 999 of 1,000."""

    STUDIES = 400

    def allowed(self, share: float) -> tuple[float, float]:
        return tuple(stats.binom.ppf([0.0005, 0.9995], self.STUDIES, share))

    @pytest.mark.parametrize("clips", [10, 100])
    def test_the_interval_holds_the_true_difference_in_95_of_100_studies(self, clips: int) -> None:
        random_ = np.random.default_rng(0)
        quality = random_.beta(3, 3, 5000)
        worlds = [outputs(random_, quality), outputs(random_, np.clip(quality + 0.05, 0, 1))]
        truth = np.subtract(*(list(scores([world]).values()) for world in worlds))
        held = np.zeros(7)
        for study in range(self.STUDIES):
            chosen = random_.integers(0, 5000, clips)
            pair = [[{part: rows[chosen] for part, rows in world.items()}] for world in worlds]
            samples = bootstrap(pair, f"study {study}", 400)
            low, high = interval(samples[0] - samples[1], clips)
            held += (low <= truth) & (truth <= high)
        low, high = self.allowed(0.95)
        assert ((held >= low) & (held <= high)).all(), dict(zip(METRICS, held, strict=True))

    @pytest.mark.parametrize("seeds", [1, 2])
    def test_p_is_uniform_where_nothing_differs(self, seeds: int) -> None:
        """Two systems of the same quality, each with clips that all its seeds do well: a clip's exchange is a fair coin."""
        random_ = np.random.default_rng(1)
        found = []
        for study in range(self.STUDIES):
            hard = random_.beta(3, 3, 40)
            taste = [np.clip(hard + random_.normal(0, 0.1, 40), 0, 1) for _ in range(2)]
            pair = [[outputs(random_, quality) for _ in range(seeds)] for quality in taste]
            found.append(randomise(pair, f"study {study}", 199)[0, 1])
        p = np.array(found)
        for share in (0.05, 0.5):
            low, high = self.allowed(share)
            below = (p <= share).sum(axis=0)
            assert ((below >= low) & (below <= high)).all(), (share, dict(zip(METRICS, below, strict=True)))
        assert all(stats.kstest(column, "uniform").pvalue > 0.001 for column in p.T)

    def test_what_differs_is_found(self) -> None:
        random_ = np.random.default_rng(2)
        quality = random_.beta(3, 3, 200)
        found = compare([outputs(random_, quality)], [outputs(random_, np.clip(quality + 0.2, 0, 1))], "name", 999)
        assert all(one.high < 0 and one.p == one.p_bootstrap == 1 / 1000 for one in found.values())


class TestEdges:
    def test_identical_systems(self) -> None:
        rows, twin = system(1), system(1)
        for first, second in (([rows], [twin]), ([rows, system(2)], [system(2), twin])):
            for one in compare(first, second, "name", 200).values():
                assert (one.p, one.p_bootstrap) == (1.0, 1.0)
                assert abs(one.difference) < 1e-12 and abs(one.low) < 1e-12 and abs(one.high) < 1e-12

    def test_a_single_clip_tells_nothing(self) -> None:
        for one in compare([system(1, clips=1)], [system(2, clips=1)], "name", 100).values():
            assert math.isnan(one.low) and math.isnan(one.high)
            assert (one.p, one.p_bootstrap) == (1.0, 1.0)

    def test_a_single_draw(self) -> None:
        for one in compare([system(1)], [system(2)], "name", 1).values():
            assert one.low == one.high
            assert one.p in (0.5, 1.0) and one.p_bootstrap in (0.5, 1.0)

    def test_perfect_segments_bring_no_chunk(self) -> None:
        """A system of perfect captions keeps METEOR 1 in every resample; a plain sum of chunks would not give it."""
        perfect = np.array([5, 5, 2, 2, 3, 3, 2, 2, *[0] * 12, 1, 5, 5], float)
        partial = np.array([2, 5, 1, 2, 1, 1, 1, 1, *[0] * 12, 1, 2, 2], float)
        best, mixed = {"meteor": np.array([perfect] * 4)}, {"meteor": np.array([perfect, partial] * 2)}
        samples = bootstrap([[best], [mixed]], "name", 50)
        assert (samples[0] == 1.0).all() and (samples[1] <= 1.0).all()
        (weights,) = resamples(4, "name", 50)
        for row, found in zip(weights, samples[1, :, 0], strict=True):
            assert found == pytest.approx(slow_meteor([mixed["meteor"][clip] for clip in drawn(row)]), abs=1e-14)
        assert best["meteor"][0, 20] == 1, "the statistics that were given stay as they are"

    def test_seeds_are_averaged_and_may_be_of_different_number(self) -> None:
        first, second = [system(1), system(2)], [system(3), system(4), system(5)]
        found = compare(first, second, "name", 200)
        for metric, one in found.items():
            assert one.first == pytest.approx(np.mean([scores([rows])[metric] for rows in first]))
            assert one.difference == pytest.approx(one.first - one.second)
            assert one.low <= one.difference <= one.high
        # Every pairing of 2 and 3 seeds once: the same as six seeds of each, written out.
        six = [[seeds[number % len(seeds)] for number in range(6)] for seeds in (first, second)]
        np.testing.assert_allclose(randomise([first, second], "n", 99), randomise(six, "n", 99), rtol=0, atol=0)

    @pytest.mark.parametrize(
        "systems",
        [[[system(1)], [system(1, clips=20)]], [[system(1)], [{"cider": system(1)["cider"]}]], [[system(1)], []]],
    )
    def test_what_does_not_fit_together_is_refused(self, systems: list[list[Rows]]) -> None:
        with pytest.raises(ValueError, match="other clips or statistics, or no seeds"):
            bootstrap(systems, "name", 10)


class TestDraws:
    def test_the_same_name_draws_the_same_on_every_machine(self) -> None:
        """Numbers written down once: a change of numpy or of ours that moves them changes pages."""
        (weights,) = resamples(8, "clips", 3)
        assert weights.astype(int).tolist() == RESAMPLED
        (exchanged,) = swaps(8, "clips", 3)
        assert exchanged.astype(int).tolist() == EXCHANGED
        assert not np.array_equal(next(resamples(8, "others", 3)), weights)

    def test_chunks_hold_all_draws(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resampling, "BLOCK", 70)
        for draws in (resamples, swaps):
            parts = list(draws(10, "name", 100))
            assert [len(part) for part in parts] == [7] * 14 + [2]
        whole = np.concatenate(list(resamples(10, "name", 100)))
        assert (whole.sum(axis=1) == 10).all()
        assert len(np.unique(whole, axis=0)) == 100
        first = system(1, clips=10)
        assert bootstrap([[first]], "name", 100).shape == (1, 100, 7)

    def test_clips_are_drawn_evenly(self) -> None:
        weights = np.concatenate(list(resamples(7, "name", 20_000)))
        assert stats.chisquare(weights.sum(axis=0)).pvalue > 0.001
        exchanged = np.concatenate(list(swaps(7, "name", 20_000)))
        assert stats.chisquare([exchanged.sum(), (1 - exchanged).sum()]).pvalue > 0.001
        pairs = np.bincount((exchanged[:, :2] @ [1, 2]).astype(int), minlength=4)
        assert stats.chisquare(pairs).pvalue > 0.001, "the exchanges of two clips have nothing to do with each other"


class TestFamilies:
    @pytest.mark.parametrize(
        ("p", "corrected"),
        [
            ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
            ([0.5, 0.9], [1.0, 1.0]),
            ([0.02], [0.02]),
            ([], []),
            ([0.01, 0.01], [0.02, 0.02]),
        ],
    )
    def test_holm(self, p: list[float], corrected: list[float]) -> None:
        assert holm(p).tolist() == pytest.approx(corrected)

    def test_ties_with_the_best_then_with_the_best_of_the_rest(self) -> None:
        score = [20.0, 30.0, 29.0, 21.0]
        p = np.ones((4, 4))
        for one, other in product((0, 3), (1, 2)):
            p[one, other] = p[other, one] = 0.001
        assert tie_groups(score, p) == [2, 1, 1, 2]
        p[0, 3] = p[3, 0] = 0.001
        assert tie_groups(score, p) == [3, 1, 1, 2]
        assert tie_groups([1.0], np.ones((1, 1))) == [1]
        assert tie_groups([5.0, 5.0], np.full((2, 2), 0.001)) == [1, 2], "equal scores can still be told apart"

    def test_ties_are_corrected_over_all_pairs(self) -> None:
        """0.02 alone would tell two systems apart; as the smallest of three pairs it does not."""
        p = np.ones((3, 3))
        p[0, 1] = p[1, 0] = 0.02
        assert tie_groups([3.0, 2.0, 1.0], p) == [1, 1, 1]
        p[0, 1] = p[1, 0] = 0.016
        assert tie_groups([3.0, 2.0, 1.0], p) == [1, 2, 1]

    @pytest.mark.parametrize(
        ("systems", "below", "groups"),
        [
            (2, {(0, 1): 0.03}, [1, 2]),  # the only pair: nothing to correct
            (2, {(0, 1): 0.05}, [1, 1]),  # below 5 %, not at it
            (4, {(0, 1): 0.009}, [1, 1, 1, 1]),  # six pairs, not four systems and not the three pairs with the best
            (4, {(0, 1): 0.008}, [1, 2, 1, 1]),
            (4, {(0, 1): 0.001, (0, 2): 0.0099}, [1, 2, 2, 1]),  # the second smallest of six is multiplied by five
            (4, {(0, 1): 0.001, (0, 2): 0.0101}, [1, 2, 1, 1]),
            (4, {(2, 3): 0.001, (0, 1): 0.0099}, [1, 2, 1, 1]),  # a pair without the best is of the family, too
            (4, {(0, 1): 0.0105, (0, 2): 0.001, (0, 3): 0.0102}, [1, 1, 2, 1]),  # one that fails stops all that follow
        ],
    )
    def test_ties_are_those_of_holms_steps(
        self, systems: int, below: dict[tuple[int, int], float], groups: list[int]
    ) -> None:
        p = np.ones((systems, systems))
        for (one, other), value in below.items():
            p[one, other] = p[other, one] = value
        assert tie_groups(np.arange(systems, 0, -1.0), p) == groups

    def test_a_table_of_systems(self) -> None:
        """All pairs at once give what each pair gives alone."""
        table = [[system(1)], [system(2), system(3)], [system(4, shift=0.3)]]
        p = randomise(table, "name", 500)
        assert p.shape == (3, 3, 7)
        np.testing.assert_array_equal(p, p.transpose(1, 0, 2))
        np.testing.assert_array_equal(np.diagonal(p), np.ones((7, 3)))
        np.testing.assert_array_equal(randomise([table[0], table[2]], "name", 500)[0, 1], p[0, 2])
        column = METRICS.index("bleu4")
        assert tie_groups([scores(seeds)["bleu4"] for seeds in table], p[..., column]) == [2, 2, 1]

    @pytest.mark.parametrize("systems", [2, 10, 31, 40, 80])
    def test_draws_suffice_for_the_smallest_p_to_count(self, systems: int) -> None:
        pairs, draws = systems * (systems - 1) // 2, enough(systems)
        assert draws >= DRAWS
        assert pairs / (draws + 1) < 0.05

    def test_mean_ranks_over_complete_sets(self) -> None:
        table = [[30.0, 3.0, 1.0], [20.0, 3.0, 2.0], [99.0, math.nan, 9.0], [10.0, 1.0, 3.0]]
        found = mean_ranks(table)
        assert found[[0, 1, 3]].tolist() == pytest.approx([(1 + 1.5 + 3) / 3, (2 + 1.5 + 2) / 3, (3 + 3 + 1) / 3])
        assert math.isnan(found[2])
        assert mean_ranks([table, table]).shape == (2, 4)
        assert mean_ranks([[1.0]]).tolist() == [1.0]
        whole = np.random.default_rng(0).integers(0, 4, (6, 5)).astype(float)
        np.testing.assert_allclose(mean_ranks(whole), stats.rankdata(-whole, axis=0).mean(axis=1))
