"""Views that MLflow's own pages open: papers by their means over seeds, every run, captions side by side, each search.

A view is the state of the page of an experiment, kept as a tag of the experiment and called by the tag's name in an address.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from mlflow.entities import Run

VIEW = "mlflow.sharedViewState."  # before the name of a view in the tags of an experiment
CURVE, BEST, MINUTES, SCORE = "val/cider", "best/val_", "cost/minutes", "test/cider"
BARS = (SCORE, "test/meteor", "test/bleu4", "test/rouge_l", MINUTES, "cost/GB", "cost/params")
LINES = (CURVE, "train/xent", "train/loss")
COLUMNS = (SCORE, "test/meteor", "test/bleu4", MINUTES)
# Of charts: how many in a row, and their height.
SECTIONS = {
    "val": (1, 400),
    "best": (2, 330),
    "test": (4, 330),
    "cost": (4, 330),
    "settings": (1, 400),
    "train": (2, 330),
}
COMPARED = 10  # runs whose captions MLflow's table shows
CELLS = "tags.`bench.kind` = 'cell'"
FOLDS = "tags.`bench.kind` = 'folds'"
GREEK = range(0x3B1, 0x3CA)
# Where labels may stand: MLflow's page colours a group by a checksum of this and the label, and by nothing else.
GROUPINGS: tuple[tuple[str, str], ...] = (
    ("param", "label"),
    *(("tag", word) for word in "label Label paper Paper row Row name Name line title idea entry".split()),
)
PALETTE = (  # of the page, in its order
    "a6630c c83243 b45091 8a63bf 434a93 137dae 04867d 308613 facb66 1f272d 445461 5f7281 8396a5 93320b be501e de7921 "
    "f2be88 115026 277c43 3ba65e 8ddda8 9e102c c82d4c e65b77 f792a6 0e538b 2272b4 4299e0 8acaff"
).split()


def page(experiment: str, view: str = "papers", mode: str | None = "CHART") -> str:
    """The address of a view below that of the server; `mode` is CHART, ARTIFACT (the captions) or None (the table of runs).

    MLflow applies no view where anything else stands in the address.
    """
    compared = f"&compareRunsMode={mode}" if mode else ""
    return f"/#/experiments/{experiment}/runs?workflowType=machine_learning{compared}&viewStateShareKey={view}"


def pages(experiments: Mapping[str, str], dataset: str | None) -> dict[str, str]:
    """What there is to see: the views of one data set, else the papers of each."""
    if dataset is None:
        return {name: page(experiment) for name, experiment in experiments.items()}
    one, other = experiments[dataset], {"captions": page(experiments[dataset], "captions", "ARTIFACT")}
    return {"papers": page(one), "every run": page(one, "runs"), **other, "table": page(one, mode=None)}


def looks(labels: Collection[str], label: str) -> dict[str, str]:
    """The tags by which the runs of one of `labels` have one colour, alone and as a group."""
    mode, name = _grouping(frozenset(labels))
    return {"mlflow.runColor": f"#{_colour(mode, name, label)}", **({name: label} if mode == "tag" else {})}


@functools.lru_cache(1)
def _grouping(labels: frozenset[str]) -> tuple[str, str]:
    """The parameter or tag of labels by whose name their groups get colours that differ most."""
    return max(GROUPINGS, key=lambda way: _contrast({_colour(way[0], way[1], label) for label in labels}))


def _colour(mode: str, name: str, label: str) -> str:
    """Of a group on MLflow's page: of its palette, by Fletcher's checksum."""
    low = high = 0
    for letter in f"{mode}.{name}.{label}":
        low = (low + ord(letter)) % 255
        high = (high + low) % 255
    return PALETTE[(low | high << 8) % len(PALETTE)]


def _contrast(colours: Collection[str]) -> tuple[int, float]:
    """How many colours there are, and how far the nearest two are apart, in hue more than in lightness."""
    parts = [[int(colour[at : at + 2], 16) for at in (0, 2, 4)] for colour in colours]
    seen = [((red + green + blue) / 5, red - green, (red + green) / 2 - blue) for red, green, blue in parts]
    return len(colours), min((math.dist(*pair) for pair in itertools.combinations(seen, 2)), default=0.0)


def views(experiment: str, runs: Sequence[Run]) -> dict[str, str]:
    """Tags of an experiment: its views, and a description with links to them."""
    cells = [run for run in runs if run.data.tags["bench.kind"] == "cell"]
    rows = [run for run in runs if run.data.tags["bench.kind"] == "folds"]
    letters = {name for run in cells for name, value in run.data.params.items() if _is_swept(name, value)}
    columns = [*(f"params.`{name}`" for name in sorted(letters)), *(f"metrics.`{name}`" for name in COLUMNS)]
    charts = _charts({name for run in cells for name in run.data.metrics})
    mode, name = _grouping(frozenset(run.data.tags["bench.label"] for run in runs))
    group = {
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": mode, "groupByData": name}]},
        "useGroupedValuesInCharts": True,
        # Else the runs of all groups fill the list.
        "groupsExpanded": {f"{mode}.{name}.{run.data.tags['bench.label']}": False for run in cells},
    }
    found = {
        "papers": ("Papers (mean over seeds)", _state(CELLS, columns, charts, SCORE) | group),
        "runs": ("Every run", _state(CELLS, columns, [*charts, _chart("DIFFERENCE", "settings/all")], SCORE)),
        "captions": ("Captions, one run of each row", _state(_one_of_each([*rows, *cells]), columns, charts, SCORE)),
    }
    if rows:
        found["folds"] = ("All folds together", _state(FOLDS, columns, charts, SCORE))
    for name in sorted({run.data.tags["search"] for run in runs if "search" in run.data.tags}):
        key = hashlib.sha256(name.encode()).hexdigest()[:8]
        found[f"search-{key}"] = (
            f"Search: {name}",
            _search([run for run in runs if run.data.tags.get("search") == name]),
        )
    newest = max((run.info.start_time for run in runs), default=0)
    links = [f"[{title}]({page(experiment, key)[1:]})" for key, (title, _) in found.items() if key != "captions"]
    links += [
        f"[Captions]({page(experiment, 'captions', 'ARTIFACT')[1:]})",
        f"[Table]({page(experiment, mode=None)[1:]})",
    ]
    tags = {VIEW + key: _tag(title, state, newest) for key, (title, state) in found.items()}
    return {**tags, "mlflow.note.content": " · ".join(links)}


def _search(trials: Sequence[Run]) -> dict[str, Any]:
    """The trials of a search: their curves, and the best score against each setting that was searched."""
    searched = sorted({word for run in trials for word in run.data.tags.get("searched", "").split()})
    metric = trials[0].data.tags.get("metric", "cider")
    best, curve = f"{BEST}{metric}", f"val/{metric}"
    charts = [_chart("LINE", curve), *(_scatter("best", one, "PARAM", best) for one in searched), _chart("BAR", best)]
    columns = [*(f"params.`{one}`" for one in searched), f"metrics.`{best}`", "tags.`chosen`", "tags.`printed`"]
    return _state(f"tags.`search` = '{trials[0].data.tags['search']}'", columns, charts, best)


def _is_swept(name: str, value: str) -> bool:
    """Whether a parameter is a Greek letter with a number."""
    return len(name) == 1 and ord(name) in GREEK and value.replace(".", "").replace("e-", "").isdigit()


def _one_of_each(runs: Iterable[Run]) -> str:
    """A filter for one run of each label, at most as many as the table of captions shows: all folds, or the first seed."""
    first: dict[str, Run] = {}

    def order(run: Run) -> tuple[bool, int, int]:
        return run.data.tags["bench.kind"] == "cell", int(run.data.params.get("seed", 0)), run.info.start_time

    for run in sorted(runs, key=order):
        if SCORE in run.data.metrics:
            first.setdefault(run.data.params.get("label", ""), run)
    best = sorted(first.values(), key=lambda run: -run.data.metrics[SCORE])[:COMPARED]
    seeds = {run.data.params.get("seed") for run in best}
    if len(seeds) == 1 and len(best) == len(first) and all(run.data.tags["bench.kind"] == "cell" for run in best):
        return f"{CELLS} AND params.`seed` = '{seeds.pop()}'"
    return f"attributes.run_id IN ({', '.join(repr(run.info.run_id) for run in best) or repr('')})"


def _state(chosen: str, columns: Sequence[str], charts: Sequence[Any], order: str) -> dict[str, Any]:
    own: dict[str, Any] = {"display": True, "isReordered": True}
    return {
        "searchFilter": chosen,
        "orderByKey": f"metrics.`{order}`",
        "orderByAsc": False,
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": columns,
        "columnOrder": columns,
        "isAccordionReordered": True,  # keeps the order of the sections, else they stand by the alphabet
        "compareRunSections": [
            {"uuid": f"s-{name}", "name": name, "columns": wide, "cardHeight": high, **own}
            for name, (wide, high) in SECTIONS.items()
            if any(chart["metricSectionId"] == f"s-{name}" for chart in charts)
        ],
        "compareRunCharts": charts,
    }


def _charts(metrics: Iterable[str]) -> list[dict[str, Any]]:
    """Curves, scores and costs; what else there is in their sections is kept away."""
    away = [name for name in sorted({*metrics} - {*LINES, *BARS}) if name.startswith(("test/", "cost/"))]
    charts = [
        _chart("LINE", CURVE),
        _scatter("cost", MINUTES, "METRIC", SCORE),
        *(_chart("BAR", name) for name in BARS),
    ]
    charts += [_chart("LINE", name) for name in LINES[1:]]
    return charts + [_chart("BAR", name) | {"deleted": True} for name in away]


def _chart(kind: str, metric: str) -> dict[str, Any]:
    """A chart of a metric in the section that its name begins with."""
    chart = {"uuid": f"{kind}-{metric}", "type": kind, "metricKey": metric, "runsCountToCompare": 100, "deleted": False}
    chart |= {"metricSectionId": f"s-{metric.partition('/')[0]}", "isGenerated": kind in ("LINE", "BAR")}
    if kind == "LINE":
        chart |= {
            "lineSmoothness": 0,
            "scaleType": "linear",
            "xAxisScaleType": "linear",
            "range": {},
            "xAxisKey": "step",
        }
        chart |= {"yAxisKey": "metric", "yAxisExpressions": [], "selectedXAxisMetricKey": ""}
        chart |= {"useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}
    if kind == "DIFFERENCE":
        chart |= {"chartName": "Settings", "compareGroups": ["Parameters", "Model Metrics"]}
        chart |= {"showDifferencesOnly": True, "showChangeFromBaseline": False, "baselineColumnUuid": ""}
    return chart


def _scatter(section: str, across: str, kind: str, up: str) -> dict[str, Any]:
    """A metric against a metric or parameter."""
    axes = {"xaxis": {"key": across, "type": kind}, "yaxis": {"key": up, "type": "METRIC"}}
    return {**_chart("SCATTER", f"{section}/{across}"), **axes}


def _tag(title: str, state: Mapping[str, Any], moment: int) -> str:
    text = json.dumps(state, ensure_ascii=False)
    return json.dumps({"name": title, "createdAt": moment, "updatedAt": moment, "state": text}, ensure_ascii=False)
