"""METEOR with a table of a thousand paraphrases: the same program, which then starts in a quarter of a second."""

from __future__ import annotations

import gzip
import os
import shutil
from itertools import islice
from pathlib import Path

from bench.evaluation.java import find_jar
from bench.evaluation.meteor import JAR as METEOR
from bench.evaluation.ptb import JAR as PTB

PACKAGES = "BENCH_TEST_PACKAGES"  # the variable with the folder of `small_package`, one for all processes of a session


def small_jar(folder: Path) -> Path:
    """A copy of the jar in `folder` with the beginning of its table beside it."""
    jar = find_jar(*METEOR)
    (folder / "data").mkdir(parents=True)
    with (
        gzip.open(jar.parent / "data" / "paraphrase-en.gz", "rt") as table,
        gzip.open(folder / "data" / "paraphrase-en.gz", "wt") as beginning,
    ):
        beginning.writelines(islice(table, 3000))  # three lines each: probability, phrase, paraphrase
    return Path(shutil.copy(jar, folder))


def small_package(folder: Path) -> Path:
    """A folder for the path of imports in which pycocoevalcap has the small METEOR and all else that it had."""
    tokenizer = find_jar(*PTB)
    whole = tokenizer.parents[1]
    package = folder / whole.name
    package.mkdir()
    small_jar(package / METEOR[0])
    (package / PTB[0]).mkdir()
    (package / PTB[0] / PTB[1]).symlink_to(tokenizer)
    (package / "__init__.py").write_text(f"__path__.append({str(whole)!r})\n", encoding="utf-8")
    return folder


def whole_jar() -> Path:
    """The jar that the small package hides from this process."""
    tokenizer = Path(os.environ[PACKAGES], "pycocoevalcap", *PTB).resolve()
    return tokenizer.parents[1] / METEOR[0] / METEOR[1]
