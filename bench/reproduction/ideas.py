"""`bench reproduce ideas`: each paper's idea against its own control, as `datasets/ideas/study.yaml` declares it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from bench.declare.card import PLAIN_LOSS
from bench.declare.registry import MethodEntry, method_entry, read_model
from bench.declare.settings import Strict, Train
from bench.errors import unknown
from bench.home import Home, data_folder
from bench.pages.markdown import between_markers
from bench.plan.request import Running, RunSpec, request
from bench.reports.ideas import Compared, Side, render
from bench.reproduction import answers as asked

NAME = "ideas"
SIDES = ("idea", "control")


class Arm(Strict):
    """One side of a comparison: method:variant, with settings of that method changed."""

    run: str = Field(pattern=r"^[a-z0-9_]+:[a-z0-9_]+$")
    loss: str = PLAIN_LOSS
    settings: dict[str, Any] = Field(default_factory=dict)

    @property
    def label(self) -> str:
        """`vre:no_audio beta=0.0`."""
        return " ".join([self.run, *(f"{name}={value}" for name, value in self.settings.items())])


class Pair(Strict):
    """An idea and its control, which differ in one thing, on the same streams; `train` holds for both."""

    paper: str
    question: str
    idea: Arm
    control: Arm
    streams: list[str] = Field(min_length=1)
    train: Train = Train()


class Study(Strict):
    """Comparisons on one corpus with seeds named beforehand."""

    dataset: str
    seeds: list[int] = Field(min_length=2)
    pairs: dict[str, Pair] = Field(min_length=1)


def declaration() -> Path:
    """The file that declares the study."""
    return data_folder("datasets") / NAME / "study.yaml"


def study() -> Study:
    """The declared study. Raises BenchError for a declaration that is not sound."""
    return read_model(declaration(), Study)


def is_asked(word: str) -> bool:
    """Whether a target of `bench reproduce` is `ideas` or one of its pairs, such as `ideas/regions`."""
    return word.partition("/")[0] == NAME


def chosen(word: str, declared: Study) -> list[str]:
    """The pairs that `ideas` or `ideas/NAME` asks for. Raises BenchError with what was probably meant."""
    _, slash, name = word.partition("/")
    if not slash:
        return list(declared.pairs)
    if name not in declared.pairs:
        raise unknown("target", word, [f"{NAME}/{pair}" for pair in declared.pairs])
    return [name]


def requests(
    declared: Study, name: str, base: Running, entries: dict[str, MethodEntry]
) -> Iterator[tuple[str, RunSpec]]:
    """(`idea` or `control`, the request that runs it over all seeds); executor and the like are those of `base`."""
    pair = declared.pairs[name]
    for side, arm in zip(SIDES, (pair.idea, pair.control), strict=True):
        card = method_entry(arm.run.partition(":")[0], entries).card
        assert card is not None
        settings = card.checked(arm.settings, card.name)
        yield (
            side,
            request(
                base.model_copy(update={"seeds": declared.seeds}),
                methods=[arm.run],
                dataset=declared.dataset,
                streams=list(pair.streams),
                loss=arm.loss,
                train=pair.train,
                overrides={card.name: settings} if settings else {},
            ),
        )


def run(word: str, base: Running, home: Home, entries: dict[str, MethodEntry]) -> int:
    """Run the cells of the comparisons that are missing and write down what answers them; returns the exit status."""
    from bench.declare.registry import dataset
    from bench.plan.cells import cells
    from bench.run.prepare import prepare
    from bench.run.runner import run as run_cells

    declared = study()
    names = chosen(word, declared)
    wanted = [(name, side, spec) for name in names for side, spec in requests(declared, name, base, entries)]
    streams = {stream for name in names for stream in declared.pairs[name].streams}
    prepare(dataset(declared.dataset), home, None, streams)
    its = [cells(spec, home, entries) for _, _, spec in wanted]
    unique = {cell.key: cell for some in its for cell in some}
    status = run_cells(list(unique.values()), home, wanted[0][2])
    for name in names:
        keys = {
            side: [asked.place_of(cell) for cell in some]
            for (pair, side, _), some in zip(wanted, its, strict=True)
            if pair == name
        }
        section = asked.Section(small=False, dataset=declared.dataset, protocol="standard", cells=keys)
        asked.note(home, f"{NAME}/{name}", "study", section)
    return status


def pages(home: Home, leaderboards: Path) -> dict[Path, str]:
    """The page of the study, where any of it was run: a function of the declaration and the records."""
    names = [name.partition("/")[2] for name in asked.targets(home) if is_asked(name)]
    if not names:
        return {}
    declared = study()
    path = leaderboards / f"{NAME}.md"
    compared = [_compared(name, pair, home) for name, pair in declared.pairs.items() if name in names]
    missing = [name for name in declared.pairs if name not in names]
    text = render(compared, missing, declared.dataset, declared.seeds, path, home.results)
    return {path: between_markers(path, text)}


def _compared(name: str, pair: Pair, home: Home) -> Compared:
    cells = asked.read(home, f"{NAME}/{name}").sections["study"].cells
    sides: Sequence[Side] = [
        Side(arm.label, tuple(asked.records(home, cells, side)), len(cells.get(side, [])))
        for side, arm in zip(SIDES, (pair.idea, pair.control), strict=True)
    ]
    return Compared(name, pair.paper, pair.question, tuple(pair.streams), *sides)
