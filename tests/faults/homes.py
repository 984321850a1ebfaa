"""Small homes in which commands are disturbed, and what must be the same in them afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from films import film

from bench.conformance.workplace import write_corpus
from bench.home import data_folder

SMALL = ("model.width=12", "model.embedding=12", "train.epochs=2", "train.captions=16")
INLINE = (*SMALL, "executor=inline")
TRACED = r"Traceback \(most recent call last\)"
# What two undisturbed runs of one command do not have in common: times, memory, the state of the checkout.
TIMES = {"wait_seconds", "fit_seconds", "decode_seconds", "score_seconds", "reused_seconds", "captions_per_second"}
TIMES |= {"peak_memory_mb", "started", "finished", "git", "dirty", "seconds", "memory_mb", "time", "pid"}

# Files with names of their own each time, or whose names depend on times: what costs are drawn as.
APART = (".bench/mlartifacts/", ".bench/tune/ray/", ".bench/pictures/")
CACHES = (".bench/phases/", ".bench/tokens/")  # kept where there is room: without them work is done again


@dataclass(frozen=True)
class Scene:
    """A command and the home that it is given in. `stages` are parts of paths by the stage that writes there.

    `database`: whether MLflow's database is there before; making one takes seconds.
    """

    name: str
    words: tuple[str, ...]
    prepare: Callable[[Path], object]
    stages: dict[str, str]
    database: bool = True

    def make(self, home: Path, database: Path | None) -> None:
        """The home as it is before the command."""
        home.mkdir(parents=True)
        self.prepare(home)
        if self.database and database is not None:
            (home / ".bench").mkdir()
            shutil.copyfile(database, home / ".bench" / "mlflow.db")


CELL = {
    "training": "/work/curves.csv",
    "checkpoint write": "/work/resume.pt",
    "decoding": "/work/looks",
    "captions": "/predictions.jsonl",
    "weights": "/checkpoint.safetensors",
    "record": "/record.json",
    "scoring": "/clip_scores.csv",
    "tokens": "/tokens/",
    "pages": "leaderboards/",
    "MLflow": "mlflow.db",
    "artifacts": "/mlartifacts/",
    "locks": "/locks/",
    "anything": "",
}


def _rendered(home: Path) -> None:
    shapes = (data_folder("datasets") / "shapes" / "dataset.yaml").read_text(encoding="utf-8")
    text = re.sub(r"size: \[.*?\]", "size: [3, 2, 2]", shapes).replace("name: shapes", "name: few")
    (home / "dataset.yaml").write_text(text, encoding="utf-8")


def _imported(home: Path) -> None:
    write_corpus(home, ["frames"])


def _folded(home: Path) -> None:
    """Two folds of films with two clips each."""
    write_corpus(home, ["frames"])
    path = home / "dataset.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    lines = (home / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    clips = list(dict.fromkeys(row["clip"] for row in rows))
    rows = [{**row, "video": f"film{clips.index(row['clip']) // 2}"} for row in rows]
    (home / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path.write_text(yaml.safe_dump({**content, "splits": {"folds": 2, "validation": 3}}), encoding="utf-8")


def _filmed(home: Path) -> None:
    """Videos of which frames are extracted."""
    write_corpus(home, ["frames"])
    path = home / "dataset.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    clips = sorted(file.stem for file in (home / "frames").iterdir())
    shutil.rmtree(home / "frames")
    for number, clip in enumerate(clips):
        film(home / "videos" / f"{clip}.avi", 6 + number)
    content["streams"] = {"frames": {"videos": "videos", "frames": 4, "encoder": "shapes"}}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def _foreign(home: Path) -> None:
    """Captions that were made elsewhere."""
    write_corpus(home, ["frames"])
    clips = (home / "test.txt").read_text(encoding="utf-8").split()
    lines = [json.dumps({"clip": clip, "caption": f"a man sings {clip}"}) for clip in clips]
    (home / "made.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _run(methods: str, *more: str) -> tuple[str, ...]:
    return ("run", f"methods={methods}", "dataset=dataset.yaml", *more)


SCENES = {
    scene.name: scene
    for scene in (
        Scene("imported", _run("mplstm", *INLINE), _imported, {"import": "/cache/", **CELL}),
        Scene(
            "phased",
            _run("[recnet:global,recnet:local]", *INLINE, "model.attention=8"),
            _imported,
            {"shared phases": "/phases/", **CELL},
        ),
        Scene("rendered", _run("mplstm", *INLINE), _rendered, {"rendering": "/cache/"}),
        Scene("first", _run("mplstm", *INLINE), _imported, {"database": "mlflow.db"}, database=False),
        Scene(
            "folds",
            _run("mplstm", "seeds=[0,1]", *INLINE),
            _folded,
            {"folds": "/folds.csv", "row of folds": "/results/tiny/mplstm/", **CELL},
        ),
        Scene("extracted", _run("mplstm", *INLINE), _filmed, {"extraction": "/cache/"}),
        Scene(
            "evaluated",
            ("evaluate", "made.jsonl", "dataset=dataset.yaml", "as=made"),
            _foreign,
            {"record": "/record.json", "captions": "/predictions.jsonl", "pages": "leaderboards/", "anything": ""},
        ),
        Scene(
            "placed",
            _run("[mplstm,s2vt]", *SMALL),
            _imported,
            {"import": "/cache/", "checkpoint write": "/work/resume.pt", "record": "/record.json", "anything": ""},
        ),
        Scene(
            "tuned",
            (
                "tune",
                "methods=recnet:local",
                "dataset=dataset.yaml",
                "space.recnet.lambda=[0.1,0.3]",
                "model.attention=8",
                *SMALL,
            ),
            _imported,
            {"tuning": "/tuning/", "trials": "/tune/", "MLflow": "mlflow.db", "anything": ""},
        ),
    )
}


def picture(home: Path) -> dict[str, Any]:
    """All that must be the same after a disturbed command as after one that nothing disturbed: every file of the home but
    for what it cost, MLflow's runs, and which other files there are."""
    return {**_contents(home), "MLflow": tracked(home / ".bench" / "mlflow.db")}


def _contents(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(home.rglob("*")):
        name = path.relative_to(home).as_posix()
        if path.is_dir() or name.startswith(APART) or name.endswith("mlflow.db"):
            continue
        if "/external/" in name and path.name == "log.txt":  # a scoring that failed has it, and it stays for its reader
            continue
        found[re.sub(r"(?<=locks/)[0-9a-f]+", "*", name)] = _content(path, name)
    return found


def _content(path: Path, name: str) -> Any:
    if path.name == "record.json":
        return _timeless(json.loads(path.read_text(encoding="utf-8")))
    if path.suffix == ".json" and "tuning" in name:  # which of two trials trained a phase for both depends on times too
        search = _timeless(json.loads(path.read_text(encoding="utf-8")))
        reused = sum(trial.pop("reused_captions", None) or 0 for trial in search["trials"])
        return {**search, "reused": reused}
    if path.suffix == ".md" and "tuning" in name:  # without its last column, of seconds
        return digest(re.sub(r"\|[^|\n]*\|$", "|", path.read_text(encoding="utf-8"), flags=re.M).encode())
    if path.suffix == ".md":
        return digest(_page(path.read_text(encoding="utf-8")).encode())
    if path.name == "curves.csv":  # without the column of seconds
        lines = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
        return [line[:3] + line[4:] for line in lines if line[4] not in ("captions_per_second", "seconds")]
    if name.startswith(".bench/cache/") and path.suffix == ".json":  # times of its sources are elsewhere in it
        return json.loads(path.read_text(encoding="utf-8"))["fingerprint"]
    if path.suffix == ".safetensors":  # the order in its header is another each time
        content = path.read_bytes()
        return digest(content[8 + int.from_bytes(content[:8], "little") :])
    if path.suffix in (".jsonl", ".txt") or path.name in ("clip_scores.csv", "folds.csv"):
        return "log" if path.name == "log.txt" else digest(path.read_bytes())
    return "there"


def _timeless(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _timeless(value) for name, value in content.items() if name not in TIMES}
    return [_timeless(value) for value in content] if isinstance(content, list) else content


def _page(text: str) -> str:
    """A page without what its cells cost."""
    text = re.sub(r"^!\[[^\]]* against training time .*$", "", text, flags=re.M)
    return re.sub(r"^### Cost and records .*?(?=^#|^<|\Z)", "", text, flags=re.M | re.S)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tracked(database: Path) -> Any:
    """Names, states and last scores of MLflow's runs that are not deleted."""
    if not database.is_file():
        return None
    with contextlib.closing(sqlite3.connect(database)) as base:
        runs = base.execute("SELECT run_uuid, name, status FROM runs WHERE lifecycle_stage = 'active'").fetchall()
        values = base.execute("SELECT run_uuid, key, value, step FROM latest_metrics").fetchall()
        points = base.execute("SELECT run_uuid, key, value, step FROM metrics").fetchall()
    timeless = re.compile("second|memory|time|cost|speed", re.I)
    shown = Counter()
    for run, name, status in runs:
        last = sorted(row[1:] for row in values if row[0] == run and not timeless.search(row[1]))
        curve = sorted({row[1:] for row in points if row[0] == run and not timeless.search(row[1])})
        shown[digest(repr((name, status, last, curve)).encode())[:8] + f" {name} {status}"] += 1
    return dict(sorted(shown.items()))


def finished(home: Path) -> dict[str, str]:
    """Digest of the record of each cell that is done, by its folder."""
    found = {}
    for path in home.glob("results/*/*/*/record.json"):
        with contextlib.suppress(ValueError):  # a torn record would show in the picture
            if json.loads(path.read_text(encoding="utf-8"))["state"] == "done":
                found[str(path.parent.relative_to(home))] = digest(path.read_bytes())
    return found


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What of a picture is not as in another, in sentences."""
    told = [f"{name} is missing" for name in expected.keys() - found.keys() if not name.startswith(CACHES)]
    told += [f"{name} is a stray file" for name in found.keys() - expected.keys()]
    told += [
        f"{name} differs: {_apart(found[name], expected[name])}"
        for name in expected.keys() & found.keys()
        if found[name] != expected[name]
    ]
    return sorted(told)


def _apart(one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        names = [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
        return ", ".join(f"{name}: {_apart(one.get(name), other.get(name))}" for name in names)
    return f"{str(one)[:80]} instead of {str(other)[:80]}"


def torn(path: Path, draw: random.Random) -> None:
    """Cut the last line of a file somewhere within."""
    whole = path.read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(whole[: draw.randrange(start + 1, len(whole) - 1)])
