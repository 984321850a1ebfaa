"""Tokenizers and vocabularies: what a method reads and may say."""

from __future__ import annotations

import pytest

from bench import BenchError
from bench.data import text as text_module
from bench.data.text import TOKENIZER_VERSIONS, build_vocabulary, tokenize, tokenize_all, unwritable
from bench.evaluation import ptb
from bench.method import SPECIAL


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A man isn't here.", ("a", "man", "isnt", "here")),
        ("  well-known,  $5 & more ", ("wellknown", "5", "more")),
        ("“Café” — l’été…", ("café", "lété")),
        ("हिन्दी में।", ("हिन्दी", "में")),  # marks above and below letters are no punctuation
        ("?!...", ()),
    ],
)
def test_strip(text: str, tokens: tuple[str, ...]) -> None:
    assert tokenize(text, "strip") == tokens


def test_strip_leaves_text_that_is_stripped_already() -> None:
    text = "a man is cutting a 2nd tree"
    assert " ".join(tokenize(text, "strip")) == text


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # Treebank conventions: the clitic n't and the possessive 's are tokens, hyphens stay inside words.
        ("A man isn't here.", ("a", "man", "is", "n't", "here")),
        ("The well-known dog's (big) bone!", ("the", "well-known", "dog", "'s", "big", "bone")),
        ("...", ()),
    ],
)
def test_treebank_drops_tokens_of_punctuation_alone(text: str, tokens: tuple[str, ...]) -> None:
    assert tokenize(text, "treebank") == tokens


def test_ptb_gives_the_tokens_that_are_scored() -> None:
    texts = ["A man isn't here.", "?", "two\u2028lines"]
    assert tokenize_all(texts, "ptb") == [("a", "man", "is", "n't", "here"), (), ("two", "lines")]


def test_many_texts_keep_their_order() -> None:
    assert tokenize_all(["One.", "", "Two!"], "strip") == [("one",), (), ("two",)]


def test_an_unknown_tokenizer_names_the_known_ones() -> None:
    with pytest.raises(BenchError, match="strip, ptb, treebank"):
        tokenize("a", "spacy")
    assert set(TOKENIZER_VERSIONS) == {"strip", "ptb", "treebank"}


def test_vocabulary_is_ordered_by_count_then_spelling_and_cut_by_count() -> None:
    captions = [("b", "a", "c"), ("b", "a"), ("b", "d")]
    assert build_vocabulary(captions, 1).words == (*SPECIAL, "b", "a", "c", "d")
    assert build_vocabulary(captions, 2).words == (*SPECIAL, "b", "a")
    assert build_vocabulary(reversed(captions), 1).digest == build_vocabulary(captions, 1).digest


def test_captions_that_spell_a_mark_do_not_take_its_id() -> None:
    vocabulary = build_vocabulary([("<unk>", "x", "<eos>")], 1)
    assert vocabulary.words == (*SPECIAL, "x")


def test_a_vocabulary_without_words_is_an_error() -> None:
    with pytest.raises(BenchError, match=r"comes 9 times \(different words in all: 1\).*min_count"):
        build_vocabulary([("a", "a")], 9)


def test_captions_of_punctuation_alone_are_told_as_such() -> None:
    with pytest.raises(BenchError, match="hold no word, only punctuation"):
        build_vocabulary([(), ()], 1)


def test_what_cannot_be_written_is_counted_over_all_texts_however_many_are_taken_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = ["a red_car drives", "a dog sits", "red_car", "dog"]
    monkeypatch.setattr(text_module, "AT_ONCE", 3)  # the last piece has another length
    found = unwritable(texts, "strip", ptb.tokenize)
    assert (found.tokens, found.of, found.examples) == (2, 8, ("red_car",))
