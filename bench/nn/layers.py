"""Small layers: feature normalisation, masked mean, an LSTM cell whose input parts can be computed apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench.nn.deferred import once, product
from bench.nn.host import on_device
from bench.nn.recurrent import lstm_step


def masked_mean(values_CTD: Tensor, mask_CT: Tensor) -> Tensor:
    """Mean over the real time steps of each row, [C, D]; zero where a row has none."""
    weight_CT1 = mask_CT.unsqueeze(-1).to(values_CTD.dtype)
    return (values_CTD * weight_CT1).sum(1) / weight_CT1.sum(1).clamp(min=1)


def vector_mask(values: Tensor, mask_CT: Tensor | None) -> Tensor:
    """Which vectors of a stream are real: [C, T] for values [C, T, D], [C, T, k] for regions [C, T, k, D].

    A frame has up to k regions; those that were not found are vectors of zeros. A stream without time has no mask (None) and
    no padding: all its vectors are real, [C] for values [C, D], [C, S] for places [C, S, D].
    """
    if mask_CT is None:
        return on_device(torch.ones(values.shape[:-1], dtype=torch.bool), values.device)
    if values.dim() == 3:
        return mask_CT
    return mask_CT.unsqueeze(-1) & (values != 0).any(-1)


class HostState(nn.Module):
    """A module whose buffers `of_host` stay on the CPU wherever it goes: what decides there need not be waited for."""

    of_host: tuple[str, ...] = ()

    def _apply(self, *words: Any, **more: Any) -> HostState:
        super()._apply(*words, **more)
        for name in self.of_host:
            setattr(self, name, getattr(self, name).cpu())
        return self


class FeatureNorm(nn.Module):
    """Standardise features with the mean and deviation of the training clips; part of the checkpoint.

    Before `fit` it is the identity. Padded frames stay zero, so that a mask is never needed to keep them quiet.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, stream: str = "frames") -> None:
        super().__init__()
        self.stream = stream
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Measure over (values [C, T, D], mask [C, T]) pairs, or [C, T, k, D] and [C, T, k]; accumulates in float64."""
        count = 0.0
        total = torch.zeros_like(self.mean, dtype=torch.float64)
        square = torch.zeros_like(total)
        for values_CTD, mask_CT in batches:
            real = values_CTD[mask_CT].double()
            count += real.shape[0]
            total += real.sum(0)
            square += real.square().sum(0)
        mean = total / max(count, 1)
        deviation = (square / max(count, 1) - mean.square()).clamp(min=0).sqrt()
        # A dimension that never moves carries nothing: leave it centred instead of dividing by almost zero.
        deviation = torch.where(deviation < 1e-6, torch.ones_like(deviation), deviation)
        self.mean.copy_(mean)
        self.scale.copy_(1 / deviation)

    def forward(self, values_CTD: Tensor, mask_CT: Tensor) -> Tensor:
        return (values_CTD - self.mean) * self.scale * mask_CT.unsqueeze(-1)


class SplitLSTMCell(nn.Module):
    """LSTM cell over a concatenation of named input parts.

    gates = sum_p W_p x_p + W_h h + b, in PyTorch's order (input, forget, cell, output). Splitting the input matrix by
    part changes no number and lets a part known beforehand (the words under teacher forcing, a clip's mean feature) be
    multiplied once, in one large product, outside the time loop.
    """

    def __init__(self, parts: Mapping[str, int], hidden: int, bias: bool = True) -> None:
        super().__init__()
        self.hidden = hidden
        bound = hidden**-0.5  # nn.LSTM's own initial range

        def weight(width: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(4 * hidden, width).uniform_(-bound, bound))

        self.weights = nn.ParameterDict({name: weight(width) for name, width in parts.items()})
        self.recurrent = weight(hidden)
        # One bias vector: nn.LSTMCell's two are always added, so a second would only double its learning rate.
        self.bias = nn.Parameter(torch.empty(4 * hidden).uniform_(-bound, bound)) if bias else None

    def part(self, name: str, x_ND: Tensor, base: Tensor | None = None) -> Tensor:
        """W_p x_p for one part, [..., 4H], added to `base` if given."""
        if x_ND.dim() == 2:
            return product(x_ND, self.weights[name], base)
        gates = x_ND @ self.weights[name].T
        return gates if base is None else base + gates

    def together(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The sum of several parts by one product, [N, 4H], of an input [N, D] for each."""
        weight = once(
            " ".join(inputs), self.recurrent, lambda _: torch.cat([self.weights[name] for name in inputs], dim=1)
        )
        return product(torch.cat(list(inputs.values()), dim=-1), weight)

    def forward(self, gates_B4H: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step from the summed input parts and (h, c); returns the new (h, c), each [B, H]."""
        return lstm_step(gates_B4H, *state, self.recurrent, self.bias)
