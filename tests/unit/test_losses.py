"""`loss=NAME` from a request to cells: what it means, what it is refused for, and which keys it changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_world import PLAIN, TOY, World

from bench import BenchError
from bench.declare.registry import find_methods, method_digest
from bench.plan.cells import Cell, cells
from bench.plan.request import parse
from bench.plan.states import Planned, plan

LENDER = """
name: lender
summary: lends a loss
settings:
  weight: {type: float, min: 0, max: 9, default: 0.5, alias: lambda, of_loss: true}
  power: {type: float, min: 0, default: 2, of_loss: true}
  own: {type: choice, choices: [none, rare], default: rare}
  width: {type: int, default: 512, shared: true}
variants: {whole: {title: Lender}, bare: {title: Lender bare, settings: {own: none}}}
default: whole
provides: {loss: rare_words}
takes: {loss: {own: [none]}}
protocol_paper: {settings: {weight: 0.25}}
"""
OTHER = PLAIN.replace("plain", "other") + "provides: {loss: even}\n"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, monkeypatch)
    world.add_stream("frames")
    world.add_method("toy", TOY + "takes: {loss: {}}\n")
    world.add_method("lender", LENDER)
    world.add_method("other", OTHER)
    return world


def ask(world: World, *words: str, methods: str = "toy") -> list[Cell]:
    return cells(parse([f"methods={methods}", f"dataset={world.dataset}", *words]), world.home)


def one(world: World, *words: str, methods: str = "toy") -> Cell:
    (cell,) = ask(world, *words, methods=methods)
    return cell


def planned(world: World, *words: str) -> Planned:
    (found,) = plan(parse(["methods=toy", f"dataset={world.dataset}", *words]), world.home)
    return found


def test_a_configuration_says_who_lends_what_and_how(world: World) -> None:
    cell = one(world, "loss=rare_words", "lender.lambda=1")
    assert cell.config["loss"] == {
        "name": "rare_words",
        "provider": "lender",
        "settings": {"weight": 1.0, "power": 2.0},
        "provider_digest": method_digest(world.methods / "lender"),
    }
    assert cell.config["title"] == "Toy-two (words from frames, Rare Words Loss, lambda=1)"
    assert cell.label == "toy:two loss=rare_words seed 0"
    assert one(world, "loss=rare_words").config["title"] == "Toy-two (words from frames, Rare Words Loss)"
    assert one(world, "loss=even", methods="lender:bare").config["title"] == "Lender bare (Even Loss)"


def test_its_printed_settings_are_those_of_the_paper_protocol(world: World) -> None:
    def weight(*words: str) -> float:
        return float(one(world, "loss=rare_words", *words).config["loss"]["settings"]["weight"])

    assert weight() == 0.5
    assert weight("protocol=paper") == 0.25
    assert weight("protocol=paper", "lender.weight=3") == 3.0


FROZEN = {"toy": "8a9a2d5c843e7148", "plain": "226ccecc7a69ca45"}
"""Keys of a request without `loss=` under engine 2, made before it existed: they may change with the engine alone."""


@pytest.mark.parametrize("method", FROZEN)
def test_a_request_without_a_loss_keeps_its_key(world: World, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr("bench.plan.cells.ENGINE", 2)
    cell = one(world, methods=method)
    assert "loss" not in cell.config
    assert cell.key == FROZEN[method]
    assert one(world, "loss=cross_entropy", methods=method).key == cell.key


def test_keys_follow_the_loss_its_settings_and_its_code(world: World) -> None:
    plain = one(world).key
    found = {one(world, "loss=rare_words", *words).key for words in ((), ("lender.lambda=1",), ("lender.power=0",))}
    assert len({plain, *found}) == 4
    assert one(world, "loss=rare_words", "lender.lambda=0.5").key in found
    world.add_method("lender", LENDER, "x = 2\n")
    assert one(world).key == plain
    assert one(world, "loss=rare_words").key not in found


def test_other_code_of_the_loss_makes_its_cells_stale_and_no_others(world: World) -> None:
    lent = one(world, "loss=rare_words")
    world.add_record(lent)
    found = planned(world)
    assert (found.state, found.why) == ("missing", "not run yet; a record with other loss exists")
    world.add_record(one(world))
    world.add_method("lender", LENDER, "x = 2\n")
    assert planned(world).state == "done"
    found = planned(world, "loss=rare_words")
    assert (found.state, found.why) == ("stale", f"the code of the loss changed since record {lent.key}")


TAKERS = "methods that take loss=rare_words: toy"
REFUSED = [
    (
        ["loss=rare_wrods"],
        'unknown loss "rare_wrods"; allowed: cross_entropy, even, rare_words; did you mean "rare_words"?',
    ),
    (["methods=plain", "loss=rare_words"], f"plain takes no loss of another method, so not loss=rare_words; {TAKERS}"),
    (
        ["methods=toy,plain", "loss=rare_words"],
        f"plain takes no loss of another method, so not loss=rare_words; {TAKERS}",
    ),
    (
        ["methods=lender:bare", "loss=rare_words", "lender.width=3"],
        "lender provides the loss rare_words and has it by its own variants and settings, not by loss=rare_words; "
        + TAKERS,
    ),
    (
        ["methods=lender", "loss=even"],
        "lender:whole has a loss of its own; loss=even needs lender.own=none; methods that take loss=even: lender, toy",
    ),
    (["lender.lambda=1"], "lender.weight (lender.lambda) is set, but lender is not among methods: toy"),
    (["lender.lambda=1", "loss=even"], "lender.weight (lender.lambda) is set, but lender is not among methods: toy"),
    (
        ["lender.width=3", "loss=rare_words"],
        "lender.width is set, but lender is not among methods: toy; loss=rare_words reads weight, power of it",
    ),
    (["lender.lambda=10", "loss=rare_words"], "command line: lender.lambda is 10, but must be at most 9"),
]


@pytest.mark.parametrize(("words", "sentence"), REFUSED, ids=[" ".join(words) for words, _ in REFUSED])
def test_refused(world: World, words: list[str], sentence: str) -> None:
    methods = [] if words[0].startswith("methods") else ["methods=toy"]
    with pytest.raises(BenchError) as error:
        cells(parse([*methods, f"dataset={world.dataset}", *words]), world.home)
    assert str(error.value) == sentence


def test_two_lenders_of_one_name_are_refused_when_it_is_asked_for(world: World) -> None:
    world.add_method("other", OTHER.replace("even", "rare_words"))
    assert "loss" not in one(world).config
    with pytest.raises(BenchError, match="the loss rare_words is provided by lender, other: one of their cards must"):
        ask(world, "loss=rare_words")


def test_settings_that_switch_the_loss_off_are_refused_before_anything_runs(world: World) -> None:
    world.add_method("lender", LENDER.replace("default: rare}", "default: rare, of_loss: true}"))
    assert one(world, "loss=rare_words").config["loss"]["settings"]["own"] == "rare"
    with pytest.raises(BenchError, match=r"^with lender\.own=none lender has no loss rare_words: leave loss= out$"):
        ask(world, "loss=rare_words", "lender.own=none")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("provides: {loss: rare_words}\n", "", "settings: weight, power is marked of_loss, but provides.loss names no"),
        ("provides: {loss: ", "provides: {los: ", 'unknown key "provides.los"; allowed: provides.loss; did you mean'),
        ("loss: rare_words", "loss: Rare Words", "provides.loss is 'Rare Words', but must be a name of small letters"),
        ("loss: rare_words", "loss: cross_entropy", "provides.loss is cross_entropy, which every method has"),
        ("{own: [none]}", "{owns: [none]}", 'takes.loss: unknown setting "owns"'),
        ("{own: [none]}", "{own: [nothing]}", "takes.loss.own is 'nothing', but must be one of none, rare"),
    ],
)
def test_a_card_that_lends_or_takes_wrongly_is_refused(world: World, old: str, new: str, said: str) -> None:
    assert old in LENDER
    world.add_method("lender", LENDER.replace(old, new))
    assert said in str(find_methods()["lender"].error)
