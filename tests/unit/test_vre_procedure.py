"""What VRE's procedure does: key frames that follow the reward, rewards by caption id, phases, checkpoints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support import DiedError, FakeRun, digest, one_batch, shake
from symbols import numbers
from test_oracles_vre import BETA, clips_with, made, opened, oracle_both
from torch import Tensor, nn

from bench.data.clips import CorpusClips
from bench.method import Search
from methods.vre import build
from methods.vre.encoder import ProductAttention, refocus_loss
from methods.vre.model import FIXED, MIDDLE, REFOCUSED
from methods.vre.tables import Table

# -- LR+ on planted events ------------------------------------------------------------------------------------------------


class Refocusing(nn.Module):
    """The refocusing module over clips of one planted frame each, paid as long as the paper's story is true:
    captions from the planted frame get better from epoch to epoch, captions from any other frame get worse."""

    def __init__(self, clips: int = 12, frames: int = 6, width: int = 8) -> None:
        super().__init__()
        self.attention = ProductAttention(width, 4, 8)
        generator = torch.Generator().manual_seed(3)
        self.event = torch.randint(frames, (clips,), generator=generator)
        self.frames = 0.5 * torch.randn(clips, frames, width, generator=generator)
        self.frames[torch.arange(clips), self.event] += torch.linspace(-2, 2, width)
        self.query = 1 + 0.3 * torch.randn(clips, 4, generator=generator)
        self.rewards = Table(float("nan"))
        self.names = [f"caption {clip}" for clip in range(clips)]
        self.rewards.open(self.names)

    def look(self) -> Tensor:
        mask = torch.ones(self.frames.shape[:2], dtype=torch.bool)
        return self.attention.log_weights(self.query, self.attention.keys(self.frames), mask)

    def train_for(self, epochs: int, form: str) -> float:
        """The share of clips whose key frame is the planted one after `epochs`."""
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        for _ in range(epochs):
            log_weights = self.look()
            key = log_weights.argmax(1)
            before = self.rewards.find(self.names).nan_to_num(0.0)
            reward = before + torch.where(key == self.event, 0.1, -0.1)
            change = self.rewards.replace(self.names, reward).nan_to_num(0.0)
            optimizer.zero_grad()
            refocus_loss(log_weights, key, change, form).mean().backward()
            optimizer.step()
        return float((self.look().argmax(1) == self.event).float().mean())


def found_event(seed: int, form: str, epochs: int) -> float:
    torch.manual_seed(seed)
    return Refocusing().train_for(epochs, form)


@pytest.mark.parametrize("seed", range(6))
def test_lr_plus_moves_the_key_frame_to_a_planted_event(seed: int) -> None:
    assert found_event(seed, "corrected", 0) < 0.5
    assert found_event(seed, "corrected", 100) == 1.0


@pytest.mark.parametrize("seed", [0, 4, 5])
def test_lr_plus_as_printed_stays_where_it_is_not_paid(seed: int) -> None:
    """No clip starts at its event, so every reward falls: the printed sign holds on to the frames that it should leave."""
    assert found_event(seed, "printed", 0) == found_event(seed, "printed", 100) == 0.0


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
    "retrain_from": "joint",
    "width": 8,
    "embedding": 8,
    "attention": 6,
    "dropout": 0.2,
    "normalise": True,
}
SHARES = {"warm_up": 0.2, "joint": 0.4, "retrain": 0.4}


def fitted(run: FakeRun, clips: CorpusClips, **settings: Any) -> Any:
    torch.manual_seed(0)
    model = build({**SETTINGS, **settings}, clips.streams, clips.vocabulary)
    model.fit(clips, run)
    return model


def test_the_five_steps_in_their_order() -> None:
    """Step 1 alone, then both, then both with key frames that stay; what is decoded follows."""
    clips = clips_with("frames", "audio")
    seen: list[tuple[int, str]] = []

    def score(method: Any) -> float:
        seen.append((int(method.module.stage), digest(method.module.encoder.refocus.state_dict())))
        return float(len(seen))

    run = FakeRun(6 * 20, SHARES, score=score)
    model = fitted(run, clips)
    assert [run.epochs(name) for name in SHARES] == [4, 8, 8]
    assert [stage for stage, _ in seen] == [MIDDLE] * 4 + [REFOCUSED] * 8 + [FIXED] * 8
    refocus = [weights for _, weights in seen]
    assert len(set(refocus[:5])) == 1, "neither the warm-up nor the first joint epoch moves the refocusing module"
    assert len(set(refocus[4:12])) == 8
    assert len(set(refocus[11:])) == 1
    module = model.module
    assert digest(module.finder.refocus.state_dict()) == refocus[11]
    keys = module.key_frames.find(clips.ids)
    assert (keys >= 0).all() and (keys < torch.tensor([4, 2, 3])).all()
    told = [caption.traces["key_frame"] for caption in model.decode(clips, Search(beam=2, max_words=4))]
    assert told == keys.tolist(), "the finder says the same of training clips as the store"


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


@pytest.mark.parametrize("start", ["joint", "scratch"])
def test_killed_anywhere_it_ends_with_the_same_weights_keys_and_rewards(start: str) -> None:
    clips = clips_with("frames", "audio")

    def score(method: Any) -> float:
        return -float(sum(value.detach().abs().sum() for value in method.module.parameters()))

    def run(die_at: int | None = None, saved: bytes | None = None) -> FakeRun:
        return FakeRun(6 * 8, SHARES, {"scheduled_sampling": 0.3}, score, die_at, saved)

    whole = run()
    expected = digest(fitted(whole, clips, retrain_from=start).state_dict())
    for die_at in range(3, whole.calls, 7):
        dead = run(die_at)
        with pytest.raises(DiedError):
            fitted(dead, clips, retrain_from=start)
        torch.manual_seed(99)
        assert digest(fitted(run(saved=dead.saved), clips, retrain_from=start).state_dict()) == expected


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


def test_two_passes_need_the_phases_of_two_passes() -> None:
    clips = clips_with("frames")
    with pytest.raises(ValueError, match="encoder=vre trains in the phases warm_up, joint, retrain"):
        fitted(FakeRun(12, {"base": 1.0}), clips)
