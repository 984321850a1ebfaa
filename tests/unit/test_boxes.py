"""The operators that stand in for torchvision's compiled ones, against loops over their definitions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bench.features.boxes import nms, overlaps, roi_align, roi_means


def some_boxes(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 20
    return torch.cat([corners, corners + 1 + torch.rand(count, 2, generator=generator) * 12], dim=1)


def overlap(one: list[float], other: list[float]) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)


def test_overlaps_and_what_stays() -> None:
    boxes, scores = some_boxes(40), torch.rand(40, generator=torch.Generator().manual_seed(1))
    plain = boxes.tolist()
    for other, found in zip(plain, overlaps(boxes[0], boxes).tolist(), strict=True):
        assert math.isclose(found, overlap(plain[0], other), abs_tol=1e-6)
    kept: list[int] = []
    for number in sorted(range(40), key=lambda n: -scores[n].item()):
        if all(overlap(plain[number], plain[better]) <= 0.3 for better in kept):
            kept.append(number)
    assert nms(boxes, scores, 0.3).tolist() == kept
    assert 3 < len(kept) < 40
    assert nms(boxes, scores, 0.3, 3).tolist() == kept[:3] and nms(boxes, scores, 0.3, 40).tolist() == kept
    assert nms(boxes[:0], scores[:0], 0.3).tolist() == []


def sample(picture: Tensor, y: float, x: float) -> float:
    """Bilinear, the edge repeated up to one pixel outside, zero beyond."""
    height, width = picture.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    total = 0.0
    for row, share_y in ((top, 1 - (y - top)), (min(top + 1, height - 1), y - top)):
        for column, share_x in ((left, 1 - (x - left)), (min(left + 1, width - 1), x - left)):
            total += picture[row, column].item() * share_y * share_x
    return total


def test_pooling_under_boxes() -> None:
    maps = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    boxes = some_boxes(5, seed=3).double()
    boxes[4] = torch.tensor([-6.0, 30.0, 60.0, 30.5])  # reaches over the edges, flatter than a cell
    rois = torch.cat([torch.tensor([[0.0], [1], [1], [0], [1]], dtype=torch.float64), boxes], dim=1)
    for aligned in (False, True):
        pooled = roi_align(maps, rois, 0.5, 2, 3, 2, aligned)
        assert pooled.shape == (5, 3, 2, 3)
        for number, (which, *corners) in enumerate(rois.tolist()):
            x1, y1, x2, y2 = (0.5 * value - (0.5 if aligned else 0) for value in corners)
            height, width = y2 - y1, x2 - x1
            if not aligned:
                height, width = max(height, 1.0), max(width, 1.0)
            for row in range(2):
                for column in range(3):
                    ys = [y1 + (row * 2 + half + 0.5) / 4 * height for half in range(2)]
                    xs = [x1 + (column * 2 + half + 0.5) / 6 * width for half in range(2)]
                    own = sum(sample(maps[int(which), 1], y, x) for y in ys for x in xs) / 4
                    assert math.isclose(pooled[number, 1, row, column].item(), own, abs_tol=1e-9)


def test_the_mean_under_a_box_is_that_of_its_cells() -> None:
    """Also of boxes that reach over the edges, and of none."""
    maps = torch.rand(5, 9, 11, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    boxes = some_boxes(6, seed=5).double() / 3
    boxes[4], boxes[5] = torch.tensor([-2.0, 3, 14, 3.1]), torch.tensor([20.0, 20, 21, 21])
    rois = torch.cat([torch.zeros(6, 1), boxes], dim=1)
    own = roi_align(maps[None], rois, 1.0, 7, 7, 2, True).mean(dim=(2, 3))
    torch.testing.assert_close(roi_means(maps, boxes, 7, 2), own)
    assert not own[5].any() and own[:5].all()
    assert roi_means(maps, boxes[:0], 7, 2).shape == (0, 5)
