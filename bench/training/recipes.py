"""The plain recipe: one phase of cross-entropy under teacher forcing."""

from __future__ import annotations

from typing import Any

from torch import nn

from bench.method import Batch, Run
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.training.phases import Losses, Phase


def cross_entropy_phase(captioner: Any, run: Run, name: str = "base", module: nn.Module | None = None) -> Phase:
    """A phase that trains `captioner` (or only `module` of it) on -sum_t log p(w_t | w_<t, clip), mean over captions."""

    def loss(batch: Batch) -> Losses:
        forced = teacher_forcing(captioner, batch, run.train["scheduled_sampling"])
        value = cross_entropy(word_losses(captioner, forced))
        return {"loss": value, "cross_entropy": value.detach()}

    return Phase(name, loss, module if module is not None else captioner, run.shares.get(name, 1.0))
