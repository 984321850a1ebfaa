"""The packages of the extra `extract`, imported when they are needed and missed in one sentence."""

from __future__ import annotations

from typing import Any

import torch

from bench import BenchError

INSTALL = 'pip install "captionbench[extract]"'
_SCHEMAS: list[torch.library.Library] = []  # alive as long as the process: their end would take the operators back


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


def need_av() -> Any:
    """PyAV. Raises BenchError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise BenchError(f"videos are decoded by PyAV, which is not installed ({error}): {INSTALL}") from None
    return av


def _mend_torchvision() -> None:
    """Let torchvision be imported beside a torch without CUDA.

    On such a machine pip still brings torchvision's CUDA build, whose compiled part does not load; its Python part then fails on
    the operators that the compiled part would have declared. Declared here, they are never called: encoders have no boxes.
    """
    if torch.version.cuda is not None or _SCHEMAS:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _SCHEMAS.append(library)
