"""Additive attention over the frames of a clip, and when it is cheaper to mix products of the frames than the frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bench.method import PAD, Batch
from bench.nn.deferred import Loan, Total, loan_of, once, product, rounded, sum_of, weighted_sum
from bench.nn.host import on_host

aten = torch.ops.aten

READ_COST = 72.0  # multiplications in the time that a number is read in twice, on processors of 10 operations a byte


def pays_beforehand(batch: Batch, mask_CT: Tensor, value_width: int, product_width: int, readings: int = 1) -> bool:
    """Whether to multiply every position by W once, and mix the products: sum_t a_t (W v_t) = W sum_t a_t v_t.

    W is [product_width, value_width]; captions are read `readings` times over the same values. It saves products, of which
    there are then two for each position (forward, and the weight's gradient) where there were three for each word; it costs
    memory traffic, since at every word the products of each position are read, not its values. A search does not know its
    words beforehand, and reads about as many as there are frames.
    """
    positions, words = int(on_host(mask_CT).sum()), readings * int((on_host(batch.words_BW)[:, 1:] != PAD).sum())
    if not words:
        return False
    saved = (6 - 4 * positions / words) * value_width
    more_read = mask_CT.shape[1] * (1 - value_width / product_width)
    return saved > READ_COST * more_read


class AdditiveAttention(nn.Module):
    """e_j = w^T tanh(W_v v_j + W_h h + b), weights by softmax over the real positions (RecNet eq. 4-5, EtENet eq. 3-4).

    The keys W_v v_j + b depend on the clip alone: compute them once with `keys` and share them among its captions and words.
    """

    def __init__(self, value_width: int, query_width: int, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(value_width, width)
        self.query = nn.Linear(query_width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def keys(self, values_CTD: Tensor) -> Tensor:
        """W_v v_j + b, [C, T, A]."""
        return self.key(values_CTD)

    def forward(self, query_BH: Tensor, keys_BTA: Tensor, values_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Context [B, D] and weights [B, T]; masked positions get weight exactly 0."""
        return self.look(product(query_BH, self.query.weight), keys_BTA, values_BTD, mask_BT)

    def look(self, query_BA: Tensor, keys_BTA: Tensor, values_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """The same from W_h h."""
        return attend(query_BA, keys_BTA, self.score.weight, values_BTD, mask_BT)


def attend(
    query_BA: Tensor, keys_BTA: Tensor, score_1A: Tensor, values_BTD: Tensor, mask_BT: Tensor, multiply: bool = False
) -> tuple[Tensor, Tensor]:
    """Context [B, D] and weights [B, T] from e_j = w^T tanh(q + k_j), or w^T tanh(q * k_j) with `multiply`.

    Weights are a softmax over the real positions, exactly 0 elsewhere. Keys and values may be rows that `first_rows` lent.
    """
    closed_BT = once("closed", mask_BT, torch.logical_not)
    if not torch.is_grad_enabled():
        energy_BTA = torch.tanh_(_meet(query_BA, keys_BTA, multiply))
        weight_BT = _weights(energy_BTA, rounded(score_1A), closed_BT)
        return weighted_sum(weight_BT, values_BTD), weight_BT
    anchor, total = sum_of(score_1A)
    weight_BT = _Weights.apply(query_BA, keys_BTA, anchor, closed_BT, multiply, loan_of(keys_BTA), total)
    return weighted_sum(weight_BT, values_BTD), weight_BT


def _meet(query_BA: Tensor, keys_BTA: Tensor, multiply: bool) -> Tensor:
    return keys_BTA * query_BA.unsqueeze(1) if multiply else keys_BTA + query_BA.unsqueeze(1)


def _weights(energy_BTA: Tensor, score_1A: Tensor, closed_BT: Tensor) -> Tensor:
    score_BT = (energy_BTA @ score_1A.to(energy_BTA.dtype).T).squeeze(-1).masked_fill_(closed_BT, float("-inf"))
    # Under autocast CUDA's softmax gives float32, which the products of the backward pass would not take beside bfloat16.
    return aten._softmax(score_BT, -1, False)


class _Weights(torch.autograd.Function):
    """The weights; leaves the keys' part of the gradient with their loan, and the scores' in a sum over the loop."""

    @staticmethod
    def forward(
        ctx: Any,
        query_BA: Tensor,
        keys_BTA: Tensor,
        score_1A: Tensor,
        closed_BT: Tensor,
        multiply: bool,
        loan: Loan | None,
        total: Total | None,
    ) -> Tensor:
        energy_BTA = torch.tanh_(_meet(query_BA, keys_BTA, multiply))
        weight_BT = _weights(energy_BTA, score_1A, closed_BT)
        ctx.save_for_backward(energy_BTA, weight_BT, score_1A, *((query_BA, keys_BTA) if multiply else ()))
        ctx.loan, ctx.total, ctx.dtypes = loan, total, (query_BA.dtype, keys_BTA.dtype)
        return weight_BT

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        energy_BTA, weight_BT, score_1A, *factors = ctx.saved_tensors
        score_BT = aten._softmax_backward_data(gradients[0], weight_BT, -1, weight_BT.dtype)
        if ctx.total is not None:
            ctx.total.add(energy_BTA, score_BT)
        inner_BTA = score_BT.unsqueeze(-1) * score_1A.to(energy_BTA.dtype)
        aten.tanh_backward.grad_input(inner_BTA, energy_BTA, grad_input=inner_BTA)
        of_query, of_keys = ctx.dtypes
        if factors:
            query_BA, keys_BTA = factors
            of_keys_BTA, query_BA = inner_BTA * query_BA.unsqueeze(1), (inner_BTA * keys_BTA).sum(1)
        else:
            of_keys_BTA, query_BA = inner_BTA, inner_BTA.sum(1)
        if ctx.loan is not None:
            ctx.loan.add(of_keys_BTA)
        keys = of_keys_BTA.to(of_keys) if ctx.loan is None and ctx.needs_input_grad[1] else None
        return query_BA.to(of_query), keys, None, None, None, None, None
