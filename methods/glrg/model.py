"""GL-RG: words, actions and objects of a clip as three probability vectors, joined to start an LSTM decoder.

Yan et al.: "GL-RG: Global-Local Representation Granularity for Video Captioning", sections 3.1-3.3. Equation numbers are
the paper's.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.method import BOS, Batch
from bench.nn.decoding import Memory, State, WordEmbedding
from bench.nn.layers import FeatureNorm, SplitLSTMCell, masked_mean

RANGES = {"words": "long", "actions": "short", "objects": "local"}
"""The stream of each range, in the order of eq. 4."""


class WordNetwork(nn.Module):
    """Long-range encoder on frame features: which of the data set's K frequent words does the clip call for? (eq. 1)

    Stands in for the paper's 2-D and 3-D convolutions where a data set offers frame vectors but no `words` stream: two
    temporal convolutions, mean and maximum over the real frames, one dense layer, sigmoid.
    """

    def __init__(self, frame_width: int, width: int, words: int, dropout: float, normalise: bool) -> None:
        super().__init__()
        self.norm = FeatureNorm(frame_width) if normalise else None
        self.first = nn.Conv1d(frame_width, width, 3, padding=1)
        self.second = nn.Conv1d(width, width, 3, padding=1)
        self.output = nn.Linear(2 * width, words)
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames_CTD: Tensor, mask_CT: Tensor) -> Tensor:
        """Logits of the words, [C, K]. Padded frames are zero between the convolutions and outside both poolings."""
        real_C1T = mask_CT.unsqueeze(1)
        values_CTD = frames_CTD * mask_CT.unsqueeze(-1) if self.norm is None else self.norm(frames_CTD, mask_CT)
        x_CHT = torch.relu(self.first(self.dropout(values_CTD).transpose(1, 2))) * real_C1T
        x_CHT = torch.relu(self.second(x_CHT))
        mean_CH = masked_mean(x_CHT.transpose(1, 2), mask_CT)
        peak_CH = x_CHT.masked_fill(~real_C1T, float("-inf")).amax(-1)
        return self.output(self.dropout(torch.cat([mean_CH, peak_CH], dim=-1)))


def levelled(scores_CK: Tensor, normalise: bool) -> Tensor:
    """The probabilities of one range as the fusion sees them, [C, K]: each vector standardised by itself, or as they are."""
    # Not in the paper: probabilities of some 1/1000 are too quiet for phi to learn from in a few epochs.
    return functional.layer_norm(scores_CK, scores_CK.shape[-1:]) if normalise else scores_CK


class Decoder(nn.Module):
    """Fusion of the ranges (eq. 4) and the LSTM that F starts (eq. 5-7).

    `feed`: `first`, F is the first input and no word stands beside it (eq. 6); `every`, F stands beside every word,
    as in the authors' code.
    """

    def __init__(
        self,
        words: int,
        ranges: Mapping[str, int],
        width: int,
        embedding: int,
        dropout: float,
        normalise: bool,
        feed: str = "first",
    ) -> None:
        super().__init__()
        self.reads = tuple(ranges)
        self.width = width
        self.normalise, self.feed = normalise, feed
        self.project = nn.ModuleDict({name: nn.Linear(size, width) for name, size in ranges.items()})  # phi of eq. 4
        # 3 d_f meets the embedding's width here, so that F can take a word's place at i = 1 (eq. 6).
        self.join = nn.Linear(width * len(ranges), embedding)
        self.embedding = WordEmbedding(words, embedding)
        self.cell = SplitLSTMCell({"word": embedding, **({"clip": embedding} if feed == "every" else {})}, width)
        self.output = nn.Linear(width, words, bias=False)  # eq. 7 has no bias
        self.dropout = nn.Dropout(dropout)

    def fuse(self, scores: Mapping[str, Tensor]) -> Tensor:
        """F in the width of a word, [C, E], from the probabilities of each range [C, K]."""
        parts = [torch.relu(phi(levelled(scores[name], self.normalise))) for name, phi in self.project.items()]
        return self.join(self.dropout(torch.cat(parts, dim=-1)))

    def remember(self, fused_CE: Tensor) -> Memory:
        """What a clip lends to its words: F itself, or its share of the gates of every word."""
        return {"fused": fused_CE if self.feed == "first" else self.cell.part("clip", fused_CE)}

    def start(self, memory: Memory) -> State:
        zero = memory["fused"].new_zeros(memory["fused"].shape[0], self.width)
        return zero, zero

    def step(self, words_B: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, None]:
        word_BE = self.embedding(words_B)
        if self.feed == "first":
            first_B1 = (words_B == BOS).unsqueeze(-1)
            gates_B4H = self.cell.part("word", torch.where(first_B1, memory["fused"], word_BE))  # eq. 6: F if i = 1
        else:
            gates_B4H = self.cell.part("word", word_BE, memory["fused"])
        hidden_BH, cell_BH = self.cell(gates_B4H, (state[0], state[1]))  # eq. 5
        return hidden_BH, (hidden_BH, cell_BH), None

    def logits(self, features_NH: Tensor) -> Tensor:
        return self.output(self.dropout(features_NH))  # eq. 7


class GLRG(nn.Module):
    """The captioner: ranges read from their streams, the long range from frames where there is no `words` stream.

    `decoder` is the paper's, or the authors' network of the same form (`official.OfficialDecoder`).
    """

    def __init__(self, decoder: Any, word_network: WordNetwork | None) -> None:
        super().__init__()
        self.decoder, self.word_network = decoder, word_network

    def ranges(self, batch: Batch) -> dict[str, Tensor]:
        """Probabilities of each range, [C, K]. The encoders are frozen while captions are learned."""
        scores = {name: batch.streams[name] for name in self.decoder.reads if name in batch.streams}
        if self.word_network is not None:
            self.word_network.eval()
            with torch.no_grad():
                logits = self.word_network(batch.streams["frames"], batch.masks["frames"])
            scores["words"] = torch.sigmoid(logits)
        return scores

    def encode(self, batch: Batch) -> Memory:
        return self.decoder.remember(self.decoder.fuse(self.ranges(batch)))

    def start(self, memory: Memory) -> State:
        return self.decoder.start(memory)

    def step(self, words_B: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, None]:
        return self.decoder.step(words_B, state, memory)

    def logits(self, features_NH: Tensor) -> Tensor:
        return self.decoder.logits(features_NH)


def chance_of_truth(schedule: str, epoch: int) -> float:
    """The chance of xi = 1 in eq. 6, that a word's predecessor is the true one, in `epoch` of the seeding, from 0.

    `paper`: up to 1, then down again, as the text has it; from 0 and by 0.05 an epoch, neither of which is printed. `usual`:
    from 1 down to 0.75 at the same pace.
    """
    moved = 0.05 * epoch
    if schedule == "paper":
        return moved if moved <= 1 else max(2 - moved, 0.0)
    return max(1 - moved, 0.75)


def discrepant_cross_entropy(losses_BW: Tensor, weights_B: Tensor) -> Tensor:
    """L_DXE = -1/G sum_j m(S^(j)) log p(S^(j) | F), eq. 8: word losses summed, captions weighed by m, mean over captions."""
    return (losses_BW.sum(1) * weights_B).mean()
