"""Regions: the boxes that a detector is surest of, and what it sees in them.

A detector of torchvision proposes boxes and gives each the probability of every class. Each proposal speaks for its best class;
of boxes that overlap by more than half the surer one stays, and the k surest are taken, as bottom-up attention does (Anderson
et al., CVPR 2018). A box's vector is the detector's own, pooled under the corrected box.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bench import BenchError
from bench.features.encoders import built
from bench.features.specs import Spec, spec_of

OVERLAP = 0.5


class RegionEncoder(nn.Module):
    """uint8 frames [N, 3, H, W] -> `regions` [N, k, 1024], surest first, and `boxes` [N, k, 5]: x1, y1, x2, y2 as shares of width
    and height, and the probability. A frame with fewer boxes has zeros after them."""

    def __init__(self, spec: Spec, network: Any, count: int) -> None:
        super().__init__()
        self.spec, self.network, self.count = spec, network, count

    def forward(self, frames_NCYX: Tensor) -> dict[str, Tensor]:
        found = [self._one(frame) for frame in frames_NCYX]
        return {name: torch.stack([one[name] for one in found]) for name in ("regions", "boxes")}

    def _one(self, frame: Tensor) -> dict[str, Tensor]:
        network = self.network
        images, _ = network.transform([frame.float() / 255])
        maps = network.backbone(images.tensors)
        if isinstance(maps, Tensor):
            maps = {"0": maps}
        (proposals,), _ = network.rpn(images, maps)
        vectors = self._vectors(maps, proposals, images.image_sizes)
        logits, shifts = network.roi_heads.box_predictor(vectors)
        scores, classes = logits.softmax(-1)[:, 1:].max(dim=1)  # class 0 is the background
        boxes = network.roi_heads.box_coder.decode(shifts, [proposals])
        boxes = boxes[torch.arange(len(boxes), device=boxes.device), classes + 1]
        height, width = images.image_sizes[0]
        limits = boxes.new_tensor([width, height, width, height])
        boxes = boxes.clamp(min=0).minimum(limits)
        real = (boxes[:, 2] - boxes[:, 0] > 1) & (boxes[:, 3] - boxes[:, 1] > 1)
        boxes, scores = boxes[real], scores[real]
        from torchvision.ops import nms

        kept = nms(boxes, scores, OVERLAP)[: self.count]
        told = torch.cat([boxes[kept] / limits, scores[kept, None]], dim=1)
        return {
            "regions": _filled(self._vectors(maps, boxes[kept], images.image_sizes), self.count),
            "boxes": _filled(told, self.count),
        }

    def _vectors(self, maps: Mapping[str, Tensor], boxes: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        heads = self.network.roi_heads
        vectors: Tensor = heads.box_head(heads.box_roi_pool(maps, [boxes], sizes))
        return vectors


def _filled(rows: Tensor, count: int) -> Tensor:
    return nn.functional.pad(rows, (0, 0, 0, count - len(rows)))


def load_detector(name: str, weights: str, count: int, files: Mapping[str, str] | None = None) -> RegionEncoder:
    """The detector called `name`, in eval mode, on the CPU, for `count` boxes of a frame. Raises BenchError."""
    spec = spec_of(name)
    if spec.family != "regions":
        raise BenchError(f"encoder {name} finds no boxes, as the stream regions needs")
    return RegionEncoder(spec, built(spec, weights, files, gives="boxes"), count).eval()
