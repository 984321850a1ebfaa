"""GL-RG's boosting: its baselines against enumeration of a two-word language, its phases in the loop, what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from oracles import glrg
from support import DiedError, FakeRun, Toy, digest, make_clips, one_batch
from test_methods import SMALL, build, clips_for, phases_of, run_of, settings_of, shares_of
from test_reinforce import LANGUAGE, MAX_WORDS, VALUE, WORDS, TableReward, flat_gradient, language_batch, log_p, toy
from torch import Tensor

from bench.data.batches import CorpusClips
from bench.method import Batch, Search
from bench.nn.sampling import Sampled, sample
from bench.training import BASELINES, Baseline, CaptionReward, Draw, caption_weights, reinforce_phase
from methods.glrg.boosting import TOP, choose_baseline, references_baseline, samples_baseline

DRAWN = 3  # captions of the clip; tuples of them can be enumerated
DRAWS = 600
ROWS = sorted(LANGUAGE, key=len, reverse=True)
VALUES = [VALUE[caption] for caption in ROWS]


def two_word_clips() -> CorpusClips:
    """The clip whose captions are drawn, and others that give CIDEr its document frequencies."""
    return make_clips((4, 3, 2), [[1, 2, 2], [2, 1, 2], [1, 1, 2]], words=WORDS, seed=4)


def first_clip(clips: CorpusClips) -> Batch:
    """The caption slots of the first clip."""
    batch = one_batch(clips, torch.float64)
    rows = (batch.clip_of_B == batch.clip_ids.index(clips.ids[0])).nonzero().flatten()
    words, lengths = batch.words_BW[rows], batch.lengths_B[rows]
    names = tuple(batch.caption_ids[row] for row in rows.tolist())
    return Batch(batch.clip_ids, batch.streams, batch.masks, names, batch.clip_of_B[rows], words, lengths)


class Shifted(TableReward):
    """The table, on a scale at which b1 is a fair guess of its mean."""

    def __init__(self, about: float) -> None:
        self.shift = about - 3.0

    def __call__(self, sampled: Sampled) -> np.ndarray:
        return super().__call__(sampled) + self.shift


def world() -> tuple[Toy, Batch, dict[str, Baseline], Shifted]:
    clips = two_word_clips()
    weights = caption_weights(clips, "cider")
    about = np.mean([weights[one.id] for one in clips.references(clips.ids[0])])
    assert about > 1, "b1 must be far from zero, or it would be no baseline at all"
    baselines = {
        "none": BASELINES["none"],
        "scst": BASELINES["greedy"],
        "b1": references_baseline(clips),
        "b2": samples_baseline(2),
        "others": BASELINES["others"],
    }
    return toy(), first_clip(clips), baselines, Shifted(float(about))


@pytest.fixture(scope="module")
def estimates() -> dict[str, Tensor]:
    """For each baseline many estimates of the gradient, one row each."""
    captioner, batch, baselines, reward = world()
    run = FakeRun(1, {"boost": 1.0})
    run.search = Search(max_words=MAX_WORDS)
    found = {}
    for name, baseline in baselines.items():
        phase = reinforce_phase(captioner, run, reward, baseline, "boost")
        torch.manual_seed(11)
        found[name] = torch.stack([flat_gradient(captioner, phase.loss(batch)["loss"]) for _ in range(DRAWS)])
    return found


def gradient(advantages: list[float]) -> Tensor:
    """-sum_S p(S) A(S) grad log p(S) over the language, of the clip whose captions are drawn."""
    captioner, batch, _, _ = world()
    every = language_batch(batch)
    every.clip_of_B = torch.full_like(every.clip_of_B, int(batch.clip_of_B[0]))
    log_p_S = log_p(captioner, every)
    return flat_gradient(captioner, -(log_p_S.exp().detach() * log_p_S.new_tensor(advantages) * log_p_S).sum())


def likely() -> list[float]:
    captioner, batch, _, _ = world()
    every = language_batch(batch)
    every.clip_of_B = torch.full_like(every.clip_of_B, int(batch.clip_of_B[0]))
    return log_p(captioner, every).exp().tolist()


def enumerated(baseline: glrg.Baseline) -> Tensor:
    """The gradient that a baseline gives on average, over all tuples of drawn captions."""
    _, _, _, reward = world()
    values = [value + reward.shift for value in VALUES]
    return gradient(glrg.expected_advantages(likely(), values, DRAWN, baseline))


def exact() -> Tensor:
    """The gradient of -E[r(S)]."""
    return enumerated(lambda rewards: [0.0] * len(rewards))


def assert_mean(found: Tensor, expected: Tensor) -> None:
    """The mean of many estimates is the expected gradient, within three errors of the mean, also along its direction."""
    error = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - expected).abs() <= 3 * error + 1e-12).double().mean() > 0.98
    slopes = found @ (expected / expected.norm())
    error_along = slopes.std() / math.sqrt(len(slopes))
    assert abs(slopes.mean() - expected.norm()) < 3 * error_along
    assert expected.norm() > 4 * error_along, "the direction must be distinguishable from zero"


@pytest.mark.parametrize("name", ["none", "scst", "b1", "others"])
def test_policy_gradient_is_unbiased(estimates: dict[str, Tensor], name: str) -> None:
    assert_mean(estimates[name], exact())


def test_policy_gradient_of_b2_is_its_own_expectation(estimates: dict[str, Tensor]) -> None:
    assert_mean(estimates["b2"], enumerated(lambda rewards: glrg.best_of(rewards, 2)))


def test_b2_is_biased_and_the_mean_of_the_others_is_not() -> None:
    true, others = exact(), enumerated(glrg.mean_of_others)
    torch.testing.assert_close(others, true, rtol=1e-10, atol=1e-12)
    for count in (1, 2, None):
        found = enumerated(lambda rewards, count=count: glrg.best_of(rewards, count))  # type: ignore[misc]
        bias = ((found - others).norm() / others.norm()).item()
        print(f"Q={count or 'all'} of {DRAWN}: the gradient is off by {bias:.1%} of the exact one")
        assert bias > 0.1


def test_b2_of_all_drawn_captions_shrinks_the_gradient() -> None:
    """b holds 1/n of the own reward, and nothing else in it depends on the caption: (n - 1) / n of the gradient is left."""
    found = enumerated(lambda rewards: glrg.best_of(rewards, None))
    torch.testing.assert_close(found, exact() * (DRAWN - 1) / DRAWN, rtol=1e-10, atol=1e-12)


def test_the_gradient_without_a_baseline_is_the_noisiest(estimates: dict[str, Tensor]) -> None:
    noise = {name: found.var(0).sum().item() for name, found in estimates.items()}
    assert noise["none"] > 1.5 * max(value for name, value in noise.items() if name != "none"), noise


# -- what b is ---------------------------------------------------------------------------------------------------------


def drawn(clips: CorpusClips, rewards: list[float] | None = None) -> Draw:
    torch.manual_seed(1)
    captioner, batch = Toy(4 + 9, 5, 3), one_batch(clips)
    sampled = sample(captioner, batch, 6)
    reward = CaptionReward.of_clips(clips)
    found = reward(sampled) if rewards is None else np.array(rewards)
    return Draw(captioner, batch, sampled, found, reward, 6)


def many_clips() -> CorpusClips:
    return make_clips((4, 3, 2), [[3, 5, 4, 2, 3, 6, 4], [2, 6], [4, 4, 4]], words=9, seed=5)


@pytest.mark.parametrize("slots", [None, 2])
def test_b1_is_the_mean_score_of_the_references_of_the_clip(slots: int | None) -> None:
    clips = many_clips()
    draw = drawn(clips)
    weights = caption_weights(clips, "cider")
    scores = {clip: [weights[one.id] for one in clips.references(clip)][:slots] for clip in clips.ids}
    expected = [sum(scores[clip]) / len(scores[clip]) for clip in draw.sampled.clips()]
    assert references_baseline(clips, slots)(draw).tolist() == pytest.approx(expected, abs=1e-12)
    assert len(set(expected)) == 3


@pytest.mark.parametrize("count", [1, 2, 5, None, 100])
@pytest.mark.parametrize("highest", [True, False], ids=["best", "worst"])
def test_b2_is_the_mean_of_the_best_drawn_captions_of_the_clip(count: int | None, highest: bool) -> None:
    draw = drawn(many_clips())
    found, clips = samples_baseline(count, highest)(draw), np.array(draw.sampled.clips())
    for clip in set(clips):
        own = draw.rewards[clips == clip].tolist()
        assert found[clips == clip].tolist() == pytest.approx(glrg.best_of(own, count, highest), abs=1e-12)
    assert len(set(draw.rewards[clips == "c0"])) > 5


def chosen(mode: str, baseline: str, count: int | None) -> np.ndarray:
    clips = many_clips()
    settings = {"mode": mode, "baseline": baseline, "top_samples": count}
    return choose_baseline(settings, clips, 2)(drawn(clips))


def test_the_paper_takes_the_best_five_and_the_code_all_or_the_worst() -> None:
    draw, clips = drawn(many_clips()), many_clips()
    assert TOP == 5
    for mode, count, expected in [
        ("paper", None, samples_baseline(5)),
        ("paper", 2, samples_baseline(2)),
        ("official", None, samples_baseline(None)),
        ("official", 2, samples_baseline(2, highest=False)),
    ]:
        assert chosen(mode, "b2", count).tolist() == pytest.approx(expected(draw).tolist(), abs=1e-12)
    assert chosen("paper", "b1", None).tolist() == references_baseline(clips)(draw).tolist()
    assert chosen("official", "b1", None).tolist() == references_baseline(clips, 2)(draw).tolist()
    assert (chosen("paper", "none", None) == 0).all()
    assert chosen("paper", "others", None).tolist() == BASELINES["others"](draw).tolist()
    assert chosen("paper", "scst", None).tolist() == BASELINES["greedy"](draw).tolist()


def test_with_fewer_captions_than_drawn_the_mean_advantage_of_b2_is_never_positive() -> None:
    draw = drawn(many_clips())
    for count in (1, 2, 3):
        assert (draw.rewards - samples_baseline(count)(draw)).mean() < 0
    assert (draw.rewards - samples_baseline(None)(draw)).mean() == pytest.approx(0, abs=1e-12)


# -- in the loop -------------------------------------------------------------------------------------------------------

BOOSTED = ["xe_b2", "dxe_none", "dxe_scst", "dxe_b1", "dxe_b2", "dxe_others"]
MODES = ["paper", "official"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("variant", BOOSTED)
def test_boosting_starts_from_the_seed_at_its_own_rate(variant: str, mode: str) -> None:
    clips = clips_for("glrg", ("words", "actions", "objects"))
    model = build("glrg", variant, clips, mode=mode, **SMALL)
    seed, boost = phases_of(model, "glrg", variant, clips)
    assert (seed.name, boost.name) == ("seed", "boost")
    assert boost.train == {"optimizer": "adam", "learning_rate": 1e-4}
    assert ("discrepant_cross_entropy" in seed.loss(one_batch(clips))) == (variant != "xe_b2")
    told = boost.loss(one_batch(clips))
    assert {"loss", "reward", "baseline"} <= told.keys()
    assert (told["baseline"] == 0) == (variant == "dxe_none")


@pytest.mark.parametrize("mode", MODES)
def test_boosting_leaves_the_word_network_alone(mode: str) -> None:
    clips = clips_for("glrg", ("frames",))
    model = build("glrg", "dxe_b2", clips, mode=mode, **SMALL)
    _, _, boost = phases_of(model, "glrg", "dxe_b2", clips)
    boost.loss(one_batch(clips))["loss"].backward()
    assert all(value.grad is None for value in model.module.word_network.parameters())
    assert {id(value) for value in boost.parameters()} == {id(value) for value in model.module.decoder.parameters()}


@pytest.mark.parametrize("mode", MODES)
def test_the_reward_rises(mode: str) -> None:
    clips = make_clips((1, 1, 1), [[3, 3, 2], [2, 4, 4], [5, 3, 3]], {"words": (300,)}, words=5, seed=2)
    run = FakeRun(9 * 60, {"seed": 0.05, "boost": 0.95}, {"captions_per_clip": 3, "captions": 9})
    build("glrg", "dxe_b2", clips, ranges="long", mode=mode, boost_rate=0.02, **SMALL).fit(clips, run)
    rewards = [values["reward"] for phase, _, values in run.reports if phase == "boost"]
    assert np.mean(rewards[-10:]) > 1.3 * np.mean(rewards[:5])


@pytest.mark.parametrize("variant", ["dxe_none", "dxe_scst", "dxe_b1", "dxe_b2", "dxe_others"])
@pytest.mark.parametrize("mode", MODES)
def test_resume_is_exact_in_every_phase(variant: str, mode: str) -> None:
    """The drawn captions, the dropout and the dealt weights go on where the dead process stopped."""
    more: dict[str, Any] = {"mode": mode, "boost_rate": 0.01, "truth_schedule": "paper", **SMALL}
    train = {"captions_per_clip": 2, "captions": 4}
    sizes = [[3, 1, 2], [2, 4, 4], [2, 3, 1]]
    clips = make_clips((1, 1, 1), sizes, {"words": (300,), "actions": (6,), "objects": (9,)})

    def fitted(**run: Any) -> FakeRun:
        made = FakeRun(72, {"seed": 0.5, "boost": 0.5}, train, score=lambda method: 1.0, **run)
        model = build("glrg", variant, clips, **more)
        torch.manual_seed(5 if made.saved is None else 99)
        try:
            model.fit(clips, made)
        except DiedError:
            return made
        weights.append(digest(model.state_dict()))
        return made

    weights: list[str] = []
    whole = fitted()
    for die_at in range(4, whole.calls, 9):
        first = fitted(die_at=die_at)
        if first.saved is not None:
            fitted(saved=first.saved)
    assert len(weights) > 3
    assert len(set(weights)) == 1


# -- the schedule of eq. 6 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["paper", "usual"])
def test_truth_is_fed_back_by_the_schedule(schedule: str) -> None:
    clips = make_clips((1, 1), [[1, 1], [1, 2]], {"words": (300,)})
    model = build("glrg", "xe", clips, ranges="long", truth_schedule=schedule, **SMALL)
    run = FakeRun(4 * 45, {"words": 0.2, "seed": 0.8}, {"captions_per_clip": 2, "captions": 4})
    model.fit(clips, run)
    found = [values["truth"] for _, _, values in run.reports]
    assert found == pytest.approx(glrg.truth(schedule, 45), abs=1e-6)
    assert max(found) == 1 and (min(found) == 0) == (schedule == "paper")


def test_own_words_are_fed_word_by_word_at_the_chance_of_the_epoch() -> None:
    """At the chance 1 the loss is that of the truth; at 0 no true word is left behind the first; between, some are."""
    clips = make_clips((1,), [[4] * 400], {"words": (300,)}, words=7)
    model = build("glrg", "xe", clips, ranges="long", truth_schedule="paper", **SMALL, dropout=0.0)
    (phase,) = phases_of(model, "glrg", "xe", clips)
    plain = build("glrg", "xe", clips, ranges="long", **SMALL, dropout=0.0)
    (truth,) = phases_of(plain, "glrg", "xe", clips)
    batch = one_batch(clips)
    fed: list[Tensor] = []
    step = model.captioner.step
    model.captioner.step = lambda words, state, memory: (fed.append(words), step(words, state, memory))[1]
    assert phase.begin is not None
    kept = {}
    for epoch, chance in ((0, 0.0), (10, 0.5), (20, 1.0)):
        fed.clear()
        phase.begin(epoch)
        loss = phase.loss(batch)["loss"]
        inputs = torch.stack(fed[1:], 1)
        kept[chance] = (inputs == batch.words_BW[:, 1:5]).double().mean().item()
        assert (fed[0] == batch.words_BW[:, 0]).all()
    assert torch.equal(loss, truth.loss(batch)["loss"])
    assert kept[1.0] == 1
    assert kept[0.0] < 0.3, "the model knows nothing yet: its own word is the true one by accident"
    assert kept[0.5] == pytest.approx((1 + kept[0.0]) / 2, abs=0.06)


# -- what cannot be ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "settings", "train", "sentence"),
    [
        ("dxe", {"baseline": "b1"}, {}, r"baseline=b1 and the phases words, seed: .*run a variant that boosts"),
        ("dxe_b2", {"baseline": None}, {}, "no baseline and the phases words, seed, boost"),
        ("dxe_b1", {"top_samples": 3}, {}, r"glrg\.Q=3 counts the captions of b2, and the baseline is b1"),
        ("dxe_b2", {}, {"captions_per_clip": 1}, r"with train\.captions_per_clip=1"),
        ("xe", {"truth_schedule": "usual"}, {"scheduled_sampling": 0.25}, r"scheduled_sampling=0\.25 for all"),
    ],
)
def test_settings_that_contradict_the_run_are_refused(
    variant: str, settings: dict[str, Any], train: dict[str, Any], sentence: str
) -> None:
    clips = clips_for("glrg")
    model = build("glrg", variant, clips, **settings, **SMALL)
    with pytest.raises(ValueError, match=sentence):
        model.phases(clips, run_of("glrg", variant, **train))


def test_the_authors_beam_has_its_own_order() -> None:
    clips = clips_for("glrg")
    run = run_of("glrg", "dxe")
    run.search = Search(length_rule="mean")
    with pytest.raises(ValueError, match=r"ranks beams by perplexity, and search\.length_rule=mean"):
        build("glrg", "dxe", clips, mode="official", **SMALL).phases(clips, run)


def test_defaults_are_the_papers_text() -> None:
    settings = settings_of("glrg", "dxe_b2")
    assert (settings["mode"], settings["truth_schedule"], settings["top_samples"]) == ("paper", "none", None)
    assert sum(shares_of("glrg", "dxe_b2").values()) == pytest.approx(1)
