"""Where the files of a project lie: results, leaderboards, caches, the MLflow database.

The home is the nearest folder, from the current one upwards, that holds a `bench.toml` or is a checkout of this
project; else the current folder. Nothing is ever written into an installed package.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from bench import BenchError

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent
LONGEST_NAME = 255  # bytes: what a file system takes


def written_path(text: str | Path) -> Path:
    """A path as a person wrote it, with `~` expanded. Raises BenchError for an unknown `~user` and what no path can hold."""
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise BenchError(f"{text}: there is no user {str(text).split('/')[0]}, or no home folder of theirs") from None
    if "\0" in str(path):
        raise BenchError(f"{str(text)!r} holds a zero byte, which no path can")
    if max((len(part.encode(errors="replace")) for part in path.parts), default=0) > LONGEST_NAME:
        raise BenchError(
            f"{str(path)[:40]}..: a name in this path is longer than {LONGEST_NAME} bytes, which no file's is"
        )
    return path


def is_checkout(folder: Path) -> bool:
    """Whether `folder` is a source checkout of this project."""
    return (folder / "pyproject.toml").is_file() and (folder / "bench" / "home.py").is_file()


@dataclass(frozen=True)
class Home:
    """The folders of one project, all absolute."""

    root: Path

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def leaderboards(self) -> Path:
        return self.root / "leaderboards"

    @property
    def work(self) -> Path:
        """Files that can be thrown away and made again: caches, digests, the MLflow view."""
        return self.root / ".bench"

    @property
    def tokens(self) -> Path:
        """References as the scorer tokenizes them, one file per set of them."""
        return self.work / "tokens"

    @property
    def cache(self) -> Path:
        """Feature caches, `<dataset>/<stream>.h5`. `BENCH_CACHE` moves it, to a larger disk for instance."""
        moved = os.environ.get("BENCH_CACHE")
        return written_path(moved).resolve() if moved else self.work / "cache"

    @property
    def node_cache(self) -> Path | None:
        """Where this node keeps copies of feature caches of its own: `BENCH_NODE_CACHE`, as its shell has it; None for none."""
        moved = os.environ.get("BENCH_NODE_CACHE")
        return written_path(moved).resolve() if moved else None

    @property
    def data(self) -> Path:
        """Root of the official annotation files, the value of `${BENCH_DATA}` in data set definitions."""
        moved = os.environ.get("BENCH_DATA")
        return written_path(moved).resolve() if moved else self.root / "data"

    @property
    def mlflow_uri(self) -> str:
        return f"sqlite:///{self.work / 'mlflow.db'}"


def find_home(start: Path | None = None) -> Home:
    """Return the home that `start` (default: the current folder) belongs to. `BENCH_HOME` overrides the search."""
    moved = os.environ.get("BENCH_HOME")
    if moved:
        return Home(written_path(moved).resolve())
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "bench.toml").is_file() or is_checkout(folder):
            return Home(folder)
    return Home(start)


def data_folder(kind: str) -> Path:
    """Folder of the read-only data shipped with the package: `datasets` or `published`.

    In a checkout these are `datasets/` and `results/published/`; in a wheel they lie under `bench/_data`.
    """
    packed = PACKAGE / "_data" / kind
    if packed.is_dir():
        return packed
    return CHECKOUT / ("datasets" if kind == "datasets" else "results/published")
