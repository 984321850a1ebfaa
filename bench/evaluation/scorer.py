"""The scores of a split as papers report them: all metrics of the table, of PTB tokens.

Equal to pycocoevalcap 1.2 (its COCOEvalCap without SPICE), in its units: 0 to 1, CIDEr 0 to 10. Records hold these times 100,
the scale of the papers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from bench import BenchError
from bench.errors import named
from bench.evaluation import densevid
from bench.evaluation.java import ScoringUnavailable
from bench.evaluation.meteor import Meteor
from bench.evaluation.metrics import METRICS, PARTS, PTB, made_of
from bench.evaluation.ngrams import Floats
from bench.evaluation.ptb import PtbCache, tokenize
from bench.evaluation.statistics import Count, References, clip_scores, corpus_scores, counting

__all__ = ["Scorer", "Scores", "ScoringUnavailable", "digest"]

LONGEST = 80  # characters of a caption in a sentence


@dataclass(frozen=True)
class Scores:
    """Scores of one set of hypotheses; arrays and dicts go by `ids`, the order of the references.

    `corpus[metric]` and `clips[metric][clip]` in pycocoevalcap's units; `statistics` holds what adds up over clips, by part:
    `bleu` [n, 10] and `meteor` [n, 23]. `empty` names clips whose hypothesis has no token; `warnings` are sentences.
    """

    ids: tuple[str, ...]
    corpus: dict[str, float]
    clips: dict[str, dict[str, float]]
    statistics: dict[str, Floats]
    references: str
    empty: tuple[str, ...]
    warnings: tuple[str, ...]

    def signatures(self, split: str) -> dict[str, str]:
        """What each number of a record is, by metric: two scores may be compared where these are equal."""
        tail = f"tok:{PTB}|split:{split}|refs:{self.references[:12]}|n:{len(self.ids)}|scale:100"
        return {metric: f"{row.long}|impl:{row.version}|{tail}" for metric, row in METRICS.items()}


def digest(references: Mapping[str, Sequence[str]]) -> str:
    """SHA-256 of clip ids and their captions; the order of the clips does not matter."""
    lines = sorted(json.dumps([clip, list(captions)]) for clip, captions in references.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class Scorer:
    """Scores captions; keeps its METEOR process and the references' tokens and tables between calls.

    `java`: a runtime (default: `java.find_java`). `cache`: a folder for tokens of references, to be found by later runs.
    """

    def __init__(self, java: str | None = None, cache: Path | None = None) -> None:
        self._java = java
        self._meteor = Meteor(java)
        self._tokens = PtbCache(cache, java)
        self._references: tuple[str, References, dict[str, Count]] | None = None

    def score(self, references: Mapping[str, Sequence[str]], hypotheses: Mapping[str, str]) -> Scores:
        """Scores of one caption per clip, both sides as published (raw text).

        Raises BenchError naming clips that lack references or a hypothesis or have one too many, and ScoringUnavailable
        where Java is missing or fails. Empty hypotheses are scored (0) and named.
        """
        check(references, hypotheses)
        ids = tuple(references)
        read, counts = self._read(references)
        lines = tokenize([hypotheses[clip] for clip in ids], self._java)
        rows = {part: count(ids, lines) for part, count in counts.items()}
        by_clip = {
            metric: dict(zip(ids, scores, strict=True))
            for part in rows
            for metric, scores in zip(made_of(part), clip_scores(part, rows[part]).T.tolist(), strict=True)
        }
        empty = tuple(clip for clip, line in zip(ids, lines, strict=True) if not line.split())
        return Scores(
            ids=ids,
            corpus={
                metric: float(score)
                for part in rows
                for metric, score in zip(made_of(part), corpus_scores(part, rows[part]), strict=True)
            },
            clips=by_clip,
            statistics={part: rows[part] for part in rows if PARTS[part].columns},
            references=digest(references),
            empty=empty,
            warnings=_warnings(read, lines, empty),
        )

    def tokens(self, texts: Sequence[str]) -> list[str]:
        """The tokens that scores are counted on, a line for each text; kept like those of references."""
        return self._tokens.tokenize(texts)

    def score_events(
        self, captions: Sequence[densevid.Event], references: Sequence[densevid.Event]
    ) -> densevid.EventScores:
        """Scores of captioned events by densevid's rules, as `densevid.score`, with this scorer's METEOR process."""
        return densevid.score(captions, references, self._meteor, self._java)

    def _read(self, references: Mapping[str, Sequence[str]]) -> tuple[References, dict[str, Count]]:
        """References made ready for every part, once per set of them (the order of the clips counts here)."""
        key = hashlib.sha256(json.dumps([[clip, list(refs)] for clip, refs in references.items()]).encode()).hexdigest()
        if self._references is None or self._references[0] != key:
            lines = iter(self._tokens.tokenize([text for captions in references.values() for text in captions]))
            by_clip = {clip: [next(lines) for _ in captions] for clip, captions in references.items()}
            read = References(by_clip, self._meteor.statistics)
            self._references = (key, read, {part: counting(part).read(read) for part in PARTS})
        return self._references[1:]

    def close(self) -> None:
        """End the METEOR process."""
        self._meteor.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def check(references: Mapping[str, Sequence[str]], hypotheses: Mapping[str, str]) -> None:
    """Raise BenchError unless every clip has references and exactly one hypothesis, all of them text."""
    if not references:
        raise BenchError("there are no clips to score: the reference captions are empty")
    if bare := [clip for clip, captions in references.items() if not captions]:
        raise BenchError(f"{len(bare)} clips have no reference captions: {named(bare)}")
    if odd := [
        clip
        for clip, captions in references.items()
        if isinstance(captions, str) or not all(isinstance(caption, str) for caption in captions)
    ]:
        raise BenchError(f"the references of a clip are a list of texts, and those of {named(odd)} are not")
    if missing := [clip for clip in references if clip not in hypotheses]:
        raise BenchError(f"{len(missing)} of {len(references)} clips have no caption to score: {named(missing)}")
    if extra := [clip for clip in hypotheses if clip not in references]:
        raise BenchError(f"{len(extra)} captions belong to no clip of the references: {named(extra)}")
    if odd := [clip for clip, text in hypotheses.items() if not isinstance(text, str)]:
        raise BenchError(f"a caption to score is one text, and that of {named(odd)} is not")


def _warnings(references: References, lines: Sequence[str], empty: Sequence[str]) -> tuple[str, ...]:
    found = []
    clips = len(references.table.clips)
    if np.all(references.table.document_frequency == clips):
        found.append(
            "CIDEr is 0 by definition: its document frequencies need several clips with different references, "
            f"and there {'is 1 clip' if clips == 1 else f'are {clips} clips, all alike'}"
        )
    if empty:
        found.append(f"{len(empty)} of {clips} captions are empty and score 0: {named(empty)}")
    if len(lines) > 1 and len(set(lines)) == 1 and lines[0]:
        found.append(f"all {clips} captions are alike, whatever the clip: {lines[0][:LONGEST]!r}")
    return tuple(found)
