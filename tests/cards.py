"""What the cards say of every method and variant, read by PyYAML alone: on a bare machine there is no pydantic to check them.

`tests/unit/test_gpu.py` holds it against the cards as the project reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import methods


@dataclass(frozen=True)
class CardRow:
    """A variant of a method: its settings, the shares of its phases, and the streams that it reads."""

    method: str
    variant: str
    settings: Mapping[str, Any]
    phases: Mapping[str, float]
    streams: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.method}:{self.variant}"


def card_rows() -> dict[str, CardRow]:
    """Every variant of every method that ships with the project, by `method:variant`."""
    folder = Path(methods.__path__[0])
    rows = [
        row for path in sorted(folder.glob("*/card.yaml")) for row in _rows(yaml.safe_load(path.read_text("utf-8")))
    ]
    return {row.name: row for row in rows}


def _rows(card: Mapping[str, Any]) -> list[CardRow]:
    defaults = {name: setting["default"] for name, setting in card["settings"].items()}
    return [
        CardRow(
            card["name"],
            name,
            defaults | variant.get("settings", {}),
            variant.get("phases") or card.get("phases") or {"base": 1.0},
            _streams(card["streams"], variant),
        )
        for name, variant in card["variants"].items()
    ]


def _streams(streams: Mapping[str, list[str]], variant: Mapping[str, Any]) -> tuple[str, ...]:
    """All needed streams, and of those that are used the ones that the variant reads."""
    reads, more = variant.get("reads"), variant.get("needs", [])
    uses = [name for name in streams.get("uses", []) if reads is None or name in reads]
    return tuple(dict.fromkeys([*streams.get("needs", []), *more, *uses]))
