"""The video refocusing encoder: a bidirectional GRU that starts from a key frame, and the attention that picks it.

Shi, Cai, Joty, Gu: "Watch It Twice: Video Captioning with a Refocused Video Encoder", section 3.2 and eq. 19-21 of
section 3.4. Equation numbers are the paper's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.nn.attention import attend
from bench.nn.host import largest, on_both


@dataclass(frozen=True)
class Video:
    """What is seen and heard of the clips, standardised: V^f [C, T, D], v^s [C, S, D'], v^a [C, A], and the masks.

    The real frames of a clip come first; `spatial` and `audio` are None where the data set has none.
    """

    frames: Tensor
    mask: Tensor
    spatial: Tensor | None = None
    spatial_mask: Tensor | None = None
    audio: Tensor | None = None

    @property
    def count(self) -> Tensor:
        """K: real frames of each clip, [C]."""
        return on_both(lambda mask_CT: mask_CT.sum(1).clamp(min=1), self.mask)

    @property
    def middle(self) -> Tensor:
        """K/2, the key frame of the first step, [C]."""
        return on_both(lambda count_C: count_C // 2, self.count)


class ProductAttention(nn.Module):
    """a_i = W_a tanh((W_q q) * (W_v v_i)), weights by softmax over the real positions (eq. 8-9 and 14-16).

    The scalar bias of eq. 8 and 14 shifts every a_i alike: softmax and argmax are blind to it, so it is left out. The keys
    W_v v_i depend on the clip alone: compute them once with `keys`.
    """

    def __init__(self, value_width: int, query_width: int, width: int) -> None:
        super().__init__()
        self.key = nn.Linear(value_width, width, bias=False)
        self.query = nn.Linear(query_width, width, bias=False)
        self.score = nn.Linear(width, 1, bias=False)

    def keys(self, values_CTD: Tensor) -> Tensor:
        """W_v v_i, [C, T, A]."""
        return self.key(values_CTD)

    def log_weights(self, query_BQ: Tensor, keys_BTA: Tensor, mask_BT: Tensor) -> Tensor:
        """log alpha, [B, T]; minus infinity on masked positions."""
        inner_BTA = torch.tanh(self.query(query_BQ).unsqueeze(1) * keys_BTA)
        scores_BT = self.score(inner_BTA).squeeze(-1)
        return torch.log_softmax(scores_BT.masked_fill(~mask_BT, float("-inf")), dim=-1)

    def forward(self, query_BA: Tensor, keys_BTA: Tensor, values_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Context [B, D] and weights [B, T] from W_q q; masked positions get weight exactly 0."""
        return attend(query_BA, keys_BTA, self.score.weight, values_BTD, mask_BT, multiply=True)


class KBiGRU(nn.Module):
    """Two GRUs read from the key frame outwards, both the key frame first (eq. 4-7)."""

    def __init__(self, frame_width: int, width: int) -> None:
        super().__init__()
        self.leftward = nn.GRU(frame_width, width, batch_first=True)
        self.rightward = nn.GRU(frame_width, width, batch_first=True)
        self.join = nn.Linear(2 * width, width)  # W_c, b_c

    def forward(self, frames_CTD: Tensor, key_C: Tensor, count_C: Tensor) -> Tensor:
        """h<->, [C, H], from the key frame of each clip and its number of real frames."""
        to_left_C, to_right_C = on_both(lambda key_C: key_C + 1, key_C), on_both(torch.sub, count_C, key_C)
        left_CH = _read(self.leftward, frames_CTD, key_C, -1, to_left_C)  # eq. 5
        right_CH = _read(self.rightward, frames_CTD, key_C, 1, to_right_C)  # eq. 6
        return torch.tanh(self.join(torch.cat([left_CH, right_CH], dim=-1)))  # eq. 7


def _read(gru: nn.GRU, frames_CTD: Tensor, key_C: Tensor, stride: int, length_C: Tensor) -> Tensor:
    """The state of `gru` after `length_C` frames, from the key frame on in steps of `stride`; it starts at zero."""
    steps = torch.arange(largest(length_C, frames_CTD.shape[1]), device=frames_CTD.device)
    # Places beyond a clip's last frame are read too, after its state has been taken.
    place_CS = (key_C.unsqueeze(1) + stride * steps).clamp(0, frames_CTD.shape[1] - 1)
    clip_C = torch.arange(len(key_C), device=frames_CTD.device)
    states_CSH, _ = gru(frames_CTD[clip_C.unsqueeze(1), place_CS])
    return states_CSH[clip_C, length_C - 1]


class Encoder(nn.Module):
    """Algorithm 1 up to `passes`: 1 ends with o_1 (the KBiGRU rows of Table 1), 2 refocuses and goes on to o_2.

    `audio_width` is 0 without audio: W_a then reads the encoder's output alone.
    """

    def __init__(self, frame_width: int, audio_width: int, width: int, attention: int, passes: int) -> None:
        super().__init__()
        self.scan = KBiGRU(frame_width, width)
        self.combine = nn.Linear(width + audio_width, width)  # W_a, b_a
        if passes == 2:
            self.refocus = ProductAttention(frame_width, width, attention)
            self.merge = nn.Linear(2 * width, width)  # W_m, b_m

    def first(self, video: Video) -> tuple[Tensor, Tensor]:
        """Step 1: h1 and o_1, each [C, H], from the middle frame."""
        hidden_CH = self.scan(video.frames, video.middle, video.count)
        return hidden_CH, self._with_audio(hidden_CH, video)

    def look(self, video: Video, first_CH: Tensor) -> Tensor:
        """log alpha of the refocusing module, [C, T], from o_1 (eq. 8-9); its argmax is the key frame (eq. 10-11)."""
        return self.refocus.log_weights(first_CH, self.refocus.keys(video.frames), video.mask)

    def second(self, video: Video, hidden_CH: Tensor, key_C: Tensor) -> Tensor:
        """Step 2: o_2, [C, H], from h1 and the key frames, by the same weights as step 1."""
        again_CH = self.scan(video.frames, key_C, video.count)
        both_CH = torch.tanh(self.merge(torch.cat([hidden_CH, again_CH], dim=-1)))
        return self._with_audio(both_CH, video)

    def _with_audio(self, hidden_CH: Tensor, video: Video) -> Tensor:
        heard = hidden_CH if video.audio is None else torch.cat([hidden_CH, video.audio], dim=-1)
        return torch.tanh(self.combine(heard))


def refocus_loss(log_weights_BT: Tensor, key_B: Tensor, change_B: Tensor, form: str) -> Tensor:
    """LR+ of each caption, [B], from log alpha, the key frames and R_e - R_{e-1}, which is a constant here (eq. 21).

    `printed` is eq. 21 to the letter: where the reward fell it raises alpha of the key frame, against the paper's own aim.
    `corrected` takes |R_e - R_{e-1}|: eq. 19 where the reward rose, and -log(1 - alpha) of the key frame where it fell.
    A clip of one frame has no choice and no loss.
    """
    log_key_B = log_weights_BT.gather(1, key_B.unsqueeze(1)).squeeze(1)
    is_key_BT = torch.zeros_like(log_weights_BT, dtype=torch.bool).scatter(1, key_B.unsqueeze(1), True)
    choice_B = (log_weights_BT > float("-inf")).sum(1) > 1
    # log(1 - alpha_key) as the logarithm of the other frames' sum: 1 - alpha is zero in float32 long before they are.
    others_BT = log_weights_BT.masked_fill(is_key_BT, float("-inf"))
    log_rest_B = torch.logsumexp(torch.where(choice_B.unsqueeze(1), others_BT, log_weights_BT), dim=1)
    change_B = change_B.detach()
    size_B = change_B.abs() if form == "corrected" else change_B
    wanted_B = torch.where(change_B > 0, log_key_B, torch.where(change_B < 0, log_rest_B, torch.zeros_like(log_key_B)))
    return torch.where(choice_B, -size_B * wanted_B, torch.zeros_like(wanted_B))  # eq. 21
