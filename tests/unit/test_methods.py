"""Every method and variant that has a card: builds, learns, decodes, is saved and read; GL-RG's streams and weights."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from support import TRAIN, FakeRun, TinyEncoder, digest, make_clips, stream_source
from torch import Tensor, nn

from bench.data.batches import CorpusClips
from bench.declare.card import MethodCard
from bench.declare.registry import find_methods
from bench.declare.settings import given
from bench.method import EOS, Batch, Reference, Search, StreamInfo, Vocabulary
from bench.training import Phase, caption_weights
from methods.glrg.words import clip_labels, frequent_words

CARDS: dict[str, MethodCard] = {name: entry.card for name, entry in find_methods().items() if entry.card}
SIX = {"etenet", "glrg", "mplstm", "recnet", "s2vt", "salstm"}
ROWS = [(name, variant) for name, card in CARDS.items() for variant in card.variants]
PAPERS = [(name, variant) for name, variant in ROWS if CARDS[name].protocol_paper]
SHAPES = {"frames": (4, 5), "words": (300,), "actions": (6,), "objects": (9,), "spatial": (4, 6), "audio": (7,)}
SHAPES |= {"regions": (4, 3, 7), "motion": (4, 6), "pixels": (4, 3, 6, 6)}
SIZES = ((3, 1), (2, 4), (2, 3))
SMALL = {"width": 16, "embedding": 12, "attention": 8}


def streams_of(card: MethodCard) -> dict[str, tuple[int, ...]]:
    return {name: SHAPES[name] for name in (*card.streams.needs, *card.streams.uses)}


def reads_frames(name: str, variant: str) -> bool:
    streams = CARDS[name].reading(variant).streams
    return "frames" in (*streams.needs, *streams.uses)


def settings_of(name: str, variant: str, paper: bool = False, **more: Any) -> dict[str, Any]:
    """Defaults of the card, the printed ones over them under the paper protocol, those of the variant over both."""
    card = CARDS[name]
    settings = {key: setting.default for key, setting in card.settings.items()}
    if paper:
        assert card.protocol_paper is not None
        settings |= card.protocol_paper.settings
    settings |= card.variants[variant].settings
    return settings | {key: value for key, value in more.items() if key in settings}


def shares_of(name: str, variant: str) -> Mapping[str, float]:
    return CARDS[name].variants[variant].phases or CARDS[name].phases


def build(name: str, variant: str, clips: CorpusClips, seed: int = 0, **more: Any) -> Any:
    torch.manual_seed(seed)
    module = importlib.import_module(f"methods.{name}")
    return module.build(settings_of(name, variant, **more), clips.streams, clips.vocabulary)


def clips_for(
    name: str, streams: tuple[str, ...] | None = None, variant: str | None = None, **more: Any
) -> CorpusClips:
    """Clips with the streams of the card, or those of them in `streams`, and those that `variant` needs beyond them."""
    wanted = streams_of(CARDS[name])
    wanted |= {key: SHAPES[key] for key in (CARDS[name].variants[variant].needs if variant else ())}
    streams = None if streams is None else (*streams, *(key for key in wanted if key == "pixels"))
    return make_clips(
        captions=SIZES, shapes={key: wanted[key] for key in wanted if streams is None or key in streams}, **more
    )


def run_of(name: str, variant: str, epochs: int = 1, **train: Any) -> FakeRun:
    return FakeRun(epochs * 6, shares_of(name, variant), {"learning_rate": 0.005, **train})


def phases_of(model: Any, name: str, variant: str, clips: CorpusClips, run: FakeRun | None = None) -> list[Phase]:
    run = run or run_of(name, variant)
    if hasattr(model, "borrow"):  # what `fit` does before it asks for the phases
        model.prepare(run.encoder)
        model.borrow("pretrained")
    return list(model.phases(clips, run))


def check_learning(model: Any, phase: Phase, batch: Batch) -> None:
    """One loss of this phase: finite, and a finite gradient that is not zero in every parameter that should learn."""
    learning = {id(parameter) for parameter in phase.parameters()}
    for parameter in model.module.parameters():  # as the loop does when a phase begins
        parameter.requires_grad_(id(parameter) in learning)
    model.module.train()
    phase.loss(batch)  # an epoch before: a loss may compare with what the last epoch left behind
    model.module.zero_grad(set_to_none=True)
    losses = phase.loss(batch)
    assert all(torch.isfinite(value) and value.dim() == 0 for value in losses.values())
    losses["loss"].backward()
    for key, value in model.module.named_parameters():
        if id(value) not in learning:
            continue
        assert value.grad is not None, f"{phase.name}: {key} has no gradient"
        assert torch.isfinite(value.grad).all(), f"{phase.name}: {key}"
        assert value.grad.abs().max() > 0, f"{phase.name}: the gradient of {key} is zero"


def test_all_six_methods_are_here_and_no_card_is_broken() -> None:
    assert set(CARDS) >= SIX
    assert [entry.error for entry in find_methods().values() if entry.error] == []


@pytest.mark.parametrize(("name", "variant"), ROWS)
def test_defaults_of_the_card_build_a_model_whose_every_part_learns(name: str, variant: str) -> None:
    clips = clips_for(name, variant=variant)
    model = build(name, variant, clips)
    phases = phases_of(model, name, variant, clips)
    assert {phase.name for phase in phases} <= set(shares_of(name, variant))
    (batch,) = clips.epoch(0, 100, 100)
    for phase in phases:
        check_learning(model, phase, batch)


@pytest.mark.parametrize("name", sorted(CARDS))
def test_products_in_bfloat16_change_a_loss_by_little(name: str) -> None:
    """Under autocast, as `train.precision=bfloat16` trains: losses and gradients stay float32 and near those of float32."""
    variant = CARDS[name].default
    clips = clips_for(name)
    (batch,) = clips.epoch(0, 100, 100)

    def learned(low: bool) -> tuple[float, Tensor]:
        model = build(name, variant, clips, dropout=0.0)
        phase = phases_of(model, name, variant, clips)[-1]
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = phase.loss(batch)["loss"]
        loss.backward()
        assert loss.dtype == torch.float32
        gradients = [value.grad.flatten() for value in phase.module.parameters() if value.grad is not None]
        assert all(gradient.dtype == torch.float32 for gradient in gradients)
        return loss.item(), torch.cat(gradients)

    (whole, full), (rounded, low) = learned(False), learned(True)
    assert rounded == pytest.approx(whole, rel=0.01)
    assert not torch.equal(low, full), "no product was made in bfloat16"
    assert torch.nn.functional.cosine_similarity(low, full, dim=0) > 0.99


@pytest.mark.parametrize(("name", "variant"), ROWS)
def test_same_seed_same_weights(name: str, variant: str) -> None:
    clips = clips_for(name, variant=variant)
    one, same, other = (digest(build(name, variant, clips, seed, **SMALL).state_dict()) for seed in (0, 0, 1))
    assert one == same != other


@pytest.mark.parametrize("name", sorted(SIX))
def test_a_state_of_another_model_is_refused_by_name(name: str) -> None:
    clips = clips_for(name)
    variant = CARDS[name].default
    model = build(name, variant, clips, **SMALL)
    before = digest(model.state_dict())
    state = dict(model.state_dict())
    key = next(key for key in state if key.endswith("output.weight"))
    lacking = {other: value for other, value in state.items() if other != key}
    with pytest.raises(ValueError, match=key):
        model.load_state_dict(lacking)
    with pytest.raises(ValueError, match=r"does not fit this model: extra\.part"):
        model.load_state_dict({**state, "extra.part": torch.zeros(1)})
    rows, columns = state[key].shape
    with pytest.raises(ValueError, match=rf"{key} \({rows + 1}, {columns}\) instead of \({rows}, {columns}\)"):
        model.load_state_dict({**state, key: torch.zeros(rows + 1, columns)})
    assert digest(model.state_dict()) == before


@pytest.mark.parametrize(("name", "variant"), [row for row in ROWS if reads_frames(*row)])
def test_padded_frames_change_no_training(name: str, variant: str) -> None:
    """A whole fit with garbage in the padding, normaliser and dropout included, gives the same weights to the last bit."""

    def weights(garbage: float) -> str:
        clips = clips_for(name, ("frames",), variant, garbage=garbage)
        model = build(name, variant, clips, **SMALL)
        model.fit(clips, run_of(name, variant, epochs=2))
        return digest(model.state_dict())

    assert weights(0.0) == weights(1e3)


# -- the printed settings -----------------------------------------------------------------------------------------------


def printed_phases() -> dict[tuple[str, str], list[str]]:
    """The phases of each row, but for those that a row before it trains by the same printed settings."""
    seen: list[tuple[str, list[str], dict[str, Any], str]] = []
    found = {}
    for name, variant in PAPERS:
        model = (name, CARDS[name].variants[variant].needs, settings_of(name, variant, paper=True))
        found[name, variant] = [phase for phase in shares_of(name, variant) if (*model, phase) not in seen]
        seen += [(*model, phase) for phase in found[name, variant]]
    return {row: phases for row, phases in found.items() if phases}


PRINTED = printed_phases()


@pytest.mark.parametrize(("name", "variant"), PRINTED)
def test_printed_settings_run_one_batch_at_the_printed_widths(name: str, variant: str) -> None:
    paper = CARDS[name].protocol_paper
    assert paper is not None
    more = CARDS[name].variants[variant].needs
    shapes = {key: tuple(paper.shapes(key)[0]) for key in paper.stream_shapes if key != "pixels" or key in more}
    lengths = (shapes["frames"][0], 3) if "frames" in shapes else (1, 1)
    clips = make_clips(lengths, ((3, 1), (2, 2)), shapes)
    model = build(name, variant, clips, paper=True)
    train = {**TRAIN, **given(paper.train)}
    run = FakeRun(4, shares_of(name, variant), train, encoder=lambda name, weights: TinyEncoder(1536))
    for phase in phases_of(model, name, variant, clips, run):
        if phase.name in PRINTED[name, variant]:
            check_learning(model, phase, next(clips.epoch(0, train["captions"], train["captions_per_clip"])))
    if (
        list(shares_of(name, variant)) == PRINTED[name, variant]
    ):  # else the row before it has decoded with the same model
        search = Search(**{"beam": 5, **given(paper.search), "max_words": 3})
        assert [caption.clip for caption in model.decode(clips, search)] == list(clips.ids)


@pytest.mark.parametrize("name", ["recnet", "salstm", "s2vt"])
def test_the_printed_widths_are_those_of_recnet(name: str) -> None:
    """28 x 1536 frames, 468-wide words, 512 hidden."""
    paper = CARDS[name].protocol_paper
    assert paper is not None
    settings = settings_of(name, CARDS[name].default, paper=True)
    assert paper.shapes("frames") == [[28, 1536], [40, 2048] if name == "s2vt" else [28, 4096]]
    assert given(paper.text)["min_count"] == 1  # no cut-off is printed
    assert (settings["embedding"], settings["width"], settings["normalise"]) == (468, 512, False)


def test_the_printed_settings_of_etenet() -> None:
    paper = CARDS["etenet"].protocol_paper
    assert paper is not None
    settings = settings_of("etenet", "step1", paper=True)
    assert paper.stream_shapes == {"frames": [16, 1536], "pixels": [16, 3, 299, 299]}
    assert (settings["embedding"], settings["attention_weight"]) == (486, 0.70602)
    assert (settings["encoder"], settings["encoder_rate"]) == ("inception_resnet_v2", 1e-9)
    assert settings["encoder_weight_decay"] == 4e-5
    assert (
        given(paper.train).items()
        >= {
            "accumulate": 512,
            "optimizer": "adam",
            "learning_rate": 1e-4,
            "weight_decay": 1e-4,
            "clip": 10.0,
            "clip_by": "value",
        }.items()
    )


# -- GL-RG's streams ----------------------------------------------------------------------------------------------------


def part(model: Any, name: str) -> nn.Module:
    found = model.module.get_submodule(name)
    assert isinstance(found, nn.Module)
    return found


@pytest.mark.parametrize("with_words", [True, False], ids=["three vocabularies", "words from frames"])
def test_glrg_reads_three_vocabularies_or_learns_the_long_one(with_words: bool) -> None:
    streams = ("words", "actions", "objects") if with_words else ("frames", "actions", "objects")
    clips = clips_for("glrg", streams)
    model = build("glrg", "xe", clips, **SMALL)
    assert list(part(model, "decoder.project").state_dict()) == [
        f"{name}.{kind}" for name in ("words", "actions", "objects") for kind in ("weight", "bias")
    ]
    names = [phase.name for phase in phases_of(model, "glrg", "xe", clips)]
    assert names == (["seed"] if with_words else ["words", "seed"])


def test_glrg_with_a_words_stream_gives_captions_the_whole_budget() -> None:
    spent: list[int] = []
    clips = clips_for("glrg", ("words", "actions", "objects"), spend=spent.append)
    run = run_of("glrg", "xe", epochs=5)
    build("glrg", "xe", clips, **SMALL).fit(clips, run)
    assert sum(spent) == 30
    assert {phase for phase, _, _ in run.reports} == {"seed"}


def test_glrg_learns_words_from_frames_then_leaves_them_alone() -> None:
    """Phase `words` moves the word network only and lowers its loss; phase `seed` moves the decoder only."""
    clips = clips_for("glrg", ("frames",))
    model = build("glrg", "xe", clips, **SMALL, dropout=0.0)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    middle: dict[str, Tensor] = {}
    run = run_of("glrg", "xe", epochs=40)
    original = run.report

    def report(phase: str, epoch: int, values: Mapping[str, float]) -> None:
        original(phase, epoch, values)
        if phase == "words":
            middle.update({key: value.clone() for key, value in model.state_dict().items()})

    run.report = report  # type: ignore[method-assign]
    model.fit(clips, run)
    after = model.state_dict()
    for key in before:
        network = key.startswith("word_network")
        measured = ".norm." in key  # set before the first phase
        assert torch.equal(before[key], middle[key]) == (not network), key
        assert torch.equal(middle[key], after[key]) == (network or measured), key
    words = [values["loss"] for phase, _, values in run.reports if phase == "words"]
    assert words[-1] < 0.5 * words[0]


def test_glrg_takes_its_vector_once_under_the_paper_protocol() -> None:
    """Eq. 6 as printed; beside every word, as the authors' code, under the standard one."""
    assert settings_of("glrg", "dxe", paper=True)["feed"] == "first"
    assert settings_of("glrg", "dxe")["feed"] == "every"


def test_glrg_with_learned_words_depends_on_the_frames() -> None:
    clips = clips_for("glrg", ("frames",))
    model = build("glrg", "xe", clips, **SMALL)
    model.module.eval()
    batch = next(clips.in_order(10))
    before = model.captioner.encode(batch)["fused"]
    batch.streams["frames"] = batch.streams["frames"] + 1.0
    assert not torch.equal(model.captioner.encode(batch)["fused"], before)


SUBSETS = {
    "dxe": ["words", "actions", "objects"],
    "long": ["words"],
    "short": ["actions"],
    "local": ["objects"],
    "short_long": ["words", "actions"],
    "local_long": ["words", "objects"],
    "local_short": ["actions", "objects"],
}
"""The rows of GL-RG's Table 2 and what they read."""


@pytest.mark.parametrize("mode", ["paper", "official"])
@pytest.mark.parametrize("variant", SUBSETS)
def test_glrg_reads_the_ranges_of_its_row(variant: str, mode: str) -> None:
    clips = clips_for("glrg", ("words", "actions", "objects"))
    model = build("glrg", variant, clips, mode=mode, **SMALL)
    assert list(model.captioner.decoder.reads) == SUBSETS[variant]
    (batch,) = clips.epoch(0, 100, 100)
    (phase,) = phases_of(model, "glrg", variant, clips)
    check_learning(model, phase, batch)
    card = CARDS["glrg"].reading(variant).streams
    assert {*card.needs, *card.uses} - {"frames"} == set(SUBSETS[variant])


def test_the_rows_of_glrg_have_names_of_their_own() -> None:
    titles = [variant.title for variant in CARDS["glrg"].variants.values()]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    ("variant", "epochs", "seeding"), [("dxe", 30, 1.0), ("dxe_b2", 100, 0.3), ("xe_b2", 100, 0.3)]
)
def test_the_printed_schedule_of_glrg(variant: str, epochs: int, seeding: float) -> None:
    """30 epochs of seeding, 100 in all with boosting, where the three vocabularies are streams."""
    card = CARDS["glrg"]
    assert card.protocol_paper is not None
    printed = card.variants[variant].printed
    assert (printed.epochs or given(card.protocol_paper.train)["epochs"]) == epochs
    shares = {key: share for key, share in (printed.phases or card.phases).items() if key != "words"}
    assert shares["seed"] / sum(shares.values()) == pytest.approx(seeding)


def test_glrg_without_any_stream_of_its_ranges_says_so() -> None:
    with pytest.raises(ValueError, match="ranges=short finds none of its streams actions"):
        build("glrg", "xe", clips_for("glrg", ("frames",)), ranges="short")
    with pytest.raises(ValueError, match="needs the stream words, or frames"):
        build("glrg", "xe", clips_for("glrg", ("actions",)))


def spoken_clips(captions: Mapping[str, list[str]]) -> CorpusClips:
    """Clips with given sentences and all of GL-RG's streams."""
    words = list(dict.fromkeys(word for texts in captions.values() for text in texts for word in text.split()))
    vocabulary = Vocabulary(("<pad>", "<bos>", "<eos>", "<unk>", *words))
    references = {
        clip: tuple(
            Reference(f"{clip}#{number}", clip, text, tuple(text.split()), tuple(vocabulary.encode(text.split())))
            for number, text in enumerate(texts)
        )
        for clip, texts in captions.items()
    }
    random = np.random.default_rng(0)
    ids = list(captions)
    sources = {}
    for name in ("words", "actions", "objects"):
        values = random.random((len(ids), *SHAPES[name])).astype(np.float32)
        info = StreamInfo(name, SHAPES[name], False, "0" * 64)
        sources[name] = stream_source(info, ids, values, [1] * len(ids))
    return CorpusClips(ids, references, sources, vocabulary)


PLANTED = {
    "v1": [
        "a man is cutting a red onion",
        "a man cuts a red onion",
        "the moon orbits our planet",
        "a man is cutting an onion",
    ],
    "v2": ["a dog runs on the grass", "a dog is running on grass", "a dog runs over the green grass", "a dog runs"],
    "v3": [
        "a woman plays the guitar",
        "a woman is playing a guitar",
        "the woman plays guitar",
        "a woman plays a guitar",
    ],
}
BAD = "v1#2"


@pytest.mark.parametrize("metric", ["cider", "bleu4", "rouge_l"])
def test_a_planted_caption_that_agrees_with_no_other_weighs_least(metric: str) -> None:
    clips = spoken_clips(PLANTED)
    weights = caption_weights(clips, metric)
    assert set(weights) == {ref.id for clip in clips.ids for ref in clips.references(clip)}
    assert min(weights, key=lambda caption: weights[caption]) == BAD
    assert weights[BAD] < 0.5 * np.mean([weights[f"v1#{number}"] for number in (0, 1, 3)])


def test_weights_scaled_by_their_mean_have_mean_one_and_the_same_order() -> None:
    """Over captions: a clip of two counts half as much as one of four."""
    clips = spoken_clips({**PLANTED, "v2": PLANTED["v2"][:2]})
    raw, scaled = caption_weights(clips, "cider"), caption_weights(clips, "cider", scale="mean")
    assert np.mean(list(scaled.values())) == pytest.approx(1.0)
    factor = scaled["v1#0"] / raw["v1#0"]
    assert scaled == pytest.approx({caption: factor * weight for caption, weight in raw.items()})


def test_weights_are_by_caption_and_not_by_place_in_the_batch() -> None:
    """The DXE loss of every batch of every order is the mean of weight times -log p of its own captions."""
    clips = spoken_clips(PLANTED)
    model = build("glrg", "dxe", clips, **SMALL, dropout=0.0)
    dxe = phases_of(model, "glrg", "dxe", clips)[-1]
    plain = build("glrg", "xe", clips, **SMALL, dropout=0.0)
    plain.load_state_dict(model.state_dict())
    xe = phases_of(plain, "glrg", "xe", clips)[-1]
    weights = caption_weights(clips, "cider")
    single: dict[str, float] = {}
    for batch in clips.epoch(0, 1, 1):
        single[batch.caption_ids[0]] = xe.loss(batch)["loss"].item()
    for order in range(3):
        for batch in clips.epoch(order, 5, 2):
            expected = np.mean([weights[caption] * single[caption] for caption in batch.caption_ids])
            losses = dxe.loss(batch)
            assert losses["loss"].item() == pytest.approx(expected, rel=1e-4)
            unweighted = np.mean([single[caption] for caption in batch.caption_ids])
            assert losses["cross_entropy"].item() == pytest.approx(unweighted, rel=1e-4)


def test_dxe_learns_the_planted_caption_less_than_xe_does() -> None:
    """After the same training, -log p of the planted caption is higher under DXE."""

    def bad_loss(variant: str) -> float:
        clips = spoken_clips(PLANTED)
        model = build("glrg", variant, clips, **SMALL, dropout=0.0)
        rising = itertools.count()  # every epoch is better than the one before: the last weights stay
        train = {"learning_rate": 0.01, "captions": 6}
        model.fit(clips, FakeRun(12 * 30, {"seed": 1.0}, train, score=lambda method: float(next(rising))))
        plain = build("glrg", "xe", clips, **SMALL, dropout=0.0)
        plain.load_state_dict(model.state_dict())
        (phase,) = phases_of(plain, "glrg", "xe", clips)
        losses = {batch.caption_ids: phase.loss(batch)["loss"].item() for batch in clips.epoch(0, 1, 1)}
        return losses[(BAD,)]

    assert bad_loss("dxe") > bad_loss("xe") + 0.5


def test_frequent_words_are_content_words_by_count_then_by_place() -> None:
    clips = spoken_clips(
        {"v1": ["a man is riding a horse", "a man rides a horse"], "v2": ["the horse eats", "grass is eaten"]}
    )
    words = [clips.vocabulary.words[word] for word in frequent_words(clips, 4)]
    assert words == ["horse", "man", "riding", "rides"]
    labels = clip_labels(clips, frequent_words(clips, 4), 6)
    assert labels["v1"].tolist() == [1, 1, 1, 1, 0, 0]
    assert labels["v2"].tolist() == [1, 0, 0, 0, 0, 0]
    assert EOS not in frequent_words(clips, 100)
