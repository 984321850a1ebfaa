"""Whether what a request names is there: the tracker, a cluster, which is asked for its token without Ray, the device, room for
results.

It is light: `bench plan` asks too, and nothing is prepared before. Several mistakes are told together.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path

from bench import BenchError
from bench.cell.provenance import gpu_memory
from bench.errors import together
from bench.home import Home
from bench.plan.request import Running
from bench.plan.stores import check_stores
from bench.run.backend import LOCAL

ANSWER_SECONDS = 5.0  # an address that is silent for longer has nobody behind it
ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"


def check_places(spec: Running, home: Home) -> None:
    """Raise BenchError where something that a request names is not there or does not take it."""
    together(
        [
            partial(check_stores, spec, home),
            partial(check_cluster, spec.address),
            partial(_check_device, spec),
            partial(_check_writable, home),
        ]
    )


def _check_device(spec: Running) -> None:
    """A GPU that cells of this machine are to compute on; what the nodes of a cluster have is asked when it is joined."""
    here = spec.executor == "inline" or spec.address == LOCAL
    if here and spec.device.startswith("cuda") and (":" in spec.device or gpu_memory() is None):
        from bench.features.device import choose_device  # imports torch, which knows better than the driver

        choose_device(spec.device)


def _check_writable(home: Home) -> None:
    """Find out now, and not after an hour of training, that results cannot be written."""
    for folder in (home.results, home.work):
        there = next(one for one in (folder, *folder.parents) if one.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            what = "cannot be written" if there.is_dir() else "is no folder"
            raise BenchError(
                f"{folder}: {there} {what}: make it writable, or choose another folder for results with BENCH_HOME=FOLDER"
            )


def check_cluster(address: str) -> bool:
    """Whether the Ray at `address` asks for a token: this machine's, which it takes. False for `local` and `auto`, which are
    not asked.

    Raises BenchError, one sentence, where nobody answers, nobody of Ray's, or one who takes other tokens; Ray would try for
    minutes, and tell what it tries.
    """
    if address in (LOCAL, "auto"):
        return False
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise BenchError(
            f"executor.address={address}: nobody answers ({error}); start the cluster there with ray start --head "
            f"--port={port}, or use executor.address=local"
        ) from None
    if os.environ.get("RAY_USE_TLS") == "1":  # its certificates are Ray's affair
        return False
    if _greeted(address, None):
        return False
    token = _token()
    if token is None or not _greeted(address, token):
        raise wrong_token(address)
    return True


def _greeted(address: str, token: str | None) -> bool:
    """Whether the head there answers a bearer of this token; False where it refuses it. Raises BenchError for any other end."""
    import grpc  # here, because most commands address nobody

    bearer = [] if token is None else [("authorization", f"Bearer {token}")]
    try:
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            channel.unary_unary(ALIVE)(b"", metadata=bearer, timeout=ANSWER_SECONDS)
        return True
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            return False
        raise BenchError(
            f"executor.address={address}: what answers there is no head of a Ray cluster ({error.code().name.lower()}); name "
            "the port of ray start --head (6379, unless --port= says another)"
        ) from None


def token_file() -> Path:
    """Where Ray looks for a token that no variable names."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def _token() -> str | None:
    """The token that Ray would present on this machine; None where it has none."""
    try:
        return os.environ.get("RAY_AUTH_TOKEN") or token_file().read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeError):
        return None


def wrong_token(address: str) -> BenchError:
    """The sentence for a cluster that refuses this machine's token, or its lack of one."""
    return BenchError(
        f"executor.address={address}: the cluster does not take this machine's token; copy the file that ray "
        "get-auth-token names on the head to this machine, or point RAY_AUTH_TOKEN_PATH at it"
    )
