"""Fixtures shared by all tests."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before torch is imported, here and in every process that a test starts: small products are many times slower when two
# threads fight for them, and cells train on one thread by default.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell that runs the tests in its background makes them, and all they start, deaf to Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Let METEOR find a thousand paraphrases instead of five million, in this process and in those that tests start.

    Reading them all takes nine seconds of a processor at each of dozens of starts. Tests that are about its scores ask for
    `whole_meteor`.
    """
    from meteor_jar import PACKAGES, small_package

    if PACKAGES not in os.environ:
        place = tempfile.mkdtemp(prefix="bench-packages-")
        config.add_cleanup(lambda: shutil.rmtree(place))
        small_package(Path(place))
        os.environ[PACKAGES] = place
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [place, os.environ.get("PYTHONPATH")]))
    sys.path.insert(0, os.environ[PACKAGES])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Several workers: one of them has all the tests that share what is slow to make, and long ones are begun first."""
    from xdist.scheduler import LoadScopeScheduling

    in_ray = {path.name for path in (ROOT / "tests").rglob("test_*.py") if "ray_session" in path.read_text("utf-8")}

    class Together(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            """What the test shares with others: the Ray of `ray_session`, a method's cells, or the fixtures of its file."""
            path, _, name = nodeid.partition("::")
            if Path(path).name in in_ray:
                return "ray"
            return name.rpartition("-")[0] if path == "tests/test_conformance.py" else path

    config.option.loadscopereorder = False
    return Together(config, log)


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    """A module that is first imported while a test has put something in the place of a function would keep it for good."""
    before = set(sys.modules)
    yield
    kept = [
        f"{name}.{member}"
        for name in sys.modules.keys() - before
        if name.startswith("bench.")
        for member, value in vars(sys.modules[name]).items()
        if str(getattr(value, "__module__", "")).startswith(("test_", "conftest"))
    ]
    assert not kept, f"{kept} would keep what this test put there: import these modules before anything is replaced"


@pytest.fixture(scope="module")
def whole_meteor() -> Iterator[None]:
    """METEOR with all its paraphrases in this process."""
    from meteor_jar import whole_jar

    from bench.evaluation import meteor

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(meteor, "find_jar", lambda *_: whole_jar())
        yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real research data; the test is skipped where it is absent."""
    folder = Path(os.environ.get("BENCH_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set BENCH_REAL_DATA")
    return folder.resolve()


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, to be copied: making one takes more than fifty migrations and seconds."""
    from bench.home import Home
    from bench.tracking.mlflow_runs import MlflowTracker

    home = Home(tmp_path_factory.mktemp("mlflow"))
    MlflowTracker(home.mlflow_uri, home)._client.search_experiments()
    return home.work / "mlflow.db"


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray of two processors for all tests that place cells, and nothing that outlives them."""
    ray = pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 * 2**20,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def bucket() -> Iterator[str]:
    """An S3-compatible server on loopback with a bucket called `shared`; its storage URL."""
    from moto.server import ThreadedMotoServer

    from bench.tuning.storage import place

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        options = f"?scheme=http&endpoint_override={host}:{port}&region=us-east-1"
        files, path = place(f"s3://shared/runs{options}&allow_bucket_creation=true")
        files.create_dir(path)
        yield f"s3://shared/runs{options}"
    server.stop()
