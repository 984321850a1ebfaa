"""A training recipe is a list of phases; one loop runs them all and can stop and go on anywhere.

Exact resume: the state is the weights, their average, the optimizer, the generators, the place in the data order, the
gradients not yet stepped, and the best weights so far. The data order is a function of (seed, phase, epoch), so it needs no
saving.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.method import Batch, Clips, Method, Run
from bench.training.tally import Tally

Losses = dict[str, Tensor]
"""Named scalars of one batch, each a mean over its captions; `loss` is the one that is minimised."""

SAVE_SECONDS = 120.0  # an epoch of a large set takes minutes on a CPU: lose at most this much to a crash

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adadelta": torch.optim.Adadelta,
    "sgd": torch.optim.SGD,
}
ADADELTA = {"lr": 1.0, "rho": 0.95, "eps": 1e-6}  # Zeiler 2012; papers that use AdaDelta print no rates


@dataclass(frozen=True)
class Group:
    """Part of what a phase trains, with a learning rate or weight decay of its own; None keeps that of the phase.

    `module` is a module, all of which learns, or the parameters themselves. Gradients are clipped group by group.
    """

    module: nn.Module | Sequence[nn.Parameter]
    learning_rate: float | None = None
    weight_decay: float | None = None

    def parameters(self) -> list[nn.Parameter]:
        return list(self.module.parameters() if isinstance(self.module, nn.Module) else self.module)

    def options(self) -> dict[str, Any]:
        """What the optimizer is told of this group."""
        own = {"lr": self.learning_rate, "weight_decay": self.weight_decay}
        return {"params": self.parameters(), **{name: value for name, value in own.items() if value is not None}}


@dataclass(frozen=True)
class Phase:
    """One stage of a recipe.

    `loss(batch)` gives the losses; `module` holds the parameters that learn, all others stay fixed. With `groups`, exactly
    their parameters learn, each group at its own rates. `share` is the part of the caption budget. `train` overrides keys
    of the run's training settings (learning_rate, optimizer, patience, ...). A phase with `validate=False` (pre-training of
    a part that cannot caption yet) ends with its last weights. `reads` names the streams of its batches; None is all.
    `begin(epoch)` is told the number of each epoch, from 0 in every phase, before its first batch and after a resume.
    `rewards` marks policy gradient: such a phase has a declared length, and a control that goes on without rewards.
    """

    name: str
    loss: Callable[[Batch], Losses]
    module: nn.Module
    share: float
    train: Mapping[str, Any] = field(default_factory=dict)
    validate: bool = True
    groups: Sequence[Group] = ()
    reads: Sequence[str] | None = None
    begin: Callable[[int], None] | None = None
    rewards: bool = False

    def learning(self) -> Sequence[Group]:
        """What the optimizer gets: `groups`, or all of `module` as one."""
        return self.groups or [Group(self.module)]

    def parameters(self) -> list[nn.Parameter]:
        """All that learns."""
        return [parameter for group in self.learning() for parameter in group.parameters()]


@dataclass
class _Progress:
    """Where the loop stands; everything here is saved."""

    phase: int = 0
    epoch: int = 0
    batch: int = 0
    phase_captions: int = 0
    pending: int = 0
    best_score: float = float("-inf")
    best_epoch: int = -1
    best: dict[str, Tensor] | None = None
    sums: dict[str, float] = field(default_factory=dict)  # losses of the epoch so far, summed over captions
    counted: int = 0
    steps: int = 0
    average: dict[str, Tensor] | None = None  # of what learns, where train.average asks for it

    def means(self) -> dict[str, float]:
        return {name: value / max(self.counted, 1) for name, value in self.sums.items()}


def fit_phases(method: Method, model: nn.Module, phases: Sequence[Phase], clips: Clips, run: Run) -> None:
    """Run `phases` over `clips` within the budget of `run`, resuming where an earlier try stopped.

    Each phase starts from the best validated weights of the one before it; `model` ends with the best of the last phase. Phases
    that the run shares with other cells are taken up as those left them.
    Raises FloatingPointError when a loss is no longer finite: at once on a CPU, on a GPU within a second and in any case before
    anything that came of it is saved or validated.
    """
    loop = _Loop(method, model, phases, clips, run)
    shared = run.shared([(phase.name, budget) for phase, budget in zip(phases, loop.budgets, strict=True)], model)
    if (state := run.load_state()) is not None:
        loop.take_up(state)
    while (phase := loop.at.phase) < len(phases):
        if shared is not None and (others := shared.enter(phase)) is not None:
            loop.take_up(others)
            continue
        loop.run_phase()
        if shared is not None:
            shared.leave(phase)


class _Loop:
    def __init__(self, method: Method, model: nn.Module, phases: Sequence[Phase], clips: Clips, run: Run) -> None:
        self.method, self.model, self.phases, self.clips, self.run = method, model, phases, clips, run
        self.at = _Progress()
        self.optimizer: torch.optim.Optimizer | None = None
        self.rates: list[float] = []  # of the optimizer's groups at the start of the phase
        self.saved = time.monotonic()
        self.tally: Tally | None = None  # of the losses of this epoch
        self.means: dict[str, float] = {}  # of the epoch, as they were last read
        if not run.train.get("rewards", True):
            self.phases = _without_rewards(phases)
        self.converging = run.train.get("budget") == "converged"
        self.budgets = self._budgets()

    def _budgets(self) -> list[int]:
        """Captions of each phase: its share of those of the run; or the cap up to which it may converge.

        A phase that has no score to converge by has its share of one cap.
        """
        total = sum(phase.share for phase in self.phases)
        if not self.converging:
            return [round(self.run.budget * phase.share / total) for phase in self.phases]
        train, each = self.run.train, self.clips.n_captions
        return [
            each * train["reward_epochs"]
            if phase.rewards
            else each * train["epochs"]
            if phase.validate
            else round(each * train["epochs"] * phase.share / total)
            for phase in self.phases
        ]

    # -- state -----------------------------------------------------------------------------------------------------

    def take_up(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; its tensors may lie on another device, and its learning rates are those of then."""
        self.at = _Progress(**state["at"])
        self.model.load_state_dict(state["model"])
        if self.at.phase < len(self.phases):
            self.optimizer = self._optimizer(self._settings())
            own = [{name: group[name] for name in ("lr", "weight_decay")} for group in self.optimizer.param_groups]
            if state["optimizer"] is not None:
                self.optimizer.load_state_dict(state["optimizer"])
            for group, rates in zip(self.optimizer.param_groups, own, strict=True):
                group.update(rates)  # where the settings have changed since; what decays is set anew by the epoch
            parameters = dict(self.model.named_parameters())
            for name, value in (self.at.average or {}).items():
                self.at.average[name] = value.to(parameters[name].device)  # type: ignore[index]
            for name, value in state["gradients"].items():
                parameters[name].grad = value.to(parameters[name].device)
        _set_generators(state["generators"], self.run.device)

    def save(self) -> None:
        """Write all that the rest of the training depends on."""
        self._look()
        gradients = (
            {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None} if self.at.pending else {}
        )
        self.run.save_state(
            {
                "at": dict(vars(self.at)),
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict() if self.optimizer else None,
                "gradients": gradients,
                "generators": _generators(self.run.device),
            }
        )
        self.saved = time.monotonic()

    # -- one phase -------------------------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        return self.phases[self.at.phase]

    def _settings(self) -> dict[str, Any]:
        return {**self.run.train, **self.phase.train}

    def _optimizer(self, settings: Mapping[str, Any]) -> torch.optim.Optimizer:
        learning = {id(p) for p in self.phase.parameters()}
        for p in self.model.parameters():
            p.requires_grad_(id(p) in learning)
        options: dict[str, Any] = {"lr": settings["learning_rate"], "weight_decay": settings["weight_decay"]}
        if settings["optimizer"] == "adadelta":
            options |= ADADELTA
        else:
            options["fused"] = True  # one pass over each weight instead of ten
        groups = [group.options() for group in self.phase.learning()]
        optimizer = OPTIMIZERS[settings["optimizer"]](groups, **options)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        return optimizer

    def _decay_rates(self, settings: Mapping[str, Any]) -> None:
        """The rates of this epoch: those of the phase's start, times `decay` for every `decay_every` epochs behind it."""
        if settings.get("decay") is None:
            return
        assert self.optimizer is not None
        factor = settings["decay"] ** (self.at.epoch // settings["decay_every"])
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def run_phase(self) -> None:
        """Train one phase to the end of its budget or patience, then load its best weights."""
        settings = self._settings()
        if self.optimizer is None:
            self.optimizer = self._optimizer(settings)
        budget = self.budgets[self.at.phase]
        patience = settings.get("patience") if self.phase.validate else None  # no scores, no gain to wait for
        if self.converging and self.phase.rewards:
            patience = None  # its length is declared
        while self.at.phase_captions < budget and not self._out_of_patience(patience):
            self._epoch(settings, budget)
        if self.converging and patience is not None:
            self.run.ended(self.phase.name, "converged" if self._out_of_patience(patience) else "capped")
        if self.phase.validate and self.at.best is not None:
            self.model.load_state_dict(self.at.best)
        self.at = _Progress(phase=self.at.phase + 1)
        self.optimizer = None
        self.model.zero_grad(set_to_none=True)
        self.save()

    def _out_of_patience(self, patience: int | None) -> bool:
        return patience is not None and self.at.epoch - 1 - self.at.best_epoch >= patience and self.at.epoch > 0

    def _epoch(self, settings: Mapping[str, Any], budget: int) -> None:
        self.model.train()
        self._decay_rates(settings)
        if self.phase.begin is not None:
            self.phase.begin(self.at.epoch)
        self.tally = Tally(self.at.sums, self.at.batch)
        last, stop = self._part(settings, budget)
        for batch in self._batches(settings):
            self._step(batch.to(self.run.device), settings)
            self.at.batch += 1
            self.at.phase_captions += len(batch.caption_ids)
            self.run.tick(self.phase.name, self.at.epoch, self.means)
            if self.at.phase_captions >= stop:
                break
            if time.monotonic() - self.saved > SAVE_SECONDS:
                self.save()
        self._look()
        values = self.at.means()
        if self.phase.validate:
            self._validate(values)
        self.run.report(self.phase.name, self.at.epoch, values)
        self.at.epoch += 1
        if last:
            self.at.batch = 0
        self.at.sums, self.at.counted = {}, 0
        self.tally = None
        self.save()

    def _part(self, settings: Mapping[str, Any], budget: int) -> tuple[bool, int]:
        """Whether this epoch is the last part of its pass over the captions, and at how many captions of the phase it ends."""
        parts = settings.get("validations", 1)
        whole, part = divmod(self.at.epoch, parts)
        if part == parts - 1:
            return True, budget
        return False, min(budget, round(self.clips.n_captions * (whole + (part + 1) / parts)))

    def _batches(self, settings: Mapping[str, Any]) -> Iterator[Batch]:
        # One number per (phase, epoch): 1,000 epochs are more than any schedule here has.
        order = self.at.phase * 1000 + self.at.epoch // settings.get("validations", 1)
        clips = self.clips if self.phase.reads is None else self.clips.reading(self.phase.reads)
        return clips.epoch(order, settings["captions"], settings["captions_per_clip"], start=self.at.batch)

    def _look(self) -> None:
        """Read the losses of the epoch. Raises FloatingPointError where one was not finite."""
        if self.tally is None:
            return
        self.tally.read()
        self.at.sums = dict(self.tally.sums)
        self.means = self.at.means()
        if self.tally.bad is not None:
            rate = self._settings()["learning_rate"]
            raise FloatingPointError(
                f"the loss of phase {self.phase.name!r} is {self.at.sums['loss']} in epoch {self.at.epoch}, "
                f"batch {self.tally.bad}: lower train.learning_rate (now {rate})"
            )

    def _step(self, batch: Batch, settings: Mapping[str, Any]) -> None:
        assert self.optimizer is not None and self.tally is not None
        low = settings.get("precision") == "bfloat16"
        with torch.autocast(self.run.device.type, torch.bfloat16, enabled=low):
            losses = self.phase.loss(batch)
        count = len(batch.caption_ids)
        self.tally.add(losses, count)
        self.at.counted += count
        if self.tally.due():
            self._look()
        want = settings.get("accumulate")
        # Small batches add up the sums over their captions; the step divides by all captions that were added.
        (losses["loss"] * count if want else losses["loss"]).backward()
        self.at.pending += count
        if self.at.pending >= (want or 0):
            if want:
                _divide_gradients(self.phase.parameters(), self.at.pending)
            for group in self.phase.learning():  # each by itself: a loud group does not silence a quiet one
                _clip(group.parameters(), settings)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.at.pending = 0
            if settings.get("average") and self.phase.validate:
                self._average(settings["average"])

    def _average(self, share: float) -> None:
        """Move the running average of what learns towards the weights of this step; it starts with the first ones."""
        weights = self._learning()
        if self.at.average is None:
            self.at.average = {name: value.clone() for name, value in weights.items()}
        self.at.steps += 1
        left = min(share, (1 + self.at.steps) / (10 + self.at.steps))  # or the start would be in it for long
        for name, value in weights.items():
            self.at.average[name].lerp_(value, 1 - left)

    def _learning(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.model.named_parameters() if value.requires_grad}

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with averaged weights, where there are any; afterwards it has its own again, to the bit."""
        if self.at.average is None:
            yield
            return
        weights = self._learning()
        own = {name: value.clone() for name, value in weights.items()}
        for name, value in weights.items():
            value.copy_(self.at.average[name])
        yield
        for name, value in weights.items():
            value.copy_(own[name])

    def _validate(self, values: dict[str, float]) -> None:
        self.model.eval()
        with self._averaged():
            score = self.run.validate(self.method)
            values["val_cider_tokens"] = score
            if score > self.at.best_score:
                self.at.best_score, self.at.best_epoch = score, self.at.epoch
                self.at.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
                self.run.selected(self.phase.name, self.at.epoch, score)


def _without_rewards(phases: Sequence[Phase]) -> list[Phase]:
    """The phases, those with rewards going on with the loss of the phase before them, at their own rates."""
    found: list[Phase] = []
    for phase in phases:
        before = found[-1] if found else phase
        found.append(replace(phase, loss=before.loss, begin=before.begin) if phase.rewards else phase)
    return found


def _divide_gradients(parameters: Sequence[nn.Parameter], count: int) -> None:
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad /= count


def _clip(parameters: Sequence[nn.Parameter], settings: Mapping[str, Any]) -> None:
    limit = settings["clip"]
    if not limit:
        return
    if settings["clip_by"] == "value":
        nn.utils.clip_grad_value_(parameters, limit)
    else:
        nn.utils.clip_grad_norm_(parameters, limit)


def _generators(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _set_generators(state: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])  # also the state of a GPU's generator lies on the CPU
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
