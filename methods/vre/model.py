"""VRE: a decoder that attends to frames and places, over one pass of the encoder or two.

Shi, Cai, Joty, Gu: "Watch It Twice: Video Captioning with a Refocused Video Encoder", sections 3.3 and 3.4 (eq. 12-22,
Algorithm 2). Equation numbers are the paper's.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bench.method import BOS, Batch, Clips
from bench.nn.attention import pays_beforehand
from bench.nn.decoding import Memory, Remembered, State, WordEmbedding, real_words, teacher_forcing, word_losses
from bench.nn.deferred import once, product, rounded
from bench.nn.host import on_both
from bench.nn.layers import FeatureNorm, HostState, SplitLSTMCell, vector_mask
from methods.vre.encoder import Encoder, ProductAttention, Video, refocus_loss
from methods.vre.tables import Table


class Decoder(nn.Module):
    """Algorithm 2 for one step: two attentions and an LSTM that the video representation o starts.

    `encoded` False is the row Vf + vs, which has no o: the attentions are guided by the hidden state alone, and zeros stand
    where o would. `spatial_width` and `audio_width` are 0 where the data set has no such stream.
    """

    def __init__(
        self,
        words: int,
        frame_width: int,
        spatial_width: int,
        audio_width: int,
        width: int,
        embedding: int,
        attention: int,
        dropout: float,
        encoded: bool,
    ) -> None:
        super().__init__()
        self.width, self.encoded = width, encoded
        query = 2 * width if encoded else width
        self.temporal = ProductAttention(frame_width, query, attention)  # eq. 13-16
        self.spatial = ProductAttention(spatial_width, query, attention) if spatial_width else None  # eq. 12
        parts = {"temporal": frame_width, "spatial": spatial_width, "audio": audio_width, "word": embedding}
        self.cell = SplitLSTMCell({name: size for name, size in parts.items() if size}, width)
        # o takes a word's place at t = 0. The paper has 512 for both; other widths are made to meet by a linear map.
        meets = width == embedding or not encoded
        self.enter = nn.Identity() if meets else nn.Linear(width, embedding, bias=False)
        self.embedding = WordEmbedding(words, embedding)
        self.output = nn.Linear(width, words)
        self.dropout = nn.Dropout(dropout)

    def survey(self, video: Video, batch: Batch | None = None, readings: int = 1) -> Memory:
        """What both steps of a clip share. For captions of `batch` that are read `readings` times, frames and places may be
        multiplied by their part of the cell beforehand: `pays_beforehand`."""
        memory = self._look("temporal", self.temporal, video.frames, video.mask, batch, readings)
        if self.spatial is not None:
            assert video.spatial is not None and video.spatial_mask is not None
            memory |= self._look("spatial", self.spatial, video.spatial, video.spatial_mask, batch, readings)
        if video.audio is not None:
            memory["audio_gates"] = self.cell.part("audio", video.audio)
        return memory

    def _look(
        self, part: str, attention: ProductAttention, values: Tensor, mask: Tensor, batch: Batch | None, readings: int
    ) -> Memory:
        memory = {f"{part}_keys": attention.keys(values), f"{part}_mask": mask}
        if batch is not None and pays_beforehand(batch, mask, values.shape[2], 4 * self.width, readings):
            return {**memory, f"{part}_gates": self.cell.part(part, values)}
        return {**memory, part: values}

    def _see(self, part: str, attention: ProductAttention, query_BA: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """What frames or places add to the gates, [B, 4H], and their weights."""
        keys, mask = memory[f"{part}_keys"], memory[f"{part}_mask"]
        if f"{part}_gates" in memory:
            return attention(query_BA, keys, memory[f"{part}_gates"], mask)
        seen_BD, weights_BT = attention(query_BA, keys, memory[part], mask)
        return self.cell.part(part, seen_BD), weights_BT

    def remember(self, survey: Memory, video_CH: Tensor | None) -> Memory:
        """The memory of one step: `survey` with o_i, [C, H], or None for the row without an encoder."""
        if video_CH is None:
            rows = survey["temporal_keys"]
            zeros = rows.new_zeros(len(rows), self.width)
            return {**survey, "video": zeros, "entry": rows.new_zeros(len(rows), self.embedding.embedding_dim)}
        of_video_QH = self._queries()[:, : self.width]
        return {**survey, "video": video_CH, "entry": self.enter(video_CH), "query": video_CH @ of_video_QH.T}

    def _queries(self) -> Tensor:
        """W_q of both attentions under one another, [A or 2A, Q]: o first, then h."""
        parts = [self.temporal] if self.spatial is None else [self.temporal, self.spatial]
        return torch.cat([part.query.weight for part in parts])

    def start(self, memory: Memory) -> State:
        """h = 0, c = o_i."""
        return torch.zeros_like(memory["video"]), memory["video"]

    def step(self, words_B: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        """The weights are those of the frames and, behind them, of the places: [B, T + S]."""
        hidden_BH, cell_BH = state
        of_hidden_QH = once("query", self.temporal.query.weight, lambda _: self._queries()[:, -self.width :])
        query_BQ = product(hidden_BH, of_hidden_QH, memory.get("query"))
        query_BA, place_query_BA = query_BQ.tensor_split([self.temporal.key.out_features], dim=-1)
        gates_B4H, weights_BT = self._see("temporal", self.temporal, query_BA, memory)
        if "audio_gates" in memory:
            gates_B4H = gates_B4H + memory["audio_gates"]
        if self.spatial is not None:
            place_gates_B4H, place_weights_BS = self._see("spatial", self.spatial, place_query_BA, memory)
            gates_B4H = gates_B4H + place_gates_B4H
            weights_BT = torch.cat([weights_BT, place_weights_BS], dim=-1)
        first_B1 = (words_B == BOS).unsqueeze(-1)
        word_BE = torch.where(first_B1, memory["entry"], self.embedding(words_B))  # t = 0: o_i in place of a word
        gates_B4H = self.cell.part("word", word_BE, gates_B4H)
        hidden_BH, cell_BH = self.cell(gates_B4H, (hidden_BH, cell_BH))
        return hidden_BH, (hidden_BH, cell_BH), weights_BT

    def logits(self, features_NH: Tensor) -> Tensor:
        return self.output(self.dropout(features_NH))


class OnePass(nn.Module):
    """The captioner of the rows Vf + vs (no encoder) and KBiGRU (step 1 alone)."""

    def __init__(self, norms: dict[str, FeatureNorm], encoder: Encoder | None, decoder: Decoder) -> None:
        super().__init__()
        self.norms = nn.ModuleDict(norms)
        self.encoder, self.decoder = encoder, decoder

    def video(self, batch: Batch) -> Video:
        """The streams of a batch as the model sees them; streams that the model was not built for are left alone."""
        frames, mask = self._stream(batch, "frames")
        spatial = spatial_mask = audio = None
        if self.decoder.spatial is not None:
            spatial, spatial_mask = self._stream(batch, "spatial")
        if "audio" in self.decoder.cell.weights:
            audio, _ = self._stream(batch, "audio")
        return Video(frames, mask, spatial, spatial_mask, audio)

    def _stream(self, batch: Batch, name: str) -> tuple[Tensor, Tensor]:
        """Values, zero where padded, and the mask of their positions; a stream without time has no padding."""
        values = batch.streams[name]
        mask = vector_mask(values, batch.masks.get(name))
        values = self.norms[name](values, mask) if name in self.norms else values * mask.unsqueeze(-1)
        return rounded(values), mask  # whatever reads them multiplies them

    def encode(self, batch: Batch) -> Memory:
        video = self.video(batch)
        shown = None if self.encoder is None else self.encoder.first(video)[1]
        return self.decoder.remember(self.decoder.survey(video, batch), shown)

    def start(self, memory: Memory) -> State:
        return self.decoder.start(memory)

    def step(self, words_B: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        return self.decoder.step(words_B, state, memory)

    def logits(self, features_NH: Tensor) -> Tensor:
        return self.decoder.logits(features_NH)


MIDDLE, REFOCUSED, FIXED = 0, 1, 2
"""Where the procedure stands: step 1 alone; two steps with key frames that learn; two steps with key frames that stay."""


@dataclass(frozen=True)
class Watched:
    """Clips that were watched twice: key frames [C], log alpha [C, T], and what the decoder reads in step 1 and step 2.

    As long as step 1 alone has been trained, `second` is `first` and the key frames are the middle ones.
    """

    key: Tensor
    log_weights: Tensor
    first: Memory
    second: Memory


class VRE(OnePass, HostState):
    """Two passes. `stage`, key frames, rewards and the finder of key frames are part of the state."""

    of_host = ("stage",)
    encoder: Encoder
    stage: Tensor

    def __init__(self, norms: dict[str, FeatureNorm], encoder: Encoder, decoder: Decoder) -> None:
        super().__init__(norms, encoder, decoder)
        # The encoder as it stood when key frames were fixed: it finds those of clips that were not trained on.
        self.finder = copy.deepcopy(encoder)
        self.key_frames = Table(-1, torch.long)  # by clip id
        self.rewards = Table(float("nan"))  # R of the epoch before, by caption id
        self.register_buffer("stage", torch.tensor(MIDDLE))

    def open(self, clips: Clips) -> None:
        """Room for the key frames and rewards of the training clips; the procedure starts from its beginning."""
        self.key_frames.open(clips.ids)
        self.rewards.open(reference.id for clip in clips.ids for reference in clips.references(clip))
        self.stage.fill_(MIDDLE)

    def encode(self, batch: Batch) -> Memory:
        """The memory of step 2, or of step 1 as long as nothing else has been trained."""
        return super().encode(batch) if self.stage == MIDDLE else self.watch(batch).second

    def watch(self, batch: Batch) -> Watched:
        """Both steps, with the key frames that this stage has for clips that were not trained on."""
        video = self.video(batch)
        hidden_CH, first_CH = self.encoder.first(video)
        log_weights_CT = self.find(video) if self.stage == FIXED else self.encoder.look(video, first_CH)
        survey = self.decoder.survey(video)
        first = self.decoder.remember(survey, first_CH)
        if self.stage == MIDDLE:
            return Watched(video.middle, log_weights_CT, first, first)
        key_C = log_weights_CT.argmax(1)
        second_CH = self.encoder.second(video, hidden_CH, key_C)
        return Watched(key_C, log_weights_CT, first, self.decoder.remember(survey, second_CH))

    def find(self, video: Video) -> Tensor:
        """log alpha of the finder, [C, T]."""
        return self.finder.look(video, self.finder.first(video)[1])

    def joint_losses(self, batch: Batch, sampling: float, weight: float, form: str, feeding: str) -> dict[str, Tensor]:
        """L_all = L2 + L1 + beta LR+ (eq. 22). R_e is remembered for the next epoch.

        `form` is that of `refocus_loss`. `feeding` says what R_e is read from: `same`, the two losses themselves; `truth`,
        a second reading of the captions without dropout and without words of the model's own.
        """
        self.stage.fill_(REFOCUSED)
        video = self.video(batch)
        hidden_CH, first_CH = self.encoder.first(video)
        log_weights_CT = self.encoder.look(video, first_CH)
        key_C = log_weights_CT.argmax(1)  # eq. 10-11
        second_CH = self.encoder.second(video, hidden_CH, key_C)
        losses_B, memories = self._both(batch, video, first_CH, second_CH, sampling)
        reward_B = losses_B[0] - losses_B[1]  # eq. 20
        if feeding == "truth":
            with torch.no_grad(), _quiet(self.decoder.dropout):
                reward_B = torch.sub(*self._told_losses(batch, memories, 0.0))
        change_B = self.rewards.replace(batch.caption_ids, reward_B.detach())
        change_B = change_B.nan_to_num(0.0)  # the first joint epoch has no R_{e-1}
        rows = batch.clip_of_B
        refocus = refocus_loss(log_weights_CT[rows], key_C[rows], change_B, form).mean()
        losses = _named(losses_B)
        losses["loss"] = losses["loss"] + weight * refocus
        return {**losses, "refocus": refocus.detach(), "reward": reward_B.detach().mean()}

    def fixed_losses(self, batch: Batch, sampling: float) -> dict[str, Tensor]:
        """L2 + L1 from the stored key frames, without the refocusing module."""
        video = self.video(batch)
        hidden_CH, first_CH = self.encoder.first(video)
        second_CH = self.encoder.second(video, hidden_CH, self.key_frames.find(batch.clip_ids))
        losses_B, _ = self._both(batch, video, first_CH, second_CH, sampling)
        return _named(losses_B)

    def _both(
        self, batch: Batch, video: Video, first_CH: Tensor, second_CH: Tensor, sampling: float
    ) -> tuple[tuple[Tensor, Tensor], tuple[Memory, Memory]]:
        """L1 and L2 of each caption, [B] (eq. 17-18), and the memories that they were decoded from."""
        survey = self.decoder.survey(video, batch, readings=2)
        memories = (self.decoder.remember(survey, first_CH), self.decoder.remember(survey, second_CH))
        return self._told_losses(batch, memories, sampling), memories

    def _told_losses(self, batch: Batch, memories: tuple[Memory, Memory], sampling: float) -> tuple[Tensor, Tensor]:
        """Both steps are read in one pass: every caption stands there twice, and finds the memories of step 2 behind those of
        step 1."""
        first, second = memories
        clips = len(first["video"])
        told = Remembered(self.decoder, {name: torch.cat([first[name], second[name]]) for name in first})
        twice = replace(
            batch,
            clip_of_B=on_both(lambda clip_B: torch.stack([clip_B, clip_B + clips], 1).flatten(), batch.clip_of_B),
            words_BW=on_both(lambda words_BW: words_BW.repeat_interleave(2, 0), batch.words_BW),
            lengths_B=on_both(lambda lengths_B: lengths_B.repeat_interleave(2), batch.lengths_B),
        )
        forced, real_N = teacher_forcing(told, twice, sampling), real_words(batch)
        one, two = (
            replace(
                forced,
                features_BWR=forced.features_BWR[step::2],
                mask_BW=forced.mask_BW[step::2],
                targets_BW=forced.targets_BW[step::2],
                real_N=real_N,
            )
            for step in range(2)
        )
        return word_losses(told, one).sum(1), word_losses(told, two).sum(1)

    @torch.no_grad()
    def fix_key_frames(self, clips: Clips) -> None:
        """Store the key frame of every training clip, and the weights that find those of other clips."""
        training = self.training
        self.eval()
        self.finder.load_state_dict(self.encoder.state_dict())
        self.stage.fill_(FIXED)
        for batch in clips.in_order(256):
            here = batch.to(self.key_frames.values.device)
            self.key_frames.put(here.clip_ids, self.find(self.video(here)).argmax(1))
        self.train(training)

    @torch.no_grad()
    def restart(self, other: "VRE") -> None:
        """Take over the encoder and decoder of `other`; key frames and what finds them stay."""
        self.encoder.load_state_dict(other.encoder.state_dict())
        self.decoder.load_state_dict(other.decoder.state_dict())


def _named(losses_B: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    one, two = (value.mean() for value in losses_B)
    return {"loss": two + one, "cross_entropy": two.detach(), "first_cross_entropy": one.detach()}


@contextmanager
def _quiet(dropout: nn.Dropout) -> Iterator[None]:
    training = dropout.training
    dropout.eval()
    try:
        yield
    finally:
        dropout.train(training)
