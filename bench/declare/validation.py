"""What a model of pydantic refuses, as one sentence: where, which key, what it must be, what was probably meant."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Collection, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from bench import BenchError
from bench.errors import all_of, did_you_mean, listing, unknown

# What a value must be, by the first words of pydantic's error type.
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping (key: value)",
    "mapping": "a mapping (key: value)",
    "model": "a mapping (key: value)",
    "none_required": "null",
}

# The same by the pattern that text must match.
FORMS = {
    r"^[a-z][a-z0-9_]*$": "a name of small letters, digits and _ that begins with a letter",
    r"^[a-z0-9_]{1,100}$": "a name of small letters, digits and _, at most 100",
    r"^[a-z0-9_]+:[a-z0-9_]+$": "METHOD:VARIANT, in small letters, digits and _",
}


class MissingKeysError(BenchError):
    """Keys that have to be there are not; only what was misspelt, where that was told before."""


def from_pydantic(
    error: ValidationError, model: type[BaseModel], where: str | Callable[[str], str], hidden: Collection[str] = ()
) -> BenchError:
    """What pydantic found, a sentence for each key; `where` is a file, or tells for a key where it was written.

    `hidden` fields are not offered as allowed keys.
    """
    findings = error.errors()
    # A misspelt key also makes its right name missing: the misspelling is what the user wants to hear of.
    misspelt = [finding for finding in findings if finding["type"] == "extra_forbidden"]
    missing = [_dotted(list(one["loc"])) for one in findings if one["type"] == "missing"]
    others = [finding for finding in findings if finding["type"] not in ("extra_forbidden", "missing")]
    told = [_told(finding, model, where, hidden) for finding in misspelt]
    told += [_missing(missing, model, where)] if missing and not misspelt else []
    # One finding for a key: of a union, pydantic tells what each of its members lacks.
    told += [_told(one, model, where, hidden) for one in {_key(one): one for one in reversed(others)}.values()][::-1]
    return all_of(told)


def _key(finding: Any) -> str:
    """The key that a finding is about: `subset`, or `train.epochs` in a group."""
    return _dotted(finding["loc"][:2]) if len(finding["loc"]) > 1 else _dotted(finding["loc"])


def _told(
    finding: Any, model: type[BaseModel], where: str | Callable[[str], str], hidden: Collection[str]
) -> BenchError:
    path = [
        part for part in finding["loc"] if part not in ("[key]", "")
    ]  # "": an option by stream that is given for all
    name = _dotted(path)
    place = where(name) if callable(where) else where
    if finding["type"] == "extra_forbidden":
        return unknown("key", name, [key for key in _allowed_keys(model, path) if key not in hidden], place)
    return BenchError(f"{place}: {name + ' ' if name else ''}{_complaint(finding)}")


def _missing(names: list[str], model: type[BaseModel], where: str | Callable[[str], str]) -> BenchError:
    """The sentence for keys that are not there, with their examples where the model has some."""
    place = where(names[0]) if callable(where) else where
    examples = {field.alias or name: field.examples or [] for name, field in model.model_fields.items()}
    such = [[f"{name}={example}" for example in examples.get(name, [])] for name in names]
    shown = " or ".join(such[0]) if len(such) == 1 else " ".join(one[0] for one in such if one)
    more = f", such as {shown}" if shown else ""
    return MissingKeysError(f"{place}: {' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing{more}")


def _dotted(path: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in path)


def _complaint(finding: Any) -> str:
    kind, context = finding["type"], finding.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    value = f"is {finding['input']!r}, but must be"
    if kind == "too_short":
        return f"is {finding['input']!r}, but must hold at least {context['min_length']}"
    if kind == "string_pattern_mismatch":
        return f"{value} {FORMS.get(context['pattern'], 'of another form')}"
    if kind == "literal_error":
        allowed = [part.strip("'") for part in context["expected"].replace(" or ", ", ").split(", ")]
        return f"{value} one of {listing(allowed)}{did_you_mean(finding['input'], allowed)}"
    for limit, words in (("gt", "greater than"), ("ge", "at least"), ("lt", "less than"), ("le", "at most")):
        if limit in context:
            return f"{value} {words} {context[limit]}"
    for start, words in _EXPECTED.items():
        if kind.startswith(start):
            return f"{value} {words}"
    message = finding["msg"]
    return f"is {finding['input']!r}: {message[0].lower()}{message[1:]}"


def _allowed_keys(model: type[BaseModel], path: list[int | str]) -> list[str]:
    """Keys of the model in which the last part of `path` was not expected; full dotted names."""
    here: Any = model
    for part in path[:-1]:
        here = _step(here, part)
    prefix = "".join(f"{part}." for part in path[:-1])
    return [prefix + name for name in _fields(here)]


def _step(annotation: Any, part: int | str) -> Any:
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return next(field.annotation for name, field in option.model_fields.items() if part in (name, field.alias))
        arguments = typing.get_args(option)
        if typing.get_origin(option) in (dict, list, tuple) and arguments:
            return arguments[1] if typing.get_origin(option) is dict else arguments[0]
    return None


def _options(annotation: Any) -> list[Any]:
    """The members of a union without None, or the annotation alone."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [option for option in typing.get_args(annotation) if option is not type(None)]
    return [annotation]


def _fields(annotation: Any) -> list[str]:
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return [field.alias or name for name, field in option.model_fields.items()]
    return []
