"""GL-RG behind the contract: the long-range words are learned where no stream has them, then captions by XE or DXE."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from bench.method import Batch, Clips, Run, StreamInfo, Vocabulary
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.training import CaptionModel, Losses, Phase, caption_weights
from methods.glrg.model import GLRG, RANGES, Decoder, WordNetwork, discrepant_cross_entropy
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
    decoder = Decoder(
        len(vocabulary),
        sizes,
        settings["width"],
        settings["embedding"],
        settings["dropout"],
        settings["normalise"],
        settings["feed"],
    )
    model = GLRG(decoder, network)

    def phases(clips: Clips, run: Run) -> Sequence[Phase]:
        first = [] if network is None else [_word_phase(network, clips, run)]
        return [*first, _seed_phase(model, settings, clips, run)]

    return CaptionModel(model, vocabulary, phases)


def _word_phase(network: WordNetwork, clips: Clips, run: Run) -> Phase:
    """Multi-label classification of the data set's frequent words, binary cross-entropy summed over words."""
    labels = clip_labels(clips, frequent_words(clips, LONG_WORDS), LONG_WORDS)

    def losses(batch: Batch) -> Losses:
        logits = network(batch.streams["frames"], batch.masks["frames"])
        target = torch.stack([labels[clip] for clip in batch.clip_ids]).to(logits.device)
        loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none").sum(1).mean()
        return {"loss": loss, "word_cross_entropy": loss.detach()}

    return Phase("words", losses, network, run.shares["words"], validate=False)


def _seed_phase(model: GLRG, settings: Mapping[str, Any], clips: Clips, run: Run) -> Phase:
    """Seeding: XE, or DXE with the consensus of each caption with the others of its clip as weight (eq. 8)."""
    metric = settings["seed_weight"]
    weights = None if metric == "none" else caption_weights(clips, metric, scale=settings["weight_scale"])

    def losses(batch: Batch) -> Losses:
        losses_BW = word_losses(model, teacher_forcing(model, batch, run.train["scheduled_sampling"]))
        plain = cross_entropy(losses_BW)
        if weights is None:
            return {"loss": plain, "cross_entropy": plain.detach()}
        weights_B = torch.tensor([weights[caption] for caption in batch.caption_ids], device=losses_BW.device)
        loss = discrepant_cross_entropy(losses_BW, weights_B.to(losses_BW.dtype))
        return {"loss": loss, "cross_entropy": plain.detach(), "discrepant_cross_entropy": loss.detach()}

    return Phase("seed", losses, model.decoder, run.shares["seed"])
