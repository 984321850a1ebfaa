"""The store of phases: what several cells would train in just the same way is trained by one of them and taken up by the others.

A trained phase is addressed by all that acted until its end: code, data, seed, machine, the module and the generators as they
were at the start, the captions of each phase, and the settings that act in it or before, for which the card says where each
first acts. So a cell that takes one up ends with the numbers that it would have had alone. Where phases end by their scores, the
last of one recipe may stand amid another (salstm:xe is how salstm:rl begins); where a recipe shares out a number of captions,
its last phase is nobody else's and is not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import BenchError
from bench.cell.provenance import package_version, processor_name
from bench.cell.schedule import SCHEDULE, PartOver
from bench.declare.registry import method as card_of
from bench.disk.locks import CellBusyError, cell_lock
from bench.disk.whole import replacing
from bench.home import Home
from bench.records.schema import canonical

FOLDER = "phases"
LIMIT = 4 * 2**30  # bytes of all phases of a home; those that were not taken up for longest go first
# What of a configuration does not act on training as a whole: names and places, the clips that are decoded afterwards, and what
# is accounted for by itself. All else does, also what comes later.
APART = {"dataset_path", "title", "changed", "files", "reuse", "tuning", "variant", "protocol", "split"} | {
    "device",
    "phases",
    "settings",
    "train",
    SCHEDULE,
}


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes of the weights, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def addresses(
    config: Mapping[str, Any], phases: Sequence[tuple[str, int]], module: nn.Module, device: torch.device
) -> list[str]:
    """The address of each phase that others may share, each made from the one before it: all of them under budget=converged, else
    all but the last."""
    common = phases if config["train"].get("budget") == "converged" else phases[:-1]
    if not common:
        return []
    card = card_of(config["method"])
    first: dict[str | None, dict[str, Any]] = {}
    for name, value in config["settings"].items():
        first.setdefault(card.settings[name].acts, {})[name] = value
    digest = _digest(
        {name: value for name, value in config.items() if name not in APART},
        {name: value for name, value in config["train"].items() if name not in ("epochs", "reward_epochs", "rewards")},
        first.get(None, {}),
        _machine(device),
        weights_digest(module.state_dict()),
        weights_digest(_generators(device)),
    )
    found, read = [], 0
    for number, (name, captions) in enumerate(common):  # lengths in epochs come as captions
        rewards = config["train"].get("rewards", True) if number else True  # no recipe begins with a phase of rewards
        read += captions
        changes = [change for change in config.get(SCHEDULE, ()) if change["captions"] <= read]
        digest = _digest(digest, name, captions, first.get(name, {}), rewards, changes)
        found.append(digest)
    return found


def _digest(*parts: Any) -> str:
    return hashlib.sha256(canonical(parts).encode()).hexdigest()


def _machine(device: torch.device) -> list[str | None]:
    """What decides the last bits of a sum beside the code."""
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return [device.type, kind, package_version("torch")]


def _generators(device: torch.device) -> dict[str, Tensor]:
    own = {"cpu": torch.get_rng_state()}
    return own | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


class SharedPhases:
    """`bench.method.SharedPhases` of one cell. `state` is the file of its resume state, `take` reads such a file into the cell.

    At most one cell trains a phase at a time: others wait for it, and go on by themselves where it was killed.
    """

    def __init__(
        self, home: Home, phases: Sequence[str], addresses: Sequence[str], state: Path, take: Callable[[Path, int], Any]
    ) -> None:
        self._home, self._names, self._addresses, self._state, self._take = home, phases, addresses, state, take
        self._held = contextlib.ExitStack()

    def enter(self, phase: int) -> Mapping[str, Any] | None:
        self.release()
        if phase >= len(self._addresses):
            return None
        found = self._found(phase)
        if found is None:
            self._hold(phase)
            found = self._found(phase)  # by the cell that was waited for
            if found is not None:
                self.release()
        return found

    def leave(self, phase: int) -> None:
        if phase < len(self._addresses):
            try:
                _keep(self._state, self._path(phase))
                _make_room(self._path(phase))
            except OSError as error:  # no reason to lose the cell: the next one trains the phase itself
                print(f"phase {self._names[phase]} could not be kept for other cells: {error}", flush=True)
        self.release()

    def release(self) -> None:
        """Let others train what this cell was going to."""
        self._held.close()

    def _path(self, phase: int) -> Path:
        return self._home.work / FOLDER / f"{self._addresses[phase]}.pt"

    def _found(self, phase: int) -> Mapping[str, Any] | None:
        """The state at the end of the latest phase from this one on that is there and can be read."""
        for later in reversed(range(phase, len(self._addresses))):
            path = self._path(later)
            try:
                os.utime(path)
                state: Mapping[str, Any] = self._take(path, later + 1)
            except FileNotFoundError:
                continue
            except (PartOver, OSError, MemoryError, BenchError):  # the disk or the machine, not the file
                raise
            except Exception as error:  # torch, pickle, zip and struct have errors of their own
                print(f"{path} is damaged and was removed: {error}", flush=True)
                path.unlink(missing_ok=True)
                continue
            print(f"phases {', '.join(self._names[: later + 1])} were taken up from {path}", flush=True)
            return state
        return None

    def _hold(self, phase: int) -> None:
        """Become the one that trains the phase."""
        lock = self._addresses[phase][:16]
        try:
            self._held.enter_context(cell_lock(self._home, lock, wait=0))
        except CellBusyError as busy:
            print(f"waiting for phase {self._names[phase]}, which process {busy.holder} trains", flush=True)
            self._held.enter_context(cell_lock(self._home, lock, wait=math.inf))


def _keep(state: Path, path: Path) -> None:
    """Make `path` the same file as `state`, which is replaced and never written into; a copy where there are no such links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, several=True, durable=False) as aside:
        aside.unlink()
        try:
            os.link(state, aside)
        except OSError:
            shutil.copyfile(state, aside)


def _make_room(newest: Path) -> None:
    """Remove what was not taken up for longest until all fits; the newest stays."""
    kept = []
    for path in newest.parent.glob("*.pt"):
        with contextlib.suppress(OSError):  # another cell makes room too
            kept.append((path.stat().st_mtime, path.stat().st_size, path))
    left = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        if left <= LIMIT or path == newest:
            break
        path.unlink(missing_ok=True)
        left -= size
