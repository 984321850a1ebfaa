"""Products inside a time loop whose weight gradient is one product after the loop.

Autograd would add a full-sized weight gradient at every time step: T small products and T passes over the weight. The
steps' inputs and output gradients can as well be laid under one another and multiplied once. The sum is the same; SA-LSTM
trained on 167 captions per second of processor time instead of 143 (512 wide, one thread of a busy CPU).

One graph serves one backward pass that reaches the weights: a pass that asks for input gradients only must not be followed by
another one over the same graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor


class _Ledger:
    """Inputs and output gradients of one weight, step by step, and the weight's place in the graph."""

    def __init__(self, weight: Tensor) -> None:
        self.inputs: list[Tensor] = []
        self.gradients: list[Tensor] = []
        # Under autocast the weight is rounded once for the whole loop, not at every step.
        self.anchor: Tensor = _Anchor.apply(weight.to(_product_type(weight)), self)


def _product_type(weight: Tensor) -> torch.dtype:
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


class _Anchor(torch.autograd.Function):
    """Identity on the weight. Its backward runs when every step's has run, for all of them hang on it."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ledger: _Ledger) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.ledger = ledger
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor, None]:
        ledger: _Ledger = ctx.ledger
        total = torch.cat(ledger.gradients).T @ torch.cat(ledger.inputs)
        ledger.gradients.clear()
        ledger.inputs.clear()
        return total, None


class _Step(torch.autograd.Function):
    """base + x W^T; leaves its part of W's gradient in the ledger."""

    @staticmethod
    def forward(ctx: Any, base: Tensor | None, x_ND: Tensor, weight: Tensor, ledger: _Ledger) -> Tensor:
        x_ND = x_ND.to(weight.dtype)
        ctx.save_for_backward(x_ND, weight)
        ctx.ledger = ledger
        ctx.based = base is not None
        return x_ND @ weight.T if base is None else torch.addmm(base.to(weight.dtype), x_ND, weight.T)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        x_ND, weight = ctx.saved_tensors
        (gradient,) = gradients
        ctx.ledger.inputs.append(x_ND)
        ctx.ledger.gradients.append(gradient)
        return (gradient if ctx.based else None), gradient @ weight, None, None


_LEDGERS: ContextVar[dict[int, _Ledger] | None] = ContextVar("ledgers", default=None)


@contextmanager
def deferred_weight_gradients() -> Iterator[None]:
    """Inside, `product` defers the gradients of its weights. Use it around one time loop."""
    token = _LEDGERS.set({})
    try:
        yield
    finally:
        _LEDGERS.reset(token)


def product(x_ND: Tensor, weight: Tensor, base: Tensor | None = None) -> Tensor:
    """base + x W^T for 2-D x, [N, D] -> [N, O]; `base` is [N, O]."""
    ledgers = _LEDGERS.get()
    if ledgers is None or not torch.is_grad_enabled() or not weight.requires_grad:
        return x_ND @ weight.T if base is None else torch.addmm(base, x_ND, weight.T)
    ledger = ledgers.get(id(weight))
    if ledger is None:
        ledger = ledgers[id(weight)] = _Ledger(weight)
    return _Step.apply(base, x_ND, ledger.anchor, ledger)
