"""VRE behind the contract: warm-up on step 1, both steps with learned key frames, then both with the key frames fixed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.method import Batch, Caption, Clips, Run, Search, StreamInfo, Vocabulary
from bench.nn.beam import beam_search
from bench.nn.decoding import Captioner, Remembered
from bench.nn.host import on_host
from bench.nn.layers import FeatureNorm
from bench.nn.sampling import likeliest_words
from bench.training import (
    BASELINES,
    CaptionModel,
    CaptionReward,
    Losses,
    Phase,
    cross_entropy_phase,
    reinforce_phase,
)
from methods.vre.encoder import Encoder
from methods.vre.model import FIXED, VRE, Decoder, OnePass
from methods.vre.tables import Table

PHASES = ("warm_up", "joint", "retrain")


def build(settings: Mapping[str, Any], streams: Mapping[str, StreamInfo], vocabulary: Vocabulary) -> CaptionModel:
    def make() -> OnePass:
        return _module(settings, streams, len(vocabulary))

    model = make()
    if not isinstance(model, VRE):
        return OnePassModel(model, vocabulary, lambda clips, run: [cross_entropy_phase(model, run)])

    def phases(clips: Clips, run: Run) -> Sequence[Phase]:
        return _procedure(model, make, settings, clips, run)

    return RefocusedModel(model, vocabulary, phases)


def _module(settings: Mapping[str, Any], streams: Mapping[str, StreamInfo], words: int) -> OnePass:
    sizes = {name: streams[name].shape[-1] for name in ("frames", "spatial", "audio") if name in streams}
    norms = {name: FeatureNorm(size, name) for name, size in sizes.items()} if settings["normalise"] else {}
    kind, width, attention = settings["encoder"], settings["width"], settings["attention"]
    spatial, audio = sizes.get("spatial", 0), sizes.get("audio", 0)
    encoder = None
    if kind != "none":
        encoder = Encoder(sizes["frames"], audio, width, attention, passes=2 if kind == "vre" else 1)
    decoder = Decoder(
        words,
        sizes["frames"],
        spatial,
        audio,
        width,
        settings["embedding"],
        attention,
        settings["dropout"],
        encoded=encoder is not None,
    )
    return VRE(norms, encoder, decoder) if encoder is not None and kind == "vre" else OnePass(norms, encoder, decoder)


def _procedure(
    model: VRE, make: Callable[[], OnePass], settings: Mapping[str, Any], clips: Clips, run: Run
) -> Sequence[Phase]:
    """Section 4.2: step 1 alone; both steps with LR+; key frames of the best model fixed; both steps without refocusing;
    then, where the variant gives it a share of the budget, the decoder by CIDEr and ROUGE-L of the captions of step 2.
    """
    if lacking := [name for name in PHASES if name not in run.shares]:
        raise ValueError(
            f"encoder=vre trains in the phases {', '.join(PHASES)}; this variant lacks {', '.join(lacking)}"
        )
    model.open(clips)
    sampling = run.train["scheduled_sampling"]
    encoder, decoder = model.encoder, model.decoder

    def joint(batch: Batch) -> Losses:
        return model.joint_losses(
            batch, sampling, settings["refocus_weight"], settings["refocus_loss"], settings["reward_feeding"]
        )

    def retrain(batch: Batch) -> Losses:
        if model.stage != FIXED:  # the first batch: the best weights of the joint phase have just been loaded
            model.fix_key_frames(clips)
            if settings["retrain_from"] == "scratch":
                fresh = make()
                assert isinstance(fresh, VRE)
                model.restart(fresh)
        return model.fixed_losses(batch, sampling)

    recipe = [
        cross_entropy_phase(model, run, "warm_up", nn.ModuleList([encoder.scan, encoder.combine, decoder])),
        Phase("joint", joint, nn.ModuleList([encoder, decoder]), run.shares["joint"]),
        Phase(
            "retrain",
            retrain,
            nn.ModuleList([encoder.scan, encoder.combine, encoder.merge, decoder]),
            run.shares["retrain"],
        ),
    ]
    if "reinforce" in run.shares:
        reward = CaptionReward.of_clips(clips, ("cider", "rouge_l"), settings["reward_end"])
        train = {"optimizer": "adam", "learning_rate": settings["reinforce_rate"]}
        recipe.append(reinforce_phase(model, run, reward, BASELINES["greedy"], module=decoder, train=train))
    return recipe


class OnePassModel(CaptionModel):
    """A `CaptionModel` whose captions tell where the decoder looked."""

    module: OnePass

    def caption(self, batch: Batch, search: Search) -> list[Caption]:
        """Beam search; `traces` hold `attention` [W, T] and, where the decoder attends to places, `spatial_attention` [W, S]."""
        return self.write(self.module, batch, search, {})

    def write(self, captioner: Captioner, batch: Batch, search: Search, beside: Mapping[str, Tensor]) -> list[Caption]:
        """Beam search of `captioner`, with the weights of frames and of places under names of their own."""
        frames = batch.streams["frames"].shape[1]
        found = []
        for caption in beam_search(captioner, batch, self.vocabulary, search, beside):
            rows = caption.traces["attention"]
            traces = {**caption.traces, "attention": [row[:frames] for row in rows]}
            if self.module.decoder.spatial is not None:
                traces["spatial_attention"] = [row[frames:] for row in rows]
            found.append(replace(caption, traces=traces))
        return found


class RefocusedModel(OnePassModel):
    """A `CaptionModel` whose checkpoints hold tables as long as the training split, and whose captions tell the key frame."""

    module: VRE

    @torch.inference_mode()
    def caption(self, batch: Batch, search: Search) -> list[Caption]:
        """Beam search in step 2; `traces` as of the rows of one pass, and more.

        `key_frame` (from 0), `refocusing` (the weights alpha of the clip's frames) and `first_caption`, the greedy caption of
        step 1: what the model would say if it watched once.
        """
        watched, decoder = self.module.watch(batch), self.module.decoder
        beside = {
            "key_frame": watched.key,
            "refocusing": watched.log_weights.exp(),
            "first_caption": likeliest_words(Remembered(decoder, watched.first), batch, search.max_words),
        }
        captions = self.write(Remembered(decoder, watched.second), batch, search, beside)
        counts = on_host(batch.masks["frames"]).sum(1).tolist()
        return [
            replace(
                caption,
                traces={
                    **caption.traces,
                    "refocusing": caption.traces["refocusing"][:count],
                    "first_caption": " ".join(self.vocabulary.decode(caption.traces["first_caption"])),
                },
            )
            for caption, count in zip(captions, counts, strict=True)
        ]

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over saved weights and tables; a state that does not fit changes nothing."""
        tables = {name: part for name, part in self.module.named_modules() if isinstance(part, Table)}
        before = {name: (table.marks, table.values) for name, table in tables.items()}
        for name, table in tables.items():
            if f"{name}.marks" in state:
                table.make_room(len(state[f"{name}.marks"]))
        try:
            super().load_state_dict(state)
        except ValueError:
            for name, (marks, values) in before.items():
                tables[name].marks, tables[name].values = marks, values
            raise
