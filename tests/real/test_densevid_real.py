"""densevid's rules on real events of ActivityNet Captions, the two validation files together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from oracles import densevid as oracle
from pycocoevalcap.meteor import meteor

from bench.data.corpus import read_source
from bench.declare.registry import dataset
from bench.evaluation.densevid import Event, pair
from bench.evaluation.java import find_jar
from bench.evaluation.meteor import JAR
from bench.evaluation.scorer import Scorer
from bench.home import Home

pytestmark = pytest.mark.real
EVERY = 50  # one video of this many: 99 of the 4,917
ODD = 6  # and so many each of those that only val_1 annotates and of those with characters beyond ASCII

Videos = dict[str, list[oracle.Timed]]


def read(path: Path) -> Videos:
    content = json.loads(path.read_text(encoding="utf-8"))
    return {
        video: [(start, end, text) for (start, end), text in zip(entry["timestamps"], entry["sentences"], strict=True)]
        for video, entry in content.items()
    }


def test_scores_equal_the_loops(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every event is captioned with what was said of the next one of its video, so that some words are right.

    Both METEORs read the same few paraphrases: the rules for events are the point here, those of METEOR in test_metrics_real.
    """
    monkeypatch.setattr(meteor, "__file__", str(find_jar(*JAR)))
    val_1, val_2 = (read(real_data / "activitynet" / f"{name}.json") for name in ("val_1", "val_2"))
    odd = [video for video, events in val_1.items() if not "".join(text for _, _, text in events).isascii()]
    alone = [video for video in val_1 if video not in val_2]
    videos = dict.fromkeys([*list(val_1)[::EVERY], *odd[:ODD], *alone[:ODD]])
    files = [{video: file[video] for video in videos if video in file} for file in (val_1, val_2)]
    said: Videos = {}
    for video, events in files[0].items():
        turned = [*events[1:], events[0]]
        said[video] = [(start, end, text) for (start, end, _), (_, _, text) in zip(events, turned, strict=True)]
    assert len(videos) > 100 and len(files[1]) < len(files[0])

    with Scorer() as scorer:
        found = scorer.score_events(
            [Event(video, *timed) for video, events in said.items() for timed in events],
            [Event(video, *timed) for file in files for video, events in file.items() for timed in events],
        )
    for threshold, expected in oracle.evaluate(said, files, meteor.Meteor()).items():
        assert found.at_threshold[threshold] == pytest.approx(expected, abs=1e-12), threshold
    assert found.at_threshold[0.3]["rouge_l"] != found.at_threshold[0.9]["rouge_l"]
    assert found.videos == len(videos)


def test_repaired_times_pair_the_same_events(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader cuts events at the end of their video; densevid_eval takes them as they are. Nothing else is paired."""
    monkeypatch.setenv("BENCH_DATA", str(real_data))
    files = [read(real_data / "activitynet" / f"{name}.json") for name in ("val_1", "val_2")]
    raw = [[Event(video, *timed) for video, events in file.items() for timed in events] for file in files]
    choice, paths = dataset("activitynet").caption_source(Home(real_data))
    source = read_source(choice, paths, "activitynet")
    repaired = [
        [Event(clip.video, clip.start or 0.0, clip.end or 0.0, "") for clip in map(source.clips.__getitem__, part)]
        for part in (source.parts["val_1"], source.parts["val_2"])
    ]
    assert [len(part) for part in raw] == [len(part) for part in repaired] == [17_505, 17_031]
    changed = sum(one[:3] != other[:3] for one, other in zip(raw[0], repaired[0], strict=True))
    assert changed > 100
    assert pair(repaired[0], repaired[0] + repaired[1]) == pair(raw[0], raw[0] + raw[1])
