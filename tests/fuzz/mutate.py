"""Damaged files: what bits, copies, editors and strangers do to a sound one."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import yaml

# What readers stumble over: ends, quotes, numbers beyond every type, no numbers, deep nesting, odd letters, names of files.
WORDS = (
    *(
        b"",
        b"\0",
        b"\n",
        b"\r\n",
        b"\t",
        b",",
        b'"',
        b"'",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b"#",
        b"&a",
        b"*a",
        b"!!python/none",
    ),
    *(
        b"null",
        b"true",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"-1",
        b"0",
        b"9" * 400,
        b"1" * 5000,
        b"0x7f",
        b"1_000",
        b"1e-400",
    ),
    *(
        b"[" * 500,
        b'{"a":' * 500,
        b"- " * 300,
        b"\xff\xfe",
        b"\xed\xa0\x80",
        b"\\ud800",
        "\u2028".encode(),
        "é漢🎬".encode(),
    ),
    *(
        b"../" * 30 + b"etc/passwd",
        b"/dev/zero",
        b"~nobody/x",
        b"${HOME}",
        b"a" * 300,
        b"PK\x03\x04",
        b"\x80\x04K\x01.",
    ),
    *(b"\x7f\xff\xff\xff", b"\xff" * 8, b"\x00" * 64, b"\x80\x00\x00\x00\x00\x00\x00\x00"),
)

# And what stands where something else was expected, in JSON and YAML.
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**30,
    1e308,
    -0.5,
    float("nan"),
    float("inf"),
    "",
    "\ud800",
    "a" * 400,
    "NaN",
    "\0",
)
VALUES += ([], {}, [[]], {"": None}, [1, "a", None], {"name": {"a": 1}}, ["a"] * 50, "../x", "é漢🎬")


def mutated(seeds: Sequence[bytes], number: int, name: str) -> bytes:
    """The `number`-th damaged form of one of `seeds`; a function of nothing else."""
    draw = random.Random(f"{name}/{number}")
    seed = draw.choice(seeds)
    if draw.random() < 0.4 and (altered := _altered(seed, draw)):
        return altered
    content = bytearray(seed)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        _change(content, draw, seeds)
    return bytes(content)


def _change(content: bytearray, draw: random.Random, seeds: Sequence[bytes]) -> None:
    place = draw.randrange(len(content) + 1)
    end = min(len(content), place + draw.choice((1, 2, 4, 8, 40)))
    kind = draw.randrange(8)
    if kind == 0 and content:
        content[place % len(content)] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del content[place:end]
    elif kind == 2:
        content[place:place] = draw.choice(WORDS)
    elif kind == 3:
        content[place:end] = draw.choice(WORDS)
    elif kind == 4:
        content[place:place] = content[place:end] * draw.choice((1, 2, 20))
    elif kind == 5:
        del content[place:]
    elif kind == 6:
        content[place:end] = draw.randbytes(end - place)
    else:
        other = draw.choice(seeds)
        cut = draw.randrange(len(other) + 1)
        content[place:] = other[cut:]


@cache
def _tree(content: bytes) -> Any:
    """What JSON or YAML of a mapping or list holds; None for other files."""
    try:
        text = content.decode()
        return json.loads(text) if text.startswith(("{", "[")) else yaml.safe_load(text) if ": " in text else None
    except (ValueError, yaml.YAMLError):
        return None


def _altered(content: bytes, draw: random.Random) -> bytes | None:
    """The file with one value, name or entry replaced, removed or repeated, still well-formed; None for files without any."""
    tree = _tree(content)
    if not isinstance(tree, dict | list) or not tree:
        return None
    tree = json.loads(json.dumps(tree, default=str))
    at: Any = tree
    while True:
        key = draw.choice(list(at)) if isinstance(at, dict) else draw.randrange(len(at))
        if not isinstance(at[key], dict | list) or not at[key] or draw.random() < 0.3:
            break
        at = at[key]
    kind = draw.randrange(4)
    if kind == 0:
        del at[key]
    elif kind == 1 and isinstance(at, dict):
        at[str(draw.choice(VALUES))] = at.pop(key)
    elif kind == 2 and isinstance(at, list):
        at += [at[key]] * draw.choice((1, 30))
    else:
        at[key] = draw.choice(VALUES)
    return json.dumps(tree).encode()
