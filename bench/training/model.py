"""The part of an adapter that every captioner of this house shares: fit by phases, decode by beam, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from bench.method import Batch, Caption, Clips, Run, Search, Vocabulary, WordLoss
from bench.nn.beam import beam_search
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.nn.layers import FeatureNorm, vector_mask
from bench.training.phases import Losses, Phase, fit_phases
from bench.training.reinforce import self_critical_phase


class CaptionModel:
    """A `bench.method.Method` around one `nn.Module`.

    `captioner` is the part that writes words; `module` (default: the captioner) all that learns and is saved;
    `phases(run, train)` makes the recipe once the training clips are known.
    """

    def __init__(
        self,
        captioner: Any,
        vocabulary: Vocabulary,
        phases: Callable[[Clips, Run], Sequence[Phase]],
        module: nn.Module | None = None,
    ) -> None:
        self.captioner = captioner
        self.module: nn.Module = module if module is not None else captioner
        self.vocabulary = vocabulary
        self.phases = phases

    def prepare(self, lend: Callable[[str, str], nn.Module]) -> None:
        """Remember who lends encoders, as `Run.encoder` does: for methods that decode with one."""

    def fit(self, train: Clips, run: Run) -> None:
        """Train by the phases; feature normalisers are measured on the training clips first."""
        self.module.to(run.device)
        self._fit_normalisers(train, run)
        fit_phases(self, self.module, self.phases(train, run), train, run)
        self.module.eval()

    def _fit_normalisers(self, train: Clips, run: Run) -> None:
        for module in self.module.modules():
            if isinstance(module, FeatureNorm):
                stream = module.stream
                # Regions are many vectors a frame: fewer clips at a time keep them within memory.
                clips = 16 if len(train.streams[stream].shape) > 2 else 256
                batches = (batch.to(run.device) for batch in train.reading([stream]).in_order(clips))
                measured = ((batch.streams[stream], batch.masks.get(stream)) for batch in batches)
                module.fit((values, vector_mask(values, mask_CT)) for values, mask_CT in measured)

    def decode(self, clips: Clips, search: Search) -> list[Caption]:
        """Beam search, `search.clips` clips at a time."""
        self.module.eval()
        device = next(self.module.parameters()).device
        captions: list[Caption] = []
        for batch in clips.in_order(search.clips):
            captions += self.caption(batch.to(device), search)
        return captions

    def caption(self, batch: Batch, search: Search) -> list[Caption]:
        """One caption for each clip of a batch; a method with more to tell of a clip adds to the traces here."""
        return beam_search(self.captioner, batch, self.vocabulary, search)

    def state_dict(self) -> dict[str, Tensor]:
        return self.module.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over saved weights; raises ValueError naming what does not fit."""
        own = self.module.state_dict()
        wrong = sorted(set(own) ^ set(state)) or [
            f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own
            if own[name].shape != state[name].shape
        ]
        if wrong:
            raise ValueError(f"the checkpoint does not fit this model: {', '.join(wrong[:5])}")
        self.module.load_state_dict(dict(state))


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
