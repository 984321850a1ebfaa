"""The network behind the `frames` stream of the embedded corpus, as a module that can be trained.

As it comes, it computes the stream's features exactly: the same filters, whose sums of products are whole numbers below 2^24
and so the same in any order of summation. Weights are divided by the shift that `streams._layer` applies to the sums, a
power of two, which changes no digit and gives them the size that networks usually have. Rounding down passes gradients on as
if it were not there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.shapes.streams import LIMIT, MOST, constants, fixed_filters

WIDTH = 256  # 48 colours, 16 saliences, 64 maxima of maps, 64 maxima and 64 sums of outlines


class ShapesNetwork(nn.Module):
    """Frames [N, 3, 64, 64] of whole numbers 0..255 -> [N, 256], standardised. `random` filters are for tests."""

    mean: Tensor
    scale: Tensor

    def __init__(self, random: bool = False) -> None:
        super().__init__()
        self.edges = _Layer("edges", 24, 3, 5, 6, random)
        self.maps = _Layer("maps", 64, 24, 3, 6, random)
        self.outlines = _Layer("outlines", 64, 1, 7, 7, random)
        mean, scale = constants()["frames"]
        self.register_buffer("mean", torch.from_numpy(mean).double())
        self.register_buffer("scale", torch.from_numpy(scale).double())

    def forward(self, frames_NCYX: Tensor) -> Tensor:
        salient_N1YX = _salience(frames_NCYX)
        maps = self.maps(self.edges(frames_NCYX - 128))
        outlines = self.outlines(salient_N1YX)
        parts = (
            _sums(frames_NCYX, 16).flatten(1),
            _sums(salient_N1YX, 16).flatten(1),
            maps.amax(dim=(2, 3)),
            outlines.amax(dim=(2, 3)),
            outlines.sum(dim=(2, 3)),
        )
        features_ND = torch.cat(parts, dim=1)
        # float64, as where the stream is made: rounded to float16, both are the same bits.
        standard = (features_ND.double() - self.mean) / self.scale
        return standard.clamp(-LIMIT, LIMIT).to(features_ND.dtype)


class _Layer(nn.Module):
    """Convolution with stride 2 over repeated edges, rounded down, bounded to 0..255."""

    def __init__(self, name: str, outputs: int, inputs: int, size: int, shift: int, random: bool) -> None:
        super().__init__()
        filters = torch.from_numpy(fixed_filters(name, outputs, inputs, size).copy())
        if random:
            filters = torch.randint(-3, 4, filters.shape).float()
        self.weight = nn.Parameter(filters * 0.5**shift)

    def forward(self, images: Tensor) -> Tensor:
        margin = self.weight.shape[-1] // 2
        padded = functional.pad(images, (margin, margin, margin, margin), mode="replicate")
        answers = functional.conv2d(padded, self.weight, stride=2)
        return (answers + (answers.floor() - answers).detach()).clamp(0, MOST)


def _sums(images: Tensor, size: int) -> Tensor:
    """Sums over squares of `size` x `size`."""
    count, channels, height, width = images.shape
    return images.view(count, channels, height // size, size, width // size, size).sum(dim=(3, 5))


@torch.no_grad()
def _salience(frames_NCYX: Tensor) -> Tensor:
    """[N, 1, 64, 64]: how far a pixel's colour is from the median colour of its frame, less the texture's."""
    cells = _sums(frames_NCYX, 4).flatten(2).sort(dim=2).values
    middle = cells.shape[2] // 2
    median_NC = (cells[..., middle - 1] + cells[..., middle]) / 2
    usual_NC11 = (median_NC / 16).floor()[..., None, None]
    return ((frames_NCYX - usual_NC11).abs().sum(dim=1, keepdim=True) - 90).clamp(0, MOST)
