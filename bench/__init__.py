"""bench: video-captioning papers side by side, under one protocol.

`bench.load(path)` is a trained method from its checkpoint, see `bench.cell.checkpoint.load`.
"""

import importlib
from typing import Any

__version__ = "0.1.0"


class BenchError(Exception):
    """A mistake the user can mend, said in a sentence: what, where, allowed values, next command.

    The command line prints the sentence without a traceback and exits with status 2.
    """


def __getattr__(name: str) -> Any:
    """`load` is imported when it is first asked for: it needs torch, and `import bench` stays light."""
    if name == "load":
        return importlib.import_module("bench.cell.checkpoint").load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
