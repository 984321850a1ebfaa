"""Checkpoints of finished cells: one safetensors file with the weights, and in its metadata all that is needed to use them.

The metadata holds JSON under three names: `config`, the cell's declaration; `vocabulary`, its words by id; `streams`, what
the method knows of each stream. A checkpoint may be given away: where the cell found its data set and weights stands in
`work/places.json` beside it. A checkpoint that does not belong to what is asked, or to the code of today, is refused.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from bench import BenchError
from bench.cell.captioner import Checkpoint
from bench.declare.registry import method as card_of
from bench.declare.registry import method_digest, method_entry
from bench.disk.digests import file_digest
from bench.disk.limits import own_json, own_text
from bench.disk.whole import write_atomically, write_whole
from bench.errors import listing, named
from bench.features.device import choose_device
from bench.features.encoders import load_encoder
from bench.home import written_path
from bench.method import Method, StreamInfo, Vocabulary
from bench.plan.cells import ENGINE
from bench.records.schema import LOCAL, public

CHECKPOINT = "checkpoint.safetensors"
PLACES = Path("work", "places.json")
PARTS = ("config", "vocabulary", "streams")
AGAIN = "train it again with bench run, or use the version of this project that made it"


def method_code(name: str) -> Any:
    """The module that holds `build` of a method, imported only now. Raises BenchError for an unknown or broken method."""
    return importlib.import_module(method_entry(name).module)


def build(config: Mapping[str, Any], streams: Mapping[str, StreamInfo], words: Vocabulary) -> Method:
    """The method of a configuration, untrained. Settings that came after its cell have their defaults."""
    name = config["method"]
    made: Method = method_code(name).build(card_of(name).whole(config["settings"]), streams, words)
    return made


def save(
    path: Path,
    state: Mapping[str, Tensor],
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    streams: Mapping[str, StreamInfo],
) -> None:
    """Write a checkpoint, whole or not at all; `state` must be contiguous and on the CPU. Raises BenchError on a full disk."""
    parts = {
        "config": public(config),
        "vocabulary": list(vocabulary.words),
        "streams": {name: asdict(info) for name, info in streams.items()},
    }
    metadata = {part: json.dumps(parts[part]) for part in PARTS}
    # Not by its save_file, which leaves a file of a name of its own where it is killed.
    write_whole(path, lambda aside: aside.write_bytes(to_bytes(dict(state), metadata=metadata)))
    write_atomically(path.parent / PLACES, json.dumps({name: config[name] for name in LOCAL if name in config}))


def places(folder: Path) -> dict[str, Any]:
    """Where the cell of a folder found its data set and weights; empty on another machine, which has only the checkpoint."""
    try:
        found = own_json(own_text(folder / PLACES))
    except (OSError, ValueError):
        return {}
    return {name: found[name] for name in LOCAL if name in found} if isinstance(found, dict) else {}


def load(
    path: str | Path,
    *,
    method: str | None = None,
    vocabulary: Vocabulary | None = None,
    weights: Iterable[str | Path] = (),
    device: str = "cpu",
) -> Checkpoint:
    """The trained method of a checkpoint: for clips of a corpus by its `method`, for a video by its `caption`.

    `method` (`recnet` or `recnet:local`) and `vocabulary` say what the caller needs. Raises BenchError with both values
    where the checkpoint is of another method, variant, vocabulary or version of the code, or its weights do not fit; and
    for a file that is absent, damaged, or no checkpoint of a cell. In place of the file its cell's folder may be named.

    `weights` are files of encoders' weights: a method that decodes with an encoder which it did not train finds its own among
    them by their digest, where the file is not any more where the cell found it. The method and the encoders of videos
    compute on the `device`: cpu, cuda, cuda:1, or auto for the GPU where there is one.
    """
    path, place = written_path(path), choose_device(device)
    if path.is_dir():
        path /= CHECKPOINT
    state, metadata = _read(path)
    config, words, streams = _about(path, metadata)
    _check_method(path, config, method)
    _check_version(path, config)
    if vocabulary is not None and vocabulary.digest != words.digest:
        raise BenchError(
            f"{path} was trained with a vocabulary of {len(words):,} words (digest {words.digest[:12]}), and here is "
            f"one of {len(vocabulary):,} (digest {vocabulary.digest[:12]}): its words would be read as others"
        )
    made = _built(path, config, streams, words)
    if prepare := getattr(made, "prepare", None):
        files = config.get("files", {}) | {file_digest(written_path(file)): str(file) for file in weights}
        prepare(lambda name, which: load_encoder(name, which, files).to(place))
    try:
        made.load_state_dict(state)
    except (ValueError, KeyError, RuntimeError) as error:
        raise BenchError(
            f"the weights of {path} do not fit {_called(config)} as it is built now: {_misfit(state, made, error)}"
        ) from error
    _put(made, place, config)
    return Checkpoint(made, config, words, streams, place)


def _put(made: Method, place: torch.device, config: Mapping[str, Any]) -> None:
    """Bring the weights of a method to a device; its module has them, or it is one itself."""
    module = getattr(made, "module", made)
    if isinstance(module, torch.nn.Module):
        module.to(place)
    elif place.type != "cpu":
        raise BenchError(
            f"{config['method']} does not say where its weights are (no attribute `module`): use device=cpu"
        )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights and metadata of a safetensors file."""
    if not path.is_file():
        raise BenchError(
            f"there is no checkpoint {path}; bench run leaves one in the folder of a cell, as "
            f"results/DATASET/METHOD/KEY/{CHECKPOINT}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118 - no dict
    except (SafetensorError, OSError) as error:
        raise BenchError(f"{path} is no whole checkpoint: copy it again, or train its cell again") from error


def _about(path: Path, metadata: Mapping[str, str]) -> tuple[dict[str, Any], Vocabulary, dict[str, StreamInfo]]:
    """Declaration, vocabulary and streams from the metadata."""
    lacking = [part for part in PARTS if part not in metadata]
    if lacking:
        raise BenchError(
            f"{path} holds weights, but its metadata lacks {listing(lacking)}: it was made by another program or by an "
            f"earlier version; {AGAIN}"
        )
    try:
        config, words, infos = (own_json(metadata[part]) for part in PARTS)
        if not isinstance(config.get("method"), str):
            raise ValueError("its config names no method")
        streams = {name: StreamInfo(**{**info, "shape": tuple(info["shape"])}) for name, info in infos.items()}
        return {**config, **places(path.parent)}, Vocabulary(tuple(words)), streams
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"the metadata of {path} cannot be read ({type(error).__name__}: {error}); {AGAIN}") from error


def _built(path: Path, config: dict[str, Any], streams: Mapping[str, StreamInfo], words: Vocabulary) -> Method:
    """The method as its metadata describes it. Raises BenchError where they describe none, or a greater one than its weights."""
    largest = path.stat().st_size
    try:
        card = card_of(config["method"])
        settings = card.checked(card.whole(config["settings"]), "settings")
        if absent := [name for name, one in card.settings.items() if not one.of_loss and name not in settings]:
            raise BenchError(f"without {listing(absent)}")
        sizes = [size for info in streams.values() for size in info.shape]
        sizes += [
            value for name, value in settings.items() if isinstance(value, int) and value != card.settings[name].default
        ]
        if max(sizes, default=0) > largest:
            raise BenchError(f"a size of {max(sizes):,} is none of weights of {largest:,} bytes")
        return build(config, streams, words)
    except (AttributeError, BenchError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise BenchError(
            f"the metadata of {path} describe no method ({error or type(error).__name__}); {AGAIN}"
        ) from error


def _check_method(path: Path, config: Mapping[str, Any], asked: str | None) -> None:
    if asked is not None and asked not in (config["method"], _called(config)):
        raise BenchError(f"{path} is a checkpoint of {_called(config)}, not of {asked}")


def _check_version(path: Path, config: Mapping[str, Any]) -> None:
    """Raise BenchError where the code behind the weights is not the code that would use them."""
    folder = method_entry(config["method"]).folder
    assert folder is not None  # a usable method has its card in a folder
    for what, then, now in (
        ("engine", config.get("engine"), ENGINE),
        (f"code of {config['method']}", config.get("method_digest"), method_digest(folder)),
    ):
        if then != now:
            raise BenchError(
                f"{path} was made with another {what} ({str(then)[:12]}) than this version's ({str(now)[:12]}); {AGAIN}"
            )


def _called(config: Mapping[str, Any]) -> str:
    return f"{config['method']}:{config.get('variant')}"


def _misfit(state: Mapping[str, Tensor], made: Method, error: Exception) -> str:
    """Which names only one side has; else the method's own error, which names the shapes."""
    own = made.state_dict()
    sides = {"only the checkpoint has": state.keys() - own.keys(), "only the method has": own.keys() - state.keys()}
    return "; ".join(f"{side} {named(sorted(names))}" for side, names in sides.items() if names) or str(error)
