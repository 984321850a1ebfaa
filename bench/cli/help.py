"""What `--help` prints: the overview from the table of commands, the page of a command from its docstring and its options."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench.cli.commands import COMMANDS
from bench.errors import listing
from bench.pages.terminal import command as command_line
from bench.pages.terminal import wrapped

if TYPE_CHECKING:  # of the page of one command; the overview is printed without pydantic
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

LEFT = 34  # characters of the left column
NUMBERS = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
PLACEHOLDERS = ((bool, "true|false"), (int, "N"), (float, "X"), (str, "NAME"))


def overview() -> str:
    """All commands, a line for each."""
    rows = [
        (f"bench {name} {command.brief or command.usage}".rstrip(), command.summary)
        for name, command in COMMANDS.items()
    ]
    prose = (
        "Words are key=value with values in YAML: methods=[salstm,recnet:global], train.epochs=5. `bench COMMAND --help` "
        "tells more. Files are looked for, and written, in the nearest parent folder with a bench.toml or a checkout "
        "(BENCH_HOME overrides), annotations and features under BENCH_DATA."
    )
    return "\n\n".join(
        [
            "bench: video-captioning papers side by side, under one protocol",
            "\n".join(_row(*row, LEFT + 12) for row in rows),
            wrapped(prose),
            "Example: bench run methods=[recnet,etenet,glrg] dataset=shapes",
        ]
    )


def page(name: str) -> str:
    """The help of one command: how it is written, what it does, each of its options, an example."""
    command = COMMANDS[name]
    said, _, example = (inspect.getdoc(command.function()) or "").rpartition("Example: ")
    paragraphs = [" ".join(part.split()) for part in said.strip().split("\n\n")]
    options = "\n".join(_row(*row, LEFT) for model in command.models() for row in rows(model))
    parts = [f"bench {name} {command.usage}".rstrip(), *paragraphs]
    return "\n\n".join([*map(wrapped, parts), *([options] if options else []), command_line(f"Example: {example}")])


def _row(left: str, right: str, width: int) -> str:
    """A line of two columns; a left entry without room has the line for itself."""
    if len(left) + 4 > width:
        return f"  {left}\n{wrapped(' ' * width + right)}"
    return wrapped(f"  {left:{width - 2}}{right}", hang=width - 2)


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """How each option of a model is written, and what it is: description, range, default; those of a group one by one."""
    from bench.declare.options import group_of, key_of, written

    for name, field in model.model_fields.items():
        how, group = written(field), group_of(field.annotation)
        key = prefix + key_of(name, field)
        if how.apart and not field.description:
            continue
        if group is not None:
            yield from rows(group, f"{key}.")
        elif how.flag:
            yield how.flag, str(field.description)
        elif how.word:
            yield how.word, str(field.description)
        else:
            yield field.title or f"{key}={how.value or _value(field.annotation)}", _described(field)


def _value(annotation: Any) -> str:
    """What stands behind `key=`: its choices, or a letter for its type."""
    from bench.declare.options import choices_of, parts_of

    if choices := choices_of(annotation):
        return "|".join(choices)
    first = parts_of(annotation)[0]
    return next((letter for kind, letter in PLACEHOLDERS if first is kind), "[..]")


def _described(field: FieldInfo) -> str:
    ends = [
        f"{word} {getattr(one, name):g}"
        for name, word in NUMBERS.items()
        for one in field.metadata
        if getattr(one, name, None) is not None
    ]
    limits = [" ".join(ends)] if ends else []
    if not field.is_required() and field.default is not None and field.default_factory is None:
        limits.append(f"default {_shown(field.default)}")
    return f"{field.description}{f' ({listing(limits)})' if limits else ''}"


def _shown(value: Any) -> str:
    """A default as the command line writes it."""
    return value if isinstance(value, str) else json.dumps(value)
