"""What a time loop uses at every step, and whose gradient is gathered outside autograd: weights, and rows of a clip's memory.

Weights: autograd would add a full-sized weight gradient at every time step: T small products and T passes over the weight. The
steps' inputs and output gradients can as well be laid under one another and multiplied once. The sum is the same; SA-LSTM
trained on 167 captions per second of processor time instead of 143 (512 wide, one thread of a busy CPU).

Word vectors: the gradient of a lookup is a table of full size with a few rows filled, one table for each step. The words and
the gradients of their vectors are laid under one another as well, and make one table.

Rows: captions end, and a step works on the first rows of the keys and values that all steps share. The backward pass of a slice
makes a gradient of full size, mostly zeros, and adds it to the others; here each step adds its own rows to one sum. Where a step
mixes the positions of the values with weights, as attention does, not even these are made: see `weighted_sum`.

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
from torch.nn import functional


class _Ledger:
    """Inputs and output gradients of one weight, step by step, and the weight's place in the graph."""

    def __init__(self, weight: Tensor) -> None:
        self.inputs: list[Tensor] = []
        self.gradients: list[Tensor] = []
        # Under autocast the weight is rounded once for the whole loop, not at every step.
        self.anchor: Tensor = _Anchor.apply(weight.to(_product_type(weight)), self)

    def release(self) -> None:
        """Let go of the place in the graph, after the loop."""
        del self.anchor

    def settle(self) -> Tensor:
        """The weight's gradient as one product, once all steps have left theirs; the ledger is empty then."""
        total = torch.cat(self.gradients).T @ torch.cat(self.inputs)
        self.gradients.clear()
        self.inputs.clear()
        return total


def _product_type(weight: Tensor) -> torch.dtype:
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


class _Anchor(torch.autograd.Function):
    """Identity on what the steps use. Its backward runs when every step's has run, for all of them hang on it."""

    @staticmethod
    def forward(ctx: Any, shared: Tensor, account: _Ledger | _Readings | _Loan) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.account = account
        return shared.view_as(shared)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        account: _Ledger | _Readings | _Loan = ctx.account
        return account.settle(), None


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


class _Readings:
    """Words that were looked up in one table of word vectors, and the gradients of their vectors, step by step."""

    def __init__(self, table: Tensor, padding: int | None) -> None:
        self.words: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.rows, self.padding = table.shape[0], -1 if padding is None else padding
        self.anchor: Tensor = _Anchor.apply(table, self)

    def release(self) -> None:
        """Let go of the place in the graph, after the loop."""
        del self.anchor

    def settle(self) -> Tensor:
        """The table's gradient, once all steps have left theirs."""
        gradients, words = torch.cat(self.gradients), torch.cat(self.words)
        self.gradients.clear()
        self.words.clear()
        return torch.ops.aten.embedding_dense_backward(gradients, words, self.rows, self.padding, False)


class _Lookup(torch.autograd.Function):
    """The vectors of some words; leaves their gradients with the readings."""

    @staticmethod
    def forward(ctx: Any, words_N: Tensor, table: Tensor, readings: _Readings) -> Tensor:
        ctx.words_N, ctx.readings = words_N, readings
        return table.index_select(0, words_N)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        ctx.readings.words.append(ctx.words_N)
        ctx.readings.gradients.append(gradients[0])
        return None, None, None


class _Loan:
    """A tensor whose first rows are lent to steps, and the sum of their gradients.

    A mixture of positions leaves its weights and its own gradient instead: their products for all steps are one.
    """

    def __init__(self, lender: Tensor) -> None:
        self.total: Tensor | None = None
        self.weights: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.lender: Tensor | None = lender  # kept during the loop, so that no other tensor takes its id
        self.rows, self.dtype = lender.shape[0], lender.dtype
        self.lent: Tensor | None = None  # the rows of the present step
        self.anchor: Tensor = _Anchor.apply(lender, self)

    def release(self) -> None:
        """Let go of the place in the graph, after the loop."""
        del self.anchor
        self.lender = self.lent = None

    def settle(self) -> Tensor | None:
        """The sum, once all rows have added theirs; the loan is empty then."""
        total, self.total = self.total, None
        if self.weights:
            weights_BST, gradients_BSD = (self._by_step(parts) for parts in (self.weights, self.gradients))
            mixed = torch.bmm(weights_BST.transpose(1, 2), gradients_BSD).to(self.dtype)
            total = mixed if total is None else total + mixed
            self.weights.clear()
            self.gradients.clear()
        return total

    def _by_step(self, parts: list[Tensor]) -> Tensor:
        """Rows of all steps side by side, [B, S, ...], zero for those that a step did not have."""
        laid = parts[0].new_zeros(self.rows, len(parts), parts[0].shape[1])
        for step, part in enumerate(parts):
            laid[: part.shape[0], step] = part
        return laid


class _Rows(torch.autograd.Function):
    """The first rows; adds their gradient to the loan's."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, count: int, loan: _Loan) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.shape, ctx.count, ctx.loan = anchor.shape, count, loan
        return anchor[:count]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        (gradient,) = gradients
        loan: _Loan = ctx.loan
        if gradient is None:  # every use of these rows was a mixture
            return None, None, None
        if loan.total is None:
            loan.total = gradient.new_zeros(ctx.shape)
        loan.total[: ctx.count] += gradient
        return None, None, None


class _Mixture(torch.autograd.Function):
    """sum_t weight_t value_t over lent rows; leaves the values' part of the gradient with the loan."""

    @staticmethod
    def forward(ctx: Any, weights_BT: Tensor, rows_BTD: Tensor, loan: _Loan) -> Tensor:
        low = weights_BT.to(_product_type(rows_BTD)), rows_BTD.to(_product_type(rows_BTD))
        ctx.save_for_backward(*low)
        ctx.loan, ctx.dtype = loan, weights_BT.dtype
        return torch.bmm(low[0].unsqueeze(1), low[1]).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        weights_BT, rows_BTD = ctx.saved_tensors
        (gradient_BD,) = gradients
        ctx.loan.weights.append(weights_BT)
        ctx.loan.gradients.append(gradient_BD)
        return torch.bmm(rows_BTD, gradient_BD.unsqueeze(2)).squeeze(2).to(ctx.dtype), None, None


_LEDGERS: ContextVar[dict[int, _Ledger] | None] = ContextVar("ledgers", default=None)
_READINGS: ContextVar[dict[int, _Readings] | None] = ContextVar("readings", default=None)
_LOANS: ContextVar[dict[int, _Loan] | None] = ContextVar("loans", default=None)


@contextmanager
def deferred_weight_gradients() -> Iterator[None]:
    """Inside, `product`, `lookup`, `first_rows` and `weighted_sum` gather gradients. Use it around one time loop."""
    opened: tuple[dict[int, _Ledger], dict[int, _Readings], dict[int, _Loan]] = {}, {}, {}
    ledgers, readings, loans = _LEDGERS.set(opened[0]), _READINGS.set(opened[1]), _LOANS.set(opened[2])
    try:
        yield
    finally:
        _LEDGERS.reset(ledgers)
        _READINGS.reset(readings)
        _LOANS.reset(loans)
        # The graph keeps what it needs. An account that still held its place in the graph would be kept by it in turn, and the
        # whole graph with all it saved would wait for the garbage collector: memory grew with the number of steps.
        for accounts in opened:
            for account in accounts.values():
                account.release()


def first_rows(value: Tensor, count: int) -> Tensor:
    """`value[:count]` of a tensor that every step of the loop reads."""
    loans = _LOANS.get()
    if loans is None or not torch.is_grad_enabled() or not value.requires_grad:
        return value if count == value.shape[0] else value[:count]
    loan = loans.get(id(value))
    if loan is None:
        loan = loans[id(value)] = _Loan(value)
    rows: Tensor = _Rows.apply(loan.anchor, count, loan)
    loan.lent = rows
    return rows


def weighted_sum(weights_BT: Tensor, values_BTD: Tensor) -> Tensor:
    """sum_t weights[b, t] values[b, t], [B, D], of values that `first_rows` lent or of any others."""
    loans = _LOANS.get() or {}
    loan = next((loan for loan in loans.values() if loan.lent is values_BTD), None)
    if loan is None:
        return torch.bmm(weights_BT.unsqueeze(1), values_BTD).squeeze(1)
    mixed: Tensor = _Mixture.apply(weights_BT, values_BTD, loan)
    return mixed


def lookup(words_N: Tensor, table_VE: Tensor, padding: int | None = None) -> Tensor:
    """Rows of a table of word vectors for 1-D words, [N] -> [N, E]. The row `padding` gets no gradient."""
    readings = _READINGS.get()
    if readings is None or not torch.is_grad_enabled() or not table_VE.requires_grad:
        return functional.embedding(words_N, table_VE, padding)
    own = readings.get(id(table_VE))
    if own is None:
        own = readings[id(table_VE)] = _Readings(table_VE, padding)
    vectors: Tensor = _Lookup.apply(words_N, own.anchor, own)
    return vectors


def product(x_ND: Tensor, weight: Tensor, base: Tensor | None = None) -> Tensor:
    """base + x W^T for 2-D x, [N, D] -> [N, O]; `base` is [N, O]."""
    ledgers = _LEDGERS.get()
    if ledgers is None or not torch.is_grad_enabled() or not weight.requires_grad:
        return x_ND @ weight.T if base is None else torch.addmm(base, x_ND, weight.T)
    ledger = ledgers.get(id(weight))
    if ledger is None:
        ledger = ledgers[id(weight)] = _Ledger(weight)
    return _Step.apply(base, x_ND, ledger.anchor, ledger)
