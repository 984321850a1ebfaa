"""The Ray of a command: its own on this machine, which nobody else reaches, or a cluster that it joins.

It imports Ray, so it is itself imported only where cells are placed on it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import tempfile
from collections.abc import Iterator
from typing import Any

import ray
from ray._private import ray_constants, services, worker
from ray._private.authentication.authentication_token_setup import _enable_token_auth

from bench import BenchError
from bench.run.backend import LOCAL
from bench.run.greeting import check_cluster, token_file, wrong_token

OBJECT_STORE_BYTES = 100 * 2**20  # jobs and outcomes are a few kilobytes; Ray would set aside a third of the memory
STARTS, TOO_SLOW = 3, "timed out during startup"


def connect(address: str = LOCAL) -> bool:
    """Start a Ray of this command's own (`local`), or join the cluster at `address` (`auto`: the one that runs here).

    Returns whether this call did so: False where the process is connected already. `local` keeps clear of whatever cluster
    an earlier `ray start` left on this machine; it listens on loopback alone and takes orders with a token only. Raises
    BenchError, one sentence, where nobody answers, the token is not the cluster's, or the cluster has another version of Ray
    or Python.
    """
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    worker.print_to_stdstream = _unsaid
    try:
        place = services.get_ray_address_from_environment(address, None) if address == "auto" else address
        if check_cluster(place):
            _enable_token_auth()  # Ray does so by itself for some addresses alone
        if ray.is_initialized():
            return False
        if address == LOCAL:
            _keep_token()
            _start(quiet)
        else:
            ray.init(address=place, **quiet)
    except (RuntimeError, OSError, ConnectionError, TimeoutError, ray.exceptions.RayError) as error:
        raise _refused(address, error) from error
    return True


def _start(quiet: dict[str, Any]) -> None:
    """A Ray here. It gives its processes half a minute, which a machine full of other work may not have: they get it again."""
    for left in reversed(range(STARTS)):
        try:
            with _loopback():
                ray.init(address=LOCAL, include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
            return
        except Exception as error:  # a plain one, where a process was too slow
            ray.shutdown()
            if not left or TOO_SLOW not in str(error):
                raise RuntimeError(str(error)) from error


def _unsaid(*_: Any, **__: Any) -> None:
    """In place of what prints the last hundred lines of the log of every daemon that dies: a lost node is told in one."""


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Let a Ray that starts here take 127.0.0.1 for its node, so that all of its processes listen there.

    Given as an address Ray would exchange it for the machine's own; this is what it sets where it makes no clusters.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _keep_token() -> None:
    """See to it that a token for a Ray of this machine's own lies where nobody but its owner reads it; Ray asks for one."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return  # the owner's affair
    path = token_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            with tempfile.NamedTemporaryFile("w", dir=path.parent) as file:  # for its owner's eyes alone
                file.write(secrets.token_hex(32))
                file.flush()
                with contextlib.suppress(FileExistsError):  # another command was quicker
                    os.link(file.name, path)
        if path.stat().st_mode & 0o077:  # made by an older run, or by Ray itself
            path.chmod(0o600)
    except OSError:  # a home folder that cannot be written: a token that ends with this command will do
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _refused(address: str, error: Exception) -> BenchError:
    reason = next((line for line in str(error).strip().splitlines() if line.strip()), type(error).__name__)
    if address == LOCAL:
        return BenchError(
            f"Ray does not start on this machine ({reason}): free memory and space in the temporary folder, or run the cells "
            "in this process with executor=inline"
        )
    if "token" in f"{error} {error.__cause__}".lower():  # Ray buries a wrong one below its failure to connect
        return wrong_token(address)
    if "version" in str(error).lower():
        message = " ".join(str(error).split())
        return BenchError(f"executor.address={address}: {message[:300]}; install the cluster's versions here")
    if address == "auto":
        return BenchError(
            f"executor.address=auto finds no cluster on this machine ({reason}): start one with ray start --head, or leave "
            "executor.address= out"
        )
    return BenchError(f"executor.address={address}: {reason}")
