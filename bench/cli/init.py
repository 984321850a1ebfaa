"""`bench init dataset`: the first definition of one's own corpus."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bench import BenchError
from bench.cli.answers import WELL
from bench.declare.options import Options, Written, parse
from bench.declare.settings import option
from bench.errors import listing
from bench.home import data_folder, find_home, written_path
from bench.pages.terminal import wrapped

ROLES = ("", "train", "val", "test", "mapping")


class Init(Options):
    captions: Annotated[dict[str, str], Written("FILE")] = Field(
        description="the captions, in any layout; captions.train=, captions.val=, captions.test= for files of splits; "
        "captions.mapping= for a file with two names of each clip",
        examples=["captions.json"],
    )
    features: Annotated[dict[str, str], Written("FOLDER|FILE")] = Field(
        description="features, a folder of streams, or videos; features.STREAM= for one stream", examples=["features"]
    )
    name: str | None = option(None, "what the data set is called; without it, as the file of captions")
    path: Annotated[str | None, Written("FILE.yaml")] = option(None, "the definition; without it, ./NAME.yaml")


def dataset(argv: Sequence[str]) -> int:
    """Write the definition of a corpus of your own, from its captions and features, and say what was guessed: the layout of
    the captions, the split, the streams. What is wrong in it is mended there; nothing is guessed again later.

    Example: bench init dataset captions=captions.json features=features
    """
    asked = parse(Init, argv)
    from bench.data.corpus import load_corpus
    from bench.data.draft import draft
    from bench.declare.registry import read_definition
    from bench.disk.whole import write_atomically

    if odd := [role for role in asked.captions if role not in ROLES]:
        raise BenchError(f"command line: captions.{odd[0]}= is none; allowed: {listing(ROLES[1:])}")
    captions = {role: _there(text) for role, text in asked.captions.items()}
    features = {stream: _there(text) for stream, text in asked.features.items()}
    if captions.keys() <= {"mapping"}:
        raise BenchError("command line: captions= is missing, a file of captions")
    name = asked.name or _name(next(path for role, path in captions.items() if role != "mapping"))
    path = written_path(asked.path or f"{name}.yaml")
    if path.exists():
        raise BenchError(f"{path} is there already: name another with path=FILE.yaml, or move it away")
    found = draft(name, captions, features, path.parent)
    lists = {path.parent / f"{name}_{split}.txt": text for split, text in found.lists.items()}
    if there := [one for one in lists if one.exists()]:
        raise BenchError(f"{there[0]} is there already: give the data set another name with name=NAME")
    try:
        for one, text in {**lists, path: found.text}.items():
            write_atomically(one, text)
        corpus = load_corpus(read_definition(path), find_home())
    except BaseException:
        for one in (*lists, path):
            one.unlink(missing_ok=True)
        raise
    for sentence in found.said:
        print(wrapped(f"- {sentence}"))
    parts = ", ".join(f"{split} {len(ids):,}" for split, ids in corpus.splits.items())
    print(wrapped(f"{path} written: {parts} clips. Mend there what is guessed wrongly; then:"))
    print(f"  bench data check dataset={path}\n  bench run methods=salstm dataset={path}")
    return WELL


def _there(text: str) -> Path:
    path = written_path(text)
    if not path.exists():
        raise BenchError(f"there is no file or folder {path}")
    return path


def _name(captions: Path) -> str:
    """A name that no data set of this project has: results lie under it."""
    name = re.sub(r"[^a-z0-9]+", "_", captions.stem.lower()).strip("_") or "mine"
    return f"my_{name}" if (data_folder("datasets") / name).is_dir() else name
