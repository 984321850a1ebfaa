"""Points that Optuna proposes, no two alike: `search=optuna`, which needs the extra of that name.

It imports Ray Tune and Optuna, so it is itself imported only where they propose.
"""

from __future__ import annotations

from typing import Any

import optuna
from ray import tune
from ray.tune.search.optuna import OptunaSearch

from bench.declare.card import Choices, Interval
from bench.tuning.space import scattered, value_at
from bench.tuning.study import Report, Study
from bench.tuning.trial import VALUE

TRIES = 20  # to propose a new point, before one is drawn that nobody proposed


class Proposals(OptunaSearch):
    """Ray's Optuna for a search, going on from its report. A point that was tried, or is being tried, is asked for again:
    two trials of one point would train the same cells, and every method gets as many points."""

    def __init__(self, study: Study, report: Report) -> None:
        self._study = study
        self._points = [trial.point for trial in report.trials]  # proposed so far
        self._names: dict[str, str] = {}  # Optuna's of Tune's trials
        choices = {name: _with_own(study, name) for name in study.space}
        self._idle = {name: value_at(one, 0.0) for name, one in choices.items()}  # in place of what does not matter
        known = [trial for trial in report.trials if trial.value is not None]
        super().__init__(
            OptunaSearch.convert_search_space({name: _domain(one) for name, one in choices.items()}),
            metric=VALUE,
            mode="max",
            sampler=optuna.samplers.TPESampler(seed=study.spec.how.seed + len(report.trials)),
            points_to_evaluate=[self._idle | trial.point for trial in known] or [self._idle | study.first],
            evaluated_rewards=[trial.value for trial in known] or None,
        )

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """A point that nobody tried, with a value for every parameter."""
        for number in range(TRIES):
            name = f"{trial_id}/{number}"
            config: dict[str, Any] = super().suggest(name)
            point = self._study.that_matter(config)
            if point not in self._points:
                self._points.append(point)
                self._names[trial_id] = name
                return config
            super().on_trial_complete(name, error=True)
        study = self._study
        drawn = scattered(study.space, len(self._points) + 1, study.spec.how.seed, study.first, study.conditions)
        point = next(one for one in drawn if one not in self._points)
        self._points.append(point)
        return self._idle | point

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """What a trial has at a mark."""
        if trial_id in self._names:
            super().on_trial_result(self._names[trial_id], result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """What became of a trial."""
        if trial_id in self._names:
            super().on_trial_complete(self._names[trial_id], result, error)


def _domain(choices: Choices) -> Any:
    if not isinstance(choices, Interval):
        return tune.choice(choices)
    return (tune.loguniform if choices.log else tune.uniform)(choices.min, choices.max)


def _with_own(study: Study, name: str) -> Choices:
    """The choices of a parameter, with the row's own value among them."""
    choices = study.space[name]
    own = study.first.get(name)
    if isinstance(choices, Interval):
        return (
            choices
            if own is None
            else Interval(min=min(choices.min, own), max=max(choices.max, own), log=choices.log and own > 0)
        )
    return choices if name not in study.first or own in choices else [own, *choices]
