"""Commands for what methods are trained on: data check and the feature cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from bench import BenchError
from bench.cli.answers import FAILED, WELL, say
from bench.cli.show import Nothing, list_all
from bench.declare.addresses import check_cluster
from bench.declare.options import DataSet, Options, Written, parse
from bench.declare.settings import option
from bench.errors import listing, many, unknown
from bench.home import Home, find_home, written_path
from bench.pages.terminal import wrapped

if TYPE_CHECKING:
    from bench.declare.dataset import DatasetDefinition
    from bench.errors import Finding


CLIPS_NAMED = 5  # clip ids spelled out after a finding; the rest is counted
Streams = Annotated[list[str] | None, Written("NAME,..")]


class Check(Options):
    dataset: DataSet


def data_check(argv: Sequence[str]) -> int:
    """Show what a data set is (clips, captions, splits, shapes of streams, reference tokens that a model cannot write), and look
    for everything that can be wrong with it before a model is trained: files, counts, ids, splits, and every value of its
    streams. Errors are what bench run stops at. Exit status 1 if there are errors.

    Example: bench data check dataset=msvd
    """
    asked = parse(Check, argv)
    from bench.data.check import check_dataset
    from bench.declare.registry import dataset

    definition = dataset(asked.dataset)
    checked = check_dataset(definition, find_home())
    for fact in checked.facts:
        print(wrapped(fact))
    return _report(f"data set {definition.name}", checked.findings)


def _report(what: str, findings: Sequence[Finding]) -> int:
    for finding in findings:
        more = len(finding.clips) - CLIPS_NAMED
        named = all(clip in finding.message for clip in finding.clips[:CLIPS_NAMED])
        clips = f" [{listing(finding.clips[:CLIPS_NAMED])}{f' and {more} more' if more > 0 else ''}]"
        print(wrapped(f"{finding.severity}: {finding.message}{'' if named else clips}"))
    errors = sum(finding.severity == "error" for finding in findings)
    counts = (
        f"{many(errors, 'error')}, {many(len(findings) - errors, 'warning')}" if findings else "nothing to complain of"
    )
    print(f"{what}: {counts}")
    return FAILED if errors else WELL


def features_list(argv: Sequence[str]) -> int:
    """Show the caches of feature streams: shape, clips, size, fingerprint.

    Example: bench features list
    """
    parse(Nothing, argv)
    return list_all(["features"])


class CheckStreams(Check):
    stream: Streams = option(None, "these streams alone")


def features_check(argv: Sequence[str]) -> int:
    """Read the caches of a data set whole: truncation, flipped bits, NaN, wrong shapes, ids missing or extra. Exit status 1
    if there are errors.

    Example: bench features check dataset=msvd stream=frames
    """
    asked = parse(CheckStreams, argv)
    definition, streams, home = _streams(asked.dataset, asked.stream)
    from bench.data.corpus import all_clips
    from bench.errors import Finding
    from bench.features.check import check_cache
    from bench.features.sidecar import cache_path

    # Of a generated data set a cache holds the clips that were asked for so far, and the others are made when they are.
    ids = None if definition.generated else list(all_clips(definition, home)[0])
    statuses = []
    for stream in streams:
        found = check_cache(cache_path(home, definition.name, stream), ids)
        if definition.streams[stream].videos is not None:
            from bench.features.extraction import made_otherwise  # it imports torch, which takes seconds

            told = made_otherwise(definition, stream, home)
            found += [Finding("warning", told)] if told else []
        statuses.append(_report(f"stream {stream} of {definition.name}", found))
    return max(statuses)


class Import(CheckStreams):
    source: Annotated[str | None, Written("PATH")] = option(
        None, "features that the definition does not name, for one stream", alias="from"
    )
    layout: str | None = option(None, "with from=: how they are laid out; without it they are told apart")
    frames: int | None = option(None, "with from=: keep so many equally spaced frames", ge=1)
    encoder: str | None = option(None, "with from=: what made them")
    ids: Annotated[str | None, Written("FILE|NAME")] = option(
        None, "with from=: the rows' clips, a file of ids or the name of the array that holds them"
    )
    replace: bool = option(False, "take the place of features that a command has made")


def features_import(argv: Sequence[str]) -> int:
    """Bring features as they were published into the cache: those that the data set's definition names, unless they are
    there and up to date, or those at PATH. Layouts, told apart by themselves: HDF5 with a dataset per clip, with one matrix
    and ids or without ids; folders of .npy, .npz, .pt or HDF5 files; a dictionary of tensors in a .pt, of which no code is run;
    lines of csv, a frame each; tsv of bottom-up attention. What was recognised is said.

    Example: bench features import dataset=my/dataset.yaml stream=regions from=boxes.tsv frames=40
    """
    asked = parse(Import, argv)
    more = asked.model_fields_set & {"layout", "frames", "encoder", "ids"}
    if asked.source is None and more:
        raise BenchError(f"command line: {sorted(more)[0]}= goes with from=PATH, the features' place")
    from bench.declare.registry import dataset
    from bench.run.prepare import import_from, prepare, refuse_replacing

    if asked.source is not None:
        if asked.stream is None or len(asked.stream) != 1:
            raise BenchError("command line: from= is one stream: name it, such as stream=frames")
        entry = asked.model_dump(include={"source", *more})
        print(import_from(dataset(asked.dataset), asked.stream[0], find_home(), entry, asked.replace))
        return WELL
    definition, streams, home = _streams(asked.dataset, asked.stream)
    if not asked.replace:
        refuse_replacing(definition, streams, home)
    prepare(definition, home, None, streams, again=asked.replace)
    return WELL


class Extract(Check):
    stream: str = Field(
        description="frames, spatial, objects, motion, actions, regions, audio, pixels, or words", examples=["frames"]
    )
    videos: Annotated[str | None, Written("FOLDER")] = option(None, "where the videos are, by the clips' names")
    encoder: str | None = option(
        None,
        "inception_v4, inception_resnet_v2, resnet101, resnet152, vgg19, googlenet, ..., any network of timm; clip:ViT-B-32, ..; "
        "r3d_18, r2plus1d_18, s3d, c3d; fasterrcnn_resnet50_fpn, ..; vggish, yamnet; onnx",
    )
    weights: Annotated[str | None, Written("FILE|pretrained|random")] = option(
        None, "a .safetensors file, .onnx for onnx; pretrained, without it, downloads; random is for tests"
    )
    spec: Annotated[str | None, Written("FILE.yaml")] = option(
        None, "with encoder=onnx: what the network reads and gives (docs/features.md)"
    )
    frames: int | None = option(None, "so many equally spaced frames; with fps=, the most", ge=1)
    fps: float | None = option(None, "so many frames of a second", gt=0)
    boxes: int | None = option(None, "of a frame, for regions; without it 16", ge=1)
    silence: bool | None = option(None, "clips without sound count as silent, for audio")
    skip: Literal["failed"] | None = option(None, "finish without the clips that failed")
    replace: bool = option(False, "make a cache anew that was made otherwise")
    batch: int | None = option(None, "frames that go through the network at once", ge=1)
    workers: int | None = option(None, "processes that decode; 0 for this process", ge=0)
    device: Annotated[str, Written("auto|cpu|cuda|cuda:N")] = option("auto", "what the network computes on")
    address: Annotated[str, Written("auto|HOST:PORT")] = option(
        "local", "a Ray cluster whose GPUs share the clips; all its nodes see the videos", alias="executor.address"
    )
    checkpoint: Annotated[str | None, Written("FILE")] = option(
        None, "for words: of a trained glrg, which makes them of the stream frames"
    )

    @field_validator("address")
    @classmethod
    def _address_is_one(cls, value: str) -> str:
        check_cluster(value)
        return value


OF_STREAM = {"videos", "encoder", "weights", "spec", "frames", "fps", "boxes", "silence"}
OF_WORDS = {"dataset", "stream", "checkpoint", "replace", "device"}


def features_extract(argv: Sequence[str]) -> int:
    """From videos to a stream in the cache: frames, spatial, objects (2-D networks), motion, actions (of runs of frames),
    regions, audio, pixels (frames as they are, for EtENet's second step); words by checkpoint= of a trained glrg from the
    stream frames. A video is named by its clip; clips with a start and an end are cut out of longer videos. What the data
    set's definition says of the stream need not be said again.

    Stopped or failed clips are made up for by the same command; exit status 1 if there are clips that could not be read.
    batch=, workers=, device= and executor.address= change how long it takes, not the values. Needs pip install
    "captionbench[extract]".

    Example: bench features extract dataset=msvd stream=frames videos=/data/msvd/clips encoder=inception_v4 frames=28
    """
    asked = parse(Extract, argv)
    _check_words(asked)
    from bench.cell.words_stream import extract_words
    from bench.declare.registry import dataset
    from bench.features.extraction import Work
    from bench.run.prepare import extract, undeclared

    definition, home = dataset(asked.dataset), find_home()
    if asked.checkpoint:
        path = extract_words(definition, home, written_path(asked.checkpoint), asked.replace, asked.device)
    else:
        work = Work(asked.batch, asked.workers, asked.device, asked.skip is not None, asked.replace)
        entry = asked.model_dump(include=OF_STREAM, exclude_unset=True)
        path, failed = extract(definition, asked.stream, home, entry, work, asked.address)
        if failed and (not work.skip or not path.is_file()):
            return say(failed, FAILED)
        if failed:
            print(wrapped(failed))
    print(f"{definition.name}: stream {asked.stream} is in {path}{undeclared(definition, asked.stream)}")
    return WELL


def _check_words(asked: Extract) -> None:
    """Refuse the stream `words` without a checkpoint or with more, and a checkpoint for another stream."""
    more = sorted(asked.model_fields_set - OF_WORDS)
    if asked.stream == "words" and asked.checkpoint is None:
        raise BenchError(
            "command line: checkpoint= is missing: a trained glrg makes the stream words of the stream frames"
        )
    if asked.checkpoint is not None and (asked.stream != "words" or more):
        what = f"{more[0]}= does not go with it" if more else f"not {asked.stream}"
        raise BenchError(f"command line: checkpoint= makes the stream words, {what}")


def _streams(name: str, chosen: list[str] | None) -> tuple[DatasetDefinition, list[str], Home]:
    """The data set of a `features` command, and its streams or those that were chosen.

    Unless chosen, streams that come from videos are left out until they are there: few methods read them.
    """
    from bench.declare.registry import dataset
    from bench.features.sidecar import cache_path

    definition, home = dataset(name), find_home()
    streams = chosen
    if streams is None:
        streams = [
            name
            for name, stream in definition.streams.items()
            if stream.videos is None or cache_path(home, definition.name, name).is_file()
        ]
    for stream in streams:
        if stream not in definition.streams:
            raise unknown("stream", stream, definition.streams, f"data set {definition.name}")
    if not streams and chosen is not None:
        raise BenchError(
            f"command line: stream= names none; data set {definition.name} has {listing(definition.streams)}"
        )
    if not streams:
        raise BenchError(f"data set {definition.name} declares no streams: add them to {definition.path}")
    return definition, streams, home
