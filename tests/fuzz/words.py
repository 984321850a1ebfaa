"""Command lines that nobody would write, by hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from bench.cli.run import Evaluate
from bench.declare.options import keys, parse
from bench.plan.request import RunSpec
from bench.plan.request import parse as parse_request
from bench.tuning.request import How
from bench.tuning.request import parse as parse_search

ODD = [
    "",
    "null",
    "NaN",
    "1e999",
    "-1",
    "0x10",
    "[",
    "]",
    "[[[]]]",
    "{a: b}",
    "{a: *a}",
    "&a [*a]",
    "!!str 3",
    "a,b",
    "a=b",
    "...",
]
ODD += [
    "[" * 200,
    "9" * 5000,
    "1" * 400,
    "~nobody/x",
    "\x00",
    "\n",
    "'",
    '"',
    "%",
    "\ud800",
    "é漢🎬",
    "/dev/zero",
    "*",
    "a:*",
    "a" * 300,
]
METHODS = ["salstm", "mplstm:rl", "recnet:global", "hail", "salstm:*", "external"]

scalars = st.one_of(
    st.sampled_from(ODD), st.integers().map(str), st.floats().map(str), st.text(max_size=8), st.sampled_from(METHODS)
)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=3).map(lambda found: f"[{','.join(found)}]"),
    st.dictionaries(scalars, scalars, max_size=2).map(
        lambda found: f"{{{', '.join(f'{k}: {v}' for k, v in found.items())}}}"
    ),
)
known = sorted(
    {
        *keys(RunSpec),
        *keys(How),
        "recnet.lambda",
        "glrg.Q",
        "space.recnet.lambda",
        "space.salstm.train.learning_rate.min",
    }
)
names = st.one_of(
    st.sampled_from(known), st.text(max_size=6), st.tuples(st.sampled_from(known), st.text(max_size=3)).map(".".join)
)
pairs = st.tuples(names, st.sampled_from(["=", "=", "=", "", "==", "+="]), values).map("".join)
lines = st.lists(
    st.one_of(pairs, scalars, st.sampled_from(["--retry-failed", "--help", "-x", "plan.yaml"])), max_size=4
)
usual = st.sampled_from([[], ["methods=salstm", "dataset=msvd"], ["methods=[recnet]", "dataset=shapes"]])
command_lines = st.tuples(usual, lines).map(lambda found: [*found[0], *found[1]])

READERS: dict[str, Callable[[Sequence[str]], object]] = {
    "bench run": parse_request,
    "bench tune": parse_search,
    "bench evaluate": lambda words: parse(Evaluate, words),
}
