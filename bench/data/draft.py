"""The first definition of somebody's corpus, from its captions and features; what was guessed stands in it as comments."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from bench import BenchError
from bench.data.readers import FORMATS, read, recognise
from bench.data.readers.content import open_content
from bench.data.source import Source
from bench.data.splits import SPLITS
from bench.declare.card import AXES, wrong_axes
from bench.errors import first_line, listing, many, sizes
from bench.features.footage import find_footage, videos_in
from bench.features.formats import SUFFIXES, open_source
from bench.features.formats import Source as Features
from bench.features.names import SHIFTS, by_name, by_shift, by_table, hint, match, natural, read_ids

LOOKED_AT = 32  # clips by which the sizes of a stream are told
FRAMES = 28  # kept of clips with more: what published settings of video captioning read
ENCODER = "clip:ViT-B-32"  # of videos: features of today that a processor makes in a moment
FEWEST = 6  # clips of a corpus that can be split into three
VALIDATION = 0.1  # of the training clips, where a corpus has no split of its own to validate on
NUMBERED = re.compile(r"vid\d+")  # MSVD's clips in its files of splits
Pairs = list[tuple[str, str]]
RARE = ((50_000, 5), (2_000, 2))  # captions of a corpus from which on words rarer than this are left out


@dataclass
class Draft:
    """A definition as text, lists of splits that it names, and sentences on what was guessed."""

    name: str
    lines: list[str] = field(default_factory=list)
    lists: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def guess(self, line: str, why: str) -> None:
        """A line of the definition with the reason beside it."""
        self.lines += [f"# {why}", line]
        self.said.append(why)

    @property
    def text(self) -> str:
        return "\n".join([f"name: {self.name}", *self.lines, ""])


def draft(name: str, captions: Mapping[str, Path], features: Mapping[str, Path], folder: Path) -> Draft:
    """The definition of a corpus, to lie in `folder`. `captions` are files by role, among them `mapping`, which names each clip
    twice; `features` are files or folders by stream. Under the empty name is one file of all captions, or features whose stream
    is to be guessed.

    Raises BenchError: unknown layouts, clips that have no features under any naming, too few clips.
    """
    found = Draft(name)
    roles = {role or "captions": path for role, path in captions.items()}
    source, pairs = _captions(found, roles, folder)
    clips = sorted((clip for clip in source.clips if source.captions[clip]), key=natural)
    kept = set(clips)
    partial = _streams(found, features, source, clips, pairs, folder)
    if partial:
        kept, rule, why = partial
    _split(found, source, kept)
    if partial:
        found.guess(f"subset: {_flow(rule)}", why)
    count = sum(len(source.captions[clip]) for clip in kept)
    rare = next((least for many_captions, least in RARE if count >= many_captions), 1)
    found.guess(
        f"text: {{tokenizer: strip, min_count: {rare}, max_words: 30}}",
        f"{count:,} captions of {many(len(kept), 'clip')}",
    )
    return found


def _captions(found: Draft, roles: dict[str, Path], folder: Path) -> tuple[Source, Pairs]:
    """The captions by what their first file looks like; its layout is written down, so that nothing is guessed later. And two
    names of each clip that has them."""
    mapping = roles.pop("mapping", None)
    contents = {role: open_content(path) for role, path in roles.items()}
    layout, looks, fields = recognise(next(iter(contents.values())))
    named_fields = fields.named if fields else {}
    source = read(layout, roles, named_fields if layout == "auto" else {})  # type: ignore[arg-type]
    near = mapping or _mapping_near(roles, source)
    if (
        near is not None
        and layout == "auto"
        and set(roles) == set(SPLITS)
        and all(map(NUMBERED.fullmatch, source.clips))
    ):
        layout, looks = "msvd_split", "MSVD's files of splits"
    if near is not None and layout in FORMATS and "mapping" in FORMATS[layout].optional:
        roles = {**roles, "mapping": near}
        source = read(layout, roles, {})
    lines = [f"captions:\n  - files: {_flow({role: _beside(path, folder) for role, path in roles.items()})}"]
    if layout == "auto":
        lines.append(f"    fields: {_flow(named_fields)}")
    elif frozenset(roles) - FORMATS[layout].optional in FORMATS[layout].roles:
        lines.append(f"    format: {layout}")
    why = " ".join(source.seen) or f"{listing(path.name for path in roles.values())}: {looks}"
    found.guess("\n".join(lines), why)
    if near is not None and mapping is None:
        found.said.append(f"{near.name}, beside the captions, names each clip twice")
    pairs = [
        pair for pair in source.aliases.items() if not re.search(r"[\s,]", "".join(pair))
    ]  # as files of ids part them
    return source, pairs or ([] if near is None else _pairs(near))


def _mapping_near(roles: Mapping[str, Path], source: Source) -> Path | None:
    """A file beside the captions, called a mapping, that names their clips and something else in each line."""
    folders = dict.fromkeys(path.parent for path in roles.values() if path.is_file())
    for path in (
        one for folder in folders for one in sorted(folder.glob("*mapping*.txt")) if one not in roles.values()
    ):
        try:
            known = {name for pair in _pairs(path) for name in pair}
        except BenchError:
            continue
        if known & source.clips.keys():
            return path
    return None


def _pairs(path: Path) -> Pairs:
    """Two names of each clip. Raises BenchError where the lines of the file are no pairs."""
    rows = read_ids(path)
    if len(rows[0]) != 2:
        raise BenchError(f"{path} must have two names of one clip in each line")
    return [(row[0], row[1]) for row in rows]


def _split(found: Draft, source: Source, kept: set[str]) -> None:
    """The corpus's own split where it has one, with clips of train put aside to validate on where it has none for that."""
    if len(kept) < FEWEST:
        raise BenchError(
            f"{many(len(kept), 'clip')} with captions and features are too few to train, validate and test: {FEWEST} are"
        )
    parts = {part: [clip for clip in ids if clip in kept] for part, ids in source.parts.items()}
    if all(parts.get(split) for split in SPLITS):
        sizes_of = ", ".join(f"{split} {len(parts[split]):,}" for split in SPLITS)
        found.guess("splits: official", f"the split that the captions declare: {sizes_of}")
        return
    test = next((part for part in ("test", "val") if parts.get(part)), None)
    if not parts.get("train") or test is None:
        found.guess(
            "splits: {fractions: [0.8, 0.1, 0.1], seed: 0}",
            f"{'no split is declared' if not source.parts else 'of the declared split too little is left'}: "
            "80, 10 and 10 % of the videos, by a seed",
        )
        return
    dealt = sorted(parts["train"], key=lambda clip: hashlib.sha256(clip.encode()).digest())
    aside = sorted(dealt[: max(1, round(VALIDATION * len(dealt)))], key=natural)
    found.lists |= {
        "train": "official:train\n",
        "val": "".join(f"{clip}\n" for clip in aside),
        "test": f"official:{test}\n",
    }
    names = _flow({split: f"{found.name}_{split}.txt" for split in SPLITS})
    why = f"the captions declare train and {test}; {many(len(aside), 'clip')} of train are put aside to validate on"
    found.guess(f"splits: {names}", why)


def _streams(
    found: Draft, features: Mapping[str, Path], source: Source, clips: list[str], pairs: Pairs, folder: Path
) -> tuple[set[str], dict[str, str], str] | None:
    """The streams. Where clips lack one: those that have it, the `subset` that leaves the others out, and why."""
    found.lines.append("streams:")
    partial = None
    kept = set(clips)
    for stream, path in _places(features):
        of_videos = _of_videos(path)
        if of_videos:
            stream, there = stream or "frames", _from_videos(found, stream or "frames", path, source, clips, folder)
        else:
            stream, there = _from_features(found, stream, path, clips, pairs, folder)
        if len(there) < len(kept):
            kept, rule = there, {"from_stream": stream}
            if of_videos:  # before they are extracted no stream tells which clips it has
                rule = {"ids": f"{found.name}_clips.txt"}
                found.lists["clips"] = "".join(f"{clip}\n" for clip in clips if clip in there)
            partial = there, rule, f"{len(there):,} of {len(clips):,} clips have {stream}: the others are left out"
    return partial


def _from_features(
    found: Draft, stream: str, path: Path, clips: list[str], pairs: Pairs, folder: Path
) -> tuple[str, set[str]]:
    """A stream of features; returns its name and the clips that have them."""

    def known(names: Sequence[str]) -> int:
        return max(len(match(names, rule, clips)) for rule in (by_name(clips), by_table(pairs, names)))

    source = open_source(path, "auto", None, known)
    try:
        shapes = [_shape(source, number, path) for number in range(min(LOOKED_AT, len(source.names)))]
        names = [name for name in source.names if name is not None]
        rows, seen = len(source.names), source.description
    finally:
        source.close()
    if not shapes:
        raise BenchError(f"{path} holds no features")
    axes = max(shapes, key=len)
    stream = stream or _stream_of(path, axes)
    if wrong := wrong_axes(stream, axes):
        raise BenchError(f"{path}: {wrong}; name the stream that it is, such as features.motion={path}")
    entry: dict[str, str | int] = {"source": _beside(path, folder)}
    there = _there(found, entry, path, names, rows, clips, pairs)
    if stream in AXES and AXES[stream][0] == "frames" and max(shape[0] for shape in shapes) > FRAMES:
        entry["frames"] = FRAMES
    kept = f", {FRAMES} equally spaced frames of which are kept" if "frames" in entry else ""
    found.guess(f"  {stream}: {_flow(entry)}", f"{stream}: {seen}, a clip of {sizes(axes)}{kept}")
    return stream, there


def _shape(source: Features, number: int, path: Path) -> tuple[int, ...]:
    """Shape of one clip of features. Raises BenchError where it is damaged."""
    try:
        return source.shape(number)
    except (OSError, RuntimeError, ValueError) as error:
        clip = source.names[number] or f"clip {number}"
        raise BenchError(
            f"{path}: {clip} cannot be read ({first_line(error)}): mend it or take it out, then `bench init dataset` again"
        ) from error


def _of_videos(path: Path) -> bool:
    return path.is_dir() and not any(one.suffix in SUFFIXES for one in path.rglob("*")) and bool(videos_in(path))


def _from_videos(found: Draft, stream: str, path: Path, source: Source, clips: list[str], folder: Path) -> set[str]:
    """A stream that is made from videos; returns the clips that have one. Raises BenchError where none has."""
    if stream != "frames":
        raise BenchError(
            f"{path} holds videos, of which frames are made without being told how: declare {stream} in the definition, with "
            f"an encoder that makes it (docs/features.md)"
        )
    footage, absent = find_footage(path, {clip: source.clips[clip] for clip in clips}, source.aliases)
    if not footage:
        raise BenchError(
            f"{path} has a video of no clip of the captions: its videos are called like {videos_in(path)[0].name}, the clips "
            f"like {next(iter(absent))}. Rename them, or give MSVD's own files of captions with "
            f"captions.mapping=youtube_mapping.txt"
        )
    entry: dict[str, str | int] = {"videos": _beside(path, folder), "frames": FRAMES, "encoder": ENCODER}
    why = (
        f"{stream}: {path.name} holds videos; {FRAMES} frames of each go through {ENCODER}, whose weights are downloaded (or "
        f"weights: FILE.safetensors; other encoders: docs/features.md)"
    )
    found.guess(f"  {stream}: {_flow(entry)}", why)
    return set(footage)


def _there(
    found: Draft, entry: dict[str, str | int], path: Path, names: list[str], rows: int, clips: list[str], pairs: Pairs
) -> set[str]:
    """The clips that have features: by their names, moved by one, or under their other names, where that fits better. Raises
    BenchError where none fit."""
    if not names:
        if rows != len(clips):
            raise BenchError(
                f"{path} has {rows:,} rows without ids, the captions {many(len(clips), 'clip')}: no row can be told from another"
            )
        return set(clips)
    plain = set(match(names, by_name(clips), clips))
    for rule in SHIFTS:
        moved = set(match(names, by_shift(rule, clips), clips))
        if len(moved) == len(clips) > len(plain):
            entry["ids"] = rule
            return moved
    other = set(match(names, by_table(pairs, names), clips))
    if len(other) > len(plain):
        entry["ids"] = f"{found.name}_ids.txt"
        found.lists["ids"] = "".join(f"{one}\t{two}\n" for one, two in pairs)
        found.said.append(f"{path.name} goes by other names than the captions: {found.name}_ids.txt has both")
        return other
    if not plain:
        raise BenchError(
            f"{path} has features of no clip of the captions: {hint(names, clips)}; such a file may be given here, as "
            f"captions.mapping=FILE"
        )
    return plain


def _places(features: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """Streams with their places: each that was named, or each file or folder in a folder of streams."""
    for stream, path in features.items():
        if path.is_dir() and not stream:
            inside = [one for one in sorted(path.iterdir()) if _word(one) and (one.is_dir() or one.suffix in SUFFIXES)]
            if inside and len({_word(one) for one in inside}) == len(inside):
                yield from ((_word(one), one) for one in inside)
                continue
        yield stream, path


def _word(path: Path) -> str:
    """The stream that a file or folder is called by, if any."""
    return next((word for word in re.split(r"[^a-z]+", path.stem.lower()) if word in AXES), "")


def _stream_of(path: Path, axes: tuple[int, ...]) -> str:
    """The stream that features are, by their name, else by their axes."""
    return _word(path) or {3: "regions"}.get(len(axes), "frames")


def _beside(path: Path, folder: Path) -> str:
    """A path as the definition names it: relative where it lies below the definition's folder."""
    whole = path.resolve()
    return os.path.relpath(whole, folder.resolve()) if whole.is_relative_to(folder.resolve()) else str(whole)


def _flow(table: Mapping[str, str | int]) -> str:
    return yaml.safe_dump(
        dict(table), default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True
    ).strip()
