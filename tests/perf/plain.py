"""Training steps as published implementations make them: the references against which the engine's speed is measured.

Batched over captions, `nn.LSTMCell`, the same batch, loss and optimizer; but the frames of a clip are repeated for each of its
captions and encoded for each, the keys of the attention are computed again at every word, every caption takes `STEPS` steps,
and logits are made for all of them. The weights are copies of the engine's, so that both can be shown to train alike. There is
no dropout, so that both give the same numbers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.method import PAD, Batch
from bench.nn.attention import AdditiveAttention
from bench.nn.captioners import SoftAttention
from bench.nn.layers import SplitLSTMCell
from methods.hail.model import HierarchicalAttention
from methods.vre.encoder import ProductAttention
from methods.vre.model import VRE

STEPS = 30  # words of the longest caption that most papers allow
VRE_STEPS = 15  # and that VRE allows
MASKED = -1e9  # score of what is masked: its weight is 0, and a row without anything real stays finite


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


def gru_like(gru: nn.GRU) -> nn.GRUCell:
    """An `nn.GRUCell` with the weights of an `nn.GRU` of one layer."""
    made = nn.GRUCell(gru.input_size, gru.hidden_size)
    made.load_state_dict({name.removesuffix("_l0"): weight for name, weight in gru.state_dict().items()})
    return made


def embedding_like(embedding: nn.Embedding) -> nn.Embedding:
    """A copy of the word vectors."""
    made = nn.Embedding(*embedding.weight.shape, padding_idx=PAD)
    made.load_state_dict(embedding.state_dict())
    return made


def linear_like(layer: nn.Linear) -> nn.Linear:
    """A copy of a linear layer."""
    made = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    made.load_state_dict(layer.state_dict())
    return made


def per_caption(batch: Batch, stream: str = "frames") -> Tensor:
    """A stream once for every caption, [B, ...]."""
    return batch.streams[stream][batch.clip_of_B]


def masked_per_caption(batch: Batch, stream: str) -> tuple[Tensor, Tensor]:
    """A stream once for every caption, [B, T, D] or [B, T, k, D], zero where padded, and its mask [B, T] or [B, T, k].

    A region of zeros was not found.
    """
    values, mask = batch.streams[stream], batch.masks[stream]
    if values.dim() > 3:
        mask = mask.unsqueeze(-1) & (values != 0).any(-1)
    return (values * mask.unsqueeze(-1))[batch.clip_of_B], mask[batch.clip_of_B]


def words_of(batch: Batch, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """Inputs and targets of all captions, [B, steps] each, padded."""
    room = steps + 1 - batch.words_BW.shape[1]
    words = functional.pad(batch.words_BW, (0, room), value=PAD) if room > 0 else batch.words_BW[:, : steps + 1]
    return words[:, :-1], words[:, 1:]


def caption_losses(logits_BWV: Tensor, targets_BW: Tensor) -> Tensor:
    """Sum over the words of each caption, [B], padding ignored."""
    losses_N = functional.cross_entropy(
        logits_BWV.flatten(0, 1), targets_BW.flatten(), ignore_index=PAD, reduction="none"
    )
    return losses_N.view_as(targets_BW).sum(1)


def summed_loss(logits_BWV: Tensor, targets_BW: Tensor) -> Tensor:
    """Sum over words, mean over captions, padding ignored."""
    return caption_losses(logits_BWV, targets_BW).mean()


class PlainAttention(nn.Module):
    """Additive attention that computes its keys whenever it is asked."""

    def __init__(self, engine: AdditiveAttention) -> None:
        super().__init__()
        self.key, self.query = linear_like(engine.key), linear_like(engine.query)
        self.score = linear_like(engine.score)

    def forward(self, query_BH: Tensor, values_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Context, [B, D]."""
        energy_BTA = torch.tanh(self.key(values_BTD) + self.query(query_BH).unsqueeze(1))
        weight_BT = torch.softmax(self.score(energy_BTA).squeeze(-1).masked_fill(~mask_BT, MASKED), dim=-1)
        return torch.bmm(weight_BT.unsqueeze(1), values_BTD).squeeze(1)


class PlainProductAttention(nn.Module):
    """VRE's attention, eq. 8 and 14; it computes its keys whenever it is asked."""

    def __init__(self, engine: ProductAttention) -> None:
        super().__init__()
        self.key, self.query = linear_like(engine.key), linear_like(engine.query)
        self.score = linear_like(engine.score)

    def weights(self, query_BQ: Tensor, values_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """alpha, [B, T]."""
        inner_BTA = torch.tanh(self.query(query_BQ).unsqueeze(1) * self.key(values_BTD))
        return torch.softmax(self.score(inner_BTA).squeeze(-1).masked_fill(~mask_BT, MASKED), dim=-1)

    def forward(self, query_BQ: Tensor, values_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Context, [B, D]."""
        weight_BT = self.weights(query_BQ, values_BTD, mask_BT)
        return torch.bmm(weight_BT.unsqueeze(1), values_BTD).squeeze(1)


class PlainSoftAttention(nn.Module):
    """SA-LSTM word by word."""

    def __init__(self, engine: SoftAttention) -> None:
        super().__init__()
        self.embedding, self.attention = embedding_like(engine.embedding), PlainAttention(engine.attention)
        self.cell, self.output = lstm_like(engine.cell, "word", "context"), linear_like(engine.output)

    def hidden(self, batch: Batch) -> Tensor:
        """Hidden states, [B, STEPS, H]."""
        frames_BTD = per_caption(batch)
        mask_BT = batch.masks["frames"][batch.clip_of_B]
        inputs_BW, _ = words_of(batch)
        h = frames_BTD.new_zeros(len(inputs_BW), self.cell.hidden_size)
        c = torch.zeros_like(h)
        states = []
        for word in range(STEPS):
            context_BD = self.attention(h, frames_BTD, mask_BT)
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
        self.attention, self.cell = PlainAttention(rebuild.attention), lstm_like(rebuild.cell, "attended")
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
            z, m = self.cell(self.attention(z, hidden_BWH, targets_BW != PAD), (z, m))
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
        self.embedding = embedding_like(decoder.embedding)
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


class PlainHAIL(nn.Module):
    """HA: an object LSTM over the regions of every frame, then the words with three attentions beside them."""

    def __init__(self, engine: HierarchicalAttention) -> None:
        super().__init__()
        assert engine.objects is not None
        self.regions = PlainAttention(engine.objects.attention)
        self.object_cell = lstm_like(engine.objects.cell, "regions")
        self.embedding = embedding_like(engine.embedding)
        self.attention = nn.ModuleDict({name: PlainAttention(layer) for name, layer in engine.attention.items()})
        self.cell, self.output = lstm_like(engine.cell, "word", *engine.streams), linear_like(engine.output)

    def objects(self, batch: Batch) -> Tensor:
        """HR, [B, T, H], zero where padded, eq. 1-2."""
        regions_BTkD, mask_BTk = masked_per_caption(batch, "regions")
        h = regions_BTkD.new_zeros(len(regions_BTkD), self.object_cell.hidden_size)
        c = torch.zeros_like(h)
        states = []
        for frame in range(regions_BTkD.shape[1]):
            h, c = self.object_cell(self.regions(h, regions_BTkD[:, frame], mask_BTk[:, frame]), (h, c))
            states.append(h)
        return torch.stack(states, 1) * batch.masks["regions"][batch.clip_of_B].unsqueeze(-1)

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy, eq. 5, of the words of eq. 3-4."""
        seen = {
            name: (self.objects(batch), batch.masks[name][batch.clip_of_B])
            if name == "regions"
            else masked_per_caption(batch, name)
            for name in self.attention
        }
        inputs_BW, targets_BW = words_of(batch)
        h = seen["frames"][0].new_zeros(len(inputs_BW), self.cell.hidden_size)
        c = torch.zeros_like(h)
        states = []
        for word in range(STEPS):
            contexts = [attend(h, *seen[name]) for name, attend in self.attention.items()]
            h, c = self.cell(torch.cat([self.embedding(inputs_BW[:, word]), *contexts], dim=1), (h, c))
            states.append(h)
        return summed_loss(self.output(torch.stack(states, 1)), targets_BW)


class PlainVRE(nn.Module):
    """VRE in its joint phase: two passes over the frames of every caption, a decoding from each, and the loss of the key frame.

    For the paper's widths, at which a word and the video's representation have the same size; with sound or without.
    """

    def __init__(self, engine: VRE, weight: float) -> None:
        super().__init__()
        encoder, decoder = engine.encoder, engine.decoder
        assert decoder.spatial is not None and isinstance(decoder.enter, nn.Identity)
        self.leftward, self.rightward = gru_like(encoder.scan.leftward), gru_like(encoder.scan.rightward)
        self.join, self.combine = linear_like(encoder.scan.join), linear_like(encoder.combine)
        self.refocus, self.merge = PlainProductAttention(encoder.refocus), linear_like(encoder.merge)
        self.temporal, self.spatial = PlainProductAttention(decoder.temporal), PlainProductAttention(decoder.spatial)
        self.heard = ("audio",) if "audio" in decoder.cell.weights else ()
        self.cell = lstm_like(decoder.cell, "temporal", "spatial", *self.heard, "word")
        self.embedding, self.output = embedding_like(decoder.embedding), linear_like(decoder.output)
        self.weight = weight
        self.rewards: dict[str, float] = {}  # R of the epoch before, by caption id

    def scan(self, frames_BTD: Tensor, key_B: Tensor, count_B: Tensor) -> Tensor:
        """KBiGRU from the key frames outwards, [B, H], eq. 4-7."""
        row_B = torch.arange(len(frames_BTD), device=frames_BTD.device)
        ends = []
        for cell, stride, length_B in ((self.leftward, -1, key_B + 1), (self.rightward, 1, count_B - key_B)):
            h = frames_BTD.new_zeros(len(frames_BTD), cell.hidden_size)
            for step in range(int(length_B.max())):
                place_B = (key_B + stride * step).clamp(0, frames_BTD.shape[1] - 1)
                h = torch.where((step < length_B).unsqueeze(1), cell(frames_BTD[row_B, place_B], h), h)
            ends.append(h)
        return torch.tanh(self.join(torch.cat(ends, dim=-1)))

    def with_audio(self, hidden_BH: Tensor, batch: Batch) -> Tensor:
        """o of Algorithm 1, [B, H]."""
        return torch.tanh(
            self.combine(torch.cat([hidden_BH, *(per_caption(batch, name) for name in self.heard)], dim=-1))
        )

    def told(
        self, batch: Batch, video_BH: Tensor, frames: tuple[Tensor, Tensor], places: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Losses of the captions in one decoding, [B], Algorithm 2 and eq. 12-18."""
        steps = max(VRE_STEPS, batch.words_BW.shape[1] - 1)  # no caption is cut, or the ways would not compare
        inputs_BW, targets_BW = words_of(batch, steps)
        audio = [per_caption(batch, name) for name in self.heard]
        h, c = torch.zeros_like(video_BH), video_BH
        states = []
        for word in range(steps):
            query_BQ = torch.cat([video_BH, h], dim=-1)
            contexts = [self.temporal(query_BQ, *frames), self.spatial(query_BQ, *places), *audio]
            word_BE = self.embedding(inputs_BW[:, word]) if word else video_BH
            h, c = self.cell(torch.cat([*contexts, word_BE], dim=1), (h, c))
            states.append(h)
        return caption_losses(self.output(torch.stack(states, 1)), targets_BW)

    def loss(self, batch: Batch) -> Tensor:
        """L2 + L1 + beta LR+, eq. 22, LR+ with |R_e - R_{e-1}|."""
        frames_BTD, mask_BT = masked_per_caption(batch, "frames")
        places = masked_per_caption(batch, "spatial")
        count_B = mask_BT.sum(1)
        hidden_BH = self.scan(frames_BTD, count_B // 2, count_B)
        first_BH = self.with_audio(hidden_BH, batch)
        alpha_BT = self.refocus.weights(first_BH, frames_BTD, mask_BT)
        key_B = alpha_BT.argmax(1)
        again_BH = self.scan(frames_BTD, key_B, count_B)
        second_BH = self.with_audio(torch.tanh(self.merge(torch.cat([hidden_BH, again_BH], dim=-1))), batch)
        one_B, two_B = (self.told(batch, video_BH, (frames_BTD, mask_BT), places) for video_BH in (first_BH, second_BH))
        reward_B = (one_B - two_B).detach()
        before_B = reward_B.new_tensor([self.rewards.get(name, float("nan")) for name in batch.caption_ids])
        self.rewards.update(zip(batch.caption_ids, reward_B.tolist(), strict=True))
        change_B = (reward_B - before_B).nan_to_num(0.0)  # eq. 20; the first epoch has none before it
        alpha_key_B = alpha_BT.gather(1, key_B.unsqueeze(1)).squeeze(1).clamp(max=1 - 1e-6)
        wanted_B = torch.where(change_B > 0, alpha_key_B.log(), (1 - alpha_key_B).log())
        refocus_B = torch.where(count_B > 1, -change_B.abs() * wanted_B, torch.zeros_like(wanted_B))  # eq. 21
        return two_B.mean() + one_B.mean() + self.weight * refocus_B.mean()
