"""What `bench data check` looks at: everything that can be wrong with a data set before any model is trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from bench import BenchError
from bench.data.corpus import films_in, load_corpus
from bench.data.source import Corpus
from bench.data.text import NO_BLANKS, tokenize_all, unwritable, unwritable_warning, without_blanks
from bench.declare.card import wrong_axes
from bench.declare.dataset import DatasetDefinition
from bench.declare.settings import Text
from bench.errors import Finding, many, sizes
from bench.evaluation.java import ScoringUnavailable
from bench.evaluation.ptb import PtbCache
from bench.features.check import check_cache
from bench.features.sidecar import cache_path, read_sidecar
from bench.home import Home


@dataclass
class Checked:
    """What a data set is, in lines, and what is wrong with it: errors first."""

    facts: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, found: Iterable[Finding]) -> None:
        """Each message once: what is wrong with the files shows under every split rule."""
        known = {finding.message for finding in self.findings}
        self.findings += [finding for finding in found if finding.message not in known]
        self.findings.sort(key=lambda finding: finding.severity)  # errors first, else as they were found


def check_dataset(definition: DatasetDefinition, home: Home) -> Checked:
    """The captions, every split rule and every stream of a data set, features read whole.

    Errors are what `bench run` would stop at (files, counts, identifiers, splits, features that cannot be read or are of other
    clips); warnings are what it would say and go on (rules applied to odd entries, captions without words, captions that stand
    in train and test, streams whose source is absent, words that a model cannot write).
    """
    checked = Checked()
    corpora = {}
    for splits in ("default", *definition.split_variants):
        try:
            corpus = load_corpus(definition, home, splits=splits, fold=0)  # all folds are dealt to find one
        except BenchError as error:
            checked.add([Finding("error", str(error))])
            continue
        corpora[splits] = corpus
        sizes_of = ", ".join(f"{name} {len(ids):,}" for name, ids in corpus.splits.items())
        rule = "splits" if splits == "default" else f"splits={splits}"
        if folds := definition.split_rule(splits).folds:
            named = films_in({"dataset": definition.name, "dataset_path": str(definition.path), "splits": splits}, home)
            films = many(len({named[clip] for ids in corpus.splits.values() for clip in ids}), "film")
            checked.facts.append(f"{rule}: {folds} folds of whole films ({films}), the first with {sizes_of} clips")
        else:
            checked.facts.append(f"{rule}: {sizes_of} clips")
        checked.add([*corpus.findings, *_without_words(corpus), *_repeated(corpus)])
    if corpora:
        corpus = next(iter(corpora.values()))
        checked.facts[:0] = corpus.seen
        checked.facts.insert(0, f"{len(corpus.clips):,} clips, {sum(map(len, corpus.captions.values())):,} captions")
        _check_words(checked, corpus, home)
    clips = {clip for corpus in corpora.values() for clip in corpus.clips}
    for name in definition.streams:
        _check_stream(checked, definition, name, home, sorted(clips))
    return checked


def _check_words(checked: Checked, corpus: Corpus, home: Home) -> None:
    """Whether captions can be written with the usual training tokens."""
    texts = [caption.text for sentences in corpus.captions.values() for caption in sentences]
    if without_blanks(texts):
        checked.add([Finding("warning", NO_BLANKS)])
    scored = PtbCache(home.tokens).tokenize
    name = Text().tokenizer
    try:
        found = unwritable(texts, name, scored)
        warning = unwritable_warning(texts, name, scored, found)
    except ScoringUnavailable as error:
        checked.add([Finding("warning", f"words that cannot be written were not looked for: {error}")])
        return
    checked.facts.append(
        f"{100 * found.share:.2f} % of the reference tokens cannot be written with text.tokenizer={name}"
    )
    checked.add([Finding("warning", warning)] if warning else [])


def _without_words(corpus: Corpus) -> Iterable[Finding]:
    """Captions of punctuation alone: they would train a model to say nothing."""
    wordless = [
        clip
        for clip, sentences in corpus.captions.items()
        for words in tokenize_all([caption.text for caption in sentences], "strip")
        if not words
    ]
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
        yield Finding("warning", message, twins)


def _check_stream(checked: Checked, definition: DatasetDefinition, name: str, home: Home, clips: list[str]) -> None:
    """A stream as it lies in the cache, else in its source."""
    stream, cached = definition.streams[name], cache_path(home, definition.name, name)
    if cached.is_file():
        checked.add(check_cache(cached, () if definition.generated else clips))
        try:
            facts = read_sidecar(cached)
            checked.facts.append(f"stream {name}: {sizes(facts['shape'])} in the cache, {facts['clips']:,} clips")
            _check_axes(checked, name, facts["shape"])
        except BenchError:
            pass  # among the findings
        if stream.videos is not None:
            from bench.features.extraction import made_otherwise  # it imports torch, which takes seconds

            told = made_otherwise(definition, name, home)
            checked.add([Finding("warning", told)] if told else [])
        return
    if stream.place is None:
        what = "is rendered when a run asks for it" if definition.generated else "has no source in the definition"
        checked.facts.append(f"stream {name}: not in the cache; it {what}")
        return
    path = definition.resolve(stream.place, home)
    if not path.exists():
        message = f"stream {name}: {path} is absent; methods that need {name} cannot run until it is there"
        checked.add([Finding("warning", message)])
    elif stream.source is None:
        checked.facts.append(f"stream {name}: to be extracted from {path}")
    else:
        from bench.features.importers import check_source  # it imports torch, which takes seconds

        try:
            shape = check_source(definition, name, home, clips)
            checked.facts.append(f"stream {name}: {sizes(shape)} in {path}")
            _check_axes(checked, name, shape)
        except BenchError as error:
            checked.add([Finding("error", str(error))])


def _check_axes(checked: Checked, name: str, shape: Sequence[int]) -> None:
    if wrong := wrong_axes(name, shape):
        checked.add([Finding("error", f"no method can run: {wrong}")])
