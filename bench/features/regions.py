"""Detectors: the surest boxes of each frame, and what is seen in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench import BenchError
from bench.features.boxes import roi_means
from bench.features.encoders import Encoder, built, check_known, class_number, find_file, load_encoder, scaled
from bench.features.heads import COCO, HEADS, Grid, best
from bench.features.onnx import OnnxNetwork
from bench.features.onnx_spec import vectors_of
from bench.features.specs import Spec, spec_of

OVERLAP = 0.5  # of two boxes of which the less sure one is dropped
CELLS, SAMPLES = 7, 2  # of a side of a box in the map, and of a cell: Mask R-CNN's


class RegionEncoder(nn.Module):
    """uint8 frames [N, 3, H, W] -> `regions` [N, k, 1024], surest first, and `boxes` [N, k, 6]: x1, y1, x2, y2 as shares of width
    and height, the probability, and the number of the class. A frame with fewer boxes has zeros after them."""

    def __init__(self, spec: Spec, network: Any, count: int) -> None:
        super().__init__()
        self.spec, self.network, self.count, self.width = spec, network, count, spec.width

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
        boxes, scores, classes = boxes[real], scores[real], classes[real]
        from torchvision.ops import nms

        kept = nms(boxes, scores, OVERLAP)[: self.count]
        scored = torch.cat([boxes[kept] / limits, scores[kept, None], 1 + classes[kept, None].to(boxes.dtype)], dim=1)
        return {
            "regions": _filled(self._vectors(maps, boxes[kept], images.image_sizes), self.count),
            "boxes": _filled(scored, self.count),
        }

    def _vectors(self, maps: Mapping[str, Tensor], boxes: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
        heads = self.network.roi_heads
        vectors: Tensor = heads.box_head(heads.box_roi_pool(maps, [boxes], sizes))
        return vectors


def _filled(rows: Tensor, count: int) -> Tensor:
    return nn.functional.pad(rows, (0, 0, 0, count - len(rows)))


class DeclaredDetector(nn.Module):
    """A detector in an ONNX file and the 2-D encoder from whose maps the vectors of its boxes are pooled: uint8 frames at the
    detector's size and at the encoder's -> `regions` [N, k, C] and `boxes` [N, k, 6] as `RegionEncoder` gives them."""

    def __init__(self, spec: Spec, detector: OnnxNetwork, encoder: Encoder, count: int) -> None:
        super().__init__()
        self.spec, self.detector, self.encoder, self.count = spec, detector, encoder, count
        output = detector.output
        assert detector.source.size is not None and output.heads is not None and output.classes is not None
        classes = COCO if output.classes == "coco" else output.classes
        self.grid = Grid((detector.source.size[0], detector.source.size[1]), output.strides, len(classes))
        size = encoder.spec.preprocessing.size
        assert size is not None
        with torch.inference_mode():
            self.width = encoder(torch.zeros(1, 3, *size, dtype=torch.uint8)).shape[1]

    def forward(self, frames_NCYX: Tensor, whole_NCYX: Tensor) -> dict[str, Tensor]:
        maps = self.encoder(whole_NCYX)
        high, wide = maps.shape[2:]
        regions, boxes = [], []
        for number, (found, scores, classes) in enumerate(self.found(frames_NCYX)):
            places = found.to(maps.device) * maps.new_tensor([wide, high, wide, high])
            pooled = roi_means(maps[number], places, CELLS, SAMPLES)
            scored = torch.cat([found, scores[:, None], classes[:, None].to(found.dtype)], dim=1)
            regions.append(_filled(pooled, self.count))
            boxes.append(_filled(scored, self.count))
        return {"regions": torch.stack(regions), "boxes": torch.stack(boxes)}

    def found(self, frames_NCYX: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Of each frame the surest boxes [n, 4] as shares of width and height, their scores [n] and classes [n]."""
        output, source = self.detector.output, self.detector.source
        wanted, shape = self.grid.size, (int(frames_NCYX.shape[2]), int(frames_NCYX.shape[3]))
        above, left = (
            (whole - side) // 2 if source.fit == "centre" else 0 for whole, side in zip(wanted, shape, strict=True)
        )
        rest = (left, wanted[1] - shape[1] - left, above, wanted[0] - shape[0] - above)
        filled = nn.functional.pad(frames_NCYX, rest, value=source.fill)
        outputs = self.detector(scaled(filled, self.spec.preprocessing, torch.float32))
        answer = []
        for number in range(len(frames_NCYX)):
            boxes, scores = HEADS[output.heads or ""]([one[number].cpu() for one in outputs], self.grid)
            boxes = boxes - boxes.new_tensor([left, above, left, above])
            limits = boxes.new_tensor([shape[1], shape[0], shape[1], shape[0]])
            boxes = boxes.clamp(min=0).minimum(limits) / limits
            answer.append(best(boxes, scores, output.least, output.overlap, self.count))
        return answer

    def check(self) -> None:
        """Raise BenchError where the network's head is another, or the known picture does not get its score."""
        self.found(torch.zeros(1, 3, *self.grid.size, dtype=torch.uint8))
        known = self.spec.known
        if known is not None:
            number = None if known.what is None else class_number(known.what, self.detector.output.classes)

            def score(frames: NDArray[Any]) -> float:
                ((_, scores, classes),) = self.found(torch.from_numpy(frames))
                own = scores if number is None else scores[classes == number]
                return float(own.max()) if len(own) else 0.0

            check_known(self.spec, score)


def load_detector(
    name: str | Spec, weights: str, count: int, files: Mapping[str, str] | None = None
) -> RegionEncoder | DeclaredDetector:
    """The detector called `name`, or declared, in eval mode, on the CPU, for `count` boxes of a frame. Raises BenchError."""
    spec, files = name if isinstance(name, Spec) else spec_of(name), files or {}
    if spec.family != "regions":
        raise BenchError(f"encoder {spec.name} finds no boxes, as the stream regions needs")
    if spec.package != "onnx":
        return RegionEncoder(spec, built(spec, weights, files, gives="boxes"), count).eval()
    vectors = vectors_of(spec)
    if vectors is None:
        raise BenchError(
            f"{spec.network} declares a detector without vectors: the stream regions holds features of boxes, pooled from the "
            f"map of a 2-D encoder, as in vectors: {{encoder: resnet152, weights: FILE}}"
        )
    network = OnnxNetwork(find_file(weights, files), spec.arguments)
    encoder = load_encoder(vectors[0], vectors[1], files, "maps")
    detector = DeclaredDetector(spec, network, encoder, count).eval()
    detector.check()
    return detector
