"""GL-RG as the authors' published code has it, where that is not what the paper says (`mode=official`).

The network, the token means of the losses, the weights of clips with many captions, the drawing of captions and the beam.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.method import BOS, EOS, PAD, Batch, Caption, Clips, Run, Search, Vocabulary, WordLoss
from bench.nn.beam import NEVER
from bench.nn.decoding import Memory, State, WordEmbedding, cross_entropy, expand
from bench.nn.deferred import deferred_weight_gradients
from bench.nn.host import all_rows, ids, on_host
from bench.nn.layers import SplitLSTMCell
from bench.nn.sampling import Sampled
from bench.training import Baseline, CaptionModel, CaptionReward, Draw, Losses, Phase, caption_weights
from methods.glrg.model import levelled

SPAN = 0.1  # word vectors and output weights start uniform in -0.1..0.1
FIRST_END = 10_000.0  # the perplexity that a caption without words is given


class OfficialDecoder(nn.Module):
    """One linear layer over all ranges at once; F beside every word; an LSTM without biases, an output layer with them."""

    def __init__(
        self, words: int, ranges: Mapping[str, int], width: int, embedding: int, dropout: float, normalise: bool
    ) -> None:
        super().__init__()
        self.reads = tuple(ranges)
        self.width, self.normalise = width, normalise
        self.pool = nn.Linear(sum(ranges.values()), width)
        self.embedding = WordEmbedding(words, embedding)
        self.cell = SplitLSTMCell({"word": embedding, "clip": width}, width, bias=False)
        self.output = nn.Linear(width, words)
        nn.init.uniform_(self.output.weight, -SPAN, SPAN)
        nn.init.zeros_(self.output.bias)
        self.dropout = nn.Dropout(dropout)

    def fuse(self, scores: Mapping[str, Tensor]) -> Tensor:
        """F, [C, H], from the probabilities of each range [C, K]."""
        joined_CD = torch.cat([levelled(scores[name], self.normalise) for name in self.reads], dim=-1)
        return self.dropout(torch.relu(self.pool(joined_CD)))

    def remember(self, fused_CH: Tensor) -> Memory:
        """F's share of the gates of every word."""
        return {"fused": self.cell.part("clip", fused_CH)}

    def start(self, memory: Memory) -> State:
        zero = memory["fused"].new_zeros(memory["fused"].shape[0], self.width)
        return zero, zero

    def step(self, words_B: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, None]:
        gates_B4H = self.cell.part("word", self.embedding(words_B), memory["fused"])
        hidden_BH, cell_BH = self.cell(gates_B4H, (state[0], state[1]))
        return hidden_BH, (hidden_BH, cell_BH), None

    def logits(self, features_NH: Tensor) -> Tensor:
        return self.output(self.dropout(features_NH))


# -- seeding -----------------------------------------------------------------------------------------------------------


def token_loss(settings: Mapping[str, Any], clips: Clips, slots: int) -> WordLoss:
    """XE or DXE as a mean over all words of the batch, end marks included, instead of a sum over words.

    `slots` is the number of captions that a clip has in a batch.
    """
    weigh = None
    if settings["seed_weight"] != "none":
        weights = caption_weights(clips, settings["seed_weight"], scale=settings["weight_scale"])
        weigh = slot_weights(clips, weights, slots)

    def losses(losses_BW: Tensor, batch: Batch, targets_BW: Tensor) -> Losses:
        words, plain = (targets_BW != PAD).sum(), cross_entropy(losses_BW).detach()
        if weigh is None:
            return {"loss": losses_BW.sum() / words, "cross_entropy": plain}
        loss = (losses_BW.sum(1) * losses_BW.new_tensor(weigh(batch))).sum() / words
        return {"loss": loss, "cross_entropy": plain, "discrepant_cross_entropy": loss.detach()}

    return losses


def slot_weights(clips: Clips, weights: Mapping[str, float], slots: int) -> Callable[[Batch], list[float]]:
    """m(S) of each caption of a batch, which is that of another one where the clip has more than `slots` captions.

    The authors' loader then reads the captions in random order and takes the weights of the first `slots` in file order.
    The order is torch's global generator's, which a resumed training restores.
    """
    stored = {
        clip: [weights[reference.id] for reference in clips.references(clip)[:slots]]
        for clip in clips.ids
        if len(clips.references(clip)) > slots
    }

    def weigh(batch: Batch) -> list[float]:
        found = [weights[caption] for caption in batch.caption_ids]
        dealt = dict.fromkeys(batch.clip_ids, 0)
        clip_of = on_host(batch.clip_of_B).tolist()
        for row in torch.randperm(len(found)).tolist():
            clip = batch.clip_ids[clip_of[row]]
            if clip in stored:
                found[row] = stored[clip][dealt[clip] % slots]
                dealt[clip] += 1
        return found

    return weigh


# -- boosting ----------------------------------------------------------------------------------------------------------


def policy_phase(
    model: Any, run: Run, reward: CaptionReward, baseline: Baseline, name: str, train: Mapping[str, Any]
) -> Phase:
    """Policy gradient in one pass: captions are drawn with dropout on, and differentiated as they were drawn."""
    max_words = run.search.max_words

    def loss(batch: Batch) -> Losses:
        model.train()
        drawn_BW, log_p_BW = draw(model, batch, max_words)
        sampled = until_end(batch, drawn_BW)
        rewards = reward(sampled)
        model.eval()  # the greedy caption of scst is the one that the model would write
        bases = baseline(Draw(model, batch, sampled, rewards, reward, max_words))
        advantage_B = torch.as_tensor(rewards - bases).to(log_p_BW)
        return {
            "loss": token_policy_loss(drawn_BW, log_p_BW, advantage_B),
            "reward": torch.tensor(float(rewards.mean())),
            "baseline": torch.tensor(float(bases.mean())),
        }

    return Phase(name, loss, model.decoder, run.shares[name], train, rewards=True)


def draw(captioner: Any, batch: Batch, max_words: int) -> tuple[Tensor, Tensor]:
    """Words drawn for every caption slot and their log p, [B, W] each. A caption goes on after its end mark.

    Drawing stops after `max_words`, or where all captions draw an end mark at once. Where the host would have to wait to know
    that, words that come later are end marks behind end marks, which count for nothing.
    """
    memory = expand(captioner.encode(batch), batch.clip_of_B)
    state = captioner.start(memory)
    words_B = torch.full_like(batch.clip_of_B, BOS)
    whole, never = all_rows(words_B.device), ids(NEVER, words_B.device)
    drawn: list[Tensor] = []
    log_p: list[Tensor] = []
    with deferred_weight_gradients():
        while len(drawn) < max_words and (whole or not (drawn and (words_B == EOS).all())):
            features_BR, state, _ = captioner.step(words_B, state, memory)
            logits_BV = captioner.logits(features_BR).index_fill(1, never, float("-inf"))
            log_BV = torch.log_softmax(logits_BV, dim=-1)
            words_B = torch.multinomial(log_BV.detach().exp(), 1).squeeze(1)
            drawn.append(words_B)
            log_p.append(log_BV.gather(1, words_B.unsqueeze(1)).squeeze(1))
    drawn_BW = torch.stack(drawn, 1)
    if whole:
        all_W = (drawn_BW == EOS).all(0).long()
        drawn_BW = drawn_BW.masked_fill(all_W.cumsum(0) > all_W, EOS)
    return drawn_BW, torch.stack(log_p, 1)


def until_end(batch: Batch, drawn_BW: Tensor) -> Sampled:
    """What is scored of drawn captions: the words up to the first end mark, that included. Rows keep their order."""
    ends_BW = (drawn_BW == EOS).long()
    words_BW = drawn_BW.masked_fill(ends_BW.cumsum(1) > ends_BW, PAD)
    first_B1 = torch.full_like(drawn_BW[:, :1], BOS)
    lengths_B = (words_BW != PAD).sum(1)
    return Sampled(replace(batch, words_BW=torch.cat([first_B1, words_BW], 1), lengths_B=lengths_B))


def token_policy_loss(drawn_BW: Tensor, log_p_BW: Tensor, advantage_B: Tensor) -> Tensor:
    """-(r - b) log p, mean over words: over every drawn word but those that stand right behind an end mark."""
    counted_BW = torch.ones_like(drawn_BW, dtype=torch.bool)
    counted_BW[:, 1:] = drawn_BW[:, :-1] != EOS
    return -(log_p_BW * advantage_B.unsqueeze(1) * counted_BW).sum() / counted_BW.sum()


# -- decoding ----------------------------------------------------------------------------------------------------------


class OfficialModel(CaptionModel):
    """A `CaptionModel` that decodes with the authors' beam."""

    def caption(self, batch: Batch, search: Search) -> list[Caption]:
        return perplexity_beam(self.captioner, batch, self.vocabulary, search)


@torch.inference_mode()
def perplexity_beam(captioner: Any, batch: Batch, vocabulary: Vocabulary, search: Search) -> list[Caption]:
    """The caption of lowest perplexity of every clip, from a beam in which nothing is ever finished.

    Hypotheses compete by their sum of log p and go on after their end marks. Whenever one writes an end mark, and for all at
    the `max_words`-th word, it is put aside with exp(-sum / words), where words are the steps before this one; at the first
    step the perplexity is 10,000. The text is that before the first end mark.
    """
    clips, wide, steps = len(batch.clip_ids), search.beam, search.max_words
    memory_C = captioner.encode(batch)
    device = next(iter(memory_C.values())).device
    memory = expand(memory_C, torch.arange(clips, device=device).repeat_interleave(wide))
    state = captioner.start(memory)
    words_CKW = torch.full((clips, wide, steps), PAD, device=device)
    log_p_CKW = torch.zeros(clips, wide, steps, device=device)
    total_CK = torch.full((clips, wide), -math.inf, device=device)
    total_CK[:, 0] = 0.0  # all beams are equal at the start: only the first may branch
    aside = _Aside(torch.full_like(total_CK, -math.inf), words_CKW, log_p_CKW)
    last_CK = torch.full((clips, wide), BOS, device=device)
    for step in range(steps):
        features, state, _ = captioner.step(last_CK.reshape(-1), state, memory)
        log_CKV = torch.log_softmax(captioner.logits(features).float(), dim=-1).view(clips, wide, -1)
        log_CKV.index_fill_(2, ids(NEVER, device), -math.inf)
        size = log_CKV.shape[-1]
        total_CK, top_CK = (total_CK.unsqueeze(-1) + log_CKV).view(clips, -1).topk(wide, dim=1)
        parent_CK, last_CK = top_CK // size, top_CK % size
        flat = (torch.arange(clips, device=device).unsqueeze(1) * wide + parent_CK).view(-1)
        state = tuple(part.index_select(0, flat) for part in state)
        words_CKW = _rows(words_CKW, parent_CK)
        words_CKW[:, :, step] = last_CK
        step_CK = log_CKV.view(clips, -1).gather(1, top_CK)
        log_p_CKW = _rows(log_p_CKW, parent_CK)
        log_p_CKW[:, :, step] = step_CK
        rank_CK = total_CK / step if step else torch.full_like(total_CK, -math.log(FIRST_END))
        ended_CK = (last_CK == EOS) | (step == steps - 1)
        rank_CK = rank_CK.masked_fill(~ended_CK | total_CK.isneginf(), -math.inf)
        aside = aside.best_of(_Aside(rank_CK, words_CKW, log_p_CKW))
    aside = aside.on_host()
    return [aside.caption(place, clip, vocabulary) for place, clip in enumerate(batch.clip_ids)]


def _rows(value_CKW: Tensor, rows_CK: Tensor) -> Tensor:
    return value_CKW.gather(1, rows_CK.unsqueeze(-1).expand(-1, -1, value_CKW.shape[-1]))


class _Aside:
    """The best hypotheses put aside so far: minus log perplexity [C, K], words and their log p [C, K, W]."""

    def __init__(self, rank_CK: Tensor, words_CKW: Tensor, log_p_CKW: Tensor) -> None:
        self.rank_CK, self.words_CKW, self.log_p_CKW = rank_CK, words_CKW, log_p_CKW

    def best_of(self, later: "_Aside") -> "_Aside":
        """The best of both, the earlier first where they are equal."""
        rank = torch.cat([self.rank_CK, later.rank_CK], 1)
        rank_CK, place_CK = (part[:, : rank.shape[1] // 2] for part in rank.sort(dim=1, descending=True, stable=True))
        words = torch.cat([self.words_CKW, later.words_CKW], 1)
        log_p = torch.cat([self.log_p_CKW, later.log_p_CKW], 1)
        return _Aside(rank_CK, _rows(words, place_CK), _rows(log_p, place_CK))

    def on_host(self) -> "_Aside":
        """The same on the CPU, by one copy: a float64 holds every number exactly."""
        parts = (self.rank_CK.unsqueeze(-1), self.words_CKW, self.log_p_CKW)
        together = torch.cat([part.double() for part in parts], -1).cpu()
        rank_CK1, words_CKW, log_p_CKW = together.split([part.shape[-1] for part in parts], -1)
        return _Aside(rank_CK1.squeeze(-1), words_CKW.long(), log_p_CKW)

    def caption(self, place: int, clip: str, vocabulary: Vocabulary) -> Caption:
        """The best text of a clip and the other texts, each with its sum of log p to the first end mark."""
        found: dict[tuple[str, ...], float] = {}
        for rank, words, log_p in zip(
            self.rank_CK[place].tolist(), self.words_CKW[place].tolist(), self.log_p_CKW[place].tolist(), strict=True
        ):
            if rank > -math.inf:
                length = words.index(EOS) + 1 if EOS in words else len(words)
                found.setdefault(vocabulary.decode(words[:length]), sum(log_p[:length]))
        (best, score), *others = found.items()
        return Caption(clip, best, score, tuple((" ".join(text), score) for text, score in others))
