"""Addresses that a request names: of a Ray cluster and of the tracker. Whether they are well formed, without asking anybody."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse

from bench.errors import masked

OFF = "off"
SQLITE = "sqlite:///"
DATABASES = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}  # by the names of SQLAlchemy, with their usual ports
TRACKERS = "http://HOST:5000 (a tracking server), sqlite:///FILE.db, postgresql+psycopg://USER@HOST/DATABASE, or off"
LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
LONGEST_NAME, LARGEST_PORT = 253, 65535


def shown(uri: str) -> str:
    """An address without the password in it, and without the middle of one that would fill the screen."""
    without = masked(uri)
    return without if len(without) <= 120 else f"{without[:60]}…{without[-20:]}"


def check_cluster(address: str) -> None:
    """Raises ValueError unless a Ray cluster may be at `address`: auto or HOST:PORT; or local."""
    if address in ("local", "auto"):
        return
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise ValueError(f"is {shown(address)!r}, but must be local, auto or HOST:PORT")
    wrong = _wrong_host(host) or _wrong_port(port)
    if wrong:
        raise ValueError(f"is {shown(address)!r}, and {wrong}; it must be local, auto or HOST:PORT")


def check_tracker(uri: str) -> None:
    """Raises ValueError unless runs may be kept at `uri`."""
    if uri == OFF or uri.startswith(SQLITE):
        return
    scheme, _, rest = uri.partition("://")
    kind = scheme.partition("+")[0]
    if kind == "file" or not re.search(r"[:@]", uri):
        raise ValueError(f"is {shown(uri)!r}, and MLflow keeps no runs in folders any more; use {TRACKERS}")
    if not rest or kind not in ("http", "https", *DATABASES):
        scheme_missing = not rest and not _wrong_port(uri.rpartition(":")[2])
        meant = f"http://{uri}, if that is a server; or " if scheme_missing else ""
        raise ValueError(f"is {shown(uri)!r}, which is no address that runs can be kept at; use {meant}{TRACKERS}")
    wrong = _wrong_place(uri, needs_host=kind in ("http", "https"))
    if wrong:
        raise ValueError(f"is {shown(uri)!r}, and {wrong}; use {TRACKERS}")


def _wrong_place(uri: str, needs_host: bool) -> str:
    """What is wrong with host and port of an address with a scheme; empty where nothing is."""
    try:
        place = urllib.parse.urlsplit(uri).netloc.rpartition("@")[2]
    except ValueError as error:
        return f"it cannot be read ({error})"
    if not place:
        return "it names no host" if needs_host else ""
    name, _, port = place.rpartition(":") if re.search(r":[^\]]*$", place) else (place, "", "80")
    return _wrong_host(name) or _wrong_port(port)


def _wrong_host(name: str) -> str:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        pass
    else:
        return ""
    if len(name) > LONGEST_NAME:
        return f"its host has {len(name)} characters, where no name has more than {LONGEST_NAME}"
    if all(LABEL.fullmatch(label) for label in name.removesuffix(".").split(".")):
        return ""
    return f"{name!r} is no name of a host"


def _wrong_port(port: str) -> str:
    if port.isascii() and port.isdigit() and 0 < int(port[:6]) <= LARGEST_PORT:
        return ""
    return f"{shown(port)!r} is no port (1 to {LARGEST_PORT})"
