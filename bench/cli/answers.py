"""What commands answer with: their exit status, a sentence on the error stream, facts as JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from bench.errors import masked
from bench.pages.terminal import wrapped

WELL, FAILED, USAGE, STOPPED = 0, 1, 2, 130
OUR_FAULT = 70  # EX_SOFTWARE of sysexits.h


def say(sentence: str, status: int) -> int:
    """A sentence on the error stream; returns the status that goes with it."""
    print(wrapped(f"bench: {masked(sentence)}", sys.stderr), file=sys.stderr)
    return status


def print_json(facts: Any) -> int:
    """Facts as JSON, and nothing else, on the output."""
    print(json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False))
    return WELL


def print_text(text: str) -> int:
    """Text on the output, wrapped at word ends where that is a terminal."""
    print(wrapped(text))
    return WELL


def name_of(dataset: str | None) -> str | None:
    """The name of a data set that is given by its name or its file; a name needs no definition any more."""
    if dataset and dataset.endswith((".yaml", ".yml")):
        from bench.declare.registry import dataset as definition

        return definition(dataset).name
    return dataset
