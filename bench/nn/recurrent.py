"""One step of an LSTM, with a backward pass of its own: on a GPU all between two products is one operation, as in cuDNN."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bench.nn.deferred import Ledger, entry, once

aten = torch.ops.aten


def lstm_step(
    gates_B4H: Tensor, hidden_BH: Tensor, cell_BH: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(h, c) after one step, each [B, H]: gates + W h + b in PyTorch's order (input, forget, cell, output).

    `weight` is [4H, H], `bias` [4H]. In a loop of `deferred_weight_gradients` their gradients are gathered.
    """
    ledger, used, added = entry(weight, bias)
    if torch.is_grad_enabled():
        return _Step.apply(gates_B4H, hidden_BH, cell_BH, used, added, ledger)
    return _forward(gates_B4H, hidden_BH, cell_BH, used, added)[:2]


class _Step(torch.autograd.Function):
    """Leaves the weight's and the bias's part of the gradient in the ledger."""

    @staticmethod
    def forward(
        ctx: Any,
        gates_B4H: Tensor,
        hidden_BH: Tensor,
        cell_BH: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ledger: Ledger | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        low_BH = hidden_BH.to(weight.dtype)
        if _fused(cell_BH):
            cell_BH = cell_BH.to(weight.dtype)  # the backward pass takes no other beside h
        after_BH, after_cell_BH, acts_B4H = _forward(gates_B4H, low_BH, cell_BH, weight, bias)
        ctx.save_for_backward(low_BH, cell_BH, after_cell_BH, acts_B4H, weight)
        ctx.ledger, ctx.fused, ctx.dtypes = ledger, _fused(cell_BH), (gates_B4H.dtype, hidden_BH.dtype)
        return after_BH, after_cell_BH

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        of_after, of_after_cell = gradients
        if of_after is None and of_after_cell is None:
            return None, None, None, None, None, None
        low_BH, cell_BH, after_cell_BH, acts_B4H, weight = ctx.saved_tensors
        gates_B4H, before_BH = _backward(of_after, of_after_cell, cell_BH, after_cell_BH, acts_B4H, ctx.fused)
        low_B4H = gates_B4H.to(weight.dtype)
        if ctx.ledger is not None:
            ctx.ledger.inputs.append(low_BH)
            ctx.ledger.gradients.append(low_B4H)
        of_gates, of_hidden = ctx.dtypes
        hidden_BH = (low_B4H @ weight).to(of_hidden) if ctx.needs_input_grad[1] else None
        return low_B4H if of_gates == low_B4H.dtype else gates_B4H.to(of_gates), hidden_BH, before_BH, None, None, None


def _fused(cell_BH: Tensor) -> bool:
    return cell_BH.device.type == "cuda"


def _forward(
    gates_B4H: Tensor, hidden_BH: Tensor, cell_BH: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """h, c and the four activated gates."""
    if _fused(cell_BH):
        if bias is not None and bias.dtype != weight.dtype:
            bias = once("low", bias, lambda value: value.to(weight.dtype))
        told_B4H = hidden_BH @ weight.T if bias is None else torch.addmm(bias, hidden_BH, weight.T)
        # As in torch's own cells h and c have the type of the products: with another, four roundings a step would be launches.
        kind = told_B4H.dtype
        return aten._thnn_fused_lstm_cell(gates_B4H.to(kind), told_B4H, cell_BH.to(kind))
    gates_B4H = torch.addmm(gates_B4H.to(weight.dtype), hidden_BH, weight.T).to(cell_BH.dtype)
    if bias is not None:
        gates_B4H += bias
    width = cell_BH.shape[1]
    gates_B4H[:, : 2 * width].sigmoid_()
    gates_B4H[:, 2 * width : 3 * width].tanh_()
    gates_B4H[:, 3 * width :].sigmoid_()
    input_BH, forget_BH, candidate_BH, output_BH = gates_B4H.chunk(4, dim=-1)
    cell_BH = torch.addcmul(forget_BH * cell_BH, input_BH, candidate_BH)
    return output_BH * cell_BH.tanh(), cell_BH, gates_B4H


def _backward(
    hidden_BH: Tensor | None,
    cell_BH: Tensor | None,
    before_BH: Tensor,
    after_BH: Tensor,
    acts_B4H: Tensor,
    fused: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the gates before their activation and of the cell before the step, from those of h and c behind it."""
    if fused:
        return aten._thnn_fused_lstm_cell_backward_impl(hidden_BH, cell_BH, before_BH, after_BH, acts_B4H, False)[:2]
    input_BH, forget_BH, candidate_BH, output_BH = acts_B4H.chunk(4, dim=-1)
    gates_B4H = torch.empty_like(acts_B4H)
    of_input, of_forget, of_candidate, of_output = gates_B4H.chunk(4, dim=-1)
    if hidden_BH is None:
        of_output.zero_()
    else:
        told_BH = after_BH.tanh()
        torch.mul(hidden_BH, told_BH, out=of_output)
        aten.sigmoid_backward.grad_input(of_output, output_BH, grad_input=of_output)
        through_BH = aten.tanh_backward(hidden_BH * output_BH, told_BH)
        cell_BH = through_BH if cell_BH is None else through_BH.add_(cell_BH)
    assert cell_BH is not None
    for other, own, gradient in ((candidate_BH, input_BH, of_input), (before_BH, forget_BH, of_forget)):
        torch.mul(cell_BH, other, out=gradient)
        aten.sigmoid_backward.grad_input(gradient, own, grad_input=gradient)
    torch.mul(cell_BH, input_BH, out=of_candidate)
    aten.tanh_backward.grad_input(of_candidate, candidate_BH, grad_input=of_candidate)
    return gates_B4H, cell_BH * forget_BH
