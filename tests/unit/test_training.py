"""The training loop: budgets, patience, best weights, exact resume, accumulation, clipping; and the clips that feed it."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import DiedError, FakeRun, Recorder, digest, make_clips, one_batch, shake
from torch import Tensor, nn

from bench.data.batches import CorpusClips
from bench.method import BOS, EOS, PAD, Batch, Search
from bench.nn.captioners import MeanPool, SoftAttention
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.training import CaptionModel, Group, Losses, Phase, cross_entropy_phase, fit_phases, phases

SIZES = [(2, 1, 3), (1, 2), (3, 0, 1, 2), (2,), (1, 1, 2), (3, 3)]  # 15 captions of 6 clips
CAPTIONS = 15


def clips_of(spend: Callable[[int], None] | None = None, seed: int = 0) -> CorpusClips:
    return make_clips((4, 2, 3, 1, 4, 2), SIZES, seed=seed, spend=spend)


class Linear(nn.Module):
    """Two parts that learn apart: the first from the mean frame, the second from the first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.drop = nn.Linear(5, 3), nn.Linear(3, 1), nn.Dropout(0.3)
        self.register_buffer("seen", torch.zeros(1))

    def loss(self, batch: Batch) -> Losses:
        clip = self.drop(self.first(batch.streams["frames"].mean(1)))
        value = (self.second(clip)[batch.clip_of_B, 0] - batch.lengths_B).square().mean()
        return {"loss": value, "half": value.detach() / 2}


def made(dropout: bool = True) -> Linear:
    torch.manual_seed(3)
    model = Linear()
    model.drop.p = 0.3 if dropout else 0.0
    return model


def fit(model: Linear, plan: Sequence[Phase], run: FakeRun, clips: CorpusClips | None = None) -> Linear:
    fit_phases(model, model, plan, clips or clips_of(), run)  # type: ignore[arg-type]
    return model


def one_phase(model: Linear, **train: Any) -> list[Phase]:
    return [Phase("only", model.loss, model, 1.0, train)]


def by_list(scores: Sequence[float]) -> Callable[[Any], float]:
    given = iter(scores)
    return lambda method: next(given)


# -- budget, patience, best weights -------------------------------------------------------------------------------------


def test_phases_share_the_budget_of_captions() -> None:
    spent: list[tuple[str, int]] = []
    run = FakeRun(8 * CAPTIONS, {})
    model = made()
    plan = [Phase("short", model.loss, model, 1.0), Phase("long", model.loss, model, 3.0)]
    now = {"phase": "short"}
    clips = clips_of(lambda captions: spent.append((now["phase"], captions)))
    original = run.report

    def report(phase: str, epoch: int, values: Any) -> None:
        original(phase, epoch, values)
        now["phase"] = "long" if (phase, epoch) == ("short", 1) else phase

    run.report = report  # type: ignore[method-assign]
    fit(model, plan, run, clips)
    total = Counter[str]()
    for phase, captions in spent:
        total[phase] += captions
    assert total == {"short": 2 * CAPTIONS, "long": 6 * CAPTIONS}
    assert [(phase, epoch) for phase, epoch, _ in run.reports] == [("short", 0), ("short", 1)] + [
        ("long", epoch) for epoch in range(6)
    ]


def test_shares_go_to_the_nearest_number_of_captions() -> None:
    """0.29 of 100 is 28.999999999999996 to a computer."""
    run, model = FakeRun(100, {}, {"captions": 1, "captions_per_clip": 1}), made()
    fit(model, [Phase("short", model.loss, model, 0.29), Phase("long", model.loss, model, 0.71)], run)
    assert Counter(phase for phase, _ in run.ticks) == {"short": 29, "long": 71}


def test_every_epoch_of_every_phase_has_an_order_of_its_own() -> None:
    seen: list[tuple[str, ...]] = []
    model = made()

    def loss(batch: Batch) -> Losses:
        seen.append(batch.caption_ids)
        return model.loss(batch)

    plan = [Phase(name, loss, model, 1.0) for name in "ab"]
    fit(model, plan, FakeRun(4 * CAPTIONS, {}, {"captions": 1, "captions_per_clip": 1}))
    epochs = [tuple(seen[start : start + CAPTIONS]) for start in range(0, 4 * CAPTIONS, CAPTIONS)]
    assert len(set(epochs)) == 4
    assert len({frozenset(epoch) for epoch in epochs}) == 1


def test_a_phase_ends_within_one_batch_of_its_budget() -> None:
    spent: list[int] = []
    run = FakeRun(20, {})
    model = made()
    fit(model, one_phase(model), run, clips_of(spent.append))
    assert 20 <= sum(spent) < 20 + run.train["captions"]
    assert run.epochs("only") == 2  # the second is cut short


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_patience_counts_epochs_without_gain(patience: int) -> None:
    scores = [1.0, 3.0, 2.0, 3.0, 2.0, 1.0, 9.0, 9.0]
    run = FakeRun(8 * CAPTIONS, {}, {"patience": patience}, by_list(scores))
    fit(made(), one_phase(made()), run)
    assert run.epochs("only") == 2 + patience
    assert run.chosen == [("only", 0, 1.0), ("only", 1, 3.0)]


def test_patience_starts_anew_in_every_phase() -> None:
    run = FakeRun(12 * CAPTIONS, {}, {"patience": 2}, by_list([5, 1, 1, 0.5, 0.6, 0.1, 0.1]))
    model = made()
    fit(model, [Phase("a", model.loss, model, 1.0), Phase("b", model.loss, model, 1.0)], run)
    assert (run.epochs("a"), run.epochs("b")) == (3, 4)


def test_a_phase_that_is_never_validated_uses_its_whole_budget() -> None:
    """Patience speaks of validation scores; a part that cannot caption yet has none."""
    run = FakeRun(10 * CAPTIONS, {}, {"patience": 2})
    model = made()
    fit(model, [Phase("words", model.loss, model, 1.0, validate=False)], run)
    assert run.epochs("words") == 10


def test_the_best_weights_are_left_loaded_and_carried_to_the_next_phase() -> None:
    seen: dict[int, str] = {}
    model = made()

    def score(method: nn.Module) -> float:
        seen[len(seen)] = digest(method.state_dict())
        return [1.0, 5.0, 2.0, 3.0, 4.0, 2.0][len(seen) - 1]

    started: list[str] = []

    def second(batch: Batch) -> Losses:
        started.append(digest(model.state_dict()))
        return model.loss(batch)

    run = FakeRun(6 * CAPTIONS, {}, score=score)
    fit(model, [Phase("a", model.loss, model, 1.0), Phase("b", second, model, 1.0)], run)
    assert started[0] == seen[1]
    assert digest(model.state_dict()) == seen[4]
    assert run.chosen == [("a", 0, 1.0), ("a", 1, 5.0), ("b", 0, 3.0), ("b", 1, 4.0)]


def test_a_phase_without_validation_ends_with_its_last_weights() -> None:
    model, last = made(), []
    run = FakeRun(3 * CAPTIONS, {})
    original = run.report
    run.report = lambda *row: (last.append(digest(model.state_dict())), original(*row))  # type: ignore[assignment]
    fit(model, [Phase("words", model.loss, model, 1.0, validate=False)], run)
    assert digest(model.state_dict()) == last[-1]
    assert run.chosen == []
    assert all("val_cider_tokens" not in values for _, _, values in run.reports)


def test_only_the_module_of_the_phase_learns() -> None:
    model = made()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    after: dict[str, dict[str, Tensor]] = {}
    run = FakeRun(4 * CAPTIONS, {})
    original = run.report

    def report(phase: str, epoch: int, values: Any) -> None:
        after[phase] = {name: value.clone() for name, value in model.state_dict().items()}
        fixed = model.second if phase == "first" else model.first
        assert all(value.grad is None for value in fixed.parameters()), "a gradient was computed that nobody uses"
        original(phase, epoch, values)

    run.report = report  # type: ignore[method-assign]
    plan = [
        Phase("first", model.loss, model.first, 1.0, validate=False),
        Phase("second", model.loss, model.second, 1.0, validate=False),
    ]
    fit(model, plan, run)
    for name in before:
        assert torch.equal(before[name], after["first"][name]) == (not name.startswith("first")), name
        assert torch.equal(after["first"][name], after["second"][name]) == (not name.startswith("second")), name


def test_settings_of_the_phase_go_before_those_of_the_run() -> None:
    """A rate of almost zero in the phase: nothing moves."""
    model = made()
    before = digest(model.state_dict())
    fit(model, one_phase(model, optimizer="sgd", learning_rate=1e-30), FakeRun(CAPTIONS, {}))
    assert digest(model.state_dict()) == before
    fit(model, one_phase(model), FakeRun(CAPTIONS, {}))
    assert digest(model.state_dict()) != before


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adadelta", "sgd"])
def test_every_optimizer_lowers_the_loss(optimizer: str) -> None:
    model = made(dropout=False)
    rate = 0.01 if optimizer == "sgd" else 0.05
    run = FakeRun(20 * CAPTIONS, {}, {"optimizer": optimizer, "learning_rate": rate})
    fit(model, one_phase(model), run)
    assert run.reports[-1][2]["loss"] < run.reports[0][2]["loss"]


def test_adadelta_steps_as_its_author_prints() -> None:
    """Zeiler 2012, algorithm 1, with rate 1, rho 0.95, epsilon 1e-6: one step by hand."""
    model = made(dropout=False)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    batch = one_batch(clips_of())
    model.loss(batch)["loss"].backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    # One batch holds everything; the budget lets it pass once. The setting learning_rate is Adam's and must not count.
    train = {"optimizer": "adadelta", "captions": 100, "captions_per_clip": 100, "clip": None}
    fit(model, one_phase(model), FakeRun(CAPTIONS, {}, train))
    for name, value in model.named_parameters():
        mean_square = 0.05 * gradients[name].square()
        step = (1e-6**0.5) / (mean_square + 1e-6).sqrt() * gradients[name]
        torch.testing.assert_close(value.detach(), start[name] - step, rtol=1e-5, atol=1e-7)


def test_reported_losses_are_means_over_captions_not_over_batches() -> None:
    model = made(dropout=False)
    run = FakeRun(CAPTIONS, {}, {"optimizer": "sgd", "learning_rate": 1e-30, "captions": 4})
    fit(model, one_phase(model), run)
    ((_, _, values),) = run.reports
    expected = model.loss(one_batch(clips_of()))["loss"].item()
    assert values["loss"] == pytest.approx(expected, rel=1e-5)
    assert values["half"] == pytest.approx(expected / 2, rel=1e-5)
    assert values["val_cider_tokens"] == 0.0


def test_reported_losses_are_those_of_their_own_epoch() -> None:
    model, read = made(), [0]

    def loss(batch: Batch) -> Losses:
        epoch = read[0] // CAPTIONS
        read[0] += len(batch.caption_ids)
        return {**model.loss(batch), "epoch": torch.tensor(float(epoch))}

    run = FakeRun(3 * CAPTIONS, {})
    fit(model, [Phase("only", loss, model, 1.0)], run)
    assert [values["epoch"] for _, _, values in run.reports] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("captions", [1, 4])
def test_progress_tells_the_means_of_the_epoch_so_far(captions: int) -> None:
    model, seen, told = made(), [], []

    def loss(batch: Batch) -> Losses:
        losses = model.loss(batch)
        seen.append((losses["loss"].item(), len(batch.caption_ids)))
        return losses

    run = FakeRun(2 * CAPTIONS, {}, {"captions": captions})
    run.tick = lambda phase, epoch, values: told.append((epoch, values["loss"]))  # type: ignore[assignment]
    fit(model, [Phase("only", loss, model, 1.0)], run)
    batches = len(seen) // 2
    assert [epoch for epoch, _ in told] == [0] * batches + [1] * batches
    for number, (_, value) in enumerate(told):
        values, counts = zip(*seen[number // batches * batches : number + 1], strict=True)
        expected = sum(map(math.prod, zip(values, counts, strict=True))) / sum(counts)
        assert value == pytest.approx(expected, rel=1e-12)


def test_dropout_is_on_while_learning_and_off_while_validating() -> None:
    model, modes = made(), []

    def loss(batch: Batch) -> Losses:
        modes.append(model.training)
        return model.loss(batch)

    def score(method: nn.Module) -> float:
        modes.append(method.training)
        return 0.0

    fit(
        model,
        [Phase("only", loss, model, 1.0)],
        FakeRun(2 * CAPTIONS, {}, {"captions": 100, "captions_per_clip": 9}, score),
    )
    assert modes == [True, False, True, False]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_a_sentence(bad: float) -> None:
    model = made()
    calls = itertools.count()

    def loss(batch: Batch) -> Losses:
        value = model.loss(batch)["loss"]
        return {"loss": value * bad if next(calls) == 5 else value}

    sentence = r"phase 'only' is (nan|inf) in epoch 1, batch \d+: lower train.learning_rate \(now 0.05\)"
    with pytest.raises(FloatingPointError, match=sentence):
        fit(model, [Phase("only", loss, model, 1.0)], FakeRun(4 * CAPTIONS, {}))


# -- gradient accumulation and clipping ---------------------------------------------------------------------------------


def steps_of(train: dict[str, Any], sizes: Sequence[Sequence[int]], epochs: int = 1) -> Linear:
    """A model in float64 after some epochs, order of captions fixed by the clips' seed."""
    model = made(dropout=False).double()

    def loss(batch: Batch) -> Losses:
        batch.streams["frames"] = batch.streams["frames"].double()
        return model.loss(batch)

    clips = make_clips([4] * len(sizes), sizes)
    budget = epochs * sum(map(len, sizes))
    fit(model, [Phase("only", loss, model, 1.0, validate=False)], FakeRun(budget, {}, train), clips)
    return model


@pytest.mark.parametrize("clip_by", ["norm", "value"])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_small_batches_that_fill_a_large_one_are_the_large_one(optimizer: str, clip_by: str) -> None:
    """Twelve captions in batches of 4, or of 5, 5 and 2, make one step of the mean over twelve."""
    sizes = [(2,)] * 12
    common = {"optimizer": optimizer, "learning_rate": 0.01, "clip": 0.1, "clip_by": clip_by, "captions_per_clip": 1}
    large = steps_of({**common, "captions": 12}, sizes, epochs=3)
    for small in (4, 5, 1):
        summed = steps_of({**common, "captions": small, "accumulate": 12}, sizes, epochs=3)
        for one, other in zip(large.parameters(), summed.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_batches_that_overshoot_still_step_by_their_mean() -> None:
    """Batches of 5 with accumulate=8: each step is the mean over ten captions, as with accumulate=10."""
    sizes = [(2,)] * 20
    common = {"optimizer": "sgd", "learning_rate": 0.01, "clip": None, "captions_per_clip": 1, "captions": 5}
    eight, ten = (steps_of({**common, "accumulate": number}, sizes) for number in (8, 10))
    for one, other in zip(eight.parameters(), ten.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_captions_left_over_wait_for_the_next_epoch() -> None:
    """Three captions an epoch, a step every two: the third waits and makes a step with the first of the next epoch."""
    model = made(dropout=False)
    stepped: list[int] = []
    read = [0]

    def loss(batch: Batch) -> Losses:
        if read[0] and model.first.weight.grad is None:
            stepped.append(read[0])
        read[0] += len(batch.caption_ids)
        return model.loss(batch)

    train = {"captions": 1, "captions_per_clip": 1, "accumulate": 2}
    run = FakeRun(6, {}, train)
    fit(model, [Phase("only", loss, model, 1.0)], run, make_clips([4, 4, 4], [(1,), (1,), (1,)]))
    assert stepped == [2, 4]


def test_captions_left_over_at_the_end_of_a_phase_move_nothing_in_the_next() -> None:
    """The first phase adds up gradients and never steps; the second steps by its own, by hand."""
    model = made(dropout=False)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    model.loss(one_batch(clips_of()))["loss"].backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    train = {"optimizer": "sgd", "learning_rate": 0.01, "clip": None, "captions": 100, "captions_per_clip": 100}
    plan = [
        Phase("adds", model.loss, model, 1.0, {"accumulate": 1000}, validate=False),
        Phase("steps", model.loss, model, 1.0, validate=False),
    ]
    fit(model, plan, FakeRun(2 * CAPTIONS, {}, train))
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), start[name] - 0.01 * gradients[name], rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("clip_by", "limit"), [("norm", 0.5), ("value", 0.01), ("norm", None)])
def test_clipping_is_by_norm_or_by_value_or_not_at_all(clip_by: str, limit: float | None) -> None:
    """Plain descent at rate 1: the step is the clipped gradient."""
    model = made(dropout=False).double()
    batch = one_batch(clips_of(), torch.float64)
    model.loss(batch)["loss"].backward()
    start = [value.detach().clone() for value in model.parameters()]
    gradients = [value.grad.clone() for value in model.parameters() if value.grad is not None]
    norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
    assert norm > 1
    if limit is None:
        expected = gradients
    elif clip_by == "norm":
        expected = [gradient * limit / norm for gradient in gradients]
    else:
        expected = [gradient.clamp(-limit, limit) for gradient in gradients]
        assert any((gradient.abs() < limit).any() for gradient in gradients) or all(
            (gradient.abs() == limit).all() for gradient in expected
        )
    model.zero_grad(set_to_none=True)
    train = {"optimizer": "sgd", "learning_rate": 1.0, "clip": limit, "clip_by": clip_by, "captions": 100}

    def loss(given: Batch) -> Losses:
        given.streams["frames"] = given.streams["frames"].double()
        return model.loss(given)

    plan = [Phase("only", loss, model, 1.0, validate=False)]
    fit(model, plan, FakeRun(CAPTIONS, {}, {**train, "captions_per_clip": 9}))
    for value, before, step in zip(model.parameters(), start, expected, strict=True):
        torch.testing.assert_close(before - value.detach(), step, rtol=1e-5, atol=1e-9)


# -- optimizer groups and decay -----------------------------------------------------------------------------------------


def apart(model: Linear, rate: float = 0.25, decay: float = 0.5) -> list[Phase]:
    """The first part learns at a rate and weight decay of its own; the bias of the second is in no group."""
    groups = [Group([model.second.weight]), Group(model.first, learning_rate=rate, weight_decay=decay)]
    return [Phase("apart", model.loss, model, 1.0, groups=groups, validate=False)]


def test_each_group_steps_at_its_own_rate_and_decay() -> None:
    """Plain descent, one batch of all captions: w - rate (gradient + decay w), by hand."""
    model = made(dropout=False)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    model.loss(one_batch(clips_of()))["loss"].backward()
    gradients = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    train = {"optimizer": "sgd", "learning_rate": 0.01, "weight_decay": 0.1, "clip": None, "captions": 100}
    fit(model, apart(model), FakeRun(CAPTIONS, {}, {**train, "captions_per_clip": 100}))
    rates = {"first": (0.25, 0.5), "second": (0.01, 0.1)}
    for name, value in model.named_parameters():
        rate, decay = rates[name.partition(".")[0]]
        step = rate * (gradients[name] + decay * start[name])
        expected = start[name] if name == "second.bias" else start[name] - step
        torch.testing.assert_close(value.detach(), expected, rtol=1e-5, atol=1e-8)


def test_one_group_of_everything_is_no_group() -> None:
    alone, grouped = made(), made()
    torch.manual_seed(0)
    fit(alone, one_phase(alone), FakeRun(3 * CAPTIONS, {}))
    torch.manual_seed(0)
    fit(grouped, [Phase("only", grouped.loss, grouped, 1.0, groups=[Group(grouped)])], FakeRun(3 * CAPTIONS, {}))
    assert digest(alone.state_dict()) == digest(grouped.state_dict())


def test_each_group_is_clipped_by_itself() -> None:
    """The gradient of one group is a thousand times as long; the other still makes a step of its own length, 1."""

    class Loud(Linear):
        def loss(self, batch: Batch) -> Losses:
            return {"loss": 1000 * self.first.weight.sum() + self.second.weight.sum()}

    torch.manual_seed(0)
    model = Loud()
    start = model.second.weight.detach().clone()
    train = {"optimizer": "sgd", "learning_rate": 1.0, "clip": 1.0, "captions": 100, "captions_per_clip": 100}
    groups = [Group(model.first), Group(model.second)]
    fit(model, [Phase("only", model.loss, model, 1.0, groups=groups)], FakeRun(CAPTIONS, {}, train))
    assert (model.second.weight.detach() - start).norm().item() == pytest.approx(1.0, rel=1e-4)


def rates_of(train: dict[str, Any], plan: Callable[[Linear], list[Phase]], epochs: int) -> list[list[float]]:
    """Learning rates of the optimizer's groups in each epoch."""
    model, found = made(), []
    run = FakeRun(epochs * CAPTIONS, {}, train)
    loop = phases._Loop(model, model, plan(model), clips_of(), run)  # type: ignore[arg-type]
    original = run.report

    def report(*row: Any) -> None:
        assert loop.optimizer is not None
        found.append([group["lr"] for group in loop.optimizer.param_groups])
        original(*row)

    run.report = report  # type: ignore[method-assign]
    while loop.at.phase < len(loop.phases):
        loop.run_phase()
    return found


def test_rates_decay_every_so_many_epochs_and_start_anew_with_a_phase() -> None:
    """HA_IL: times 0.8 every 30 epochs; here every 2."""
    train = {"learning_rate": 1.0, "decay": 0.8, "decay_every": 2}
    once = [1.0, 1.0, 0.8, 0.8, 0.8**2]
    found = rates_of(train, lambda model: one_phase(model) + one_phase(model), 10)
    assert found == [[pytest.approx(rate)] for rate in once + once]
    found = rates_of(train, apart, 3)
    assert found == [pytest.approx([1.0, 0.25]), pytest.approx([1.0, 0.25]), pytest.approx([0.8, 0.2])]
    assert rates_of({"learning_rate": 1.0, "decay": None, "decay_every": 1}, one_phase, 2) == [[1.0], [1.0]]


def test_a_phase_reads_the_streams_it_names() -> None:
    model, seen = made(), []

    def loss(batch: Batch) -> Losses:
        seen.append((tuple(batch.streams), tuple(batch.masks), batch.caption_ids))
        return model.loss(batch)

    clips = make_clips((4, 2, 3, 1, 4, 2), SIZES, {"frames": (4, 5), "words": (3,)})
    plan = [Phase("some", loss, model, 1.0, reads=["frames"]), Phase("all", loss, model, 1.0)]
    fit(model, plan, FakeRun(2 * CAPTIONS, {}), clips)
    half = len(seen) // 2
    assert {streams for streams, _, _ in seen[:half]} == {("frames",)}
    assert {streams for streams, _, _ in seen[half:]} == {("frames", "words")}
    whole = [batch.caption_ids for batch in clips.epoch(0, 4, 2)]
    assert [captions for _, _, captions in seen[:half]] == whole, (
        "fewer streams, but the order of the captions is the same"
    )


def test_a_phase_is_told_of_each_epoch_and_again_after_a_resume() -> None:
    def run_through(die_at: int | None = None, saved: bytes | None = None) -> tuple[list[str], FakeRun]:
        model, told = made(), []

        def loss(batch: Batch) -> Losses:
            told.append("batch")
            return model.loss(batch)

        plan = [Phase(name, loss, model, 1.0, begin=lambda epoch: told.append(f"epoch {epoch}")) for name in "ab"]
        run = FakeRun(4 * CAPTIONS, {}, die_at=die_at, saved=saved)
        with suppress(DiedError):
            fit(model, plan, run)
        return told, run

    whole, _ = run_through()
    assert [word for word in whole if word != "batch"] == ["epoch 0", "epoch 1"] * 2
    assert whole[0] == "epoch 0" and whole.count("batch") == 4 * 4
    _, dead = run_through(die_at=9)  # in the second epoch, after the first was saved
    again, _ = run_through(saved=dead.saved)
    assert [word for word in again if word != "batch"] == ["epoch 1", "epoch 0", "epoch 1"]


# -- to convergence -----------------------------------------------------------------------------------------------------

CONVERGED = {"budget": "converged", "epochs": 6, "patience": 2, "reward_epochs": 3, "average": 0.9, "validations": 2}


def test_phases_that_converge_end_by_their_scores_or_at_one_cap_whatever_their_shares() -> None:
    model = made()
    scores = [5, 1, 1] + [float(n) for n in range(30)]  # 5 is never reached again in the first phase
    run = FakeRun(10**6, {}, {**CONVERGED, "validations": 1}, by_list(scores))
    plan = [
        Phase("still", model.loss, model, 0.9),
        Phase("rising", model.loss, model, 0.05),
        Phase("drawn", model.loss, model, 0.05, rewards=True),
    ]
    fit(model, plan, run)
    assert (run.epochs("still"), run.epochs("rising"), run.epochs("drawn")) == (3, 6, 3)
    assert run.endings == {"still": "converged", "rising": "capped"}


def test_a_phase_with_rewards_has_its_declared_length_whatever_the_scores_say() -> None:
    model = made()
    run = FakeRun(10**6, {}, {**CONVERGED, "validations": 1}, by_list([9, 1, 1, 1, 1, 1]))
    fit(model, [Phase("drawn", model.loss, model, 1.0, rewards=True)], run)
    assert run.epochs("drawn") == 3 and run.endings == {}


def test_without_rewards_a_phase_goes_on_with_the_loss_before_it_at_its_own_rate() -> None:
    def fails(batch: Batch) -> Losses:
        raise AssertionError("drew captions")

    ends = []
    for rate in (0.01, 0.02):
        model = made()
        train = {**CONVERGED, "rewards": False}
        plan = [
            Phase("base", model.loss, model, 0.5),
            Phase("drawn", fails, model, 0.5, {"learning_rate": rate}, rewards=True),
        ]
        run = FakeRun(10**6, {}, train, weight_score)
        ends.append(digest(fit(model, plan, run).state_dict()))
        assert run.epochs("drawn") == 2 * 3  # validations of passes
    assert ends[0] != ends[1]


def test_a_pass_in_parts_reads_what_a_whole_one_reads() -> None:
    """Two validations a pass: the same batches in the same order, and the same weights at the end."""
    ends = {}
    for parts in (1, 2, 4):
        spent: list[int] = []
        model = made()
        run = FakeRun(3 * CAPTIONS, {}, {"validations": parts}, by_list([float(n) for n in range(20)]))
        plan = one_phase(model)
        fit(model, plan, run, clips_of(spent.append))
        ends[parts] = (sum(spent), digest(model.state_dict()))
        assert run.epochs("only") == 3 * parts
    assert ends[1] == ends[2] == ends[4]


def test_the_average_is_that_of_the_steps_and_is_what_is_validated_and_kept() -> None:
    """A float64 loop over the weights after each step: share 0.9, less while the steps are few."""
    steps: list[Tensor] = []
    seen: list[Tensor] = []

    def score(method: Linear) -> float:
        seen.append(method.second.weight.detach().double().clone())
        return float(len(seen))

    model = made(dropout=False)
    run = FakeRun(2 * CAPTIONS, {}, {"average": 0.9}, score)
    tick = run.tick
    run.tick = lambda *args: (tick(*args), steps.append(model.second.weight.detach().double().clone()))[0]  # type: ignore
    fit(model, one_phase(model), run)
    average = steps[0].clone()
    expected = {}
    for number, weights in enumerate(steps, start=1):
        left = min(0.9, (1 + number) / (10 + number))
        average = left * average + (1 - left) * weights
        expected[number] = average.clone()
    assert len(steps) == 8 and len(seen) == 2
    torch.testing.assert_close(seen[0], expected[4], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(seen[1], expected[8], rtol=1e-6, atol=1e-7)
    assert torch.equal(model.second.weight.detach().double(), seen[1])


def test_validating_an_average_leaves_no_trace_in_the_weights() -> None:
    """Training with an average that is looked at goes as training without one."""
    last: dict[float, str] = {}
    for share in (0.0, 0.5):
        model, states = made(), []
        run = FakeRun(3 * CAPTIONS, {}, {"average": share}, lambda method: 0.0)
        tick = run.tick
        run.tick = lambda *args, m=model, s=states, t=tick: (t(*args), s.append(digest(m.state_dict())))[0]  # type: ignore
        fit(model, one_phase(model), run)
        last[share] = states[-1]
    assert last[0.0] == last[0.5]


# -- exact resume -------------------------------------------------------------------------------------------------------


RESUMED = 69  # 4.6 epochs of captions: both phases end inside an epoch


def weight_score(method: nn.Module) -> float:
    """A score that is a function of the weights, as a real one is. Its best epoch is neither the first nor the last."""
    return math.sin(70 * sum(float(value.double().sum()) for value in method.state_dict().values()))


def two_phases(model: Linear) -> list[Phase]:
    return [
        Phase("first", model.loss, model.first, 0.25, {"optimizer": "adadelta"}, validate=False),
        Phase("both", model.loss, model, 0.75),
    ]


def fitted(run: FakeRun, plan: Callable[[Linear], list[Phase]] = two_phases) -> str:
    """Fit a fresh model, as a new process would, whose generators stand elsewhere; SHA-256 of the final weights."""
    model = made()
    torch.manual_seed(run.calls + 12345 if run.saved is not None else 17)
    fit(model, plan(model), run)
    return digest(model.state_dict())


@pytest.mark.parametrize("seconds", [-1.0, 120.0], ids=["saved after every batch", "saved after every epoch"])
@pytest.mark.parametrize("train", [{}, {"accumulate": 7}, {"patience": 1}], ids=["plain", "accumulating", "patient"])
def test_a_run_that_died_anywhere_ends_with_the_same_weights(
    train: dict[str, Any], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies at every call that reaches the run: batches, validation, selection, report, before and after each save."""
    monkeypatch.setattr(phases, "SAVE_SECONDS", seconds)
    whole = FakeRun(RESUMED, {}, train, weight_score)
    expected = fitted(whole)
    assert [epoch for phase, epoch, _ in whole.chosen] == [0, 1]
    assert whole.epochs("both") == (3 if "patience" in train else 4)
    for death in range(0, whole.calls, 2 if train else 1):  # an odd number of calls to a batch: no kind is left out
        first = FakeRun(RESUMED, {}, train, weight_score, die_at=death)
        with pytest.raises(DiedError):
            fitted(first)
        second = FakeRun(RESUMED, {}, train, weight_score, saved=first.saved)
        assert fitted(second) == expected, f"died at call {death}"
        rows = {(phase, epoch): values for phase, epoch, values in first.reports + second.reports}
        assert rows == {(phase, epoch): values for phase, epoch, values in whole.reports}


def test_a_run_that_dies_again_and_again_ends_with_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "SAVE_SECONDS", -1.0)
    expected = fitted(FakeRun(RESUMED, {}, {"accumulate": 7}, weight_score))
    saved, deaths = None, 0
    while True:
        run = FakeRun(RESUMED, {}, {"accumulate": 7}, weight_score, die_at=6, saved=saved)
        try:
            assert fitted(run) == expected
            break
        except DiedError:
            saved, deaths = run.saved, deaths + 1
    assert deaths > 5


def grouped_phases(model: Linear) -> list[Phase]:
    """As EtENet's: one part alone, then both, each at its own rate."""
    groups = [Group(model.first, learning_rate=0.01, weight_decay=1e-3), Group(model.second)]
    return [Phase("alone", model.loss, model.second, 0.4), Phase("both", model.loss, model, 0.6, groups=groups)]


@pytest.mark.parametrize("accumulate", [None, 7])
def test_groups_and_decayed_rates_resume_exactly(accumulate: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "SAVE_SECONDS", -1.0)
    train = {"decay": 0.5, "decay_every": 2, "accumulate": accumulate}
    whole = FakeRun(RESUMED, {}, train, weight_score)
    expected = fitted(whole, grouped_phases)
    assert expected != fitted(FakeRun(RESUMED, {}, {"accumulate": accumulate}, weight_score), grouped_phases)
    for death in range(0, whole.calls, 3):
        first = FakeRun(RESUMED, {}, train, weight_score, die_at=death)
        with pytest.raises(DiedError):
            fitted(first, grouped_phases)
        second = FakeRun(RESUMED, {}, train, weight_score, saved=first.saved)
        assert fitted(second, grouped_phases) == expected, f"died at call {death}"


def converging_phases(model: Linear) -> list[Phase]:
    return [
        Phase("base", model.loss, model, 0.5),
        Phase("drawn", model.loss, model.second, 0.5, {"learning_rate": 0.01}, rewards=True),
    ]


@pytest.mark.parametrize("seconds", [-1.0, 120.0], ids=["saved after every batch", "saved after every epoch"])
def test_averages_parts_and_endings_resume_exactly(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "SAVE_SECONDS", seconds)
    train = {**CONVERGED, "epochs": 3, "reward_epochs": 1}
    whole = FakeRun(0, {}, train, weight_score)
    expected = fitted(whole, converging_phases)
    assert expected != fitted(FakeRun(0, {}, {**train, "average": 0.0}, weight_score), converging_phases)
    for death in range(0, whole.calls, 2):
        first = FakeRun(0, {}, train, weight_score, die_at=death)
        with pytest.raises(DiedError):
            fitted(first, converging_phases)
        second = FakeRun(0, {}, train, weight_score, saved=first.saved)
        assert fitted(second, converging_phases) == expected, f"died at call {death}"
        assert {**first.endings, **second.endings} == whole.endings


def test_a_long_epoch_is_saved_every_two_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash costs as much; saving after every batch would cost more than it saves. Here a batch takes 50 seconds."""
    model, read = made(), [0]
    monkeypatch.setattr(phases, "time", SimpleNamespace(monotonic=lambda: 50.0 * read[0]))

    def loss(batch: Batch) -> Losses:
        read[0] += 1
        return model.loss(batch)

    run, saved = FakeRun(CAPTIONS, {}, {"captions": 1, "captions_per_clip": 1}), []
    run.save_state = lambda state: saved.append(read[0])  # type: ignore[assignment]
    fit(model, [Phase("only", loss, model, 1.0)], run)
    assert saved == [3, 6, 9, 12, 15, 15]  # the last two: the ends of the epoch and of the phase


def test_a_finished_run_that_is_asked_again_trains_nothing() -> None:
    run = FakeRun(2 * CAPTIONS, {}, score=weight_score)
    expected = fitted(run)
    spent: list[int] = []
    again = FakeRun(2 * CAPTIONS, {}, score=weight_score, saved=run.saved)
    model = made()
    fit(model, two_phases(model), again, clips_of(spent.append))
    assert digest(model.state_dict()) == expected
    assert spent == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("death", [3, 9, 15, 20])
def test_a_captioner_with_dropout_and_sampling_resumes_exactly(
    death: int, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real thing: CaptionModel, normalised features, dropout, scheduled sampling, validation by decoding."""
    monkeypatch.setattr(phases, "SAVE_SECONDS", -1.0)
    train = {"scheduled_sampling": 0.4, "captions": 6, "precision": precision}

    def score(method: CaptionModel) -> float:
        captions = method.decode(make_clips((4, 2), ((), ()), seed=9), Search(beam=2, max_words=4))
        return sum(caption.log_probability for caption in captions)

    def attempt(run: FakeRun) -> str:
        torch.manual_seed(5)
        model = captioner_model()
        torch.manual_seed(run.calls + 99 if run.saved is not None else 5)
        model.fit(clips_of(), run)
        return digest(model.state_dict())

    expected = attempt(FakeRun(3 * CAPTIONS, {"base": 1.0}, train, score))
    first = FakeRun(3 * CAPTIONS, {"base": 1.0}, train, score, die_at=death)
    with pytest.raises(DiedError):
        attempt(first)
    assert attempt(FakeRun(3 * CAPTIONS, {"base": 1.0}, train, score, saved=first.saved)) == expected
    other = {**train, "precision": "float32" if precision == "bfloat16" else "bfloat16"}
    assert attempt(FakeRun(3 * CAPTIONS, {"base": 1.0}, other, score)) != expected, "precision changes the weights"


def captioner_model(dropout: float = 0.5) -> CaptionModel:
    clips = clips_of()
    captioner = MeanPool(len(clips.vocabulary), 5, 6, 4, dropout, True, 2)
    return CaptionModel(captioner, clips.vocabulary, lambda train, run: [cross_entropy_phase(captioner, run)])


# -- scheduled sampling, normalisation, caption model -------------------------------------------------------------------


def soft(dropout: float = 0.0) -> SoftAttention:
    captioner = SoftAttention(11, 5, 6, 4, dropout, False, 3)
    shake(captioner)
    return captioner


def test_scheduled_sampling_changes_inputs_only() -> None:
    batch = one_batch(clips_of())
    before = batch.words_BW.clone()
    captioner = soft()
    truth, own, half = Recorder(captioner), Recorder(captioner), Recorder(captioner)
    plain = teacher_forcing(truth, batch, 0.0)
    torch.manual_seed(0)
    sampled = teacher_forcing(own, batch, 1.0)
    teacher_forcing(half, batch, 0.5)
    assert torch.equal(batch.words_BW, before)
    assert torch.equal(plain.targets_BW, sampled.targets_BW)
    assert torch.equal(plain.mask_BW, sampled.mask_BW)
    for word, (fed, other, mixed) in enumerate(zip(truth.fed, own.fed, half.fed, strict=True)):
        rows = (batch.lengths_B > word).sum()
        assert torch.equal(fed, before[:rows, word])
        if word == 0:
            assert (fed == BOS).all()
            assert torch.equal(fed, other)
            assert torch.equal(fed, mixed)
    assert any(not torch.equal(fed, other) for fed, other in zip(truth.fed, own.fed, strict=True))
    changed = torch.cat([f != m for f, m in zip(truth.fed[1:], half.fed[1:], strict=True)])
    assert 0 < changed.float().mean() < 0.8


def test_the_cross_entropy_phase_samples_as_often_as_the_run_says() -> None:
    captioner, batch = soft(), one_batch(clips_of())
    found = []
    for sampling in (0.0, 0.5, 1.0):
        phase = cross_entropy_phase(captioner, FakeRun(1, {"base": 1.0}, {"scheduled_sampling": sampling}))
        torch.manual_seed(0)
        found.append(phase.loss(batch)["loss"].item())
        torch.manual_seed(0)
        forced = teacher_forcing(captioner, batch, sampling)
        assert found[-1] == pytest.approx(cross_entropy(word_losses(captioner, forced)).item(), rel=1e-6)
    assert len({round(loss, 3) for loss in found}) == 3
    assert phase.share == cross_entropy_phase(captioner, FakeRun(1, {})).share == 1.0, "all of it where none is named"


def sampled_second_words() -> tuple[Tensor, Tensor]:
    """Shares of the word fed second over 4000 copies of a caption, and the model's own distribution after BOS, [V] each."""
    recorder = Recorder(soft())
    torch.manual_seed(1)
    forced = teacher_forcing(recorder, one_batch(make_clips([4], [[2] * 4000])), 1.0)
    own = torch.softmax(recorder.logits(forced.features_BWR[:1, 0]), -1)[0]
    return torch.bincount(recorder.fed[1], minlength=11) / 4000, own


def test_sampled_words_follow_the_models_own_distribution() -> None:
    found, own = sampled_second_words()
    words = slice(EOS, None)
    assert (found[words] / found[words].sum() - own[words] / own[words].sum()).abs().max() < 0.03


def test_sampled_words_are_words() -> None:
    """GL-RG would take a drawn BOS for i = 1 (eq. 6)."""
    found, own = sampled_second_words()
    assert own[PAD] + own[BOS] > 0.01
    assert found[PAD] == found[BOS] == 0


def test_no_gradient_passes_through_a_sampled_word() -> None:
    batch = one_batch(make_clips([4], [[2]]))
    captioner = soft()
    torch.manual_seed(0)
    forced = teacher_forcing(captioner, batch, 1.0)
    forced.features_BWR[0, 1].sum().backward()
    assert captioner.output.weight.grad is None


def test_fit_measures_normalisation_on_the_training_clips() -> None:
    model = captioner_model()
    clips = clips_of()
    model.fit(clips, FakeRun(CAPTIONS, {"base": 1.0}))
    batch = next(clips.in_order(100))
    real = batch.streams["frames"][batch.masks["frames"]]
    torch.testing.assert_close(model.captioner.norm.mean, real.mean(0))
    torch.testing.assert_close(model.captioner.norm.scale, 1 / real.std(0, unbiased=False))
    assert not model.module.training


def test_the_cross_entropy_of_a_captioner_goes_down() -> None:
    run = FakeRun(20 * CAPTIONS, {"base": 1.0}, {"learning_rate": 0.05})
    captioner_model(dropout=0.0).fit(clips_of(), run)
    assert run.reports[-1][2]["loss"] < 0.7 * run.reports[0][2]["loss"]


# -- clips --------------------------------------------------------------------------------------------------------------


def ids_of(batches: Sequence[Batch]) -> list[tuple[str, ...]]:
    return [batch.caption_ids for batch in batches]


@pytest.mark.parametrize(("captions", "per_clip"), [(1, 1), (4, 2), (5, 3), (100, 1), (100, 100), (3, 2)])
def test_an_epoch_is_every_caption_once(captions: int, per_clip: int) -> None:
    clips = clips_of()
    expected = sorted(ref.id for clip in clips.ids for ref in clips.references(clip))
    assert len(expected) == clips.n_captions == CAPTIONS
    for order in range(4):
        batches = list(clips.epoch(order, captions, per_clip))
        assert sorted(caption for batch in batches for caption in batch.caption_ids) == expected


@pytest.mark.parametrize(("captions", "per_clip"), [(4, 2), (6, 4), (3, 1), (15, 2), (100, 100)])
def test_batches_keep_within_their_size(captions: int, per_clip: int) -> None:
    for order in range(20):
        assert all(len(batch.caption_ids) <= captions for batch in clips_of().epoch(order, captions, per_clip))


def test_batches_smaller_than_the_share_of_a_clip_keep_within_their_size() -> None:
    assert all(len(batch.caption_ids) <= 2 for batch in clips_of().epoch(0, 2, 4))


def test_the_order_is_a_function_of_seed_and_number() -> None:
    first, second, other = clips_of(), clips_of(), clips_of(seed=1)
    assert ids_of(list(first.epoch(3, 4, 2))) == ids_of(list(second.epoch(3, 4, 2)))
    assert ids_of(list(first.epoch(3, 4, 2))) != ids_of(list(first.epoch(4, 4, 2)))
    assert ids_of(list(first.epoch(3, 4, 2))) != ids_of(list(other.epoch(3, 4, 2)))


def test_start_skips_batches_unread_and_uncounted() -> None:
    spent: list[int] = []
    clips = clips_of(spent.append)
    whole = list(clips.epoch(1, 4, 2))
    spent.clear()
    source = clips._sources["frames"]
    read, original = [], source.read
    source.read = lambda ids: (read.append(tuple(ids)), original(ids))[1]
    rest = list(clips.epoch(1, 4, 2, start=2))
    assert ids_of(rest) == ids_of(whole)[2:]
    assert read == [batch.clip_ids for batch in rest]
    assert spent == [len(batch.caption_ids) for batch in rest]


def test_captions_are_counted_when_they_are_handed_out() -> None:
    spent: list[int] = []
    epoch = clips_of(spent.append).epoch(0, 4, 2)
    assert spent == []
    first = next(epoch)
    assert spent == [len(first.caption_ids)]


def test_a_batch_is_what_the_contract_says() -> None:
    clips = clips_of()
    for batch in clips.epoch(0, 6, 3):
        assert len(set(batch.clip_ids)) == len(batch.clip_ids)
        assert batch.lengths_B.tolist() == sorted(batch.lengths_B.tolist(), reverse=True)
        for row, caption in enumerate(batch.caption_ids):
            clip = batch.clip_ids[int(batch.clip_of_B[row])]
            (reference,) = [ref for ref in clips.references(clip) if ref.id == caption]
            words = batch.words_BW[row].tolist()
            length = len(reference.words)
            assert words[: length + 2] == [BOS, *reference.words, EOS]
            assert set(words[length + 2 :]) <= {PAD}
            assert batch.lengths_B[row] == length + 1
        assert batch.words_BW.shape[1] == batch.lengths_B[0] + 1
        lengths = {"c0": 4, "c1": 2, "c2": 3, "c3": 1, "c4": 4, "c5": 2}
        assert batch.masks["frames"].sum(1).tolist() == [lengths[clip] for clip in batch.clip_ids]
        assert batch.masks["frames"].dtype == torch.bool
        assert (batch.masks["frames"].long().diff(dim=1) <= 0).all()  # padding only at the end


def test_streams_stand_beside_their_clips_and_only_timed_ones_have_masks() -> None:
    clips = make_clips(shapes={"frames": (4, 5), "words": (3,)})
    whole = next(clips.in_order(100))
    assert whole.clip_ids == clips.ids
    assert set(whole.masks) == {"frames"}
    for batch in clips.epoch(2, 3, 1):
        for row, clip in enumerate(batch.clip_ids):
            for name, value in batch.streams.items():
                assert torch.equal(value[row], whole.streams[name][clips.ids.index(clip)])
                assert value.dtype == torch.float32


def test_in_order_is_all_clips_without_captions() -> None:
    spent: list[int] = []
    clips = clips_of(spent.append)
    batches = list(clips.in_order(4))
    assert [clip for batch in batches for clip in batch.clip_ids] == list(clips.ids)
    assert all(batch.caption_ids == () and len(batch.words_BW) == len(batch.clip_of_B) == 0 for batch in batches)
    assert spent == []
