"""Files of weights: found by path or by content, and everything that can be wrong with them said by key."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from bench import BenchError
from bench.disk.digests import file_digest
from bench.errors import named
from bench.home import written_path

WORDS = ("pretrained", "random", "empty")  # what `weights` may be besides a file


def state_digest(network: nn.Module) -> str:
    """`sha256:DIGEST` over names and values of all parameters and buffers, wherever they came from."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode() + b"\0")
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"


def find_file(weights: str, files: Mapping[str, str]) -> Path:
    """The file of weights; of a digest, the file that still has it."""
    if not weights.startswith("sha256:"):
        return written_path(weights)
    if weights not in files:
        raise BenchError(f"the file of weights {weights} is not known on this machine: name it again with its path")
    path = Path(files[weights])
    if not path.is_file():
        raise BenchError(f"the file of weights {path} is gone: put it back, it has {weights}")
    found = file_digest(path)
    if found != weights:
        raise BenchError(f"{path} has changed since it was named: it has {found}, not {weights}")
    return path


def fill(network: nn.Module, path: Path, name: str, heads: Sequence[str] = ()) -> None:
    """Copy the weights in the safetensors file `path` into `network`, the network of encoder `name`; those that begin with one of
    `heads`, layers above the features, and that the network lacks are left out.

    Raises BenchError, naming keys, for a file that cannot be read, other keys, other shapes, and values that are not finite.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BenchError(f"{path} cannot be read as a safetensors file: {error}") from error
    own = network.state_dict()
    state = {key: value for key, value in state.items() if key in own or not key.startswith(tuple(heads))}
    faults = {
        "lacks": sorted(own.keys() - state.keys()),
        "has besides": sorted(state.keys() - own.keys()),
        "has in another shape": [key for key in own if key in state and own[key].shape != state[key].shape],
    }
    if any(faults.values()):
        found = "; ".join(f"{what} {named(keys)}" for what, keys in faults.items() if keys)
        raise BenchError(f"{path} holds no weights of encoder {name}: it {found}")
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise BenchError(f"{path}: has NaN or infinite values in {named(broken)}; take a sound copy of the file")
    network.load_state_dict(state)
