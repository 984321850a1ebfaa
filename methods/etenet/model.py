"""EtENet: a decoder with soft attention, a scalar gate, a deep output layer and doubly stochastic attention, and the encoder
that is trained through it.

Olivastri, Singh, Cuzzolin: "End-to-End Video Captioning", section 3. Equation numbers are the paper's.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from bench.method import Batch
from bench.nn.attention import AdditiveAttention
from bench.nn.decoding import Memory, State, WordEmbedding
from bench.nn.deferred import product
from bench.nn.host import on_host
from bench.nn.layers import FeatureNorm, HostState, SplitLSTMCell, masked_mean


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


class EndToEnd(HostState):
    """Encoder phi and decoder psi as one captioner (eq. 1, 2).

    In step 1 it reads cached features of the frozen encoder, in step 2 pixels. Which step it is in is a part of its weights.
    An encoder that `learns` is as well; one that stays as it is, is not saved. Until `attach` there is none.
    """

    of_host = ("from_pixels",)
    from_pixels: Tensor

    def __init__(self, decoder: EtENetDecoder, learns: bool) -> None:
        super().__init__()
        self.decoder, self.learns = decoder, learns
        self.register_buffer("from_pixels", torch.tensor(False))
        self.encoder: nn.Module | None = None
        self._lent: list[nn.Module] = []  # in a list, where nn.Module does not take it for a part of itself

    def attach(self, encoder: nn.Module) -> None:
        """Take the encoder: frames [N, 3, Y, X] uint8 -> [N, D]."""
        encoder.requires_grad_(False).eval()  # the phase in which it learns says which of its parameters do
        if self.learns:
            self.encoder = encoder
        else:
            self._lent = [encoder]

    @property
    def phi(self) -> nn.Module | None:
        """The encoder, wherever it is kept; None until there is one."""
        return self._lent[0] if self._lent else self.encoder

    def train(self, mode: bool = True) -> "EndToEnd":
        """As every module, but for the encoder: the running statistics of its batch normalisation stay as they are."""
        super().train(mode)
        if self.encoder is not None:
            self.encoder.eval()
        return self

    def trainable(self) -> list[nn.Parameter]:
        """Section 4: all parameters of the encoder but the affine ones of batch normalisation."""
        assert self.phi is not None
        fixed = {id(p) for part in self.phi.modules() if isinstance(part, _BatchNorm) for p in part.parameters()}
        return [parameter for parameter in self.phi.parameters() if id(parameter) not in fixed]

    def look(self, pixels: Tensor, mask_CT: Tensor) -> Tensor:
        """v_i = phi(x_i), eq. 1: [C, T, D] of pixels [C, T, 3, Y, X] uint8; zero on padded frames.

        Activations are held for one clip at a time: where phi learns they are thrown away after the forward pass and computed
        once more in the backward pass, so that memory grows neither with the batch nor with its number of frames.
        """
        phi = self.phi
        assert phi is not None, "an encoder has to be attached first"
        counts = on_host(mask_CT).sum(1).tolist()  # the real frames of a clip come first
        clips = [clip[:count] for clip, count in zip(pixels, counts, strict=True)]
        if torch.is_grad_enabled() and any(parameter.requires_grad for parameter in phi.parameters()):
            # Nothing random happens in an encoder in eval mode: no generator needs to be set back.
            vectors = [checkpoint(phi, clip, use_reentrant=False, preserve_rng_state=False) for clip in clips]
        else:
            with torch.no_grad():
                vectors = [phi(clip) for clip in clips]
        real_ND = torch.cat(vectors)
        values_CTD = real_ND.new_zeros(*mask_CT.shape, real_ND.shape[-1])
        return values_CTD.masked_scatter(mask_CT.unsqueeze(-1), real_ND)

    def encode(self, batch: Batch) -> Memory:
        if self.from_pixels:
            mask_CT = batch.masks["pixels"]
            frames_CTD = self.look(batch.streams["pixels"], mask_CT)
            batch = replace(batch, streams={"frames": frames_CTD}, masks={"frames": mask_CT})
        return self.decoder.encode(batch)

    def start(self, memory: Memory) -> State:
        return self.decoder.start(memory)

    def step(self, words_B: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        return self.decoder.step(words_B, state, memory)

    def logits(self, features_NE: Tensor) -> Tensor:
        return self.decoder.logits(features_NE)


def doubly_stochastic(attention_BWT: Tensor, frames_BT: Tensor) -> Tensor:
    """L_DSA = 1/L sum_k (1 - sum_t alpha_k^t)^2, eq. 19, mean over captions.

    k runs over the real frames (L of them), t over the real words: weights of padded words are zero on arrival.
    """
    total_BT = attention_BWT.sum(1)
    return masked_mean((1 - total_BT).square().unsqueeze(-1), frames_BT).mean()
