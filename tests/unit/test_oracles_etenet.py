"""EtENet against its equations 3-20."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import etenet
from oracles.arithmetic import Vector, caption_loss
from support import assert_gradient_of, captions_of, gradcheck_module, make_clips, one_batch, real_steps, shake
from symbols import Numbers, numbers
from torch import Tensor
from torch.nn import functional

from bench.method import PAD, Batch
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from methods.etenet.model import EtENetDecoder, doubly_stochastic

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
WORDS, FRAME, WIDTH, EMBEDDING, ATTENTION = 11, 5, 4, 3, 6
WEIGHT = 0.70602  # lambda of eq. 20


def made(dtype: torch.dtype = torch.float64, normalise: bool = False) -> EtENetDecoder:
    decoder = EtENetDecoder(WORDS, FRAME, WIDTH, EMBEDDING, ATTENTION, 0.0, normalise).to(dtype)
    shake(decoder)
    return decoder


def of_decoder(decoder: EtENetDecoder) -> Numbers:
    """The paper's LSTM has an input and a hidden bias per gate, and its attention a scalar b_a: ours are the sum and none."""
    found = {
        "E": numbers(decoder.embedding.weight),
        "W_a": numbers(decoder.attention.score.weight[0]),
        "W_ev": numbers(decoder.attention.key.weight),
        "W_eh": numbers(decoder.attention.query.weight),
        "b_e": numbers(decoder.attention.key.bias),
        "b_a": np.array(0.37),
        "W_beta": numbers(decoder.gate.weight),
        "b_beta": numbers(decoder.gate.bias),
        "W_u": numbers(decoder.mix.weight),
        "b_u": numbers(decoder.mix.bias),
        "W_p": numbers(decoder.output.weight),
        "b_p": numbers(decoder.output.bias),
        "W_h": numbers(decoder.initial_hidden.weight),
        "b_h": numbers(decoder.initial_hidden.bias),
        "W_c": numbers(decoder.initial_cell.weight),
        "b_c": numbers(decoder.initial_cell.bias),
    }
    cell = decoder.cell
    assert cell.bias is not None
    for number, gate in enumerate("ifgo"):
        rows = slice(number * WIDTH, (number + 1) * WIDTH)
        bias = numbers(cell.bias[rows])
        found[f"W_i{gate}"] = np.concatenate([numbers(cell.weights[part][rows]) for part in ("video", "word")], 1)
        found[f"W_h{gate}"] = numbers(cell.recurrent[rows])
        found[f"b_i{gate}"], found[f"b_h{gate}"] = bias + 0.25, np.full_like(bias, -0.25)
    return found


def frames_of(decoder: EtENetDecoder, batch: Batch, clip: int) -> list[Vector]:
    frames = real_steps(batch, "frames", clip)
    if decoder.norm is None:
        return frames
    return [(v - numbers(decoder.norm.mean)) * numbers(decoder.norm.scale) for v in frames]


def oracle(decoder: EtENetDecoder, batch: Batch) -> tuple[float, float]:
    """(L_NLL, L_DSA), each a mean over captions."""
    caption, spread = [], []
    for _, clip, words in captions_of(batch):
        logits, alphas, _ = etenet.decode(of_decoder(decoder), frames_of(decoder, batch, clip), words)
        caption.append(caption_loss(logits, words))
        spread.append(etenet.doubly_stochastic(alphas))
    return float(np.mean(caption)), float(np.mean(spread))


def losses(decoder: EtENetDecoder, batch: Batch) -> tuple[Tensor, Tensor]:
    forced = teacher_forcing(decoder, batch)
    assert forced.attention_BWT is not None
    spread = doubly_stochastic(forced.attention_BWT, batch.masks["frames"][batch.clip_of_B])
    return cross_entropy(word_losses(decoder, forced)), spread


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "normalised"])
def test_decoder_is_equations_3_to_17(normalise: bool, dtype: torch.dtype) -> None:
    batch = one_batch(make_clips(garbage=1e3), dtype)
    decoder = made(dtype, normalise)
    if decoder.norm is not None:
        decoder.norm.fit([(batch.streams["frames"], batch.masks["frames"])])
    forced = teacher_forcing(decoder, batch)
    assert forced.attention_BWT is not None
    close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    for row, clip, words in captions_of(batch):
        frames = frames_of(decoder, batch, clip)
        logits, alphas, hidden = etenet.decode(of_decoder(decoder), frames, words)
        real = slice(0, len(words) + 1)
        np.testing.assert_allclose(numbers(decoder.logits(forced.features_BWR[row, real])), np.array(logits), **close)
        np.testing.assert_allclose(numbers(forced.attention_BWT[row, real, : len(frames)]), np.array(alphas), **close)
        np.testing.assert_allclose(numbers(forced.hidden_BWH[row, real]), np.array(hidden), **close)
    caption, spread = losses(decoder, batch)
    assert [caption.item(), spread.item()] == pytest.approx(oracle(decoder, batch), rel=TOLERANCE[dtype])


def test_gradient_is_the_slope_of_equation_20() -> None:
    batch = one_batch(make_clips((3, 2), ((2, 1), (3,)), {"frames": (3, FRAME)}, garbage=1e3), torch.float64)
    decoder = made()

    def total() -> Tensor:
        caption, spread = losses(decoder, batch)
        return caption + WEIGHT * spread

    def printed() -> float:
        caption, spread = oracle(decoder, batch)
        return caption + WEIGHT * spread

    assert_gradient_of(decoder, total, printed)


def test_gradcheck() -> None:
    batch = one_batch(make_clips((2, 1), ((2,), (1, 0)), {"frames": (2, FRAME)}), torch.float64)
    decoder = made()

    def compute(frames: Tensor) -> Tensor:
        batch.streams["frames"] = frames
        return torch.stack(losses(decoder, batch))

    assert gradcheck_module(decoder, compute, batch.streams["frames"].clone())


def test_doubly_stochastic_by_hand() -> None:
    """Two words, two frames: (1 - 0.7)^2 and (1 - 1.3)^2, and a caption whose second frame is padding."""
    attention = torch.tensor([[[0.5, 0.5], [0.2, 0.8]], [[1.0, 0.0], [0.0, 0.0]]])
    frames = torch.tensor([[True, True], [True, False]])
    assert doubly_stochastic(attention, frames).item() == pytest.approx((0.09 + 0.0) / 2)


def test_even_attention_over_as_many_words_as_frames_costs_nothing() -> None:
    assert doubly_stochastic(torch.full((1, 4, 4), 0.25), torch.ones(1, 4, dtype=torch.bool)).item() == 0


@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "normalised"])
def test_padding_changes_nothing(normalise: bool) -> None:
    def found(garbage: float, pad: int) -> list[Tensor]:
        batch = one_batch(make_clips(garbage=garbage))
        batch.words_BW = functional.pad(batch.words_BW, (0, pad), value=PAD)
        decoder = made(torch.float32, normalise)
        if decoder.norm is not None:
            decoder.norm.fit([(batch.streams["frames"], batch.masks["frames"])])
        return list(losses(decoder, batch))

    for quiet, loud in zip(found(0.0, 0), found(1e3, 2), strict=True):
        assert torch.equal(quiet, loud)


def test_shapes_are_the_papers() -> None:
    """z_t in R^2022 (eq. 7), W_u in R^{486 x 2048} (eq. 14), a gate that is one number (eq. 5)."""
    decoder = EtENetDecoder(30, 1536, 512, 486, 512, 0.0, False)
    assert sum(weight.shape[1] for weight in decoder.cell.weights.values()) == 2022
    assert decoder.mix.weight.shape == (486, 2048)
    assert decoder.gate.weight.shape == (1, 512)
