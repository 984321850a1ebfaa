"""The state of a process in which a training that is run again, or resumed, gives the same numbers to the bit."""

from __future__ import annotations

import os

# With buffers of several sizes cuBLAS takes what is free at the moment, and another sum comes out. nn.LSTM's note asks for one
# size, :4096:2 or :16:8; torch before 2.10 warns at every product unless it is :4096:8 or :16:8. Eight of 4 MiB suit both.
CUBLAS = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def before_torch() -> None:
    """What has to stand in the environment before a GPU is used for the first time; what the user has set there stays."""
    os.environ.setdefault(*CUBLAS)


def same_every_time(precision: str = "float32") -> None:
    """Take the algorithms that give the same bits every time, where there are such.

    A GPU rounds the factors of products to TF32 where `precision` is tf32 and nowhere else; cuDNN, left alone, does it in
    convolutions and GRUs.
    """
    import torch

    # As use_deterministic_algorithms(True, warn_only=True), which also tells torch's compiler: importing it takes two seconds.
    torch.set_deterministic_debug_mode("warn")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing here reads such memory
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
