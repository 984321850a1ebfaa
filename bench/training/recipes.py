"""The recipes of the bases: cross-entropy under teacher forcing, then self-critical training where the card asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from bench.method import Batch, Clips, Run, WordLoss
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.training.phases import Losses, Phase
from bench.training.reinforce import self_critical_phase


def plain_loss(losses_BW: Tensor, batch: Batch, targets_BW: Tensor) -> Losses:
    """Cross-entropy as a `WordLoss`: every word counts once."""
    value = cross_entropy(losses_BW)
    return {"loss": value, "cross_entropy": value.detach()}


def cross_entropy_phase(
    captioner: Any, run: Run, name: str = "base", module: nn.Module | None = None, loss: WordLoss | None = None
) -> Phase:
    """A phase that trains `captioner` (or only `module` of it) on -sum_t log p(w_t | w_<t, clip), mean over captions.

    `loss` weighs the words in another way; without one it is the run's.
    """
    word_loss = run.loss if loss is None else loss

    def losses(batch: Batch) -> Losses:
        forced = teacher_forcing(captioner, batch, run.train["scheduled_sampling"])
        return word_loss(word_losses(captioner, forced), batch, forced.targets_BW)

    return Phase(name, losses, module if module is not None else captioner, run.shares.get(name, 1.0))


def base_phases(captioner: Any, settings: Mapping[str, Any], clips: Clips, run: Run) -> list[Phase]:
    """`base`, and `reinforce` where the variant gives it a share of the budget."""
    phases = [cross_entropy_phase(captioner, run)]
    if "reinforce" in run.shares:
        phases.append(self_critical_phase(captioner, settings, clips, run))
    return phases
