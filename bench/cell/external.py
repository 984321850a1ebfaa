"""Captions made anywhere, scored as the harness scores its own."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.cell.job import CellScorer, Job, Score, state_of
from bench.cell.provenance import provenance
from bench.data.corpus import load_corpus
from bench.data.source import Corpus
from bench.declare.dataset import DatasetDefinition
from bench.errors import unknown
from bench.home import Home
from bench.plan.cells import Cell
from bench.plan.streams import captions_digest
from bench.records.schema import External, Provenance, Record, canonical, public
from bench.records.store import PREDICTIONS, RECORD, Prediction, apart, read_record, write_predictions, write_record

METHOD = "external"  # the folder of such records, and the protocol under which no row of a method stands beside them
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_HALF = re.compile("[\ud800-\udfff]")
FORMS = (
    'JSONL with {"clip": id, "caption": text} on each line, JSON with a list of such objects (also "image_id") or an '
    "object {id: text}, or CSV with the columns clip and caption"
)


def evaluate(
    predictions: Path,
    definition: DatasetDefinition,
    split: str,
    name: str,
    home: Home,
    *,
    splits: str = "default",
    score: Score | None = None,
) -> Record:
    """Score the captions in `predictions` against `split`; returns the record, which is on disk as well.

    One caption for each clip of the split is needed, under its id or another name the data set knows. The record lies
    in `results/<dataset>/external/<key>`; its key comes from the captions, the split and the references. Raises
    BenchError: unreadable file, ids missing, unknown or given twice, no Java.
    """
    if not NAME.fullmatch(name):
        raise BenchError(
            f"the name {name!r} must be made of letters, digits and . _ + -; give one, such as as=my_model"
        )
    corpus = load_corpus(definition, home, splits=splits)
    if split not in corpus.splits:
        raise unknown("split", split, corpus.splits, f"data set {definition.name}")
    captions = _match(predictions, read_captions(predictions), corpus, corpus.splits[split])
    config = _config(definition, split, splits, name, captions, home)
    cell = Cell(config)
    folder = cell.folder(home)
    if state_of(folder) in ("done", "unreadable"):  # of the latter, reading says what is wrong
        return read_record(folder / RECORD)
    write_predictions(folder / PREDICTIONS, [Prediction(clip, text) for clip, text in captions.items()])
    facts = Provenance.model_validate(provenance(1, "cpu"))
    external = External(source=predictions.name)
    write_record(
        folder,
        Record(schema=1, key=cell.key, state="unscored", config=public(config), provenance=facts, external=external),
    )
    scorer = CellScorer(score)
    try:
        outcome = scorer.score(Job(cell.key, name, str(folder), str(home.root), config))
    finally:
        scorer.close()
    if outcome.state != "done":
        raise BenchError(f"{predictions} is read and its captions fit, but not scored: {outcome.message}")
    return read_record(folder / RECORD)


def _config(
    definition: DatasetDefinition, split: str, splits: str, name: str, captions: Mapping[str, str], home: Home
) -> dict[str, Any]:
    """The declaration of captions whose making is unknown: what they are, and what they are compared with."""
    return {
        "schema": 1,
        "method": METHOD,
        "variant": name,
        "title": name,
        "dataset": definition.name,
        "dataset_path": str(definition.path),
        "splits": splits,
        "subset": None,
        "split": split,
        "protocol": METHOD,
        "streams": {},
        "absent_streams": [],
        "seed": 0,
        "captions_digest": captions_digest(definition, splits, home),
        "predictions_digest": hashlib.sha256(canonical(dict(captions)).encode()).hexdigest(),
    }


def _match(path: Path, pairs: list[tuple[str, str]], corpus: Corpus, ids: Iterable[str]) -> dict[str, str]:
    """Captions by clip id, in the order of the split. Raises BenchError naming the clips that do not fit."""
    wanted = list(ids)
    names = [corpus.aliases.get(clip, clip) if clip not in corpus.clips else clip for clip, _ in pairs]
    found = {name: text for name, (_, text) in zip(names, pairs, strict=True)}
    if wrong := apart(names, wanted):
        raise BenchError(
            f"{path} does not caption the {len(wanted)} clips of the split: {wrong}; give one caption for each clip, under its id"
        )
    return {clip: found[clip] for clip in wanted}


def read_captions(path: Path) -> list[tuple[str, str]]:
    """(clip, caption) pairs of a JSONL, JSON or CSV file, in file order. Raises BenchError naming the place."""
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise BenchError(f"{path} must end in .jsonl, .json or .csv: {FORMS}")
    try:
        pairs = reader(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, csv.Error) as error:
        raise BenchError(f"{path}: {error}; captions are read from {FORMS}") from None
    if not pairs:
        raise BenchError(f"{path} holds no captions: {FORMS}")
    return pairs


def _jsonl(text: str) -> list[tuple[str, str]]:
    lines = enumerate(text.split("\n"), start=1)  # not splitlines: captions may hold U+2028
    return [_pair(_parsed(line, f"line {number}"), f"line {number}") for number, line in lines if line.strip()]


def _json(text: str) -> list[tuple[str, str]]:
    content = _parsed(text, "the file", pairs=True)
    if isinstance(content, _Pairs):
        return [_pair({"clip": clip, "caption": caption}, f"clip {clip}") for clip, caption in content]
    if not isinstance(content, list):
        raise ValueError("the file holds neither a list nor an object")
    items = (dict(item) if isinstance(item, _Pairs) else item for item in content)
    return [_pair(item, f"item {number}") for number, item in enumerate(items, start=1)]


def _csv(text: str) -> list[tuple[str, str]]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    if not {"clip", "caption"} <= set(rows.fieldnames or []):
        raise ValueError(f"the first line names the columns {', '.join(rows.fieldnames or []) or 'nothing'}")
    pairs = []
    for row in rows:
        if None in row:  # where DictReader puts what no column of the first line takes
            raise ValueError(f"line {rows.line_num} has too many columns: a caption with commas needs quotes")
        pairs.append(_pair(row, f"line {rows.line_num}"))
    return pairs


class _Pairs(list[tuple[str, Any]]):
    """An object of a JSON file with all its keys, also those that come twice."""


def _parsed(text: str, where: str, pairs: bool = False) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_Pairs if pairs else None)
    except RecursionError:
        raise ValueError(f"{where} nests too deeply for captions") from None
    except ValueError as error:
        raise ValueError(f"{where} is no JSON ({error})") from None


def _pair(item: Any, where: str) -> tuple[str, str]:
    """Clip and caption of one object; `image_id` of COCO results files may be a number."""
    if isinstance(item, dict):
        clip, caption = item.get("clip", item.get("image_id")), item.get("caption")
        if isinstance(clip, str | int) and not isinstance(clip, bool) and isinstance(caption, str):
            if _HALF.search(f"{clip}{caption}"):
                raise ValueError(f"{where} has half of a surrogate pair, which no text file can hold")
            return str(clip), caption
    raise ValueError(f"{where} has no clip and caption")
