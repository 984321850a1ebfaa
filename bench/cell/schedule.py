"""Letters that change while a cell trains: what its declaration says of them under `schedule`.

`schedule` lists changes in the order of their `captions`: from the first end of an epoch at which as many were read, the
values in its `settings` and `train` hold. The training is then taken up anew from its saved state, so that a cell with a
schedule ends where a population's member ended whose letters changed just so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SCHEDULE = "schedule"


class PartOver(Exception):  # noqa: N818 - no fault: the state is saved, and what follows may have other letters
    """A part of a training has come to its end."""


def in_force(config: Mapping[str, Any], captions: int) -> dict[str, Any]:
    """The configuration with the letters that hold once `captions` were read."""
    found = dict(config)
    for change in config.get(SCHEDULE, ()):
        if change["captions"] <= captions:
            found |= {group: {**found[group], **change[group]} for group in ("settings", "train")}
    return found


def next_change(config: Mapping[str, Any], captions: int) -> int | None:
    """The captions at which letters change next; None where they stay."""
    return min((one["captions"] for one in config.get(SCHEDULE, ()) if one["captions"] > captions), default=None)
