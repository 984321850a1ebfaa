"""Captions per second of a training step: the engine against the published way, and against the machine's matrix products.

    python -m tests.perf.training [--threads 2] [--captions 64]

One step is loss, backward, clipping and Adam over one batch of MSVD's shape: 28 x 1536 features, 12,000 words, captions of
seven words in the mean. One warm-up, median of five; the ways take turns, so that a busy moment meets them all. The products of
a step are counted by torch and set against the rate of a large square product measured in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.method import Batch
from bench.nn.captioners import SoftAttention
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from methods.glrg.model import GLRG, Decoder
from methods.recnet import RecNet
from methods.recnet.model import Reconstructor
from tests.perf.generated import GLRG as GLRG_STREAMS
from tests.perf.generated import MSVD, WORDS, batch
from tests.perf.plain import PlainGLRG, PlainRecNetLocal, PlainSoftAttention

REPEATS = 5
WIDTH = 512
SQUARE = 2048  # side of the matrices whose product tells the machine's rate


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


PAIRS: dict[str, Callable[[], Pair]] = {"salstm": salstm, "recnet:local": recnet, "glrg": glrg}


def step_of(module: nn.Module, loss: Callable[[Batch], Tensor], one: Batch, low: bool = False) -> Callable[[], float]:
    """One training step on `one`, as often as it is called; returns the loss."""
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=5e-4)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            value = loss(one)
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 5.0)
        optimizer.step()
        return value.item()

    return step


def seconds(steps: Mapping[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """Median seconds of each, one warm-up before, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(repeats + 1):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            if round_:
                taken[name].append(time.perf_counter() - begun)
    return {name: statistics.median(times) for name, times in taken.items()}


def product_rate(low: bool) -> float:
    """Floating-point operations per second of a large square product."""
    kind = torch.bfloat16 if low else torch.float32
    a, b = torch.randn(SQUARE, SQUARE, dtype=kind), torch.randn(SQUARE, SQUARE, dtype=kind)
    return 2 * SQUARE**3 / seconds({"product": lambda: a @ b})["product"]


def operations(step: Callable[[], object]) -> int:
    """Floating-point operations of the products of one step."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def measure(name: str, captions: int) -> dict[str, float]:
    """The figures of one method: captions per second of each way, ratios, shares of the product rate."""
    torch.manual_seed(0)
    pair = PAIRS[name]()
    one = batch(pair.streams, captions)
    steps = {
        "plain": step_of(pair.plain, pair.plain.loss, one),  # type: ignore[arg-type]
        "fp32": step_of(pair.engine, pair.loss, one),
        "bf16": step_of(pair.engine, pair.loss, one, low=True),
    }
    taken = seconds(steps)
    rates = {"fp32": product_rate(False), "bf16": product_rate(True)}
    work = operations(steps["fp32"])
    return {
        **{f"{way}_captions_per_second": captions / value for way, value in taken.items()},
        **{f"{way}_ratio": taken["plain"] / taken[way] for way in rates},
        **{f"{way}_share_of_product_rate": work / taken[way] / rates[way] for way in rates},
        **{f"{way}_product_gflops": rate / 1e9 for way, rate in rates.items()},
        "step_gflop": work / 1e9,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="training steps of the engine against the published way")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--captions", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for name in PAIRS:
        found = measure(name, given.captions)
        print(name, ", ".join(f"{key} {value:.3g}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
