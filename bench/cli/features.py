"""Commands for what methods are trained on: data check and the feature cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import BenchError
from bench.cli.show import list_all
from bench.cli.words import FAILED, WELL, say, split, take
from bench.declare.grammar import check_keys, take_apart
from bench.errors import listing, unknown
from bench.home import Home, find_home

if TYPE_CHECKING:
    from bench.declare.dataset import DatasetDefinition
    from bench.errors import Finding


EXTRACT_KEYS = (
    "videos",
    "frames",
    "fps",
    "encoder",
    "weights",
    "boxes",
    "silence",
    "batch",
    "workers",
    "device",
    "skip",
    "replace",
)

CLIPS_NAMED = 5  # clip ids spelled out after a finding; the rest is counted


def data_check(words: Sequence[str]) -> int:
    values, _ = take(words, ("dataset",), required=("dataset",))
    from bench.data.check import check_dataset
    from bench.declare.registry import dataset

    definition = dataset(values["dataset"])
    return _report(f"data set {definition.name}", check_dataset(definition, find_home()))


def _report(what: str, findings: Sequence[Finding]) -> int:
    for finding in findings:
        more = len(finding.clips) - CLIPS_NAMED
        told = all(clip in finding.message for clip in finding.clips[:CLIPS_NAMED])
        clips = f" [{listing(finding.clips[:CLIPS_NAMED])}{f' and {more} more' if more > 0 else ''}]"
        print(f"{finding.severity}: {finding.message}{'' if told else clips}")
    errors = sum(finding.severity == "error" for finding in findings)
    print(
        f"{what}: {count(errors, 'error')}, {count(len(findings) - errors, 'warning')}"
        if findings
        else f"{what}: nothing to complain of"
    )
    return FAILED if errors else WELL


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def features_list(words: Sequence[str]) -> int:
    take(words, ())
    return list_all(["features"])


def features_check(words: Sequence[str]) -> int:
    """`bench features check`: damage in the caches of a data set; status 1 if there is any."""
    definition, streams, home = _streams(words)
    from bench.data.corpus import load_corpus
    from bench.features.check import check_cache
    from bench.features.sidecar import cache_path

    ids = list(load_corpus(definition, home).clips)
    statuses = [
        _report(f"stream {stream} of {definition.name}", check_cache(cache_path(home, definition.name, stream), ids))
        for stream in streams
    ]
    return max(statuses)


def features_import(words: Sequence[str]) -> int:
    """`bench features import`: features as others published them; `from=` and its kin stand for a definition's entry."""
    told, rest = split(words, ("from", "layout", "frames", "encoder", "ids", "replace"))
    if "from" not in told and set(told) - {"replace"}:
        raise BenchError(
            f"command line: {sorted(set(told) - {'replace'})[0]}= goes with from=PATH, the features' place"
        )
    if "from" in told:
        values, _ = take(rest, ("dataset", "stream"), required=("dataset", "stream"))
        from bench.declare.registry import dataset
        from bench.run.prepare import import_from

        print(import_from(dataset(values["dataset"]), values["stream"], find_home(), told))
        return WELL
    definition, streams, home = _streams(rest)
    from bench.run.prepare import prepare, refuse_told

    if told.get("replace") != "true":
        refuse_told(definition, streams, home)
    prepare(definition, home, None, streams, again=told.get("replace") == "true")
    return WELL


def features_extract(words: Sequence[str]) -> int:
    """`bench features extract`: a stream from a folder of videos; status 1 if some clips could not be read."""
    if "stream=words" in words:
        return _extract_words(words)
    values, _ = take(words, ("dataset", "stream", *EXTRACT_KEYS), required=("dataset", "stream"))
    from bench.declare.registry import dataset
    from bench.run.prepare import extract, undeclared

    definition = dataset(values["dataset"])
    told = {name: values[name] for name in EXTRACT_KEYS if name in values}
    path, failed = extract(definition, values["stream"], find_home(), told)
    if failed and ("skip" not in told or not path.is_file()):
        return say(failed, FAILED)
    if failed:
        print(failed)
    print(f"{definition.name}: stream {values['stream']} is in {path}{undeclared(definition, values['stream'])}")
    return WELL


def _extract_words(words: Sequence[str]) -> int:
    """The stream `words`, which a trained method makes of the stream `frames`."""
    values, _ = take(words, ("dataset", "stream", "checkpoint", "replace"), required=("dataset", "checkpoint"))
    from bench.cell.words_stream import extract_words
    from bench.declare.registry import dataset
    from bench.run.prepare import undeclared

    definition = dataset(values["dataset"])
    checkpoint = Path(values["checkpoint"]).expanduser()
    path = extract_words(definition, find_home(), checkpoint, values.get("replace") == "true")
    print(f"{definition.name}: stream words is in {path}{undeclared(definition, 'words')}")
    return WELL


def _streams(words: Sequence[str]) -> tuple[DatasetDefinition, list[str], Home]:
    """The data set of a `features` command, and its streams or those that were named by `stream=`.

    Without `stream=`, streams that come from videos are left out until they are there: few methods read them.
    """
    from bench.declare.registry import dataset
    from bench.features.sidecar import cache_path

    arguments = take_apart(words, ())
    check_keys(arguments.values, ("dataset", "stream"))
    if arguments.files or "dataset" not in arguments.values:
        raise BenchError("command line: dataset= is missing, such as dataset=msvd or dataset=my/dataset.yaml")
    definition, home = dataset(arguments.values["dataset"].read(text=True)), find_home()
    named = [
        name
        for name, stream in definition.streams.items()
        if stream.videos is None or cache_path(home, definition.name, name).is_file()
    ]
    if "stream" in arguments.values:
        named = arguments.values["stream"].listed(text=True)
    for stream in named:
        if stream not in definition.streams:
            raise unknown("stream", stream, definition.streams, f"data set {definition.name}")
    if not named and "stream" in arguments.values:
        raise BenchError(
            f"command line: stream= names none; data set {definition.name} has {listing(definition.streams)}"
        )
    if not named:
        raise BenchError(f"data set {definition.name} declares no streams: add them to {definition.path}")
    return definition, named, home
