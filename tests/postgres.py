"""A PostgreSQL server of the tests' own: on this machine only, made anew, gone with them."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

USER, PASSWORD, ENCODED = "podium", "pa@ss/w:rd", "pa%40ss%2Fw%3Ard"
SECONDS = 60
FOLDERS = ["/usr/local/bin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]
MISSING = "no PostgreSQL here: neither initdb nor postgres is on the path or in /usr/lib/postgresql"


def binaries() -> tuple[str, str] | None:
    """The paths of initdb and postgres; None where there is no PostgreSQL."""
    path = os.pathsep.join([os.environ.get("PATH", ""), *FOLDERS])
    initdb, server = shutil.which("initdb", path=path), shutil.which("postgres", path=path)
    return (initdb, server) if initdb and server else None


class Server:
    """One server with a schema for each who asks; its user's password needs encoding."""

    def __init__(self, folder: Path) -> None:
        found = binaries()
        assert found is not None, MISSING
        initdb, self._server = found
        self._data, self._count = folder / "data", itertools.count()
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if os.getuid() == 0:
            for path in (folder, secret):
                shutil.chown(path, _account().pw_name)
        words = ["-U", USER, "--pwfile", secret, "-A", "scram-sha-256", "-E", "UTF8"]
        subprocess.run(
            [initdb, "-D", self._data, *words, "--locale", "C", "--no-sync"],
            check=True,
            capture_output=True,
            **_as_account(folder),
        )

    def start(self) -> None:
        """Starts it, or starts it again, and waits until it answers; it ends with this thread."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            # So that a test can tell that the ledger asks for what is not the default.
            "synchronous_commit": "off",
            "fsync": "off",
            "shared_buffers": "16MB",
        }
        words = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        log = (self._data / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [*_dying_with_parent(), self._server, "-D", self._data, *words],
                stdout=log,
                stderr=log,
                **_as_account(self._data),
            )
        deadline = time.monotonic() + SECONDS
        while True:
            assert self._process.poll() is None, (self._data / "log").read_text()
            try:
                return self.run("SELECT 1")
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self) -> None:
        """As by its administrator: connections are cut, what was committed is kept."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(SECONDS)
            self._process = None

    def run(self, statement: str) -> Any:
        """Runs one statement, as the database's administrator; OSError where nobody answers."""
        import psycopg

        try:
            connection = psycopg.connect(self.address, autocommit=True)
        except psycopg.OperationalError as error:
            raise ConnectionError(str(error)) from None
        with connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else None

    def new_place(self) -> str:
        """The address of an empty schema of its own."""
        name = f"ledger_{next(self._count)}"
        self.run(f"CREATE SCHEMA {name}")
        return f"{self.address}?options=-csearch_path%3D{name}"

    @property
    def address(self) -> str:
        """Of its database, whose schema `public` nobody uses."""
        return f"postgresql://{USER}:{ENCODED}@127.0.0.1:{self.port}/postgres"


@contextmanager
def serving() -> Iterator[Server]:
    """Runs a server."""
    with tempfile.TemporaryDirectory(prefix="podium-postgres-") as folder:
        server = Server(Path(folder))
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _account() -> pwd.struct_passwd:
    """Whom the server runs as where the tests are root, which it refuses."""
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("neither an account postgres nor nobody")


def _as_account(folder: Path) -> Mapping[str, Any]:
    if os.getuid() != 0:
        return {"cwd": folder}
    account = _account()
    return {"cwd": folder, "user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _dying_with_parent() -> list[str]:
    """What stops the server even where the tests are killed."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "INT"] if setpriv else []
