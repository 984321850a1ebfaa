"""Which clips train, validate and test: the source's own split, committed lists, fractions, or the first by id."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench import BenchError
from bench.data.readers.content import CLIPS, open_content
from bench.data.readers.files import read_lines
from bench.data.source import Source
from bench.declare.dataset import DatasetDefinition, SplitRule
from bench.disk.limits import DIGITS
from bench.errors import many, named
from bench.features.names import natural
from bench.home import Home

SPLITS = ("train", "val", "test")
OFFICIAL = "official:"  # `official:val_1` in a list: the part that the caption files themselves call val_1
LONGEST_RANGE = 1_000_000  # more clips than any data set has: a slip of the finger, which would fill the memory
_RANGE = re.compile(r"(?P<name>.*?)(?P<first>\d+)\.\.(?P=name)(?P<last>\d+)")
Splits = dict[str, tuple[str, ...]]


def read_list(path: Path) -> list[str]:
    """Entries of a list file, one to a line; runs of numbers are spelt out, lines that start with # are comments.

    An entry is a clip id, a video (all its clips), a run `video0..video6512`, or `official:x`: the part x of the files. Of a
    table (.csv, .tsv) with a column of clips, such as those of MSR-VTT's retrieval split, each clip is an entry.
    """
    if not path.is_file():
        raise BenchError(f"the list {path} does not exist")
    if path.suffix.lower() in (".csv", ".tsv"):
        rows = open_content(path, "table").records
        column = next((name for name in CLIPS[:-1] if rows and name in rows[0][1]), None)
        if column is not None:
            return list(dict.fromkeys(str(row.get(column, "")) for _, row in rows))
    ids: list[str] = []
    for _, line in read_lines(path):
        line = line.strip()
        if not line.startswith("#"):
            ids.extend(expand(line))
    seen: set[str] = set()
    twice = [name for name in ids if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
    if twice:
        raise BenchError(f"{path} lists {many(len(twice), 'id')} more than once: {named(twice)}")
    return ids


def expand(entry: str) -> list[str]:
    """`video3..video5` -> [video3, video4, video5]; any other entry stands for itself."""
    found = _RANGE.fullmatch(entry)
    if not found:
        return [entry]
    if (digits := max(len(found["first"]), len(found["last"]))) > DIGITS:
        raise BenchError(f"the range {entry[:40]}.. has a number of {digits:,} digits: at most {DIGITS} are read")
    first, last = int(found["first"]), int(found["last"])
    if last < first:
        raise BenchError(f"the range {entry} ends before it begins")
    if last - first >= LONGEST_RANGE:
        raise BenchError(f"the range {entry} names {last - first + 1:,} ids: at most {LONGEST_RANGE:,} are allowed")
    return [f"{found['name']}{number}" for number in range(first, last + 1)]


class Names:
    """What lists may say: clip ids, other names of a clip, or a video, which stands for all of its clips.

    `ordered` holds all clips in id order.
    """

    def __init__(self, source: Source) -> None:
        self.ordered = sorted(source.clips, key=natural)
        self._source = source
        self._clips_of: dict[str, list[str]] = {}
        for clip in source.clips.values():
            self._clips_of.setdefault(clip.video, []).append(clip.id)
        dropped = source.published.keys() - source.clips.keys()
        # With the only event `video#k` of a video its name goes, too.
        self._dropped = dropped | {clip.partition("#")[0] for clip in dropped}

    def clips(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """(clip ids, names that the captions do not have). Clips that a named rule dropped are in neither."""
        ids: list[str] = []
        absent: list[str] = []
        for name in names:
            if name in self._source.clips:
                ids.append(name)
            elif name in self._source.aliases:
                ids.append(self._source.aliases[name])
            elif name in self._clips_of:
                ids.extend(self._clips_of[name])
            elif name not in self._dropped:
                absent.append(name)
        return ids, absent


def split_clips(
    definition: DatasetDefinition, rule: SplitRule, source: Source, names: Names, kept: Sequence[str], home: Home
) -> Splits:
    """Clip ids of train, val and test under one rule, in the order of `kept`: the clips that `subset` leaves, by id.

    Raises BenchError when a list names clips without captions, when splits overlap, when there are too few clips.
    """
    if rule.first is not None:
        splits = _first(definition, rule.first, kept)
    elif rule.fractions is not None:
        splits = _fractions(definition, rule.fractions, rule.seed, source, kept)
    elif rule.official:
        splits = in_order({split: source_part(definition, source, split) for split in SPLITS}, kept)
    else:
        splits = in_order(_lists(definition, rule.lists, source, names, home), kept)
    _refuse_overlap(definition, rule, splits)
    return splits


def _first(definition: DatasetDefinition, sizes: Sequence[int], kept: Sequence[str]) -> Splits:
    if sum(sizes) > len(kept):
        raise BenchError(
            f"data set {definition.name}: splits.first asks for {sum(sizes):,} clips ({list(sizes)}), "
            f"its captions have {many(len(kept), 'clip')}"
        )
    splits, start = {}, 0
    for split, size in zip(SPLITS, sizes, strict=True):
        splits[split] = tuple(kept[start : start + size])
        start += size
    return splits


def _fractions(
    definition: DatasetDefinition, fractions: Sequence[float], seed: int, source: Source, kept: Sequence[str]
) -> Splits:
    """Whole videos are dealt by the hash of seed and name, so clips of one video never part and order is no matter."""
    clips_of: dict[str, list[str]] = {}
    for clip in kept:
        clips_of.setdefault(source.clips[clip].video, []).append(clip)
    videos = sorted(clips_of, key=lambda video: hashlib.sha256(f"{seed}/{video}".encode()).digest())
    sizes = [0, round(fractions[1] * len(videos)), round(fractions[2] * len(videos))]
    sizes[0] = len(videos) - sizes[1] - sizes[2]
    dealt: dict[str, list[str]] = {}
    start = 0
    for split, size, fraction in zip(SPLITS, sizes, fractions, strict=True):
        if fraction > 0 and size < 1:
            raise BenchError(
                f"data set {definition.name}: {many(len(videos), 'video')} are too few for splits.fractions "
                f"{list(fractions)}: {split} would be empty"
            )
        dealt[split] = [clip for video in videos[start : start + size] for clip in clips_of[video]]
        start += size
    return in_order(dealt, kept)


def in_order(chosen: Mapping[str, Sequence[str]], kept: Sequence[str]) -> Splits:
    """The kept clips of each split, in the order of `kept`."""
    members = {split: set(chosen[split]) for split in SPLITS}
    return {split: tuple(clip for clip in kept if clip in members[split]) for split in SPLITS}


def _lists(
    definition: DatasetDefinition, files: Mapping[str, str], source: Source, names: Names, home: Home
) -> dict[str, list[str]]:
    """Splits from list files. A clip that any list names leaves the part of the source that another list takes."""
    chosen: dict[str, list[str]] = {}
    parts: dict[str, list[str]] = {}
    for split, file in files.items():
        path = definition.resolve(file, home)
        entries = read_list(path)
        parts[split] = [entry.removeprefix(OFFICIAL) for entry in entries if entry.startswith(OFFICIAL)]
        own = [entry for entry in entries if not entry.startswith(OFFICIAL)]
        chosen[split] = _named_clips(definition, split, path, own, source, names)
    listed = {clip for ids in chosen.values() for clip in ids}
    for split, wanted in parts.items():
        for part in wanted:
            chosen[split] += [clip for clip in source_part(definition, source, part) if clip not in listed]
    return chosen


def _named_clips(
    definition: DatasetDefinition, split: str, path: Path, entries: Sequence[str], source: Source, names: Names
) -> list[str]:
    """Clips that a list names one by one. Raises BenchError for names without captions and for clips named twice."""
    ids, absent = names.clips(entries)
    if absent:
        raise BenchError(
            f"data set {definition.name}: no captions for {many(len(absent), 'clip')} of split {split} ({path.name}): "
            f"{named(absent)}. {', '.join(map(str, source.files))} may be incomplete or another release."
            f"{published(definition)}"
        )
    if len(ids) != len(set(ids)):
        raise BenchError(f"{path} names {many(len(ids) - len(set(ids)), 'clip')} twice, under two names")
    return ids


def published(definition: DatasetDefinition) -> str:
    """The end of a sentence about wrong files: where the right ones are, and the command that checks them."""
    where = f" Published at: {definition.published_at}." if definition.published_at else ""
    return f"{where} Then: bench data check dataset={definition.called}"


def source_part(definition: DatasetDefinition, source: Source, part: str) -> list[str]:
    """Kept clips of a part that the caption files declare. Raises BenchError naming the parts there are."""
    if part not in source.parts:
        raise BenchError(
            f"data set {definition.name}: its captions declare no split {part!r} "
            f"(they declare: {', '.join(source.parts) or 'none'}); "
            "give `splits:` as lists, as fractions with a seed, or as the first by id"
        )
    return [clip for clip in source.parts[part] if clip in source.clips]


def _refuse_overlap(definition: DatasetDefinition, rule: SplitRule, splits: Splits) -> None:
    """No clip in two splits. Only a rule that gives val and test one and the same list may do so, which is said."""
    pairs = [("train", "val"), ("train", "test"), ("val", "test")]
    for one, other in pairs:
        shared = set(splits.get(one, ())) & set(splits.get(other, ()))
        same_entry = one == "val" and rule.lists.get("val") == rule.lists.get("test") and bool(rule.lists)
        if shared and not same_entry:
            raise BenchError(
                f"data set {definition.name}: its splits {one} and {other} share {many(len(shared), 'clip')}: "
                f"{named(sorted(shared, key=natural))}"
            )
