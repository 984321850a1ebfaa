"""The packages of the extra `extract`, imported when they are needed and missed in one sentence."""

from __future__ import annotations

import sys
from typing import Any

from bench import BenchError

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
    the operators that the compiled part would have declared. Declared here, they are those of `bench.features.boxes`.
    """
    import torch

    if torch.version.cuda is not None or _OPERATORS:
        return
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        from bench.features.boxes import declare_operators

        _OPERATORS.append(declare_operators())
        import torchvision

        if not torchvision.extension._has_ops():  # asked before each operator, also of those that are there now
            for module in ("torchvision.extension", "torchvision.ops.roi_align"):
                sys.modules[module]._has_ops = lambda: True  # type: ignore[attr-defined]
