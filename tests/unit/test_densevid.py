"""densevid's rules against plain loops around pycocoevalcap, and what they do that scores of clips do not.

METEOR runs on the beginning of its paraphrase table on both sides here; the whole table is used in tests/real.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from meteor_jar import small_jar
from oracles import densevid as oracle
from pycocoevalcap.meteor import meteor as official_meteor

from bench import BenchError
from bench.evaluation import meteor
from bench.evaluation.densevid import THRESHOLDS, Event, EventScores, overlap, pair
from bench.evaluation.metrics import outdated
from bench.evaluation.scorer import Scorer

VAL_1 = {
    "v_a": [
        (0.0, 10.0, "A man is seen riding a horse."),
        (2.0, 10.5, "The man talks to the camera while he rides."),
        (9.0, 30.0, "A dog (brown) jumps in the café's pool!"),
    ],
    "v_b": [(0.0, 5.0, "Two girls dance.")],
    "v_c": [(1.0, 60.0, "someone slices an onion"), (1.0, 59.0, "someone slices an onion"), (58.0, 60.0, "the end")],
    "v_silent": [(0.0, 1.0, "nothing is said of this one")],
}
VAL_2 = {
    "v_a": [(0.0, 9.9, "a man rides a horse in a field"), (28.0, 30.0, "the dog swims")],
    "v_c": [(0.0, 60.0, "A woman is slicing an onion – quickly – in her kitchen.")],
}
SAID = {
    "v_a": [
        (0.0, 10.0, "a man is riding a horse"),
        (2.0, 10.5, "a man is riding a horse"),
        (9.0, 30.0, "un caf été"),
        (11.0, 12.0, "a dog far from every event"),
    ],
    "v_b": [(0.0, 5.0, "Two girls dance.")],
    "v_c": [(1.0, 60.0, "a woman slices an onion"), (1.0, 59.0, ""), (58.0, 60.0, "the end")],
}


def events(*files: oracle.Videos) -> list[Event]:
    return [Event(video, *timed) for file in files for video, found in file.items() for timed in found]


@pytest.fixture(scope="module")
def meteors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scorer, Any]]:
    jar = small_jar(tmp_path_factory.mktemp("meteor") / "jar")
    with pytest.MonkeyPatch.context() as patch, Scorer() as scorer:
        patch.setattr(meteor, "find_jar", lambda *_: jar)
        patch.setattr(official_meteor, "__file__", str(jar.with_name("meteor.py")))
        yield scorer, official_meteor.Meteor()


def check(found: EventScores, expected: dict[float, dict[str, float]]) -> None:
    assert tuple(found.at_threshold) == tuple(expected) == THRESHOLDS
    for threshold, scores in expected.items():
        assert found.at_threshold[threshold] == pytest.approx(scores, abs=1e-12), threshold
    assert found.corpus == pytest.approx(oracle.mean_over_thresholds(expected), abs=1e-12)


def test_scores_equal_the_loops(meteors: tuple[Scorer, Any]) -> None:
    scorer, official = meteors
    found = scorer.score_events(events(SAID), events(VAL_1, VAL_2))
    check(found, oracle.evaluate(SAID, [VAL_1, VAL_2], official))
    assert (found.videos, found.captions) == (4, 8)
    assert len({scores["cider"] for scores in found.at_threshold.values()}) > 1, "the thresholds matter here"


def test_random_events_equal_the_loops(meteors: tuple[Scorer, Any]) -> None:
    """Many overlaps, captions without any, videos in one file only, words that come often."""
    draw = random.Random(3)

    def videos(names: range) -> dict[str, list[oracle.Timed]]:
        made = {}
        for name in names:
            made[f"v{name}"] = []
            for _ in range(draw.randint(1, 5)):
                start, length = draw.uniform(0, 20), draw.uniform(1, 20)
                text = " ".join(draw.choices(("a", "man", "runs", "fast", "dog", "the", "in", "snow"), k=6))
                made[f"v{name}"].append((start, start + length, text))
        return made

    said, files = videos(range(8)), [videos(range(6)), videos(range(4, 10))]
    scorer, official = meteors
    check(scorer.score_events(events(said), events(*files)), oracle.evaluate(said, files, official))


def test_captions_meet_the_references_of_overlapping_events(meteors: tuple[Scorer, Any]) -> None:
    """Two events at one time with their captions changed over: clips score them apart, densevid's rules together."""
    scorer, _ = meteors
    reference = {"v": [(0.0, 10.0, "a cat sleeps on the sofa"), (0.0, 10.0, "two dogs run through deep snow")]}
    turned = {"v": [(0.0, 10.0, reference["v"][1][2]), (0.0, 10.0, reference["v"][0][2])]}
    found = scorer.score_events(events(turned), events(reference))
    assert found.corpus == scorer.score_events(events(reference), events(reference)).corpus
    assert found.corpus["rouge_l"] == pytest.approx(0.5, abs=0.05)  # right for one of its two references
    clips = scorer.score({"v#0": [reference["v"][0][2]], "v#1": [reference["v"][1][2]]}, {"v#0": "", "v#1": ""})
    assert clips.corpus["rouge_l"] == 0


def test_a_single_pair_has_no_cider_and_a_caption_without_match_earns_nothing(meteors: tuple[Scorer, Any]) -> None:
    scorer, _ = meteors
    alone = {"v": [(0.0, 5.0, "Two girls dance on stage.")]}
    assert scorer.score_events(events(alone), events(alone)).corpus["cider"] == 0
    far = {"v": [*alone["v"], (50.0, 60.0, "two girls dance on stage")]}
    punished = scorer.score_events(events(far), events(alone))
    assert punished.corpus["rouge_l"] == pytest.approx(0.5)
    assert 0 < punished.corpus["bleu1"] < 1
    silent = {**alone, "w": [(0.0, 1.0, "of this video nothing is said")]}
    assert scorer.score_events(events(alone), events(silent)).corpus["rouge_l"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [((0, 10), (0, 10), 1.0), ((0, 10), (5, 15), 1 / 3), ((0, 10), (10, 20), 0.0), ((0, 1), (8, 9), 0.0), ((3, 3), (3, 3), 0)],
)  # fmt: skip
def test_overlap(one: tuple[float, float], other: tuple[float, float], expected: float) -> None:
    assert overlap(Event("v", *one, ""), Event("v", *other, "")) == pytest.approx(expected, abs=1e-8)


def test_thresholds_hold_events_apart() -> None:
    pairs, groups = pair([Event("v", 0.0, 10.0, "x")], [Event("v", 0.0, 9.5, "y")])
    assert pairs == [(0, 0)]
    assert [groups[threshold]["v"] for threshold in THRESHOLDS] == [[0], [0], [0], [0]]
    # Nine tenths of ten seconds are less than 0.9 by the tiny number under the union: unmatched there, as in the loops.
    exact = (0.0, 9.0, "y")
    pairs, groups = pair([Event("v", 0.0, 10.0, "x")], [Event("v", *exact)])
    assert pairs == [(0, 0), (0, 1)]
    assert [groups[threshold]["v"] for threshold in THRESHOLDS] == [[0], [0], [0], [1]]
    assert oracle.intersection_over_union((0.0, 10.0, "x"), exact) < 0.9


def test_signatures_are_of_their_own(meteors: tuple[Scorer, Any]) -> None:
    scorer, _ = meteors
    found = scorer.score_events(events(SAID), events(VAL_1, VAL_2))
    signatures = found.signatures("val", ["val_1", "val_2"])
    assert set(signatures) == {f"densevid_{name}" for name in oracle.NAMES}
    assert signatures["densevid_cider"].startswith(
        "densevid CIDEr-D|impl:bench-1|tok:ptb-3.4.1|rules:densevid_eval-2018"
    )
    assert "|tiou:0.3,0.5,0.7,0.9|split:val|events:val_1+val_2|refs:" in signatures["densevid_cider"]
    assert signatures["densevid_meteor"].endswith("|videos:4|n:8|scale:100")
    turned = scorer.score_events(events(SAID), events(VAL_2, VAL_1))
    assert turned.signatures("val", ["val_1", "val_2"]) == signatures
    assert scorer.score_events(events(SAID), events(VAL_1)).references != found.references
    assert outdated(signatures) == []
    assert outdated({name: text.replace("-2018", "-2017") for name, text in signatures.items()}) == list(signatures)
    assert outdated({"densevid_meteor": signatures["densevid_meteor"].replace("meteor-1.5", "meteor-1.4")})
    assert outdated({"densevid_cider": signatures["densevid_cider"].replace("ptb-3.4.1", "ptb-3.4.0")})


def test_what_cannot_be_scored_is_a_sentence() -> None:
    one = [Event("v_a", 0, 1, "x")]
    with Scorer(java="/never/started") as scorer:
        with pytest.raises(BenchError, match="no reference events to score against"):
            scorer.score_events(one, [])
        with pytest.raises(BenchError, match="no captions to score"):
            scorer.score_events([], one)
        with pytest.raises(BenchError, match="1 videos have captions and no reference events: v_a"):
            scorer.score_events(one, [Event("v_b", 0, 1, "x")])
