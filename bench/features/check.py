"""Is a feature cache whole? Every fault is named together with its clips and the command that mends it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np

from bench import BenchError
from bench.errors import Finding, named
from bench.features.contents import LEFT_OUT, WRITTEN, Contents, clip_digest, describe
from bench.features.sidecar import command, fingerprint, read_sidecar, remake, sidecar_path


def check_cache(path: Path | str, ids: Iterable[str] | None = None, most: int | None = None) -> list[Finding]:
    """All that is wrong with the cache at `path`; an empty list if nothing is.

    Reads every clip, or `most` of them, equally spaced. Finds truncation, flipped bits (Fletcher-32, and SHA-256 of each
    clip), NaN and infinities, wrong shapes and lengths, clips never written, a sidecar that disagrees, and, when the clips of
    the corpus are given as `ids`, clips without features (an error) and features without a clip (a warning).
    """
    path = Path(path)
    findings = [_unfinished(path)] if path.with_name(path.name + ".tmp").exists() else []
    if not path.is_file():
        missing = Finding("error", f"there is no feature cache at {path}: {command('import', path)} makes it")
        return [*findings, missing]
    try:
        with h5py.File(path, "r", locking=False) as file:
            contents = Contents.of(file)
            findings += _declared(path, contents)
            if contents.data.shape == (len(contents.ids), *contents.header["shape"]):
                findings += _values(path, contents, most)
        findings += _sidecar(path)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        return [*findings, Finding("error", f"{path} is truncated, damaged or no cache ({error}): {remake(path)}")]
    if ids is not None:
        here = [clip for clip, done in zip(contents.ids, contents.done, strict=True) if done != LEFT_OUT]
        findings += _against_corpus(path, here, ids)
    return findings


def _unfinished(path: Path) -> Finding:
    where = path.with_name(path.name + ".tmp")
    return Finding(
        "warning", f"{where} is being written or was left unfinished: {command('import', path)} goes on with it"
    )


def _about(path: Path, clips: Sequence[str], what: str) -> Finding:
    few = f"{len(clips)} clip{'s' if len(clips) > 1 else ''} of {path} {what} ({named(clips)})"
    return Finding("error", f"{few}: {remake(path)}", tuple(clips))


def _declared(path: Path, contents: Contents) -> list[Finding]:
    """What the arrays say of themselves: shapes, ids, flags, fingerprint."""
    findings = []
    header, n = contents.header, len(contents.ids)
    expected = (n, *header["shape"])
    if contents.data.shape != expected or contents.data.dtype != np.dtype(header["dtype"]):
        have = f"{contents.data.dtype} {contents.data.shape}"
        message = f"{path} holds {have} where {header['dtype']} {expected} is declared: {remake(path)}"
        findings.append(Finding("error", message))
    twice = sorted(clip for clip, count in Counter(contents.ids).items() if count > 1)
    if twice:
        findings.append(_about(path, twice, "occur more than once"))
    absent = [clip for clip, done in zip(contents.ids, contents.done, strict=True) if not done]
    if absent:
        findings.append(_about(path, absent, "were never written"))
    longest = header["shape"][0]
    lengths = zip(contents.ids, contents.lengths.tolist(), strict=True)
    written = {clip for clip, done in zip(contents.ids, contents.done, strict=True) if done == WRITTEN}
    wrong = [clip for clip, length in lengths if clip in written and not 1 <= length <= longest]
    if wrong:
        findings.append(_about(path, wrong, f"have a length outside 1..{longest}"))
    parts = header["stream"], header["shape"], header["timed"], header["dtype"], header["attributes"]
    if contents.content != fingerprint(*parts, contents.pairs()):
        message = f"the fingerprint of {path} is not that of its declaration and clips: {remake(path)}"
        findings.append(Finding("error", message))
    return findings


def _values(path: Path, contents: Contents, most: int | None) -> list[Finding]:
    """Every clip read once, or `most` of them."""
    faults: dict[str, list[str]] = {}
    empty = []
    written = [row for row in range(len(contents.ids)) if contents.done[row] == WRITTEN]
    for row in written if most is None else written[:: max(1, len(written) // most)][:most]:
        clip = contents.ids[row]
        length = int(contents.lengths[row])
        try:
            values = contents.data[row]
        except (OSError, RuntimeError):
            faults.setdefault("are damaged on disk (checksum)", []).append(clip)
            continue
        if clip_digest(values, length) != contents.digests[row].tobytes().hex():
            faults.setdefault("are not what was written (SHA-256)", []).append(clip)
        if not np.isfinite(values).all():
            faults.setdefault("hold NaN or infinite values", []).append(clip)
        if values[length:].any():
            faults.setdefault("have values beyond their length", []).append(clip)
        if not values.any():
            empty.append(clip)
    findings = [_about(path, clips, what) for what, clips in faults.items()]
    if empty:
        message = f"{len(empty)} clips of {path} are zero throughout ({named(empty)}): look at their source"
        findings.append(Finding("warning", message, tuple(empty)))
    return findings


def _sidecar(path: Path) -> list[Finding]:
    """The sidecar against the file it describes."""
    try:
        said = read_sidecar(path)
    except BenchError as error:
        if not sidecar_path(path).exists():
            message = f"{path} has no sidecar {sidecar_path(path).name}: {command('import', path)} writes it"
            return [Finding("error", message)]
        return [Finding("error", str(error))]
    is_so = describe(path)
    wrong = sorted(name for name in said.keys() | is_so.keys() if said.get(name) != is_so.get(name))
    if not wrong:
        return []
    message = f"{sidecar_path(path)} disagrees with {path.name} in {', '.join(wrong)}: {remake(path)}"
    return [Finding("error", message)]


def _against_corpus(path: Path, found: Sequence[str], ids: Iterable[str]) -> list[Finding]:
    wanted = set(ids)
    findings = []
    absent = sorted(wanted - set(found))
    if absent:
        then = f"add them to the source, then {command('import', path)}"
        message = f"{len(absent)} clips of the corpus have no features in {path} ({named(absent)}): {then}"
        findings.append(Finding("error", message, tuple(absent)))
    extra = sorted(set(found) - wanted)
    if extra:
        message = f"{len(extra)} clips of {path} are not in the corpus and not used ({named(extra)})"
        findings.append(Finding("warning", message, tuple(extra)))
    return findings
