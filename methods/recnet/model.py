"""RecNet: a reconstructor reads the decoder's hidden states and rebuilds the frame features.

Zhang, Wang, Ma, Liu: "Reconstruct and Represent Video Contents for Captioning via Reinforcement Learning", section 3.
Equation numbers are the paper's. The reconstructor is used in training only.
"""

import torch
from torch import Tensor, nn

from bench.nn.attention import AdditiveAttention
from bench.nn.decoding import Forced
from bench.nn.deferred import deferred_weight_gradients
from bench.nn.layers import SplitLSTMCell, masked_mean


def distance(a_ND: Tensor, b_ND: Tensor, norm: str) -> Tensor:
    """psi(a, b) of eq. 8, 12 and 13 for each row, [N].

    `l2`: Euclidean norm, as the text says. `sqsum`: its square. `mse`: the square divided by the width.
    """
    square_N = (a_ND - b_ND).square().sum(-1)
    if norm == "sqsum":
        return square_N
    if norm == "mse":
        return square_N / a_ND.shape[-1]
    # The gradient of a norm at zero is undefined; this tiny floor keeps it zero there and moves no other digit.
    return square_N.clamp(min=1e-24).sqrt()


class GlobalReconstructor(nn.Module):
    """One step per word: z_t = LSTM([h_t ; phi(H)], z_{t-1}) (eq. 6, 7); loss psi(phi(V), phi(Z)) (eq. 8)."""

    def __init__(self, hidden: int, frame_width: int) -> None:
        super().__init__()
        self.cell = SplitLSTMCell({"word": hidden, "mean": hidden}, frame_width)

    def forward(self, hidden_BWH: Tensor, words_BW: Tensor) -> Tensor:
        """Reconstructor states Z, [B, W, D]; zero on padded words."""
        mean_BH = masked_mean(hidden_BWH, words_BW)  # eq. 6: phi(H)
        word_gates = self.cell.part("word", hidden_BWH)
        mean_gates = self.cell.part("mean", mean_BH)
        zero = hidden_BWH.new_zeros(hidden_BWH.shape[0], self.cell.hidden)
        state = (zero, zero)
        rebuilt = []
        with deferred_weight_gradients():
            for word in range(hidden_BWH.shape[1]):
                state = self.cell(word_gates[:, word] + mean_gates, state)  # eq. 7
                rebuilt.append(state[0])
        return torch.stack(rebuilt, 1) * words_BW.unsqueeze(-1)


class LocalReconstructor(nn.Module):
    """One step per frame: mu_t weighs the words (eq. 9), z_t = LSTM(mu_t, z_{t-1}) (eq. 11).

    With `attention` the weights are the reconstructor's own (eq. 10); without, mu_t is given (`transposed`).
    """

    def __init__(self, hidden: int, frame_width: int, attention: int | None) -> None:
        super().__init__()
        self.attention = None if attention is None else AdditiveAttention(hidden, frame_width, attention)
        self.cell = SplitLSTMCell({"attended": hidden}, frame_width)

    def forward(self, hidden_BWH: Tensor, words_BW: Tensor, frames: int) -> Tensor:
        """Reconstructor states Z, [B, T, D], one for each of `frames` frames."""
        assert self.attention is not None, "word weights are given: see `transposed`"
        keys = self.attention.keys(hidden_BWH)
        zero = hidden_BWH.new_zeros(hidden_BWH.shape[0], self.cell.hidden)
        state = (zero, zero)
        rebuilt = []
        with deferred_weight_gradients():
            for _ in range(frames):
                attended_BH, _ = self.attention(state[0], keys, hidden_BWH, words_BW)  # eq. 9, 10
                state = self.cell(self.cell.part("attended", attended_BH), state)  # eq. 11
                rebuilt.append(state[0])
        return torch.stack(rebuilt, 1)

    def transposed(self, hidden_BWH: Tensor, weights_BWT: Tensor) -> Tensor:
        """Z from mu_t = sum_i weights[i, t] h_i: the decoder's attention read the other way round (Table 6). [B, T, D]."""
        mu_BTH = weights_BWT.transpose(1, 2) @ hidden_BWH
        zero = hidden_BWH.new_zeros(hidden_BWH.shape[0], self.cell.hidden)
        state = (zero, zero)
        rebuilt = []
        gates = self.cell.part("attended", mu_BTH)
        with deferred_weight_gradients():
            for frame in range(mu_BTH.shape[1]):
                state = self.cell(gates[:, frame], state)
                rebuilt.append(state[0])
        return torch.stack(rebuilt, 1)


def over_words(attention_BWT: Tensor, words_BW: Tensor, renormalise: bool) -> Tensor:
    """The decoder's frame weights as weights of words, [B, W, T], zero on padding.

    Eq. 9 wants weights that sum to one over the words of a caption; the decoder's sum to one over frames. The paper only says
    "replaced": with `renormalise` each frame's column is divided by its sum. A padded frame has no weight at all and keeps none.
    """
    weights_BWT = attention_BWT * words_BW.unsqueeze(-1)
    if not renormalise:
        return weights_BWT
    return weights_BWT / weights_BWT.sum(1, keepdim=True).clamp(min=torch.finfo(weights_BWT.dtype).tiny)


def mean_distance(rebuilt_BXD: Tensor, mask_BX: Tensor, frames_BTD: Tensor, mask_BT: Tensor, norm: str) -> Tensor:
    """L_g = psi(phi(V), phi(Z)), eq. 8, mean over captions."""
    return distance(masked_mean(rebuilt_BXD, mask_BX), masked_mean(frames_BTD, mask_BT), norm).mean()


def frame_distance(rebuilt_BTD: Tensor, frames_BTD: Tensor, mask_BT: Tensor, norm: str) -> Tensor:
    """L_l = 1/m sum_j psi(z_j, v_j), eq. 12, over real frames, mean over captions."""
    psi_BT = distance(rebuilt_BTD, frames_BTD, norm)
    return masked_mean(psi_BT.unsqueeze(-1), mask_BT).mean()


class Reconstructor(nn.Module):
    """L_rec of eq. 22: `global` (eq. 8), `local` (eq. 12) or `joint` (eq. 13), over one pass of the decoder.

    `word_weights`: `attention`, the local reconstructor's own (eq. 10); `transposed`, the decoder's over frames turned round
    and renormalised (Table 6); `transposed_plain`, without renormalising.
    """

    def __init__(
        self, kind: str, hidden: int, frame_width: int, attention: int, norm: str, word_weights: str = "attention"
    ) -> None:
        super().__init__()
        self.kind, self.norm, self.word_weights = kind, norm, word_weights
        self.rebuild: GlobalReconstructor | LocalReconstructor
        if kind == "global":
            self.rebuild = GlobalReconstructor(hidden, frame_width)
        else:
            self.rebuild = LocalReconstructor(hidden, frame_width, attention if word_weights == "attention" else None)

    def forward(self, forced: Forced, frames_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """`frames_BTD` are the constant visual targets of each caption: no gradient flows into them."""
        frames_BTD = frames_BTD.detach()
        if isinstance(self.rebuild, GlobalReconstructor):
            rebuilt = self.rebuild(forced.hidden_BWH, forced.mask_BW)
            return mean_distance(rebuilt, forced.mask_BW, frames_BTD, mask_BT, self.norm)
        if self.word_weights == "attention":
            rebuilt = self.rebuild(forced.hidden_BWH, forced.mask_BW, frames_BTD.shape[1])
        else:
            if forced.attention_BWT is None:
                raise ValueError(f"word_weights={self.word_weights} needs a decoder that attends to frames")
            weights_BWT = over_words(forced.attention_BWT, forced.mask_BW, self.word_weights == "transposed")
            rebuilt = self.rebuild.transposed(forced.hidden_BWH, weights_BWT)
        loss = frame_distance(rebuilt, frames_BTD, mask_BT, self.norm)
        if self.kind == "joint":
            loss = loss + mean_distance(rebuilt, mask_BT, frames_BTD, mask_BT, self.norm)
        return loss
