"""The packages of the extra `extract`, imported when they are needed and missed in one sentence.

Where torchvision's compiled part does not load, its two operators of which detectors are made are given to it in plain torch:
slower, with the same values, for both are the published definitions (He et al.: "Mask R-CNN", ICCV 2017, section 3, for the
pooling).
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from bench import BenchError

AT_ONCE = 64  # boxes pooled together: bounds the memory of the four corners of every sample


def declare_operators() -> torch.library.Library:
    """Declare and define `torchvision::nms` and `torchvision::roi_align`, and declare `qnms`, which is never called.

    Whoever keeps the library alive keeps the operators.
    """
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    )
    library.impl("nms", nms, "CompositeExplicitAutograd")
    library.impl("roi_align", roi_align, "CompositeExplicitAutograd")
    return library


def overlaps(one: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of the box [4] (x1, y1, x2, y2) with each of [N, 4]."""
    low, high = torch.maximum(one[:2], others[:, :2]), torch.minimum(one[2:], others[:, 2:])
    both = (high - low).clamp(min=0).prod(dim=1)
    areas = (others[:, 2:] - others[:, :2]).prod(dim=1)
    return both / ((one[2:] - one[:2]).prod() + areas - both)


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Numbers of the boxes [N, 4] that stay, best score first: each one that no better one overlaps by more."""
    order = scores.argsort(descending=True, stable=True)
    boxes = dets[order]
    alive = torch.ones(len(order), dtype=torch.bool, device=dets.device)
    for place in range(len(order)):
        if alive[place]:
            alive[place + 1 :] &= ~(overlaps(boxes[place], boxes[place + 1 :]) > iou_threshold)
    return order[alive]


def roi_align(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Maps [N, C, H, W] under the boxes [K, 5] (map, x1, y1, x2, y2) -> [K, C, pooled_height, pooled_width].

    Each cell is the mean of `sampling_ratio` squared bilinear samples. Raises ValueError where that is not at least 1.
    """
    if sampling_ratio < 1:
        raise ValueError(f"sampling_ratio is {sampling_ratio}, but must be 1 or more")
    pooled = [
        _pool(input, part, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned)
        for part in rois.split(AT_ONCE)
    ]
    empty = input.new_zeros(0, input.shape[1], pooled_height, pooled_width)
    return torch.cat(pooled) if pooled else empty


def _pool(maps: Tensor, rois: Tensor, scale: float, rows: int, columns: int, samples: int, aligned: bool) -> Tensor:
    boxes = rois[:, 1:] * scale - (0.5 if aligned else 0.0)
    size = boxes[:, 2:] - boxes[:, :2]
    if not aligned:
        size = size.clamp(min=1)
    xs = _places(boxes[:, 0], size[:, 0], columns, samples)
    ys = _places(boxes[:, 1], size[:, 1], rows, samples)
    x_low, x_high, x_share, x_inside = _between(xs, maps.shape[3])
    y_low, y_high, y_share, y_inside = _between(ys, maps.shape[2])
    which = rois[:, 0].long()[:, None, None]

    def at(y: Tensor, x: Tensor) -> Tensor:
        return maps[which, :, y[:, :, None], x[:, None, :]].movedim(3, 1)  # [K, C, rows * samples, columns * samples]

    y_share, x_share = y_share[:, None, :, None], x_share[:, None, None, :]
    upper = at(y_low, x_low) * (1 - x_share) + at(y_low, x_high) * x_share
    lower = at(y_high, x_low) * (1 - x_share) + at(y_high, x_high) * x_share
    values = upper * (1 - y_share) + lower * y_share
    values = values * (y_inside[:, None, :, None] & x_inside[:, None, None, :])
    return values.unflatten(3, (columns, samples)).unflatten(2, (rows, samples)).mean(dim=(3, 5))


def _places(start: Tensor, size: Tensor, cells: int, samples: int) -> Tensor:
    """Coordinates [K, cells * samples] of the samples along one side."""
    steps = (torch.arange(cells * samples, device=start.device, dtype=start.dtype) + 0.5) / samples
    return start[:, None] + steps * (size / cells)[:, None]


def _between(places: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two neighbours of each coordinate, the share of the higher one, and whether it lies on the map at all."""
    inside = (places >= -1) & (places <= size)
    bounded = places.clamp(0, size - 1)
    low = bounded.floor()
    return low.long(), (low.long() + 1).clamp(max=size - 1), bounded - low, inside


INSTALL = 'pip install "captionbench[extract]"'
_OPERATORS: list[Any] = []  # torch libraries, alive as long as the process: their end would take the operators back


def need_timm(encoder: str) -> Any:
    """timm. Raises BenchError where it is not installed."""
    try:
        _mend_torchvision()
        import timm
    except ImportError as error:
        raise BenchError(
            f"encoder {encoder} is a network of timm, which is not installed ({error}): {INSTALL}"
        ) from None
    return timm


def need_torchvision(encoder: str) -> Any:
    """torchvision. Raises BenchError where it is not installed."""
    try:
        _mend_torchvision()
        import torchvision
    except ImportError as error:
        raise BenchError(
            f"encoder {encoder} is a network of torchvision, which is not installed ({error}): {INSTALL}"
        ) from None
    return torchvision


def need_av() -> Any:
    """PyAV. Raises BenchError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise BenchError(f"videos are decoded by PyAV, which is not installed ({error}): {INSTALL}") from None
    return av


def _mend_torchvision() -> None:
    """Let torchvision be imported, and its detectors run, beside a torch without CUDA.

    On such a machine pip still brings torchvision's CUDA build, whose compiled part does not load; its Python part then fails on
    the operators that the compiled part would have declared. Declared here, they are those of this module.
    """
    import torch

    if torch.version.cuda is not None or _OPERATORS:
        return
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise

        _OPERATORS.append(declare_operators())
        import torchvision

        if not torchvision.extension._has_ops():  # asked before each operator, also of those that are there now
            for module in ("torchvision.extension", "torchvision.ops.roi_align"):
                sys.modules[module]._has_ops = lambda: True  # type: ignore[attr-defined]
