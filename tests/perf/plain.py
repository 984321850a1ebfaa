"""Training steps as published implementations make them: the references against which the engine's speed is measured.

Batched over captions, `nn.LSTMCell`, the same batch, loss and optimizer; but the frames of a clip are repeated for each of its
captions, the keys of the attention are computed again at every word, every caption takes `STEPS` steps, and logits are made for
all of them. `take_over` copies the engine's weights, so that both can be shown to train alike.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.method import PAD, Batch
from bench.nn.captioners import SoftAttention
from bench.nn.layers import SplitLSTMCell

STEPS = 30  # words of the longest caption that the papers allow


def lstm_like(cell: SplitLSTMCell, *parts_in_order: str) -> nn.LSTMCell:
    """An `nn.LSTMCell` over the named parts laid side by side, with the weights of a split cell.

    Its second bias stays zero, for two would learn twice as fast.
    """
    parts = torch.cat([cell.weights[name] for name in parts_in_order], dim=1)
    made = nn.LSTMCell(parts.shape[1], cell.hidden)
    with torch.no_grad():
        made.weight_ih.copy_(parts)
        made.weight_hh.copy_(cell.recurrent)
        made.bias_hh.zero_()
        made.bias_ih.zero_() if cell.bias is None else made.bias_ih.copy_(cell.bias)
    made.bias_hh.requires_grad_(False)
    made.bias_ih.requires_grad_(cell.bias is not None)
    return made


def linear_like(layer: nn.Linear) -> nn.Linear:
    """A copy of a linear layer."""
    made = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    made.load_state_dict(layer.state_dict())
    return made


def per_caption(batch: Batch, stream: str = "frames") -> Tensor:
    """A stream once for every caption, [B, ...]."""
    return batch.streams[stream][batch.clip_of_B]


def words_of(batch: Batch) -> tuple[Tensor, Tensor]:
    """Inputs and targets of all captions, [B, STEPS] each, padded."""
    room = STEPS + 1 - batch.words_BW.shape[1]
    words = functional.pad(batch.words_BW, (0, room), value=PAD) if room > 0 else batch.words_BW[:, : STEPS + 1]
    return words[:, :-1], words[:, 1:]


def summed_loss(logits_BWV: Tensor, targets_BW: Tensor) -> Tensor:
    """Sum over words, mean over captions, padding ignored."""
    return functional.cross_entropy(
        logits_BWV.flatten(0, 1), targets_BW.flatten(), ignore_index=PAD, reduction="sum"
    ) / len(targets_BW)


class PlainSoftAttention(nn.Module):
    """SA-LSTM word by word. Without dropout, so that both ways give the same numbers."""

    def __init__(self, engine: SoftAttention) -> None:
        super().__init__()
        self.embedding = nn.Embedding(*engine.embedding.weight.shape, padding_idx=PAD)
        self.embedding.load_state_dict(engine.embedding.state_dict())
        self.key, self.query = linear_like(engine.attention.key), linear_like(engine.attention.query)
        self.score, self.output = linear_like(engine.attention.score), linear_like(engine.output)
        self.cell = lstm_like(engine.cell, "word", "context")

    def hidden(self, batch: Batch) -> Tensor:
        """Hidden states, [B, STEPS, H]."""
        frames_BTD = per_caption(batch)
        mask_BT = batch.masks["frames"][batch.clip_of_B]
        inputs_BW, _ = words_of(batch)
        h = frames_BTD.new_zeros(len(inputs_BW), self.cell.hidden_size)
        c = torch.zeros_like(h)
        states = []
        for word in range(STEPS):
            energy_BTA = torch.tanh(self.key(frames_BTD) + self.query(h).unsqueeze(1))
            weight_BT = torch.softmax(self.score(energy_BTA).squeeze(-1).masked_fill(~mask_BT, float("-inf")), dim=-1)
            context_BD = torch.bmm(weight_BT.unsqueeze(1), frames_BTD).squeeze(1)
            h, c = self.cell(torch.cat([self.embedding(inputs_BW[:, word]), context_BD], dim=1), (h, c))
            states.append(h)
        return torch.stack(states, 1)

    def loss(self, batch: Batch) -> Tensor:
        return summed_loss(self.output(self.hidden(batch)), words_of(batch)[1])


class PlainRecNetLocal(nn.Module):
    """RecNet-local: the reconstructor attends word by word for every frame, over padded words too (masked)."""

    def __init__(self, engine: nn.Module) -> None:
        super().__init__()
        self.decoder = PlainSoftAttention(engine.decoder)
        rebuild = engine.reconstructor.rebuild
        self.key, self.query = linear_like(rebuild.attention.key), linear_like(rebuild.attention.query)
        self.score, self.cell = linear_like(rebuild.attention.score), lstm_like(rebuild.cell, "attended")
        self.weight = engine.weight

    def loss(self, batch: Batch) -> Tensor:
        """L_ED + lambda L_l, eq. 12 and 22, with the Euclidean distance."""
        frames_BTD, mask_BT = per_caption(batch), batch.masks["frames"][batch.clip_of_B]
        targets_BW = words_of(batch)[1]
        hidden_BWH = self.decoder.hidden(batch)
        z = frames_BTD.new_zeros(len(targets_BW), self.cell.hidden_size)
        m = torch.zeros_like(z)
        distances = []
        for frame in range(frames_BTD.shape[1]):
            energy_BWA = torch.tanh(self.key(hidden_BWH) + self.query(z).unsqueeze(1))
            score_BW = self.score(energy_BWA).squeeze(-1).masked_fill(targets_BW == PAD, float("-inf"))
            attended_BH = torch.bmm(torch.softmax(score_BW, dim=-1).unsqueeze(1), hidden_BWH).squeeze(1)
            z, m = self.cell(attended_BH, (z, m))
            distances.append((z - frames_BTD[:, frame]).square().sum(-1).clamp(min=1e-24).sqrt())
        rebuilt = (torch.stack(distances, 1) * mask_BT).sum(1) / mask_BT.sum(1)
        caption = summed_loss(self.decoder.output(hidden_BWH), targets_BW)
        return caption + self.weight * rebuilt.mean()


class PlainGLRG(nn.Module):
    """GL-RG with F beside every word; there is no attention whose keys could be saved."""

    def __init__(self, engine: nn.Module) -> None:
        super().__init__()
        decoder = engine.decoder
        self.project = nn.ModuleDict({name: linear_like(phi) for name, phi in decoder.project.items()})
        self.join, self.output = linear_like(decoder.join), linear_like(decoder.output)
        self.embedding = nn.Embedding(*decoder.embedding.weight.shape, padding_idx=PAD)
        self.embedding.load_state_dict(decoder.embedding.state_dict())
        self.cell = lstm_like(decoder.cell, "word", "clip")

    def loss(self, batch: Batch) -> Tensor:
        """XE of eq. 8 with m = 1."""
        parts = []
        for name, phi in self.project.items():
            scores_BK = per_caption(batch, name)
            parts.append(torch.relu(phi(functional.layer_norm(scores_BK, scores_BK.shape[-1:]))))
        fused_BE = self.join(torch.cat(parts, dim=-1))
        inputs_BW, targets_BW = words_of(batch)
        h = fused_BE.new_zeros(len(inputs_BW), self.cell.hidden_size)
        c = torch.zeros_like(h)
        states = []
        for word in range(STEPS):
            h, c = self.cell(torch.cat([self.embedding(inputs_BW[:, word]), fused_BE], dim=1), (h, c))
            states.append(h)
        return summed_loss(self.output(torch.stack(states, 1)), targets_BW)
