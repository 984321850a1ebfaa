"""RecNet behind the contract: a captioner, then a reconstructor on its hidden states, then self-critical training."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from bench.method import Batch, Clips, Run, StreamInfo, Vocabulary, WordLoss
from bench.nn.bases import BASES, Base
from bench.nn.decoding import Forced, teacher_forcing, word_losses
from bench.training import CaptionModel, Losses, Phase, cross_entropy_phase, plain_loss, self_critical_phase
from methods.recnet.model import Reconstructor


class RecNet(nn.Module):
    """Decoder and reconstructor; only the decoder writes captions."""

    def __init__(self, decoder: Base, reconstructor: Reconstructor, weight: float) -> None:
        super().__init__()
        self.decoder, self.reconstructor, self.weight = decoder, reconstructor, weight

    def reconstruction(self, batch: Batch, forced: Forced) -> Tensor:
        """L_rec of a pass of the decoder over the captions of `batch`."""
        frames_CTD, mask_CT = self.decoder.frames(batch)
        return self.reconstructor(forced, frames_CTD[batch.clip_of_B], mask_CT[batch.clip_of_B])

    def losses(self, batch: Batch, sampling: float, word_loss: WordLoss = plain_loss) -> Losses:
        """L_ED + lambda L_rec, eq. 22, with the cross-entropy of eq. 14 as L_ED unless the run has another loss."""
        forced = teacher_forcing(self.decoder, batch, sampling)
        caption = word_loss(word_losses(self.decoder, forced), batch, forced.targets_BW)
        rebuild = self.reconstruction(batch, forced)
        return {**caption, "loss": caption["loss"] + self.weight * rebuild, "reconstruction": rebuild.detach()}

    def beside(self, batch: Batch, forced: Forced) -> Losses:
        """lambda L_rec of drawn captions: what eq. 22 adds when L_ED is the negative reward of eq. 15."""
        rebuild = self.reconstruction(batch, forced)
        return {"loss": self.weight * rebuild, "reconstruction": rebuild.detach()}


def build(settings: Mapping[str, Any], streams: Mapping[str, StreamInfo], vocabulary: Vocabulary) -> CaptionModel:
    frame_width = streams["frames"].shape[-1]
    decoder = BASES[settings["base"]](len(vocabulary), frame_width, settings)
    reconstructor = Reconstructor(
        settings["reconstructor"],
        decoder.width,
        frame_width,
        settings["attention"],
        settings["rec_norm"],
        settings["word_weights"],
    )
    model = RecNet(decoder, reconstructor, settings["reconstruction_weight"])

    def phases(clips: Clips, run: Run) -> Sequence[Phase]:
        sampling = run.train["scheduled_sampling"]
        learner: Any = (
            model if model.weight else decoder
        )  # the control with lambda = 0 teaches its reconstructor nothing
        recipe = [
            cross_entropy_phase(decoder, run, "base"),
            Phase(
                "reconstruct", lambda batch: model.losses(batch, sampling, run.loss), learner, run.shares["reconstruct"]
            ),
        ]
        if "reinforce" in run.shares:
            recipe.append(self_critical_phase(decoder, settings, clips, run, module=learner, beside=model.beside))
        return recipe

    return CaptionModel(decoder, vocabulary, phases, module=model)
