"""Fixtures shared by all tests."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch is imported, here and in every process that a test starts: small products are many times slower when two
# threads fight for them, and cells train on one thread by default.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell that runs the tests in its background makes them, and all they start, deaf to Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


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
    from bench.tracking.client import MlflowTracker

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
