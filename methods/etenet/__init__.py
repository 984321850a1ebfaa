"""EtENet behind the contract: step 1, the decoder on a frozen encoder's features."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.method import Batch, Clips, Run, StreamInfo, Vocabulary
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.training import CaptionModel, Losses, Phase
from methods.etenet.model import EtENetDecoder, doubly_stochastic


def build(settings: Mapping[str, Any], streams: Mapping[str, StreamInfo], vocabulary: Vocabulary) -> CaptionModel:
    decoder = EtENetDecoder(
        len(vocabulary),
        streams["frames"].shape[-1],
        settings["width"],
        settings["embedding"],
        settings["attention"],
        settings["dropout"],
        settings["normalise"],
    )
    weight = settings["attention_weight"]

    def phases(clips: Clips, run: Run) -> Sequence[Phase]:
        def losses(batch: Batch) -> Losses:
            """L_NLL + lambda L_DSA, eq. 20."""
            forced = teacher_forcing(decoder, batch, run.train["scheduled_sampling"])
            caption = cross_entropy(word_losses(decoder, forced))  # eq. 18
            assert forced.attention_BWT is not None
            spread = doubly_stochastic(forced.attention_BWT, batch.masks["frames"][batch.clip_of_B])
            loss = caption + weight * spread
            return {"loss": loss, "cross_entropy": caption.detach(), "doubly_stochastic": spread.detach()}

        return [Phase("frozen", losses, decoder, run.shares["frozen"])]

    return CaptionModel(decoder, vocabulary, phases)
