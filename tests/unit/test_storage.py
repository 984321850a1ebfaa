"""Where searches keep their state: a shared folder, a URL, and a bucket of a real S3 server on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import BenchError
from bench.run.cluster import NodeAnswer
from bench.tuning.storage import ResumeStates, check, place, refuse, sees


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of one node."""
    monkeypatch.setattr("bench.run.cluster.ask_nodes", lambda *words: [])


def resumed(copies: ResumeStates, folder: Path) -> bytes | None:
    """What a trial on a fresh machine gets."""
    folder.mkdir()
    return (folder / "resume.pt").read_bytes() if copies.fetch("key", folder / "resume.pt") else None


@pytest.mark.parametrize("kind", ["path", "file", "s3"])
def test_states_outlive_their_machine(kind: str, tmp_path: Path, request: pytest.FixtureRequest, alone: None) -> None:
    where = {"path": str(tmp_path / "shared"), "file": (tmp_path / "shared").as_uri()}.get(kind)
    if where is None:  # other tests keep searches in the bucket's folder `runs`
        where = request.getfixturevalue("bucket").replace("/runs?", "/states?")
    check(where)
    copies, state = ResumeStates(where, "search"), tmp_path / "resume.pt"
    assert resumed(copies, tmp_path / "first") is None
    for content in (b"one" * 1000, b"two" * 500_000):
        state.write_bytes(content)
        copies.save("key", state)
    assert resumed(copies, tmp_path / "second") == content
    assert resumed(ResumeStates(where, "another search"), tmp_path / "third") is None
    copies.remove("key")
    copies.remove("key")
    assert resumed(copies, tmp_path / "fourth") is None
    files, path = place(where)
    from pyarrow.fs import FileSelector

    left = [one.path for one in files.get_file_info(FileSelector(path, recursive=True)) if one.is_file]
    assert left == [], "neither marks nor halves are left"


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("runs/here", "storage=runs/here is neither an absolute path nor a URL"),
        ("~/runs", "is neither an absolute path nor a URL"),
    ],
)
def test_a_place_that_nodes_would_each_take_for_another(where: str, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        refuse(where)


def test_what_cannot_be_written_is_a_sentence(tmp_path: Path, bucket: str, alone: None) -> None:
    (tmp_path / "file").write_text("")
    for where, says in (
        ("gopher://host/runs", "storage=gopher://host/runs cannot be used"),
        (str(tmp_path / "file" / "runs"), "cannot be written"),
        (
            bucket.replace("shared/runs", "nobodys/runs"),
            r"storage=s3://nobodys/runs.* cannot be written .*make the folder or bucket",
        ),
    ):
        with pytest.raises(BenchError, match=says) as told:
            check(where)
        assert "\n" not in str(told.value)


def test_a_folder_of_one_machine_alone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other node looks into a folder of its own, as one does that has no shared file system below the path."""

    def asked(question: Any, where: str, name: str) -> list[NodeAnswer[str]]:
        assert question is sees and sees(where, name) == ""
        other = sees(str(tmp_path / "elsewhere"), name)
        return [NodeAnswer("a", "10.0.0.1", sees(where, name)), NodeAnswer("b", "10.0.0.2", other)]

    monkeypatch.setattr("bench.run.cluster.ask_nodes", asked)
    with pytest.raises(
        BenchError, match=r"node 10\.0\.0\.2 does not see storage=.*/runs \(.*\): name storage that all"
    ):
        check(str(tmp_path / "runs"))
    assert list((tmp_path / "runs").iterdir()) == []
