"""What a data set is: where its captions lie, how they are split, which feature streams it offers."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from bench import BenchError
from bench.declare.settings import Model, Strict, Text, Train
from bench.disk.limits import check_stream_name
from bench.errors import listing, unknown
from bench.home import Home, data_folder, written_path


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip. `video` names the file that it lies in; `start` and `end` (seconds) where it is a part of that file; `film` what
    that file was cut from, where the publication tells: clips of one film look alike."""

    id: str
    video: str
    start: float | None = None
    end: float | None = None
    film: str | None = None


SPLITS = ("train", "val", "test")
VALIDATION = 100  # clips: fewer do not tell one epoch from another
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


CaptionFormat = Literal[
    "msvd_csv", "msvd_txt", "msvd_split", "msrvtt", "activitynet", "coco", "jsonl", "csv", "shapes",
    "own", "vatex", "karpathy", "tvc", "youcook", "events", "retrieval", "auto",
]  # fmt: skip
RecordField = Literal["clip", "caption", "id", "split", "video", "start", "end"]


def resolved(text: str, file: Path, home: Home, declared: Collection[str] = ()) -> Path:
    """`text`, as the YAML `file` writes it, as an absolute path: `${VARIABLES}` and `~` expanded, relative to the file.

    `${BENCH_DATA}` is `home.data` where the variable is unset. Any other must be `declared` by the file, and set.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name == "BENCH_DATA":
            return str(home.data)
        if name not in declared:
            raise BenchError(
                f"{file}: {text!r} reads the environment variable {name}, which the file does not declare: only BENCH_DATA needs "
                f"no declaration. If you trust the file, write environment: [{name}] into it"
            )
        if name not in os.environ:
            raise BenchError(f"{file}: the environment variable {name} in {text!r} is not set; export {name}=FOLDER")
        return os.environ[name]

    expanded = written_path(_VARIABLE.sub(value, text))
    return Path(os.path.normpath(file.parent / expanded))


class Counts(Strict):
    """What a split must hold; None is not checked."""

    clips: int | None = Field(default=None, ge=0)
    captions: int | None = Field(default=None, ge=0)


class CaptionSource(Strict):
    """One way to read the captions: a format, its files by role, and the counts they must give, by split.

    Without a format the files are read as what they look like. `fields` says which fields of their records are what, where
    they have unusual names.
    """

    format: CaptionFormat = "auto"
    files: dict[str, str] = Field(default_factory=dict)
    fields: dict[RecordField, str] = Field(default_factory=dict)
    counts: dict[str, Counts] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fields_suffice(self) -> CaptionSource:
        if self.fields and ("caption" not in self.fields or not self.fields.keys() & {"clip", "video"}):
            raise ValueError("has fields that name no caption, or no clip (or the video, start and end of an event)")
        return self


class SplitRule(Strict):
    """How clips are divided. Exactly one of: `official`, `lists` (role -> file of ids), `fractions`, `first`, `folds`.

    In YAML: `official`, or `{train: file, val: file, test: file}`, or `{fractions: [0.8, 0.05, 0.15], seed: 0}`, or
    `{first: [800, 50, 150]}` (by id order), or `{folds: 10, validation: 100, seed: 0}`: as many cells as folds, cell k reports on
    fold k and trains on the others but for `validation` clips. Films stay whole; `films` is a file of `<film>_<start>_<end> clip`
    where the caption files do not tell from which film a clip is.
    """

    _FORMS: ClassVar[str] = (
        "must be exactly one of: official, {train: file, val: file, test: file}, "
        "{fractions: [0.8, 0.1, 0.1], seed: 0}, {first: [800, 50, 150]}, {folds: 10, seed: 0}"
    )
    official: bool = False
    lists: dict[str, str] = Field(default_factory=dict)
    fractions: tuple[float, float, float] | None = None
    seed: int = 0
    first: tuple[int, int, int] | None = None
    folds: int | None = Field(default=None, ge=2)
    validation: int = Field(default=VALIDATION, ge=1)
    films: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if value == "official":
            return {"official": True}
        if isinstance(value, dict) and value.keys() & set(SPLITS):
            others = {key: item for key, item in value.items() if key not in SPLITS}
            return {"lists": {key: value[key] for key in SPLITS if key in value}, **others}
        if isinstance(value, dict):
            return {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
        if isinstance(value, SplitRule):
            return value
        raise ValueError(f"is {value!r}, but {cls._FORMS}")

    @model_validator(mode="after")
    def _one_rule(self) -> SplitRule:
        ways = [self.official, bool(self.lists), self.fractions is not None, self.first is not None]
        ways.append(self.folds is not None)
        if sum(ways) != 1:
            raise ValueError(self._FORMS)
        if self.lists and set(self.lists) != set(SPLITS):
            raise ValueError(f"names lists for {listing(self.lists)}, but must name one for each of {listing(SPLITS)}")
        if self.fractions and (min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6):
            raise ValueError(f"has fractions {list(self.fractions)}, which must be positive and sum to 1")
        if self.folds is None and self.model_fields_set & {"validation", "films"}:
            raise ValueError("has validation or films, which belong to folds")
        if self.first and min(self.first) < 0:
            raise ValueError(f"has first {list(self.first)}, which must not be negative")
        return self


class SubsetRule(Strict):
    """Restricts the clips: to `ids` (a list, or a file with one id per line) or to the clips of a stream."""

    ids: str | list[str] | None = None
    from_stream: str | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> SubsetRule:
        if (self.ids is None) == (self.from_stream is None):
            raise ValueError("must be exactly one of: {ids: file or list}, {from_stream: name}")
        return self


class StreamSource(Strict):
    """Where a stream comes from and how it is read. `source` is None for streams that the data set makes itself.

    `frames`: keep this many equally spaced frames; `columns`: keep columns [start, stop); `ids`: a file or list of the
    rows' clip ids, or the name of the id array inside the source; `l2`: scale each vector to length 1; `dtype`: how
    values are stored, float16 unless named. `encoder` names the encoder that made the features, or for which pixels are
    prepared. A stream may come from `videos`, a folder: `frames` of each clip or one every 1/`fps` seconds, decoded and put
    through `encoder` with `weights` (a file, `pretrained` or `random`); `boxes` of a frame for `regions`. `spec` declares an
    encoder `onnx`.
    """

    source: str | None = None
    videos: str | None = None
    encoder: str | None = None
    layout: str = "auto"
    frames: int | None = Field(default=None, ge=1)
    fps: float | None = Field(default=None, gt=0)
    weights: str | None = None
    spec: str | None = None
    boxes: int | None = Field(default=None, ge=1)
    columns: tuple[int, int] | None = None
    ids: str | list[str] | None = None
    l2: bool = False
    dtype: Literal["float16", "float32"] | None = None
    _IDLE: ClassVar[dict[str, tuple[str, ...]]] = {
        "source": ("fps", "weights", "spec", "boxes"),
        "videos": ("layout", "columns", "ids", "l2"),
    }

    @model_validator(mode="after")
    def _one_place(self) -> StreamSource:
        if self.source is not None and self.videos is not None:
            raise ValueError("names both source and videos: it is imported from the one or made from the other")
        for place, keys in self._IDLE.items():
            idle = [key for key in keys if getattr(self, key) != type(self).model_fields[key].default]
            if getattr(self, place) is not None and idle:
                other = next(name for name in self._IDLE if name != place)
                raise ValueError(f"has {listing(idle)}, of no use beside {place}: leave it out, it belongs to {other}")
        return self

    @property
    def place(self) -> str | None:
        """What the stream is read from: a file or folder of features, or a folder of videos."""
        return self.source if self.source is not None else self.videos

    @field_validator("columns", mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class DatasetDefinition(Strict):
    """A data set as `datasets/<name>/dataset.yaml` or a user's own YAML file declares it.

    `remark` is what a reader must know before its scores: it stands at the top of its page. `cut_from` names the published data
    set whose clips these are, beside whose printed results its scores are shown.
    `densevid` names the parts of the caption files whose events are the references of densevid's rules: cells of
    protocol=paper that report on clips of the first part are scored by these rules as well. `environment` names the variables,
    besides BENCH_DATA, that may stand in its paths as `${NAME}`: a stranger's file reads no others.
    """

    name: str = Field(pattern=r"^[a-z0-9_]{1,100}$")
    title: str = ""
    remark: str = ""
    captions: list[CaptionSource] = Field(min_length=1)
    published_at: str = ""
    cut_from: str = ""
    splits: SplitRule = SplitRule(official=True)
    split_variants: dict[str, SplitRule] = Field(default_factory=dict)
    subset: SubsetRule | None = None
    streams: dict[str, StreamSource] = Field(default_factory=dict)
    densevid: list[str] = Field(default_factory=list)
    environment: list[str] = Field(default_factory=list)
    text: Text = Text()
    train: Train = Train()
    model: Model = Model()
    options: dict[str, Any] = Field(default_factory=dict)
    _path: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _generated_splits(self) -> DatasetDefinition:
        if self.generated and (not self.splits.official or self.split_variants or self.subset):
            raise ValueError(
                "has captions of format shapes, which make their own splits: set options.size to [TRAIN, VAL, TEST] "
                "and leave splits, split_variants and subset out"
            )
        return self

    @field_validator("streams")
    @classmethod
    def _names_of_streams(cls, value: dict[str, StreamSource]) -> dict[str, StreamSource]:
        for name in value:
            check_stream_name(name)
        return value

    @property
    def path(self) -> Path:
        """The YAML file this definition was read from; paths inside it are relative to its folder."""
        if self._path is None:
            raise BenchError(f"data set {self.name} was not read from a file, so it has no folder")
        return self._path

    @property
    def called(self) -> str:
        """What follows `dataset=` on a command line: the name of a shipped data set, the path of any other."""
        shipped = self._path is None or self._path.parent.parent == data_folder("datasets").resolve()
        return self.name if shipped else shlex.quote(str(self._path))

    @property
    def generated(self) -> bool:
        """Whether captions and streams are made from a seed instead of read from files."""
        return any(source.format == "shapes" for source in self.captions)

    def split_rule(self, splits: str = "default") -> SplitRule:
        """The rule named `splits`: `default` or one of `split_variants`."""
        if splits == "default":
            return self.splits
        if splits not in self.split_variants:
            raise unknown("splits", splits, ["default", *self.split_variants], f"data set {self.name}")
        return self.split_variants[splits]

    def resolve(self, text: str, home: Home) -> Path:
        """`text` as an absolute path, relative to the YAML file; see `resolved`."""
        return resolved(text, self.path, home, self.environment)

    def caption_source(self, home: Home) -> tuple[CaptionSource, dict[str, Path]]:
        """The first caption source whose files all exist, with its files by role.

        Raises BenchError naming all files that were looked for, where they are published and what to do next.
        """
        looked_for = []
        for source in self.captions:
            files = {role: self.resolve(text, home) for role, text in source.files.items()}
            if all(path.is_file() for path in files.values()):
                return source, files
            absent = [str(path) for path in files.values() if not path.is_file()]
            looked_for.append(f"{source.format} needs {listing(absent)}")
        where = f" Published at: {self.published_at}." if self.published_at else ""
        raise BenchError(
            f"the captions of data set {self.name} are not here: {'; or '.join(looked_for)}.{where} "
            f"Put the files there or set BENCH_DATA (now {home.data}), then: bench data check dataset={self.called}"
        )
