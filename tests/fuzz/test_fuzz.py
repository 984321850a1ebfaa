"""Three thousand inputs of `make fuzz`, always the same."""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from meteor_jar import small_jar

from bench import BenchError
from bench.evaluation import meteor
from tests.fuzz import trial
from tests.fuzz.captions import CaptionSet, Judge, odd_set
from tests.fuzz.targets import Target, targets
from tests.fuzz.trial import apart, sound
from tests.fuzz.words import READERS, command_lines

FILES, SETS = 60, 100
# Inputs beyond the first that once ended in a traceback, by reader.
FOUND = [
    *(("captions.msvd_split", 800), ("published.yaml", 320), ("record.json", 593), ("record.json", 2067)),
    *(("curves.csv", 1207), ("figure.json", 317), ("checkpoint", 2108), ("video", 234)),
]
fixed = settings(
    max_examples=150, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Target]]:
    made = list(targets(tmp_path_factory.mktemp("sound")))
    gc.collect()
    gc.freeze()  # else what all tests before these have left is looked through once more at each of a hundred forks
    yield made
    gc.unfreeze()


def test_sound_files_are_read(readers: list[Target]) -> None:
    for target in readers:
        with sound(target) as paths:
            for path in paths:
                target.read(path)


def test_damaged_files_are_read_or_refused_in_a_sentence(readers: list[Target]) -> None:
    faults = {target.name: apart(target, range(FILES)).faults for target in readers}
    assert not {name: found for name, found in faults.items() if found}


def test_what_once_ended_in_a_traceback_is_refused(readers: list[Target]) -> None:
    by_name = {target.name: target for target in readers}
    for name, number in FOUND:
        assert apart(by_name[name], range(number, number + 1)).faults == {}


def test_what_waits_where_no_alarm_is_heard_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """C code that waits for a thread, as a decoder of videos can, hears no alarm, and takes no time of a processor."""

    def read(path: Path) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        time.sleep(1000)

    monkeypatch.setattr(trial, "WAITED", 1)
    found = apart(Target("deaf", "file", (b"some bytes",), read), range(2))
    assert (found.inputs, found.read, list(found.faults)) == (2, 0, ["the process ended with -9"])


@fixed
@given(command_lines)
def test_words_are_understood_or_refused_in_a_sentence(words: list[str]) -> None:
    for read in READERS.values():
        try:
            read(words)
        except BenchError as error:
            assert str(error).strip()


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    jar = small_jar(tmp_path_factory.mktemp("meteor") / "jar")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meteor, "find_jar", lambda *_: jar)
        made = Judge(jar)
        yield made
        made.close()


def test_odd_captions_score_as_by_pycocoevalcap(judge: Judge) -> None:
    wordless = CaptionSet(
        {"a": [""], "b": ["..."]}, {"a": "a dog", "b": ""}
    )  # its CIDEr is 0; pycocoevalcap's has no value
    assert judge.disagreements([*map(odd_set, range(SETS)), wordless]) == []
