"""The first definition of somebody's corpus, from its captions and features; what was guessed stands in it as comments."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from bench import BenchError
from bench.data.readers import FORMATS, read, recognise
from bench.data.readers.content import open_content
from bench.data.source import Source
from bench.data.splits import SPLITS, natural
from bench.declare.card import AXES, wrong_axes
from bench.errors import listing, many, named, sizes
from bench.features.footage import videos_in
from bench.features.formats import SUFFIXES, open_source
from bench.features.names import SHIFTS, by_name, by_shift, hint, match

LOOKED_AT = 32  # clips by which the sizes of a stream are told
FRAMES = 28  # kept of clips with more: what published settings of video captioning read
FEWEST = 6  # clips of a corpus that can be split into three
VALIDATION = 0.1  # of the training clips, where a corpus has no split of its own to validate on
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
    """The definition of a corpus, to lie in `folder`. `captions` are files by role, `features` files or folders by stream; under
    the empty name one of all captions, or features whose stream is to be guessed.

    Raises BenchError: unknown layouts, clips that have no features under any naming, too few clips.
    """
    found = Draft(name)
    roles = {role or "captions": path for role, path in captions.items()}
    source = _captions(found, roles, folder)
    clips = sorted((clip for clip in source.clips if source.captions[clip]), key=natural)
    partial = _streams(found, features, clips, folder)
    _split(found, source, partial[1] if partial else set(clips))
    if partial:
        stream, there = partial
        why = f"{len(there):,} of {len(clips):,} clips have {stream}: the others are left out"
        found.guess(f"subset: {{from_stream: {stream}}}", why)
    count = sum(map(len, source.captions.values()))
    rare = next((least for many_captions, least in RARE if count >= many_captions), 1)
    found.guess(
        f"text: {{tokenizer: strip, min_count: {rare}, max_words: 30}}",
        f"{count:,} captions of {many(len(clips), 'clip')}",
    )
    return found


def _captions(found: Draft, roles: Mapping[str, Path], folder: Path) -> Source:
    """The captions by what their first file looks like; its layout is written down, so that nothing is guessed later."""
    contents = {role: open_content(path) for role, path in roles.items()}
    layout, looks, fields = recognise(next(iter(contents.values())))
    named_fields = fields.named if fields else {}
    source = read(layout, roles, named_fields if layout == "auto" else {})  # type: ignore[arg-type]
    lines = [f"captions:\n  - files: {_flow({role: _beside(path, folder) for role, path in roles.items()})}"]
    if layout == "auto":
        lines.append(f"    fields: {_flow(named_fields)}")
    elif frozenset(roles) in FORMATS[layout].roles:
        lines.append(f"    format: {layout}")
    why = " ".join(source.seen) or f"{listing(path.name for path in roles.values())}: {looks}"
    found.guess("\n".join(lines), why)
    return source


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
    found.lists = {
        "train": "official:train\n",
        "val": "".join(f"{clip}\n" for clip in aside),
        "test": f"official:{test}\n",
    }
    names = _flow({split: f"{found.name}_{split}.txt" for split in SPLITS})
    why = f"the captions declare train and {test}; {many(len(aside), 'clip')} of train are put aside to validate on"
    found.guess(f"splits: {names}", why)


def _streams(found: Draft, features: Mapping[str, Path], clips: list[str], folder: Path) -> tuple[str, set[str]] | None:
    """The streams; returns one that lacks clips with those that it has, None where all clips have all streams."""
    found.lines.append("streams:")
    partial: tuple[str, set[str]] | None = None
    for stream, path in _places(features):
        source = open_source(path, "auto", None, lambda names: len(match(names, by_name(clips), clips)))
        try:
            shapes = [source.shape(number) for number in range(min(LOOKED_AT, len(source.names)))]
            names = [name for name in source.names if name is not None]
            seen = source.description
        finally:
            source.close()
        if not shapes:
            raise BenchError(f"{path} holds no features")
        axes = max(shapes, key=len)
        stream = stream or _stream_of(path, axes)
        if wrong := wrong_axes(stream, axes):
            raise BenchError(f"{path}: {wrong}; name the stream that it is, such as features.motion={path}")
        entry: dict[str, str | int] = {"source": _beside(path, folder)}
        there = _there(entry, path, names, len(source.names), clips)
        if stream in AXES and AXES[stream][0] == "frames" and max(shape[0] for shape in shapes) > FRAMES:
            entry["frames"] = FRAMES
        kept = f", {FRAMES} equally spaced frames of which are kept" if "frames" in entry else ""
        why = f"{stream}: {seen}, a clip of {sizes(axes)}{kept}"
        found.guess(f"  {stream}: {_flow(entry)}", why)
        if len(there) < len(clips) and (partial is None or len(there) < len(partial[1])):
            partial = stream, there
    return partial


def _there(entry: dict[str, str | int], path: Path, names: list[str], rows: int, clips: list[str]) -> set[str]:
    """The clips that have features, by their names, moved by one where that fits better; raises BenchError where none fit."""
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
    if not plain:
        raise BenchError(f"{path} has features of no clip of the captions: {hint(names, clips)}")
    return plain


def _places(features: Mapping[str, Path]) -> Iterator[tuple[str, Path]]:
    """Streams with their places: each that was named, or each file or folder in a folder of streams."""
    for stream, path in features.items():
        if path.is_dir() and not stream:
            inside = [one for one in sorted(path.iterdir()) if _word(one) and (one.is_dir() or one.suffix in SUFFIXES)]
            if inside and len({_word(one) for one in inside}) == len(inside):
                yield from ((_word(one), one) for one in inside)
                continue
            if not any(one.suffix in SUFFIXES for one in path.rglob("*")) and (videos := videos_in(path)):
                raise BenchError(
                    f"{path} holds videos ({named([one.name for one in videos], 2)}), not features: write the definition with "
                    f"streams: {{frames: {{videos: {path}, frames: {FRAMES}, encoder: mobilenetv2_100}}}} (datasets/README.md)"
                )
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
