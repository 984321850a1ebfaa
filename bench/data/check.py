"""What `bench data check` looks at: everything that can be wrong with a data set before any model is trained."""

from __future__ import annotations

from collections.abc import Iterable

from bench import BenchError
from bench.data.corpus import load_corpus
from bench.data.source import Corpus
from bench.data.text import tokenize_all
from bench.declare.dataset import DatasetDefinition
from bench.errors import Finding, many
from bench.home import Home


def check_dataset(definition: DatasetDefinition, home: Home) -> list[Finding]:
    """Findings on the captions, every split rule and the stream files of a data set; an empty list is a clean one.

    Errors are what `bench run` would stop at (files, counts, identifiers, splits); warnings are what it would say
    and go on (rules applied to odd entries, captions without words, streams whose source is absent).
    """
    found: dict[str, Finding] = {}  # by message: what is wrong with the files shows under every split rule
    for splits in ("default", *definition.split_variants):
        for finding in _check_splits(definition, home, splits):
            found.setdefault(finding.message, finding)
    for finding in _check_streams(definition, home):
        found.setdefault(finding.message, finding)
    return sorted(found.values(), key=lambda finding: finding.severity)  # errors first, else as they were found


def _check_splits(definition: DatasetDefinition, home: Home, splits: str) -> list[Finding]:
    try:
        corpus = load_corpus(definition, home, splits=splits, fold=0)  # all folds are dealt to find one
    except BenchError as error:
        return [Finding("error", str(error))]
    return [*corpus.findings, *_without_words(corpus), *_repeated(corpus)]


def _without_words(corpus: Corpus) -> Iterable[Finding]:
    """Captions of punctuation alone: they would train a model to say nothing."""
    captions = [caption for sentences in corpus.captions.values() for caption in sentences]
    tokens = tokenize_all([caption.text for caption in captions], "strip")
    wordless = [caption.clip for caption, words in zip(captions, tokens, strict=True) if not words]
    if wordless:
        message = f"captions without words: {many(len(wordless), 'caption')} of nothing but punctuation"
        yield Finding("warning", message, tuple(dict.fromkeys(wordless)))


def _repeated(corpus: Corpus) -> Iterable[Finding]:
    """Test clips whose captions are, all of them, those of a training clip: the same clip under two ids."""
    texts = {clip: tuple(sorted(c.text for c in sentences)) for clip, sentences in corpus.captions.items()}
    trained = {texts[clip] for clip in corpus.splits["train"] if len(texts[clip]) > 1}
    twins = tuple(clip for clip in corpus.splits["test"] if texts[clip] in trained)
    if twins:
        message = f"test clips in train: {many(len(twins), 'clip')} with the very captions of a train clip"
        yield Finding("error", message, twins)


def _check_streams(definition: DatasetDefinition, home: Home) -> Iterable[Finding]:
    for name, stream in definition.streams.items():
        if stream.place is None:
            continue
        path = definition.resolve(stream.place, home)
        if not path.exists():
            yield Finding(
                "warning", f"stream {name}: {path} is absent; methods that need {name} cannot run until it is there"
            )
