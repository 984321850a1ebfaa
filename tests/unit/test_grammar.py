"""The grammar of requests: a table of command lines and what they mean, or the exact sentence that refuses them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from small_world import World

from bench import BenchError
from bench.declare.grammar import plan_file, read_yaml, scalar, take_apart
from bench.declare.settings import given
from bench.plan.request import parse


@pytest.fixture(autouse=True)
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    return World(tmp_path, monkeypatch)


def what_was_said(words: list[str]) -> dict[str, Any]:
    """The request without its defaults."""
    said = parse(words).model_dump(exclude_unset=True)
    return {key: value for key, value in said.items() if value != {}}


BASE = ["methods=toy", "dataset=shapes"]
SAID = {"methods": ["toy"], "dataset": "shapes"}

UNDERSTOOD: list[tuple[list[str], dict[str, Any]]] = [
    (["methods=[toy,plain]", "dataset=shapes"], {"methods": ["toy", "plain"], "dataset": "shapes"}),
    (["methods=toy,plain", "dataset=shapes"], {"methods": ["toy", "plain"], "dataset": "shapes"}),
    (["methods=[toy:one, plain]", "dataset=shapes"], {"methods": ["toy:one", "plain"], "dataset": "shapes"}),
    (["methods=[toy:*]", "dataset=shapes"], {"methods": ["toy:*"], "dataset": "shapes"}),
    (["methods=toy", "dataset=1e3"], {"methods": ["toy"], "dataset": "1e3"}),
    (["methods=toy", "dataset=no"], {"methods": ["toy"], "dataset": "no"}),
    ([*BASE, "splits=010"], {**SAID, "splits": "010"}),
    ([*BASE, "splits=1:30"], {**SAID, "splits": "1:30"}),
    ([*BASE, "mlflow=off"], {**SAID, "mlflow": "off"}),
    ([*BASE, "seeds=3"], {**SAID, "seeds": [3]}),
    ([*BASE, "seeds=0,1,2"], {**SAID, "seeds": [0, 1, 2]}),
    ([*BASE, "seeds=[0, 1]"], {**SAID, "seeds": [0, 1]}),
    ([*BASE, "subset=300/50/150"], {**SAID, "subset": (300, 50, 150)}),
    ([*BASE, "subset=[3,2,1]"], {**SAID, "subset": (3, 2, 1)}),
    ([*BASE, "subset=3,2,1"], {**SAID, "subset": (3, 2, 1)}),
    ([*BASE, "subset=null"], {**SAID, "subset": None}),
    ([*BASE, "streams=frames"], {**SAID, "streams": ["frames"]}),
    ([*BASE, "train.learning_rate=1e-9"], {**SAID, "train": {"learning_rate": 1e-9}}),
    ([*BASE, "train={epochs: 5, clip: null}"], {**SAID, "train": {"epochs": 5, "clip": None}}),
    ([*BASE, "train={epochs: 5}", "train.clip=1"], {**SAID, "train": {"epochs": 5, "clip": 1.0}}),
    ([*BASE, "text.tokenizer=ptb", "search.beam=1"], {**SAID, "text": {"tokenizer": "ptb"}, "search": {"beam": 1}}),
    ([*BASE, "toy.lambda=0.2"], {**SAID, "overrides": {"toy": {"weight": 0.2}}}),
    ([*BASE, "toy.weight=1"], {**SAID, "overrides": {"toy": {"weight": 1.0}}}),
    ([*BASE, "toy={lambda: 1e-2, depth: 3}"], {**SAID, "overrides": {"toy": {"weight": 0.01, "depth": 3}}}),
    ([*BASE, "toy.mode=on"], {**SAID, "overrides": {"toy": {"mode": "on"}}}),
    ([*BASE, "toy.mode=010"], {**SAID, "overrides": {"toy": {"mode": "010"}}}),
    ([*BASE, "toy.note=1e5"], {**SAID, "overrides": {"toy": {"note": "1e5"}}}),
    ([*BASE, "toy.note=null"], {**SAID, "overrides": {"toy": {"note": None}}}),
    ([*BASE, "--retry-failed"], {**SAID, "retry_failed": True}),
    ([*BASE, "executor=inline", "threads=2"], {**SAID, "executor": "inline", "threads": 2}),
]


@pytest.mark.parametrize(("words", "said"), UNDERSTOOD, ids=[" ".join(words) for words, _ in UNDERSTOOD])
def test_understood(words: list[str], said: dict[str, Any]) -> None:
    assert what_was_said(words) == said


HERE = "command line: "
KEYS = (
    "methods, dataset, split, splits, subset, streams, protocol, loss, train, model, search, text, seeds, executor, "
    "executor.address, max_concurrent, resources, threads, device, mlflow, reuse, wandb, plain, toy"
)
REFUSED: list[tuple[list[str], str]] = [
    (["metods=toy", "dataset=shapes"], f'{HERE}unknown key "metods"; allowed: {KEYS}; did you mean "methods"?'),
    (["methods=toi", "dataset=shapes"], 'unknown method "toi"; allowed: plain, toy; did you mean "toy"?'),
    (["dataset=shapes"], f"{HERE}methods is missing, such as methods=salstm"),
    ([], f"{HERE}methods and dataset are missing, such as methods=salstm dataset=msvd"),
    ([*BASE, "epochs=3"], f"{HERE}epochs belongs to a group or a method: write train.epochs="),
    ([*BASE, "lambda=3"], f"{HERE}lambda belongs to a group or a method: write toy.lambda="),
    ([*BASE, "width=3"], f"{HERE}width belongs to a group or a method: write model.width="),
    (["methods=toy"], f"{HERE}dataset is missing, such as dataset=msvd or dataset=my/dataset.yaml"),
    ([*BASE, "dataset=e"], f"{HERE}dataset is given twice"),
    ([*BASE, "train.epochs=1", "train={epochs: 2}"], f"{HERE}train.epochs is given twice"),
    ([*BASE, "toy.lambda=0", "toy.weight=1"], f"{HERE}toy.weight is given twice, also as toy.lambda"),
    (
        [*BASE, "budget=captions", "train.budget=converged"],
        f"{HERE}budget and train.budget are two names of one option: give one of them",
    ),
    (
        [*BASE, "max_concurrent=1", "executor.max_concurrent=2"],
        f"{HERE}max_concurrent and executor.max_concurrent are two names of one option: give one of them",
    ),
    (
        [*BASE, "address=auto", "executor.address=local"],
        f"{HERE}address and executor.address are two names of one option: give one of them",
    ),
    (
        [*BASE, "executor=inline", "executor.address=auto"],
        f"{HERE}executor=inline runs cells in this process: leave executor.address=auto out, or executor=inline",
    ),
    ([*BASE, "seeds=[0,0]"], f"{HERE}seeds names 0 twice"),
    ([*BASE, "seeds=-1"], f"{HERE}seeds holds -1, but a seed must be at least 0"),
    ([*BASE, "seeds=4294967296"], f"{HERE}seeds holds 4294967296, but a seed must be at most 4294967295"),
    ([*BASE, "seeds=[]"], f"{HERE}seeds is [], but must hold at least 1"),
    ([*BASE, "seeds=0.5"], f"{HERE}seeds.0 is 0.5, but must be a whole number"),
    ([*BASE, "seeds=0,,1"], f"{HERE}'0,,1' has an empty entry between its commas"),
    ([*BASE, "train.epochs=ten"], f"{HERE}train.epochs is 'ten', but must be a whole number"),
    ([*BASE, "train.epochs=0"], f"{HERE}train.epochs is 0, but must be at least 1"),
    ([*BASE, "train.learning_rate=.inf"], f"{HERE}train.learning_rate is '.inf', but must be a number"),
    ([*BASE, "train.optimizer=adm"], None),
    ([*BASE, "search.beem=3"], None),
    ([*BASE, "train=5"], f"{HERE}train is 5, but must be a mapping (key: value)"),
    ([*BASE, "train=5", "train.epochs=3"], f"{HERE}train is given both as 5 and as train.epochs"),
    ([*BASE, "train.epochs=3", "train=5"], f"{HERE}train is given both as 5 and as train.epochs"),
    ([*BASE, "train.epochs=2", "train.epochs.x=3"], f"{HERE}train.epochs is given both as 2 and as train.epochs.x"),
    ([*BASE, "train.epochs.x=3", "train.epochs=2"], f"{HERE}train.epochs is given both as 2 and as train.epochs.x"),
    (
        [*BASE, "protocol=papr"],
        f"{HERE}protocol is 'papr', but must be one of standard, paper; did you mean \"paper\"?",
    ),
    ([*BASE, "subset=300/50"], f"{HERE}subset is '300/50', but must be train/val/test clips, such as 300/50/150"),
    ([*BASE, "subset=0/1/1"], f"{HERE}subset is 0/1/1, but each part must be at least 1"),
    ([*BASE, "toy.lamda=1"], None),
    ([*BASE, "toy.lambda=2"], f"{HERE}toy.lambda is 2, but must be at most 1"),
    ([*BASE, "toy.depth=true"], f"{HERE}toy.depth is True, but must be a whole number"),
    ([*BASE, "toy.mode=off"], f"{HERE}toy.mode is 'off', but must be one of on, 010, local"),
    ([*BASE, "toy=1"], f"{HERE}toy is a method; write methods=toy, or toy.setting=value"),
    ([*BASE, "plain.width=3"], "plain.width is set, but plain is not among methods: toy"),
    ([*BASE, "overrides.toy.depth=3"], f'{HERE}unknown key "overrides"; allowed: {KEYS}'),
    (
        [*BASE, "--retry_failed"],
        f'{HERE}unknown flag "--retry_failed"; allowed: --retry-failed; did you mean "--retry-failed"?',
    ),
    ([*BASE, "toy"], "'toy' is neither key=value nor a plan file (.yaml)"),
    ([*BASE, "a.yaml", "b.yaml"], "one plan file at a time: a.yaml, b.yaml; keys are written key=value"),
    ([*BASE, "none.yaml"], "there is no file none.yaml"),
    (["methods=", "dataset=shapes"], f"{HERE}methods= has no value; null stands for none"),
    (
        ["methods=[toy,", "dataset=shapes"],
        f"{HERE}methods: '[toy,' is not YAML (expected the node content, but found its end); quote the word for the shell",
    ),
    (
        ["methods=*", "dataset=shapes"],
        f"{HERE}methods: '*' begins with *, which YAML keeps for itself; quote it twice to mean it as text: '\"*\"'",
    ),
    ([*BASE, "splits=a # b"], f"{HERE}splits: 'a # b' has a comment; quote the value if the # belongs to it"),
    ([*BASE, "splits=!!python/name:os.system x"], None),
    ([*BASE, "9=1"], f"{HERE}'9=1' is not key=value; a key is words joined by dots"),
    (
        [*BASE, "executor.address=nowhere"],
        f"{HERE}executor.address is 'nowhere', but must be local, auto or HOST:PORT",
    ),
    (
        [*BASE, "executor.address=head:ray"],
        f"{HERE}executor.address is 'head:ray', and 'ray' is no port (1 to 65535); it must be local, auto or HOST:PORT",
    ),
    ([*BASE, f"executor.address={'a' * 300}:6379"], None),
    ([*BASE, "executor.address=a b:6379"], None),
    ([*BASE, "mlflow=http://[::1"], None),
    ([*BASE, f"mlflow=http://{'a' * 300}:5000"], None),
    ([*BASE, "mlflow=http://head:5000x"], None),
    ([*BASE, "mlflow=localhost:5000"], None),
    (
        [*BASE, "device=cuda:1"],
        f"{HERE}device=cuda:1 names one of this machine's GPUs, and Ray chooses the GPU of each cell: use device=cuda, or "
        "executor=inline, which runs the cells in this process",
    ),
    ([*BASE, "max_concurrent=0"], f"{HERE}max_concurrent is 0, but must be at least 1"),
    (
        [*BASE, "resources.gpus=0.3"],
        f"{HERE}resources.gpus is 0.3, but a share of a GPU must divide one (0.5, 0.25, 0.2), and more must be whole",
    ),
    (
        [*BASE, "executor.adress=auto"],
        f'{HERE}unknown key "executor.adress"; allowed: {KEYS}; did you mean "executor.address"?',
    ),
    ([*BASE, "device=gpu"], f"{HERE}device is 'gpu', but must be auto, cpu, cuda or cuda:NUMBER"),
]
PARTS = {
    "train.optimizer=adm": ("train.optimizer is 'adm', but must be one of adam", 'did you mean "adam'),
    "search.beem=3": ('unknown key "search.beem"; allowed: search.beam, ', 'did you mean "search.beam"?'),
    "toy.lamda=1": ('unknown setting "lamda"; allowed: weight (lambda), mode', 'did you mean "lambda"?'),
    f"executor.address={'a' * 300}:6379": ("executor.address is", "its host has 300 characters", "HOST:PORT"),
    "executor.address=a b:6379": ("'a b' is no name of a host",),
    "mlflow=http://[::1": ("mlflow is 'http://[::1'", "Invalid IPv6", "use http://HOST:5000"),
    f"mlflow=http://{'a' * 300}:5000": ("its host has 300 characters", "use http://HOST:5000"),
    "mlflow=http://head:5000x": ("'5000x' is no port (1 to 65535)", "use http://HOST:5000"),
    "mlflow=localhost:5000": ("use http://localhost:5000, if that is a server",),
    "splits=!!python/name:os.system x": ("the tag tag:yaml.org,2002:python/name:os.system is not allowed",),
}


@pytest.mark.parametrize(("words", "sentence"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_refused(words: list[str], sentence: str | None) -> None:
    with pytest.raises(BenchError) as error:
        parse(words)
    if sentence is not None:
        assert str(error.value) == sentence
    else:
        parts = next(parts for word, parts in PARTS.items() if word in words)
        assert all(part in str(error.value) for part in parts), error.value
    assert "\n" not in str(error.value)


def test_plan_file_says_the_same_as_the_command_line(world: World) -> None:
    plan = world.write(
        "plan.yaml",
        """
        methods: [toy, plain]
        dataset: "010"
        seeds: [0, 1]
        train: {learning_rate: 1e-4}
        toy.lambda: 0.5
        """,
    )
    words = ["methods=toy,plain", "dataset=010", "seeds=0,1", "train.learning_rate=0.0001", "toy.weight=0.5"]
    assert parse([str(plan)]) == parse(words)


def test_command_line_is_stronger_than_the_plan_file(world: World) -> None:
    plan = world.write(
        "plan.yaml", "{methods: toy, dataset: shapes, seeds: [1], train: {epochs: 3, clip: 1}, toy.weight: 0.5}"
    )
    spec = parse([str(plan), "seeds=0", "train.epochs=4", "toy.lambda=0.25"])
    assert spec.seeds == [0]
    assert given(spec.train) == {"epochs": 4, "clip": 1.0}
    assert spec.overrides == {"toy": {"weight": 0.25}}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[a, b]", "a plan is a mapping of the command line's keys"),
        ("methods: [a", "not YAML in line 1"),
        ("metods: toy", 'unknown key "metods"'),
        ("{methods: toy, methods: toy}", "methods is given twice"),
        ("{methods: toy, dataset: shapes, train: {epochs: ten}}", "train.epochs is 'ten'"),
    ],
)
def test_a_bad_plan_file_is_named(world: World, text: str, part: str) -> None:
    plan = world.write("plan.yaml", text)
    with pytest.raises(BenchError) as error:
        parse([str(plan)])
    assert str(error.value).startswith(f"{plan}: ")
    assert part in str(error.value)


@pytest.mark.parametrize(
    "text", ["on", "no", "yes", "True", "010", "1:30", "0x1f", "1_000", ".inf", ".nan", "+", "1e", "e5"]
)
def test_scalars_that_stay_text(text: str) -> None:
    assert scalar(text) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-9", 1e-9), ("3e-4", 3e-4), (".5", 0.5), ("1.", 1.0), ("-3", -3), ("0", 0), ("true", True), ("null", None)],
)
def test_scalars_that_are_values(text: str, value: Any) -> None:
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


# --- strangers' files ------------------------------------------------------------------------------------------------

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (LAUGHS, "its aliases make more than 100,000 values"),
        ("dataset: &a [*a]", "line 1 holds itself by an alias"),
        ("dataset: &a {b: [1, *a]}", "line 1 holds itself by an alias"),
        ("- " * 3000 + "1", "line 1 nests deeper than 40"),
        ("{" * 1000, "line 1 nests deeper than 40"),
        ("[" * 100_000, "nest"),
    ],
)
def test_bombs_are_refused_at_once(world: World, text: str, part: str) -> None:
    path = world.write("bomb.yaml", text)
    began = time.monotonic()
    for read in (lambda: plan_file(path), lambda: read_yaml(path), lambda: take_apart([f"dataset={text}"], [])):
        with pytest.raises(BenchError) as refused:
            read()
        assert len(str(refused.value)) < 400
    with pytest.raises(BenchError, match=part):
        read_yaml(path)
    assert time.monotonic() - began < 2


def test_aliases_of_ordinary_size_are_read(world: World) -> None:
    path = world.write("plan.yaml", "a: &a [1, 2]\nb: {c: *a, d: *a}\n")
    assert read_yaml(path) == {"a": [1, 2], "b": {"c": [1, 2], "d": [1, 2]}}


@pytest.mark.parametrize("number", ["9" * 23, "9" * 5000, "-" + "1" * 19, "1e999", "-1e999"])
def test_numbers_that_no_option_takes_stay_text(number: str) -> None:
    assert scalar(number) == number


def test_what_is_no_file_is_not_read(world: World) -> None:
    for path in (Path("/dev/zero"), world.write("plan.yaml", "a: 1").parent):
        with pytest.raises(BenchError, match="is no file"):
            read_yaml(path)
