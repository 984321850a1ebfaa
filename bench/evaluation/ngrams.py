"""Tables of n-grams: what CIDEr and BLEU need to know about references, as sorted arrays (numpy alone).

An n-gram of up to four words is one uint64: 16 bits per word, each holding id + 1, the first word lowest. So keys are exact
(no hashing, no collisions) and their size gives their order.

Letters: R references, P postings (distinct n-gram of one reference), G distinct n-grams, H hypotheses, C clips.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from bench import BenchError
from bench.errors import named

ORDERS = 4
LIMIT = 65_535  # id + 1 must fit in 16 bits, and 0 means "no word here"

Tokens = Sequence[Hashable]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class VocabularyTooLargeError(BenchError):
    """More distinct words than the packing of n-grams can hold."""


@dataclass(frozen=True)
class Sentences:
    """Token ids of many sentences, one after another: `ids` [all tokens], `lengths` [sentences]."""

    ids: Ints
    lengths: Ints

    @cached_property
    def starts(self) -> Ints:
        """Position of the first token of every sentence. Shape [sentences]."""
        return offsets(self.lengths)[:-1]

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True)
class Grams:
    """Distinct n-grams of sentences with their counts, sorted by (owner, gram); four arrays of one length.

    `owner` is the sentence, `gram` the number in the table's `keys` or -1 for one that no reference has, `order` 0..3.
    """

    owner: Ints
    gram: Ints
    order: Ints
    count: Ints


class Lexicon:
    """Numbers for words, learned from references."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def learn(self, sentences: Sequence[Tokens]) -> Sentences:
        """Ids of `sentences`; new words are added. Raises VocabularyTooLargeError."""
        numbers = self._numbers
        flat = [numbers.setdefault(word, len(numbers)) for word in chain.from_iterable(sentences)]
        check_vocabulary(len(numbers))
        return _sentences(flat, sentences)

    def look_up(self, sentences: Sequence[Tokens]) -> Sentences:
        """Ids of `sentences`, adding nothing. An unknown word gets an id above the lexicon that holds in its sentence only.

        So unknown words never match a reference, stay distinct within their sentence (its norm counts them) and memory does
        not grow over the hypotheses of a run. Raises VocabularyTooLargeError.
        """
        numbers, known = self._numbers, len(self._numbers)
        flat: list[int] = []
        for sentence in sentences:
            ids = [numbers.get(word, -1) for word in sentence]
            if -1 in ids:
                unknown: dict[Hashable, int] = {}
                ids = [
                    known + unknown.setdefault(word, len(unknown)) if number < 0 else number
                    for number, word in zip(ids, sentence, strict=True)
                ]
            flat += ids
        check_vocabulary(max(flat, default=-1) + 1)
        return _sentences(flat, sentences)


def _sentences(flat: list[int], sentences: Sequence[Tokens]) -> Sentences:
    lengths = np.fromiter(map(len, sentences), np.int64, len(sentences))
    return Sentences(np.asarray(flat, np.int64), lengths)


def check_vocabulary(size: int) -> None:
    """Raise VocabularyTooLargeError unless ids below `size` can be packed."""
    if size >= LIMIT:
        raise VocabularyTooLargeError(
            f"the captions hold {size:,} distinct words and the n-gram tables of CIDEr and BLEU at most {LIMIT - 1:,}: "
            "take fewer clips at a time, such as with subset=1000/100/300"
        )


def offsets(lengths: Ints) -> Ints:
    """Where runs of `lengths` begin when laid one after another, and where the last ends. Shape [n] -> [n + 1]."""
    total = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=total[1:])
    return total


def ranges(starts: Ints, lengths: Ints) -> tuple[Ints, Ints]:
    """Spell out runs: (`owner`, `position`) of every element of the runs `starts[i] .. starts[i] + lengths[i]`."""
    owner = np.repeat(np.arange(len(lengths)), lengths)
    first = offsets(lengths)[:-1]
    return owner, np.arange(len(owner)) + (starts - first)[owner]


def pack(sentences: Sentences) -> tuple[Ints, NDArray[np.uint64]]:
    """(`owner`, `key`) of every n-gram of one to four words, repeats included. Raises VocabularyTooLargeError."""
    check_vocabulary(int(sentences.ids.max(initial=-1)) + 1)
    words = sentences.ids.astype(np.uint64) + np.uint64(1)
    sentence, position = ranges(sentences.starts, sentences.lengths)
    room = (sentences.starts + sentences.lengths)[sentence] - position  # words from here to the end
    owners, keys, key = [], [], np.zeros(len(words), np.uint64)
    for n in range(ORDERS):
        fits = room > n
        key[fits] |= words[position[fits] + n] << np.uint64(16 * n)
        owners.append(sentence[fits])
        keys.append(key[fits])
    return np.concatenate(owners), np.concatenate(keys)


def orders(keys: NDArray[np.uint64]) -> Ints:
    """Number of words less one (0..3) of packed n-grams."""
    return sum(((keys >> np.uint64(16 * n)) > 0).astype(np.int64) for n in range(1, ORDERS))  # type: ignore[return-value]


def count(owner: Ints, key: NDArray[np.uint64]) -> tuple[Ints, Ints, Ints, NDArray[np.uint64]]:
    """Distinct (owner, key): owners, numbers into the sorted distinct keys, counts, and those keys."""
    keys, gram = np.unique(key, return_inverse=True)
    pair, counts = np.unique(owner * max(len(keys), 1) + gram.reshape(-1), return_counts=True)
    owners, grams = np.divmod(pair, max(len(keys), 1))
    return owners, grams, counts.astype(np.int64), keys


class ClipTable:
    """References of many clips and their n-grams.

    `clips` names in order; `sentences` all R references clip by clip; `clip` [R] the clip of each; `sizes` [C] references of
    a clip, `first` [C + 1] where they begin. N-grams are counted when they are first asked for.
    Raises BenchError naming clips that have no reference, and VocabularyTooLargeError.
    """

    def __init__(self, references: Mapping[str, Sequence[Tokens]]) -> None:
        empty = [clip for clip, captions in references.items() if not len(captions)]
        if empty or not references:
            raise BenchError(f"no reference captions for {named(empty)}" if empty else "no clips to score")
        self.clips = tuple(references)
        self.index = {clip: number for number, clip in enumerate(self.clips)}
        self.lexicon = Lexicon()
        self.sentences = self.lexicon.learn([caption for captions in references.values() for caption in captions])
        sizes = np.fromiter((len(captions) for captions in references.values()), np.int64, len(self.clips))
        self.first = offsets(sizes)
        self.sizes = sizes
        self.clip = np.repeat(np.arange(len(self.clips)), sizes)

    @cached_property
    def _counted(self) -> tuple[Ints, Ints, Ints, NDArray[np.uint64]]:
        return count(*pack(self.sentences))

    @property
    def keys(self) -> NDArray[np.uint64]:
        """Distinct n-grams of the references, packed and sorted. Shape [G]."""
        return self._counted[3]

    @cached_property
    def grams(self) -> Grams:
        """Postings of the references, sorted by (reference, gram). Length P."""
        owner, gram, counts, keys = self._counted
        return Grams(owner, gram, orders(keys)[gram], counts)

    @cached_property
    def by_clip(self) -> ByClip:
        """The postings in the order of (clip, gram, reference)."""
        code = self.clip[self.grams.owner] * len(self.keys) + self.grams.gram
        posting = np.argsort(code, kind="stable")
        pair, start = np.unique(code[posting], return_index=True)
        return ByClip(posting, pair, np.append(start, len(code)))

    @cached_property
    def document_frequency(self) -> Ints:
        """Number of clips whose references hold each n-gram. Shape [G]."""
        return np.bincount(self.by_clip.pair % max(len(self.keys), 1), minlength=len(self.keys))

    def numbers(self, clips: Sequence[str]) -> Ints:
        """Numbers of `clips`. Raises BenchError naming those without references."""
        unknown = [clip for clip in clips if clip not in self.index]
        if unknown:
            raise BenchError(f"captions for clips without references: {named(unknown)}")
        return np.fromiter((self.index[clip] for clip in clips), np.int64, len(clips))

    def read(self, hypotheses: Sequence[Tokens]) -> tuple[Sentences, Grams]:
        """Ids and n-grams of hypotheses, numbered as in this table."""
        sentences = self.lexicon.look_up(hypotheses)
        owner, local, counts, keys = count(*pack(sentences))
        number = np.searchsorted(self.keys, keys)
        known = (
            self.keys[np.minimum(number, len(self.keys) - 1)] == keys if len(self.keys) else np.zeros(len(keys), bool)
        )
        return sentences, Grams(owner, np.where(known, number, -1)[local], orders(keys)[local], counts)

    def match(self, grams: Grams, clip: Ints) -> tuple[Ints, Ints]:
        """Pairs of equal n-grams: (entry of `grams`, number in `by_clip.posting`), against all references of `clip[owner]`."""
        entry, pair = self.find(grams, clip)
        start = self.by_clip.start
        at, position = ranges(start[pair], start[pair + 1] - start[pair])
        return entry[at], position

    def find(self, grams: Grams, clip: Ints) -> tuple[Ints, Ints]:
        """(entry of `grams`, number in `by_clip.pair`) of the n-grams that some reference of `clip[owner]` holds."""
        pairs = self.by_clip.pair
        if not len(pairs):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        entry = np.flatnonzero(grams.gram >= 0)
        code = clip[grams.owner[entry]] * len(self.keys) + grams.gram[entry]
        pair = np.searchsorted(pairs, code)
        there = pairs[np.minimum(pair, len(pairs) - 1)] == code
        return entry[there], pair[there]


@dataclass(frozen=True)
class ByClip:
    """Postings grouped by (clip, n-gram): `posting` [P] orders them, group g is `posting[start[g]:start[g + 1]]`.

    `pair` holds clip * G + gram of every group, sorted.
    """

    posting: Ints
    pair: Ints
    start: Ints


def mean(scores: Floats) -> float:
    """Mean of clip scores; 0 of none."""
    return float(np.mean(scores)) if len(scores) else 0.0
