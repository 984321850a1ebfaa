"""What made a record: code, packages, machine. Kept beside every result, never part of its key."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from bench import __version__
from bench.home import CHECKOUT, is_checkout

# Set for a cell by whoever placed it: its share, and `again` after a smaller one was too small.
GPU_SHARE = "BENCH_GPU_SHARE"
# What a result is made from; results and pages themselves change with every run and make nothing dirty.
CODE = ("bench", "methods", "datasets", "pyproject.toml")
# Of an x86 processor, the widest first: the flag in its listing, and its name.
VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}


def now() -> str:
    """The present as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def provenance(threads: int, device: str, precision: str = "float32") -> dict[str, Any]:
    """The provenance block of a record.

    `started` and `finished` are both the present; who runs a cell moves `finished`. `git` and `dirty` speak of this
    project's code and are None and False for an installed package. `host` stays empty: records are published, and a
    machine's name says nothing that processor and platform do not. On a GPU the block names it and its libraries, and the
    `precision` of products.
    """
    commit, dirty = git_state(CHECKOUT)
    moment = now()
    share, again = placed()
    return {
        "bench": __version__,
        "git": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "torch": package_version("torch"),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": processor_name(),
        "device": device,
        "host": None,
        "started": moment,
        "finished": moment,
        "threads": threads,
        **(gpu_facts(device) | {"precision": precision} if device.startswith("cuda") else {}),
        **({"gpu_share": share, "memory_ran_out": again} if share else {}),
    }


def placed() -> tuple[float, bool]:
    """The share of a GPU that this cell was given, 0 where nobody gave it one, and whether a smaller one was too small before."""
    share, _, again = os.environ.get(GPU_SHARE, "").partition(" ")
    return float(share or 0), bool(again)


def gpu_facts(device: str) -> dict[str, str | None]:
    """Name of a GPU, its driver, and the versions of CUDA and cuDNN that torch was built with."""
    import torch

    cudnn = torch.backends.cudnn.version()
    return {
        "gpu": torch.cuda.get_device_name(device),
        "driver": ask_driver("driver_version"),
        "cuda": torch.version.cuda,
        "cudnn": None if cudnn is None else str(cudnn),
    }


def ask_driver(what: str) -> str | None:
    """What nvidia-smi says of this machine's GPUs, a line for each; None where it is not there or fails."""
    command = ["nvidia-smi", f"--query-gpu={what}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return told.strip() or None


def gpu_memory() -> float | None:
    """GiB of the smallest GPU of this machine by its driver; None where there is none or it is not NVIDIA's."""
    listed = ask_driver("memory.total")
    try:
        return min(float(line) for line in listed.split()) / 1024 if listed else None
    except ValueError:
        return None


def package_version(name: str) -> str | None:
    """Version of an installed distribution, read without importing it; None where it is absent."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def git_state(folder: Path) -> tuple[str | None, bool]:
    """Commit of the checkout at `folder` and whether its code differs from it; (None, False) outside a checkout.

    None and False too where git fails: a folder that it does not trust must not stop a run.
    """
    if not is_checkout(folder) or shutil.which("git") is None:
        return None, False
    said = _git(folder, "status", "--porcelain=v2", "--branch", "--", *CODE)
    if said is None:
        return None, False
    lines = said.splitlines()
    commit = next(line.split()[-1] for line in lines if line.startswith("# branch.oid "))
    return None if commit == "(initial)" else commit, any(not line.startswith("#") for line in lines)


def committed(path: Path) -> tuple[str | None, bool]:
    """The commit that last changed the file at `path`, and whether it stands as it was committed; (None, True) where no git
    checkout holds it."""
    if not is_checkout(CHECKOUT) or not path.is_relative_to(CHECKOUT) or shutil.which("git") is None:
        return None, True
    commit = _git(CHECKOUT, "log", "-1", "--format=%H", "--", str(path))
    if commit is None:
        return None, True
    return commit or None, bool(commit) and not _git(CHECKOUT, "status", "--porcelain", "--", str(path))


def moment(commit: str | None) -> str | None:
    """When a commit of the checkout was made, ISO 8601; None where that is not known."""
    return _git(CHECKOUT, "show", "-s", "--format=%cI", commit) if commit and shutil.which("git") else None


def _git(folder: Path, *words: str) -> str | None:
    """Output of a git command, None where it fails: a folder that git does not trust must not stop a run."""
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(folder), *words], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@functools.cache
def processor_name(listing: Path = Path("/proc/cpuinfo")) -> str:
    """The processor as the system tells it: `AMD EPYC (family 25, model 1, AVX2)`.

    A name alone does not tell how it rounds: clouds give one to several, and kernels are chosen by the widest vectors.
    """
    try:
        first = listing.read_text(errors="replace").partition("\n\n")[0]
    except OSError:
        first = ""
    told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    if "model name" not in told:
        return platform.processor() or platform.machine()
    facts = [f"{name.removeprefix('cpu ')} {told[name]}" for name in ("cpu family", "model") if name in told]
    widest = next((vectors for flag, vectors in VECTORS.items() if flag in told.get("flags", "").split()), None)
    facts += [widest] if widest else []
    return f"{told['model name']} ({', '.join(facts)})" if facts else told["model name"]
