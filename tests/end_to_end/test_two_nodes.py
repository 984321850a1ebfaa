"""Two nodes as deploy/README.md starts them: `ray start` twice with a token; who has it, who has not, and who goes where."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from films import film
from test_cluster import TOY

from bench.features.cache import Cache
from bench.features.sidecar import read_sidecar
from bench.records.store import all_records

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

TINY = ["model.width=16", "model.embedding=8"]
RAY = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def write_token(path: Path) -> Path:
    path.write_text(secrets.token_hex(32))
    path.chmod(0o600)
    return path


def environment(token: Path | None) -> dict[str, str]:
    """What `deploy/README.md` puts into a shell; the owner's own token is nowhere near."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "HOME": str(token.parent if token else tempfile.gettempdir())}
    return {**kept, **quiet, "RAY_AUTH_MODE": "token", **({"RAY_AUTH_TOKEN_PATH": str(token)} if token else {})}


@contextlib.contextmanager
def started(*words: str, token: Path) -> Iterator[None]:
    """A node in a process of its own; all of its processes end with the block."""
    with (token.parent / "ray.log").open("a") as log:
        node = psutil.Popen([*RAY, *words], env=environment(token), stdout=log, stderr=log)
    try:
        yield
    finally:
        family = [node, *node.children(recursive=True)]
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(family, timeout=1)
        for process in alive:
            process.kill()


DASHBOARD = free_port()
AGENT = "--dashboard-agent-listen-port={}"  # its usual one serves one node of a machine


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address and token of a head without GPUs, with Ray's dashboard and job server, and a second node with two fake ones."""
    token = write_token(tmp_path_factory.mktemp("token") / "auth_token")
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # Ray's sockets allow no long paths
    address = f"127.0.0.1:{free_port()}"
    head = [
        "--head",
        f"--port={address.partition(':')[2]}",
        "--node-ip-address=127.0.0.1",
        f"--dashboard-port={DASHBOARD}",
    ]
    head += [f"--temp-dir={folder}", "--num-cpus=2", "--num-gpus=0", AGENT.format(free_port())]
    with started(*head, "--object-store-memory=80000000", token=token):
        wait_for(address, token.parent / "ray.log")
        second = [f"--address={address}", "--num-cpus=4", "--num-gpus=2", "--object-store-memory=80000000"]
        second += [AGENT.format(free_port())]
        with started(*second, token=token):
            log, until = token.parent / "ray.log", time.monotonic() + 60
            while log.read_text().count("Ray runtime started") < 2:
                assert time.monotonic() < until, log.read_text()[-2000:]
                time.sleep(0.1)
            yield address, token
    shutil.rmtree(folder, ignore_errors=True)


def wait_for(address: str, log: Path) -> None:
    host, _, port = address.partition(":")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            return socket.create_connection((host, int(port)), timeout=1).close()
        time.sleep(0.2)
    raise AssertionError(f"no head at {address}: {log.read_text()[-2000:]}")


def driver(body: str, token: Path | None, *words: str) -> Any:
    """What `test()` in `body` returns in a process that has this token, or none."""
    program = f"{TOY}\n{textwrap.dedent(body)}\nprint('told', json.dumps(test(*sys.argv[1:])))"
    command = [sys.executable, "-c", program, *words]
    own = {
        name: value for name, value in environment(token).items() if name != "RAY_AUTH_MODE"
    }  # the head knows its mode
    done = subprocess.run(command, env=own, capture_output=True, text=True, timeout=200, cwd=Path.cwd())
    told = [line for line in done.stdout.splitlines() if line.startswith("told ")]
    assert told, done.stdout[-3000:] + done.stderr[-3000:]
    assert not done.stderr, "nothing of Ray's own reaches a person"
    return json.loads(told[0].removeprefix("told "))


def test_a_run_is_submitted_as_a_job_of_ray_s(cluster: tuple[str, Path], tmp_path: Path) -> None:
    """`ray job submit` hands the command to the head, whose environment it runs in, and tells its output and status."""
    token = cluster[1]
    submit = [*RAY[:-2], "job", "submit", f"--address=http://127.0.0.1:{DASHBOARD}", "--"]
    run = f"methods=mplstm dataset=shapes subset=8/4/4 train.epochs=1 {' '.join(TINY)} executor.address=auto mlflow=off"
    command = [*submit, "env", f"BENCH_HOME={tmp_path}", sys.executable, "-m", "bench", "run", *run.split()]
    until = time.monotonic() + 60
    while True:
        done = subprocess.run(command, env=environment(token), capture_output=True, text=True, timeout=200)
        if "No available agent" not in done.stderr or time.monotonic() > until:  # it starts after its node
            break
        time.sleep(1)
    assert done.returncode == 0 and "1 cell: 1 done" in done.stdout, done.stdout[-3000:] + done.stderr[-2000:]
    (record,) = all_records(tmp_path / "results")
    assert record.state == "done" and record.method == "mplstm"


FILMS = """
name: films
captions: [{format: jsonl, files: {captions: captions.jsonl}}]
splits: {first: [16, 2, 2]}
streams:
  frames: {videos: videos, frames: 4, encoder: shapes}
"""


def test_extraction_spreads_over_the_gpus_of_a_cluster(cluster: tuple[str, Path], tmp_path: Path) -> None:
    """The same values as here, from the node with GPUs; a clip that cannot be read is named as it is here."""
    address, token = cluster
    clips = [f"c{number:02d}" for number in range(20)]
    for number, clip in enumerate(clips[:-1]):
        film(tmp_path / "videos" / f"{clip}.mkv", 8 + number)
    (tmp_path / "videos" / f"{clips[-1]}.mkv").write_bytes(b"no film")
    (tmp_path / "captions.jsonl").write_text("\n".join(json.dumps({"clip": c, "caption": "a dog"}) for c in clips))
    (tmp_path / "dataset.yaml").write_text(FILMS)
    found = []
    for home, words in (("spread", [f"executor.address={address}"]), ("here", ["workers=0"])):
        command = [
            sys.executable,
            "-m",
            "bench",
            "features",
            "extract",
            f"dataset={tmp_path / 'dataset.yaml'}",
            "stream=frames",
        ]
        own = environment(token) | {"BENCH_HOME": str(tmp_path / home)}
        done = subprocess.run([*command, "skip=failed", *words], env=own, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("2 GPUs of 1 node share the clips" in done.stdout) == (home == "spread"), done.stdout
        assert "1 of 20 clips could not be extracted (c19: c19.mkv cannot be decoded" in done.stdout
        path = tmp_path / home / ".bench" / "cache" / "films" / "frames.h5"
        with Cache(path) as cache:
            values = {clip: cache.read(clip)[0].astype(np.float32) for clip in cache.ids}
        found.append((read_sidecar(path)["fingerprint"], values))
    (mark, spread), (own_mark, here) = found
    assert mark == own_mark and sorted(spread) == sorted(here) == clips[:-1]
    for clip in here:  # threads of another number round otherwise
        np.testing.assert_allclose(spread[clip], here[clip], atol=1e-3)


CONNECT = """
    def test(address):
        from bench import BenchError
        from bench.run.connection import connect

        {}
        try:
            connect(address)
        except BenchError as error:
            return str(error)
"""


@pytest.mark.parametrize(
    ("before", "holds", "says"),
    [
        ("pass", "another", "the cluster does not take this machine's token; copy the file"),
        ("pass", "no", "the cluster does not take this machine's token; copy the file"),
        ("ray.__version__ = '2.1.0'", "the", "2.1.0"),
        ("sys.version_info = (3, 9, 1)", "the", "3.9.1"),
    ],
    ids=["another token", "no token", "ray", "python"],
)
def test_who_cannot_join_is_told_in_a_sentence(
    cluster: tuple[str, Path], tmp_path: Path, before: str, holds: str, says: str
) -> None:
    address, theirs = cluster
    own = {"the": theirs, "another": write_token(tmp_path / "auth_token"), "no": None}[holds]
    told = driver(CONNECT.format(before), own, address)
    assert told.startswith(f"executor.address={address}: ") and says in told, told
    assert "\n" not in told and "Traceback" not in told


SHIMS = {
    # What SLURM does, on this machine alone: the words after its own options are run.
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "scontrol": "echo first; echo second",
    "hostname": "echo 127.0.0.1",
}


def test_the_script_for_slurm_starts_a_cluster_and_runs_a_command_on_it(tmp_path: Path) -> None:
    for name, body in SHIMS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    told = {"SLURM_JOB_ID": str(free_port()), "SLURM_JOB_NODELIST": "nodes", "SLURM_JOB_NUM_NODES": "2"}
    here = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "RAY_TMPDIR": folder, "BENCH_HOME": str(tmp_path / "home")}
    variables = {**environment(None), **told, "SLURM_CPUS_PER_TASK": "1", **here}
    del variables["RAY_AUTH_MODE"]  # the script sets it
    words = ["plan", "methods=mplstm", "dataset=shapes"]
    family: set[psutil.Process] = set()
    with (tmp_path / "out.txt").open("w") as out:
        script = psutil.Popen(
            ["bash", str(Path("deploy/slurm.sh").resolve()), *words],
            env=variables,
            cwd=tmp_path,
            stdout=out,
            stderr=out,
        )
    try:
        until = time.monotonic() + 150
        while script.poll() is None and time.monotonic() < until:
            family.update(script.children(recursive=True))
            time.sleep(0.1)
        told_all = (tmp_path / "out.txt").read_text()
        assert script.poll() == 0, told_all[-3000:]
        assert "\n1 cell: 1 missing. Data set shapes.\n" in told_all
        assert not list((tmp_path / ".bench").iterdir()), "the token is gone with the job"
    finally:  # SLURM ends what a job has left
        for process in (script, *family):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)
