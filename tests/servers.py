"""Real servers on loopback for tests: MLflow's, and PostgreSQL with a data folder of its own. All end with the test."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bench.tracking.ui import lean_environment

START_SECONDS = 120.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_answer(address: str, process: subprocess.Popen[Any], log: Path) -> None:
    """Wait until a server answers at an address."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")[-2000:]
        with suppress(OSError), urllib.request.urlopen(address, timeout=2):
            return
        time.sleep(0.2)
    raise AssertionError(f"no answer at {address}: {log.read_text(encoding='utf-8', errors='replace')[-2000:]}")


def end(process: subprocess.Popen[Any]) -> None:
    """End a server that was started as the head of its own session, and what it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def mlflow_server(store: str, folder: Path) -> Iterator[tuple[str, subprocess.Popen[Any]]]:
    """MLflow's tracking server over the database `store`, its artifacts in `folder`: its address and its process."""
    port, log = free_port(), folder / "server.log"
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
             "--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")],
            env=lean_environment(), stdout=out, stderr=out, start_new_session=True, cwd=folder,
        )  # fmt: skip
    try:
        await_answer(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}", process
    finally:
        end(process)


@contextmanager
def postgresql() -> Iterator[str]:
    """A PostgreSQL with nothing in it, on loopback: the address of its database. Skips where it is not installed.

    It refuses to run as root; then the user `postgres`, who comes with the package, runs it.
    """
    pytest.importorskip("psycopg", reason='no psycopg: pip install "psycopg[binary]"')
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [
        Path(found).parent for found in [shutil.which("initdb")] if found
    ]
    if not binaries:
        pytest.skip("no PostgreSQL: apt-get install postgresql")
    user: dict[str, Any] = {}
    folder = Path(tempfile.mkdtemp(prefix="bench-postgresql-"))
    if os.geteuid() == 0:
        try:
            owner = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("no user postgres to run PostgreSQL, which refuses root")
        user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    data, log, port = folder / "data", folder / "log", free_port()
    command = [
        binaries[-1] / "initdb",
        "-D",
        data,
        "-U",
        "bench",
        "-A",
        "trust",
        "--no-sync",
        "-E",
        "UTF8",
        "--locale=C",
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=folder, timeout=120, **user)
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", folder, "-F", "-c", "shared_buffers=16MB"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [binaries[-1] / "postgres", "-D", data, *options],
            stdout=out, stderr=out, start_new_session=True, cwd=folder, **user,
        )  # fmt: skip
    try:
        _await_database(port, process, log)
        yield f"postgresql+psycopg://bench@127.0.0.1:{port}/postgres"
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)  # does not wait for clients
        end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _await_database(port: int, process: subprocess.Popen[Any], log: Path) -> None:
    import psycopg

    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-2000:]
        with suppress(psycopg.OperationalError):
            psycopg.connect(f"host=127.0.0.1 port={port} user=bench dbname=postgres", connect_timeout=2).close()
            return
        time.sleep(0.1)
