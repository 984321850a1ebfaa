"""A corpus: the clips and captions of a data set definition, read, checked against published counts, and split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import BenchError
from bench.data.folds import check_fold, deal, films_of
from bench.data.readers import FORMATS, read
from bench.data.readers.shapes import shapes_corpus
from bench.data.source import Corpus, Source
from bench.data.splits import OFFICIAL, SPLITS, Names, expand, published, read_list, split_clips
from bench.declare.dataset import CaptionSource, Clip, Counts, DatasetDefinition
from bench.declare.registry import dataset
from bench.errors import Finding, many, named
from bench.home import Home


def load_corpus(
    definition: DatasetDefinition,
    home: Home,
    *,
    splits: str = "default",
    subset: Sequence[int] | None = None,
    fold: int | None = None,
) -> Corpus:
    """Read the captions of a data set under one of its split rules.

    `subset` = (train, val, test) keeps the first clips of each split. Of a rule with folds one `fold` is taken; without one all
    clips are in test, as a row of folds reports on them. Raises BenchError for absent or damaged files,
    counts that differ from the published ones, clips without captions, overlapping splits, unknown names.
    """
    rule = definition.split_rule(splits)
    choice, files = definition.caption_source(home)
    if choice.format == "shapes":
        return shapes_corpus(definition.options, subset)
    source = read_source(choice, files, definition.name)
    names = Names(source)
    check_counts(definition, choice, source, names, home)
    kept = _subset(definition, source, names, home)
    if rule.folds and fold is None and subset is None:  # all clips, without asking for their films
        return _assemble(definition, source, {"train": (), "val": (), "test": tuple(kept)})
    if rule.folds:
        parts = deal(definition, rule, films_of(definition, rule, source, home, kept), kept)
    else:
        parts, fold = [split_clips(definition, rule, source, names, kept, home)], 0
    if subset is not None:
        parts = [_first_of_each(definition, part, subset) for part in parts]
    if fold is None:
        tested = {clip for part in parts for clip in part["test"]}
        every = tuple(clip for clip in kept if clip in tested)
        return _assemble(definition, source, {"train": (), "val": (), "test": every})
    check_fold(definition, len(parts), fold)
    chosen = parts[fold]
    if not chosen["train"]:
        raise BenchError(f"data set {definition.name}: the train split is empty")
    return _assemble(definition, source, chosen, _split_findings(source, chosen))


def corpus_of(config: Mapping[str, Any], home: Home) -> Corpus:
    """The corpus that a cell's configuration names, with its split rule, subset and fold; for a row of folds that of them all."""
    definition = dataset(config.get("dataset_path") or config["dataset"])
    fold = None if "cells" in config else config.get("seed")
    return load_corpus(
        definition, home, splits=config.get("splits") or "default", subset=config.get("subset"), fold=fold
    )


def films_in(config: Mapping[str, Any], home: Home) -> dict[str, str]:
    """The film of every clip of the data set and split rule that a configuration names."""
    definition = dataset(config.get("dataset_path") or config["dataset"])
    choice, files = definition.caption_source(home)
    rule = definition.split_rule(config["splits"])
    return films_of(definition, rule, read_source(choice, files, definition.name), home)


def all_clips(definition: DatasetDefinition, home: Home) -> tuple[dict[str, Clip], dict[str, str]]:
    """Clips of the data set under every split rule, and their other names: one cache, and with it one fingerprint, serves
    all rules."""
    clips: dict[str, Clip] = {}
    aliases: dict[str, str] = {}
    for rule in ("default", *definition.split_variants):
        corpus = load_corpus(definition, home, splits=rule)
        clips |= {clip: one for clip, one in corpus.clips.items() if clip not in clips}
        aliases |= corpus.aliases
    return clips, aliases


def read_source(choice: CaptionSource, files: dict[str, Path], name: str) -> Source:
    """Read one caption source of data set `name`, after checking that its files have the roles of its format."""
    known = FORMATS[
        "own" if choice.format == "auto" else choice.format
    ]  # which takes the files of any layout of one's own
    roles = frozenset(files)
    if roles - known.optional not in known.roles:
        allowed = " | ".join(", ".join(sorted(option)) for option in known.roles)
        extra = f" (may be added: {', '.join(sorted(known.optional))})" if known.optional else ""
        raise BenchError(
            f"data set {name}: format {choice.format} has files {', '.join(sorted(roles)) or 'none'}; "
            f"it takes {allowed}{extra}"
        )
    source = read(choice.format, files, choice.fields)
    if not source.captions:
        raise BenchError(f"data set {name}: no captions in {', '.join(map(str, files.values()))}")
    return source


def check_counts(
    definition: DatasetDefinition, choice: CaptionSource, source: Source, names: Names, home: Home
) -> None:
    """Compare the clips and captions as published with the declared counts, over the whole source.

    A key of `counts` is a split of the default rule, `official:<part>` for a part that the files declare, or `all`.
    Raises one BenchError that lists every difference.
    """
    if not choice.counts:
        return
    found: dict[str, Sequence[str]] = {"all": _published(source)}
    found.update({OFFICIAL + part: ids for part, ids in source.parts.items()})
    if any(split in choice.counts for split in SPLITS) and not definition.splits.folds:
        found.update(split_clips(definition, definition.splits, source, names, names.ordered, home))
    wrong = []
    for key, expected in choice.counts.items():
        if key not in found:
            raise BenchError(
                f"data set {definition.name}: counts of {choice.format} name {key!r}, but there are {', '.join(found)}"
            )
        wrong += _differences(key, expected, found[key], source)
    if wrong:
        raise BenchError(
            f"data set {definition.name} ({choice.format}): {'; '.join(wrong)}. "
            f"Read from {', '.join(map(str, source.files))}: incomplete, or another release.{published(definition)}"
        )


def _published(source: Source) -> list[str]:
    """All clips that were published: those that are kept, with or without captions, and those dropped by a rule."""
    return list(dict.fromkeys((*source.clips, *source.published)))


def _differences(key: str, expected: Counts, ids: Sequence[str], source: Source) -> list[str]:
    """Sentences on one part whose clips or captions are not as many as published."""
    captions = sum(source.published[clip] for clip in ids)
    sentences = []
    for kind, want, have in (("clip", expected.clips, len(ids)), ("caption", expected.captions, captions)):
        if want is not None and want != have:
            off = f"{want - have:,} missing" if have < want else f"{have - want:,} too many"
            silent = [clip for clip in ids if not source.published[clip]]
            hint = f" (none at all for {named(silent)})" if silent and kind == "caption" else ""
            sentences.append(f"{key} has {many(have, kind)}, {want:,} were published: {off}{hint}")
    return sentences


def _subset(definition: DatasetDefinition, source: Source, names: Names, home: Home) -> list[str]:
    """The clips that `subset` of the definition leaves, in id order."""
    rule = definition.subset
    if rule is None:
        return names.ordered
    if rule.from_stream is not None:
        ids = set(_stream_clips(definition, rule.from_stream, source, home))
        if ids.isdisjoint(source.clips):
            raise BenchError(f"data set {definition.name}: no clip of stream {rule.from_stream} has captions")
        return [clip for clip in names.ordered if clip in ids]
    given = rule.ids
    if isinstance(given, str):
        wanted = read_list(definition.resolve(given, home))
    else:
        wanted = [name for entry in given or () for name in expand(entry)]
    kept, absent = names.clips(wanted)
    if absent:
        raise BenchError(
            f"data set {definition.name}: no captions for {many(len(absent), 'clip')} of its subset: {named(absent)}"
        )
    chosen = set(kept)
    return [clip for clip in names.ordered if clip in chosen]


def _stream_clips(definition: DatasetDefinition, stream: str, source: Source, home: Home) -> list[str]:
    """Ids of the clips that a stream's source holds, under the names of the captions."""
    if stream not in definition.streams:
        raise BenchError(
            f"data set {definition.name}: subset.from_stream names {stream!r}; "
            f"its streams are {', '.join(definition.streams) or 'none'}"
        )
    # Imported here: it needs h5py, which only data sets with this rule pay for.
    from bench.features.importers import source_ids

    ids = source_ids(definition, stream, home, source.clips)
    return [name if name in source.clips else source.aliases.get(name, name) for name in ids]


def _first_of_each(
    definition: DatasetDefinition, splits: dict[str, tuple[str, ...]], subset: Sequence[int]
) -> dict[str, tuple[str, ...]]:
    """The first clips of each split. Raises BenchError when a split has fewer than asked for."""
    if len(subset) != len(SPLITS) or min(subset) < 0:
        raise BenchError(f"subset is {list(subset)}: give three numbers for train, val and test, like 300/50/150")
    for split, size in zip(SPLITS, subset, strict=True):
        if size > len(splits[split]):
            raise BenchError(
                f"data set {definition.name}: subset asks for {size:,} clips of {split}, it has {len(splits[split]):,}"
            )
    return {split: splits[split][:size] for split, size in zip(SPLITS, subset, strict=True)}


def _assemble(
    definition: DatasetDefinition, source: Source, splits: dict[str, tuple[str, ...]], found: Sequence[Finding] = ()
) -> Corpus:
    """The corpus of the chosen clips, with what was `found` of the splits. Raises BenchError where a clip has no captions."""
    ids = dict.fromkeys(clip for split in SPLITS for clip in splits[split])
    silent = [clip for clip in ids if not source.captions[clip]]
    if silent:
        raise BenchError(
            f"data set {definition.name}: no captions for {many(len(silent), 'clip')}: {named(silent)}. "
            f"Leave them out of the split or add captions to {', '.join(map(str, source.files))}"
        )
    findings = [*source.findings, *found]
    captions = {clip: tuple(source.captions[clip]) for clip in ids}
    return Corpus(
        name=definition.name,
        clips={clip: source.clips[clip] for clip in ids},
        captions=captions,
        splits=splits,
        notes=tuple(finding.message for finding in findings),
        aliases={name: clip for name, clip in source.aliases.items() if clip in ids},
        findings=tuple(findings),
        seen=tuple(source.seen),
    )


def _split_findings(source: Source, splits: dict[str, tuple[str, ...]]) -> list[Finding]:
    """What a page that reports on these splits should say."""
    findings = [
        Finding("warning", f"empty split: {split} has no clips") for split in ("val", "test") if not splits[split]
    ]
    if splits["val"] and splits["val"] == splits["test"]:
        findings.append(Finding("warning", "selection on the reported split: val and test are the same clips"))
    owner = {source.clips[clip].video: "train" for clip in splits["train"]}
    shared = [clip for clip in dict.fromkeys((*splits["val"], *splits["test"])) if source.clips[clip].video in owner]
    if shared:
        message = f"shared videos: {many(len(shared), 'clip')} of val or test come from videos that train also uses"
        findings.append(Finding("warning", message, tuple(shared)))
    return findings
