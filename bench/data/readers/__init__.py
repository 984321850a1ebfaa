"""Readers of published caption files, by format name.

Every reader takes the files by role and returns a `Source`. Adding a format is one function and one row of `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.data.readers import activitynet, custom, msrvtt, msvd
from bench.data.source import Source

Files = Mapping[str, Path]


@dataclass(frozen=True)
class Format:
    """How a format is read. `roles` lists the allowed sets of required files; `optional` files may be absent."""

    read: Callable[[Files], Source]
    roles: tuple[frozenset[str], ...]
    optional: frozenset[str] = frozenset()

    @property
    def known(self) -> frozenset[str]:
        """Every role that a definition may name."""
        return self.optional.union(*self.roles)


def _one_of(*roles: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(role.split("+")) for role in roles)


_CUSTOM = _one_of("captions", "train+val+test", "train+val", "train+test", "train")

FORMATS: dict[str, Format] = {
    "msvd_split": Format(msvd.read_split_files, _one_of("train+val+test"), frozenset({"mapping"})),
    "msvd_txt": Format(msvd.read_descriptions, _one_of("captions"), frozenset({"mapping"})),
    "msvd_csv": Format(msvd.read_corpus_csv, _one_of("captions"), frozenset({"mapping"})),
    "msrvtt": Format(msrvtt.read, _one_of("train_val+test", "data", "train_val", "test")),
    "activitynet": Format(activitynet.read, _one_of("train+val_1"), frozenset({"val_2"})),
    "coco": Format(custom.read_coco, _CUSTOM),
    "jsonl": Format(custom.read_jsonl, _CUSTOM),
    "csv": Format(custom.read_csv, _CUSTOM),
}

__all__ = ["FORMATS", "Format"]
