"""Parameters of the modules under the symbols of the papers, as float64 arrays for the oracles."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.nn.attention import AdditiveAttention
from bench.nn.captioners import S2VT, FrameCaptioner, MeanPool, SoftAttention
from bench.nn.layers import SplitLSTMCell
from bench.nn.transformer import DecoderLayer, EncoderLayer, Feed, SelfAttention, Transformer

Numbers = dict[str, NDArray[np.float64]]


def numbers(value: Tensor | nn.Parameter) -> NDArray[np.float64]:
    return value.detach().double().numpy()


def of_cell(cell: SplitLSTMCell, *parts: str) -> Numbers:
    """T and b of each gate over [parts .. ; h]; the module stacks its gates as input, forget, cell, output."""
    joined = np.concatenate([*(numbers(cell.weights[part]) for part in parts), numbers(cell.recurrent)], axis=1)
    bias = np.zeros(len(joined)) if cell.bias is None else numbers(cell.bias)
    found = {}
    for gate, rows, offsets in zip("ifgo", np.split(joined, 4), np.split(bias, 4), strict=True):
        found |= {f"T_{gate}": rows, f"b_{gate}": offsets}
    return found


def of_attention(attention: AdditiveAttention, names: tuple[str, str, str, str]) -> Numbers:
    """Score vector, value map, query map, bias under `names`."""
    parts = (attention.score.weight[0], attention.key.weight, attention.query.weight, attention.key.bias)
    return dict(zip(names, map(numbers, parts), strict=True))


def of_frame_captioner(captioner: FrameCaptioner) -> Numbers:
    return {
        "E": numbers(captioner.embedding.weight),
        "W_x": numbers(captioner.output.weight),
        "b_x": numbers(captioner.output.bias),
    }


def of_soft_attention(captioner: SoftAttention) -> Numbers:
    return {
        **of_frame_captioner(captioner),
        **of_attention(captioner.attention, ("w_a", "W_v", "W_h", "b_d")),
        **of_cell(captioner.cell, "word", "context"),
    }


def of_mean_pool(captioner: MeanPool) -> tuple[Numbers, list[Numbers]]:
    """Parameters, and those of each layer from the lowest."""
    layers = [of_cell(captioner.first, "word", "clip"), *(of_cell(cell, "below") for cell in captioner.above)]
    return of_frame_captioner(captioner), layers


def of_s2vt(captioner: S2VT) -> tuple[Numbers, Numbers, Numbers]:
    """Parameters, those of the lower LSTM, those of the upper one."""
    own = of_frame_captioner(captioner)
    own |= {"W_s": numbers(captioner.project.weight), "b_s": numbers(captioner.project.bias)}
    return own, of_cell(captioner.lower, "frame"), of_cell(captioner.upper, "below", "word")


def of_linear(layer: nn.Linear, *names: str) -> Numbers:
    """W and b of linear layers that stand side by side in one."""
    weights, biases = (np.split(numbers(value), len(names)) for value in (layer.weight, layer.bias))
    parts = zip(names, weights, biases, strict=True)
    return {symbol: value for name, w, b in parts for symbol, value in ((f"W_{name}", w), (f"b_{name}", b))}


def of_norm(norm: nn.LayerNorm | nn.Identity) -> Numbers:
    return {"g": numbers(norm.weight), "b": numbers(norm.bias)} if isinstance(norm, nn.LayerNorm) else {}


def of_layer(layer: EncoderLayer | DecoderLayer, before: bool) -> dict[str, Any]:
    def attention(own: SelfAttention) -> Numbers:
        return {**of_linear(own.told, "q", "k", "v"), **of_linear(own.join, "o")}

    def feed(own: Feed) -> Numbers:
        return {**of_linear(own.inner, "1"), **of_linear(own.outer, "2")}

    found = {
        "before": before,
        "self": attention(layer.attention),
        "norm_self": of_norm(layer.around_attention.norm),
        "feed": feed(layer.feed),
        "norm_feed": of_norm(layer.around_feed.norm),
    }
    if isinstance(layer, DecoderLayer):
        frames = {**of_linear(layer.query, "q"), **of_linear(layer.frames, "k", "v"), **of_linear(layer.join, "o")}
        found |= {"frames": frames, "norm_frames": of_norm(layer.around_frames.norm)}
    return found


def of_transformer(captioner: Transformer) -> dict[str, Any]:
    before = isinstance(captioner.encoded, nn.LayerNorm)
    return {
        **of_frame_captioner(captioner),
        **of_linear(captioner.project, "s"),
        "before": before,
        "encoder": [of_layer(layer, before) for layer in captioner.encoder],
        "norm_encoder": of_norm(captioner.encoded),
        "decoder": [of_layer(layer, before) for layer in captioner.decoder],
        "norm_decoder": of_norm(captioner.decoded),
    }
