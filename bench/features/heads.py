"""From what a detector gives to boxes: one function for each kind of head, by its name in a spec.

Each takes the outputs of one picture, [P, C] each, and gives boxes [P, 4] (x1, y1, x2, y2 in pixels of the input) and the scores
[P, K] of the classes. Raises BenchError where the outputs are another head's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench import BenchError
from bench.errors import listing, sizes
from bench.features.boxes import nms

COCO = tuple(
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,bench,bird,"
    "cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,"
    "sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,"
    "banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,"
    "laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,"
    "hair drier,toothbrush".split(",")
)
MOST = 400  # candidates that are compared with each other: the surest; more than a picture has things


@dataclass(frozen=True)
class Grid:
    """What a head needs to know of its network: height and width of the input, the strides of its maps, the count of classes."""

    size: tuple[int, int]
    strides: Sequence[int]
    classes: int

    def cells(self, middle: float) -> tuple[Tensor, Tensor]:
        """Of each point, stride by stride and row by row: where it lies [P, 2] (x, y in pixels), and its stride [P, 1].

        `middle` is its place within the cell, 0 the upper left corner and 0.5 the centre.
        """
        places, strides = [], []
        for stride in self.strides:
            rows, columns = (-(-side // stride) for side in self.size)
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            places.append((torch.stack([x, y], dim=2).reshape(-1, 2) + middle) * stride)
            strides.append(torch.full((rows * columns, 1), float(stride)))
        return torch.cat(places), torch.cat(strides)


def nanodet(outputs: Sequence[Tensor], grid: Grid, middle: float = 0.5, head: str = "nanodet") -> tuple[Tensor, Tensor]:
    """NanoDet: a distribution over whole distances for each side of a box (Li et al., "Generalized Focal Loss", 2020), from the
    centre of a cell. Scores and distances stride by stride, or side by side in one output, scores first."""
    places, strides = grid.cells(middle)
    if len(outputs) == 1:
        scores, sides = outputs[0][:, : grid.classes], outputs[0][:, grid.classes :]
    else:
        kinds = [
            sorted((o for o in outputs if (o.shape[1] == grid.classes) == own), key=lambda o: -len(o))
            for own in (True, False)
        ]
        if len(kinds[0]) != len(grid.strides) or len(kinds[1]) != len(grid.strides):
            raise _another(head, outputs, grid)
        scores, sides = (torch.cat(kind) for kind in kinds)
    if not len(scores) == len(sides) == len(places) or sides.shape[1] % 4 or not sides.shape[1]:
        raise _another(head, outputs, grid)
    shares = sides.unflatten(1, (4, -1)).softmax(dim=2)
    distances = (shares * torch.arange(shares.shape[2])).sum(dim=2) * strides
    return torch.cat([places - distances[:, :2], places + distances[:, 2:]], dim=1), scores


def nanodet_plus(outputs: Sequence[Tensor], grid: Grid) -> tuple[Tensor, Tensor]:
    """NanoDet-Plus, which measures from the upper left corners of cells."""
    return nanodet(outputs, grid, 0.0, "nanodet_plus")


def yolox(outputs: Sequence[Tensor], grid: Grid) -> tuple[Tensor, Tensor]:
    """YOLOX (Ge et al. 2021): centre and logarithm of the size in strides, whether there is a thing, and which."""
    places, strides = grid.cells(0.0)
    found = _one("yolox", outputs, grid, 5 + grid.classes, len(places))
    middles, halves = found[:, :2] * strides + places, found[:, 2:4].exp() * strides / 2
    return torch.cat([middles - halves, middles + halves], dim=1), found[:, 4:5] * found[:, 5:]


def yolov5(outputs: Sequence[Tensor], grid: Grid) -> tuple[Tensor, Tensor]:
    """YOLOv5 and v7 as they are exported: centre and size in pixels, whether there is a thing, and which."""
    found = _one("yolov5", outputs, grid, 5 + grid.classes)
    return _corners(found[:, :4]), found[:, 4:5] * found[:, 5:]


def yolov8(outputs: Sequence[Tensor], grid: Grid) -> tuple[Tensor, Tensor]:
    """YOLOv8, v9 and 11 as they are exported: [4 + K, P], centre and size in pixels, and which thing."""
    if len(outputs) == 1 and outputs[0].shape[0] == 4 + grid.classes:
        outputs = [outputs[0].T]
    found = _one("yolov8", outputs, grid, 4 + grid.classes)
    return _corners(found[:, :4]), found[:, 4:]


def end_to_end(outputs: Sequence[Tensor], grid: Grid) -> tuple[Tensor, Tensor]:
    """YOLOv10 and exports with suppression inside: corners in pixels, the score, the number of the class."""
    found = _one("end_to_end", outputs, grid, 6)
    scores = torch.zeros(len(found), grid.classes)
    numbers = found[:, 5].long().clamp(0, grid.classes - 1)
    scores[torch.arange(len(found)), numbers] = found[:, 4]
    return found[:, :4], scores


def _corners(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1)


def _one(head: str, outputs: Sequence[Tensor], grid: Grid, width: int, points: int | None = None) -> Tensor:
    if (
        len(outputs) != 1
        or outputs[0].ndim != 2
        or outputs[0].shape[1] != width
        or points not in (None, len(outputs[0]))
    ):
        raise _another(head, outputs, grid)
    return outputs[0]


def _another(head: str, outputs: Sequence[Tensor], grid: Grid) -> BenchError:
    return BenchError(
        f"the network gives {listing([sizes(output.shape) for output in outputs])}, which is no head {head} of {grid.classes} "
        f"classes at strides {listing(map(str, grid.strides))}: correct output.heads ({', '.join(HEADS)}), classes or strides"
    )


Head = Callable[[Sequence[Tensor], Grid], tuple[Tensor, Tensor]]
HEADS: dict[str, Head] = {head.__name__: head for head in (nanodet, nanodet_plus, yolox, yolov5, yolov8, end_to_end)}


def best(boxes: Tensor, scores: Tensor, least: float, overlap: float, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` surest boxes: corners [n, 4], score [n] and number of the class [n], surest first.

    Each box counts for its surest class; of two of one class that overlap by more than `overlap` the surer one stays.
    """
    sure, kinds = scores.max(dim=1)
    order = sure.argsort(descending=True, stable=True)[:MOST]
    order = order[(sure[order] > least) & (boxes[order, 2] > boxes[order, 0]) & (boxes[order, 3] > boxes[order, 1])]
    boxes, sure, kinds = boxes[order], sure[order], kinds[order]
    apart = kinds[:, None] * (boxes.max() - boxes.min() + 1) if len(boxes) else 0  # classes never overlap
    kept = nms(boxes + apart, sure, overlap, count)
    return boxes[kept], sure[kept], kinds[kept]
