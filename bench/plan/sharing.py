"""How many cells share a GPU: as many as its memory holds, by what like cells took, and no more than keep it busy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench import BenchError
from bench.declare.card import Resources
from bench.home import Home
from bench.plan.estimates import peak_on_gpu, records_of
from bench.records.schema import Record

MOST_TOGETHER = 4  # so many cells keep a GPU busy, whose steps are bound by launches; more only wait for each other
CONTEXT_BYTES = 3 * 2**28  # of a process on a GPU beside its tensors: CUDA's context and the code of its kernels
FEATURES = 0.25  # of what tensors may fill: features of a set that are no larger stay on the GPU, copied once
SPARE = (
    1.25  # of the recorded peak: what torch holds beyond the tensors, and captions that are longer than those recorded
)


def recorded_room(configs: Mapping[str, Mapping[str, Any]], home: Home) -> dict[str, float]:
    """GiB of a GPU that each cell needs, by key, where like cells were recorded on a GPU. Reads records, changes nothing."""
    records: dict[tuple[str, str], list[Record]] = {}
    found = {}
    for key, config in configs.items():
        place = str(config["dataset"]), str(config["method"])
        if place not in records:
            records[place] = list(records_of(home, *place))
        peak = peak_on_gpu(config, records[place])
        if peak is not None:
            found[key] = peak / 1024 * SPARE + CONTEXT_BYTES / 2**30
    return found


def tensors_of(share: float, whole: int) -> float:
    """The part of a GPU with `whole` bytes that tensors may fill in a process with this share: its context lies beside them."""
    return max(share - CONTEXT_BYTES / whole, share / 2)


def room_for_features(share: float, whole: int, free: int) -> int:
    """Bytes of a GPU, of whose `whole` are `free`, that a cell with this share may fill with the features of its clips.

    As if as many cells as may shared it: what one recorded alone then fits beside its like, whose room its record tells.
    """
    part = tensors_of(min(share, 1 / MOST_TOGETHER), whole)
    return int(FEATURES * min(part * whole, free))


def gpu_share(label: str, card: Resources, whole: float | None, recorded: float | None) -> float:
    """GPUs of a cell: what its card says, and no less than holds its `gpu_memory` on a GPU of `whole` GiB.

    Where the card names neither, the smallest share that holds the GiB that like cells needed, if that is `recorded`. Where
    the memory of the GPU (None) or of the cell is not known that is a whole one. Raises BenchError for more than it has.
    """
    if card.gpu_memory is None:
        if card.gpus or recorded is None or whole is None:
            return card.gpus or 1.0
        return 1.0 / max(1, min(MOST_TOGETHER, int(whole / recorded)))
    if whole is None:
        return max(card.gpus, 1.0)
    if card.gpu_memory > whole:
        raise BenchError(
            f"{label} asks for {card.gpu_memory:g} GiB of GPU memory and a GPU of this Ray has {whole:.0f}: name a larger "
            "kind with resources.accelerator_type=, or less with resources.gpu_memory="
        )
    return max(card.gpus, 1.0 / int(whole / card.gpu_memory))
