"""`bench mlflow sync`: the MLflow view made again from what lies in the results folder. What is there already stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from mlflow.exceptions import MlflowException

from bench import BenchError
from bench.errors import first_line
from bench.home import Home
from bench.plan.stores import OFF, check_store, shown
from bench.tracking.base import Entry, bring_up_to_date
from bench.tracking.mlflow_runs import MlflowTracker


def sync(
    entries: Sequence[Entry], uri: str | None, home: Home, dataset: str | None, say: Callable[[str], None]
) -> tuple[Counter[str], dict[str, str]]:
    """Write the runs that are missing or not up to date in the store at `uri` (None: the home's own database).

    What killed commands left there of `dataset` (None: of all) is mended. Returns what was done, and the experiments of the
    store by data set. Raises BenchError for a store that cannot be used or is lost on the way; the same command then goes on.
    """
    if uri == OFF:
        raise BenchError("mlflow=off keeps no runs: leave it out, or name a store that is to be written")
    place = uri or home.mlflow_uri
    check_store(place, home)
    done: Counter[str] = Counter()
    try:
        tracker = MlflowTracker(place, home)
        names = [dataset] if dataset else [*tracker.datasets(), *(entry.run.dataset for entry in entries)]
        for name in dict.fromkeys(names):
            here = bring_up_to_date(tracker, name, [entry for entry in entries if entry.run.dataset == name])
            tracker.close(name)
            done += here
            if here["written"]:
                say(f"{name}: {here['written']} runs written")
        return done, tracker.datasets()
    except (MlflowException, OSError) as error:
        raise BenchError(
            f"MLflow at {shown(place)} cannot be written any more ({shown(first_line(error))}): {done['written']} runs are; mend "
            "it and give the same command again"
        ) from error
