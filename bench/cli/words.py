"""What the commands share: their exit status, the words of a simple command, sentences on the error stream."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench import BenchError
from bench.declare.grammar import Arguments, check_keys, take_apart
from bench.errors import listing

WELL, FAILED, USAGE, STOPPED = 0, 1, 2, 130


def say(sentence: str, status: int) -> int:
    print(f"bench: {sentence}", file=sys.stderr)
    return status


def take(
    words: Sequence[str],
    keys: Sequence[str],
    *,
    files: int = 0,
    required: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> tuple[dict[str, str], Arguments]:
    """The words of a simple command: values as text by key. Raises BenchError for what is unknown or missing."""
    arguments = take_apart(words, flags)
    check_keys(arguments.values, keys)
    if len(arguments.files) > files:
        raise BenchError(f"command line: {arguments.files[files]!r} is not key=value; allowed keys: {listing(keys)}")
    values = {key: value.read(text=True) for key, value in arguments.values.items()}
    for key in required:
        if key not in values:
            raise BenchError(f"command line: {key}= is missing")
    for key, value in values.items():
        if not isinstance(value, str):
            raise BenchError(f"command line: {key} is {value!r}, but must be one name")
    return values, arguments


def split(words: Sequence[str], keys: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The words key=value of these keys, and all others."""
    mine = [word for word in words if word.partition("=")[0] in keys and "=" in word]
    return take(mine, keys)[0], [word for word in words if word not in mine]


def name_of(dataset: str | None) -> str | None:
    """The name of a data set that is given by its name or its file; a name needs no definition any more."""
    if dataset and dataset.endswith((".yaml", ".yml")):
        from bench.declare.registry import dataset as definition

        return definition(dataset).name
    return dataset
