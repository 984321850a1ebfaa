"""The small language of the command line: `key=value`, values in YAML, nested keys by dots.

Scalars follow the core schema of YAML 1.2 and a little less: only `true` and `false` are booleans, whole numbers are
decimal without leading zeros, `1e-9` is a number, infinity is not. So `on`, `no`, `010` and `1:30` stay text. Where a
name is expected the reader takes the text as written (`text=True`), so that a data set called `1e3` keeps its name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from bench import BenchError
from bench.disk.limits import DIGITS, YAML_DEEPEST, YAML_LARGEST, YAML_MOST
from bench.errors import unknown

_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None, "true": True, "false": False}
KEPT = "*&!%@`|>"  # first characters of a value that have a meaning in YAML
SHOWN = 60  # characters of a value in a sentence about it
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True)
class Value:
    """One value as it was written, and where: `command line` or the path of a plan file."""

    node: Node
    where: str

    def read(self, *, text: bool = False) -> Any:
        """The value as numbers, booleans, lists and mappings; with `text`, scalars stay as written."""
        return _construct(self.node, text, self.where)

    def listed(self, *, text: bool = False) -> list[Any]:
        """The value as a list: `[a,b]`, `a,b` and `a` are the same."""
        if isinstance(self.node, ScalarNode) and "," in self.node.value:
            parts = [part.strip() for part in self.node.value.split(",")]
            if not all(parts):
                raise BenchError(f"{self.where}: {self.node.value!r} has an empty entry between its commas")
            return [Value(ScalarNode("", part), self.where).read(text=text) for part in parts]
        value = self.read(text=text)
        return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Arguments:
    """A command line taken apart: files, `key=value` pairs by dotted key, flags."""

    files: tuple[str, ...]
    values: dict[str, Value]
    flags: frozenset[str]


def take_apart(argv: Sequence[str], flags: Iterable[str]) -> Arguments:
    """Split `argv` into files (words without `=`), values and flags; only `flags` are allowed. Raises BenchError."""
    files: list[str] = []
    values: dict[str, Value] = {}
    seen: set[str] = set()
    for word in argv:
        if word.startswith("-"):
            if word not in flags:
                raise unknown("flag", word, flags, "command line")
            seen.add(word)
            continue
        key, equals, text = word.partition("=")
        if not equals:
            files.append(word)
            continue
        if not _KEY.fullmatch(key):
            raise BenchError(f"command line: {word!r} is not key=value; a key is words joined by dots")
        if not text.strip():
            raise BenchError(f"command line: {key}= has no value; null stands for none")
        for dotted, value in _flat(key, Value(_compose(text, f"command line: {key}"), "command line")):
            if dotted in values:
                raise BenchError(f"command line: {dotted} is given twice")
            values[dotted] = value
    return Arguments(tuple(files), values, frozenset(seen))


def plan_file(path: Path) -> dict[str, Value]:
    """The values of a YAML plan file by dotted key. Raises BenchError naming the file."""
    node = _compose(_read(path), str(path))
    if not isinstance(node, MappingNode):
        raise BenchError(f"{path}: a plan is a mapping of the command line's keys, such as `methods: [salstm]`")
    values: dict[str, Value] = {}
    for key, child in _pairs(node, str(path)):
        for dotted, value in _flat(key, Value(child, str(path))):
            if dotted in values:
                raise BenchError(f"{path}: {dotted} is given twice")
            values[dotted] = value
    return values


def read_yaml(path: Path) -> Any:
    """A YAML file by the rules of this module. Raises BenchError naming the file, never executes anything."""
    return _construct(_compose(_read(path), str(path)), False, str(path))


def check_keys(values: Iterable[str], allowed: Sequence[str], where: str = "command line") -> None:
    """Refuse a key that the command does not take."""
    for key in values:
        if key not in allowed:
            raise unknown("key", key, allowed, where)


def _read(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():
            raise BenchError(f"{path} is no file")
        with path.open(encoding="utf-8") as file:
            text = file.read(YAML_LARGEST + 1)
        if len(text) > YAML_LARGEST:
            raise BenchError(f"{path} is larger than the {YAML_LARGEST // 2**20} MB that are read of a YAML file")
        return text
    except FileNotFoundError:
        raise BenchError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read: {error}") from None


def _compose(text: str, where: str) -> Node:
    try:
        _check_depth(text, where)
        node = yaml.compose(text, Loader=yaml.BaseLoader) if where.startswith("command line") else _nodes(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        problem = problem.replace("'<stream end>'", "its end").replace("'\\x00'", "its end")
        place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        if where.startswith("command line"):
            shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}.."
            if text[0] in KEPT:
                raise BenchError(
                    f"{where}: {shown!r} begins with {text[0]}, which YAML keeps for itself; quote it twice to mean "
                    f"it as text: '\"{shown}\"'"
                ) from None
            raise BenchError(f"{where}: {shown!r} is not YAML ({problem}); quote the word for the shell") from None
        raise BenchError(f"{where}: not YAML{place}: {problem}") from None
    if where.startswith("command line") and node is not None and text[node.end_mark.index :].strip():
        raise BenchError(f"{where}: {text!r} has a comment; quote the value if the # belongs to it")
    if node is None:
        return ScalarNode("", "")
    if "*" in text and _values(node, {}, where) > YAML_MOST:
        raise BenchError(f"{where}: its aliases make more than {YAML_MOST:,} values of it")
    return node


def _check_depth(text: str, where: str) -> None:
    """Refuse what nests deeper than `YAML_DEEPEST` before anything that calls itself reads it."""
    if sum(map(text.count, "[{:-?")) <= YAML_DEEPEST:
        return
    depth = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > YAML_DEEPEST:
            mark = event.start_mark
            place = f"line {mark.line + 1} " if mark else ""
            raise BenchError(f"{where}: {place}nests deeper than {YAML_DEEPEST} lists and mappings")


def _values(node: Node, known: dict[int, int], where: str) -> int:
    """How many values a node stands for. Raises BenchError for one that holds itself."""
    if isinstance(node, ScalarNode):
        return 1
    if id(node) not in known:
        known[id(node)] = 0
        below = node.value if isinstance(node, SequenceNode) else [child for _, child in node.value]
        known[id(node)] = 1 + sum(_values(child, known, where) for child in below)
    elif not known[id(node)]:
        raise BenchError(f"{where}: line {node.start_mark.line + 1} holds itself by an alias")
    return known[id(node)]


def _nodes(text: str) -> Node | None:
    """The text of a file, by libyaml where PyYAML has it: the cards of all methods in a tenth of the time.

    What libyaml refuses PyYAML reads again, for its words about the fault, which are the same on every machine.
    """
    if hasattr(yaml, "CBaseLoader"):
        with suppress(yaml.YAMLError):
            return yaml.compose(text, Loader=yaml.CBaseLoader)
    return yaml.compose(text, Loader=yaml.BaseLoader)


def _flat(key: str, value: Value) -> Iterator[tuple[str, Value]]:
    """`train={epochs: 5}` as `train.epochs`: leaves by dotted key."""
    if not isinstance(value.node, MappingNode):
        yield key, value
        return
    for name, child in _pairs(value.node, f"{value.where}: {key}"):
        yield from _flat(f"{key}.{name}", Value(child, value.where))


def _pairs(node: MappingNode, where: str) -> Iterator[tuple[str, Node]]:
    seen: set[str] = set()
    for name, child in node.value:
        if not isinstance(name, ScalarNode):
            raise BenchError(f"{where}: a key must be a word")
        if name.value in seen:
            raise BenchError(f"{where}: {name.value} is given twice")
        seen.add(name.value)
        yield name.value, child


def _construct(node: Node, text: bool, where: str) -> Any:
    if isinstance(node, MappingNode):
        return {name: _construct(child, text, where) for name, child in _pairs(node, where)}
    if isinstance(node, SequenceNode):
        return [_construct(child, text, where) for child in node.value]
    if node.tag not in ("", "tag:yaml.org,2002:str"):
        raise BenchError(f"{where}: the tag {node.tag} is not allowed, only numbers, text, lists and mappings")
    assert isinstance(node, ScalarNode)
    # With a style the value is quoted or a block: its author means text.
    return node.value if text or node.style else scalar(node.value)


def scalar(text: str) -> Any:
    """A plain scalar by the rules at the top of this module."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text) if len(text.lstrip("+-")) <= DIGITS else text
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text
