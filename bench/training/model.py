"""The part of an adapter that every captioner of this house shares: fit by phases, decode by beam, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from bench.method import Batch, Caption, Clips, Run, Search, Vocabulary
from bench.nn.beam import beam_search
from bench.nn.layers import FeatureNorm, vector_mask
from bench.training.phases import Phase, fit_phases


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
