"""What the host knows of tensors that lie on a GPU: asking the GPU would mean to wait until all its work is done."""

from __future__ import annotations

import torch
from torch import Tensor


def on_host(value: Tensor) -> Tensor:
    """`value` on the CPU: itself, or what it was copied from; where nobody remembers that, a copy that is waited for."""
    if value.device.type == "cpu":
        return value
    known: Tensor | None = getattr(value, "on_host", None)
    return value.cpu() if known is None else known


def on_device(value: Tensor, device: torch.device) -> Tensor:
    """`value`, a tensor of the CPU that nobody will change, on `device`; `on_host` of the copy gives it back."""
    copy = value.to(device, non_blocking=True)
    if copy is not value:
        copy.on_host = value  # type: ignore[attr-defined]
    return copy
