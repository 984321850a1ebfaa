"""Addresses of `mlflow=`: what cannot be used is a sentence before anything starts."""

from __future__ import annotations

import base64
import http.server
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import BenchError
from bench.home import Home
from bench.plan.request import RunSpec
from bench.plan.stores import check_store, check_stores, refuse_one_machine, shown


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """A server on loopback: `/mlflow` answers as MLflow does, `/locked` asks for a name, anything else is a page."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.headers.get("Authorization") == "Basic " + base64.b64encode(b"me:secret").decode()
            self.send_response(401 if self.path.startswith("/locked") and not known else 200)
            self.end_headers()
            self.wfile.write(
                b"3.17.2" if self.path in ("/mlflow/version", "/locked/version") else b"<html>hello</html>"
            )

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_what_can_be_used_is_left_in_peace(home: Home, web: str) -> None:
    locked = f"{web}/locked/".replace("://", "://me:secret@")
    for uri in (None, "off", "sqlite:///runs.db", "sqlite:///new/folder/runs.db", f"{web}/mlflow", locked):
        check_store(uri, home)
    assert not list(home.root.rglob("*.db")), "looking makes no database"
    with sqlite3.connect(home.root / "old.db") as database:
        database.execute("CREATE TABLE experiments (name TEXT)")
    check_store("sqlite:///old.db", home)


def test_servers_that_are_not_there_or_not_mlflow(home: Home, web: str) -> None:
    with pytest.raises(BenchError, match=r"does not answer .*Connection refused.*mlflow server --host"):
        check_store(f"http://127.0.0.1:{closed_port()}", home)
    with pytest.raises(BenchError, match="is no MLflow server"):
        check_store(web, home)
    with pytest.raises(BenchError, match="'no host' is no name of a host"):
        check_store("http://no host:5000", home)


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_server_that_does_not_know_the_user(
    home: Home, web: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", token)
    with pytest.raises(BenchError, match=r"does not let you in \(it answers 401\): set .*MLFLOW_TRACKING_TOKEN"):
        check_store(f"{web}/locked", home)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://[::1", r"it cannot be read \(Invalid IPv6 URL\)"),
        (f"http://{'h' * 300}:5000", "its host has 300 characters"),
        ("http://host:port", "'port' is no port"),
        ("http://host:99999", "'99999' is no port"),
        ("http://", "is no address that runs can be kept at"),
        ("localhost:5000", "use http://localhost:5000, if that is a server"),
    ],
)
def test_malformed_addresses(home: Home, uri: str, said: str) -> None:
    with pytest.raises(BenchError, match=said) as told:
        check_store(uri, home)
    assert len(str(told.value)) < 400


def test_a_mistyped_database_is_not_made(home: Home) -> None:
    (home.root / "runs.db").touch()
    with pytest.raises(BenchError, match=r'there is no database .*rums\.db; did you mean "runs\.db"\?'):
        check_store("sqlite:///rums.db", home, there=True)
    assert not (home.root / "rums.db").exists()


def test_what_weights_and_biases_needs(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(project: str) -> RunSpec:
        return RunSpec(methods=["salstm"], dataset="shapes", wandb=project)

    with pytest.raises(BenchError, match="wandb=a/b/c is no project"):
        check_stores(asked("a/b/c"), home)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BenchError, match=r'pip install "captionbench\[wandb\]"'):
        check_stores(asked("captions"), home)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(BenchError, match="wandb login, or keep the runs here with WANDB_MODE=offline"):
        check_stores(asked("captions"), home)
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_stores(asked("captions"), home)


def test_files_that_are_no_mlflow_database(home: Home) -> None:
    (home.root / "words.db").write_text("a diary, longer than sixteen letters " * 40)
    (home.root / "folder").mkdir()
    with sqlite3.connect(home.root / "other.db") as database:
        database.execute("CREATE TABLE birds (name TEXT)")
    with pytest.raises(BenchError, match=r"words\.db cannot be used \(file is not a database\)"):
        check_store("sqlite:///words.db", home)
    with pytest.raises(BenchError, match="is a folder"):
        check_store("sqlite:///folder", home)
    with pytest.raises(BenchError, match="something else than MLflow"):
        check_store("sqlite:///other.db", home)
    with pytest.raises(BenchError, match=r"cannot be used .*words\.db"):
        check_store("sqlite:///words.db/below.db", home)


@pytest.mark.parametrize("uri", ["runs", "file:///tmp/mlruns", "ftp://host/x", "sqlite:runs.db", "databricks"])
def test_other_addresses_name_the_ones_that_are_allowed(home: Home, uri: str) -> None:
    with pytest.raises(BenchError, match=r"mlflow is .*use http://HOST:5000 .* or off"):
        check_store(uri, home)


def test_a_database_that_nobody_serves(home: Home) -> None:
    uri = f"postgresql+psycopg://me:secret@127.0.0.1:{closed_port()}/runs"
    with pytest.raises(BenchError, match=r"me:\*\*\*@127.* cannot be used") as told:
        check_store(uri, home)
    assert "secret" not in str(told.value)


def test_a_database_whose_driver_is_not_installed(home: Home) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        with pytest.raises(BenchError, match="needs the Python package mariadb"):
            check_store(f"mysql+mariadbconnector://me@127.0.0.1:{listening.getsockname()[1]}/runs", home)


def test_a_file_serves_one_machine() -> None:
    for uri in (None, "sqlite:///runs.db"):
        refuse_one_machine(uri, 1)
        with pytest.raises(BenchError, match=r"SQLite file, .* 3 nodes: .*mlflow=http://HOST:5000.*mlflow=off"):
            refuse_one_machine(uri, 3)
    for uri in ("off", "http://host:5000", "postgresql+psycopg://me@host/runs"):
        refuse_one_machine(uri, 3)


def test_passwords_are_not_shown() -> None:
    assert shown("http://me:secret@host:5000/x") == "http://me:***@host:5000/x"
    assert shown("bench run mlflow=http://a:b@c dataset=x") == "bench run mlflow=http://a:***@c dataset=x"
    assert shown("http://host:5000/a") == "http://host:5000/a"
    assert shown("http://me:5000/secret@b") == "http://me:***@b", "a password may begin like a port"
