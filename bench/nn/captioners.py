"""Base captioners: mean pooling, soft attention, S2VT. Thin methods wrap them and RecNet stacks on two of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.method import Batch
from bench.nn.attention import AdditiveAttention, pays_beforehand
from bench.nn.decoding import Memory, State, WordEmbedding
from bench.nn.deferred import deferred_weight_gradients
from bench.nn.layers import FeatureNorm, SplitLSTMCell, masked_mean


class FrameCaptioner(nn.Module):
    """What the bases share: normalised frames in, word embedding, dropout before a linear output layer."""

    def __init__(
        self, words: int, frame_width: int, width: int, embedding: int, dropout: float, normalise: bool
    ) -> None:
        super().__init__()
        self.width = width
        self.frame_width = frame_width
        self.norm = FeatureNorm(frame_width) if normalise else None
        self.embedding = WordEmbedding(words, embedding)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, words)

    def frames(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Frame vectors as every part of the model sees them [C, T, D], and their mask [C, T]."""
        values_CTD, mask_CT = batch.streams["frames"], batch.masks["frames"]
        if self.norm is not None:
            return self.norm(values_CTD, mask_CT), mask_CT
        return values_CTD * mask_CT.unsqueeze(-1), mask_CT

    def zeros(self, memory: Memory, count: int) -> State:
        """`count` zero states for the rows of `memory`."""
        rows = next(iter(memory.values()))
        return tuple(rows.new_zeros(rows.shape[0], self.width) for _ in range(count))

    def logits(self, features_NR: Tensor) -> Tensor:
        return self.output(self.dropout(features_NR))


class MeanPool(FrameCaptioner):
    """LSTM layers that read [E(w); mean of the frames] at every word (Venugopalan et al., NAACL 2015)."""

    def __init__(
        self, words: int, frame_width: int, width: int, embedding: int, dropout: float, normalise: bool, layers: int
    ) -> None:
        super().__init__(words, frame_width, width, embedding, dropout, normalise)
        first = SplitLSTMCell({"word": embedding, "clip": frame_width}, width)
        self.first = first
        self.above = nn.ModuleList(SplitLSTMCell({"below": width}, width) for _ in range(layers - 1))

    def encode(self, batch: Batch) -> Memory:
        return {"clip_gates": self.first.part("clip", masked_mean(*self.frames(batch)))}

    def start(self, memory: Memory) -> State:
        return self.zeros(memory, 2 * (1 + len(self.above)))

    def step(self, words_B: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, None]:
        """State is (h, c) of the top layer, then of the layers below it downwards."""
        gates_B4H = self.first.part("word", self.dropout(self.embedding(words_B)), memory["clip_gates"])
        after: State = self.first(gates_B4H, (state[-2], state[-1]))
        for number, cell in enumerate(self.above, 1):
            assert isinstance(cell, SplitLSTMCell)
            gates_B4H = cell.part("below", self.dropout(after[0]))
            after = (*cell(gates_B4H, (state[-2 * number - 2], state[-2 * number - 1])), *after)
        return after[0], after, None


class SoftAttention(FrameCaptioner):
    """SA-LSTM: LSTM over [E(w); attended frames] (Yao et al., ICCV 2015; RecNet eq. 2-5).

    `initial` sets h_0 and c_0: `zeros`, or `mean` = tanh of a linear map of the mean frame.
    """

    def __init__(
        self,
        words: int,
        frame_width: int,
        width: int,
        embedding: int,
        dropout: float,
        normalise: bool,
        attention: int,
        initial: str = "zeros",
    ) -> None:
        super().__init__(words, frame_width, width, embedding, dropout, normalise)
        self.attention = AdditiveAttention(frame_width, width, attention)
        self.cell = SplitLSTMCell({"word": embedding, "context": frame_width}, width)
        self.initial = nn.Linear(frame_width, 2 * width) if initial == "mean" else None

    def encode(self, batch: Batch) -> Memory:
        values_CTD, mask_CT = self.frames(batch)
        memory = {"keys": self.attention.keys(values_CTD), "mask": mask_CT}
        if pays_beforehand(batch, mask_CT, self.frame_width, 4 * self.width):
            memory["value_gates"] = self.cell.part("context", values_CTD)
        else:
            memory["values"] = values_CTD
        if self.initial is not None:
            memory["initial"] = torch.tanh(self.initial(masked_mean(values_CTD, mask_CT)))
        return memory

    def start(self, memory: Memory) -> State:
        if self.initial is not None:
            return memory["initial"].chunk(2, dim=-1)
        return self.zeros(memory, 2)

    def step(self, words_B: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        beforehand = "value_gates" in memory
        values_BTX = memory["value_gates" if beforehand else "values"]
        context_BX, weights_BT = self.attention(state[0], memory["keys"], values_BTX, memory["mask"])  # eq. 3-5
        gates_B4H = context_BX if beforehand else self.cell.part("context", context_BX)
        gates_B4H = self.cell.part("word", self.dropout(self.embedding(words_B)), gates_B4H)
        hidden_BH, cell_BH = self.cell(gates_B4H, (state[0], state[1]))
        return hidden_BH, (hidden_BH, cell_BH), weights_BT


class S2VT(FrameCaptioner):
    """Two stacked LSTMs read all frames, then write all words (Venugopalan et al., ICCV 2015).

    While reading, the upper LSTM sees a zero word; while writing, the lower one sees a zero frame. Frames that are only
    padding leave both states unchanged.
    """

    def __init__(
        self, words: int, frame_width: int, width: int, embedding: int, dropout: float, normalise: bool
    ) -> None:
        super().__init__(words, frame_width, width, embedding, dropout, normalise)
        self.project = nn.Linear(frame_width, embedding)
        self.lower = SplitLSTMCell({"frame": embedding}, width)
        self.upper = SplitLSTMCell({"below": width, "word": embedding}, width)

    def encode(self, batch: Batch) -> Memory:
        values_CTD, mask_CT = self.frames(batch)
        frame_gates = self.lower.part("frame", self.dropout(self.project(values_CTD)))
        zeros = values_CTD.new_zeros(values_CTD.shape[0], self.width)
        lower: State = (zeros, zeros)
        upper: State = (zeros, zeros)
        with deferred_weight_gradients():
            for frame in range(values_CTD.shape[1]):
                real_C1 = mask_CT[:, frame, None]
                lower = _keep(real_C1, self.lower(frame_gates[:, frame], lower), lower)
                upper = _keep(real_C1, self.upper(self.upper.part("below", self.dropout(lower[0])), upper), upper)
        return {"upper_h": upper[0], "upper_c": upper[1], "lower_h": lower[0], "lower_c": lower[1]}

    def start(self, memory: Memory) -> State:
        return memory["upper_h"], memory["upper_c"], memory["lower_h"], memory["lower_c"]

    def step(self, words_B: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, None]:
        lower = self.lower(state[2].new_zeros(state[2].shape[0], 4 * self.width), (state[2], state[3]))
        gates_B4H = self.upper.part("below", self.dropout(lower[0]))
        gates_B4H = self.upper.part("word", self.dropout(self.embedding(words_B)), gates_B4H)
        upper = self.upper(gates_B4H, (state[0], state[1]))
        return upper[0], (*upper, *lower), None


def _keep(real_C1: Tensor, new: State, old: State) -> State:
    return tuple(torch.where(real_C1, after, before.to(after.dtype)) for after, before in zip(new, old, strict=True))
