"""How often a trial is tried: once where it would fail again, and once more on a whole GPU where its share was too small.

Ray Tune tries a trial again however it failed; a lost worker or node, and a place that could not be written, deserve it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from ray import tune
from ray.tune import Callback, PlacementGroupFactory

from bench.cell.job import out_of_memory

FATE = "fate"
HOPELESS, HUNGRY = "hopeless", "hungry"


def held_gpus() -> float:
    """The share of a GPU that the trial of this worker has now."""
    resources = tune.get_context().get_trial_resources()
    return float(resources.required_resources.get("GPU", 0.0)) if resources is not None else 0.0


@contextlib.contextmanager
def told_first(send: Callable[..., None], start: dict[str, Any]) -> Iterator[Callable[..., None]]:
    """In a worker: what the block raises is preceded by a report of what became of the trial, for only reports come before Tune
    decides whether to try again.

    Yields what to report by, in place of `send`; `start` is the report of a trial that has not reported yet.
    """
    last, rest = start, 0

    def remembered(result: dict[str, Any], *more: Any) -> None:
        nonlocal last, rest
        last, rest = result, len(more)
        send(result, *more)

    try:
        yield remembered
    except OSError:
        raise
    except Exception as error:
        fate = HUNGRY if out_of_memory(error) and 0 < held_gpus() < 1 else HOPELESS
        send({**last, FATE: fate}, *[None] * rest)
        raise


class Failures(Callback):
    """In the driver: takes note of what became of trials, and gives the hungry ones a whole GPU."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def __getstate__(self) -> dict[str, Any]:
        """Nothing of it is needed to restore a search."""
        return {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        if result.get(FATE) == HOPELESS:
            trial.max_failures = 0

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.last_result.get(FATE) == HUNGRY:
            (bundle,) = trial.placement_group_factory.bundles
            trial.update_resources(PlacementGroupFactory([{**bundle, "GPU": 1.0}]))
            self._say(f"{trial}: once more, alone on a whole GPU")
