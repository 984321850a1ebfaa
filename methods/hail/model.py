"""HA: an object LSTM attends over the regions of each frame, a word LSTM over its states, the frames and the motion.

Dong, Gao, Chen, Guo, Cao, Zhang: "Not All Words are Equal: Video-specific Information Loss for Video Captioning",
sections 3.2 and 3.3. Equation numbers are the paper's. k counts the regions of a frame.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.method import Batch
from bench.nn.attention import AdditiveAttention
from bench.nn.decoding import Memory, State, WordEmbedding
from bench.nn.deferred import deferred_weight_gradients, once, product
from bench.nn.layers import FeatureNorm, SplitLSTMCell, masked_mean, vector_mask


def attendable(mask_NJ: Tensor) -> Tensor:
    """The mask with its empty rows opened.

    A padded frame has no region and a very short clip no motion: a softmax over nothing is 0/0, and its NaN would reach
    every gradient. Their values are all zero, so an open row attends to zeros and yields the zero vector.
    """
    return mask_NJ | ~mask_NJ.any(-1, keepdim=True)


class ObjectLSTM(nn.Module):
    """LSTM_R: one step per frame, over the regions that matter given the frames before (eq. 1, 2)."""

    def __init__(self, region_width: int, width: int, attention: int, dropout: float) -> None:
        super().__init__()
        self.attention = AdditiveAttention(region_width, width, attention)
        self.cell = SplitLSTMCell({"regions": region_width}, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, regions_CTkD: Tensor, mask_CTk: Tensor) -> tuple[Tensor, Tensor]:
        """H^R [C, T, H] and alpha [C, T, k]. Regions outside the mask must be zero; they get weight exactly 0."""
        keys = self.attention.keys(regions_CTkD).unbind(1)
        regions, opened = regions_CTkD.unbind(1), attendable(mask_CTk).unbind(1)
        zero = regions_CTkD.new_zeros(regions_CTkD.shape[0], self.cell.hidden)
        state = (zero, zero)
        hidden, weights = [], []
        with deferred_weight_gradients():
            for keys_CkA, regions_CkD, open_Ck in zip(keys, regions, opened, strict=True):
                phi_CD, alpha_Ck = self.attention(state[0], keys_CkA, regions_CkD, open_Ck)  # eq. 2
                state = self.cell(self.cell.part("regions", self.dropout(phi_CD)), state)  # eq. 1
                hidden.append(state[0])
                weights.append(alpha_Ck)
        return self.dropout(torch.stack(hidden, 1)), torch.stack(weights, 1) * mask_CTk


class HierarchicalAttention(nn.Module):
    """LSTM_F writes words from [W_E y; phi(HR); phi(VF); phi(VC)], each phi with its own weights (eq. 3, 4).

    `widths` gives the streams that are read, in this order, and their feature widths. `attend` says how:
    `hierarchical` as above; `temporal` without the object LSTM, regions averaged within each frame; `none` without any
    attention, the mean of each stream at every word. Without a `regions` stream `hierarchical` has nothing to add to
    `temporal`.
    """

    def __init__(
        self,
        words: int,
        widths: Mapping[str, int],
        attend: str,
        width: int,
        embedding: int,
        attention: int,
        dropout: float,
        normalise: bool,
    ) -> None:
        super().__init__()
        self.width = width
        self.streams = tuple(widths)
        self.norms = nn.ModuleDict({name: FeatureNorm(size, name) for name, size in widths.items() if normalise})
        self.objects = None
        sizes = dict(widths)
        if attend == "hierarchical" and "regions" in widths:
            self.objects = ObjectLSTM(widths["regions"], width, attention, dropout)
            sizes["regions"] = width
        self.attention = nn.ModuleDict(
            {name: AdditiveAttention(size, width, attention) for name, size in sizes.items() if attend != "none"}
        )
        self.embedding = WordEmbedding(words, embedding)
        self.cell = SplitLSTMCell({"word": embedding, **sizes}, width)
        self.output = nn.Linear(width, words, bias=False)  # section 3.3 has no bias
        self.dropout = nn.Dropout(dropout)

    def vectors(self, batch: Batch, stream: str) -> tuple[Tensor, Tensor]:
        """One stream as every part of the model sees it, [C, T, D] or [C, T, k, D], zero where the mask is False."""
        values, mask = batch.streams[stream], vector_mask(batch.streams[stream], batch.masks[stream])
        if stream in self.norms:
            return self.norms[stream](values, mask), mask
        return values * mask.unsqueeze(-1), mask

    def sequence(self, batch: Batch, stream: str) -> tuple[Tensor, Tensor, Tensor | None]:
        """X of eq. 4: HR, VF or VC, [C, T, X], the mask of its real steps [C, T], and alpha of the object LSTM, if it ran."""
        values, mask = self.vectors(batch, stream)
        mask_CT = batch.masks[stream]
        if stream != "regions":
            return values, mask_CT, None
        if self.objects is not None:
            hidden_CTH, alpha_CTk = self.objects(values, mask)
            return hidden_CTH * mask_CT.unsqueeze(-1), mask_CT, alpha_CTk
        mean_NX = masked_mean(values.flatten(0, 1), mask.flatten(0, 1))
        return mean_NX.unflatten(0, mask_CT.shape), mask_CT, None

    def encode(self, batch: Batch) -> Memory:
        return self.look(batch)[0]

    def look(self, batch: Batch) -> tuple[Memory, Tensor | None]:
        """What clips lend to their words, and alpha of eq. 2, [C, T, k], where there is an object LSTM.

        It runs here: its steps are frames, not words (section 3.3).
        """
        memory: Memory = {}
        alpha_CTk = None
        for stream in self.streams:
            values_CTX, mask_CT, alpha = self.sequence(batch, stream)
            alpha_CTk = alpha_CTk if alpha is None else alpha
            if stream in self.attention:
                layer = self._attention(stream)
                memory[stream] = values_CTX
                memory[f"{stream}_keys"] = layer.keys(values_CTX)
                memory[f"{stream}_mask"] = attendable(mask_CT)
            else:
                memory[stream] = masked_mean(values_CTX, mask_CT)
        return memory, alpha_CTk

    def start(self, memory: Memory) -> State:
        rows = memory[self.streams[0]]
        return rows.new_zeros(rows.shape[0], self.width), rows.new_zeros(rows.shape[0], self.width)

    def step(self, words_B: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor | None]:
        """The weights returned are those of the frames."""
        inputs = {"word": self.dropout(self.embedding(words_B))}
        weights: dict[str, Tensor] = {}
        queries = iter(self._queries(state[0]))
        for stream in self.streams:
            context_BX = memory[stream]
            if stream in self.attention:
                keys_BTA, mask_BT = memory[f"{stream}_keys"], memory[f"{stream}_mask"]
                layer = self._attention(stream)
                context_BX, weights[stream] = layer.look(next(queries), keys_BTA, context_BX, mask_BT)  # eq. 4
            inputs[stream] = self.dropout(context_BX)
        gates_B4H = self.cell.together(inputs)
        hidden_BH, cell_BH = self.cell(gates_B4H, (state[0], state[1]))  # eq. 3
        return hidden_BH, (hidden_BH, cell_BH), weights.get("frames")

    def logits(self, features_NH: Tensor) -> Tensor:
        return self.output(self.dropout(features_NH))

    def _queries(self, hidden_BH: Tensor) -> tuple[Tensor, ...]:
        """W_h h of every attention, [B, A] each, by one product."""
        if not self.attention:
            return ()
        layers = [self._attention(stream) for stream in self.attention]
        weight = once("queries", layers[0].query.weight, lambda _: torch.cat([layer.query.weight for layer in layers]))
        return product(hidden_BH, weight).chunk(len(layers), dim=-1)

    def _attention(self, stream: str) -> AdditiveAttention:
        layer = self.attention[stream]
        assert isinstance(layer, AdditiveAttention)
        return layer
