"""HA_IL against its equations 1-8."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import hail
from oracles.arithmetic import Vector, caption_loss
from support import FakeRun, assert_gradient_of, captions_of, gradcheck_module, make_clips, one_batch, shake, spoken
from symbols import Numbers, numbers, of_cell
from torch import Tensor, nn
from torch.nn import functional

from bench.declare.registry import method
from bench.declare.settings import given
from bench.method import PAD, UNK, Batch, Clips, Search
from bench.nn.attention import AdditiveAttention
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.nn.layers import FeatureNorm, vector_mask
from bench.reports.published import load_papers
from bench.training import CaptionModel
from methods.hail import build
from methods.hail.information import WordWeights, importance, information, information_loss, relevance, word_weights
from methods.hail.model import HierarchicalAttention, ObjectLSTM

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
WORDS, WIDTH, EMBEDDING, ATTENTION = 11, 4, 3, 6
SHAPES = {"regions": (4, 3, 5), "frames": (4, 6), "motion": (4, 7)}
MODELS = [
    ("hierarchical", ("regions", "frames", "motion")),
    ("hierarchical", ("frames",)),
    ("temporal", ("regions", "frames", "motion")),
    ("temporal", ("frames", "motion")),
    ("none", ("regions", "frames", "motion")),
]
NAMES = ["HA", "HA from frames", "TA-B2", "TA-B1", "NA"]


def made(
    attend: str = "hierarchical",
    streams: Sequence[str] = ("regions", "frames", "motion"),
    dtype: torch.dtype = torch.float64,
    normalise: bool = False,
    dropout: float = 0.0,
) -> HierarchicalAttention:
    widths = {name: SHAPES[name][-1] for name in streams}
    model = HierarchicalAttention(WORDS, widths, attend, WIDTH, EMBEDDING, ATTENTION, dropout, normalise).to(dtype)
    shake(model)
    return model


def holed(batch: Batch) -> Batch:
    """Two regions of the first clip's first frame were not found, and no region at all of its second frame."""
    batch.streams["regions"][0, 0, 1:] = 0.0
    batch.streams["regions"][0, 1] = 0.0
    return batch


def batch_of(dtype: torch.dtype = torch.float64, garbage: float = 1e3) -> Batch:
    return holed(one_batch(make_clips(shapes=SHAPES, garbage=garbage), dtype))


def fit_norms(model: HierarchicalAttention, batch: Batch) -> None:
    for name, norm in model.norms.items():
        assert isinstance(norm, FeatureNorm)
        values = batch.streams[name]
        norm.fit([(values, vector_mask(values, batch.masks[name]))])


def of_attention(module: nn.Module) -> Numbers:
    assert isinstance(module, AdditiveAttention)
    parts = {"w": module.score.weight[0], "W": module.query.weight, "U": module.key.weight, "z": module.key.bias}
    return {name: numbers(value) for name, value in parts.items()}


def vectors(model: HierarchicalAttention, batch: Batch, stream: str, clip: int) -> list[Vector]:
    """Real steps of one clip, standardised if the model does that; regions as [k, D] with zeros for the ones not found."""
    raw = batch.streams[stream][clip][batch.masks[stream][clip]].double().numpy()
    if stream not in model.norms:
        return list(raw)
    norm = model.norms[stream]
    assert isinstance(norm, FeatureNorm)
    found = (raw != 0).any(-1, keepdims=True)
    return list((raw - numbers(norm.mean)) * numbers(norm.scale) * found)


def regions(model: HierarchicalAttention, batch: Batch, clip: int) -> list[list[Vector]]:
    """The regions that were found, frame by frame."""
    return [[one for one in frame if one.any()] for frame in vectors(model, batch, "regions", clip)]


def object_states(
    model: HierarchicalAttention, batch: Batch, clip: int, kept: float = 1.0
) -> tuple[list[Vector], list[list[float]]]:
    assert model.objects is not None
    symbols = of_cell(model.objects.cell, "regions")
    return hail.object_states(symbols, of_attention(model.objects.attention), regions(model, batch, clip), kept)


def oracle(
    model: HierarchicalAttention, batch: Batch, clip: int, words: list[int], kept: float = 1.0
) -> tuple[list[Vector], list[dict[str, list[float]]]]:
    sources: dict[str, list[Vector]] = {}
    for name in model.streams:
        if name != "regions":
            sources[name] = vectors(model, batch, name, clip)
        elif model.objects is not None:
            sources[name] = object_states(model, batch, clip, kept)[0]
        else:
            sources[name] = hail.region_means(regions(model, batch, clip), SHAPES[name][-1])
    p = {
        "E": numbers(model.embedding.weight),
        "U_y": numbers(model.output.weight),
        **of_cell(model.cell, "word", *model.streams),
    }
    attentions = {name: of_attention(layer) for name, layer in model.attention.items()}
    return hail.decode(p, attentions, sources, words, kept)


def numbered(clips: Clips) -> dict[str, list[tuple[int, ...]]]:
    return {clip: [reference.words for reference in clips.references(clip)] for clip in clips.ids}


# -- the model ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "normalised"])
def test_object_states_and_region_weights_are_equations_1_and_2(normalise: bool, dtype: torch.dtype) -> None:
    batch = batch_of(dtype)
    model = made(dtype=dtype, normalise=normalise)
    fit_norms(model, batch)
    assert model.objects is not None
    values, mask = model.vectors(batch, "regions")
    own, weights = model.objects(values, mask)
    for clip in range(len(batch.clip_ids)):
        states, alphas = object_states(model, batch, clip)
        close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
        np.testing.assert_allclose(numbers(own[clip, : len(states)]), np.array(states), **close)
        for frame, alpha in enumerate(alphas):
            np.testing.assert_allclose(numbers(weights[clip, frame][mask[clip, frame]]), alpha, **close)
    assert (weights[~mask] == 0).all()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "normalised"])
@pytest.mark.parametrize(("attend", "streams"), MODELS, ids=NAMES)
def test_logits_losses_and_frame_weights_are_equations_3_to_5(
    attend: str, streams: tuple[str, ...], normalise: bool, dtype: torch.dtype
) -> None:
    batch = batch_of(dtype)
    model = made(attend, streams, dtype, normalise)
    fit_norms(model, batch)
    forced = teacher_forcing(model, batch)
    expected_losses = []
    for row, clip, words in captions_of(batch):
        logits, betas = oracle(model, batch, clip, words)
        close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
        own = model.logits(forced.features_BWR[row, : len(words) + 1])
        np.testing.assert_allclose(numbers(own), np.array(logits), **close)
        expected_losses.append(caption_loss(logits, words))
        if attend == "none":
            assert forced.attention_BWT is None
            continue
        assert forced.attention_BWT is not None
        mask = batch.masks["frames"][clip]
        seen = numbers(forced.attention_BWT[row, : len(words) + 1, mask])
        np.testing.assert_allclose(seen, [beta["frames"] for beta in betas], **close)
    np.testing.assert_allclose(numbers(word_losses(model, forced).sum(1)), expected_losses, rtol=TOLERANCE[dtype])


@pytest.mark.parametrize(("attend", "streams"), MODELS, ids=NAMES)
def test_dropout_is_on_the_input_and_the_output_of_both_lstms_and_nowhere_else(
    attend: str, streams: tuple[str, ...]
) -> None:
    """While training. Every dropout is made to scale by what it keeps on average, so that its places show in the logits."""
    batch = batch_of()
    model = made(attend, streams, dropout=0.25).train()
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.register_forward_hook(lambda part, given, _: (1 - part.p) * given[0])
    forced = teacher_forcing(model, batch)
    for row, clip, words in captions_of(batch):
        own = model.logits(forced.features_BWR[row, : len(words) + 1])
        logits, _ = oracle(model, batch, clip, words, kept=0.75)
        np.testing.assert_allclose(numbers(own), np.array(logits), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("attend", "streams"), MODELS, ids=NAMES)
def test_gradient_is_the_slope_of_equation_8(attend: str, streams: tuple[str, ...]) -> None:
    """Of all parameters; the object LSTM feels the words through the frame attention."""
    clips = make_clips((3, 2), ((2, 1), (3,)), SHAPES, garbage=1e3)
    batch = holed(one_batch(clips, torch.float64))
    model = made(attend, streams)
    table = word_weights(clips, 0.7, 1.5)

    def own() -> Tensor:
        forced = teacher_forcing(model, batch)
        weights = WordWeights(table, WORDS).of_targets(batch, forced.targets_BW)
        return information_loss(word_losses(model, forced), weights)

    def expected() -> float:
        losses = []
        for _, clip, words in captions_of(batch):
            name = batch.clip_ids[clip]
            factors = [hail.factor(numbered(clips), name, word, 0.7, 1.5) for word in (*words, 2)]
            losses.append(hail.information_loss(oracle(model, batch, clip, words)[0], words, factors))
        return float(np.mean(losses))

    assert own().item() == pytest.approx(expected(), rel=1e-10)
    assert_gradient_of(model, own, expected)


def test_gradcheck_of_the_object_lstm() -> None:
    module = ObjectLSTM(3, 2, 2, 0.0).double()
    shake(module)
    mask = torch.tensor([[[True, True], [True, False]], [[True, True], [False, False]]])

    def compute(values: Tensor) -> Tensor:
        return module(values * mask.unsqueeze(-1), mask)[0]

    assert gradcheck_module(module, compute, torch.randn(2, 2, 2, 3, dtype=torch.float64), fast=False)


@pytest.mark.parametrize(("attend", "streams"), MODELS, ids=NAMES)
def test_gradcheck_of_the_captioner(attend: str, streams: tuple[str, ...]) -> None:
    batch = one_batch(make_clips((3, 2), ((2,), (1,)), SHAPES), torch.float64)
    model = made(attend, streams)

    def compute(*values: Tensor) -> Tensor:
        batch.streams |= dict(zip(streams, values, strict=True))
        return word_losses(model, teacher_forcing(model, batch)).sum(1)

    assert gradcheck_module(model, compute, *(batch.streams[name].clone() for name in streams))


@pytest.mark.parametrize("normalise", [False, True], ids=["raw", "normalised"])
@pytest.mark.parametrize(("attend", "streams"), MODELS, ids=NAMES)
def test_garbage_in_padded_frames_and_padded_words_change_nothing(
    attend: str, streams: tuple[str, ...], normalise: bool
) -> None:
    """Not to the last bit, neither losses nor gradients."""

    def learned(garbage: float, longer: int = 0) -> tuple[Tensor, list[Tensor]]:
        batch = batch_of(torch.float32, garbage)
        batch.words_BW = functional.pad(batch.words_BW, (0, longer), value=PAD)
        model = made(attend, streams, torch.float32, normalise)
        fit_norms(model, batch)
        losses = word_losses(model, teacher_forcing(model, batch)).sum(1)
        losses.sum().backward()
        return losses, [value.grad for value in model.parameters() if value.grad is not None]

    losses, gradients = learned(0.0)
    loud, loud_gradients = learned(1e3)
    assert torch.equal(loud, losses)
    assert all(map(torch.equal, gradients, loud_gradients))
    assert torch.equal(learned(0.0, longer=2)[0], losses)
    assert len(gradients) == len(list(made(attend, streams).parameters()))


def test_regions_that_were_not_found_change_nothing() -> None:
    """Two more slots of zeros in every frame: the same losses, with and without normalisation."""
    for normalise in (False, True):
        batch = batch_of()
        model = made(normalise=normalise)
        fit_norms(model, batch)
        before = word_losses(model, teacher_forcing(model, batch))
        batch.streams["regions"] = functional.pad(batch.streams["regions"], (0, 0, 0, 2))
        np.testing.assert_allclose(
            numbers(word_losses(model, teacher_forcing(model, batch))), numbers(before), rtol=1e-12, atol=1e-12
        )


def test_order_of_the_regions_in_a_frame_changes_nothing() -> None:
    batch = batch_of()
    model = made()
    before = word_losses(model, teacher_forcing(model, batch))
    batch.streams["regions"] = batch.streams["regions"].flip(2)
    after = word_losses(model, teacher_forcing(model, batch))
    np.testing.assert_allclose(numbers(after), numbers(before), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("attend", "streams"), MODELS, ids=NAMES)
def test_a_clip_without_any_region_or_motion_reads_zeros_and_gives_no_nan(
    attend: str, streams: tuple[str, ...]
) -> None:
    batch = batch_of()
    for name in ("regions", "motion"):
        batch.streams[name][1] = 0.0
        batch.masks[name][1] = False
    model = made(attend, streams)
    losses = word_losses(model, teacher_forcing(model, batch))
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    for row, clip, words in captions_of(batch):
        if attend != "none":
            expected = caption_loss(oracle(model, batch, clip, words)[0], words)
            assert losses[row].sum().item() == pytest.approx(expected, rel=1e-10)
    assert all(value.grad is not None and torch.isfinite(value.grad).all() for value in model.parameters())


def test_streams_may_have_different_numbers_of_steps() -> None:
    """A 3-D convolution sees fewer steps than there are frames."""
    batch = batch_of()
    model = made()
    before = word_losses(model, teacher_forcing(model, batch))
    batch.streams["motion"] = functional.pad(batch.streams["motion"], (0, 0, 0, 3), value=1e3)
    batch.masks["motion"] = functional.pad(batch.masks["motion"], (0, 3))
    assert torch.equal(word_losses(model, teacher_forcing(model, batch)), before)


def test_sizes_are_those_of_the_paper() -> None:
    """The word LSTM reads embedding + 512 + 2048 + 4096; the object LSTM reads 2048."""
    model = HierarchicalAttention(
        20, {"regions": 2048, "frames": 2048, "motion": 4096}, "hierarchical", 512, 512, 512, 0.5, False
    )
    assert model.objects is not None
    widths = {name: tuple(weight.shape) for name, weight in model.cell.weights.items()}
    assert widths == {"word": (2048, 512), "regions": (2048, 512), "frames": (2048, 2048), "motion": (2048, 4096)}
    assert model.objects.cell.weights["regions"].shape == (2048, 2048)


def test_fit_measures_regions_that_were_found() -> None:
    """Mean 0 and deviation 1 over the real vectors of each stream; zeros and padding do not count."""
    clips = make_clips(shapes=SHAPES, garbage=1e3)
    read = clips._sources["regions"].read

    def some(ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        values, lengths = read(ids)
        values = values.copy()
        values[:, :, 2] = 0.0
        return values, lengths

    clips._sources["regions"].read = some  # type: ignore[method-assign]
    model = built(clips)
    model.fit(clips, FakeRun(6, {"base": 1.0}))
    batch = next(clips.in_order(10))
    for name in SHAPES:
        values, mask = model.captioner.vectors(batch, name)
        real = values[mask].double()
        assert torch.allclose(real.mean(0), torch.zeros(SHAPES[name][-1]).double(), atol=1e-5)
        assert torch.allclose(real.std(0, unbiased=False), torch.ones(SHAPES[name][-1]).double(), atol=1e-4)
        assert (values[~mask] == 0).all()


# -- Information Loss ---------------------------------------------------------------------------------------------------

SPOKEN = {
    "v1": ["a man rides a skateboard", "a boy rides a skateboard", "a ZEBRA man is riding", "a man"],
    "v2": ["a man is running", "the man runs", "a man and a man"],
    "v3": ["a kid is playing", "ZEBRA ZEBRA"],
    "v4": [],
}


def test_relevance_counts_captions_and_not_words() -> None:
    assert relevance([[4, 5, 4], [5], [4, 6, 6], [7]]) == {4: 0.5, 5: 0.5, 6: 0.25, 7: 0.25}


def test_information_is_nothing_for_a_word_of_every_video() -> None:
    found = information({"one": [[4, 5], [4]], "two": [[4]], "three": [[6, 4]], "silent": []})
    assert found == {4: 0.0, 5: pytest.approx(math.log(3)), 6: pytest.approx(math.log(3))}


def test_exponent_zero_is_information_alone_and_a_large_one_forgets_rare_words_of_a_video() -> None:
    videos = {"one": [[4, 5], [4]], "two": [[6]]}
    assert importance(videos, 0.0)["one"] == pytest.approx({4: math.log(2), 5: math.log(2)})
    steep = importance(videos, 50.0)["one"]
    assert steep[4] == pytest.approx(math.log(2))
    assert steep[5] < 1e-9


@pytest.mark.parametrize(("weight", "exponent"), [(0.5, 2.0), (1.0, 0.0), (0.3, 1.0), (0.0, 2.0)])
def test_weights_are_those_of_a_plain_loop_for_every_word_of_every_caption(weight: float, exponent: float) -> None:
    clips = spoken(SPOKEN)
    table = word_weights(clips, weight, exponent)
    for order in range(2):
        for batch in clips.epoch(order, 4, 2):
            targets = batch.words_BW[:, 1:]
            own = WordWeights(table, len(clips.vocabulary)).of_targets(batch, targets)
            for row, clip, words in captions_of(batch):
                name = batch.clip_ids[clip]
                expected = [hail.factor(numbered(clips), name, word, weight, exponent) for word in (*words, 2)]
                assert own[row, : len(expected)].tolist() == pytest.approx(expected, rel=1e-12)
                assert (own[row, len(expected) :] == 1).all()


def test_weight_of_an_unknown_word_is_one() -> None:
    table = word_weights(spoken(SPOKEN), 0.5, 2.0)
    assert all(UNK not in words for words in table.values())
    assert table["c3"] == {}


def test_a_clip_of_unknown_words_alone_keeps_plain_weights() -> None:
    clips = spoken({"v1": ["ZEBRA"], "v2": ["a man"]})
    batch = one_batch(clips)
    own = WordWeights(word_weights(clips, 0.5, 2.0), len(clips.vocabulary)).of_targets(batch, batch.words_BW[:, 1:])
    row = batch.caption_ids.index("c0#0")
    assert (own[row] == 1).all()


def built(clips: Clips, **more: object) -> CaptionModel:
    torch.manual_seed(0)
    settings = {
        "loss": "information",
        "information_weight": 0.5,
        "relevance_exponent": 2.0,
        "attend": "hierarchical",
        "sources": "frames+motion+regions",
        "width": 16,
        "embedding": 12,
        "attention": 8,
        "dropout": 0.0,
        "normalise": True,
    }
    return build({**settings, **more}, clips.streams, clips.vocabulary)


def phase_losses(model: CaptionModel, clips: Clips, batch: Batch) -> dict[str, Tensor]:
    (phase,) = model.phases(clips, FakeRun(1, {"base": 1.0}))
    return phase.loss(batch)


def test_information_weight_zero_is_cross_entropy() -> None:
    clips = spoken(SPOKEN)
    batch = one_batch(clips)
    model = built(clips, information_weight=0.0)
    losses = phase_losses(model, clips, batch)
    plain = phase_losses(built(clips, loss="cross_entropy"), clips, batch)
    assert losses["loss"].item() == losses["cross_entropy"].item() == plain["loss"].item()
    expected = cross_entropy(word_losses(model.captioner, teacher_forcing(model.captioner, batch)))
    assert plain["loss"].item() == expected.item()


def test_weights_are_by_clip_and_not_by_place_in_the_batch() -> None:
    """The loss of every batch of every order is the mean of its captions' losses, each taken alone."""
    clips = spoken(SPOKEN)
    model = built(clips, information_weight=2.0)
    single = {batch.caption_ids[0]: phase_losses(model, clips, batch)["loss"].item() for batch in clips.epoch(0, 1, 1)}
    for order in range(3):
        for batch in clips.epoch(order, 4, 2):
            expected = np.mean([single[caption] for caption in batch.caption_ids])
            assert phase_losses(model, clips, batch)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_information_loss_raises_the_recall_of_rare_words() -> None:
    """Three captions of each clip say `thing`, two name the thing, a word of this clip alone.

    By cross-entropy the common word is likelier, 3 to 2. With lambda = gamma = 1 the rare one counts 1 + 2/5 log 8 = 1.83
    times, 3 to 3.7, and is what the captioner says.
    """
    names = [f"thing{number}" for number in range(8)]
    clips = spoken({name: ["a man plays thing"] * 3 + [f"a man plays {name}"] * 2 for name in names})

    def recall(loss: str) -> float:
        model = built(clips, loss=loss, information_weight=1.0, relevance_exponent=1.0)
        best = iter(range(1000))  # every epoch is better than the one before: the last weights stay
        train = {"learning_rate": 0.03, "captions": 20, "captions_per_clip": 5}
        model.fit(clips, FakeRun(100 * 40, {"base": 1.0}, train, score=lambda method: float(next(best))))
        captions = model.decode(clips, Search(beam=2, max_words=6))
        return sum(name in caption.words for name, caption in zip(names, captions, strict=True)) / len(names)

    plain, informed = recall("cross_entropy"), recall("information")
    assert plain <= 0.25, "by cross-entropy the common word must win, or this shows nothing"
    assert informed >= 0.75


# -- what it reads ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sources", "here", "read"),
    [
        ("frames+motion+regions", ("frames", "motion", "regions"), ("regions", "frames", "motion")),
        ("frames+motion+regions", ("frames", "regions"), ("regions", "frames")),
        ("frames+motion+regions", ("frames",), ("frames",)),
        ("frames+motion", ("frames", "motion", "regions"), ("frames", "motion")),
        ("frames+motion", ("frames",), ("frames",)),
    ],
)
def test_reads_what_is_there_of_what_it_is_told_to(sources: str, here: tuple[str, ...], read: tuple[str, ...]) -> None:
    clips = make_clips(shapes={name: SHAPES[name] for name in here})
    model = built(clips, sources=sources, attend="temporal", loss="cross_entropy")
    assert model.captioner.streams == read
    batch = one_batch(clips)
    before = phase_losses(model, clips, batch)["loss"]
    for name in here:
        if name not in read:
            batch.streams[name] += 1.0
    assert torch.equal(phase_losses(model, clips, batch)["loss"], before)
    batch.streams[read[0]] += 1.0
    assert not torch.equal(phase_losses(model, clips, batch)["loss"], before)


def test_attention_over_regions_that_are_not_to_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"attend=hierarchical attends to regions, and sources=frames\+motion leaves"):
        built(make_clips(shapes=SHAPES), sources="frames+motion")


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({"frames": (4, 6), "regions": (4, 5)}, "regions as time x regions x features, and this one has the shape 4x5"),
        ({"frames": (4, 6), "motion": (7,)}, "motion as time x features, and this one has the shape 7 without time"),
    ],
)
def test_a_stream_of_another_form_is_refused(shapes: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        built(make_clips(shapes=shapes))


def test_the_printed_settings_and_the_grid_of_table_3() -> None:
    card = method("hail")
    paper = card.protocol_paper
    assert paper is not None
    assert paper.stream_shapes == {"frames": [40, 2048], "motion": [40, 4096], "regions": [40, 16, 2048]}
    printed = {"optimizer": "adam", "learning_rate": 1e-4, "decay": 0.8, "decay_every": 30}
    assert given(paper.train).items() >= printed.items()
    assert paper.text.min_count == 5
    whole = {name: setting.default for name, setting in card.settings.items()} | card.variants["ha_il"].settings
    assert (whole["loss"], whole["information_weight"], whole["relevance_exponent"]) == ("information", 0.5, 2.0)
    grid = {
        (float(row.variant["lambda"]), float(row.variant["gamma"]))
        for item in load_papers()
        for table in item.tables
        for row in table.rows
        if (item.paper.name, table.id) == ("hail", "table3")
    }
    space = card.search_space
    assert all(one.when == {"loss": ["information"]} for one in space.values()), "without it neither letter acts"
    assert grid == set(
        itertools.product(*(space[name].choices for name in ("information_weight", "relevance_exponent")))
    )


def test_captions_are_counted_whole_although_training_cuts_them() -> None:
    """A word behind the longest length that is learned from still tells of its video."""
    clips = spoken({"one": ["a dog runs far away"], "two": ["a cat runs home"]})
    whole = word_weights(clips, 0.5, 2.0)
    cut = {clip: tuple(replace(one, words=one.words[:2]) for one in clips.references(clip)) for clip in clips.ids}
    clips.references = cut.__getitem__  # type: ignore[method-assign]
    assert word_weights(clips, 0.5, 2.0) == whole
