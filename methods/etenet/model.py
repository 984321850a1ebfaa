"""EtENet's decoder: soft attention with a scalar gate, deep output layer, doubly stochastic attention.

Olivastri, Singh, Cuzzolin: "End-to-End Video Captioning", section 3. Equation numbers are the paper's.
"""

import torch
from torch import Tensor, nn

from bench.method import Batch
from bench.nn.attention import AdditiveAttention
from bench.nn.decoding import Memory, State, WordEmbedding
from bench.nn.deferred import product
from bench.nn.layers import FeatureNorm, SplitLSTMCell, masked_mean


class EtENetDecoder(nn.Module):
    """psi of eq. 2. `dropout` is ours: the paper names none."""

    def __init__(
        self, words: int, frame_width: int, width: int, embedding: int, attention: int, dropout: float, normalise: bool
    ) -> None:
        super().__init__()
        self.norm = FeatureNorm(frame_width) if normalise else None
        self.embedding = WordEmbedding(words, embedding)
        self.attention = AdditiveAttention(frame_width, width, attention)  # softmax ignores the scalar b_a of eq. 3
        self.gate = nn.Linear(width, 1)
        self.cell = SplitLSTMCell({"video": frame_width, "word": embedding}, width)
        self.mix = nn.Linear(frame_width + width, embedding)
        self.output = nn.Linear(embedding, words)
        self.initial_hidden = nn.Linear(frame_width, width)
        self.initial_cell = nn.Linear(frame_width, width)
        self.dropout = nn.Dropout(dropout)

    def frames(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """V and the mask of real frames."""
        values_CTD, mask_CT = batch.streams["frames"], batch.masks["frames"]
        return (values_CTD if self.norm is None else self.norm(values_CTD, mask_CT)), mask_CT

    def encode(self, batch: Batch) -> Memory:
        values_CTD, mask_CT = self.frames(batch)
        mean_CD = masked_mean(values_CTD, mask_CT)
        return {
            "values": values_CTD,
            "mask": mask_CT,
            "keys": self.attention.keys(values_CTD),
            "hidden": torch.tanh(self.initial_hidden(mean_CD)),  # eq. 16
            "cell": torch.tanh(self.initial_cell(mean_CD)),  # eq. 17
        }

    def start(self, memory: Memory) -> State:
        return memory["hidden"], memory["cell"]

    def step(self, words_B: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        hidden_BH, cell_BH = state
        context_BD, weights_BT = self.attention(hidden_BH, memory["keys"], memory["values"], memory["mask"])  # eq. 3, 4
        beta_B1 = torch.sigmoid(self.gate(hidden_BH))  # eq. 5
        video_BD = beta_B1 * context_BD  # eq. 6
        word_BE = self.embedding(words_B)
        gates_B4H = self.cell.part("word", word_BE, self.cell.part("video", video_BD))  # eq. 7
        hidden_BH, cell_BH = self.cell(gates_B4H, (hidden_BH, cell_BH))  # eq. 8-13
        joined = torch.cat([video_BD, self.dropout(hidden_BH)], dim=-1)
        mixed_BE = product(joined, self.mix.weight, word_BE) + self.mix.bias  # eq. 14: u_t
        return torch.tanh(mixed_BE), (hidden_BH, cell_BH), weights_BT

    def logits(self, features_NE: Tensor) -> Tensor:
        return self.output(self.dropout(features_NE))  # eq. 15, before the softmax


def doubly_stochastic(attention_BWT: Tensor, frames_BT: Tensor) -> Tensor:
    """L_DSA = 1/L sum_k (1 - sum_t alpha_k^t)^2, eq. 19, mean over captions.

    k runs over the real frames (L of them), t over the real words: weights of padded words are zero on arrival.
    """
    total_BT = attention_BWT.sum(1)
    return masked_mean((1 - total_BT).square().unsqueeze(-1), frames_BT).mean()
