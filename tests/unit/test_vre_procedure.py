"""What VRE's procedure does: rewards by caption id, five steps in their order, checkpoints, what a caption tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from oracles import vre
from oracles.arithmetic import log_softmax
from support import DiedError, FakeRun, digest, one_batch, shake
from symbols import numbers
from test_oracles_vre import BETA, clips_with, made, of_encoder, of_model, opened, oracle_both, seen_of
from torch import Tensor

from bench.data.batches import CorpusClips
from bench.method import EOS, Batch, Search
from bench.nn.beam import NEVER, beam_search
from bench.nn.decoding import Remembered
from bench.nn.sampling import sample
from bench.training import CaptionReward, phases
from methods.vre import build
from methods.vre.model import FIXED, MIDDLE, REFOCUSED, VRE
from methods.vre.tables import Table

# -- the reward of the epoch before ---------------------------------------------------------------------------------------


def test_the_first_joint_epoch_has_no_refocus_loss() -> None:
    clips = clips_with("frames")
    model, batch = opened(made("vre", ("frames",)), clips), one_batch(clips, torch.float64)
    first = model.joint_losses(batch, 0.0, BETA, "corrected", "same")
    assert first["refocus"] == 0
    assert first["loss"] == first["cross_entropy"] + first["first_cross_entropy"]
    assert (
        model.joint_losses(batch, 0.0, BETA, "corrected", "same")["refocus"] == 0
    )  # the same weights, the same reward


def test_rewards_belong_to_captions_and_not_to_places_in_the_data() -> None:
    """An epoch in any order and any batches stores the same, and the next one is paid the same, caption by caption."""

    def two_epochs(order: int, captions: int, clip_order: list[int]) -> tuple[dict[str, Tensor], dict[str, float]]:
        clips = clips_with("frames", dtype=np.float64)
        references = {clip: clips.references(clip) for clip in clips.ids}
        shuffled = CorpusClips(
            [clips.ids[place] for place in clip_order], references, clips._sources, clips.vocabulary, seed=order
        )
        model = opened(made("vre", ("frames",)), shuffled)
        for batch in shuffled.epoch(0, captions, 2):
            batch.streams["frames"] = batch.streams["frames"].double()
            model.joint_losses(batch, 0.0, BETA, "corrected", "same")
        stored = {name: value.clone() for name, value in model.rewards.state_dict().items()}
        shake(model, seed=9)
        changes: dict[str, float] = {}
        original = model.rewards.replace

        def spy(names: Any, values: Tensor) -> Tensor:
            change = original(names, values)
            changes.update(zip(names, change.tolist(), strict=True))
            return change

        model.rewards.replace = spy
        for batch in shuffled.epoch(1, captions, 2):
            batch.streams["frames"] = batch.streams["frames"].double()
            model.joint_losses(batch, 0.0, BETA, "corrected", "same")
        return stored, changes

    stored, changes = two_epochs(0, 100, [0, 1, 2])
    assert len(changes) == 6 and len(set(changes.values())) == 6 and not np.isnan(list(changes.values())).any()
    for order, captions, clip_order in ((1, 2, [2, 0, 1]), (5, 3, [1, 2, 0])):
        other, paid = two_epochs(order, captions, clip_order)
        assert torch.equal(other["marks"], stored["marks"])
        torch.testing.assert_close(other["values"], stored["values"], rtol=1e-9, atol=1e-12)
        assert paid == pytest.approx(changes, rel=1e-6, abs=1e-9)


def test_reward_of_the_truth_hears_neither_dropout_nor_own_words() -> None:
    """Fed the truth without dropout, R is L1 - L2 of the plain captions, whatever the losses were read from."""
    clips = clips_with("frames")
    batch, model = one_batch(clips, torch.float64), opened(made("vre", ("frames",)), clips)
    expected = [one - two for one, two, _ in oracle_both(model, batch)]
    model.decoder.dropout.p = 0.5
    model.train()
    for feeding, close in (("same", False), ("truth", True)):
        model.joint_losses(batch, 0.7, BETA, "corrected", feeding)
        own = numbers(model.rewards.find(batch.caption_ids))
        assert np.allclose(own, expected, atol=1e-10, rtol=0) == close
    assert model.decoder.dropout.training


def test_a_table_knows_its_names() -> None:
    table = Table(-1, torch.long)
    table.open(["b", "a", "c"])
    assert table.find(["c", "a"]).tolist() == [-1, -1]
    table.put(["a", "c"], torch.tensor([4, 5]))
    assert table.find(["c", "b", "a"]).tolist() == [5, -1, 4]
    for unknown in ("d", "zz"):
        with pytest.raises(KeyError, match=unknown):
            table.find(["a", unknown])
    with pytest.raises(KeyError):
        Table(0.0).find(["a"])
    with pytest.raises(ValueError, match="names that differ"):
        table.open(["a", "a"])


# -- the procedure ------------------------------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {
    "encoder": "vre",
    "refocus_weight": 0.03,
    "refocus_loss": "corrected",
    "reward_feeding": "same",
    "reinforce_rate": 0.01,
    "reward_end": True,
    "retrain_from": "joint",
    "width": 8,
    "embedding": 8,
    "attention": 6,
    "dropout": 0.2,
    "normalise": True,
}
SHARES = {"warm_up": 0.2, "joint": 0.4, "retrain": 0.4}
WITH_RL = {"warm_up": 0.15, "joint": 0.35, "retrain": 0.25, "reinforce": 0.25}


def fitted(run: FakeRun, clips: CorpusClips, **settings: Any) -> Any:
    torch.manual_seed(0)
    model = build({**SETTINGS, **settings}, clips.streams, clips.vocabulary)
    model.fit(clips, run)
    return model


def test_the_five_steps_in_their_order() -> None:
    """Step 1 alone, then both, then both with key frames that stay, then the decoder alone; what is decoded follows."""
    clips = clips_with("frames", "audio")
    seen: list[tuple[int, dict[str, str]]] = []
    parts = ("encoder.refocus", "encoder", "finder", "key_frames", "decoder")

    def score(method: Any) -> float:
        module = method.module
        digests = {name: digest(module.get_submodule(name).state_dict()) for name in parts}
        seen.append((int(module.stage), digests))
        return float(len(seen))

    run = FakeRun(6 * 20, WITH_RL, score=score)
    model = fitted(run, clips)
    assert [run.epochs(name) for name in WITH_RL] == [3, 7, 5, 5]
    assert [stage for stage, _ in seen] == [MIDDLE] * 3 + [REFOCUSED] * 7 + [FIXED] * 10

    def versions(name: str, first: int, last: int) -> int:
        return len({digests[name] for _, digests in seen[first:last]})

    assert versions("encoder.refocus", 0, 4) == 1, (
        "neither warm-up nor the first joint epoch moves the refocusing module"
    )
    assert versions("encoder.refocus", 3, 10) == 7
    assert versions("encoder.refocus", 9, 20) == 1
    assert versions("encoder", 10, 15) == 5
    assert versions("encoder", 14, 20) == 1, "reinforcement moves the decoder alone"
    assert versions("decoder", 14, 20) == 6
    assert versions("finder", 10, 20) == versions("key_frames", 10, 20) == 1
    module = model.module
    assert digest(module.finder.refocus.state_dict()) == seen[9][1]["encoder.refocus"]
    keys = module.key_frames.find(clips.ids)
    assert (keys >= 0).all() and (keys < torch.tensor([4, 2, 3])).all()
    told = [caption.traces["key_frame"] for caption in model.decode(clips, Search(beam=2, max_words=4))]
    assert told == keys.tolist(), "the finder says the same of training clips as the store"


def paid_model(clips: CorpusClips, run: FakeRun) -> tuple[Any, Any]:
    """A model whose every weight is random, the finder's others than the encoder's, and its phase of reinforcement."""
    model = build({**SETTINGS, "dropout": 0.5}, clips.streams, clips.vocabulary)
    shake(model.module.double())
    *_, phase = model.phases(clips, run)
    model.module.stage.fill_(FIXED)
    return model.module, phase


def oracle_of(model: VRE, batch: Batch, clip: int) -> tuple[Any, vre.Seen, vre.Watched]:
    """Symbols, streams and both steps of one clip, its key frame found by the finder."""
    parts, seen = of_model(model), seen_of(model, batch, clip)
    key = vre.watch(of_encoder(model.finder), seen).key
    return parts, seen, vre.watch(parts, seen, key)


def next_log_p(parts: Any, seen: vre.Seen, o: Any, words: Sequence[int]) -> list[list[float]]:
    """For each word after each prefix of `words`, its log-probability among the words that may be written."""
    found = []
    for x in vre.decode(parts, seen, o, words):
        allowed = [value if word not in NEVER else -1e300 for word, value in enumerate(x.tolist())]
        found.append(log_softmax(allowed))
    return found


def test_reinforcement_pays_the_captions_of_step_2_by_cider_and_rouge() -> None:
    """-(r - b) log p of drawn captions, b from the greedy caption of the clip; no dropout, key frames of the finder."""
    clips = clips_with("frames", "spatial", "audio")
    batch, run = one_batch(clips, torch.float64), FakeRun(6, WITH_RL)
    model, phase = paid_model(clips, run)
    torch.manual_seed(5)
    found = phase.loss(batch)
    torch.manual_seed(5)
    drawn = sample(model, batch, run.search.max_words)
    rewards = sum(CaptionReward.of_clips(clips, [metric])(drawn) for metric in ("cider", "rouge_l"))
    captions = drawn.captions(ended=True)
    terms = []
    for row, clip in enumerate(drawn.batch.clip_of_B.tolist()):
        parts, seen, watched = oracle_of(model, batch, clip)
        likeliest: list[int] = []
        while len(likeliest) < run.search.max_words and EOS not in likeliest:
            last = next_log_p(parts, seen, watched.second, likeliest)[-1]
            likeliest.append(max(range(len(last)), key=lambda word: last[word]))
        log_p = next_log_p(parts, seen, watched.second, captions[row][:-1])
        told = sum(log_p[place][word] for place, word in enumerate(captions[row]))
        terms.append(-(rewards[row] - reward_of(clips, batch.clip_ids[clip], likeliest)) * told)
    assert np.ptp(rewards) > 0.1
    assert found["loss"].item() == pytest.approx(np.mean(terms), rel=1e-9)
    assert found["reward"].item() == pytest.approx(rewards.mean(), rel=1e-6)


def reward_of(clips: CorpusClips, clip: str, words: Sequence[int]) -> float:
    """CIDEr-D and ROUGE-L of one caption, the end mark a word."""

    class One:
        def captions(self, ended: bool) -> list[tuple[int, ...]]:
            return [tuple(words)]

        def clips(self) -> list[str]:
            return [clip]

    return sum(float(CaptionReward.of_clips(clips, [metric])(One())[0]) for metric in ("cider", "rouge_l"))  # type: ignore[arg-type]


def test_reinforcement_raises_the_reward() -> None:
    clips = clips_with("frames", captions=((3, 4, 2) * 4, (2, 5, 3) * 4, (4, 4, 3) * 4))
    train = {"captions": 18, "captions_per_clip": 6, "learning_rate": 0.01}
    run = FakeRun(36 * 25, {"warm_up": 0.1, "joint": 0.1, "retrain": 0.1, "reinforce": 0.7}, train)
    fitted(run, clips, reinforce_rate=0.03)
    rewards = [values["reward"] for phase, _, values in run.reports if phase == "reinforce"]
    assert np.mean(rewards[-5:]) > 1.2 * np.mean(rewards[:5])


def test_retraining_leaves_finder_and_store_alone_and_may_start_anew() -> None:
    clips = clips_with("frames")
    found = {}
    for start in ("joint", "scratch"):
        middle: dict[str, Any] = {}

        def score(method: Any, middle: dict[str, Any] = middle) -> float:
            module = method.module
            if module.stage == FIXED and not middle:
                middle.update({"finder": digest(module.finder.state_dict()), "keys": module.key_frames.values.tolist()})
            return float(module.stage)

        model = fitted(FakeRun(6 * 10, SHARES, score=score), clips, retrain_from=start)
        assert digest(model.module.finder.state_dict()) == middle["finder"]
        assert model.module.key_frames.values.tolist() == middle["keys"]
        found[start] = (middle["finder"], digest(model.module.encoder.scan.state_dict()))
    assert found["joint"][0] == found["scratch"][0]
    assert found["joint"][1] != found["scratch"][1]


class Mortal(CorpusClips):
    """Clips in batches of one, whose reader may die once, after `dies_after` of them, while key frames are collected."""

    dies_after: int | None = None

    def in_order(self, clips: int) -> Iterator[Batch]:
        for place, batch in enumerate(super().in_order(1)):
            if place == self.dies_after and self.collecting():
                raise DiedError
            yield batch

    collecting = staticmethod(lambda: False)


def mortal(clips: CorpusClips) -> Mortal:
    references = {clip: clips.references(clip) for clip in clips.ids}
    return Mortal(clips.ids, references, clips._sources, clips.vocabulary)


def by_weights(method: Any) -> float:
    """A score that depends on every weight: a resumed run that differs anywhere selects otherwise or ends otherwise."""
    return -float(sum(value.detach().abs().sum() for value in method.module.parameters()))


def short_run(die_at: int | None = None, saved: bytes | None = None) -> FakeRun:
    return FakeRun(6 * 7, WITH_RL, {"scheduled_sampling": 0.3}, by_weights, die_at, saved)


@pytest.mark.parametrize("start", ["joint", "scratch"])
def test_killed_at_any_moment_it_ends_with_the_same_weights_keys_and_rewards(
    start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a state saved after every batch, so that every phase is also taken up in the middle of an epoch."""
    monkeypatch.setattr(phases, "SAVE_SECONDS", -1.0)
    clips = clips_with("frames", "audio")
    whole = short_run()
    expected = digest(fitted(whole, clips, retrain_from=start).state_dict())
    died_in = set()
    # A batch makes three calls and an epoch some more: steps of 4 and 7 come upon every kind of moment.
    for die_at in range(1, whole.calls, 4 if start == "joint" else 7):
        dead = short_run(die_at)
        with pytest.raises(DiedError):
            fitted(dead, clips, retrain_from=start)
        died_in.add(dead.ticks[-1][0] if dead.ticks else "start")
        torch.manual_seed(99)
        assert digest(fitted(short_run(saved=dead.saved), clips, retrain_from=start).state_dict()) == expected, die_at
    assert died_in >= set(WITH_RL)


@pytest.mark.parametrize("clip", [0, 1, 2])
def test_killed_while_key_frames_are_collected_it_collects_them_again(clip: int) -> None:
    clips = mortal(clips_with("frames"))
    expected = digest(fitted(short_run(), clips).state_dict())
    torch.manual_seed(0)
    model = build(SETTINGS, clips.streams, clips.vocabulary)
    clips.dies_after, clips.collecting = clip, lambda: bool(model.module.stage == FIXED)  # type: ignore[method-assign]
    dead = short_run()
    with pytest.raises(DiedError):
        model.fit(clips, dead)
    keys = model.module.key_frames.find(clips.ids).tolist()
    assert [key >= 0 for key in keys] == [place < clip for place in range(3)], "it died between two clips"
    assert {phase for phase, _ in dead.ticks} == {"warm_up", "joint"}
    clips.dies_after = None
    torch.manual_seed(99)
    assert digest(fitted(short_run(saved=dead.saved), clips).state_dict()) == expected


def test_the_state_holds_keys_and_rewards_by_name_and_the_weights_that_find_unseen_key_frames() -> None:
    """A fresh model grows tables of the right size and tells of unseen clips what the trained one told."""
    clips, unseen = clips_with("frames"), clips_with("frames", seed=8)
    model = fitted(FakeRun(6 * 10, WITH_RL), clips)
    module = model.module
    fresh = build(SETTINGS, clips.streams, clips.vocabulary)
    assert len(fresh.module.rewards.marks) == len(fresh.module.key_frames.marks) == 0
    fresh.load_state_dict(model.state_dict())
    captions = [reference.id for clip in clips.ids for reference in clips.references(clip)]
    assert fresh.module.rewards.find(captions).tolist() == module.rewards.find(captions).tolist()
    assert len(set(module.rewards.find(captions).tolist())) == len(captions)
    assert fresh.module.key_frames.find(clips.ids).tolist() == module.key_frames.find(clips.ids).tolist()

    def told(one: Any) -> tuple[list[tuple[Any, ...]], Any]:
        captions = one.decode(unseen, Search(beam=2, max_words=4))
        found = [(caption.clip, caption.words, caption.traces["key_frame"]) for caption in captions]
        return found, np.concatenate([caption.traces["refocusing"] for caption in captions])

    def same() -> bool:
        (own, own_weights), (theirs, their_weights) = told(fresh), told(model)
        # Products of equal matrices that lie elsewhere in memory may differ in their last bit.
        return own == theirs and np.allclose(own_weights, their_weights, rtol=1e-6, atol=0)

    assert same()
    module.encoder.refocus.score.weight.data.neg_()
    assert same(), "unseen key frames are the finder's, whatever became of the encoder"
    module.finder.refocus.score.weight.data.neg_()
    assert not same()


def test_a_checkpoint_carries_its_tables_and_one_that_does_not_fit_changes_nothing() -> None:
    clips = clips_with("frames")
    model = fitted(FakeRun(60, SHARES), clips)
    state = dict(model.state_dict())
    assert {name for name in state if name.split(".")[0] in ("stage", "key_frames", "rewards")} == {
        "stage",
        "key_frames.marks",
        "key_frames.values",
        "rewards.marks",
        "rewards.values",
    }
    fresh = build(SETTINGS, clips.streams, clips.vocabulary)
    before = digest(fresh.state_dict())
    with pytest.raises(ValueError, match=r"decoder\.output\.weight \(12, 8\) instead of \(11, 8\)"):
        fresh.load_state_dict({**state, "decoder.output.weight": torch.zeros(12, 8)})
    with pytest.raises(ValueError, match=r"rewards\.values"):
        fresh.load_state_dict({**state, "rewards.values": torch.zeros(2)})
    assert digest(fresh.state_dict()) == before
    fresh.load_state_dict(state)
    assert digest(fresh.state_dict()) == digest(state)


# -- what a caption tells -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reads", [("frames",), ("frames", "spatial", "audio")], ids="+".join)
@pytest.mark.parametrize("encoder", ["none", "kbigru", "vre"])
def test_captions_tell_where_the_decoder_looked_at_every_word(encoder: str, reads: tuple[str, ...]) -> None:
    """The weights of Algorithm 2 along the written words; rows of one pass say nothing of key frames."""
    clips = clips_with(*reads)
    model = build({**SETTINGS, "encoder": encoder}, clips.streams, clips.vocabulary)
    shake(model.module.double())
    if encoder == "vre":
        model.module.stage.fill_(FIXED)
    model.module.decoder.output.bias.data[EOS] -= 2  # captions of several words
    (batch,) = clips.in_order(10)
    batch.streams = {name: value.double() for name, value in batch.streams.items()}
    model.module.eval()
    captions = model.caption(batch, Search(beam=2, max_words=5))
    assert max(len(caption.words) for caption in captions) > 1
    for clip, caption in enumerate(captions):
        if encoder == "vre":
            parts, seen, watched = oracle_of(model.module, batch, clip)
            o = watched.second
        else:
            parts, seen = of_model(model.module), seen_of(model.module, batch, clip)
            o = None if encoder == "none" else vre.first_vector(parts, seen)
        expected = vre.tell(parts, seen, o, clips.vocabulary.encode(caption.words))[: len(caption.words)]
        attention = [row[: len(seen.frames)] for row in caption.traces["attention"]]
        np.testing.assert_allclose(attention, [one.frames for one in expected], atol=1e-10)
        assert ("spatial_attention" in caption.traces) == ("spatial" in reads)
        if "spatial" in reads:
            places = [row[: len(seen.places or ())] for row in caption.traces["spatial_attention"]]
            np.testing.assert_allclose(places, [one.places for one in expected], atol=1e-10)
        assert ("key_frame" in caption.traces) == ("first_caption" in caption.traces) == (encoder == "vre")


@pytest.mark.parametrize("stage", [MIDDLE, REFOCUSED, FIXED])
def test_captions_tell_the_key_frame_the_weights_and_what_step_1_would_say(stage: int) -> None:
    clips = clips_with("frames", "audio")
    model = build(SETTINGS, clips.streams, clips.vocabulary)
    module = model.module
    shake(module)
    module.stage.fill_(stage)
    module.eval()
    (batch,) = clips.in_order(10)
    captions = model.caption(batch, Search(beam=1, max_words=5))
    watched = module.watch(batch)
    once = beam_search(Remembered(module.decoder, watched.first), batch, clips.vocabulary, Search(beam=1, max_words=5))
    for clip, (caption, step_1) in enumerate(zip(captions, once, strict=True)):
        assert caption.traces["first_caption"] == step_1.text
        seen = seen_of(module, batch, clip)
        finder = module.finder if stage == FIXED else module.encoder
        alpha = vre.watch(of_encoder(finder), seen).alpha
        assert caption.traces["refocusing"] == pytest.approx(alpha, abs=1e-5)
        middle = len(seen.frames) // 2
        assert caption.traces["key_frame"] == (middle if stage == MIDDLE else int(np.argmax(alpha)))
    texts = [caption.text for caption in captions]
    assert (texts == [one.text for one in once]) == (stage == MIDDLE)


def test_two_passes_need_the_phases_of_two_passes() -> None:
    clips = clips_with("frames")
    with pytest.raises(ValueError, match="encoder=vre trains in the phases warm_up, joint, retrain"):
        fitted(FakeRun(12, {"base": 1.0}), clips)
