"""The losses of an epoch so far, without waiting for a GPU at every step."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

READ_SECONDS = 1.0  # between two looks at losses on a GPU: for each the host waits until the GPU has come as far


class Tally:
    """Sums of named losses over captions, in float64, added where the losses lie.

    On a CPU the sums are always up to date. On a GPU `read` fetches them, and the host otherwise runs ahead of it. `sums` are
    those that were read last; `bad` is the number of the first batch whose `loss` was not finite, as far as that is known.
    """

    def __init__(self, sums: Mapping[str, float], batch: int) -> None:
        """Go on from `sums`, with batch number `batch`."""
        self.sums = dict(sums)
        self.bad: int | None = None
        self._batch = self._first = batch
        self._names: tuple[str, ...] = ()
        self._there: Tensor | None = (
            None  # on the GPU: the sums of `_names`, and how many steps had finite losses up to there
        )
        self._good = 0.0
        self._read = -math.inf

    def add(self, losses: Mapping[str, Tensor], count: int) -> None:
        """Add the mean losses of a batch of `count` captions."""
        there = {name: value for name, value in losses.items() if value.device.type != "cpu"}
        for name, value in losses.items():
            before = self.sums.setdefault(name, 0.0)
            if name not in there:
                self.sums[name] = before + value.item() * count
        if there:
            self._add_there(tuple(there), list(there.values()), count)
        elif self.bad is None and not math.isfinite(self.sums["loss"]):
            self.bad = self._batch
        self._batch += 1

    def _add_there(self, names: tuple[str, ...], values: Sequence[Tensor], count: int) -> None:
        if self._there is None or names != self._names:
            self.read()
            start = [*(self.sums[name] for name in names), self._good]
            self._names, self._there = names, torch.tensor(start, dtype=torch.float64, device=values[0].device)
        sums, good = self._there[:-1], self._there[-1]
        sums += torch.stack([value.detach() for value in values]).double() * count
        # A sum that was once infinite or no number stays so, and times zero it is no number.
        good += sums[names.index("loss")] * 0 == 0

    def due(self) -> bool:
        """Whether it is time to read the losses, if only to tell how the training goes."""
        return self._there is None or time.monotonic() - self._read >= READ_SECONDS

    def read(self) -> None:
        """Bring `sums` and `bad` up to date."""
        self._read = time.monotonic()
        if self._there is None:
            return
        *sums, self._good = self._there.tolist()
        self.sums.update(zip(self._names, sums, strict=True))
        if self.bad is None and not math.isfinite(self.sums["loss"]):
            self.bad = self._first + int(self._good)
