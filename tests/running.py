"""Runs the command line as a user does, in a process and a folder of its own."""

from __future__ import annotations

import contextlib
import http.server
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mlflow
    from mlflow.entities import Run

ROOT = Path(__file__).parents[1]
SECONDS = 240
LAUNCHER = """
import sys
from search.cli import main
try:
    main()
finally:
    if "tensorflow" in sys.modules:
        print("THE DRIVER IMPORTED TENSORFLOW")
"""


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str


def podium(*words: str, folder: Path, seconds: float = SECONDS, **variables: str) -> Finished:
    """Runs `podium WORDS` in `folder` and tells in its output if TensorFlow was imported."""
    process = start(*words, folder=folder, **variables)
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return Finished(process.returncode, out, err)


def start(
    *words: str, folder: Path, own_group: bool = False, **variables: str
) -> subprocess.Popen[str]:
    """Starts `podium WORDS` in `folder` and lets it run; `own_group`: of processes."""
    return subprocess.Popen(
        [sys.executable, "-u", "-c", LAUNCHER, *words],
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0 if own_group else None,
    )


def environment(**variables: str) -> dict[str, str]:
    """For a `podium` of this tree, also where another one is installed."""
    # MLflow's client sets its variable in this process, for other tests.
    left_out = ("RAY_ADDRESS", "PYTHONPATH", "MLFLOW_TRACKING_URI")
    inherited = {k: v for k, v in os.environ.items() if k not in left_out}
    return {**inherited, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **variables}


@dataclass(frozen=True)
class Tracked:
    """A folder's one study as MLflow has it: the parent run, and those of its trials."""

    client: mlflow.MlflowClient
    parent: Run
    children: list[Run]


def tracked(folder: Path) -> Tracked:
    """What MLflow has of the only study that was run in `folder`."""
    import mlflow  # here, because most tests of the command line do without

    mlflow.set_tracking_uri(f"sqlite:///{folder}/runs/mlflow.db")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("podium")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    [parent] = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = [r for r in runs if r.info.run_id != parent.info.run_id]
    return Tracked(client, parent, children)


@contextlib.contextmanager
def serving(
    handler: type[http.server.BaseHTTPRequestHandler], context: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Serves HTTP, or HTTPS, on a free port of this machine, silently; gives the port."""

    class Silent(handler):  # type: ignore[misc, valid-type]
        def log_message(self, *_: object) -> None:
            """Says nothing."""

    httpd = http.server.HTTPServer(("127.0.0.1", 0), Silent)
    if context is not None:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield httpd.server_port
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
