"""Where Ray Tune keeps the state of a search and its trials their resume states: a folder that all nodes share, or a bucket."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.disk.whole import replacing

STATES = "states"


def refuse(storage: str) -> None:
    """Raise BenchError for what is neither an absolute path nor a URL: nodes have no current folder in common."""
    if "://" not in storage and not Path(storage).is_absolute():
        raise BenchError(
            f"storage={storage} is neither an absolute path nor a URL: write storage=/shared/folder, file:///shared/folder or "
            "s3://bucket/folder"
        )


def place(storage: str) -> tuple[Any, str]:
    """File system and path of `storage`: pyarrow's where it knows the scheme, else fsspec's.

    Raises BenchError for a scheme that neither knows and for what the address lacks.
    """
    import pyarrow
    from pyarrow import fs

    try:
        return fs.FileSystem.from_uri(storage)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, OSError) as first:
        try:
            from fsspec.core import url_to_fs

            found, path = url_to_fs(storage)
            return fs.PyFileSystem(fs.FSSpecHandler(found)), path
        except (ValueError, ImportError, OSError) as second:
            raise BenchError(f"storage={storage} cannot be used ({_line(first)}; {_line(second)})") from None


def check(storage: str) -> None:
    """Whether this machine can write there and every other node sees what it wrote. Raises BenchError, one sentence.

    Must be connected to Ray. A folder of one machine's own would be found out when the first trial moves to another node.
    """
    name, content = f"seen-{uuid.uuid4().hex}", b"bench"
    try:
        files, path = place(storage)
        files.create_dir(path, recursive=True)
        with files.open_output_stream(f"{path}/{name}") as file:
            file.write(content)
    except OSError as error:
        raise BenchError(
            f"storage={storage} cannot be written ({_line(error)}): make the folder or bucket, give this machine the right to "
            "write there, or leave storage= out"
        ) from None
    try:
        from bench.run.cluster import ask_nodes  # it imports Ray, which only a search needs

        for _, address, reason in ask_nodes(sees, storage, name):
            if reason:
                raise BenchError(
                    f"node {address} does not see storage={storage} ({reason}): name storage that all nodes share, under the "
                    "same path and with the same rights"
                )
    finally:
        with contextlib.suppress(OSError):
            files.delete_file(f"{path}/{name}")


def sees(storage: str, name: str) -> str:
    """Run on a node: why it does not see the file `name` in `storage`; empty if it does."""
    try:
        files, path = place(storage)
        with files.open_input_stream(f"{path}/{name}") as file:
            file.read()
    except (OSError, BenchError) as error:
        return _line(error)
    return ""


@dataclass(frozen=True)
class ResumeStates:
    """Resume states of the trials of one search in its storage, so that they outlive the machines that trained them."""

    storage: str
    search: str

    def _at(self, key: str) -> tuple[Any, str]:
        files, path = place(self.storage)
        return files, f"{path}/{STATES}/{self.search}/{key}.pt"

    def save(self, key: str, state: Path) -> None:
        """Keep a copy of `state`, whole or not at all."""
        files, path = self._at(key)
        files.create_dir(path.rpartition("/")[0], recursive=True)
        with state.open("rb") as source, files.open_output_stream(f"{path}.tmp") as target:
            shutil.copyfileobj(source, target, 2**20)
        files.move(f"{path}.tmp", path)

    def fetch(self, key: str, state: Path) -> bool:
        """Bring the copy to `state`; False if there is none."""
        files, path = self._at(key)
        try:
            with files.open_input_stream(path) as source, replacing(state) as aside, aside.open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
        except FileNotFoundError:
            return False
        return True

    def remove(self, key: str) -> None:
        """Remove the copy of a trial that has ended."""
        files, path = self._at(key)
        with contextlib.suppress(OSError):
            files.delete_file(path)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
