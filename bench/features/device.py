"""What a network computes on: cells, encoders and captioners choose it here."""

from __future__ import annotations

import torch

from bench import BenchError
from bench.declare.settings import DEVICE


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU that this process sees, else the CPU. Raises BenchError for what is not there."""
    if not DEVICE.fullmatch(name):
        raise BenchError(f"device is {name!r}, but must be auto, cpu, cuda or cuda:NUMBER")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise BenchError(f"device={name}, but this process sees no GPU: use device=auto or device=cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise BenchError(
            f"device={name}, but this process sees {torch.cuda.device_count()} of the machine's GPUs, from cuda:0 on, and Ray "
            "shows a cell only its own: use device=cuda"
        )
    return device
