"""Options of a command: a strict model says which there are; this reads them from the words of a command line or a plan file.

Everything about an option stands in the model's field: key (its name, or its alias), type, range, default, description. What
has no place in pydantic is `Written`: a flag, a word without `=`, and how help writes a value.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from bench import BenchError
from bench.declare.grammar import Arguments, Value, take_apart
from bench.declare.settings import Strict
from bench.declare.validation import from_pydantic
from bench.errors import listing, unknown

HERE = "command line"
LENGTHS = ("min_length", "max_length")


@dataclass(frozen=True)
class Written:
    """How an option is written where that is not `key=VALUE`.

    `value` is what help shows behind `key=`. A `flag` is a word such as --check. An option that is a word without `=` has the
    name `word`, and `missing` is the sentence for a command line without it. `apart` options are read by their own module, and
    help does not speak of one that has no description.
    """

    value: str = ""
    flag: str = ""
    word: str = ""
    missing: str = ""
    apart: bool = False


class Options(Strict):
    """The options of a command. A field may have an alias: the key that is no name in Python, such as `from`."""

    model_config = ConfigDict(populate_by_name=True)


DATASET = Field(
    description="a data set of `bench list datasets`, or your own definition", examples=["msvd", "my/dataset.yaml"]
)
DataSet = Annotated[str, Written("NAME|FILE.yaml"), DATASET]
AnyDataSet = Annotated[str | None, Written("NAME|FILE.yaml"), DATASET]
Json = Annotated[bool, Field(alias="json", description="print the same facts as JSON, and nothing else (docs/json.md)")]

AnyOptions = TypeVar("AnyOptions", bound=Options)


def written(field: FieldInfo) -> Written:
    """How an option is written; plain `key=VALUE` where its field says nothing."""
    return next((one for one in field.metadata if isinstance(one, Written)), Written())


def key_of(name: str, field: FieldInfo) -> str:
    """The key of an option on the command line."""
    return field.alias or name


def keys(model: type[BaseModel]) -> list[str]:
    """The keys of a model that are written `key=VALUE`, in its order."""
    return [key_of(name, field) for name, field in model.model_fields.items() if not _is_apart(written(field))]


def flags(model: type[BaseModel]) -> list[str]:
    """The flags of a model."""
    return [how.flag for field in model.model_fields.values() if (how := written(field)).flag]


def _is_apart(how: Written) -> bool:
    return bool(how.flag or how.word or how.apart)


def parse(model: type[AnyOptions], argv: Sequence[str]) -> AnyOptions:
    """The options in `argv`. Raises BenchError, one sentence, for anything that is not understood; nothing is ignored."""
    arguments = take_apart(argv, flags(model))
    allowed = keys(model)
    for key in arguments.values:
        if field_of(model, key) is None:
            raise _not_an_option(model, key, allowed)
    return read(model, arguments.values, flagged(model, arguments.flags) | _words(model, arguments, allowed))


def _not_an_option(model: type[BaseModel], key: str, allowed: Sequence[str]) -> BenchError:
    words = [how.missing for field in model.model_fields.values() if (how := written(field)).word]
    if allowed or not words:
        return unknown("key", key, allowed, HERE)
    return BenchError(f"{HERE}: {key}= is no option here, for this command takes words alone: {words[0]}")


def flagged(model: type[BaseModel], given: Collection[str]) -> dict[str, Any]:
    """The options of a model that flags set, by field."""
    return {name: True for name, field in model.model_fields.items() if written(field).flag in given}


def _words(model: type[BaseModel], arguments: Arguments, allowed: Sequence[str]) -> dict[str, Any]:
    """The options that are words without `=`, by field: all words, or one."""
    fields = [(name, field) for name, field in model.model_fields.items() if written(field).word]
    files = arguments.files
    for name, field in fields:
        if _origin(field.annotation) is list:
            _check_words(files, field)
            fewest, most = (
                next((getattr(one, end) for one in field.metadata if hasattr(one, end)), None) for end in LENGTHS
            )
            if len(files) < (fewest or 0) or len(files) > (most or len(files)):
                too_many = f"{len(files)} words where this command takes {most}: {listing(map(repr, files))}"
                raise BenchError(f"{HERE}: {written(field).missing or too_many}")
            return {name: list(files)} if files else {}
    if len(files) > len(fields):
        word, keys = files[len(fields)], allowed
        meant = f"; is {keys[0]}={word} meant?" if len(keys) == 1 else f"; allowed keys: {listing(keys)}"
        raise BenchError(f"{HERE}: {word!r} is not key=value{meant}")
    content = {name: word for (name, _), word in zip(fields, files, strict=False)}
    for _, field in fields[len(files) :]:
        if missing := written(field).missing:
            raise BenchError(f"{HERE}: {missing}")
    return content


def _check_words(words: Sequence[str], field: FieldInfo) -> None:
    """Refuse a word that is not among the choices of its list."""
    choices = choices_of(typing.get_args(field.annotation)[0])
    for word in words:
        if choices and word not in choices:
            raise unknown(written(field).word, word, choices)


def field_of(model: type[BaseModel], key: str) -> tuple[str, FieldInfo] | None:
    """The field that a dotted key belongs to: the option of this key, or the group before its first dot."""
    for wanted in (key, key.partition(".")[0]):
        for name, field in model.model_fields.items():
            how = written(field)
            if wanted in (name, field.alias) and not (how.word or how.apart):
                return (name, field) if wanted == key or _has_parts(field.annotation) else None
    return None


def read(model: type[AnyOptions], values: Mapping[str, Value], content: dict[str, Any] | None = None) -> AnyOptions:
    """A model from values by dotted key; `content` are fields that are known already. All keys must be the model's own."""
    content = dict(content or {})
    for key, value in values.items():
        found = field_of(model, key)
        assert found is not None
        field, name = found[1], key_of(*found)
        rest = "" if key in (found[0], name) else key.partition(".")[2]
        inside = group_of(field.annotation)
        if rest:
            _put(content, [name, *([rest] if inside is None else rest.split("."))], _below(inside, rest, value), value)
        else:
            _put(content, [name], _plain(field.annotation, value, key), value)

    def where(key: str) -> str:
        head = key.split(".")[0]
        near = [value.where for name, value in values.items() if name == key or name.split(".")[0] == head]
        return near[0] if near else HERE

    try:
        return model.model_validate(content)
    except ValidationError as error:
        hidden = [key_of(name, field) for name, field in model.model_fields.items() if _is_apart(written(field))]
        raise from_pydantic(error, model, where, hidden) from None


def _plain(annotation: Any, value: Value, key: str) -> Any:
    """The value of a whole option, as text where a name is expected."""
    if _origin(annotation) is list:
        return value.listed(text=takes_text(annotation))
    if _origin(annotation) is dict:  # by stream: without one it is for all
        return {"": value.read(text=True)}
    return value.read(text=takes_text(annotation))


def _below(group: type[BaseModel] | None, rest: str, value: Value) -> Any:
    """The value of an option inside a group, or of one stream."""
    field = group.model_fields.get(rest) if group else None
    return value.read(text=group is None or (field is not None and takes_text(field.annotation)))


def _put(group: dict[str, Any], path: list[str], content: Any, value: Value) -> None:
    """Put what `value` says into nested groups. Raises BenchError where a value and what is below it are both given."""
    for place, part in enumerate(path[:-1], start=1):
        group = group.setdefault(part, {})
        if not isinstance(group, dict):
            raise BenchError(
                f"{value.where}: {'.'.join(path[:place])} is given both as {group!r} and as {'.'.join(path)}"
            )
    before = group.get(path[-1])
    if isinstance(before, dict) and isinstance(content, dict):
        content = before | content
    elif isinstance(before, dict):
        below = ".".join([*path, next(iter(before))])
        raise BenchError(f"{value.where}: {'.'.join(path)} is given both as {content!r} and as {below}")
    group[path[-1]] = content


def parts_of(annotation: Any) -> list[Any]:
    """The members of a union without None, or the annotation alone."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [part for part in typing.get_args(annotation) if part is not type(None)]
    return [annotation]


def _origin(annotation: Any) -> Any:
    return typing.get_origin(parts_of(annotation)[0])


def group_of(annotation: Any) -> type[BaseModel] | None:
    """The model of an option that is a group, such as `train`; None for any other."""
    first = parts_of(annotation)[0]
    return first if isinstance(first, type) and issubclass(first, BaseModel) else None


def _has_parts(annotation: Any) -> bool:
    return group_of(annotation) is not None or _origin(annotation) is dict


def choices_of(annotation: Any) -> list[str]:
    """The words that an option may be; none where it is free."""
    first = parts_of(annotation)[0]
    if typing.get_origin(first) is list:
        return choices_of(typing.get_args(first)[0])
    return [str(word) for word in typing.get_args(first)] if typing.get_origin(first) is Literal else []


def takes_text(annotation: Any) -> bool:
    """Whether an option expects a name: then `on`, `010` and `1e3` are taken as written."""
    if typing.get_origin(annotation) is Literal:
        return all(isinstance(choice, str) for choice in typing.get_args(annotation))
    return annotation is str or any(takes_text(part) for part in typing.get_args(annotation))
