"""Where MLflow keeps its runs: which `mlflow=` can be used, found out before anything starts.

The home's own database is a view that can be thrown away, so what is wrong with it is a note of the run. What was named on
the command line is an order, so what is wrong with it stops the command.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import importlib.util
import netrc
import os
import re
import socket
import sqlite3
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from functools import partial
from pathlib import Path

from bench import BenchError
from bench.declare.addresses import DATABASES, TRACKERS, check_tracker
from bench.declare.addresses import OFF as OFF  # the room's own words for an address
from bench.declare.addresses import SQLITE as SQLITE
from bench.declare.addresses import shown as shown
from bench.errors import did_you_mean, first_line, together
from bench.home import Home, written_path
from bench.plan.request import Running

ANSWER_SECONDS = 5.0


def absolute_uri(uri: str, home: Home) -> str:
    """`uri` with a relative SQLite path made absolute from the home's root: MLflow would take it from the current folder."""
    if uri.startswith(SQLITE):
        return SQLITE + str(home.root / written_path(uri.removeprefix(SQLITE)))
    return uri


def check_stores(how: Running, home: Home) -> None:
    """Whether runs can be kept where a request says. Raises BenchError as `check_store` does, and for a Weights & Biases that is
    not installed or does not know the user."""
    together([partial(check_store, how.mlflow, home), partial(_check_wandb, how.wandb)])


def _check_wandb(project: str | None) -> None:
    if project is None:
        return
    if not re.fullmatch(r"([\w.-]+/)?[\w.-]{1,128}", project):
        raise BenchError(
            f"wandb={project} is no project: write wandb=PROJECT or wandb=TEAM/PROJECT, in letters, digits, . _ -"
        )
    if importlib.util.find_spec("wandb") is None:
        raise BenchError(f'wandb={project} needs the package wandb: pip install "captionbench[wandb]"')
    if os.environ.get("WANDB_MODE", "online") == "online" and not os.environ.get("WANDB_API_KEY"):
        host = urllib.parse.urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc().authenticators(host):
                return
        raise BenchError(
            f"wandb={project}: Weights & Biases does not know you: give the command wandb login, or keep the runs here with "
            "WANDB_MODE=offline"
        )


def check_store(uri: str | None, home: Home, there: bool = False) -> None:
    """Whether runs can be kept at `uri`, as it was given on the command line (None: nothing was); with `there`, whether it is
    a database that exists.

    Raises BenchError for a malformed address or one of an unknown kind, a server that does not answer, is not MLflow's or
    refuses the user, a file that is no database, a database that cannot be reached.
    """
    if uri is None or uri == OFF:
        return
    try:
        check_tracker(uri)
    except ValueError as error:
        raise BenchError(f"mlflow {error}") from None
    if uri.startswith(SQLITE):
        _check_file(uri, home, there)
    elif uri.startswith("http"):
        _check_server(uri, urllib.parse.urlsplit(uri))
    else:
        _check_database(uri)


def refuse_one_machine(uri: str | None, nodes: int) -> None:
    """Raises BenchError where a cluster's runs would go into a file: drivers on several nodes would write it at once, and
    SQLite's locks do not hold on storage that machines share."""
    if nodes > 1 and (uri is None or uri.startswith(SQLITE)):
        which = "the MLflow database of this folder" if uri is None else f"mlflow={shown(uri)}"
        raise BenchError(
            f"{which} is an SQLite file, which serves one machine, and this Ray has {nodes} nodes: start an MLflow server "
            "over PostgreSQL (deploy/README.md) and name it with mlflow=http://HOST:5000, or leave MLflow out with mlflow=off"
        )


def _check_server(uri: str, parts: urllib.parse.SplitResult) -> None:
    """Ask for the version, which MLflow's servers give to everybody, and for an experiment, which they may refuse."""
    plain = urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
    what = "is no MLflow server"
    try:
        with urllib.request.urlopen(f"{plain}/version", timeout=ANSWER_SECONDS) as answer:  # nosec B310  # http(s)
            known = bool(re.fullmatch(rb"\d+\.\d+\S*\s*", answer.read(100)))
    except urllib.error.HTTPError as error:
        known = error.code in (401, 403)  # one that asks for a name first
        what = f"is no MLflow server (it answers {error.code})"
    except (OSError, http.client.HTTPException, ValueError) as error:
        known, what = False, f"does not answer ({_reason(error)})"
    if not known:
        raise BenchError(
            f"mlflow={shown(uri)} {what}: start one there (mlflow server --host HOST --port PORT), or leave mlflow= out to use "
            "the database of this folder"
        )
    asked = urllib.request.Request(
        f"{plain}/api/2.0/mlflow/experiments/search?max_results=1", headers=_credentials(parts)
    )
    try:
        urllib.request.urlopen(asked, timeout=ANSWER_SECONDS).close()  # nosec B310  # http(s), see check above
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            raise BenchError(
                f"mlflow={shown(uri)} does not let you in (it answers {error.code}): set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, as whoever runs it says"
            ) from None
    except (OSError, http.client.HTTPException):
        pass  # it has just answered: the run will tell if it is gone


def _credentials(parts: urllib.parse.SplitResult) -> dict[str, str]:
    """The header by which MLflow's client says who it is: its environment, else the name in the address."""
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    name = os.environ.get("MLFLOW_TRACKING_USERNAME") or urllib.parse.unquote(parts.username or "")
    word = os.environ.get("MLFLOW_TRACKING_PASSWORD") or urllib.parse.unquote(parts.password or "")
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{word}".encode()).decode()} if name or word else {}


def _check_file(uri: str, home: Home, there: bool) -> None:
    path = Path(absolute_uri(uri, home).removeprefix(SQLITE))
    try:
        if path.is_dir():
            raise BenchError(f"mlflow={uri}: {path} is a folder; name a file in it, such as mlflow={SQLITE}runs.db")
        if there and not path.is_file():
            others = [found.name for found in sorted(path.parent.glob("*.db"))]
            raise BenchError(f"mlflow={uri}: there is no database {path}{did_you_mean(path.name, others)}")
        if not path.is_file() or not path.stat().st_size:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                return
        with contextlib.closing(sqlite3.connect(path, timeout=ANSWER_SECONDS)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except (OSError, sqlite3.Error) as error:
        raise BenchError(
            f"mlflow={uri}: {path} cannot be used ({error}); name another file, or one that is not there yet"
        ) from None
    if tables and "experiments" not in tables:
        raise BenchError(f"mlflow={uri}: {path} is a database of something else than MLflow; name another file")


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", None)
    return first_line(inner) if isinstance(inner, Exception) else str(inner or first_line(error))


def _check_database(uri: str) -> None:
    parts = urllib.parse.urlsplit(uri)
    try:
        if parts.hostname:  # a driver would wait for minutes for a machine that is not there
            port = parts.port or DATABASES[parts.scheme.partition("+")[0]]
            socket.create_connection((parts.hostname, port), timeout=ANSWER_SECONDS).close()
        import sqlalchemy  # MLflow brings it; it is slow to import and needed for such an address alone

        engine = sqlalchemy.create_engine(uri)
        engine.connect().close()
        engine.dispose()
    except ImportError as error:
        raise BenchError(
            f"mlflow={shown(uri)} needs the Python package {error.name}; install it, or use an address with a driver that is "
            'here: pip install "psycopg[binary]" serves postgresql+psycopg://'
        ) from None
    except Exception as error:  # every database has errors of its own
        reason = first_line(getattr(error, "orig", None) or error)
        raise BenchError(f"mlflow={shown(uri)} cannot be used ({shown(reason)}); use {TRACKERS}") from None
