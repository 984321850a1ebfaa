"""EtENet behind the contract: step 1, the decoder on a frozen encoder's features; step 2, both from pixels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.method import Batch, Caption, Clips, Run, Search, StreamInfo, Vocabulary
from bench.nn.decoding import teacher_forcing, word_losses
from bench.training import CaptionModel, Group, Losses, Phase
from methods.etenet.model import EndToEnd, EtENetDecoder, doubly_stochastic

SECOND = {"end_to_end": "end_to_end", "frozen": "decoder_only"}
"""Phase of step 2, by what the setting `step2` says of the encoder."""

AGREE = 0.1
"""Largest distance, relative to their length, of cached features from what the encoder makes of the pixels. Rounding to
float16 costs 2e-4, frames resized by PIL 0.08, by torch 0.3, padding on the other side 0.5."""


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

    def losses(captioner: EtENetDecoder | EndToEnd, batch: Batch, run: Run) -> Losses:
        """L_NLL (or another loss of the run) + lambda L_DSA, eq. 20."""
        forced = teacher_forcing(captioner, batch, run.train["scheduled_sampling"])
        caption = run.loss(word_losses(captioner, forced), batch, forced.targets_BW)  # eq. 18
        assert forced.attention_BWT is not None
        spread = doubly_stochastic(forced.attention_BWT, forced.memory["mask"][batch.clip_of_B])
        return {**caption, "loss": caption["loss"] + weight * spread, "doubly_stochastic": spread.detach()}

    def step1(run: Run) -> Phase:
        return Phase(
            "frozen", lambda batch: losses(decoder, batch, run), decoder, run.shares["frozen"], reads=["frames"]
        )

    if settings["step2"] == "none":
        return CaptionModel(decoder, vocabulary, lambda clips, run: [step1(run)])
    if "pixels" not in streams:
        raise ValueError(
            f"step2={settings['step2']} reads the stream pixels: use a variant that does, step2 or step2_frozen"
        )
    model = EndToEnd(decoder, learns=settings["step2"] == "end_to_end")

    def phases(clips: Clips, run: Run) -> Sequence[Phase]:
        name = SECOND[settings["step2"]]
        if name not in run.shares:
            raise ValueError(
                f"step2={settings['step2']} trains in the phases frozen and {name}; this variant lacks {name}"
            )

        def step2(batch: Batch) -> Losses:
            model.from_pixels.fill_(True)
            return losses(model, batch, run)

        groups = [Group(decoder)]
        if model.learns:
            own = Group(model.trainable(), settings["encoder_rate"], settings["encoder_weight_decay"])
            groups.append(own)
        return [step1(run), Phase(name, step2, model, run.shares[name], groups=groups, reads=["pixels"])]

    return FromPixels(model, vocabulary, phases, settings, streams["pixels"])


class FromPixels(CaptionModel):
    """A `CaptionModel` with an encoder in front, which is on loan."""

    captioner: EndToEnd

    def __init__(
        self, model: EndToEnd, vocabulary: Vocabulary, phases: Any, settings: Mapping[str, Any], pixels: StreamInfo
    ) -> None:
        super().__init__(model, vocabulary, phases)
        self.encoder_name = settings["encoder"] or pixels.encoder
        self.encoder_weights = settings["encoder_weights"]
        self.lend: Callable[[str, str], nn.Module] | None = None

    def prepare(self, lend: Callable[[str, str], nn.Module]) -> None:
        self.lend = lend

    def borrow(self, weights: str) -> None:
        """Take the encoder. Raises ValueError where neither the settings nor the pixels name one, or nobody lends it."""
        if not self.encoder_name:
            raise ValueError("nothing says for which encoder the pixels were prepared: set etenet.encoder=NAME")
        if self.lend is None:
            raise ValueError(f"encoder {self.encoder_name} has to be lent: call prepare first")
        self.captioner.attach(self.lend(self.encoder_name, weights))

    def fit(self, train: Clips, run: Run) -> None:
        """Train, once it is sure that step 2 goes on from the features of step 1."""
        self.prepare(run.encoder)
        self.borrow(self.encoder_weights)
        self._compare(train, run)
        super().fit(train, run)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over saved weights; an encoder that was not trained comes from its own file once more."""
        if self.captioner.phi is None:
            saved = any(name.startswith("encoder.") for name in state)
            self.borrow("empty" if saved else self.encoder_weights)
        super().load_state_dict(state)

    @torch.no_grad()
    def _compare(self, train: Clips, run: Run) -> None:
        """Raise ValueError where the cached features are not those that the encoder makes of the pixels."""
        batch = next(train.in_order(1)).to(run.device)
        cached_CTD, mask_CT = batch.streams["frames"], batch.masks["frames"]
        if not torch.equal(mask_CT, batch.masks["pixels"]):
            raise ValueError(
                f"step 2 goes on from step 1, but clip {batch.clip_ids[0]} has {int(mask_CT[0].sum())} frames in the stream "
                f"frames and {int(batch.masks['pixels'][0].sum())} in pixels: make both streams with the same number"
            )
        seen_CTD = self.captioner.look(batch.streams["pixels"], mask_CT)
        if seen_CTD.shape != cached_CTD.shape:
            off = f"are {seen_CTD.shape[-1]} wide, not {cached_CTD.shape[-1]}"
        else:
            distance = float((seen_CTD - cached_CTD)[mask_CT].norm() / cached_CTD[mask_CT].norm().clamp(min=1e-12))
            if distance <= AGREE:
                return
            off = f"are off by {distance:.0%}"
        raise ValueError(
            f"step 2 goes on from step 1, but the vectors that encoder {self.encoder_name} makes of the pixels {off} from the "
            f"stream frames: make frames and pixels for one encoder, and name its weights with etenet.encoder_weights=FILE"
        )

    def decode(self, clips: Clips, search: Search) -> list[Caption]:
        """Beam search, from pixels once step 2 has begun."""
        return super().decode(clips.reading(["pixels" if self.captioner.from_pixels else "frames"]), search)
