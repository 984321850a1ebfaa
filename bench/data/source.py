"""What a reader of caption files hands on: clips and captions as published, before any split is chosen.

Rules that every format shares live here and are counted by name:

- `control characters`: line breaks, tabs and other control characters inside a caption become one space, byte order
  marks and invisible direction marks go. Both tools that score captions read one caption per line.
- `empty captions`: captions without a visible character are dropped.
- a clip or a caption id that comes twice is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench import BenchError
from bench.declare.dataset import Clip
from bench.disk.limits import LONGEST_CAPTION, check_name
from bench.errors import Finding, many, named


@dataclass
class Corpus:
    """Clips of all splits by id, their captions in file order, and the splits (ids in id order).

    `notes` says every rule that was applied and how often; `findings` says the same with clip ids. `aliases` maps other
    names of clips (MSVD's YouTube names) to ids. `seen` says what files of no declared layout were taken for.
    """

    name: str
    clips: dict[str, Clip]
    captions: dict[str, tuple[RawCaption, ...]]
    splits: dict[str, tuple[str, ...]]
    notes: tuple[str, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    seen: tuple[str, ...] = ()

    def find(self, name: str) -> str:
        """The id of a clip that is given by its id or by another of its names. Raises BenchError when unknown."""
        if name in self.clips:
            return name
        if name in self.aliases:
            return self.aliases[name]
        raise BenchError(f"data set {self.name} has no clip {name!r} (its ids look like {next(iter(self.clips), '-')})")


# C0 and C1 controls, the Unicode line and paragraph separators, and lone surrogates, which UTF-8 cannot carry.
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
# Byte order mark, zero-width space, word joiner, direction marks. Joiners U+200C/D stay: some scripts need them.
_INVISIBLE = re.compile(r"[\ufeff\u200b\u2060\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class RawCaption:
    """One caption as published (control characters cleaned). `id` is unique in its corpus and stable."""

    id: str
    clip: str
    text: str


def clean(text: str) -> str:
    """`text` with control characters as one space and invisible marks removed; everything else as published."""
    if text.isprintable():
        return text
    return _INVISIBLE.sub("", _BREAKS.sub(" ", text))


@dataclass
class Source:
    """Clips and captions of a source format, in file order.

    `parts` is the split that the files themselves declare (clip ids by name) and `part_of` its reverse, `published`
    counts the captions of every clip before anything was dropped, `aliases` maps other names of a clip to its id, `seen` says
    in a sentence for each file of records what was taken for what. `from_one` says that its clips are MSVD's, vid1 and on, which
    other files count from vid0.
    """

    files: tuple[Path, ...] = ()
    clips: dict[str, Clip] = field(default_factory=dict)
    captions: dict[str, list[RawCaption]] = field(default_factory=dict)
    parts: dict[str, list[str]] = field(default_factory=dict)
    part_of: dict[str, str | None] = field(default_factory=dict)
    published: Counter[str] = field(default_factory=Counter)
    aliases: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    from_one: bool = False
    _ids: set[str] = field(default_factory=set)
    _repeated: list[str] = field(default_factory=list)
    _cleaned: list[str] = field(default_factory=list)
    _empty: list[str] = field(default_factory=list)

    def add_clip(self, clip: Clip, part: str | None = None) -> None:
        """Add a clip, and to the part that its file declares. A repeated id is reported by `finish`."""
        try:
            check_name(clip.id)
        except ValueError as error:
            raise BenchError(f"{self._where()}: a clip cannot be called so: {error}") from None
        if clip.id in self.clips:
            self._repeated.append(clip.id)
            return
        self.clips[clip.id] = clip
        self.part_of[clip.id] = part
        self.captions[clip.id] = []
        if part is not None:
            self.parts.setdefault(part, []).append(clip.id)

    def add_caption(self, clip: str, text: object, sentence: str | None = None) -> None:
        """Add a caption of a known clip. Its id is the source's `sentence` id, or `clip#k` by position in the file."""
        if not isinstance(text, str):
            raise BenchError(f"a caption of clip {clip} in {self._where()} is {text!r}: a caption must be text")
        if len(text) > LONGEST_CAPTION:
            raise BenchError(
                f"a caption of clip {clip} in {self._where()} has {len(text):,} characters: at most {LONGEST_CAPTION:,} are read"
            )
        number = self.published[clip]
        self.published[clip] = number + 1
        caption = sentence if sentence is not None else f"{clip}#{number}"
        if caption in self._ids:
            self._repeated.append(caption)
            return
        self._ids.add(caption)
        cleaned = clean(text)
        if not cleaned or cleaned.isspace():
            self._empty.append(clip)
            return
        if cleaned is not text and cleaned != text:
            self._cleaned.append(clip)
        self.captions[clip].append(RawCaption(caption, clip, cleaned))

    def drop_clip(self, clip: str) -> None:
        """Take a clip out again; what was published of it stays counted."""
        self.clips.pop(clip)
        self.captions.pop(clip)

    def warn(self, message: str, clips: list[str]) -> None:
        """Note a rule that was applied to `clips`, once per clip."""
        self.findings.append(Finding("warning", message, tuple(dict.fromkeys(clips))))

    def finish(self) -> Source:
        """Refuse repeated ids and names that two clips go by, and note the shared rules; called once by every reader."""
        if self._repeated:
            ids = list(dict.fromkeys(self._repeated))
            raise BenchError(f"{self._where()}: {many(len(ids), 'id')} more than once: {named(ids)}")
        self.aliases = {name: clip for name, clip in self.aliases.items() if name != clip}
        crossed = [name for name in self.aliases if name in self.clips]
        if crossed:
            shown = named([f"{name} of {self.aliases[name]}" for name in crossed])
            raise BenchError(
                f"{self._where()}: {many(len(crossed), 'clip')} with an id that is another name of another clip ({shown}): a "
                "video or feature called so could be of either; give each clip an id that no file of another bears"
            )
        if self._cleaned:
            count = many(len(self._cleaned), "caption")
            self.warn(f"control characters: cleaned in {count}, each run became one space", self._cleaned)
        if self._empty:
            self.warn(f"empty captions: {many(len(self._empty), 'caption')} dropped", self._empty)
        return self

    def _where(self) -> str:
        return ", ".join(map(str, self.files)) or "the source"
