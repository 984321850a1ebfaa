"""The conformance suite, for every method that ships with the project."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.conformance.checks import CHECKS, NEAR
from bench.conformance.workplace import Bench
from bench.data.batches import CorpusClips, StreamSource
from bench.declare.registry import find_methods

CARDS = {name: entry.card for name, entry in find_methods().items() if entry.card}
ROWS = {f"{name}:{row}": variant for name, card in CARDS.items() for row, variant in card.variants.items()}
STREAMS = [row for row, variant in ROWS.items() if variant.needs]
ENCODERS = ["vre:kbigru"]  # its encoder is another network, trained in the phase of vre:attention


def phase_rows() -> list[str]:
    """Of the variants of a method that train in phases of their own, and the same ones: whose settings differ most from the
    default's."""
    found: dict[tuple[str, ...], tuple[int, str]] = {}
    for row, variant in ROWS.items():
        method, _, _ = row.partition(":")
        if variant.phases and not variant.needs:
            usual = CARDS[method].variants[CARDS[method].default].settings
            apart = sum(usual.get(name) != value for name, value in variant.settings.items())
            phases = (method, *variant.phases)
            found[phases] = max(found.get(phases, (-1, "")), (apart, row), key=lambda one: one[0])
    return sorted(row for _, row in found.values())


# Every check is made of every method by its default variant, and of the variants that need streams or train in phases which that
# one does not; all variants are one package, which is imported alone once. The other variants are looked at from the sides on
# which their own settings may be at fault. With more phases the tiny corpus leaves an epoch of some of them a single batch, whose
# loss may lie above that of the first; so these train for two epochs, and that they learn is seen in test_methods.
LONG = [*CARDS, *STREAMS]
SHORT = [*phase_rows(), *ENCODERS]
DEFAULTS = [f"{method}:{card.default}" for method, card in CARDS.items()]
OTHERS = [row for row in ROWS if row not in (*LONG, *SHORT, *DEFAULTS)]
ONCE = ("imports_alone",)
CLOSE = (
    "comes_to_its_end",
    "decodes_what_is_asked",
    "decodes_each_clip_by_itself",
    "sees_no_padding",
    "keeps_to_its_words",
    "tells_how_likely",
    "state_dict_is_whole",
    "keeps_to_the_budget",
    "resumes_exactly",
)
CASES = [
    *((method, check) for method in sorted(CARDS) for check in CHECKS),
    *((row, check) for row in sorted(STREAMS) for check in CHECKS if check not in ONCE),
    *((row, check) for row in SHORT for check in CHECKS if check not in (*ONCE, "learns")),
    *((row, check) for row in OTHERS for check in CLOSE),
]


@pytest.fixture(scope="module")
def bench_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    made: dict[str, Bench] = {}

    def get(method: str) -> Bench:
        if method not in made:
            epochs = () if method in LONG else ("train.epochs=2",)
            made[method] = Bench(method, Path(tmp_path_factory.mktemp(method)), epochs)
        return made[method]

    return get


@pytest.mark.parametrize(("method", "check"), CASES)
def test_conformance(method: str, check: str, bench_of: Callable[[str], Bench]) -> None:
    CHECKS[check](bench_of(method))


@pytest.mark.parametrize("method", sorted(CARDS))
def test_more_padding_changes_no_caption(method: str, bench_of: Callable[[str], Bench]) -> None:
    bench = bench_of(method)
    _, inputs = bench.trained()
    for one, more in zip(bench.decode(), bench.decode(widened(inputs.target, 3)), strict=True):
        assert (one.clip, one.text) == (more.clip, more.text)
        assert one.log_probability == pytest.approx(more.log_probability, abs=NEAR)


def widened(clips: CorpusClips, steps: int) -> CorpusClips:
    """The same clips with `steps` more time steps of padding, as beside a longer clip."""

    def wide(source: StreamSource) -> StreamSource:
        def read(ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
            values, lengths = source.read(ids)
            return np.pad(values, ((0, 0), (0, steps), *[(0, 0)] * (values.ndim - 2))), lengths

        shape = (source.info.shape[0] + steps, *source.info.shape[1:])
        return StreamSource(replace(source.info, shape=shape), read) if source.info.timed else source

    return clips._like(clips.ids, {name: wide(source) for name, source in clips._sources.items()})
