"""Transformer: an encoder reads the frames, a decoder writes words and attends to words and frames.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3; equation numbers are that paper's. Frame features, projected
to the width of the model, stand where the paper has source words. Letters besides those of `bench.nn`: A all heads side by side,
N what is real among padded places, J heads, X and Y places that ask and places that are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.method import PAD, Batch
from bench.nn.captioners import FrameCaptioner
from bench.nn.decoding import Memory, State
from bench.nn.host import all_rows, on_device


@cache
def _sinusoids(count: int, width: int, device: torch.device, kind: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # a training may need what a search has asked for first
        pair_H = torch.arange(width) // 2
        angle_XH = torch.arange(count).double().unsqueeze(1) / 10000 ** (2 * pair_H / width)
        table_XH = torch.where(torch.arange(width) % 2 == 0, angle_XH.sin(), angle_XH.cos())
        return on_device(table_XH.to(kind), device)


def positions(count: int, like: Tensor) -> Tensor:
    """Sine and cosine of the places 0 .. count - 1, [count, H], of the width and type of `like` (section 3.5)."""
    room = 1 << (count - 1).bit_length()  # few tables serve all lengths
    return _sinusoids(room, like.shape[-1], like.device, like.dtype)[:count]


@dataclass(frozen=True)
class Places:
    """Vectors that stand in `rows` rows of `columns` places, the first of which has the number `first`.

    On a CPU all that looks at one place alone is computed for the N real places only: `real_N` are these in the flattened rows.
    Without it all are computed; no real place ever asks one that is not.
    """

    rows: int
    columns: int
    real_N: Tensor | None = None
    first: int = 0

    @classmethod
    def of(cls, mask_BX: Tensor) -> Places:
        """The places where a mask is True."""
        real_N = None if all_rows(mask_BX.device) else mask_BX.flatten().nonzero().squeeze(1)
        rows, columns = mask_BX.shape
        return cls(rows, columns, None if real_N is None or len(real_N) == mask_BX.numel() else real_N)

    def lay(self, vectors_NX: Tensor) -> Tensor:
        """Vectors in their rows, zeros between them, [rows, columns, X]."""
        if self.real_N is not None:
            room = vectors_NX.new_zeros(self.rows * self.columns, vectors_NX.shape[-1])
            vectors_NX = room.index_copy(0, self.real_N, vectors_NX)
        return vectors_NX.view(self.rows, self.columns, -1)

    def take(self, laid: Tensor) -> Tensor:
        """The computed ones of what stands in rows, [N, ..]."""
        flat = laid.flatten(0, 1)
        return flat if self.real_N is None else flat.index_select(0, self.real_N)

    def number(self, x_NH: Tensor) -> Tensor:
        """Vectors, each with the sinusoids of its place added."""
        table_XH = positions(self.first + self.columns, x_NH)[self.first :]
        if self.real_N is None:
            return (x_NH.view(self.rows, self.columns, -1) + table_XH).flatten(0, 1)
        return x_NH + table_XH.index_select(0, self.real_N % self.columns)


def attend(
    query_BXA: Tensor, keys_BYA: Tensor, values_BYA: Tensor, closed: Tensor | None, heads: int
) -> tuple[Tensor, Tensor]:
    """softmax(Q K^T / sqrt(d_k)) V in every head (eq. 1), [B, X, A], and the weights [B, J, X, Y].

    `closed` is True where a place may not be asked, in a shape that spreads to the weights', which are exactly 0 there.
    """
    query, keys, values = (
        part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (query_BXA, keys_BYA, values_BYA)
    )
    score_BJXY = query * query.shape[-1] ** -0.5 @ keys.transpose(2, 3)
    if closed is not None:
        score_BJXY = score_BJXY.masked_fill(closed, torch.finfo(score_BJXY.dtype).min)
    weight_BJXY = torch.softmax(score_BJXY, -1)
    return (weight_BJXY.to(values.dtype) @ values).transpose(1, 2).flatten(2), weight_BJXY


def projection(inputs: int, outputs: int, parts: int = 1) -> nn.Linear:
    """`parts` linear layers side by side, each drawn by itself (Glorot and Bengio 2010), without a bias at the start."""
    layer = nn.Linear(inputs, parts * outputs)
    for weight in layer.weight.chunk(parts):
        nn.init.xavier_uniform_(weight)
    nn.init.zeros_(layer.bias)
    return layer


class Residual(nn.Module):
    """What surrounds a sub-layer f: LayerNorm(x + f(x)) as printed (section 5.4 for dropout), or x + f(LayerNorm(x)).

    The second trains without a warm-up of the learning rate (Xiong et al., ICML 2020).
    """

    def __init__(self, width: int, dropout: float, before: bool) -> None:
        super().__init__()
        self.norm, self.dropout, self.before = nn.LayerNorm(width), nn.Dropout(dropout), before

    def enter(self, x_NH: Tensor) -> Tensor:
        """What the sub-layer reads."""
        return self.norm(x_NH) if self.before else x_NH

    def leave(self, x_NH: Tensor, found_NH: Tensor) -> Tensor:
        """What goes on, from what came in and what the sub-layer found."""
        x_NH = x_NH + self.dropout(found_NH)
        return x_NH if self.before else self.norm(x_NH)


class Feed(nn.Module):
    """max(0, x W_1 + b_1) W_2 + b_2 at every place (eq. 2)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.inner, self.outer = projection(width, inner), projection(inner, width)

    def forward(self, x_NH: Tensor) -> Tensor:
        return self.outer(functional.relu(self.inner(x_NH)))


@dataclass(frozen=True)
class Sizes:
    """`width` of the model, `heads` of an attention, `inner` width of the feed-forward layers, and what surrounds a sub-layer."""

    width: int
    heads: int
    inner: int
    dropout: float
    before: bool

    @property
    def attention(self) -> int:
        """A: d_k = d_v = width / heads of the paper, rounded up, in every head."""
        return self.heads * -(-self.width // self.heads)

    def residual(self) -> Residual:
        return Residual(self.width, self.dropout, self.before)


class SelfAttention(nn.Module):
    """Places of one sequence ask each other (section 3.2.3)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads, self.attention = sizes.heads, sizes.attention
        self.told = projection(sizes.width, sizes.attention, parts=3)
        self.join = projection(sizes.attention, sizes.width)

    def forward(
        self, x_NH: Tensor, places: Places, closed: Tensor | None, past_BY2A: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What each place found, [N, H], and keys beside values of all so far, those of the `past` first, [B, Y, 2A]."""
        query_BXA, own_BX2A = places.lay(self.told(x_NH)).split([self.attention, 2 * self.attention], -1)
        own_BY2A = own_BX2A if past_BY2A is None else torch.cat([past_BY2A, own_BX2A], 1)
        keys_BYA, values_BYA = own_BY2A.chunk(2, -1)
        mixed_BXA, _ = attend(query_BXA, keys_BYA, values_BYA, closed, self.heads)
        return self.join(places.take(mixed_BXA)), own_BY2A


class EncoderLayer(nn.Module):
    """Frames look at each other, then a feed-forward layer at each of them (section 3.1)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.attention, self.feed = SelfAttention(sizes), Feed(sizes.width, sizes.inner)
        self.around_attention, self.around_feed = sizes.residual(), sizes.residual()

    def forward(self, x_NH: Tensor, places: Places, closed: Tensor) -> Tensor:
        found_NH, _ = self.attention(self.around_attention.enter(x_NH), places, closed)
        x_NH = self.around_attention.leave(x_NH, found_NH)
        return self.around_feed.leave(x_NH, self.feed(self.around_feed.enter(x_NH)))


class DecoderLayer(nn.Module):
    """Words look at the words before them, then at the frames, then a feed-forward layer at each of them (section 3.1)."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.heads = sizes.heads
        self.attention, self.feed = SelfAttention(sizes), Feed(sizes.width, sizes.inner)
        self.query = projection(sizes.width, sizes.attention)
        self.frames = projection(sizes.width, sizes.attention, parts=2)  # keys and values, once for each clip
        self.join = projection(sizes.attention, sizes.width)
        self.around_attention, self.around_frames, self.around_feed = (sizes.residual() for _ in range(3))

    def forward(
        self,
        x_NH: Tensor,
        words: Places,
        later: Tensor | None,
        past_BY2A: Tensor | None,
        frames_BT2A: Tensor,
        closed_B11T: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """States [N, H], keys and values of all words so far [B, Y, 2A], weights of frames [B, J, X, T]."""
        found_NH, own_BY2A = self.attention(self.around_attention.enter(x_NH), words, later, past_BY2A)
        x_NH = self.around_attention.leave(x_NH, found_NH)
        query_BXA = words.lay(self.query(self.around_frames.enter(x_NH)))
        keys_BTA, values_BTA = frames_BT2A.chunk(2, -1)
        mixed_BXA, weight_BJXT = attend(query_BXA, keys_BTA, values_BTA, closed_B11T, self.heads)
        x_NH = self.around_frames.leave(x_NH, self.join(words.take(mixed_BXA)))
        x_NH = self.around_feed.leave(x_NH, self.feed(self.around_feed.enter(x_NH)))
        return x_NH, own_BY2A, weight_BJXT


class Transformer(FrameCaptioner):
    """Encoder and decoder of `layers` layers each.

    A state is the last word's vector under the output layer, then keys beside values of all words so far for each layer: one word
    further is computed for itself alone. A caption that is known is read at once, later words closed to earlier ones. The weights
    that are told are the last layer's, the mean over its heads.
    """

    def __init__(
        self,
        words: int,
        frame_width: int,
        width: int,
        dropout: float,
        normalise: bool,
        layers: int = 1,
        heads: int = 8,
        expansion: int = 4,
        norm: str = "before",
    ) -> None:
        super().__init__(words, frame_width, width, width, dropout, normalise)
        sizes = Sizes(width, heads, expansion * width, dropout, norm == "before")
        self.project = projection(frame_width, width)
        self.encoder = nn.ModuleList(EncoderLayer(sizes) for _ in range(layers))
        self.decoder = nn.ModuleList(DecoderLayer(sizes) for _ in range(layers))
        # Behind layers that normalise before their sub-layers nothing is normalised yet.
        self.encoded, self.decoded = (nn.LayerNorm(width) if sizes.before else nn.Identity() for _ in range(2))

    def encode(self, batch: Batch) -> Memory:
        values_CTD, mask_CT = self.frames(batch)
        frames, closed_C11T = Places.of(mask_CT), ~mask_CT[:, None, None]
        x_NH = self.dropout(frames.number(self.project(frames.take(values_CTD))))
        for layer in self.encoder:
            x_NH = layer(x_NH, frames, closed_C11T)
        x_NH = self.encoded(x_NH)
        asked = {
            f"frames{number}": frames.lay(layer.get_submodule("frames")(x_NH))
            for number, layer in enumerate(self.decoder)
        }
        return {**asked, "closed": closed_C11T}

    def start(self, memory: Memory) -> State:
        rows = memory["frames0"]
        nothing = rows.new_zeros(len(rows), 0, rows.shape[-1])
        return (rows.new_zeros(len(rows), self.width), *(nothing for _ in self.decoder))

    def step(self, words_B: Tensor, state: State, memory: Memory) -> tuple[Tensor, State, Tensor]:
        _, *past = state
        x_BH, after, weight_BJ1T = self._decode(
            words_B, Places(len(words_B), 1, first=past[0].shape[1]), None, past, memory
        )
        return x_BH, (x_BH, *after), weight_BJ1T.mean(1).squeeze(1)

    def read(self, words_BW: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """What `step` gives for each word of captions that are known: see `bench.nn.decoding.ParallelCaptioner`."""
        words = Places.of(words_BW != PAD)
        later_WW = torch.ones(words.columns, words.columns, dtype=torch.bool, device=words_BW.device).triu(1)
        nothing = [None] * len(self.decoder)
        x_NH, _, weight_BJWT = self._decode(words.take(words_BW), words, later_WW, nothing, memory)
        x_BWH = words.lay(x_NH)
        return x_BWH, x_BWH, weight_BJWT.mean(1)

    def _decode(
        self, words_N: Tensor, words: Places, later: Tensor | None, past: Sequence[Tensor | None], memory: Memory
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        """Vectors under the output layer [N, H], keys and values of each layer, the last one's weights of frames [B, J, X, T]."""
        x_NH = self.dropout(words.number(self.embedding(words_N) * self.width**0.5))  # section 3.4
        after = []
        for number, (layer, before) in enumerate(zip(self.decoder, past, strict=True)):
            x_NH, own, weight_BJXT = layer(x_NH, words, later, before, memory[f"frames{number}"], memory["closed"])
            after.append(own)
        return self.decoded(x_NH), after, weight_BJXT

    def logits(self, features_NR: Tensor) -> Tensor:
        """Dropout has come before: behind the sub-layers, not before the output layer."""
        return self.output(features_NR)
