"""GL-RG behind the contract: long-range words learned where no stream has them, captions seeded by XE or DXE, then boosted."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.method import Batch, Clips, Run, StreamInfo, Vocabulary, WordLoss
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.training import (
    CaptionModel,
    CaptionReward,
    Losses,
    Phase,
    caption_weights,
    cross_entropy_phase,
    reinforce_phase,
)
from methods.glrg.boosting import choose_baseline
from methods.glrg.model import GLRG, RANGES, Decoder, WordNetwork, chance_of_truth, discrepant_cross_entropy
from methods.glrg.official import OfficialDecoder, OfficialModel, policy_phase, slot_weights, token_loss
from methods.glrg.words import clip_labels, frequent_words

LONG_WORDS = 300  # K, section 4


def build(settings: Mapping[str, Any], streams: Mapping[str, StreamInfo], vocabulary: Vocabulary) -> CaptionModel:
    wanted = [
        name for name, reach in RANGES.items() if settings["ranges"] == "all" or reach in settings["ranges"].split("+")
    ]
    sizes = {name: streams[name].shape[-1] for name in wanted if name in streams}
    network = None
    if "words" in wanted and "words" not in streams:
        if "frames" not in streams:
            raise ValueError("glrg needs the stream words, or frames to learn the long-range words from")
        network = WordNetwork(
            streams["frames"].shape[-1], settings["width"], LONG_WORDS, settings["dropout"], settings["normalise"]
        )
        sizes = {"words": LONG_WORDS, **sizes}
    if not sizes:
        raise ValueError(f"glrg with ranges={settings['ranges']} finds none of its streams {', '.join(wanted)}")
    parts = (
        len(vocabulary),
        sizes,
        settings["width"],
        settings["embedding"],
        settings["dropout"],
        settings["normalise"],
    )
    official = settings["mode"] == "official"
    model = GLRG(OfficialDecoder(*parts) if official else Decoder(*parts, settings["feed"]), network)

    def phases(clips: Clips, run: Run) -> Sequence[Phase]:
        _check_recipe(settings, run)
        first = [] if network is None else [_word_phase(network, clips, run)]
        boost = [_boost_phase(model, settings, clips, run)] if "boost" in run.shares else []
        return [*first, _seed_phase(model, settings, clips, run), *boost]

    return (OfficialModel if official else CaptionModel)(model, vocabulary, phases)


def _check_recipe(settings: Mapping[str, Any], run: Run) -> None:
    """Raise ValueError for settings that would do nothing in this run, or contradict it."""
    baseline, train = settings["baseline"], run.train
    if (baseline is not None) != ("boost" in run.shares):
        has = f"baseline={baseline}" if baseline else "no baseline"
        raise ValueError(
            f"glrg has {has} and the phases {', '.join(run.shares)}: a baseline belongs to the phase boost; "
            "run a variant that boosts (glrg:dxe_b2, glrg:dxe_none, ..), or leave the baseline out"
        )
    if settings["top_samples"] is not None and baseline != "b2":
        raise ValueError(f"glrg.Q={settings['top_samples']} counts the captions of b2, and the baseline is {baseline}")
    if baseline == "b2" and train["captions_per_clip"] == 1:
        raise ValueError(
            "b2 measures a drawn caption against those of its clip, and with train.captions_per_clip=1 it would be "
            "measured against itself: draw more, or take another baseline"
        )
    if settings["truth_schedule"] != "none" and train["scheduled_sampling"]:
        raise ValueError(
            f"glrg.truth_schedule={settings['truth_schedule']} sets the chance of own words epoch by epoch, and "
            f"train.scheduled_sampling={train['scheduled_sampling']:g} for all of them: leave one out"
        )
    if settings["mode"] == "official" and run.search.length_rule != "none":
        raise ValueError(
            f"glrg.mode=official ranks beams by perplexity, and search.length_rule={run.search.length_rule} by another "
            "rule: leave it out"
        )


def _seed_phase(model: GLRG, settings: Mapping[str, Any], clips: Clips, run: Run) -> Phase:
    """Seeding by XE or DXE: the true word is fed back, or the model's own among them by the schedule of eq. 6."""
    loss, schedule = _seed_loss(settings, clips, run), settings["truth_schedule"]
    if schedule == "none":
        return cross_entropy_phase(model, run, "seed", model.decoder, loss)
    truth = [1.0]

    def begin(epoch: int) -> None:
        truth[0] = chance_of_truth(schedule, epoch)

    def losses(batch: Batch) -> Losses:
        forced = teacher_forcing(model, batch, 1 - truth[0])
        found = loss(word_losses(model, forced), batch, forced.targets_BW)
        return {**found, "truth": torch.tensor(truth[0])}

    return Phase("seed", losses, model.decoder, run.shares["seed"], begin=begin)


def _seed_loss(settings: Mapping[str, Any], clips: Clips, run: Run) -> WordLoss:
    if settings["mode"] == "official":
        return token_loss(settings, clips, run.train["captions_per_clip"])
    if settings["seed_weight"] == "none":
        return run.loss
    if settings["weight_order"] == "printed":
        return build_loss(settings, clips)
    weights = caption_weights(clips, settings["seed_weight"], scale=settings["weight_scale"])
    return _weighed(slot_weights(clips, weights, run.train["captions_per_clip"]))


def _boost_phase(model: GLRG, settings: Mapping[str, Any], clips: Clips, run: Run) -> Phase:
    """Boosting: CIDEr-D of drawn captions, one for each caption slot of a batch, less the baseline (eq. 9-11)."""
    reward = CaptionReward.of_clips(clips, end_mark=settings["reward_end"])
    baseline = choose_baseline(settings, clips, run.train["captions_per_clip"])
    train = {"optimizer": "adam", "learning_rate": settings["boost_rate"]}
    if settings["mode"] == "official":
        return policy_phase(model, run, reward, baseline, "boost", train)
    return reinforce_phase(model, run, reward, baseline, "boost", model.decoder, train)


def _word_phase(network: WordNetwork, clips: Clips, run: Run) -> Phase:
    """Multi-label classification of the data set's frequent words, binary cross-entropy summed over words."""
    labels = clip_labels(clips, frequent_words(clips, LONG_WORDS), LONG_WORDS)

    def losses(batch: Batch) -> Losses:
        logits = network(batch.streams["frames"], batch.masks["frames"])
        target = torch.stack([labels[clip] for clip in batch.clip_ids]).to(logits.device)
        loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1).mean()
        return {"loss": loss, "word_cross_entropy": loss.detach()}

    return Phase("words", losses, network, run.shares["words"], validate=False)


def build_loss(settings: Mapping[str, Any], clips: Clips) -> WordLoss:
    """DXE for any captioner: each caption weighed by its consensus with the others of its clip (eq. 8)."""
    weights = caption_weights(clips, settings["seed_weight"], scale=settings["weight_scale"])
    return _weighed(lambda batch: [weights[caption] for caption in batch.caption_ids])


def _weighed(weigh: Callable[[Batch], list[float]]) -> WordLoss:
    """DXE with the weights that `weigh` gives to the captions of a batch."""

    def losses(losses_BW: Tensor, batch: Batch, targets_BW: Tensor) -> Losses:
        plain = cross_entropy(losses_BW)
        weights_B = losses_BW.new_tensor(weigh(batch))
        loss = discrepant_cross_entropy(losses_BW, weights_B)
        return {"loss": loss, "cross_entropy": plain.detach(), "discrepant_cross_entropy": loss.detach()}

    return losses
