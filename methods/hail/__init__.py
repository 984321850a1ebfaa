"""HA_IL behind the contract: hierarchical attention, trained by cross-entropy or by Information Loss."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.method import Batch, Clips, Run, StreamInfo, Vocabulary
from bench.nn.decoding import cross_entropy, teacher_forcing, word_losses
from bench.training import CaptionModel, Losses, Phase, cross_entropy_phase
from methods.hail.information import information_loss, target_weights, word_weights
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
        if settings["loss"] == "cross_entropy":
            return [cross_entropy_phase(model, run)]
        return [_information_phase(model, settings, clips, run)]

    return CaptionModel(model, vocabulary, phases)


def _width(stream: StreamInfo) -> int:
    """Features of one vector; raises ValueError for a stream of another form."""
    axes = FORMS[stream.name]
    if not stream.timed or len(stream.shape) != len(axes):
        raise ValueError(
            f"hail reads the stream {stream.name} as {' x '.join(axes)}, and this one has the shape "
            f"{'x'.join(map(str, stream.shape))}{'' if stream.timed else ' without time'}"
        )
    return stream.shape[-1]


def _information_phase(model: HierarchicalAttention, settings: Mapping[str, Any], clips: Clips, run: Run) -> Phase:
    """Cross-entropy with every word weighed by what it tells of its clip (eq. 8).

    The weights are a function of the training captions, so a resumed run counts them again and saves nothing.
    """
    table = word_weights(clips, settings["information_weight"], settings["relevance_exponent"])

    def losses(batch: Batch) -> Losses:
        forced = teacher_forcing(model, batch, run.train["scheduled_sampling"])
        losses_BW = word_losses(model, forced)
        loss = information_loss(losses_BW, target_weights(table, batch, forced.targets_BW, len(clips.vocabulary)))
        plain = cross_entropy(losses_BW).detach()
        return {"loss": loss, "cross_entropy": plain, "information_loss": loss.detach()}

    return Phase("base", losses, model, run.shares["base"])
