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

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from bench.nn.host import all_rows


class Ledger:
    """Inputs and output gradients of one weight, step by step, and the places of weight and bias in the graph."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.inputs: list[Tensor] = []
        self.gradients: list[Tensor] = []
        # Under autocast the weight is rounded once for the whole loop, not at every step.
        low = weight.to(_product_type(weight))
        self.anchor, *rest = _Anchor.apply(self, low) if bias is None else _Anchor.apply(self, low, bias)
        self.bias: Tensor | None = rest[0] if rest else None
        self._biased = bool(rest)

    def release(self) -> None:
        del self.anchor, self.bias

    def settle(self) -> tuple[Tensor | None, ...]:
        """One product and one sum."""
        if not self.gradients:
            return (None, None)[: 1 + self._biased]
        gradients = torch.cat(self.gradients)
        total = gradients.T @ torch.cat(self.inputs)
        self.gradients.clear()
        self.inputs.clear()
        if not self._biased:
            return (total,)
        return total, gradients.sum(0, dtype=torch.promote_types(gradients.dtype, torch.float32))


def _product_type(weight: Tensor) -> torch.dtype:
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


class _Account(Protocol):
    """What gathers gradients of a loop."""

    def release(self) -> None:
        """Let go of the places in the graph, after the loop."""

    def settle(self) -> tuple[Tensor | None, ...]:
        """The gradients, once all steps have left theirs; the account is empty then."""


class _Anchor(torch.autograd.Function):
    """Identity on what the steps use. Its backward runs when every step's has run, for all of them hang on it."""

    @staticmethod
    def forward(ctx: Any, account: _Account, *shared: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.account = account
        return tuple(value.view_as(value) for value in shared)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, *ctx.account.settle()


class _Step(torch.autograd.Function):
    """base + x W^T; leaves its part of W's gradient in the ledger."""

    @staticmethod
    def forward(ctx: Any, base: Tensor | None, x_ND: Tensor, weight: Tensor, ledger: Ledger) -> Tensor:
        x_ND = x_ND.to(weight.dtype)
        ctx.save_for_backward(x_ND, weight)
        ctx.ledger = ledger
        ctx.based = base is not None
        return x_ND @ weight.T if base is None else torch.addmm(base.to(weight.dtype), x_ND, weight.T)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x_ND, weight = ctx.saved_tensors
        (gradient,) = gradients
        ctx.ledger.inputs.append(x_ND)
        ctx.ledger.gradients.append(gradient)
        return (gradient if ctx.based else None), gradient @ weight if ctx.needs_input_grad[1] else None, None, None


class Total:
    """The gradient of a row of weights [1, A] that scores vectors: sum over steps and vectors of gradient times vector."""

    def __init__(self, weight_1A: Tensor) -> None:
        self.sum_A: Tensor | None = None
        self.parts: list[Tensor] = []  # of steps whose numbers are too coarse to add up
        (self.anchor,) = _Anchor.apply(self, weight_1A.to(_product_type(weight_1A)))

    def release(self) -> None:
        del self.anchor

    def add(self, vectors: Tensor, gradients: Tensor) -> None:
        """Vectors [..., A] of one step and the gradients of their scores [...]."""
        vectors_AN, gradients_N = vectors.reshape(-1, vectors.shape[-1]).T, gradients.reshape(-1)
        if self.sum_A is not None:
            self.sum_A.addmv_(vectors_AN, gradients_N)
        elif torch.finfo(vectors.dtype).bits < 32:
            self.parts.append(torch.mv(vectors_AN, gradients_N))
        else:
            self.sum_A = torch.mv(vectors_AN, gradients_N)

    def settle(self) -> tuple[Tensor | None]:
        sum_A, self.sum_A = self.sum_A, None
        if self.parts:
            sum_A = torch.stack(self.parts).sum(0, dtype=torch.float32)
            self.parts.clear()
        return (None if sum_A is None else sum_A.unsqueeze(0),)


class _Readings:
    """Words that were looked up in one table of word vectors, and the gradients of their vectors, step by step."""

    def __init__(self, table: Tensor, padding: int | None) -> None:
        self.words: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.rows, self.padding = table.shape[0], -1 if padding is None else padding
        (self.anchor,) = _Anchor.apply(self, table.to(_product_type(table)))

    def release(self) -> None:
        del self.anchor

    def settle(self) -> tuple[Tensor]:
        """The table's gradient."""
        gradients, words = torch.cat(self.gradients), torch.cat(self.words)
        gradients = gradients.to(torch.promote_types(gradients.dtype, torch.float32))
        self.gradients.clear()
        self.words.clear()
        return (torch.ops.aten.embedding_dense_backward(gradients, words, self.rows, self.padding, False),)


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


class Loan:
    """A tensor whose first rows are lent to steps, and the sum of their gradients.

    A mixture of positions leaves its weights and its own gradient instead: their products for all steps are one.
    """

    def __init__(self, lender: Tensor) -> None:
        self.total: Tensor | None = None
        self.weights: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.lender: Tensor | None = lender
        self.shape, self.dtype = lender.shape, lender.dtype
        self.lent: Tensor | None = None  # the rows of the present step
        self._low: Tensor | None = None
        (self.anchor,) = _Anchor.apply(self, lender)

    def release(self) -> None:
        del self.anchor
        self.lender = self.lent = self._low = None

    def rows(self, count: int, dtype: torch.dtype) -> Tensor:
        """The values of the first rows, rounded once for the whole loop where another type is wanted."""
        assert self.lender is not None
        if self._low is None:
            self._low = self.lender.detach().to(dtype)
        return self._low[:count]

    def add(self, gradient: Tensor) -> None:
        """The gradient of one step's rows."""
        if self.total is None:
            self.total = gradient.new_zeros(self.shape, dtype=torch.promote_types(gradient.dtype, torch.float32))
        self.total[: len(gradient)].add_(gradient)  # += would copy the sum onto itself

    def settle(self) -> tuple[Tensor | None]:
        """The sum."""
        total, self.total = self.total, None
        if self.weights:
            weights_BST, gradients_BSD = (self._by_step(parts) for parts in (self.weights, self.gradients))
            mixed = torch.bmm(weights_BST.transpose(1, 2), gradients_BSD)
            total = mixed if total is None else total + mixed
            self.weights.clear()
            self.gradients.clear()
        return (None if total is None else total.to(self.dtype),)

    def _by_step(self, parts: list[Tensor]) -> Tensor:
        """Rows of all steps side by side, [B, S, ...], zero for those that a step did not have."""
        rows = self.shape[0]
        if all(len(part) == rows for part in parts):
            return torch.stack(parts, 1)
        laid = parts[0].new_zeros(rows, len(parts), parts[0].shape[1])
        for step, part in enumerate(parts):
            laid[: part.shape[0], step] = part
        return laid


class _Rows(torch.autograd.Function):
    """The first rows; adds their gradient to the loan's."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, count: int, loan: Loan) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.loan = loan
        return anchor[:count]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        (gradient,) = gradients
        if gradient is not None:  # otherwise every use of these rows left its gradient with the loan
            ctx.loan.add(gradient)
        return None, None, None


class _Mixture(torch.autograd.Function):
    """sum_t weight_t value_t over lent rows; leaves the values' part of the gradient with the loan."""

    @staticmethod
    def forward(ctx: Any, weights_BT: Tensor, rows_BTD: Tensor, loan: Loan) -> Tensor:
        kind = _product_type(rows_BTD)
        low = weights_BT.to(kind), loan.rows(len(weights_BT), kind)
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


@dataclass
class _Loop:
    """The accounts of one time loop by what they are kept for, and what was derived once for all its steps.

    The tensors that are meant are kept as long as the loop runs, so that no other takes the id of one.
    """

    accounts: dict[tuple[str, int], _Account] = field(default_factory=dict)
    once: dict[tuple[str, int], Tensor] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)

    def account(self, kind: str, value: Tensor, make: Callable[[], _Account]) -> Any:
        key = kind, id(value)
        if key not in self.accounts:
            self.accounts[key] = make()
            self.kept.append(value)
        return self.accounts[key]


_LOOP: ContextVar[_Loop | None] = ContextVar("loop", default=None)


@contextmanager
def deferred_weight_gradients() -> Iterator[None]:
    """Inside, `product`, `lookup`, `first_rows` and `weighted_sum` gather gradients. Use it around one time loop."""
    loop = _Loop()
    token = _LOOP.set(loop)
    try:
        yield
    finally:
        _LOOP.reset(token)
        # The graph keeps what it needs. An account that still held its place in the graph would be kept by it in turn, and the
        # whole graph with all it saved would wait for the garbage collector: memory grew with the number of steps.
        for account in loop.accounts.values():
            account.release()


def once(name: str, value: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
    """`make(value)`, a constant; in a loop it is made at the first of its steps that asks for it."""
    loop = _LOOP.get()
    if loop is None:
        return make(value)
    key = name, id(value)
    if key not in loop.once:
        loop.once[key] = make(value)
        loop.kept.append(value)
    return loop.once[key]


def rounded(value: Tensor) -> Tensor:
    """A constant in the type of its products; in a loop it is rounded once."""
    kind = _product_type(value)
    return value if value.dtype == kind else once("rounded", value, lambda value: value.to(kind))


def entry(weight: Tensor, bias: Tensor | None = None) -> tuple[Ledger | None, Tensor, Tensor | None]:
    """The ledger of a weight [O, D] and of a bias [O] that is added to its products, and both as a step uses them.

    There is no ledger where the weight does not learn.
    """
    loop = _LOOP.get()
    if not torch.is_grad_enabled() or not weight.requires_grad:
        return None, rounded(weight), bias
    if loop is not None:
        ledger = loop.account("ledger", weight, lambda: Ledger(weight, bias))
        return ledger, ledger.anchor, ledger.bias
    ledger = Ledger(weight, bias)
    found = ledger, ledger.anchor, ledger.bias
    ledger.release()
    return found


def sum_of(weight_1A: Tensor) -> tuple[Tensor, Total | None]:
    """A row of weights that scores vectors, as a step uses it, and where its gradients are added up; None if it is fixed."""
    loop = _LOOP.get()
    if not weight_1A.requires_grad:
        return weight_1A, None
    if loop is not None:
        total: Total = loop.account("total", weight_1A, lambda: Total(weight_1A))
        return total.anchor, total
    total = Total(weight_1A)
    anchor = total.anchor
    total.release()
    return anchor, total


def first_rows(value: Tensor, count: int) -> Tensor:
    """`value[:count]` of a tensor that every step of the loop reads."""
    loop = _LOOP.get()
    if loop is None or not torch.is_grad_enabled() or not value.requires_grad:
        return value if count == value.shape[0] else value[:count]
    loan: Loan = loop.account("loan", value, lambda: Loan(value))
    rows: Tensor = _Rows.apply(loan.anchor, count, loan)
    loan.lent = rows
    return rows


def loan_of(rows: Tensor) -> Loan | None:
    """The loan that `first_rows` took these rows from at this step."""
    loop = _LOOP.get()
    accounts = () if loop is None else loop.accounts.values()
    return next((account for account in accounts if isinstance(account, Loan) and account.lent is rows), None)


def weighted_sum(weights_BT: Tensor, values_BTD: Tensor) -> Tensor:
    """sum_t weights[b, t] values[b, t], [B, D], of values that `first_rows` lent or of any others."""
    loan = loan_of(values_BTD)
    if loan is None:
        if not values_BTD.requires_grad and all_rows(values_BTD.device):  # elsewhere they are other rows at every step
            values_BTD = rounded(values_BTD)
        return torch.bmm(weights_BT.unsqueeze(1), values_BTD).squeeze(1)
    mixed: Tensor = _Mixture.apply(weights_BT, values_BTD, loan)
    return mixed


def lookup(words_N: Tensor, table_VE: Tensor, padding: int | None = None) -> Tensor:
    """Rows of a table of word vectors for 1-D words, [N] -> [N, E]. The row `padding` gets no gradient."""
    loop = _LOOP.get()
    if loop is None or not torch.is_grad_enabled() or not table_VE.requires_grad:
        return functional.embedding(words_N, table_VE, padding)
    own = loop.account("readings", table_VE, lambda: _Readings(table_VE, padding))
    vectors: Tensor = _Lookup.apply(words_N, own.anchor, own)
    return vectors


def product(x_ND: Tensor, weight: Tensor, base: Tensor | None = None) -> Tensor:
    """base + x W^T for 2-D x, [N, D] -> [N, O]; `base` is [N, O]."""
    if _LOOP.get() is None:
        return functional.linear(x_ND, weight) if base is None else torch.addmm(base, x_ND, weight.T)
    if not torch.is_grad_enabled() or not weight.requires_grad:
        weight = rounded(weight)
        return functional.linear(x_ND, weight) if base is None else torch.addmm(base, x_ND, weight.T)
    ledger, anchor, _ = entry(weight)
    return _Step.apply(base, x_ND, anchor, ledger)
