"""Networks of motion and of sound that no package brings: their layers, with parameters named as their weights circulate."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class C3D(nn.Module):
    """Eight convolutions of 3x3x3 (Tran et al., ICCV 2015, section 3.3): runs [N, 3, 16, 112, 112] -> fc6 [N, 4096].

    With `classes`, the two layers above it too, -> logits [N, classes]. Names of parameters are those in which its weights
    circulate for PyTorch.
    """

    def __init__(self, classes: int = 0) -> None:
        super().__init__()
        sizes = {"1": (3, 64), "2": (64, 128), "3a": (128, 256), "3b": (256, 256)}
        sizes |= {"4a": (256, 512), "4b": (512, 512), "5a": (512, 512), "5b": (512, 512)}
        for name, (inputs, outputs) in sizes.items():
            self.add_module(f"conv{name}", nn.Conv3d(inputs, outputs, 3, padding=1))
        self.fc6 = nn.Linear(8192, 4096)
        self.above = bool(classes)
        if classes:
            self.fc7, self.fc8 = nn.Linear(4096, 4096), nn.Linear(4096, classes)

    def forward(self, runs_NCTYX: Tensor) -> Tensor:
        x = runs_NCTYX
        for name in ("1", "2", "3a", "3b", "4a", "4b", "5a", "5b"):
            x = torch.relu(self.get_submodule(f"conv{name}")(x))
            if name == "1":  # time is halved from the second pooling on
                x = nn.functional.max_pool3d(x, (1, 2, 2))
            elif name == "5b":
                x = nn.functional.max_pool3d(x, 2, padding=(0, 1, 1))
            elif name in ("2", "3b", "4b"):
                x = nn.functional.max_pool3d(x, 2)
        x = torch.relu(self.fc6(x.flatten(1)))
        logits: Tensor = self.fc8(torch.relu(self.fc7(x))) if self.above else x
        return logits


class VGGish(nn.Module):
    """Examples of log-mel bands [N, 1, 96, 64] -> [N, 128] (Hershey et al., ICASSP 2017; the released network is VGG's
    configuration A with four poolings). The last layer is rectified, as in the release; its PCA is not applied."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for outputs in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0):
            if outputs:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 6 * 4, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 128), nn.ReLU()
        )

    def forward(self, examples_N1TF: Tensor) -> Tensor:
        maps = self.features(examples_N1TF).permute(0, 2, 3, 1)  # channels last, as the weights were trained
        vectors: Tensor = self.embeddings(maps.flatten(1))
        return vectors


class YAMNet(nn.Module):
    """Examples of log-mel bands [N, 1, 96, 64] -> [N, 1024]: MobileNet (Howard et al. 2017) on sound, the mean over its last map.
    Of the release's 27 convolutions, with their batch normalisations folded in, those of odd number are depthwise."""

    HALVING = (0, 3, 7, 11, 23)  # convolutions of stride 2; TensorFlow pads them on the far side alone

    def __init__(self) -> None:
        super().__init__()
        widths = [64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024]
        inputs = 32
        self.conv0 = nn.Conv2d(1, inputs, 3, stride=2)
        for number, outputs in enumerate(widths):
            depthwise = 2 * number + 1
            stride = 2 if depthwise in self.HALVING else 1
            padding = 0 if stride == 2 else 1
            self.add_module(f"conv{depthwise}", nn.Conv2d(inputs, inputs, 3, stride, padding, groups=inputs))
            self.add_module(f"conv{depthwise + 1}", nn.Conv2d(inputs, outputs, 1))
            inputs = outputs

    def forward(self, examples_N1TF: Tensor) -> Tensor:
        x = examples_N1TF
        for number in range(27):
            if number in self.HALVING:
                x = nn.functional.pad(x, (0, 1, 0, 1))
            x = torch.relu(self.get_submodule(f"conv{number}")(x))
        return x.mean(dim=(2, 3))
