"""What the engine does on a GPU, in at most eight minutes: `make gpu`, or `python3 -m tests.gpu [PART ..] [--out FILE]`.

Needs torch, numpy, PyYAML and a GPU, no installation; timm for EtENet's second step. Parts stand in the order of their worth; the
file is written after each of them and within the long ones, so that a run which is cut short still tells what was measured.
Exit status: 0, 1 where the GPU computes something else than the CPU, 3 where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures import TimeoutError as TimeIsUp
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from bench.cell.provenance import provenance
from bench.cell.repeatable import before_torch
from tests.gpu import agreement, pixels, resume, speed, together
from tests.gpu.worlds import as_cells_do

RESULTS = Path(__file__).parent / "results"
TIME = 470.0  # seconds, of the eight minutes that are promised
NO_GPU = "This process sees no GPU, and nothing was measured: python3 -m tests.gpu needs one (nvidia-smi shows which are there)."
PRECISIONS = ("fp32", "tf32", "bf16")
LATE = {"left out": "the time was up"}


class Desk:
    """What is measured so far, and the file that tells it. `until` is when the part at hand has to end."""

    def __init__(self, path: Path, device: torch.device, quick: bool, seconds: float) -> None:
        self.path, self.device, self.quick = path, device, quick
        self.began = time.monotonic()
        self.end = self.began + seconds
        self.told: dict[str, Any] = {"hardware": hardware(device), "quick": quick, "wrong": [], "parts": {}}
        self._lock = threading.Lock()

    @contextmanager
    def part(self, name: str, most: float) -> Iterator[tuple[dict[str, Any], float]]:
        """A part and the moment by which it has to end; what goes wrong in it stops no other.

        A rehearsal has all the time: it tells whether a part runs, on a machine that may do much else.
        """
        begun = time.monotonic()
        with self._lock:
            part = self.told["parts"][name] = {}
        try:
            yield part, self.end if self.quick else min(begun + most, self.end)
        except Exception as error:
            self.tell(
                part, {"error": f"{type(error).__name__}: {error}"[:800], "trace": traceback.format_exc()[-2000:]}
            )
            self.wrong(f"{name}: {type(error).__name__}: {error}"[:300])
        self.tell(part, {"seconds of this part": time.monotonic() - begun})
        print(
            f"{name}: {time.monotonic() - begun:.0f} s, {time.monotonic() - self.began:.0f} s since the start",
            flush=True,
        )

    def tell(self, part: dict[str, Any], facts: Mapping[str, Any]) -> None:
        """Note facts of a part and write the file."""
        with self._lock:
            part.update(facts)
            self.told["seconds"] = time.monotonic() - self.began
            text = json.dumps(_rounded(self.told), indent=1)
            aside = self.path.with_suffix(".tmp")
            aside.write_text(text + "\n")
            aside.replace(self.path)

    def wrong(self, sentence: str) -> None:
        """Note what makes the command fail."""
        print(f"WRONG {sentence}", flush=True)
        with self._lock:
            self.told["wrong"].append(sentence)


def hardware(device: torch.device) -> dict[str, Any]:
    """The machine and its libraries."""
    facts = provenance(1, str(device)) | {"cores": os.cpu_count(), "numpy": sys.modules["numpy"].__version__}
    facts |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version() if device.type == "cuda" else None}
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": about.name,
            "gpu GiB": about.total_memory / 2**30,
            "multiprocessors": about.multi_processor_count,
        }
    return facts


def _rounded(value: Any) -> Any:
    """Five digits; what JSON cannot hold as text."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(key): _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


# --------------------------------------------------------------------------------------------------------------------- the parts


def right(desk: Desk) -> None:
    """Agreement with the CPU, exact resume, and the count of what a step has to do: in many processes at once."""
    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(part, desk) for part in (_agree, _resume, _count)]:
            done.result()


def _agree(desk: Desk) -> None:
    with desk.part("agreement", 130) as (part, until):
        cases = agreement.cases(3 if desk.quick else agreement.STEPS)
        if desk.quick:
            cases = cases[::9]
        rows: dict[str, Any] = {}
        desk.tell(part, {"bar": agreement.BAR, "cases": len(cases), "rows": rows})
        workers = 1 if desk.quick else 7
        for told in _spread(workers, agreement.compare, [(case, str(desk.device)) for case in cases], until):
            name = told.pop("case")
            desk.tell(rows, {name: told})
            if not told["right"]:
                about = (
                    told.get("error")
                    or f"{told['largest relative difference of a loss']}, {told['captions that differ']} captions differ"
                )
                desk.wrong(f"{name} is not on the GPU what it is on the CPU: {about}")
        apart = [max(row["largest relative difference of a loss"].values()) for row in rows.values() if "steps" in row]
        desk.tell(part, {"right": sum(row["right"] for row in rows.values()), "of": len(cases), "tried": len(rows)})
        if missing := [case.name for case in cases if case.name not in rows]:
            desk.tell(part, {"left out": f"the time was up before {', '.join(missing)}"})
        desk.tell(part, {"largest relative difference of a loss": max(apart, default=None)})
        print(f"  {part['right']} of {len(cases)} rows as on the CPU, losses within {max(apart, default=math.nan):.2g}")


def _resume(desk: Desk) -> None:
    with desk.part("resume", 130) as (part, until):
        names = resume.ROWS[:1] if desk.quick else resume.ROWS
        with ThreadPoolExecutor(len(names)) as threads:
            tries = [threads.submit(resume.compare, name, str(desk.device), desk.quick, until) for name in names]
            for done in as_completed(tries):
                told = done.result()
                desk.tell(part, {told["row"]: told})
                if not told["right"] and "left out" not in told:
                    desk.wrong(f"{told['row']} does not go on exactly: {told.get('error') or told['digests']}"[:600])


def _count(desk: Desk) -> None:
    with desk.part("work of a step", 130) as (part, until):
        asked = [(name, where, desk.quick) for where in ("msrvtt", "msvd") for name in speed.CASES]
        if desk.quick:
            asked = asked[:1]
        for told in _spread(1 if desk.quick else 3, speed.work, asked, until):
            desk.tell(part, {f"{told['case']} {told['shape']}": told})


def _spread(
    workers: int, call: Callable[..., dict[str, Any]], asked: list[tuple[Any, ...]], until: float
) -> Iterator[dict[str, Any]]:
    """Answers of a pool of fresh processes as they come; those that do not come in time are left out."""
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    tries: list[Future[dict[str, Any]]] = [pool.submit(call, *words) for words in asked]
    try:
        for done in as_completed(tries, timeout=max(until - time.monotonic(), 1.0)):
            yield done.result()
    except TimeIsUp:
        print(f"  the time was up after {sum(one.done() for one in tries)} of {len(tries)}", flush=True)
    finally:
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()


def card(desk: Desk) -> None:
    """What the card can do at most."""
    with desk.part("card", 30) as (part, _):
        desk.tell(part, speed.rates(desk.device, desk.quick))
        desk.tell(part, speed.copies(desk.device, desk.quick))
        print(f"  {', '.join(f'{name} {value:.3g}' for name, value in part.items())}")


def an_epoch(desk: Desk) -> None:
    """An epoch of MSR-VTT by recnet:local."""
    with desk.part("epoch", 75) as (part, until):
        for precision, stay in (*((one, True) for one in PRECISIONS), ("fp32", False)):
            key = precision if stay else f"{precision}, features copied batch by batch"
            if time.monotonic() > until:
                desk.tell(part, {key: LATE})
                continue
            phases = ("reconstruct", "base") if stay else ("reconstruct",)
            told = speed.epoch("recnet:local", precision, desk.device, desk.quick, phases, stay)
            desk.tell(part, {key: told})
            for phase, row in told["phases"].items():
                about = f"{row['seconds of an epoch, reckoned']:.1f} s an epoch"
                print(f"  recnet:local {phase} {key}: {about}", flush=True)


def the_steps(desk: Desk) -> None:
    """Captions per second of every method, and its shares."""
    with desk.part("steps", 165) as (part, until):
        parts = desk.told["parts"]
        asked = [(name, where) for where in ("msrvtt", "msvd") for name in speed.CASES]
        for name, where in asked[:3] if desk.quick else asked:
            key = f"{name} {where}"
            if time.monotonic() > until:
                desk.tell(part, {key: LATE})
                continue
            try:
                row = speed.steps(name, where, desk.device, desk.quick)
            except Exception as error:
                row = {"error": f"{type(error).__name__}: {error}"[:500], "trace": traceback.format_exc()[-1500:]}
                desk.wrong(f"{key}: {row['error']}")
            else:
                speed.floors(row, parts.get("work of a step", {}).get(key, {}), parts["card"])
                print("  " + _line(key, row), flush=True)
            desk.tell(part, {key: row})


def _line(key: str, row: Mapping[str, Any]) -> str:
    words = [f"{key:22s}"]
    for precision in PRECISIONS:
        one = row[precision]
        words.append(f"{precision} {one['captions/s']:,.0f}/s")
        if "share of the floor" in one:
            words.append(f"floor {one['share of the floor']:.1%}")
        if "busy" in one:
            words.append(f"busy {one['busy']:.0%}, {one['kernels']:.0f} kernels")
    return "  ".join(words)


def several(desk: Desk) -> None:
    """Four cells at once, then eight."""
    with desk.part("cells at once", 80) as (part, until):
        for count, precision in ((2, "fp32"),) if desk.quick else ((4, "fp32"), (4, "tf32"), (8, "tf32")):
            if time.monotonic() > until - 15:
                desk.tell(part, {f"{count} {precision}": LATE})
                continue
            told = together.at_once(count, str(desk.device), precision, desk.quick, until)
            desk.tell(part, {f"{count} {precision}": told})
            about = told.get("error") or f"{told['seconds of an epoch and cell, reckoned']:.1f} s a cell and epoch"
            print(
                f"  {count} cells, {precision}: {about}, busy {told.get('busy by nvidia-smi, percent')} %", flush=True
            )


def from_pixels(desk: Desk) -> None:
    """EtENet's second step."""
    with desk.part("pixels", 60) as (part, until):
        for precision in ("fp32",) if desk.quick else ("tf32", "bf16", "fp32"):
            if time.monotonic() > until:
                desk.tell(part, {precision: LATE})
                continue
            told = pixels.step2(precision, desk.device, desk.quick)
            desk.tell(part, {precision: told})
            print(f"  etenet:step2 {precision}: {told.get('left out') or told['captions/s']}", flush=True)


PARTS: dict[str, Callable[[Desk], None]] = {
    "right": right,
    "card": card,
    "epoch": an_epoch,
    "steps": the_steps,
    "several": several,
    "pixels": from_pixels,
}


def main() -> int:
    """Measure the named parts, or all."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.gpu", description="what the engine does on a GPU")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all without any")
    parser.add_argument("--out", type=Path, help="the JSON file; by default in tests/gpu/results, named after the GPU")
    parser.add_argument("--device", default="cuda", help="cpu for a rehearsal on a machine without a GPU")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether every part runs, no figures")
    parser.add_argument("--seconds", type=float, default=TIME, help="when to stop")
    given = parser.parse_args()
    if unknown := sorted({*given.parts} - {*PARTS}):
        parser.error(f"unknown part {', '.join(unknown)}; allowed: {', '.join(PARTS)}")
    before_torch()  # has made its first step on a GPU
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print(NO_GPU)
        return 3
    device = torch.device(given.device)
    as_cells_do()
    path = (
        given.out or RESULTS / f"{_slug(torch.cuda.get_device_name(device) if device.type == 'cuda' else 'cpu')}.json"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    desk = Desk(path, device, given.quick, given.seconds)
    for name in given.parts or PARTS:
        PARTS[name](desk)
    print(f"{path}; {len(desk.told['wrong'])} wrong")
    for sentence in [*desk.told["wrong"], *_left_out(desk.told["parts"])]:
        print(f"  {sentence}")
    return 1 if desk.told["wrong"] else 0


def _left_out(told: Any, where: str = "") -> Iterator[str]:
    """What the time did not suffice for, or a package lacked for, wherever it stands."""
    for name, value in told.items():
        if name == "left out":
            yield f"left out:{where}: {value}"
        elif isinstance(value, dict):
            yield from _left_out(value, f"{where} {name}")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
