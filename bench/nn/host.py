"""What the host knows of tensors that lie on a GPU: asking the GPU would mean to wait until all its work is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import torch
from torch import Tensor


def on_host(value: Tensor) -> Tensor:
    """`value` on the CPU: itself, or what it was copied from; where nobody remembers that, a copy that is waited for."""
    known = _known(value)
    return value.cpu() if known is None else known


def _known(value: Tensor) -> Tensor | None:
    return value if value.device.type == "cpu" else getattr(value, "on_host", None)


def on_device(value: Tensor, device: torch.device) -> Tensor:
    """`value`, a tensor of the CPU that nobody will change, on `device`; `on_host` of the copy gives it back."""
    copy = value.to(device, non_blocking=True)
    if copy is not value:
        copy.on_host = value  # type: ignore[attr-defined]
    return copy


def on_both(make: Callable[..., Tensor], *values: Tensor) -> Tensor:
    """`make(*values)` where the values lie; if the host knows them it makes the same, and need not ask for it later."""
    made = make(*values)
    told = [_known(value) for value in values]
    if made.device.type != "cpu" and not any(value is None for value in told):
        made.on_host = make(*told)  # type: ignore[attr-defined]
    return made


def told(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that have the clips as first axis, on the CPU, all by one copy: a float64 holds every number of theirs exactly."""
    flat = [value.flatten(1) if value.dim() > 1 else value.unsqueeze(1) for value in values.values()]
    parts = torch.cat([part.double() for part in flat], 1).cpu().split([part.shape[1] for part in flat], 1)
    return {
        name: part.reshape(value.shape).to(value.dtype)
        for (name, value), part in zip(values.items(), parts, strict=True)
    }


def largest(value: Tensor, bound: int) -> int:
    """The largest number in `value`, or `bound`, which is no less, where the host would have to wait for it."""
    known = _known(value)
    return bound if known is None else int(known.max())


@cache
def ids(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Word ids as a tensor, copied to a device once."""
    with torch.inference_mode(False):  # a training may need what a search has asked for first
        return torch.tensor(numbers, device=device)


def all_rows(device: torch.device) -> bool:
    """Whether a loop over words computes all its rows to the end, also those that have ended.

    On a CPU every row costs time. A GPU has time for rows and none for launches: cutting rows off, and laying zeros in their
    place, is more of these, and who has ended is known there only after a wait.
    """
    return device.type != "cpu"
