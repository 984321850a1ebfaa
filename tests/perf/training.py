"""Captions per second of a training step: the engine against the published way, and against the machine's matrix products.

One step is loss, backward, clipping and Adam over one batch of MSVD's shape: 28 x 1536 features, 12,000 words, captions of
seven words in the mean. One warm-up, median of five; the ways take turns, so that a busy moment meets them all. The products of
a step are counted by torch and set against the rate of a large square product measured in the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.method import Batch
from bench.nn.captioners import SoftAttention
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.nn.transformer import Transformer
from methods.glrg.model import GLRG, Decoder
from methods.hail.model import HierarchicalAttention
from methods.recnet import RecNet
from methods.recnet.model import Reconstructor
from methods.vre.encoder import Encoder
from methods.vre.model import VRE
from methods.vre.model import Decoder as TwoStepDecoder
from tests.perf.generated import GLRG as GLRG_STREAMS
from tests.perf.generated import HAIL as HAIL_STREAMS
from tests.perf.generated import MSVD, WORDS, batch
from tests.perf.generated import VRE as VRE_STREAMS
from tests.perf.plain import PlainGLRG, PlainHAIL, PlainRecNetLocal, PlainSoftAttention, PlainVRE
from tests.perf.rows import Row
from tests.perf.timing import REPEATS, operations, product_rate, seconds

WIDTH = 512


@dataclass(frozen=True)
class Pair:
    """The engine's module and the plain one with the same weights, their losses, and the streams of a batch."""

    engine: nn.Module
    loss: Callable[[Batch], Tensor]
    plain: nn.Module
    streams: Mapping[str, tuple[int, ...]]


def soft_attention(width: int = WIDTH, words: int = WORDS, frames: int = 1536) -> SoftAttention:
    return SoftAttention(words, frames, width, width, 0.0, False, width)


def salstm(width: int = WIDTH, words: int = WORDS, streams: Mapping[str, tuple[int, ...]] = MSVD) -> Pair:
    engine = soft_attention(width, words, streams["frames"][1])
    return Pair(
        engine,
        lambda one: cross_entropy(word_losses(engine, teacher_forcing(engine, one))),
        PlainSoftAttention(engine),
        streams,
    )


def recnet(width: int = WIDTH, words: int = WORDS, streams: Mapping[str, tuple[int, ...]] = MSVD) -> Pair:
    frames = streams["frames"][1]
    engine = RecNet(
        soft_attention(width, words, frames), Reconstructor("local", width, frames, width, "l2"), weight=0.1
    )
    return Pair(engine, lambda one: engine.losses(one, 0.0)["loss"], PlainRecNetLocal(engine), streams)


def glrg(width: int = WIDTH, words: int = WORDS, streams: Mapping[str, tuple[int, ...]] = GLRG_STREAMS) -> Pair:
    sizes = {name: shape[0] for name, shape in streams.items()}
    engine = GLRG(Decoder(words, sizes, width, width, 0.0, True, "every"), None)
    # Output layers of both without bias: eq. 7 has none.
    return Pair(
        engine,
        lambda one: cross_entropy(word_losses(engine, teacher_forcing(engine, one))),
        PlainGLRG(engine),
        streams,
    )


def hail(width: int = WIDTH, words: int = WORDS, streams: Mapping[str, tuple[int, ...]] = HAIL_STREAMS) -> Pair:
    widths = {name: shape[-1] for name, shape in streams.items()}
    engine = HierarchicalAttention(words, widths, "hierarchical", width, width, width, 0.0, False)
    return Pair(
        engine,
        lambda one: cross_entropy(word_losses(engine, teacher_forcing(engine, one))),
        PlainHAIL(engine),
        streams,
    )


def vre(
    width: int = WIDTH,
    words: int = WORDS,
    streams: Mapping[str, tuple[int, ...]] = VRE_STREAMS,
    captions: int = 64,
) -> Pair:
    """The joint phase with the card's defaults. `captions` is the most that a batch may hold: R is remembered for each."""
    frames, spatial = streams["frames"][1], streams["spatial"][1]
    audio = streams["audio"][0] if "audio" in streams else 0
    engine = VRE(
        {},
        Encoder(frames, audio, width, width, passes=2),
        TwoStepDecoder(words, frames, spatial, audio, width, width, width, 0.0, encoded=True),
    )
    engine.rewards.open(f"caption{number}" for number in range(captions))
    weight = 0.03
    return Pair(
        engine,
        lambda one: engine.joint_losses(one, 0.0, weight, "corrected", "same")["loss"],
        PlainVRE(engine, weight),
        streams,
    )


PAIRS: dict[str, Callable[[], Pair]] = {
    "salstm": salstm,
    "recnet:local": recnet,
    "glrg": glrg,
    "hail": hail,
    "vre": vre,
}


BARS: dict[str, tuple[dict[str, float], float | None]] = {
    "salstm": ({"fp32": 8, "bf16": 15}, 50),
    "recnet:local": ({"fp32": 8, "bf16": 15}, 50),
    "glrg": ({}, 50),  # no attention to save
    "hail": ({"fp32": 5}, None),
    "vre": ({"fp32": 5}, None),
}
"""Least ratios by precision, and the least share of the product rate in percent."""
SLOW, SLOW_REPEATS = ("hail", "vre"), 3  # their published way takes about ten seconds a step


def step_of(module: nn.Module, loss: Callable[[Batch], Tensor], one: Batch, low: bool = False) -> Callable[[], float]:
    """One training step on `one`, as often as it is called; returns the loss."""
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=5e-4, fused=True)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            value = loss(one)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimizer.step()
        return value.item()

    return step


def rows(threads: int, captions: int = 64) -> list[Row]:
    """Every method that has a plain reference against it, in fp32 and bfloat16, and its share of the product rate."""
    found = []
    rates = {"fp32": product_rate(), "bf16": product_rate(low=True)}
    for name, make in PAIRS.items():
        torch.manual_seed(0)
        pair = make()
        one = batch(pair.streams, captions)
        steps = {
            "plain": step_of(pair.plain, pair.plain.loss, one),  # type: ignore[arg-type]
            "fp32": step_of(pair.engine, pair.loss, one),
            "bf16": step_of(pair.engine, pair.loss, one, low=True),
        }
        taken = seconds(steps, SLOW_REPEATS if name in SLOW else REPEATS)
        work = operations(steps["fp32"])
        per_second = {way: captions / value for way, value in taken.items()}
        ratio_bars, share_bar = BARS[name]
        for way, rate in rates.items():
            ratio = taken["plain"] / taken[way]
            behind = {"plain captions/s": per_second["plain"], "engine captions/s": per_second[way]}
            found.append(Row(f"{name} step, {way}", "the published way", ratio, ratio_bars.get(way), details=behind))
            share = 100 * work / taken[way] / rate
            detail = {"GFLOP a step": work / 1e9, "product GFLOP/s": rate / 1e9}
            bar = share_bar if way == "fp32" else None
            found.append(Row(f"{name} step, {way}", "the product rate", share, bar, "%", details=detail))
    return [*found, transformer_row(captions)]


def transformer_row(captions: int) -> Row:
    """A step of a Transformer against one of SA-LSTM, the same width and batch: words read at once pay for its layers."""
    torch.manual_seed(0)
    one, engines = batch(MSVD, captions), (soft_attention(), Transformer(WORDS, MSVD["frames"][1], WIDTH, 0.0, False))
    taken = seconds(
        {
            type(engine).__name__: step_of(
                engine, lambda one, e=engine: cross_entropy(word_losses(e, teacher_forcing(e, one))), one
            )
            for engine in engines
        }
    )
    before, now = taken.values()
    behind = {f"{name} captions/s": captions / value for name, value in taken.items()}
    return Row("transformer step, fp32", "salstm", before / now, 1, details=behind)
