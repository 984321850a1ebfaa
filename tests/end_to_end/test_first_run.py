"""The page on the first run, command by command as it stands there, on fewer clips and epochs."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import socket
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
from front import bench

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "first-run.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line) for line in re.findall(r"^    \$ bench (.*)$", PAGE, re.M)]
SIZES = {
    "subset=200/40/60": "subset=24/6/8",
    "train.epochs=3": "train.epochs=1",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all commands are given; the run's own HOME too, without a token before it."""
    return tmp_path_factory.mktemp("first")


@pytest.fixture(scope="module")
def commands(home: Path) -> tuple[list[str], set[tuple[str, str]]]:
    """What each command of the page says, in order, in one home, the run in a process of its own with a Ray of its own; and
    who listened where while cells were run."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BENCH_", "RAY_"))}
    environment |= {"BENCH_HOME": str(home), "OMP_NUM_THREADS": "1", "HOME": str(home)}
    outputs, seen = [], set()
    for words in COMMANDS:
        words = [SIZES.get(word, word) for word in words]
        if words[0] == "run":
            status, output = watched([sys.executable, "-m", "bench", *words], environment, home, seen)
        else:
            done = bench(home, *words)
            status, output = done.returncode, done.stdout + (done.stderr if done.returncode else "")
        assert status == 0, f"{shlex.join(words)}\n{output[-1500:]}"
        outputs.append(output)
    return outputs, seen


def watched(command: list[str], environment: dict[str, str], home: Path, seen: set[tuple[str, str]]) -> tuple[int, str]:
    """Exit status and output of a command; `seen` gets the name and the address of each of its processes that listens."""
    with (home / "output.txt").open("w+") as output:
        running = psutil.Popen(command, env=environment, stdout=output, stderr=output, cwd=home)
        while running.poll() is None:
            for process in (running, *running.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    seen.update(
                        (process.name(), one.laddr.ip)
                        for one in process.net_connections("inet")
                        if one.status == psutil.CONN_LISTEN or one.type == socket.SOCK_DGRAM
                    )
            time.sleep(0.2)
        output.seek(0)
        return running.returncode, output.read()


@pytest.fixture(scope="module")
def said(commands: tuple[list[str], set[tuple[str, str]]]) -> list[str]:
    return commands[0]


def shape(line: str) -> str:
    """A line without what differs from run to run: numbers, keys, folders, the width of columns."""
    line = re.sub(r"\S*/(leaderboards/)", r"\1", line.strip())
    line = re.sub(r"\b[0-9a-f]{8,16}\b", "KEY", line)
    line = re.sub(r"(< )?[-+]?\d[\d,./]*", "N", line)
    return re.sub(r"\s+", " ", re.sub(r"\bN (s|min)\b", "N long", line))


def test_the_page_shows_what_is_said(said: list[str]) -> None:
    """Every line of output on the page is, but for its numbers, a line that its command prints."""
    shown = re.findall(r"^    \$ bench .*\n((?:    (?!\$).*\n|\n(?=    [^$\s]))*)", PAGE, re.M)
    assert len(shown) == len(said) == 6
    for command, page, output in zip(COMMANDS, shown, said, strict=True):
        printed = {shape(line) for line in output.splitlines()}
        lines = [line.strip() for line in page.splitlines() if line.strip() and not line.strip().startswith("..")]
        assert len(lines) >= 4, page
        for line in lines:
            if " epoch " not in line:  # fewer epochs are shorter lines
                assert shape(line) in printed, f"bench {shlex.join(command)} does not print: {line}\n{output}"
    assert re.search(
        r"^recnet:global seed 0: base epoch 0, \d+ of \d+ captions, loss [\d.]+, val CIDEr ", said[1], re.M
    )


def test_nothing_of_a_run_listens_beyond_this_machine(
    commands: tuple[list[str], set[tuple[str, str]]], home: Path
) -> None:
    """Ray's daemons and workers and what they start; whoever reached one of them could run programs."""
    seen = commands[1]
    names = {name for name, _ in seen}
    assert {"gcs_server", "raylet"} <= names and any(name.startswith("ray::") for name in names), seen
    places = {ip_address(place) for _, place in seen}
    assert {getattr(place, "ipv4_mapped", None) or place for place in places} == {ip_address("127.0.0.1")}, seen
    token = home / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600 and len(token.read_text()) == 64
