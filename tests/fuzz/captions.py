"""Odd sets of captions, scored by bench and by pycocoevalcap."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor import meteor as official_meteor
from pycocoevalcap.rouge.rouge import Rouge
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from bench.evaluation import scorer as scorer_module
from bench.evaluation.ptb import tokenize
from bench.evaluation.scorer import Scorer

WORDS = (
    *("a", "man", "is", "riding", "the", "horse", "dogs", "play", "woman", "slices", "an", "onion", "on", "and", "in"),
    *(
        "A",
        "MAN",
        "can't",
        "won't",
        "it's",
        "gonna",
        "U.S.",
        "Mr.",
        "e.g.",
        "3",
        "1/2",
        "10,000.5",
        "$5",
        "50%",
        "#tag",
        "@me",
    ),
    *(
        ".",
        ",",
        "!",
        "?",
        "...",
        "--",
        "-",
        ";",
        ":",
        "'",
        '"',
        "``",
        "''",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "&",
        "&amp;",
        "<b>",
        "/",
    ),
    *(
        "stand_behind",
        "well-known",
        "naïve",
        "Katze",
        "schläft",
        "猫",
        "🎬",
        "мир",
        "http://x.org/a?b=c",
        "a@b.org",
        "w" * 60,
    ),
)
TOLERANCE = {"meteor": 1e-12}
CLOSE = 1e-9


@dataclass(frozen=True)
class CaptionSet:
    """References and one caption for each clip."""

    references: dict[str, list[str]]
    captions: dict[str, str]


def odd_set(number: int) -> CaptionSet:
    """The `number`-th set: one to six clips, one to five references, captions of no words up to a hundred."""
    draw = random.Random(f"captions/{number}")
    words = draw.sample(WORDS, draw.randint(2, len(WORDS)))
    clips = [f"clip{one}" for one in range(draw.randint(1, 6))]
    references = {clip: [_caption(draw, words) for _ in range(draw.randint(1, 5))] for clip in clips}
    captions = {clip: _said(draw, words, references[clip]) for clip in clips}
    return CaptionSet(references, captions)


def _caption(draw: random.Random, words: Sequence[str]) -> str:
    length = draw.choice((0, 1, 1, 2, 3, 5, 8, 8, 12, 20, 100))
    gap = draw.choice((" ", " ", " ", "  ", ""))
    return gap.join(draw.choices(words, k=length)) + draw.choice(("", "", ".", " ", " ."))


def _said(draw: random.Random, words: Sequence[str], references: Sequence[str]) -> str:
    kind = draw.randrange(5)
    if kind == 0:
        return draw.choice(references)
    if kind == 1:
        return draw.choice(references).upper()
    if kind == 2:
        said = draw.choice(references).split()
        draw.shuffle(said)
        return " ".join(said)
    return _caption(draw, words)


class Judge:
    """Both programs, each with one METEOR process. `jar` is METEOR's; it must be the one that bench finds too."""

    def __init__(self, jar: Path) -> None:
        beside_the_jar = str(jar.with_name("meteor.py"))  # it looks for the jar beside itself
        with mock.patch.object(official_meteor, "__file__", beside_the_jar):
            self._official = official_meteor.Meteor()
        self._scorer = Scorer()

    def disagreements(self, sets: Sequence[CaptionSet]) -> list[tuple[int, str, float]]:
        """(number of the set, metric, how far apart) beyond what is allowed. Both sides' texts are tokenized in one call and in
        one order: whether a last `A.` keeps its full stop depends on the line after it."""
        references, captions = self._tokens(sets)
        every = iter(tokenize([text for one in sets for texts in one.references.values() for text in texts]))
        answers = iter(tokenize([one.captions[clip] for one in sets for clip in one.references]))

        found = []
        for number, one in enumerate(sets):
            here = {clip: references[number, clip] for clip in one.references}
            said = {clip: captions[number, clip] for clip in one.references}
            with (
                mock.patch.object(scorer_module, "tokenize", lambda texts, *_: [next(answers) for _ in texts]),
                mock.patch.object(self._scorer, "_references", None),
                mock.patch.object(self._scorer._tokens, "tokenize", lambda texts: [next(every) for _ in texts]),
            ):
                own = self._scorer.score(one.references, one.captions)
            for metric, values in self._expected(here, said).items():
                mine = [own.corpus[metric], *own.clips[metric].values()]
                apart = float(np.max(np.abs(np.subtract(mine, values))))
                if not apart <= TOLERANCE.get(metric, CLOSE):
                    found.append((number, metric, apart))
        return found

    def _tokens(self, sets: Sequence[CaptionSet]) -> tuple[dict, dict]:
        every: list[list[dict]] = [
            {(number, clip): [{"caption": text} for text in texts] for clip, texts in one.references.items()}
            for number, one in enumerate(sets)
        ]
        said = [
            {(number, clip): [{"caption": text}] for clip, text in one.captions.items()}
            for number, one in enumerate(sets)
        ]
        merged = [{key: value for one in kind for key, value in one.items()} for kind in (every, said)]
        references, captions = (PTBTokenizer().tokenize(kind) for kind in merged)
        return references, captions

    def _expected(
        self, references: Mapping[str, list[str]], captions: Mapping[str, list[str]]
    ) -> dict[str, list[float]]:
        """By metric the score of the corpus, then those of the clips; without a word in any reference, pycocoevalcap ends in a
        ValueError where CIDEr looks for the commonest n-gram, and CIDEr is to be 0."""
        found = {"cider": [0.0] * (1 + len(references))}
        scorers = {"rouge_l": Rouge(), "cider": Cider(), "meteor": self._official}
        if not any(text.split() for texts in references.values() for text in texts):
            del scorers["cider"]
        for metric, scorer in scorers.items():
            corpus, clips = scorer.compute_score(references, captions)
            found[metric] = [float(corpus), *map(float, clips)]
        corpus, clips = Bleu(4).compute_score(references, captions, verbose=0)
        return found | {f"bleu{n + 1}": [corpus[n], *clips[n]] for n in range(4)}

    def close(self) -> None:
        """End the processes."""
        self._scorer.close()
        self._official.meteor_p.kill()
        self._official.meteor_p.wait()
