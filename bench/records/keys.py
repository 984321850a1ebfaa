"""The key of a cell: what decides its result, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

NOT_KEYED = ("dataset_path", "title", "changed", "threads", "device", "files")
"""Recorded, but not part of the key: they change where and how fast a cell runs, or how it is called."""


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def cell_key(config: Mapping[str, Any]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of what decides the result."""
    keyed = {name: value for name, value in config.items() if name not in NOT_KEYED}
    return hashlib.sha256(canonical(keyed).encode()).hexdigest()[:16]
