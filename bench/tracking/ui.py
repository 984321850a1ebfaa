"""The MLflow user interface over the home's own database, on this machine only."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from bench import BenchError
from bench.home import Home
from bench.plan.stores import OFF, absolute_uri, check_store, shown

HOST = "127.0.0.1"
START_SECONDS = 120.0  # six to seven seconds were measured on two free processors
STOP_SECONDS = 10.0
LOG = "mlflow_server.log"  # the server's own: dozens of lines that nobody reads while all is well


def serve(
    home: Home, prepare: Callable[[], Mapping[str, str]], port: int = 5000, uri: str | None = None, browse: bool = False
) -> None:
    """Serve the interface until Ctrl-C or SIGTERM; prints what there is to see once it answers.

    `uri` is a database in place of the home's own. `prepare` brings the store up to date and returns what to print: a name
    and, below the server's address, the path of a page for each; `browse` opens the first. Raises BenchError when the store
    cannot be used, the port is taken or the server ends by itself.
    """
    if uri is not None and (uri == OFF or uri.startswith("http")):
        raise BenchError(f"mlflow={shown(uri)}: a server's pages are at its own address; bench ui shows a database")
    check_store(uri, home, there=True)
    _check_free(port)
    store, address, log = absolute_uri(uri or home.mlflow_uri, home), f"http://{HOST}:{port}", home.work / LOG
    try:
        home.work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(
            f"{home.work} cannot be made ({error.strerror}): make its folder writable, or choose another with "
            "BENCH_HOME=FOLDER"
        ) from error
    pages = prepare()
    with contextlib.suppress(KeyboardInterrupt), _server(home, port, store, log) as process:
        _await_answer(process, f"{address}/health", log)
        lines = [f"  {name:{max(map(len, pages))}}  {address}{path}" for name, path in pages.items()]
        print("\n".join([f"MLflow shows {shown(store)} at {address} (Ctrl-C ends it)", *lines]), flush=True)
        if browse and pages:
            webbrowser.open(address + next(iter(pages.values())))
        status = process.wait()
        raise BenchError(f"the MLflow server ended by itself (exit status {status}); its log is {log}")


def command_line(home: Home, port: int, store: str) -> list[str]:
    """The server's command: one worker and the database `store`. Artifacts are read where the runs say they lie."""
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", store, "--default-artifact-root", (home.work / "mlflow").as_uri()),
    ]


def lean_environment() -> dict[str, str]:
    """Environment of the server: no job runner (it costs 13 processes and 2.6 GB), nothing sent to anybody."""
    lean = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    return {**os.environ, **lean}


def _check_free(port: int) -> None:
    if not 1 <= port <= 65535:
        raise BenchError(f"port={port} is no port: use a number from 1 to 65535, such as port=5000")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BenchError(
                f"port {port} on {HOST} cannot be used ({error.strerror}): another program has it, perhaps an earlier "
                f"bench ui; choose another with bench ui port={port + 1 if port < 65535 else 5000}"
            ) from error


@contextlib.contextmanager
def _server(home: Home, port: int, store: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server as a child of its own session, so that Ctrl-C reaches it through here and ends all of it."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    command, environment = command_line(home, port, store), lean_environment()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=environment, cwd=home.work, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        signal.signal(signal.SIGTERM, before)
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the group of the child that was started here
            process.wait()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _await_answer(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchError(f"the MLflow server did not start (exit status {process.returncode}); its log is {log}")
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(address, timeout=2):  # nosec B310  # ours
            return
        time.sleep(0.2)
    raise BenchError(f"the MLflow server gave no answer at {address} within {START_SECONDS:.0f} s; its log is {log}")
