"""The Stanford PTB tokenizer as pycocoevalcap uses it: lower case, eighteen punctuation tokens left out.

Parentheses stay (`-lrb-`): the filter names them in upper case and the tokenizer lowers them. pycocoevalcap does the same.
One caption in is one caption out, whatever characters it holds. As there, a caption's tokens can depend on the caption after
it in one thing: the lexer looks on when it decides whether a last `A.` keeps its full stop.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path

from bench.disk.whole import CannotWrite, write_atomically
from bench.evaluation.java import OPTIONS, ScoringUnavailable, check_java, find_jar, find_java, one_line, run_java
from bench.evaluation.metrics import PTB

JAR = ("tokenizer", "stanford-corenlp-3.4.1.jar")
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
TIMEOUT = 300.0  # seconds; 90,000 captions take one
KEPT = 8  # sets of references kept in memory


def tokenize(texts: Sequence[str], java: str | None = None, timeout: float = TIMEOUT) -> list[str]:
    """Tokens of every text, joined by blanks; empty where nothing but punctuation is left. Raises ScoringUnavailable."""
    if not texts:
        return []
    jar = find_jar(*JAR)
    runtime = check_java(java) if java else find_java()
    # Named relative to its folder, so that the folder's name may hold any character.
    command = [runtime, *OPTIONS, "-Xmx512m", "-cp", jar.name]
    command += ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    data = "".join(one_line(text) + "\n" for text in texts).encode()
    output = run_java("the PTB tokenizer", command, jar.parent, data, timeout).decode("utf-8", "replace")
    lines = output.split("\n")
    if len(lines) != len(texts) + 1 or lines[-1]:
        raise ScoringUnavailable(
            f"the PTB tokenizer gave {len(lines) - 1:,} lines for {len(texts):,} captions: captions and tokens would not match"
        )
    return [" ".join(word for word in line.rstrip().split(" ") if word not in PUNCTUATION) for line in lines[:-1]]


class PtbCache:
    """PTB tokens of reference captions, tokenized once: kept in memory, and in files under `folder` if one is given."""

    def __init__(self, folder: Path | None = None, java: str | None = None, timeout: float = TIMEOUT) -> None:
        self._folder = folder
        self._java = java
        self._timeout = timeout
        self._kept: dict[str, list[str]] = {}

    def tokenize(self, texts: Sequence[str]) -> list[str]:
        """As `tokenize`, from the cache where these very texts were tokenized before."""
        digest = _digest([PTB, *(one_line(text) for text in texts)])
        if digest not in self._kept:
            self._kept[digest] = self._from_file(digest, len(texts)) or self._make(digest, texts)
            while len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        return self._kept[digest]

    def _make(self, digest: str, texts: Sequence[str]) -> list[str]:
        lines = tokenize(texts, self._java, self._timeout)
        if self._folder is not None:
            try:
                text = "".join(f"{line}\n" for line in [_digest(lines), *lines])
                write_atomically(self._folder / f"{digest}.txt", text)
            except CannotWrite as error:
                warnings.warn(f"tokens of the references could not be kept in {self._folder}: {error}", stacklevel=2)
        return lines

    def _from_file(self, digest: str, count: int) -> list[str] | None:
        """Lines of the cache file; None when it is absent or not what was written."""
        if self._folder is None:
            return None
        try:
            head, _, body = (self._folder / f"{digest}.txt").read_bytes().decode("utf-8", "replace").partition("\n")
        except OSError:
            return None
        lines = body.split("\n")[:-1]
        return lines if len(lines) == count and head == _digest(lines) else None


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
