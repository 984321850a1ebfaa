"""Methods and data sets by name. Reads cards and definitions only: no method is imported, nothing heavy is loaded."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bench import BenchError
from bench.declare.card import MethodCard
from bench.declare.dataset import DatasetDefinition
from bench.declare.grammar import read_yaml
from bench.declare.validation import from_pydantic
from bench.errors import did_you_mean, unknown
from bench.home import data_folder, written_path

GROUP = "bench.methods"

AnyModel = TypeVar("AnyModel", bound=BaseModel)


@dataclass(frozen=True)
class MethodEntry:
    """A method that was found: its card, or the sentence that says why it cannot be used.

    `module` is what to import for `build`; `source` is `bench` or the distribution that brings the method.
    """

    name: str
    folder: Path | None
    module: str
    card: MethodCard | None
    error: str | None = None
    source: str = "bench"


@dataclass(frozen=True)
class DatasetEntry:
    """A data set that was found: its definition, or the sentence that says why it cannot be used."""

    name: str
    path: Path
    definition: DatasetDefinition | None
    error: str | None = None


def _kind(content: Any) -> str:
    if content is None:
        return "empty"
    return "a list" if isinstance(content, list) else "one text" if isinstance(content, str) else "one number"


def read_model(path: Path, model: type[AnyModel]) -> AnyModel:
    """A YAML file as `model`. Raises BenchError: a sentence with file, key and allowed values."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise BenchError(f"{path}: must be a mapping (key: value); it is {_kind(content)}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise from_pydantic(error, model, str(path)) from None


def methods_folder() -> Path | None:
    """Folder of the installed `methods` package, without importing it."""
    spec = importlib.util.find_spec("methods")
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def find_methods(folder: Path | None = None) -> dict[str, MethodEntry]:
    """All methods by name: those of `folder` (default: the `methods` package) and of the entry points.

    An entry point names a package that holds a `card.yaml`. A broken method keeps its place with its error, and a
    second method of the same name stands beside the first as `name (distribution)`, with an error naming both.
    """
    folder = folder or methods_folder()
    entries: dict[str, MethodEntry] = {}
    for place in sorted(folder.iterdir()) if folder and folder.is_dir() else []:
        if (place / "card.yaml").is_file() or (place / "__init__.py").is_file():
            entries[place.name] = _entry(place.name, place, f"methods.{place.name}", "bench")
    for entry in _plugins():
        first = entries.get(entry.name)
        if first:
            error = (
                f"{entry.folder} and {first.folder} both bring a method called {entry.name}; the first found is used"
            )
            name = f"{entry.name} ({entry.source})"
            entries[name] = MethodEntry(name, entry.folder, entry.module, None, error, entry.source)
        else:
            entries[entry.name] = entry
    return entries


def _plugins() -> Iterator[MethodEntry]:
    points = importlib.metadata.entry_points(group=GROUP)
    for point in sorted(points, key=lambda point: (point.name, point.value)):
        source = point.dist.name if point.dist else "unknown"
        try:
            place = _package_folder(point.module)
        except BenchError as error:
            yield MethodEntry(point.name, None, point.value, None, str(error), source)
        else:
            yield _entry(point.name, place, point.module, source)


def _package_folder(module: str) -> Path:
    """Folder of a package by name; walks down from the top-level package, because finding `a.b` would import `a`."""
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError) as error:
        raise BenchError(f"the package {top} of the entry point cannot be found: {error}") from None
    places = list(spec.submodule_search_locations or []) if spec else []
    for place in places:
        folder = Path(place, *below)
        if folder.is_dir():
            return folder
    raise BenchError(f"there is no package {module}, which the entry point group {GROUP} names")


def _entry(name: str, folder: Path, module: str, source: str) -> MethodEntry:
    try:
        if not (folder / "card.yaml").is_file():
            raise BenchError(f"{folder} has no card.yaml")
        card = read_model(folder / "card.yaml", MethodCard)
        if card.name != name:
            raise BenchError(f"{folder / 'card.yaml'}: name is {card.name!r}, but must be {name!r}")
        return MethodEntry(name, folder, module, card, None, source)
    except BenchError as error:
        return MethodEntry(name, folder, module, None, str(error), source)


def method_entry(name: str, entries: dict[str, MethodEntry] | None = None) -> MethodEntry:
    """The usable method called `name`. Raises BenchError for an unknown or a broken one."""
    if entries is None:  # the cards of the others are read only to name them
        folder = methods_folder()
        own = folder is not None and name.isidentifier() and (folder / name / "card.yaml").is_file()
        entries = {name: _entry(name, folder / name, f"methods.{name}", "bench")} if folder and own else find_methods()
    if name not in entries:
        raise unknown("method", name, [entry.name for entry in entries.values() if entry.card])
    entry = entries[name]
    if entry.error:
        raise BenchError(f"method {name} cannot be used: {entry.error}")
    return entry


def method(name: str) -> MethodCard:
    """The card of the method called `name`. Raises BenchError for an unknown or a broken one."""
    card = method_entry(name).card
    assert card is not None
    return card


def variants(word: str, entries: dict[str, MethodEntry]) -> list[tuple[MethodCard, str]]:
    """`recnet` is the default variant, `recnet:global` that one, `recnet:*` all of them."""
    name, colon, variant = word.partition(":")
    card = method_entry(name, entries).card
    assert card is not None
    if not colon:
        return [(card, card.default)]
    if variant == "*":
        return [(card, one) for one in card.variants]
    if variant not in card.variants:
        raise unknown("variant", variant, [*card.variants, "*"], f"method {name}")
    return [(card, variant)]


def find_datasets(folder: Path | None = None) -> dict[str, DatasetEntry]:
    """The data sets shipped with the project (or those below `folder`) by name."""
    folder = folder or data_folder("datasets")
    entries = {}
    for path in sorted(folder.glob("*/dataset.yaml")):
        name = path.parent.name
        try:
            entries[name] = DatasetEntry(name, path, read_definition(path, name))
        except BenchError as error:
            entries[name] = DatasetEntry(name, path, None, str(error))
    return entries


def read_definition(path: Path, name: str | None = None) -> DatasetDefinition:
    """A data set definition from its file; with `name`, the definition must be called so."""
    definition = read_model(path, DatasetDefinition)
    if name and definition.name != name:
        raise BenchError(f"{path}: name is {definition.name!r}, but must be {name!r}, as its folder")
    definition._path = path.resolve()
    return definition


def dataset(name_or_path: str, folder: Path | None = None) -> DatasetDefinition:
    """The data set called so, or the one that the YAML file at this path defines."""
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        path = written_path(name_or_path)
        return read_definition(path / "dataset.yaml" if path.is_dir() else path)
    folder = folder or data_folder("datasets")
    names = [path.parent.name for path in sorted(folder.glob("*/dataset.yaml"))]
    if name_or_path not in names:
        raise unknown("data set", name_or_path, [*names, "FILE.yaml"])
    return read_definition(folder / name_or_path / "dataset.yaml", name_or_path)


def method_digest(folder: Path) -> str:
    """SHA-256 of what the code in `folder` says: the syntax trees of its `*.py` without docstrings and comments.

    The trees are written out here, not by `ast.dump`, whose text differs between versions of Python. Remembered as long as
    the files stay as they are: a table of a paper asks for the same method many times.
    """
    files = sorted(folder.rglob("*.py"))
    return _digest_of(folder, tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files))


@functools.cache
def _digest_of(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    total = hashlib.sha256()
    for path, _, _ in files:
        try:
            tree = ast.parse(path.read_bytes(), filename=str(path))
        except SyntaxError as error:
            raise BenchError(f"{path}, line {error.lineno}: {error.msg}") from None
        for node in ast.walk(tree):
            _drop_docstring(node)
        total.update(path.relative_to(folder).as_posix().encode() + b"\0")
        total.update(_written(tree).encode() + b"\0")
    return total.hexdigest()


def _drop_docstring(node: ast.AST) -> None:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = node.body[1:]


def _written(node: Any) -> str:
    """A syntax tree as text; empty fields are left out, because later versions of Python add some."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []) and name != "kind")
        inside = ",".join(f"{name}={_written(value)}" for name, value in sorted(fields, key=lambda pair: pair[0]))
        return f"{type(node).__name__}({inside})"
    if isinstance(node, list):
        return f"[{','.join(_written(item) for item in node)}]"
    return repr(node)


__all__ = [
    "DatasetDefinition",
    "DatasetEntry",
    "MethodCard",
    "MethodEntry",
    "dataset",
    "did_you_mean",
    "find_datasets",
    "find_methods",
    "method",
    "method_digest",
    "method_entry",
    "read_definition",
]
