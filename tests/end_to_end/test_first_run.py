"""The page on the first run, command by command as it stands there, on fewer clips and epochs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from meteor_jar import whole_path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "first-run.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line) for line in re.findall(r"^    \$ bench (.*)$", PAGE, re.M)]
RUN = next(words for words in COMMANDS if words[0] == "run")
SIZES = {
    "subset=200/40/60": "subset=24/6/8",
    "train.epochs=3": "train.epochs=1",
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each command of the page says, in order, in one home."""
    home = tmp_path_factory.mktemp("first")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BENCH_")}
    environment |= {"BENCH_HOME": str(home), "OMP_NUM_THREADS": "1"}
    outputs = []
    whole = environment | {"PYTHONPATH": whole_path()}
    for number, words in enumerate(COMMANDS):
        command = [sys.executable, "-m", "bench", *(SIZES.get(word, word) for word in words)]
        # METEOR with all its paraphrases once: reading them takes longer than the whole command.
        given = whole if number == COMMANDS.index(RUN) else environment
        done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=400, cwd=home)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
        outputs.append(done.stdout)
    return outputs


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
