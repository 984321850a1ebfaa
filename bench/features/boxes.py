"""Boxes and what lies under them: overlap, suppression of those that overlap, pooling of maps, in plain torch by the published
definitions (He et al.: "Mask R-CNN", ICCV 2017, section 3, for the pooling).
"""

from __future__ import annotations

import torch
from torch import Tensor

AT_ONCE = 64  # boxes pooled together: bounds the memory of the four corners of every sample


def overlaps(one: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of the box [4] (x1, y1, x2, y2) with each of [N, 4]."""
    low, high = torch.maximum(one[:2], others[:, :2]), torch.minimum(one[2:], others[:, 2:])
    both = (high - low).clamp(min=0).prod(dim=1)
    areas = (others[:, 2:] - others[:, :2]).prod(dim=1)
    return both / ((one[2:] - one[:2]).prod() + areas - both)


def nms(dets: Tensor, scores: Tensor, iou_threshold: float, most: int | None = None) -> Tensor:
    """Numbers of the boxes [N, 4] that stay, best score first: each one that no better one overlaps by more; the first `most`."""
    order = scores.argsort(descending=True, stable=True)
    boxes = dets[order]
    alive = torch.ones(len(order), dtype=torch.bool, device=dets.device)
    kept = 0
    for place in range(len(order)):
        if kept == most:  # the others need not be compared
            break
        if alive[place]:
            alive[place + 1 :] &= ~(overlaps(boxes[place], boxes[place + 1 :]) > iou_threshold)
            kept += 1
    return order[alive][:most]


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


def roi_means(map_CYX: Tensor, boxes_K4: Tensor, cells: int, samples: int) -> Tensor:
    """The mean of each box's aligned cells, [K, C]: `roi_align` of boxes in the map's own units and the mean over its cells.

    Samples lie on a grid and interpolation is linear, so that each box is one weight for each row times one for each column: of
    16 boxes in a map of 1,280 channels that costs a fiftieth of the samples themselves.
    """
    starts, size = boxes_K4[:, :2] - 0.5, boxes_K4[:, 2:] - boxes_K4[:, :2]
    columns, rows = (
        _weights(_places(starts[:, axis], size[:, axis], cells, samples), map_CYX.shape[2 - axis]) for axis in (0, 1)
    )
    return torch.einsum("ky,cyx,kx->kc", rows, map_CYX, columns)


def _weights(places: Tensor, size: int) -> Tensor:
    """What each of `size` rows counts in the mean over the samples at `places` [K, n]: [K, size]."""
    low, high, share, inside = _between(places, size)
    weights = places.new_zeros(len(places), size)
    weights.scatter_add_(1, low, (1 - share) * inside)
    weights.scatter_add_(1, high, share * inside)
    return weights / places.shape[1]


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
