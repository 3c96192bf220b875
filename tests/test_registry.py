"""A study against a real MLflow server: tracked, registered, and its artifacts come back."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from search.records import TrackingError
from search.registry import unpack
from tests.running import podium

START_SECONDS = 90


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "server"
    folder.mkdir()
    process = subprocess.Popen(
        [
            *[sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)],
            *["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--workers", "1"],
            *["--artifacts-destination", str(folder / "artifacts")],
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    uri = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _answers(uri):
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server did not start"
        yield uri
    finally:
        process.terminate()
        process.wait(30)


def _answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_a_study_on_a_server_leaves_runs_report_and_model_there(
    server: str, tmp_path: Path
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "mlflow.yaml").write_text(
        f"tracking_uri: {server}\nexperiment: remote\nregistered_model: digits\n"
    )
    finished = podium(
        *["run", "--study", "remote", "--trials", "3", "--max-epochs", "3", "--finalists", "1"],
        *["--confirm-seeds", "2", "--sampler", "qmc", "--scheduler", "none"],
        folder=folder,
    )
    assert finished.code == 0, finished.err
    assert "MLflow does not have everything" not in finished.err
    mlflow.set_tracking_uri(server)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("remote")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    parent = next(r for r in runs if "mlflow.parentRunId" not in r.data.tags)
    assert len(runs) == 1 + 3 + 2 * 2
    assert "report.html" in {a.path for a in client.list_artifacts(parent.info.run_id)}
    version = client.get_model_version("digits", "1")
    local = Path(mlflow.artifacts.download_artifacts(f"models:/{version.name}/1"))
    shipped = folder / "runs/studies/remote/model/data/model.keras"
    assert (local / "data" / "model.keras").read_bytes() == shipped.read_bytes()
    (logged,) = client.search_logged_models([experiment.experiment_id])
    assert logged.source_run_id == parent.info.run_id
    assert {m.key for m in logged.metrics} >= {"test_accuracy", "baseline_test_accuracy"}
    assert not (folder / "runs" / "mlflow.db").exists()


def test_a_package_without_a_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "package.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MLmodel", "")
    with pytest.raises(TrackingError, match="no model"):
        unpack(path.read_bytes(), tmp_path / "model")
