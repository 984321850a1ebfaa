"""`bench.nn` against the oracles: attention, LSTM, base captioners, word losses, deferred gradients, masks."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from oracles import bases, recnet, transformer
from oracles.arithmetic import Vector, affine, caption_loss, lstm, tanh
from support import assert_gradient_of, captions_of, gradcheck_module, make_clips, one_batch, real_steps, shake
from symbols import numbers, of_attention, of_cell, of_mean_pool, of_s2vt, of_soft_attention, of_transformer
from torch import Tensor, nn
from torch.nn import functional

from bench.method import PAD, Batch
from bench.nn.attention import AdditiveAttention
from bench.nn.captioners import S2VT, FrameCaptioner, MeanPool, SoftAttention
from bench.nn.decoding import WordEmbedding, cross_entropy, expand, teacher_forcing, word_losses
from bench.nn.deferred import deferred_weight_gradients, first_rows, lookup, product, weighted_sum
from bench.nn.layers import FeatureNorm, SplitLSTMCell, masked_mean
from bench.nn.transformer import Transformer

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
DTYPES = [torch.float64, torch.float32]
WORDS, FRAME, WIDTH, EMBEDDING, ATTENTION = 11, 5, 4, 3, 6
LAYERS, HEADS = 2, 3  # heads that do not divide the width


def close(own: Tensor, expected: object, dtype: torch.dtype) -> None:
    torch.testing.assert_close(
        own.double(),
        torch.as_tensor(np.array(expected), dtype=torch.float64),
        rtol=TOLERANCE[dtype],
        atol=TOLERANCE[dtype],
    )


def soft(normalise: bool = False, initial: str = "zeros") -> SoftAttention:
    return SoftAttention(WORDS, FRAME, WIDTH, EMBEDDING, 0.0, normalise, ATTENTION, initial)


def attending(normalise: bool, norm: str) -> Transformer:
    return Transformer(WORDS, FRAME, WIDTH, 0.0, normalise, LAYERS, HEADS, 2, norm)


MAKERS: dict[str, Callable[[bool], FrameCaptioner]] = {
    "mean_pool_1": lambda normalise: MeanPool(WORDS, FRAME, WIDTH, EMBEDDING, 0.0, normalise, 1),
    "mean_pool_2": lambda normalise: MeanPool(WORDS, FRAME, WIDTH, EMBEDDING, 0.0, normalise, 2),
    "mean_pool_3": lambda normalise: MeanPool(WORDS, FRAME, WIDTH, EMBEDDING, 0.0, normalise, 3),
    "soft_zeros": lambda normalise: soft(normalise),
    "soft_mean": lambda normalise: soft(normalise, "mean"),
    "s2vt": lambda normalise: S2VT(WORDS, FRAME, WIDTH, EMBEDDING, 0.0, normalise),
    "transformer": lambda normalise: attending(normalise, "before"),
    "transformer_printed": lambda normalise: attending(normalise, "after"),
}


def made(name: str, dtype: torch.dtype = torch.float64, normalise: bool = False) -> FrameCaptioner:
    captioner = MAKERS[name](normalise).to(dtype)
    shake(captioner)
    return captioner


def oracle_logits(captioner: FrameCaptioner, frames: list[Vector], words: list[int]) -> list[Vector]:
    if captioner.norm is not None:
        frames = [(frame - numbers(captioner.norm.mean)) * numbers(captioner.norm.scale) for frame in frames]
    if isinstance(captioner, MeanPool):
        return bases.mean_pool(*of_mean_pool(captioner), frames, words)
    if isinstance(captioner, S2VT):
        return bases.s2vt(*of_s2vt(captioner), frames, words)
    if isinstance(captioner, Transformer):
        return transformer.decode(of_transformer(captioner), HEADS, frames, words)[1]
    assert isinstance(captioner, SoftAttention)
    start = None
    if captioner.initial is not None:
        mean = sum(frames) / len(frames)
        both = tanh(affine(numbers(captioner.initial.weight), mean, numbers(captioner.initial.bias)))
        start = both[:WIDTH], both[WIDTH:]
    return recnet.decode(of_soft_attention(captioner), frames, words, start)[1]


def oracle_losses(captioner: FrameCaptioner, batch: Batch) -> list[float]:
    return [
        caption_loss(oracle_logits(captioner, real_steps(batch, "frames", clip), words), words)
        for _, clip, words in captions_of(batch)
    ]


# -- attention, cell, mean --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_is_equations_3_to_5(dtype: torch.dtype) -> None:
    attention = AdditiveAttention(FRAME, WIDTH, ATTENTION).to(dtype)
    shake(attention)
    values, query = torch.randn(3, 4, FRAME, dtype=dtype), torch.randn(3, WIDTH, dtype=dtype)
    lengths = [4, 1, 2]
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    context, weights = attention(query, attention.keys(values), values, mask)
    names = ("w_a", "W_v", "W_h", "b_d")
    for row, length in enumerate(lengths):
        real = list(numbers(values[row, :length]))
        expected, alpha = recnet.attend(of_attention(attention, names), real, numbers(query[row]), names)
        close(context[row], expected, dtype)
        close(weights[row, :length], alpha, dtype)
        assert (weights[row, length:] == 0).all()


def test_attention_gradients() -> None:
    attention = AdditiveAttention(3, 2, 4).double()
    shake(attention)
    mask = torch.tensor([[True, True, False], [True, True, True]])

    def compute(query: Tensor, values: Tensor) -> Tensor:
        context, weights = attention(query, attention.keys(values), values, mask)
        return torch.cat([context, weights[:, :2]], -1)

    query, values = torch.randn(2, 2, dtype=torch.float64), torch.randn(2, 3, 3, dtype=torch.float64)
    assert gradcheck_module(attention, compute, query, values, fast=False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_cell_is_the_lstm_of_recnet_eq_7(dtype: torch.dtype) -> None:
    cell = SplitLSTMCell({"a": 3, "b": 2}, WIDTH).to(dtype)
    shake(cell)
    a, b, h, c = (torch.randn(2, width, dtype=dtype) for width in (3, 2, WIDTH, WIDTH))
    hidden, memory = cell(cell.part("b", b, cell.part("a", a)), (h, c))
    for row in range(2):
        inputs = [numbers(a[row]), numbers(b[row])]
        expected = lstm(of_cell(cell, "a", "b"), inputs, numbers(h[row]), numbers(c[row]))
        close(hidden[row], expected[0], dtype)
        close(memory[row], expected[1], dtype)


def test_cell_is_pytorchs_cell() -> None:
    cell = SplitLSTMCell({"a": 3, "b": 2}, WIDTH).double()
    theirs = nn.LSTMCell(5, WIDTH).double()
    with torch.no_grad():
        theirs.weight_ih.copy_(torch.cat([cell.weights["a"], cell.weights["b"]], 1))
        theirs.weight_hh.copy_(cell.recurrent)
        theirs.bias_ih.copy_(cell.bias / 3)
        theirs.bias_hh.copy_(cell.bias * 2 / 3)
    x, h, c = (torch.randn(6, width, dtype=torch.float64) for width in (5, WIDTH, WIDTH))
    own = cell(cell.part("b", x[:, 3:], cell.part("a", x[:, :3])), (h, c))
    torch.testing.assert_close(own, theirs(x, (h, c)), rtol=1e-12, atol=1e-12)


def test_parts_of_a_cell_over_time_equal_parts_of_one_step() -> None:
    cell = SplitLSTMCell({"a": 3}, WIDTH).double()
    x, base = torch.randn(2, 5, 3, dtype=torch.float64), torch.randn(2, 5, 4 * WIDTH, dtype=torch.float64)
    whole = cell.part("a", x, base)
    for step in range(5):
        torch.testing.assert_close(whole[:, step], cell.part("a", x[:, step], base[:, step]), rtol=1e-12, atol=1e-12)


def test_cell_gradients_over_two_deferred_steps() -> None:
    cell = SplitLSTMCell({"a": 2}, 2).double()
    shake(cell)

    def compute(x: Tensor, h: Tensor, c: Tensor) -> Tensor:
        with deferred_weight_gradients():
            state = cell(cell.part("a", x), (h, c))
            state = cell(cell.part("a", x * 0.5), state)
        return torch.cat(state, -1)

    assert gradcheck_module(cell, compute, *(torch.randn(3, 2, dtype=torch.float64) for _ in range(3)), fast=False)


def test_masked_mean_is_over_real_steps_and_zero_without_any() -> None:
    values = torch.arange(12.0).view(3, 2, 2)
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    assert masked_mean(values, mask).tolist() == [[1.0, 2.0], [4.0, 5.0], [0.0, 0.0]]


# -- base captioners ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "normalised"])
@pytest.mark.parametrize("dtype", DTYPES, ids=["float64", "float32"])
@pytest.mark.parametrize("name", MAKERS)
def test_captioner_is_its_paper_word_by_word(name: str, dtype: torch.dtype, normalise: bool) -> None:
    clips = make_clips(garbage=1e3)
    batch = one_batch(clips, dtype)
    captioner = made(name, dtype, normalise)
    if captioner.norm is not None:
        captioner.norm.fit([(batch.streams["frames"], batch.masks["frames"])])
    forced = teacher_forcing(captioner, batch)
    losses = word_losses(captioner, forced)
    for row, clip, words in captions_of(batch):
        expected = oracle_logits(captioner, real_steps(batch, "frames", clip), words)
        close(captioner.logits(forced.features_BWR[row, : len(words) + 1]), expected, dtype)
        close(losses[row].sum(), caption_loss(expected, words), dtype)
        assert (losses[row, len(words) + 1 :] == 0).all()
    close(cross_entropy(losses), np.mean(oracle_losses(captioner, batch)), dtype)


@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-6)], ids=["float64", "float32"])
@pytest.mark.parametrize("name", ["transformer", "transformer_printed"])
def test_words_kept_from_step_to_step_are_words_read_at_once(name: str, dtype: torch.dtype, near: float) -> None:
    """Keys and values of the words so far are kept: states and weights of frames are those of a decoder that keeps none."""
    batch = one_batch(make_clips(garbage=1e3), dtype)
    captioner = made(name, dtype)
    assert isinstance(captioner, Transformer)
    for value in captioner.parameters():
        value.data *= 0.5  # states of the size that training leaves: rounding is relative
    forced = teacher_forcing(captioner, batch)
    memory = expand(captioner.encode(batch), batch.clip_of_B)
    state, kept = captioner.start(memory), []
    for words_B in batch.words_BW[:, :-1].unbind(1):
        features_BR, state, weights_BT = captioner.step(words_B, state, memory)
        assert state[0] is features_BR
        kept.append((features_BR, weights_BT))
    features_BWR, weights_BWT = (torch.stack(parts, 1) for parts in zip(*kept, strict=True))
    assert forced.attention_BWT is not None
    mask_BW = forced.mask_BW
    torch.testing.assert_close(features_BWR[mask_BW], forced.features_BWR[mask_BW], rtol=near, atol=near)
    torch.testing.assert_close(weights_BWT[mask_BW], forced.attention_BWT[mask_BW], rtol=near, atol=near)
    for row, clip, words in captions_of(batch):
        real = real_steps(batch, "frames", clip)
        states, _, alphas = transformer.decode(of_transformer(captioner), HEADS, real, words)
        close(features_BWR[row, : len(words) + 1], states, dtype)
        close(weights_BWT[row, : len(words) + 1, : len(real)], alphas, dtype)
        assert (weights_BWT[row, :, len(real) :] == 0).all(), "a frame that is padding has no weight at all"


@pytest.mark.parametrize("name", MAKERS)
def test_captioner_gradient_is_the_slope_of_its_paper(name: str) -> None:
    batch = one_batch(make_clips((3, 2), ((2, 1), (3,)), {"frames": (3, FRAME)}, garbage=1e3), torch.float64)
    captioner = made(name)
    assert_gradient_of(
        captioner,
        lambda: cross_entropy(word_losses(captioner, teacher_forcing(captioner, batch))),
        lambda: float(np.mean(oracle_losses(captioner, batch))),
    )


@pytest.mark.parametrize("name", MAKERS)
def test_captioner_passes_gradcheck(name: str) -> None:
    batch = one_batch(make_clips((2, 1), ((2,), (1, 0)), {"frames": (2, FRAME)}), torch.float64)
    captioner = made(name)

    def compute(frames: Tensor) -> Tensor:
        batch.streams["frames"] = frames
        return word_losses(captioner, teacher_forcing(captioner, batch)).sum(1)

    assert gradcheck_module(captioner, compute, batch.streams["frames"].clone())


def test_word_losses_are_the_sum_of_log_probabilities() -> None:
    """Against the equation with chosen logits, not with a model: three words, probabilities by hand."""
    clips = make_clips((1,), ((2,),), {"frames": (1, FRAME)})
    batch = one_batch(clips, torch.float64)
    captioner = made("soft_zeros")
    with torch.no_grad():
        captioner.output.weight.zero_()
        captioner.output.bias.zero_()
    losses = word_losses(captioner, teacher_forcing(captioner, batch))
    close(losses, np.full((1, 3), np.log(WORDS)), torch.float64)


def test_embedding_of_pad_is_zero_and_stays_zero() -> None:
    embedding = WordEmbedding(6, 3)
    embedding(torch.tensor([PAD, 4, 5])).square().sum().backward()
    assert (embedding.weight[PAD] == 0).all()
    assert embedding.weight.grad is not None
    assert (embedding.weight.grad[PAD] == 0).all()
    assert (embedding.weight.grad[4] != 0).all()


# -- deferred weight gradients ------------------------------------------------------------------------------------------


def test_deferred_gradients_equal_ordinary_ones() -> None:
    """Two weights in one loop, one of them used twice a step, row counts that shrink, a use outside the loop."""
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    first, second, start, steps = random(4, 4), random(4, 3), random(6, 4), random(5, 6, 3)

    def gradients(defer: bool) -> list[Tensor]:
        a, b, x, h = (value.clone().requires_grad_() for value in (first, second, steps, start))
        multiply = product if defer else ordinary
        state, seen = h, []
        with deferred_weight_gradients():
            for number, rows in enumerate((6, 6, 4, 2, 1)):
                state = torch.tanh(multiply(state[:rows], a, multiply(x[number, :rows], b)))
                state = state + torch.sin(multiply(state, a))
                seen.append(state.square().sum())
        loss = torch.stack(seen).sum() + functional.linear(h, a).square().sum()
        return list(torch.autograd.grad(loss, (a, b, x, h)))

    for deferred, plain in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(deferred, plain, rtol=1e-12, atol=1e-12)


def test_deferred_lookups_equal_ordinary_ones() -> None:
    """Words that come again, within a step and later; the padding word has no gradient; the table is used outside too."""
    table = torch.randn(5, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    words = [torch.tensor([1, 1, 4]), torch.tensor([4, PAD]), torch.tensor([2])]

    def gradient(look: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        weight = table.clone().requires_grad_()
        with deferred_weight_gradients():
            seen = [look(some, weight).pow(3).sum() for some in words]
        (found,) = torch.autograd.grad(torch.stack(seen).sum() + weight.square().sum(), weight)
        return found

    deferred = gradient(lambda some, weight: lookup(some, weight, PAD))
    torch.testing.assert_close(
        deferred, gradient(lambda some, weight: functional.embedding(some, weight, PAD)), rtol=1e-12, atol=1e-12
    )


def test_deferred_mixtures_equal_ordinary_ones() -> None:
    """Values that each step mixes, fewer rows each time, once in another way too, so that both kinds of gradient add up."""
    generator = torch.Generator().manual_seed(5)
    values, scores = (torch.randn(4, *shape, generator=generator, dtype=torch.float64) for shape in ((6, 3), (3, 6)))

    def gradients(defer: bool) -> list[Tensor]:
        v, s = values.clone().requires_grad_(), scores.clone().requires_grad_()
        with deferred_weight_gradients():
            seen = []
            for step, count in enumerate((4, 2, 2)):
                weights = torch.softmax(s[:count, step], dim=-1)
                rows = first_rows(v, count) if defer else v[:count]
                mixed = weighted_sum(weights, rows) if defer else torch.bmm(weights.unsqueeze(1), rows).squeeze(1)
                seen.append(mixed.pow(3).sum() + (rows.sin().sum() if step == 1 else 0.0))
        return list(torch.autograd.grad(torch.stack(seen).sum(), (v, s)))

    for deferred, plain in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(deferred, plain, rtol=1e-12, atol=1e-12)


def ordinary(x: Tensor, weight: Tensor, base: Tensor | None = None) -> Tensor:
    value = functional.linear(x, weight)
    return value if base is None else base + value


@pytest.mark.parametrize("name", MAKERS)
def test_captioners_learn_the_same_with_and_without_deferring(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = one_batch(make_clips(), torch.float64)
    captioner = made(name)

    def gradients() -> dict[str, Tensor]:
        captioner.zero_grad(set_to_none=True)
        cross_entropy(word_losses(captioner, teacher_forcing(captioner, batch))).backward()
        return {key: value.grad for key, value in captioner.named_parameters() if value.grad is not None}

    deferred = gradients()
    monkeypatch.setattr("bench.nn.layers.product", ordinary)
    monkeypatch.setattr("bench.nn.attention.product", ordinary)
    torch.testing.assert_close(deferred, gradients(), rtol=1e-12, atol=1e-12)


def test_values_multiplied_beforehand_teach_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one form of SA-LSTM is held against its oracle above: the other gives the same losses, weights and gradients."""
    batch = one_batch(make_clips(), torch.float64)
    captioner = made("soft_mean")

    def learned(beforehand: bool) -> list[Tensor]:
        monkeypatch.setattr("bench.nn.captioners.pays_beforehand", lambda *_: beforehand)
        captioner.zero_grad(set_to_none=True)
        forced = teacher_forcing(captioner, batch)
        losses = word_losses(captioner, forced)
        cross_entropy(losses).backward()
        assert forced.attention_BWT is not None and ("values" in forced.memory) != beforehand
        return [losses, forced.attention_BWT, *(p.grad for p in captioner.parameters() if p.grad is not None)]

    for before, after in zip(learned(True), learned(False), strict=True):
        torch.testing.assert_close(before, after, rtol=1e-12, atol=1e-12)


def test_a_graph_of_deferred_gradients_goes_with_its_loss() -> None:
    """No circle of references: what was lent to the steps is freed at once, not when the garbage collector comes by."""
    weight, values = torch.randn(2, 2, requires_grad=True), torch.randn(2, 2, 3, requires_grad=True)
    gc.disable()
    try:
        lender = values * 2
        with deferred_weight_gradients():
            looked = product(lookup(torch.tensor([0, 1]), weight), weight)
            loss = weighted_sum(torch.softmax(looked, -1), first_rows(lender, 2)).sum()
        saved = weakref.ref(lender)
        loss.backward()
        del lender, looked, loss
        assert saved() is None
    finally:
        gc.enable()


def test_deferred_gradients_of_two_backward_passes_add_up() -> None:
    """The ledger is emptied by each pass: a second one over the same graph counts itself only."""
    weight = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, 2, dtype=torch.float64)
    with deferred_weight_gradients():
        loss = (product(x, weight) + product(2 * x, weight)).square().sum()
    (once,) = torch.autograd.grad(loss, weight, retain_graph=True)
    loss.backward(retain_graph=True)
    loss.backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, 2 * once, rtol=1e-12, atol=1e-12)


def test_fixed_weights_and_evaluation_are_not_deferred() -> None:
    weight, x = torch.randn(2, 2), torch.randn(3, 2, requires_grad=True)
    with deferred_weight_gradients():
        value = product(x, weight)
        value.sum().backward()
        assert x.grad is not None
        with torch.no_grad():
            assert not product(x, weight.clone().requires_grad_()).requires_grad
    torch.testing.assert_close(x.grad, weight.sum(0).expand(3, 2))


# -- masks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "normalised"])
@pytest.mark.parametrize("name", MAKERS)
def test_padded_frames_change_nothing(name: str, normalise: bool) -> None:
    """Loss, gradients and measured normalisation are identical to the last bit with 0 and with 1000 in the padding."""

    def found(garbage: float) -> list[Tensor]:
        batch = one_batch(make_clips(garbage=garbage))
        captioner = made(name, torch.float32, normalise)
        if captioner.norm is not None:
            captioner.norm.fit([(batch.streams["frames"], batch.masks["frames"])])
        losses = word_losses(captioner, teacher_forcing(captioner, batch))
        cross_entropy(losses).backward()
        gradients = [value.grad for value in captioner.parameters() if value.grad is not None]
        return [losses.detach(), *gradients, *captioner.buffers()]

    for quiet, loud in zip(found(0.0), found(1e3), strict=True):
        assert torch.equal(quiet, loud)


@pytest.mark.parametrize("name", MAKERS)
def test_padded_words_change_nothing(name: str) -> None:
    batch = one_batch(make_clips(), torch.float64)
    captioner = made(name)
    before = word_losses(captioner, teacher_forcing(captioner, batch))
    batch.words_BW = functional.pad(batch.words_BW, (0, 3), value=PAD)
    after = word_losses(captioner, teacher_forcing(captioner, batch))
    assert torch.equal(after[:, : before.shape[1]], before)
    assert (after[:, before.shape[1] :] == 0).all()


@pytest.mark.parametrize("name", MAKERS)
def test_order_of_clips_and_equal_captions_changes_nothing(name: str) -> None:
    clips = make_clips((4, 2, 3), ((3, 1), (3, 3), (0, 3)))
    batch = one_batch(clips, torch.float64)
    captioner = made(name)
    before = word_losses(captioner, teacher_forcing(captioner, batch)).sum(1)
    turned = torch.tensor([2, 0, 1])  # row in the old order of clip 0, 1, 2 of the new one
    batch.streams = {key: value[turned] for key, value in batch.streams.items()}
    batch.masks = {key: value[turned] for key, value in batch.masks.items()}
    order = torch.tensor([3, 1, 0, 2, 4, 5])  # the first four captions have three words each
    assert batch.lengths_B.tolist() == [4, 4, 4, 4, 2, 1]
    batch.clip_of_B = torch.argsort(turned)[batch.clip_of_B][order]
    batch.words_BW = batch.words_BW[order]
    after = word_losses(captioner, teacher_forcing(captioner, batch)).sum(1)
    torch.testing.assert_close(after, before[order], rtol=1e-12, atol=1e-12)


def test_teacher_forcing_leaves_zeros_on_padding() -> None:
    batch = one_batch(make_clips(), torch.float64)
    forced = teacher_forcing(made("soft_zeros"), batch)
    assert forced.attention_BWT is not None
    for value in (forced.features_BWR, forced.hidden_BWH, forced.attention_BWT):
        assert (value[~forced.mask_BW] == 0).all()
        assert (value[forced.mask_BW].abs().sum(-1) > 0).all()
    assert forced.mask_BW.sum(1).tolist() == batch.lengths_B.tolist()


def test_feature_norm_standardises_real_frames_of_any_batches() -> None:
    values = torch.randn(6, 4, 3, dtype=torch.float64) * torch.tensor([5.0, 0.1, 0.0]) + 7.0
    mask = torch.arange(4) < torch.tensor([4, 1, 2, 3, 4, 2])[:, None]
    norm = FeatureNorm(3).double()
    torch.testing.assert_close(norm(values, mask), values * mask.unsqueeze(-1))
    norm.fit([(values[:2], mask[:2]), (values[2:], mask[2:])])
    after = norm(values, mask)
    real = after[mask]
    torch.testing.assert_close(real.mean(0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-10)
    deviation = real.std(0, unbiased=False)
    torch.testing.assert_close(deviation, torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64), rtol=1e-6, atol=1e-10)
    assert (after[~mask] == 0).all()
