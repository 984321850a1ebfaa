"""What a measurement says: rows beside their bars, as a table, as JSON with the hardware, and as a picture of throughput."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tabulate import tabulate

from bench.cell.provenance import provenance
from bench.figures.canvas import BLUE, INK, ORANGE, QUIET, finish, number_ticks, place, sheet, style
from bench.pages.document import Picture

RESULTS = Path(__file__).parent / "results"
WAYS = {"plain": ("published way", QUIET), "fp32": ("engine, fp32", BLUE), "bf16": ("engine, bf16", ORANGE)}
ROW = 0.62  # inches for one method


@dataclass(frozen=True)
class Row:
    """One ratio (or share, or time) of this run beside its bar; `bar` is None for what is told without one.

    `details` are the figures behind it: seconds, captions per second, bytes.
    """

    what: str
    against: str
    measured: float
    bar: float | None = None
    unit: str = "x"
    at_most: bool = False
    details: Mapping[str, float] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the bar is reached."""
        if self.bar is None:
            return None
        return self.measured <= self.bar if self.at_most else self.measured >= self.bar


def told(rows: Sequence[Row]) -> str:
    """The table as text."""
    lines = []
    for row in rows:
        bar = "" if row.bar is None else f"{'at most' if row.at_most else 'at least'} {row.bar:g}{_unit(row)}"
        verdict = {None: "", True: "reached", False: "MISSED"}[row.met]
        details = ", ".join(f"{name} {value:.4g}" for name, value in row.details.items())
        lines.append((row.what, row.against, f"{row.measured:.3g}{_unit(row)}", bar, verdict, details))
    return tabulate(lines, headers=("what", "against", "measured", "bar", "", "behind it"))


def _unit(row: Row) -> str:
    return row.unit if row.unit in ("x", "%") else f" {row.unit}".rstrip()


def save(
    rows: Sequence[Row],
    throughput: Mapping[str, Mapping[str, float]],
    profiles: Mapping[str, Mapping[str, float]],
    threads: int,
    device: str,
    folder: Path = RESULTS,
    part: str = "",
) -> list[Path]:
    """Write the JSON and the picture of a run; returns their paths. Both are named after the processor (or GPU), and `part`."""
    facts = provenance(threads, device) | {"cores": os.cpu_count()}
    name = f"{_slug(device if device != 'cpu' else facts['cpu'])}-{threads}-threads{part and f'-{part}'}"
    content = {
        "hardware": facts,
        "rows": [asdict(row) | {"met": row.met} for row in rows],
        "captions_per_second": throughput,
        "share_of_step_time": profiles,
    }
    paths = [folder / f"{name}.json"]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    paths[0].write_text(json.dumps(_rounded(content), indent=1) + "\n")
    if throughput:
        paths.append(folder / f"{name}.svg")
        where = f"{facts['cpu'] if device == 'cpu' else device}, {threads} threads"
        paths[1].write_text(picture(throughput, where).svg)
    return paths


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _rounded(value: Any) -> Any:
    """Four digits: more are noise."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def picture(throughput: Mapping[str, Mapping[str, float]], where: str) -> Picture:
    """Captions per second of every method, a bar for each way of computing, on a logarithmic axis."""
    with style():
        figure = sheet(0.95 + ROW * len(throughput))
        axes = place(figure, 1.0, 0.6, 6.9, ROW * len(throughput))
        for number, rates in enumerate(throughput.values()):
            ways = [way for way in WAYS if way in rates]
            for line, way in enumerate(ways):
                at = number + (line - (len(ways) - 1) / 2) * 0.26
                label = WAYS[way][0] if way not in axes.get_legend_handles_labels()[1] else None
                axes.barh(at, rates[way], 0.24, color=WAYS[way][1], label=label)
                axes.text(rates[way] * 1.05, at, f"{rates[way]:,.0f}", va="center", color=INK, fontsize=8)
        axes.set_xscale("log")
        number_ticks(axes.xaxis)
        axes.set_xlim(min(min(rates.values()) for rates in throughput.values()) / 2.5, None)
        axes.set_yticks(range(len(throughput)), list(throughput))
        axes.set_ylim(len(throughput) - 0.5, -0.5)
        handles, labels = axes.get_legend_handles_labels()
        kept = dict(zip(labels, handles, strict=True))
        figure.legend(kept.values(), kept.keys(), loc="upper left", bbox_to_anchor=(0.11, 0.99), ncols=3)
        axes.set_xlabel(f"training captions per second, MSVD shape ({where})")
        said = [
            f"{name} {', '.join(f'{WAYS[way][0]} {rate:,.0f}' for way, rate in rates.items())}"
            for name, rates in throughput.items()
        ]
        return finish(figure, "Training captions per second", f"Captions per second: {'; '.join(said)}.")
