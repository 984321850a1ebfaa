"""From caption text to training tokens, and from training tokens to a vocabulary.

Tokenizers by name; each is a pure function of the text, and its version is part of a record's key:

- `strip`: lower case, punctuation removed (words on both sides of a hyphen join), split at white space. ASCII symbols
  count as punctuation, as in the published MSVD split files, which it leaves unchanged.
- `ptb`: the Penn Treebank tokenizer that the reported scores use, with its punctuation left out (needs Java).
- `treebank`: lower case, NLTK's TreebankWordTokenizer, tokens without a letter or digit dropped (EtENet).
"""

from __future__ import annotations

import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench import BenchError
from bench.method import SPECIAL, Vocabulary

Tokens = tuple[str, ...]
TOKENIZER_VERSIONS = {"strip": "strip-1", "ptb": "ptb-3.4.1", "treebank": "nltk-treebank-1"}


class _Punctuation(dict[int, int | None]):
    """Table for `str.translate` that maps punctuation to nothing, filled as characters are met."""

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        drop = character in string.punctuation or unicodedata.category(character).startswith("P")
        self[code] = None if drop else code
        return self[code]


_PUNCTUATION = _Punctuation()


def _strip(texts: Sequence[str]) -> list[Tokens]:
    return [tuple(text.lower().translate(_PUNCTUATION).split()) for text in texts]


def _treebank(texts: Sequence[str]) -> list[Tokens]:
    # Imported here: NLTK is slow to import and only this tokenizer needs it.
    from nltk.tokenize.treebank import TreebankWordTokenizer

    split = TreebankWordTokenizer().tokenize
    return [tuple(word for word in split(text.lower()) if any(map(str.isalnum, word))) for text in texts]


def _ptb(texts: Sequence[str]) -> list[Tokens]:
    # Imported here: it starts Java, which other tokenizers do not need.
    from bench.evaluation.ptb import tokenize as ptb

    return [tuple(line.split()) for line in ptb(list(texts))]


_TOKENIZERS: dict[str, Callable[[Sequence[str]], list[Tokens]]] = {"strip": _strip, "ptb": _ptb, "treebank": _treebank}


def tokenizer(name: str) -> Callable[[Sequence[str]], list[Tokens]]:
    """The tokenizer `name`: a function from texts to their tokens. Raises BenchError for an unknown name."""
    if name not in _TOKENIZERS:
        raise BenchError(f"text.tokenizer is {name!r}: choose one of {', '.join(_TOKENIZERS)}")
    return _TOKENIZERS[name]


def tokenize_all(texts: Sequence[str], name: str) -> list[Tokens]:
    """Tokens of every text, in order; a text of punctuation alone has none."""
    return tokenizer(name)(texts)


def tokenize(text: str, name: str) -> Tokens:
    """Tokens of one text. For many texts `tokenize_all` is far faster where the tokenizer runs in Java."""
    return tokenize_all([text], name)[0]


AT_ONCE = 50_000  # captions
MOST_UNWRITABLE = 0.01  # of the reference tokens, without a word about it
NO_BLANKS = (
    "the captions have no blanks between words, so that each of them is one word to tokenizers and metrics: separate their words "
    "by blanks first"
)
_SPACED_BY_NOTHING = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")


@dataclass(frozen=True)
class Unwritable:
    """Reference tokens that no caption of a model can hold: how many `of` how many, and the most frequent of them."""

    tokens: int
    of: int
    examples: tuple[str, ...]

    @property
    def share(self) -> float:
        return self.tokens / max(self.of, 1)


def unwritable(texts: Sequence[str], name: str, scored: Callable[[Sequence[str]], list[str]]) -> Unwritable:
    """What of the references `texts` a model that was trained on tokens of `name` can never write.

    `scored` gives the tokens that scores are counted on, a line for each text. A model joins training tokens by blanks: what
    no caption holds once it is written so, such as a_b of a tokenizer that makes ab of it, can never match.
    """
    written: list[str] = []
    for start in range(0, len(texts), AT_ONCE):  # tokens of all of them would take a kilobyte each
        written += (" ".join(tokens) for tokens in tokenize_all(texts[start : start + AT_ONCE], name))
    can = {word for line in scored(written) for word in line.split()}
    counts = Counter(word for line in scored(texts) for word in line.split())
    lost = {word: count for word, count in counts.items() if word not in can}
    most = sorted(lost, key=lambda word: (-lost[word], word))[:3]
    return Unwritable(sum(lost.values()), sum(counts.values()), tuple(most))


def unwritable_warning(
    texts: Sequence[str],
    name: str,
    scored: Callable[[Sequence[str]], list[str]],
    found: Unwritable | None = None,
) -> str | None:
    """The sentence on references of which more than `MOST_UNWRITABLE` cannot be written, with the tokenizer that can. `found`:
    what `unwritable` says, where it was asked before."""
    found = found or unwritable(texts, name, scored)
    if found.share <= MOST_UNWRITABLE:
        return None
    others = {other: unwritable(texts, other, scored).share for other in _TOKENIZERS if other != name}
    best = min(others, key=lambda other: others[other])
    remedy = f"; text.tokenizer={best} leaves {100 * others[best]:.1f} %" if others[best] < found.share else ""
    return (
        f"{100 * found.share:.1f} % of the reference tokens ({', '.join(found.examples)}) can never be written by a model that "
        f"is trained with text.tokenizer={name}, so that perfect captions lose points{remedy}"
    )


def without_blanks(texts: Iterable[str]) -> bool:
    """Whether most letters are of scripts that put no blanks between words, where no tokenizer here finds any."""
    counts = Counter(character for text in texts for character in text if character.isalpha())
    spaced = sum(n for letter, n in counts.items() if unicodedata.name(letter, "").startswith(_SPACED_BY_NOTHING))
    return 2 * spaced > counts.total()


def build_vocabulary(captions_tokens: Iterable[Sequence[str]], min_count: int) -> Vocabulary:
    """The words of the training captions that come at least `min_count` times, most frequent first, then by spelling.

    Give it the captions of the train split alone. Raises BenchError when no word comes often enough.
    """
    counts: Counter[str] = Counter()
    for tokens in captions_tokens:
        counts.update(tokens)
    for mark in SPECIAL:  # a caption may spell a mark out; its ids are taken
        counts.pop(mark, None)
    words = sorted(
        (word for word, count in counts.items() if count >= min_count), key=lambda word: (-counts[word], word)
    )
    if not words:
        if not counts:
            raise BenchError("the training captions hold no word, only punctuation: bench data check names the clips")
        raise BenchError(
            f"no word of the training captions comes {min_count} times "
            f"(different words in all: {len(counts):,}): lower text.min_count"
        )
    return Vocabulary((*SPECIAL, *words))
