"""Which feature streams a cell reads, and whether they can be had."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from bench import BenchError
from bench.declare.card import AXES, MethodCard, wrong_axes
from bench.declare.dataset import DatasetDefinition
from bench.disk.digests import FileDigests
from bench.errors import listing, sizes, unknown
from bench.features.sidecar import cache_path, read_sidecar, sidecar_path
from bench.home import Home
from bench.plan.request import RunSpec
from bench.records.schema import canonical


def not_cached(streams: Sequence[str], of: str = "") -> str:
    return f"stream {streams[0]}{of} is not" if len(streams) == 1 else f"streams {listing(streams)}{of} are not"


def captions_digest(definition: DatasetDefinition, splits: str, home: Home, files: FileDigests | None = None) -> str:
    """Digest of everything that decides which clips and captions a run sees, but for `subset=` of the command.

    That is the format and the files of the captions, the rule of `splits` with its lists, the definition's own subset,
    and for generated corpora the generator's version and options. Paths do not count.
    """
    files = files or FileDigests(home)
    source, paths = definition.caption_source(home)
    rule = definition.split_rule(splits)
    subset = definition.subset.model_dump() if definition.subset else None
    if subset and isinstance(subset["ids"], str):
        subset["ids"] = files.of(definition.resolve(subset["ids"], home))
    seen: dict[str, Any] = {
        "format": source.format,
        "files": {role: files.of(path) for role, path in paths.items()},
        **({"fields": dict(source.fields)} if source.fields else {}),
        "splits": {
            **rule.model_dump(exclude={"lists", "films", *(() if rule.folds else ("folds", "validation"))}),
            **({"films": files.of(definition.resolve(rule.films, home))} if rule.films else {}),
            # `official:val_1` is no file: it names a part of the caption files.
            "lists": {
                part: entry if entry.startswith("official:") else files.of(definition.resolve(entry, home))
                for part, entry in rule.lists.items()
            },
        },
        "subset": subset,
        "options": definition.options,
    }
    if source.format == "shapes":
        from bench.shapes.options import corpus_digest

        seen["generator"] = corpus_digest(definition.options)
    files.save()
    return hashlib.sha256(canonical(seen).encode()).hexdigest()


def stream_fingerprints(
    row: str, card: MethodCard, definition: DatasetDefinition, spec: RunSpec, home: Home
) -> tuple[dict[str, str | None], list[str]]:
    """Fingerprints of the streams that `row` (`glrg:xe`, whose card this is) reads here, null where still to be imported,
    and the wanted ones that are absent. Raises BenchError for a stream that is needed and cannot be had."""
    for stream in spec.streams or []:
        if stream not in definition.streams:
            raise unknown("stream", stream, definition.streams, f"data set {definition.name}")
    here = set(definition.streams if spec.streams is None else spec.streams)
    wanted = _wanted(card, spec)
    needed = wanted if spec.protocol == "paper" else card.streams.needs
    for stream in needed:
        if stream not in here:
            raise _cannot_be_had(stream, row, definition, spec)
    used = [stream for stream in wanted if stream in here]
    if not used:
        raise BenchError(
            f"{row} reads {listing(wanted)}, and data set {definition.name} has none of these "
            f"(it has {listing(definition.streams)})"
        )
    absent = [stream for stream in wanted if stream not in here]
    return {stream: _fingerprint(stream, card, definition, spec, home) for stream in used}, absent


def _wanted(card: MethodCard, spec: RunSpec) -> list[str]:
    """All streams of the card; under protocol=paper, of those it can do without, the ones that the paper printed."""
    uses = card.streams.uses
    if spec.protocol == "paper" and card.protocol_paper and card.protocol_paper.stream_shapes:
        uses = [stream for stream in uses if stream in card.protocol_paper.stream_shapes]
    return list(dict.fromkeys([*card.streams.needs, *uses]))


def _cannot_be_had(stream: str, row: str, definition: DatasetDefinition, spec: RunSpec) -> BenchError:
    start = f"{row} under protocol={spec.protocol} reads the stream {stream}, which"
    if stream in definition.streams:
        return BenchError(f"{start} streams={','.join(spec.streams or [])} leaves out; add {stream} to it")
    return BenchError(
        f"{start} data set {definition.name} lacks (it has {listing(definition.streams)}); describe it under streams: "
        f"in {definition.path}, then: bench features import dataset={spec.dataset} stream={stream}"
    )


def _fingerprint(stream: str, card: MethodCard, definition: DatasetDefinition, spec: RunSpec, home: Home) -> str | None:
    cache = cache_path(home, definition.name, stream)
    if not sidecar_path(cache).is_file():
        source = definition.streams[stream].place
        if source is None and not definition.generated:
            key, verb = ("videos", "extract") if stream == "pixels" else ("source", "import")
            raise BenchError(
                f"stream {stream} of {definition.name} has no {key}: in {definition.path} and is not in the cache "
                f"({cache}); name its {'folder' if stream == 'pixels' else 'file'}, then: "
                f"bench features {verb} dataset={spec.dataset} stream={stream}"
            )
        if source is not None and not definition.resolve(source, home).exists():
            raise BenchError(
                f"the features of stream {stream} of {definition.name} are not at {definition.resolve(source, home)}; "
                f"put them there, or set BENCH_DATA (now {home.data}), then: "
                f"bench features import dataset={spec.dataset} stream={stream}; or make them from videos: bench features extract"
            )
        if definition.streams[stream].videos is not None:
            from bench.features.extraction import Extraction  # of streams that are still to be extracted alone

            Extraction.of(definition, stream, home)  # an unknown encoder, weights that are not there
        elif source is not None and stream in AXES:
            from bench.features.importers import first_shape  # of streams that are still to be imported alone

            if shape := first_shape(definition, stream, home):
                _check_axes(stream, list(shape), card, spec)
        return None
    facts = read_sidecar(cache)
    _check_axes(stream, list(facts["shape"]), card, spec)
    if spec.protocol == "paper" and card.protocol_paper:
        _check_shape(stream, list(facts["shape"]), card, spec)
    return str(facts["fingerprint"])


def _check_axes(stream: str, shape: list[int], card: MethodCard, spec: RunSpec) -> None:
    """Refuse what no method could read under this name: one vector for a clip as `frames`, for instance."""
    if wrong := wrong_axes(stream, shape):
        raise BenchError(
            f"{card.name} cannot run on {spec.dataset}: {wrong}; correct streams.{stream} of the data set, then: "
            f"bench features import dataset={spec.dataset} stream={stream}"
        )


def _check_shape(stream: str, shape: list[int], card: MethodCard, spec: RunSpec) -> None:
    paper = card.protocol_paper
    assert paper is not None
    printed = paper.shapes(stream)
    if not printed and stream == "frames" and paper.frames:
        printed = [[paper.frames, *shape[1:]]]
    if printed and shape not in printed:
        raise BenchError(
            f"{card.name} under protocol=paper reads {stream} of shape {' or '.join(map(sizes, printed))}, but {spec.dataset} "
            f"has {sizes(shape)}; name such features under streams.{stream} of the data set, then: "
            f"bench features import dataset={spec.dataset} stream={stream}; or use protocol=standard"
        )
