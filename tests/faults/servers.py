"""A real MLflow server that can be stopped, and a proxy before it that disturbs requests."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

START_SECONDS = 240.0
KINDS = (
    "500",
    "500 after",
    "cut",
    "cut after",
    "half",
    "hang",
    "hang after",
    "late",
)
"""What a proxy does with a request: "after" is once the server has carried it out, "half" is half
of its answer, and "late" has it carried out when the client has given up."""
HANGING = ("hang", "hang after", "late")
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`mlflow server` on SQLite, at the same address each time that it is started."""

    def __init__(self, folder: Path) -> None:
        """Prepares it; everything that it keeps is in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and waits until it answers."""
        variables = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        self._process = subprocess.Popen(
            [
                *[sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"],
                *["--port", str(self.port), "--workers", "1"],
                *["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"],
                *["--artifacts-destination", str(self.folder / "artifacts")],
            ],
            env=variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError("the MLflow server did not start")
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        """Stops it at once, with the processes that it started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[Server]:
    """A server that answers; it is stopped at the end."""
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()


ASKED_FIRST = "/api/2.0/mlflow/experiments/get-by-name?"


class Proxy:
    """Forwards HTTP to a port of this machine, and disturbs a part of the requests."""

    def __init__(self, target: int, share: float, seed: int, hang_seconds: float) -> None:
        """Prepares it.

        Args:
            target: port that it forwards to.
            share: of requests that are disturbed, in [0, 1].
            seed: of the choice.
            hang_seconds: longer than the client waits.
        """
        self.target, self.share, self.hang_seconds = target, share, hang_seconds
        self.disturbed: Counter[str] = Counter()
        self.requests = 0
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._over = threading.Event()

    def choose(self, path: str) -> str:
        """What happens to the next request; "" where nothing does."""
        with self._lock:
            self.requests += 1
            # Whether there is a server at all is asked once, before a study is begun.
            if path.startswith(ASKED_FIRST) or self._random.random() >= self.share:
                return ""
            kind = self._random.choice(KINDS)
            self.disturbed[kind] += 1
            return kind

    def hang(self) -> None:
        """Lets a client wait, but not the end of the proxy."""
        self._over.wait(self.hang_seconds)

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """Serves until the end of the block; gives the address."""
        proxy = self

        class Handler(_Handler):
            disturber = proxy

        httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}"
        finally:
            self._over.set()
            httpd.shutdown()
            httpd.server_close()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disturber: Proxy

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.disturber.choose(self.path)
        if kind == "500":
            self._answer(500, {}, b"disturbed")
        elif kind == "cut":
            self._cut()
        elif kind == "hang":
            self.disturber.hang()
            self._cut()
        else:
            if kind == "late":
                self.disturber.hang()
            self._forward(kind, body)

    def _forward(self, kind: str, body: bytes) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.disturber.target, timeout=60)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            content, status = answer.read(), answer.status
            kept = {k: v for k, v in answer.getheaders() if k.lower() not in HOP_BY_HOP}
        except (OSError, http.client.HTTPException):
            self._cut()
            return
        finally:
            connection.close()
        if kind == "hang after":
            self.disturber.hang()
        if kind in ("cut after", "hang after", "late"):
            self._cut()
        elif kind == "500 after":
            self._answer(500, {}, b"disturbed")
        elif kind == "half":
            self._answer(status, kept, content, len(content) // 2)
            self._cut()
        else:
            self._answer(status, kept, content)

    def _answer(
        self, status: int, headers: dict[str, str], content: bytes, part: int | None = None
    ) -> None:
        with contextlib.suppress(OSError):
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() != "content-length":
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:part])

    def _cut(self) -> None:
        """Ends the connection as a machine does that is gone: with a reset."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.wfile.flush()
            self.connection.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _handle  # noqa: N815
