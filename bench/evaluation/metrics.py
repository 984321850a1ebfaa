"""The table of metrics. A metric is a row here and a file that counts it; whoever names, scores or shows metrics reads this.

Light: neither numpy nor Java is needed to read the table. `Counting` in `statistics.py` is what the file of a metric provides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NUMPY = "bench-1"  # raised by hand if a number of the numpy metrics ever changes
PTB = "ptb-3.4.1"
DENSEVID = "densevid_eval-2018"
PREFIX = "densevid_"  # of a metric's name where events were scored by densevid's rules


@dataclass(frozen=True)
class Part:
    """What one file counts of every clip, for one metric or several.

    `columns` name numbers that add up over clips and of which corpus scores are made. Without them a clip's number is its
    score, and the score of the corpus is the mean of these. Columns and metrics stand in one file, so no two share a name.
    """

    name: str
    module: str
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """A row. `name` stands in records, `short` in tables, `long` in signatures; `version` is that of its implementation.

    `top` is the highest score on the papers' scale. Those that are `shown` stand in the tables of pages, the `ranked` one
    orders them.
    """

    name: str
    short: str
    long: str
    part: Part
    version: str = NUMPY
    top: float = 100.0
    shown: bool = False
    ranked: bool = False

    @property
    def title(self) -> str:
        """The name over a figure, as papers print it: `CIDEr`, whichever variant of it."""
        return self.long.removesuffix("-D")


BLEU = Part(
    "bleu",
    "bench.evaluation.bleu",
    (*(f"correct{n}" for n in range(1, 5)), *(f"guessed{n}" for n in range(1, 5)), "length", "closest"),
)
METEOR = Part("meteor", "bench.evaluation.meteor", tuple(f"meteor{number}" for number in range(23)))
ROUGE = Part("rouge_l", "bench.evaluation.rouge")
CIDER = Part("cider", "bench.evaluation.cider")

_ROWS = (
    Metric("bleu1", "B@1", "BLEU-1", BLEU),
    Metric("bleu2", "B@2", "BLEU-2", BLEU),
    Metric("bleu3", "B@3", "BLEU-3", BLEU),
    Metric("bleu4", "B@4", "BLEU-4", BLEU, shown=True),
    Metric("meteor", "M", "METEOR", METEOR, version="meteor-1.5", shown=True),
    Metric("rouge_l", "R-L", "ROUGE-L", ROUGE, shown=True),
    # CIDEr-D is 0 to 10 by definition.
    Metric("cider", "CIDEr", "CIDEr-D", CIDER, top=1000.0, shown=True, ranked=True),
)

METRICS = {row.name: row for row in _ROWS}
"""Rows by name, in the order of every table and file. Rows of one part stand together, in the order in which it counts them."""
PARTS = {row.part.name: row.part for row in _ROWS}
MEANS = tuple(row.name for row in _ROWS if not row.part.columns)
"""Metrics whose corpus score is the mean of the scores of its clips."""
SHOWN = {row.name: row.short for row in _ROWS if row.shown}
RANKED_BY = next(row.name for row in _ROWS if row.ranked)
TOP = {prefix + row.name: row.top for prefix in ("", PREFIX) for row in _ROWS}
"""Every name that a score of a record may have -> its highest value on the papers' scale."""


def made_of(part: str) -> tuple[str, ...]:
    """The names of the metrics that are made of a part."""
    return tuple(row.name for row in _ROWS if row.part.name == part)


def long_name(metric: str) -> str:
    """`CIDEr-D`, or `densevid CIDEr-D` of events."""
    name = METRICS[metric.removeprefix(PREFIX)].long
    return f"densevid {name}" if metric.startswith(PREFIX) else name


def outdated(signatures: Mapping[str, str]) -> list[str]:
    """Metrics whose signature names another implementation, tokenizer or rules than this version's."""
    found = []
    for metric, signature in signatures.items():
        fields = dict(field.partition(":")[::2] for field in signature.split("|")[1:])
        row = METRICS.get(metric.removeprefix(PREFIX))
        now = {"impl": row.version if row else None, "tok": PTB, "rules": DENSEVID}
        if any(fields.get(name, version) != version for name, version in now.items()):
            found.append(metric)
    return found
