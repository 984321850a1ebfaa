"""`bench caption`: which videos, which trained method, and what is printed of them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator, model_validator

from bench import BenchError
from bench.cli.answers import FAILED, WELL, say
from bench.declare.options import Options, Written, parse
from bench.declare.settings import Decoding, given, option
from bench.home import Home, find_home, written_path
from bench.pages.document import clean

if TYPE_CHECKING:
    from bench.cell.captioner import VideoCaptioner
    from bench.method import Caption


SECONDS = re.compile(r"(\d+|\d*\.\d+)s?")
_NEWEST = re.compile(r"[a-z0-9_]+/[A-Za-z0-9_]+(:\w+)?")
EXPLAINED = "explained"  # the folder of the pictures, where none is named


class Request(Options):
    """What was asked for. `encoder` and `weights` are by stream, under the empty name for all; `search` holds what was named."""

    named: Annotated[list[str], Written(word="VIDEO|FOLDER")] = option([], "videos, or folders of videos")
    stdin: Annotated[bool, Written(flag="-")] = option(False, "files named on the standard input, one to a line")
    checkpoint: Annotated[str, Written("RUN")] = Field(
        description="a checkpoint.safetensors, the folder of a cell, the first digits of its key, its row (recnet:local), or "
        "DATASET/METHOD for the newest cell of a method that has its checkpoint here",
        examples=["RUN"],
    )
    weights: Annotated[dict[str, str], Written("FILE")] = option(
        {}, "the encoder's weights (.safetensors), where they cannot be downloaded; weights.STREAM= for one stream"
    )
    encoder: Annotated[dict[str, str], Written("NAME")] = option(
        {}, "the encoder, where features were imported without its name; encoder.STREAM= for one stream"
    )
    alternatives: int | None = option(None, "how many other captions are printed; without it, all other beams", ge=0)
    explain: Annotated[str | None, Written("FOLDER|true")] = option(
        None, "a picture (SVG) of each video, in FOLDER or in ./explained: its frames, and what the method looked at"
    )
    every: Annotated[str | None, Written("SECONDS")] = option(
        None, "a caption of every so many seconds of each video, as 10s, one after another"
    )
    into: Annotated[str | None, Written("FOLDER")] = option(
        None, "with every=: NAME.jsonl, NAME.srt and NAME.vtt of each video there"
    )
    device: Annotated[str, Written("auto|cpu|cuda|cuda:N")] = option("auto", "what the networks compute on")
    search: Decoding = Decoding()

    @field_validator("weights", "encoder")
    @classmethod
    def _one_name(cls, value: dict[str, str]) -> dict[str, str]:
        if "" in value.values():
            raise ValueError("is empty, but must be one name")
        return value

    @field_validator("explain")
    @classmethod
    def _folder(cls, value: str | None) -> str | None:
        return {"true": EXPLAINED, "false": None, "null": None}.get(value or "null", value)

    @model_validator(mode="after")
    def _fits(self) -> Request:
        beam = self.search.beam
        if self.alternatives is not None and "beam" in self.search.model_fields_set and self.alternatives >= beam:
            raise ValueError(
                f"a beam of {beam} finds {beam - 1} captions besides the best, not {self.alternatives}; say "
                f"search.beam={self.alternatives + 1} or leave it out"
            )
        if self.every is not None and not (SECONDS.fullmatch(self.every) and float(self.every.rstrip("s")) > 0):
            raise ValueError(f"has every={self.every}, but it must be seconds above 0, such as 10s")
        if self.every is not None and self.explain is not None:
            raise ValueError("has every= and explain=: a picture is of a video as a whole, leave one of them out")
        if self.into is not None and self.every is None:
            raise ValueError("has into=, which goes with every=, such as every=10s")
        if not self.named and not self.stdin:
            raise ValueError("name videos or a folder, or - for files named on the standard input")
        return self

    @property
    def videos(self) -> list[str]:
        """The videos and folders that were named, those of the standard input as the system has them, whatever their letters."""
        listed = os.fsdecode(sys.stdin.buffer.read()).split("\n") if self.stdin else []
        return [*self.named, *(line for line in listed if line.strip())]


def caption(argv: Sequence[str]) -> int:
    """Say what is in videos: the streams that the method reads are made of each video as its training features were, then it
    is decoded by beam search. Printed are the caption and the other beams with their log-probabilities. A folder stands for
    the videos below it. A video that cannot be read is named, the others go on, and the exit status is 1. Needs pip install
    "captionbench[extract]".

    In Python: bench.load("results/msvd_clips/salstm/KEY").caption("video.mp4", weights="mobilenetv2.safetensors")

    Example: bench caption holiday.mp4 clips/ checkpoint=recnet:local explain=pictures
    """
    return FAILED if run(parse(Request, argv), find_home()) else WELL


def run(request: Request, home: Home) -> int:
    """Caption the videos and print what comes of each at once; returns how many could not be read. Raises BenchError."""
    from bench.cell.captioner import VideoCaptioner, VideoError, find_videos
    from bench.cell.checkpoint import load

    videos = find_videos(request.videos)
    files = [file for named in request.weights.values() for file in named.split(",")]
    trained = load(find_checkpoint(request.checkpoint, home), weights=files, device=request.device)
    own = dict(trained.config["search"])
    if request.alternatives is not None and request.alternatives >= own["beam"]:
        own["beam"] = request.alternatives + 1
    search = type(trained.search)(**{**own, **given(request.search)})
    if search.beam != trained.search.beam:
        _note(f"a beam of {search.beam}; the cell was scored with {trained.search.beam}")
    captioner = VideoCaptioner(trained, request.encoder, request.weights, search, _note)
    taken: set[str] = set()
    failed = 0
    for number, video in enumerate(videos):
        try:
            if request.every is not None:
                _by_parts(captioner, video, float(request.every.rstrip("s")), request.into, taken)
                continue
            caption = captioner.caption(video)
            gap = "\n" if number > failed else ""  # not before the first that is printed
            print(gap + _lines(str(video), caption, request.alternatives), flush=True)
            if request.explain is not None:
                folder = written_path(request.explain)
                print(f"  picture: {_draw(captioner, video, caption, folder, taken)}", flush=True)
        except VideoError as error:
            failed += 1
            _note(str(error))
    if failed and len(videos) > 1:
        _note(f"{failed} of {len(videos)} videos could not be captioned")
    return failed


def _by_parts(captioner: VideoCaptioner, video: Path, every: float, into: str | None, taken: set[str]) -> None:
    """Caption a video part by part: each is printed at once, and one part at a time is held, however long the video.

    Files appear when the whole video has its captions; a video that breaks off leaves none. Raises VideoError.
    """
    from bench.cli.subtitles import clock, subtitles

    parts = captioner.parts(video, every)
    print(clean(str(video)), flush=True)
    name = _own_name(video, taken) if into is not None else ""
    with subtitles(None if into is None else written_path(into), name, str(video)) as write:
        for span in parts:
            caption = captioner.caption(video, span)
            write(span, caption)
            print(f"  {clock(span[0])}  {clean(caption.text) or '(says nothing)'}", flush=True)
    if into is not None:
        print(f"  written: {written_path(into) / name}.jsonl, .srt, .vtt", flush=True)


def find_checkpoint(word: str, home: Home) -> Path:
    """The checkpoint that a file, a cell's folder, or what `bench show` takes names. Raises BenchError."""
    from bench.cell.checkpoint import CHECKPOINT
    from bench.records.store import RECORD, cell_folder
    from bench.reports.lookup import find_record

    path = written_path(word)
    if path.is_file() and path.name != RECORD:
        return path
    if path.is_dir() and (path / CHECKPOINT).is_file():
        return path / CHECKPOINT
    if path.suffix == ".safetensors":
        raise BenchError(
            f"there is no checkpoint {path}; bench run leaves one as results/DATASET/METHOD/KEY/{CHECKPOINT}"
        )
    if _NEWEST.fullmatch(word) and (newest := _newest(word, home)):
        return newest
    if _NEWEST.fullmatch(word) and not path.exists():
        dataset, _, method = word.partition("/")
        raise BenchError(
            f"data set {dataset} has no trained cell of method {method} under {home.results}; bench run methods={method} "
            f"dataset={dataset} makes one"
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


def _newest(word: str, home: Home) -> Path | None:
    """The checkpoint of the newest cell of `DATASET/METHOD` or `DATASET/METHOD:VARIANT`; None where there are no such cells.

    Raises BenchError where no cell of them has its checkpoint on this machine.
    """
    from bench.cell.checkpoint import CHECKPOINT
    from bench.records.store import all_records, cell_folder

    dataset, _, row = word.partition("/")
    method, _, variant = row.partition(":")
    records = [
        record
        for record in all_records(home.results, dataset, [])
        if record.state != "failed" and record.method == method and variant in ("", record.variant)
    ]
    there = [record for record in records if (cell_folder(home.results, record) / CHECKPOINT).is_file()]
    if records and not there:
        raise BenchError(
            f"none of the {len(records)} cells of {word} has its checkpoint here, for checkpoints are not published: train one "
            f"with bench run methods={row} dataset={dataset} (of the demo: make demo)"
        )
    newest = max(there, key=lambda one: (one.provenance.finished if one.provenance else None) or "", default=None)
    return cell_folder(home.results, newest) / CHECKPOINT if newest else None


def _lines(video: str, caption: Caption, alternatives: int | None) -> str:
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
    path = folder / f"{_own_name(video, taken)}.svg"
    picture = explained(captioner.shown(video, caption), captions, caption.words, caption.traces)
    write_atomically(path, picture.svg)
    return path


def _own_name(video: Path, taken: set[str]) -> str:
    """What the files of a video are called: its name; videos of one name are counted."""
    name, count = video.stem, 1
    while name in taken:
        count += 1
        name = f"{video.stem}-{count}"
    taken.add(name)
    return name


def _note(sentence: str) -> None:
    say(clean(sentence), FAILED)
