"""RecNet behind the contract: a soft-attention captioner, then the same with a reconstructor on its hidden states."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from bench.method import Batch, Clips, Run, StreamInfo, Vocabulary
from bench.nn.captioners import SoftAttention
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.training import CaptionModel, Losses, Phase, cross_entropy_phase
from methods.recnet.model import Reconstructor


class RecNet(nn.Module):
    """Decoder and reconstructor; only the decoder writes captions."""

    def __init__(self, decoder: SoftAttention, reconstructor: Reconstructor, weight: float) -> None:
        super().__init__()
        self.decoder, self.reconstructor, self.weight = decoder, reconstructor, weight

    def losses(self, batch: Batch, sampling: float) -> Losses:
        """L_ED + lambda L_rec, eq. 22."""
        forced = teacher_forcing(self.decoder, batch, sampling)
        caption = cross_entropy(word_losses(self.decoder, forced))
        frames_CTD, mask_CT = self.decoder.frames(batch)
        rebuild = self.reconstructor(forced, frames_CTD[batch.clip_of_B], mask_CT[batch.clip_of_B])
        loss = caption + self.weight * rebuild
        return {"loss": loss, "cross_entropy": caption.detach(), "reconstruction": rebuild.detach()}


def build(settings: Mapping[str, Any], streams: Mapping[str, StreamInfo], vocabulary: Vocabulary) -> CaptionModel:
    frame_width = streams["frames"].shape[-1]
    decoder = SoftAttention(
        len(vocabulary),
        frame_width,
        settings["width"],
        settings["embedding"],
        settings["dropout"],
        settings["normalise"],
        settings["attention"],
        settings["initial"],
    )
    reconstructor = Reconstructor(
        settings["reconstructor"], settings["width"], frame_width, settings["attention"], settings["rec_norm"]
    )
    model = RecNet(decoder, reconstructor, settings["reconstruction_weight"])

    def phases(clips: Clips, run: Run) -> Sequence[Phase]:
        sampling = run.train["scheduled_sampling"]
        return [
            cross_entropy_phase(decoder, run, "base"),
            Phase("reconstruct", lambda batch: model.losses(batch, sampling), model, run.shares["reconstruct"]),
        ]

    return CaptionModel(decoder, vocabulary, phases, module=model)
