"""The packages of the extra `extract`, imported when they are needed and missed in one sentence.

Where torchvision's compiled part does not load, its two operators of which detectors are made are given to it in plain torch
(`bench.features.boxes`): slower, with the same values. Imports no torch before it is needed: processes that decode need none.
"""

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


def need_open_clip(encoder: str) -> Any:
    """open_clip, which imports torchvision. Raises BenchError where it is not installed."""
    try:
        _mend_torchvision()
        import open_clip
    except ImportError as error:
        raise BenchError(
            f"encoder {encoder} is a network of open_clip, which is not installed ({error}): {INSTALL}"
        ) from None
    return open_clip


def need_onnxruntime() -> Any:
    """onnxruntime. Raises BenchError where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise BenchError(f"encoder onnx is run by onnxruntime, which is not installed ({error}): {INSTALL}") from None
    return onnxruntime


def need_av() -> Any:
    """PyAV. Raises BenchError where it is not installed.

    Its messages are off: torchvision 0.22 turns them on when it is imported, and then a decoder's thread that has one waits
    for Python's lock, while who frees the decoder holds the lock and waits for the thread.
    """
    try:
        import av
    except ImportError as error:
        raise BenchError(f"videos are decoded by PyAV, which is not installed ({error}): {INSTALL}") from None
    av.logging.set_level(None)
    return av


def _mend_torchvision() -> None:
    """Let torchvision be imported, and its detectors run, beside a torch without CUDA.

    On such a machine pip still brings torchvision's CUDA build, whose compiled part does not load; its Python part then fails on
    the operators that the compiled part would have declared. Declared here, they are those of this module.
    """
    import torch

    if torch.version.cuda is not None or _OPERATORS:
        return
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise

        _OPERATORS.append(declare_operators())
        import torchvision

        if not torchvision.extension._has_ops():  # asked before each operator, also of those that are there now
            for module in ("torchvision.extension", "torchvision.ops.roi_align"):
                sys.modules[module]._has_ops = lambda: True  # type: ignore[attr-defined]


def declare_operators() -> Any:
    """Declare and define `torchvision::nms` and `torchvision::roi_align`, and declare `qnms`, which is never called.

    Whoever keeps the library alive keeps the operators.
    """
    import torch

    from bench.features.boxes import nms, roi_align

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    )
    library.impl("nms", nms, "CompositeExplicitAutograd")
    library.impl("roi_align", roi_align, "CompositeExplicitAutograd")
    return library
