"""Additive attention over the frames of a clip, and when it is cheaper to mix products of the frames than the frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.method import PAD, Batch
from bench.nn.deferred import product, weighted_sum
from bench.nn.host import on_host

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
        energy_BTA = torch.tanh(keys_BTA + product(query_BH, self.query.weight).unsqueeze(1))
        score_BT = (energy_BTA @ self.score.weight.T).squeeze(-1).masked_fill(~mask_BT, float("-inf"))
        weight_BT = torch.softmax(score_BT, dim=-1, dtype=torch.promote_types(score_BT.dtype, torch.float32))
        return weighted_sum(weight_BT, values_BTD), weight_BT
