"""`bench caption`: which videos, which trained method, and what is printed of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from bench import BenchError
from bench.declare.grammar import Value, check_keys, take_apart
from bench.declare.settings import Search, given
from bench.declare.validation import from_pydantic
from bench.home import Home
from bench.pages.markdown import clean

if TYPE_CHECKING:
    from bench.cell.captioner import VideoCaptioner
    from bench.method import Caption


STDIN = "-"
EXPLAINED = "explained"  # the folder of the pictures, where none is named
KEYS = ("checkpoint", "encoder", "weights", "alternatives", "explain")
SEARCH = tuple(f"search.{name}" for name in Search.model_fields if name != "clips")  # videos are decoded one by one
BY_STREAM = ("encoder.", "weights.")


@dataclass(frozen=True)
class Request:
    """What was asked for. `encoder` and `weights` are by stream, under the empty name for all; `search` holds what was named."""

    videos: list[str]
    checkpoint: str
    encoder: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    alternatives: int | None = None
    explain: Path | None = None
    search: dict[str, Any] = field(default_factory=dict)


def parse(words: Sequence[str]) -> Request:
    """The request in `words`. Raises BenchError, one sentence, for what is not understood."""
    arguments = take_apart(words, (STDIN,))
    values = arguments.values
    check_keys([key for key in values if not key.startswith(BY_STREAM)], (*KEYS, *SEARCH))
    if "checkpoint" not in values:
        raise BenchError("command line: checkpoint= is missing: the key of a run (bench list runs) or its folder")
    videos = list(arguments.files) + (_lines() if STDIN in arguments.flags else [])
    if not videos:
        raise BenchError("command line: name videos or a folder, or - for files named on the standard input")
    search = _search(values)
    return Request(
        videos,
        str(values["checkpoint"].read(text=True)),
        _by_stream(values, "encoder"),
        _by_stream(values, "weights"),
        _alternatives(values, search),
        _explain(values),
        search,
    )


def _lines() -> list[str]:
    """Names of files as the system has them, whatever their letters."""
    return [line for line in os.fsdecode(sys.stdin.buffer.read()).split("\n") if line.strip()]


def _by_stream(values: Mapping[str, Value], name: str) -> dict[str, str]:
    """`weights=` and `weights.frames=` by stream."""
    found = {}
    for key, value in values.items():
        if key == name or key.startswith(f"{name}."):
            told = value.read(text=True)
            if not isinstance(told, str) or not told:
                raise BenchError(f"command line: {key} is {told!r}, but must be one name")
            found[key[len(name) + 1 :]] = told
    return found


def _search(values: Mapping[str, Value]) -> dict[str, Any]:
    named = {key.removeprefix("search."): value.read() for key, value in values.items() if key in SEARCH}
    try:
        return given(Search.model_validate(named))
    except ValidationError as error:
        raise from_pydantic(error, Search, "command line: search") from None


def _alternatives(values: Mapping[str, Value], search: Mapping[str, Any]) -> int | None:
    if "alternatives" not in values:
        return None
    count = values["alternatives"].read()
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise BenchError(f"command line: alternatives is {count!r}, but must be a whole number from 0 on")
    if count >= search.get("beam", count + 1):
        raise BenchError(
            f"command line: a beam of {search['beam']} finds {search['beam'] - 1} captions besides the best, not {count}; "
            f"say search.beam={count + 1} or leave it out"
        )
    return count


def _explain(values: Mapping[str, Value]) -> Path | None:
    if "explain" not in values:
        return None
    told = values["explain"].read()
    if isinstance(told, bool) or told is None:
        return Path(EXPLAINED) if told else None
    if not isinstance(told, str):
        raise BenchError(f"command line: explain is {told!r}, but must be a folder, true or false")
    return Path(told).expanduser()


def run(request: Request, home: Home) -> int:
    """Caption the videos and print what comes of each at once; returns how many could not be read. Raises BenchError."""
    from bench.cell.captioner import VideoCaptioner, VideoError, find_videos
    from bench.cell.checkpoint import load

    videos = find_videos(request.videos)
    trained = load(find_checkpoint(request.checkpoint, home), weights=request.weights.values())
    own = dict(trained.config["search"])
    if request.alternatives is not None and request.alternatives >= own["beam"]:
        own["beam"] = request.alternatives + 1
    search = type(trained.search)(**{**own, **request.search})
    if search.beam != trained.search.beam:
        _note(f"a beam of {search.beam}; the cell was scored with {trained.search.beam}")
    captioner = VideoCaptioner(trained, request.encoder, request.weights, search, _note)
    taken: set[str] = set()
    failed = 0
    for number, video in enumerate(videos):
        try:
            caption = captioner.caption(video)
            gap = "\n" if number > failed else ""  # not before the first that is told
            print(gap + told(str(video), caption, request.alternatives), flush=True)
            if request.explain is not None:
                print(f"  picture: {_draw(captioner, video, caption, request.explain, taken)}", flush=True)
        except VideoError as error:
            failed += 1
            _note(str(error))
    if failed and len(videos) > 1:
        _note(f"{failed} of {len(videos)} videos could not be captioned")
    return failed


def find_checkpoint(word: str, home: Home) -> Path:
    """The checkpoint that a file, a cell's folder, or what `bench show` takes names. Raises BenchError."""
    from bench.cell.checkpoint import CHECKPOINT
    from bench.records.store import RECORD, cell_folder
    from bench.reports.lookup import find_record

    path = Path(word).expanduser()
    if path.is_file() and path.name != RECORD:
        return path
    if path.is_dir() and (path / CHECKPOINT).is_file():
        return path / CHECKPOINT
    if path.suffix == ".safetensors":
        raise BenchError(
            f"there is no checkpoint {path}; bench run leaves one as results/DATASET/METHOD/KEY/{CHECKPOINT}"
        )
    record = find_record(word, home)
    found = cell_folder(home.results, record) / CHECKPOINT
    if not found.is_file():
        why = "the cell failed" if record.state == "failed" else "checkpoints are not published"
        raise BenchError(
            f"{found} is not there, for {why}: move its folder away and give the bench run command that made it again, it "
            f"then trains the cell anew"
        )
    return found


def told(video: str, caption: Caption, alternatives: int | None) -> str:
    """What is printed of a video: its name, then the best caption and others, each behind its log-probability."""
    others = caption.alternatives[:alternatives]
    lines = [(caption.text, caption.log_probability), *others]
    rows = [f"  {value:8.2f}  {clean(text) or '(says nothing)'}" for text, value in lines]
    return "\n".join([clean(video), *rows])


def _draw(captioner: VideoCaptioner, video: Path, caption: Caption, folder: Path, taken: set[str]) -> Path:
    """The picture of a captioned video, under its name; videos of one name are counted."""
    from bench.disk.whole import write_atomically
    from bench.figures.explained import explained

    captions = [(f"caption ({caption.log_probability:.2f})", caption.text)]
    if "first_caption" in caption.traces:
        captions.append(("step 1", caption.traces["first_caption"]))
    captions += [(f"or ({value:.2f})", text) for text, value in caption.alternatives]
    name, count = video.stem, 1
    while name in taken:
        count += 1
        name = f"{video.stem}-{count}"
    taken.add(name)
    path = folder / f"{name}.svg"
    picture = explained(captioner.shown(video, caption), captions, caption.words, caption.traces)
    write_atomically(path, picture.svg)
    return path


def _note(sentence: str) -> None:
    print(f"bench: {clean(sentence)}", file=sys.stderr, flush=True)
