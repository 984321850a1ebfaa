"""Additive attention over the frames of a clip."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.nn.deferred import product, weighted_sum


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
        energy_BTA = torch.tanh(keys_BTA + product(query_BH, self.query.weight).unsqueeze(1))
        score_BT = (energy_BTA @ self.score.weight.T).squeeze(-1).masked_fill(~mask_BT, float("-inf"))
        weight_BT = torch.softmax(score_BT, dim=-1, dtype=torch.promote_types(score_BT.dtype, torch.float32))
        return weighted_sum(weight_BT, values_BTD), weight_BT
