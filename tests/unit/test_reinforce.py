"""Drawing captions, rewarding them, and the policy gradient against enumeration of a two-word language."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from pycocoevalcap.cider.cider import Cider
from support import DiedError, FakeRun, Toy, digest, make_clips, one_batch, spoken, vocabulary_of
from torch import Tensor, nn

from bench.data.batches import CorpusClips
from bench.method import BOS, EOS, PAD, Batch, Search
from bench.nn.beam import NEVER, beam_search
from bench.nn.captioners import SoftAttention
from bench.nn.decoding import Forced, cross_entropy, teacher_forcing, word_losses
from bench.nn.sampling import Sampled, greedy, sample
from bench.training import (
    BASELINES,
    Baseline,
    CaptionModel,
    CaptionReward,
    Draw,
    Losses,
    Phase,
    base_phases,
    fit_phases,
    reinforce_phase,
    self_critical_phase,
)

WORDS = 2
MAX_WORDS = 2
LANGUAGE = [
    *((*words, EOS) for length in range(MAX_WORDS) for words in itertools.product((4, 5), repeat=length)),
    *itertools.product((4, 5), repeat=MAX_WORDS),
]
"""Every caption that can be drawn: shorter ones end, the longest are cut before their end."""


def toy(dtype: torch.dtype = torch.float64) -> Toy:
    torch.manual_seed(3)
    return Toy(4 + WORDS, 5, 3, spread=0.8).to(dtype)


def world(captions: int = 6, seed: int = 0) -> tuple[CorpusClips, Batch]:
    clips = make_clips((4, 3), [[1] * captions, [2] * captions], words=WORDS, seed=seed)
    return clips, one_batch(clips, torch.float64)


def language_batch(batch: Batch) -> Batch:
    """Every caption of the language for the first clip of the batch, longest first."""
    rows = sorted(LANGUAGE, key=len, reverse=True)
    words = torch.full((len(rows), MAX_WORDS + 1), PAD)
    words[:, 0] = BOS
    for row, caption in enumerate(rows):
        words[row, 1 : len(caption) + 1] = torch.tensor(caption)
    lengths = torch.tensor([len(caption) for caption in rows])
    names = tuple(map(str, range(len(rows))))
    return Batch(batch.clip_ids, batch.streams, batch.masks, names, torch.zeros(len(rows), dtype=int), words, lengths)


def log_p(captioner: Toy, batch: Batch) -> Tensor:
    return -word_losses(captioner, teacher_forcing(captioner, batch), NEVER).sum(1)


def test_probabilities_are_those_of_the_words_that_may_be_written() -> None:
    """Against plain loops over a prefix; and they sum to one over the language."""
    captioner = toy()
    _, batch = world()
    found = log_p(captioner, language_batch(batch))
    step = captioner.next_log_p(batch.streams["frames"][0].numpy())
    allowed = [number for number in range(4 + WORDS) if number not in NEVER]
    expected = []
    for caption in sorted(LANGUAGE, key=len, reverse=True):
        total = 0.0
        for place, word in enumerate(caption):
            raw = step(caption[:place])
            total += raw[word] - math.log(sum(math.exp(raw[one]) for one in allowed))
        expected.append(total)
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    assert found.exp().sum().item() == pytest.approx(1.0, abs=1e-12)


def test_captions_are_drawn_as_often_as_they_are_likely() -> None:
    captioner = toy()
    _, batch = world(captions=4_000)
    torch.manual_seed(0)
    drawn = sample(captioner, batch, MAX_WORDS)
    seen = Counter(
        c for c, clip in zip(drawn.captions(ended=True), drawn.clips(), strict=True) if clip == batch.clip_ids[0]
    )
    likely = log_p(captioner, language_batch(batch)).exp().tolist()
    for caption, p in zip(sorted(LANGUAGE, key=len, reverse=True), likely, strict=True):
        error = math.sqrt(4_000 * p * (1 - p))
        assert abs(seen[caption] - 4_000 * p) < 4 * error, (caption, p)
    assert min(likely) > 0.005, "a caption that is hardly ever drawn checks nothing"


def test_drawn_captions_keep_their_slots_and_their_order() -> None:
    _, batch = world()
    drawn = sample(toy(), batch, MAX_WORDS).batch
    assert sorted(drawn.caption_ids) == sorted(batch.caption_ids)
    clip_of = dict(zip(batch.caption_ids, batch.clip_of_B.tolist(), strict=True))
    assert [clip_of[name] for name in drawn.caption_ids] == drawn.clip_of_B.tolist()
    assert drawn.lengths_B.tolist() == sorted(drawn.lengths_B.tolist(), reverse=True)
    assert drawn.lengths_B.tolist() == (drawn.words_BW[:, 1:] != PAD).sum(1).tolist()


def test_greedy_is_a_beam_of_one() -> None:
    _, batch = world()
    captioner = toy()
    found = greedy(captioner, batch, 9)
    vocabulary = vocabulary_of(WORDS)
    texts = dict(zip(found.clips(), (" ".join(vocabulary.decode(c)) for c in found.captions(False)), strict=True))
    beams = beam_search(captioner, batch, vocabulary, Search(beam=1, max_words=9))
    assert texts == {caption.clip: caption.text for caption in beams}


# -- rewards -----------------------------------------------------------------------------------------------------------


def reference_cider(references: dict[str, list[str]], clip: str, caption: str) -> float:
    """pycocoevalcap over all training clips, so that its document frequencies are theirs."""
    given = {name: [caption if name == clip else texts[0]] for name, texts in references.items()}
    _, scores = Cider().compute_score(references, given)
    return float(scores[list(references).index(clip)])


@pytest.mark.parametrize("end_mark", [True, False])
def test_reward_is_cider_of_the_training_captions(end_mark: bool) -> None:
    clips = make_clips((4, 3, 2), [[3, 5, 4], [2, 6], [4, 4, 4, 1]], words=9, seed=5)
    torch.manual_seed(1)
    drawn = sample(Toy(4 + 9, 5, 3), one_batch(clips), 6)
    found = CaptionReward.of_clips(clips, end_mark=end_mark)(drawn)
    mark = " <eos>" if end_mark else ""
    references = {clip: [one.text + mark for one in clips.references(clip)] for clip in clips.ids}
    words = clips.vocabulary.words
    expected = [
        reference_cider(references, clip, " ".join(words[word] for word in caption))
        for clip, caption in zip(drawn.clips(), drawn.captions(ended=end_mark), strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-9)
    assert max(expected) > 0.1


def test_reward_reads_training_captions_with_the_words_that_the_vocabulary_leaves_out() -> None:
    """Words in capitals are not in the vocabulary: each is a word of its own, and captions keep their lengths."""
    texts = {
        "v1": ["a man rides a HORSE", "a man SITS", "the MAN rides"],
        "v2": ["a dog runs", "the DOG runs FAST over a hill"],
        "v3": ["a man runs", "SOMEBODY runs"],
    }
    clips = spoken(texts, shape=(4, 5))
    torch.manual_seed(2)
    drawn = sample(Toy(len(clips.vocabulary), 5, 3, spread=0.3), one_batch(clips), 5)
    found = CaptionReward.of_clips(clips, end_mark=False)(drawn)
    references = dict(zip(clips.ids, texts.values(), strict=True))
    words = clips.vocabulary.words
    expected = [
        reference_cider(references, clip, " ".join(words[word] for word in caption))
        for clip, caption in zip(drawn.clips(), drawn.captions(ended=False), strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, abs=1e-9)
    assert max(expected) > 0.5


def test_reward_adds_up_metrics() -> None:
    clips = make_clips((4, 3, 2), [[3, 5, 4], [2, 6], [4, 4, 4, 1]], words=9, seed=5)
    drawn = sample(Toy(4 + 9, 5, 3), one_batch(clips), 6)
    parts = [CaptionReward.of_clips(clips, [name])(drawn) for name in ("cider", "rouge_l", "bleu4")]
    together = CaptionReward.of_clips(clips, ["cider", "rouge_l", "bleu4"])(drawn)
    assert together.tolist() == pytest.approx(sum(parts).tolist(), abs=1e-12)
    assert all(np.ptp(part) > 0 for part in parts)


# -- the gradient ------------------------------------------------------------------------------------------------------

VALUE = {caption: 3.0 + math.sin(2.0 + number) for number, caption in enumerate(LANGUAGE)}
"""A reward far from zero: what a baseline is for."""


class TableReward(CaptionReward):
    """A reward that is a table, so that expectations can be enumerated."""

    def __init__(self) -> None:
        pass

    def __call__(self, sampled: Sampled) -> np.ndarray:
        return np.array([VALUE[caption] for caption in sampled.captions(ended=True)])


def flat_gradient(captioner: Toy, loss: Tensor) -> Tensor:
    captioner.zero_grad(set_to_none=True)
    loss.backward()
    return torch.cat([p.grad.flatten() for p in captioner.parameters() if p.grad is not None])


def estimates(baseline: Baseline, captioner: Toy, batch: Batch, draws: int) -> Tensor:
    run = FakeRun(1, {"reinforce": 1.0})
    run.search = Search(max_words=MAX_WORDS)
    phase = reinforce_phase(captioner, run, TableReward(), baseline)
    torch.manual_seed(11)
    return torch.stack([flat_gradient(captioner, phase.loss(batch)["loss"]) for _ in range(draws)])


def alike() -> Batch:
    """Ten clips that look the same, of four captions each: a step of the loss is the mean of ten estimates."""
    batch = one_batch(make_clips((4,) * 10, [[1] * 4] * 10, words=WORDS), torch.float64)
    batch.streams["frames"][:] = batch.streams["frames"][0].clone()
    return batch


@pytest.fixture(scope="module")
def gradients() -> dict[str, Tensor]:
    captioner, batch = toy(), alike()
    return {name: estimates(baseline, captioner, batch, 250) for name, baseline in BASELINES.items()}


@pytest.mark.parametrize("name", BASELINES)
def test_policy_gradient_is_unbiased(gradients: dict[str, Tensor], name: str) -> None:
    """Its mean over many draws is the gradient of -E[r(S)], enumerated, within the error of the mean."""
    captioner = toy()
    every = language_batch(alike())
    values = torch.tensor([VALUE[caption] for caption in sorted(LANGUAGE, key=len, reverse=True)])
    exact = flat_gradient(captioner, -(log_p(captioner, every).exp() * values).sum())
    found = gradients[name]
    error = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - exact).abs() <= 3 * error + 1e-12).double().mean() > 0.98
    along = exact / exact.norm()  # one number with a tight error: the slope in the direction of the exact gradient
    slopes = found @ along
    assert abs(slopes.mean() - exact.norm()) < 3 * slopes.std() / math.sqrt(len(slopes))
    assert exact.norm() > 5 * slopes.std() / math.sqrt(len(slopes)), "the direction must be distinguishable from zero"


def test_the_gradient_without_a_baseline_is_the_noisiest(gradients: dict[str, Tensor]) -> None:
    noise = {name: found.var(0).sum().item() for name, found in gradients.items()}
    assert noise["none"] > 2 * max(noise["greedy"], noise["others"]), noise


def test_dropout_is_off_while_drawing_and_while_differentiating() -> None:
    """The policy that learns is the one that writes captions: the same loss and gradient as without any dropout."""
    clips = make_clips((4, 2, 3), ((3, 3, 2), (2, 4, 4), (5, 3, 3)), words=5, seed=2)

    def learned(dropout: float) -> tuple[float, str]:
        torch.manual_seed(0)
        captioner = SoftAttention(len(clips.vocabulary), 5, 12, 6, dropout, False, 4)
        reward, run = CaptionReward.of_clips(clips), FakeRun(1, {"reinforce": 1.0})
        phase = reinforce_phase(captioner, run, reward, BASELINES["greedy"])
        captioner.train()  # as the loop does before every epoch
        torch.manual_seed(3)
        loss = phase.loss(one_batch(clips))["loss"]
        loss.backward()
        return loss.item(), digest({name: p.grad for name, p in captioner.named_parameters() if p.grad is not None})

    assert learned(0.5) == learned(0.0)
    assert learned(0.5)[0] != 0


def test_a_lone_caption_is_measured_against_other_clips() -> None:
    _, batch = world(captions=1)
    drawn = sample(toy(), batch, MAX_WORDS)
    draw = Draw(toy(), batch, drawn, np.array([1.0, 5.0]), TableReward(), MAX_WORDS)
    assert BASELINES["others"](draw).tolist() == [5.0, 1.0]


# -- self-critical, as RecNet and the bases take it --------------------------------------------------------------------


class Beside(nn.Module):
    """A captioner, and a part beside it that learns from the drawn captions: the sum of a number per word."""

    def __init__(self, captioner: Toy) -> None:
        super().__init__()
        self.captioner, self.number = captioner, nn.Parameter(torch.tensor(0.75))

    def losses(self, batch: Batch, forced: Forced) -> Losses:
        value = self.number * batch.lengths_B.sum()
        return {"loss": value, "words": value.detach()}


def nine_words(dtype: torch.dtype) -> tuple[CorpusClips, Beside]:
    torch.manual_seed(1)
    return make_clips((4, 3, 2), [[3, 5, 4], [2, 6], [4, 4, 4, 1]], words=9, seed=5), Beside(
        Toy(4 + 9, 5, 3, spread=0.5).to(dtype)
    )


def allowed_log_p(captioner: Toy, frames: np.ndarray) -> Callable[[tuple[int, ...]], dict[int, float]]:
    """log p of every word that may be written, after a prefix, by plain loops."""
    raw = captioner.next_log_p(frames)

    def log_p(prefix: tuple[int, ...]) -> dict[int, float]:
        after = {word: value for word, value in enumerate(raw(prefix)) if word not in (0, 1, 3)}
        total = math.log(sum(math.exp(value) for value in after.values()))
        return {word: value - total for word, value in after.items()}

    return log_p


@pytest.mark.parametrize("end_mark", [True, False])
def test_self_critical_loss_is_equations_18_to_22_of_recnet(end_mark: bool) -> None:
    """-(r(S) - r(S_greedy)) log p(S) of the drawn captions, r by pycocoevalcap, and what stands beside it."""
    clips, learner = nine_words(torch.float64)
    captioner, batch = learner.captioner, one_batch(clips, torch.float64)
    run = FakeRun(1, {"reinforce": 1.0})
    settings = {"reinforce_rate": 0.1, "reward_end": end_mark}
    phase = self_critical_phase(captioner, settings, clips, run, module=learner, beside=learner.losses)
    torch.manual_seed(7)
    found = phase.loss(batch)
    torch.manual_seed(7)
    drawn = sample(captioner, batch, run.search.max_words)

    mark = " <eos>" if end_mark else ""
    references = {clip: [one.text + mark for one in clips.references(clip)] for clip in clips.ids}

    def reward(clip: str, caption: Sequence[int]) -> float:
        said = [clips.vocabulary.words[word] for word in caption if end_mark or word != EOS]
        return reference_cider(references, clip, " ".join(said))

    rewards, bases, losses = [], [], []
    for caption, clip in zip(drawn.captions(ended=True), drawn.clips(), strict=True):
        log_p = allowed_log_p(captioner, batch.streams["frames"][batch.clip_ids.index(clip)].numpy())
        likeliest: tuple[int, ...] = ()
        while len(likeliest) < run.search.max_words and EOS not in likeliest:
            after = log_p(likeliest)
            likeliest = (*likeliest, max(after, key=after.__getitem__))
        rewards.append(reward(clip, caption))
        bases.append(reward(clip, likeliest))
        total = sum(log_p(caption[:place])[word] for place, word in enumerate(caption))
        losses.append(-(rewards[-1] - bases[-1]) * total)
    words = 0.75 * sum(len(caption) for caption in drawn.captions(ended=True))
    assert found["loss"].item() == pytest.approx(np.mean(losses) + words, abs=1e-9)
    told = {name: value.item() for name, value in found.items() if name != "loss"}
    assert told == pytest.approx({"reward": np.mean(rewards), "baseline": np.mean(bases), "words": words}, rel=1e-6)
    assert len(set(bases)) > 1 and min(map(abs, losses)) < max(map(abs, losses)) / 10


def test_self_critical_training_steps_by_adam_at_the_rate_of_its_setting() -> None:
    """Adam's first step moves every number that has a gradient by the rate; the optimizer and rate of the run are others'."""
    clips, learner = nine_words(torch.float32)
    start = {name: value.detach().clone() for name, value in learner.named_parameters()}
    run = FakeRun(
        9, {"reinforce": 1.0}, {"optimizer": "sgd", "learning_rate": 1.0, "captions": 100, "captions_per_clip": 100}
    )
    settings = {"reinforce_rate": 0.003, "reward_end": True}
    phase = self_critical_phase(learner.captioner, settings, clips, run, module=learner, beside=learner.losses)
    fit_phases(learner, learner, [phase], clips, run)  # type: ignore[arg-type]
    assert [(name, epoch) for name, epoch, _ in run.reports] == [("reinforce", 0)]
    for name, value in learner.named_parameters():
        moved = (value.detach() - start[name]).abs().max().item()
        assert moved == pytest.approx(0.003, rel=1e-3), name


@pytest.mark.parametrize("shares", [{"base": 1.0}, {"base": 0.6, "reinforce": 0.4}], ids=["xe", "rl"])
def test_the_bases_are_reinforced_where_their_recipe_gives_it_a_share(shares: dict[str, float]) -> None:
    clips, learner = nine_words(torch.float64)
    batch, run = one_batch(clips, torch.float64), FakeRun(1, shares)
    settings = {"reinforce_rate": 0.2, "reward_end": False}
    recipe = base_phases(learner.captioner, settings, clips, run)
    assert {phase.name: phase.share for phase in recipe} == shares
    base = recipe[0].loss(batch)["loss"].item()
    forced = teacher_forcing(learner.captioner, batch)
    assert base == pytest.approx(cross_entropy(word_losses(learner.captioner, forced)).item(), rel=1e-12)
    for phase in recipe[1:]:
        alone = self_critical_phase(learner.captioner, settings, clips, run)
        found = []
        for one in (phase, alone):
            torch.manual_seed(7)
            found.append(one.loss(batch)["loss"].item())
        assert found[0] == found[1] != 0
        assert phase.train == {"optimizer": "adam", "learning_rate": 0.2}


# -- in the loop -------------------------------------------------------------------------------------------------------


def reinforced(run: FakeRun, baseline: str = "greedy", rate: float = 0.02) -> tuple[CaptionModel, CorpusClips]:
    clips = make_clips((4, 2, 3), ((3, 3, 2), (2, 4, 4), (5, 3, 3)), words=5, seed=2)
    torch.manual_seed(0)
    captioner = SoftAttention(len(clips.vocabulary), 5, 12, 6, 0.5, True, 4)

    def phases(clips: object, run: FakeRun) -> list[Phase]:
        reward = CaptionReward.of_clips(clips)  # type: ignore[arg-type]
        return [reinforce_phase(captioner, run, reward, BASELINES[baseline], train={"learning_rate": rate})]

    return CaptionModel(captioner, clips.vocabulary, phases), clips


def fitted(run: FakeRun, make: Callable[..., tuple[CaptionModel, CorpusClips]] = reinforced) -> CaptionModel:
    model, clips = make(run)
    model.fit(clips, run)  # type: ignore[arg-type]
    return model


@pytest.mark.parametrize("baseline", ["greedy", "others"])
def test_reward_rises(baseline: str) -> None:
    run = FakeRun(9 * 60, {"reinforce": 1.0}, {"captions_per_clip": 3, "captions": 9})
    model, clips = reinforced(run, baseline)
    model.fit(clips, run)  # type: ignore[arg-type]
    rewards = [values["reward"] for _, _, values in run.reports]
    assert np.mean(rewards[-10:]) > 2 * np.mean(rewards[:5])


def test_resume_inside_reinforcement_is_exact() -> None:
    """The draws go on where the dead process stopped, so the weights end bit for bit the same."""
    torch.manual_seed(5)
    whole = FakeRun(60, {"reinforce": 1.0}, score=lambda method: 1.0)
    expected = digest(fitted(whole).state_dict())
    assert expected != digest(reinforced(whole)[0].state_dict())
    for die_at in range(3, whole.calls, 7):
        torch.manual_seed(5)
        first = FakeRun(60, {"reinforce": 1.0}, score=lambda method: 1.0, die_at=die_at)
        with pytest.raises(DiedError):
            fitted(first)
        second = FakeRun(60, {"reinforce": 1.0}, score=lambda method: 1.0, saved=first.saved)
        if first.saved is not None:
            torch.manual_seed(99)
            assert digest(fitted(second).state_dict()) == expected, die_at
