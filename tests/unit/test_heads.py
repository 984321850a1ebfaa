"""Decoding heads of detectors against loops over their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bench import BenchError
from bench.features.heads import COCO, HEADS, Grid, best

GRID = Grid((64, 96), (16, 32), 3)
POINTS = [(stride, row, column) for stride in (16, 32) for row in range(64 // stride) for column in range(96 // stride)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("head", "middle"), [("nanodet", 0.5), ("nanodet_plus", 0.0)])
@pytest.mark.parametrize("together", [True, False])
def test_nanodet_takes_the_mean_of_each_sides_distribution(head: str, middle: float, together: bool) -> None:
    bins = 5
    scores, sides = noise(len(POINTS), 3), noise(len(POINTS), 4 * bins, seed=1)
    if together:
        outputs = [torch.cat([scores, sides], dim=1)]
    else:  # in any order: stride 16 has more points than 32
        outputs = [sides[24:], scores[:24], sides[:24], scores[24:]]
    boxes, found = HEADS[head](outputs, GRID)
    assert torch.equal(found, scores)
    for number, (stride, row, column) in enumerate(POINTS):
        distances = []
        for side in range(4):
            weights = [math.exp(value) for value in sides[number, side * bins : (side + 1) * bins].tolist()]
            distances.append(stride * sum(place * weight for place, weight in enumerate(weights)) / sum(weights))
        x, y = (column + middle) * stride, (row + middle) * stride
        own = [x - distances[0], y - distances[1], x + distances[2], y + distances[3]]
        assert boxes[number].tolist() == pytest.approx(own)


def test_yolox_counts_in_strides() -> None:
    raw = noise(len(POINTS), 8)
    boxes, scores = HEADS["yolox"]([raw], GRID)
    for number, (stride, row, column) in enumerate(POINTS):
        x, y, w, h, thing, *kinds = raw[number].tolist()
        x, y, w, h = (x + column) * stride, (y + row) * stride, math.exp(w) * stride, math.exp(h) * stride
        assert boxes[number].tolist() == pytest.approx([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        assert scores[number].tolist() == pytest.approx([thing * kind for kind in kinds])


def test_exports_that_are_decoded_already() -> None:
    plain = torch.tensor([[30.0, 20, 10, 8, 0.5, 0.1, 0.8, 0.0], [50, 40, 20, 30, 1.0, 0.9, 0.2, 0.3]])
    boxes, scores = HEADS["yolov5"]([plain], GRID)
    assert boxes.tolist() == [[25, 16, 35, 24], [40, 25, 60, 55]]
    assert scores.tolist() == [pytest.approx([0.05, 0.4, 0.0]), pytest.approx([0.9, 0.2, 0.3])]
    without = torch.cat([plain[:, :4], plain[:, 5:]], dim=1)
    for turned in (without, without.T):
        boxes, scores = HEADS["yolov8"]([turned], GRID)
        assert boxes.tolist() == [[25, 16, 35, 24], [40, 25, 60, 55]]
        assert torch.equal(scores, plain[:, 5:])
    boxes, scores = HEADS["end_to_end"]([torch.tensor([[25.0, 16, 35, 24, 0.7, 2]])], GRID)
    assert boxes.tolist() == [[25, 16, 35, 24]]
    assert scores.tolist() == [[0, 0, pytest.approx(0.7)]]


@pytest.mark.parametrize("head", HEADS)
def test_the_outputs_of_another_head_are_refused(head: str) -> None:
    with pytest.raises(BenchError, match=rf"gives 6x11, which is no head {head} of 3 classes at strides 16, 32"):
        HEADS[head]([torch.zeros(6, 11)], GRID)


def test_the_surest_boxes_one_of_those_that_overlap_in_a_class() -> None:
    boxes = torch.tensor(
        [[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [20, 20, 30, 30], [5, 5, 5, 9], [40, 40, 50, 50]]
    )
    scores = torch.tensor([[0.6, 0], [0.9, 0], [0, 0.5], [0.3, 0.2], [0.99, 0], [0.04, 0]])
    found, sure, kinds = best(boxes, scores, least=0.05, overlap=0.6, count=9)
    assert found.tolist() == [boxes[1].tolist(), boxes[2].tolist(), boxes[3].tolist()], "flat and unsure boxes are none"
    assert sure.tolist() == pytest.approx([0.9, 0.5, 0.3])
    assert kinds.tolist() == [0, 1, 0]
    assert len(best(boxes, scores, 0.05, 0.6, 2)[0]) == 2
    assert [len(part) for part in best(boxes[:0], scores[:0], 0.05, 0.6, 2)] == [0, 0, 0]
    assert (len(COCO), COCO[0], COCO[79]) == (80, "person", "toothbrush")
