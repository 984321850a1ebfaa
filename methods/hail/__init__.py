"""HA_IL behind the contract: hierarchical attention, trained by cross-entropy or by Information Loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.method import Batch, Caption, Clips, Run, Search, StreamInfo, Vocabulary, WordLoss
from bench.nn.beam import beam_search
from bench.nn.decoding import Remembered, cross_entropy
from bench.training import CaptionModel, Losses, Phase, cross_entropy_phase
from methods.hail.information import WordWeights, information_loss, word_weights
from methods.hail.model import HierarchicalAttention

SOURCES = {"frames+motion+regions": ("regions", "frames", "motion"), "frames+motion": ("frames", "motion")}
"""The streams of each choice, in the order of eq. 3."""

FORMS = {"regions": ("time", "regions", "features"), "frames": ("time", "features"), "motion": ("time", "features")}
"""The axes of each stream."""


def build(settings: Mapping[str, Any], streams: Mapping[str, StreamInfo], vocabulary: Vocabulary) -> CaptionModel:
    sources, attend = settings["sources"], settings["attend"]
    if attend == "hierarchical" and "regions" not in SOURCES[sources]:
        raise ValueError(
            f"hail with attend=hierarchical attends to regions, and sources={sources} leaves them out; "
            "use attend=temporal or sources=frames+motion+regions"
        )
    model = HierarchicalAttention(
        len(vocabulary),
        {name: _width(streams[name]) for name in SOURCES[sources] if name in streams},
        attend,
        settings["width"],
        settings["embedding"],
        settings["attention"],
        settings["dropout"],
        settings["normalise"],
    )

    def phases(clips: Clips, run: Run) -> Sequence[Phase]:
        own = build_loss(settings, clips) if settings["loss"] == "information" else None
        return [cross_entropy_phase(model, run, loss=own)]

    return RegionModel(model, vocabulary, phases)


class RegionModel(CaptionModel):
    """A `CaptionModel` whose captions tell where the object LSTM looked."""

    module: HierarchicalAttention

    @torch.inference_mode()
    def caption(self, batch: Batch, search: Search) -> list[Caption]:
        """Beam search; `traces` hold `region_attention`, alpha of eq. 2, [T, k], where there is an object LSTM."""
        memory, alpha_CTk = self.module.look(batch)
        beside = {} if alpha_CTk is None else {"region_attention": alpha_CTk}
        return beam_search(Remembered(self.module, memory), batch, self.vocabulary, search, beside)


def _width(stream: StreamInfo) -> int:
    """Features of one vector; raises ValueError for a stream of another form."""
    axes = FORMS[stream.name]
    if not stream.timed or len(stream.shape) != len(axes):
        raise ValueError(
            f"hail reads the stream {stream.name} as {' x '.join(axes)}, and this one has the shape "
            f"{'x'.join(map(str, stream.shape))}{'' if stream.timed else ' without time'}"
        )
    return stream.shape[-1]


def build_loss(settings: Mapping[str, Any], clips: Clips) -> WordLoss:
    """Information Loss for any captioner: every word weighed by what it tells of its clip (eq. 8).

    The weights are a function of the training captions, so a resumed run counts them again and saves nothing.
    """
    table = word_weights(clips, settings["information_weight"], settings["relevance_exponent"])
    weights = WordWeights(table, len(clips.vocabulary))

    def losses(losses_BW: Tensor, batch: Batch, targets_BW: Tensor) -> Losses:
        loss = information_loss(losses_BW, weights.of_targets(batch, targets_BW))
        plain = cross_entropy(losses_BW).detach()
        return {"loss": loss, "cross_entropy": plain, "information_loss": loss.detach()}

    return losses
