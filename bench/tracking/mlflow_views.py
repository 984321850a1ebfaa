"""Views that MLflow's own pages open: papers by their means over seeds, every run, captions side by side, each search.

A view is the state of the page of an experiment, kept as a tag of the experiment and called by the tag's name in an address.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlflow.entities import Run

VIEW = "mlflow.sharedViewState."  # before the name of a view in the tags of an experiment
SCORES = ("test/cider", "test/meteor", "test/bleu4", "test/rouge_l")
COSTS = ("cost/minutes", "cost/GB", "cost/params")
CURVES = ("train/xent", "train/loss")
CURVE, BEST, MINUTES, SCORE = "val/cider", "best/val_cider", "cost/minutes", "test/cider"
COLUMNS = (SCORE, "test/meteor", "test/bleu4", MINUTES)
SECTIONS = {
    "val": (1, 400),
    "test": (4, 330),
    "cost": (4, 330),
    "train": (2, 330),
}  # charts beside each other, their height
COMPARED = 10  # runs whose captions MLflow's table shows
SHOWN_RUNS = 100  # runs that one chart draws
CELLS = "tags.`bench.kind` = 'cell'"
GREEK = range(0x3B1, 0x3CA)
GROUPINGS = (
    ("param", "label"),
    *(("tag", name) for name in ("label", "Label", "paper", "Paper", "name", "row", "Row", "line")),
)
PALETTE = (  # of the page, in its order
    "a6630c c83243 b45091 8a63bf 434a93 137dae 04867d 308613 facb66 1f272d 445461 5f7281 8396a5 93320b be501e de7921 "
    "f2be88 115026 277c43 3ba65e 8ddda8 9e102c c82d4c e65b77 f792a6 0e538b 2272b4 4299e0 8acaff"
).split()


def page(server: str, experiment: str, view: str = "papers", mode: str | None = "CHART") -> str:
    """The address of a view; `mode` is CHART, ARTIFACT (the table of captions) or None (the table of runs).

    MLflow applies no view where anything else stands in the address.
    """
    compared = f"&compareRunsMode={mode}" if mode else ""
    return f"{server}/#/experiments/{experiment}/runs?workflowType=machine_learning{compared}&viewStateShareKey={view}"


def grouping(runs: Iterable[Run]) -> tuple[str, str]:
    """The tag, or the parameter, that holds the labels of cells and by whose name their groups get colours that differ most.

    MLflow's page colours a group by a checksum of the name and the value that it has in common, and nothing else decides it.
    """
    labels = sorted({run.data.params["label"] for run in runs if "label" in run.data.params})
    return max(GROUPINGS, key=lambda way: _contrast([f"{way[0]}.{way[1]}.{label}" for label in labels]))


def _contrast(groups: Sequence[str]) -> tuple[int, int]:
    """How many colours groups have, and how far the nearest two are apart."""
    found = {PALETTE[_checksum(group) % len(PALETTE)] for group in groups}
    colours = [[int(colour[at : at + 2], 16) for at in (0, 2, 4)] for colour in found]
    apart = [sum((x - y) ** 2 for x, y in zip(*pair, strict=True)) for pair in itertools.combinations(colours, 2)]
    return len(found), min(apart, default=0)


def _checksum(text: str) -> int:
    """Fletcher's, as the page computes it."""
    low = high = 0
    for letter in text:
        low = (low + ord(letter)) % 255
        high = (high + low) % 255
    return low | high << 8


def views(experiment: str, runs: Sequence[Run]) -> dict[str, str]:
    """Tags of an experiment: its views, and a description with links to them."""
    cells = [run for run in runs if run.data.tags["bench.kind"] == "cell"]
    newest = max((run.info.start_time for run in runs), default=0)
    metrics = {name for run in cells for name in run.data.metrics}
    letters = sorted({name for run in cells for name, value in run.data.params.items() if _is_swept(name, value)})
    columns = [f"params.`{name}`" for name in letters] + [f"metrics.`{name}`" for name in COLUMNS]
    labels = sorted({run.data.params["label"] for run in cells if "label" in run.data.params})
    mode, name = grouping(cells)
    group = {
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": mode, "groupByData": name}]},
        "useGroupedValuesInCharts": True,
        "groupsExpanded": {f"{mode}.{name}.{label}": False for label in labels},  # else their runs fill the list
    }
    order = {"orderByKey": f"metrics.`{SCORE}`", "orderByAsc": False}
    papers = _state(CELLS, columns, _charts(metrics)) | order | group
    every = _state(CELLS, columns, [*_charts(metrics), _chart("DIFFERENCE", "train", "", number=9)]) | order
    said = _state(_of_first_seeds(cells), columns, _charts(metrics)) | order
    found = {
        "papers": ("Papers (mean over seeds)", papers),
        "runs": ("Every run", every),
        "captions": ("Captions, one run of each row", said),
    }
    for name in sorted({run.data.tags["search"] for run in runs if "search" in run.data.tags}):
        of_search = [run for run in runs if run.data.tags.get("search") == name]
        found[search_view(name)] = (f"Search: {name}", _search(name, of_search))
    return {VIEW + key: _tag(title, state, newest) for key, (title, state) in found.items()} | {
        "mlflow.note.content": _description(experiment, {key: title for key, (title, _) in found.items()})
    }


def pages(experiments: Mapping[str, str], dataset: str | None) -> dict[str, str]:
    """What there is to see, below a server's address: the views of one data set, else the papers of each."""
    if dataset is None:
        return {name: page("", experiment) for name, experiment in experiments.items()}
    one = experiments[dataset]
    return {
        "papers": page("", one),
        "every run": page("", one, "runs"),
        "captions": page("", one, "captions", "ARTIFACT"),
        "table": page("", one, mode=None),
    }


def _is_swept(name: str, value: str) -> bool:
    """Whether a parameter is a Greek letter with a number."""
    return len(name) == 1 and ord(name) in GREEK and value.replace(".", "").replace("e-", "").isdigit()


def search_view(name: str) -> str:
    """The view of a search in addresses."""
    return f"search-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _search(name: str, trials: Sequence[Run]) -> dict[str, Any]:
    """The trials of a search: their curves, and the best score against each setting that was searched."""
    searched = sorted({word for run in trials for word in run.data.tags.get("searched", "").split()})
    charts = [_chart("LINE", "val", CURVE), *(_scatter("best", (one, "PARAM"), BEST) for one in searched)]
    charts.append(_chart("BAR", "best", BEST))
    columns = [f"params.`{one}`" for one in searched] + [f"metrics.`{BEST}`", "tags.`chosen`", "tags.`printed`"]
    state = _state(f"tags.`search` = '{name}'", columns, charts, ("val", "best"))
    return state | {"orderByKey": f"metrics.`{BEST}`", "orderByAsc": False}


def _of_first_seeds(cells: Iterable[Run]) -> str:
    """A filter for one run of each label, the first of its seeds, at most as many as the table of captions shows."""
    first: dict[str, Run] = {}
    for run in sorted(cells, key=lambda run: (int(run.data.params.get("seed", 0)), run.info.start_time)):
        if SCORE in run.data.metrics:
            first.setdefault(run.data.params.get("label", ""), run)
    best = sorted(first.values(), key=lambda run: -run.data.metrics[SCORE])[:COMPARED]
    seeds = {run.data.params["seed"] for run in best}
    if len(seeds) == 1 and len(best) == len(first):
        return f"{CELLS} AND params.`seed` = '{seeds.pop()}'"
    ids = ", ".join(f"'{run.info.run_id}'" for run in best) or "''"
    return f"attributes.run_id IN ({ids})"


def _state(
    chosen: str, columns: Sequence[str], charts: Sequence[Mapping[str, Any]], sections: Iterable[str] = SECTIONS
) -> dict[str, Any]:
    sizes = {name: SECTIONS.get(name, (2, 330)) for name in sections}
    return {
        "searchFilter": chosen,
        "runsHiddenMode": "SHOW_ALL",
        "selectedColumns": columns,
        "columnOrder": columns,
        "isAccordionReordered": True,  # keeps the order of the sections, else they stand by the alphabet
        "compareRunSections": [
            {
                "uuid": f"s-{name}",
                "name": name,
                "display": True,
                "isReordered": True,
                "columns": wide,
                "cardHeight": high,
            }
            for name, (wide, high) in sizes.items()
        ],
        "compareRunCharts": charts,
    }


def _charts(metrics: Iterable[str]) -> list[dict[str, Any]]:
    """Curves, scores and costs; what else there is in the sections of scores and costs is kept away."""
    charts = [_chart("LINE", "val", CURVE)]
    charts += [_chart("BAR", "test", name, number) for number, name in enumerate(SCORES)]
    charts += [_scatter("cost", (MINUTES, "METRIC"), SCORE)]
    charts += [_chart("BAR", "cost", name, number) for number, name in enumerate(COSTS, 1)]
    charts += [_chart("LINE", "train", name, number) for number, name in enumerate(CURVES)]
    others = sorted(set(metrics) - {CURVE, *SCORES, *COSTS, *CURVES})
    away = [name for name in others if name.partition("/")[0] in SECTIONS]
    return charts + [
        _chart("BAR", name.partition("/")[0], name, number) | {"deleted": True} for number, name in enumerate(away, 90)
    ]


def _chart(kind: str, section: str, metric: str, number: int = 0) -> dict[str, Any]:
    chart: dict[str, Any] = {
        "uuid": f"{section}-{kind.lower()}-{number}",
        "type": kind,
        "metricSectionId": f"s-{section}",
        "runsCountToCompare": SHOWN_RUNS,
        "deleted": False,
        "isGenerated": kind in ("LINE", "BAR"),
    }
    if metric:
        chart["metricKey"] = metric
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
        chart |= {
            "compareGroups": ["Parameters", "Model Metrics"],
            "chartName": "Settings",
            "showChangeFromBaseline": False,
        }
        chart |= {"showDifferencesOnly": True, "baselineColumnUuid": ""}
    return chart


def _scatter(section: str, across: tuple[str, str], up: str) -> dict[str, Any]:
    """A metric against a metric or parameter."""
    key, kind = across
    axes = {"xaxis": {"key": key, "type": kind}, "yaxis": {"key": up, "type": "METRIC"}}
    return _chart("SCATTER", section, "") | axes | {"uuid": f"{section}-scatter-{key}"}


def _tag(title: str, state: Mapping[str, Any], moment: int) -> str:
    text = json.dumps(state, ensure_ascii=False)
    return json.dumps({"name": title, "createdAt": moment, "updatedAt": moment, "state": text}, ensure_ascii=False)


def _description(experiment: str, titles: Mapping[str, str]) -> str:
    """Links to the views, for the head of the experiment's page."""
    modes = {"captions": "ARTIFACT"}
    links = [f"[{title}]({page('', experiment, key, modes.get(key, 'CHART'))[1:]})" for key, title in titles.items()]
    return " · ".join([*links, f"[Table]({page('', experiment, mode=None)[1:]})"])
